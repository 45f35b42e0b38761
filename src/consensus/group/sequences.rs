//! The order of a stream's proposals: none is appended after one that was not appended.
//!
//! A stream does not wait for one answer before it sends the next request, so when one is refused (a full queue, an
//! `expected_offset`, a lost leader) others follow it, here or over a peer's link. The leader takes a run of a stream from its
//! sequence 0 on, one by one, within one term; what follows a gap is refused.
//!
//! A run ends when all its requests are answered, and the next run has a new id. The leader does not learn that a run has ended,
//! and still remembers the run's next sequence. If both runs had the same id, sequence 1 of the second run could be taken for the
//! next one of the first run although sequence 0 was refused before it reached the leader. So a known id can't begin again either.

use std::collections::HashMap;

use crate::consensus::handle::StreamPosition;
use crate::types::{StreamId, Term};

/// The runs of one generation. When it is full the generation before it is forgotten: a run without a proposal since then is
/// refused. An unanswered run is not affected: entries are applied in log order, so 32,768 other runs would have to
/// begin between two of its proposals.
const STREAMS_MAX: usize = 1 << 15;

/// The next proposal of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Next {
    sequence: u64,
    term: Term,
}

/// The streams that a group takes.
#[derive(Debug, Default)]
pub struct StreamSequences {
    young: HashMap<StreamId, Next>,
    old: HashMap<StreamId, Next>,
}

impl StreamSequences {
    /// True if the proposal at that position is the run's next. Its run is refused from then on, unless [`StreamSequences::taken`]
    /// is called.
    pub fn take(&mut self, position: StreamPosition, term: Term) -> bool {
        let next = self.young.remove(&position.stream).or_else(|| self.old.remove(&position.stream));
        match next {
            None => position.sequence == 0,
            Some(next) => next == Next { sequence: position.sequence, term },
        }
    }

    /// The proposal at that position was appended.
    pub fn taken(&mut self, position: StreamPosition, term: Term) {
        if self.young.len() >= STREAMS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(position.stream, Next { sequence: position.sequence + 1, term });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn propose(streams: &mut StreamSequences, stream: u64, sequence: u64, term: u64) -> bool {
        let position = StreamPosition { stream: StreamId(stream), sequence };
        let taken = streams.take(position, Term(term));
        if taken {
            streams.taken(position, Term(term));
        }
        taken
    }

    #[test]
    fn a_run_has_no_gap_and_one_term() {
        let mut streams = StreamSequences::default();
        assert!(propose(&mut streams, 7, 0, 1) && propose(&mut streams, 7, 1, 1));
        assert!(propose(&mut streams, 8, 0, 1), "streams do not touch each other");
        assert!(!propose(&mut streams, 7, 3, 1), "2 is missing");
        assert!(!propose(&mut streams, 7, 2, 1), "and is late now");
        assert!(!propose(&mut streams, 8, 1, 2), "what was before it may be lost with its term");
        assert!(!propose(&mut streams, 9, 1, 1), "0 was not taken");
        assert!(propose(&mut streams, 10, 0, 2) && propose(&mut streams, 10, 1, 2), "the next run, in the next term");
    }

    /// All runs of a stream once had the same id. The first run ended at sequence 2; positions 0 and 1 of the second run met a
    /// full inbox and never arrived here, and its sequence 2 was appended.
    #[test]
    fn a_run_that_lost_its_first_requests_is_refused() {
        let mut streams = StreamSequences::default();
        let first = StreamId(7);
        assert!(propose(&mut streams, first.0, 0, 1) && propose(&mut streams, first.0, 1, 1));
        let second = first.next();
        for sequence in [2, 1, 3] {
            assert!(!propose(&mut streams, second.0, sequence, 1), "{sequence} without those before");
        }
        assert!(!propose(&mut streams, first.0, 0, 1), "an id that is used again");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_a_forgotten_run_is_refused() {
        let mut streams = StreamSequences::default();
        assert!(propose(&mut streams, 0, 0, 1) && propose(&mut streams, 1, 0, 1));
        for stream in 2..3 * STREAMS_MAX as u64 {
            assert!(propose(&mut streams, stream, 0, 1));
            if stream % 1000 == 0 {
                assert!(propose(&mut streams, 1, stream / 1000, 1), "one that continues is kept");
            }
        }
        assert!(streams.young.len() + streams.old.len() <= 2 * STREAMS_MAX);
        assert!(!propose(&mut streams, 0, 1, 1));
    }
}
