//! Keeps the order of a stream's proposals: after a proposal that was not appended, no later one is appended.
//!
//! A stream does not wait for a response before it sends its next request. So if one request is refused (a full
//! queue, an `expected_offset`, a lost leader), others may already be on their way, on this node or over a peer's
//! connection. A stream's requests therefore form runs, numbered from sequence 0. The leader accepts the proposals of
//! a run only in sequence and within one term. It refuses everything after a gap.
//!
//! A run ends when all its requests are answered; the next run has a new id. The leader does not learn that a run has
//! ended, and still remembers its next sequence. If two runs had the same id, sequence 1 of the second run could be
//! mistaken for sequence 1 of the first, although sequence 0 of the second was refused before it reached the leader.
//! For the same reason, a known id can't restart at sequence 0.

use std::collections::HashMap;

use crate::consensus::handle::StreamPosition;
use crate::types::{StreamId, Term};

/// The number of runs in a generation. When the young generation is full, the old one is dropped, and runs without a
/// proposal since then are refused. A run with unanswered requests is not affected in practice: 32,768 other runs
/// would have to start between two of its proposals.
const STREAMS_MAX: usize = 1 << 15;

/// The expected next proposal of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Next {
    sequence: u64,
    term: Term,
}

/// The runs that a group has accepted proposals of.
#[derive(Debug, Default)]
pub struct StreamSequences {
    young: HashMap<StreamId, Next>,
    old: HashMap<StreamId, Next>,
}

impl StreamSequences {
    /// Returns true if the proposal at that position is the next one of its run. The run is refused from then on,
    /// unless the caller calls [`StreamSequences::taken`].
    pub fn take(&mut self, position: StreamPosition, term: Term) -> bool {
        let next = self.young.remove(&position.stream).or_else(|| self.old.remove(&position.stream));
        match next {
            None => position.sequence == 0,
            Some(next) => next == Next { sequence: position.sequence, term },
        }
    }

    /// Records that the proposal at that position was appended.
    pub fn record_appended(&mut self, position: StreamPosition, term: Term) {
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
            streams.record_appended(position, Term(term));
        }
        taken
    }

    #[test]
    fn a_run_has_no_gap_and_one_term() {
        let mut streams = StreamSequences::default();
        assert!(propose(&mut streams, 7, 0, 1) && propose(&mut streams, 7, 1, 1));
        assert!(propose(&mut streams, 8, 0, 1), "streams are independent");
        assert!(!propose(&mut streams, 7, 3, 1), "2 is missing");
        assert!(!propose(&mut streams, 7, 2, 1), "the run had a gap");
        assert!(!propose(&mut streams, 8, 1, 2), "proposals of the earlier term may be lost");
        assert!(!propose(&mut streams, 9, 1, 1), "0 was not appended");
        assert!(propose(&mut streams, 10, 0, 2) && propose(&mut streams, 10, 1, 2), "the next run, in the next term");
    }

    /// All runs of a stream had the same id. The first run ended before sequence 2. Sequences 0 and 1 of the second
    /// run were refused by a full inbox, and its sequence 2 was appended.
    #[test]
    fn a_run_that_lost_its_first_requests_is_refused() {
        let mut streams = StreamSequences::default();
        let first = StreamId(7);
        assert!(propose(&mut streams, first.0, 0, 1) && propose(&mut streams, first.0, 1, 1));
        let second = first.next();
        for sequence in [2, 1, 3] {
            assert!(!propose(&mut streams, second.0, sequence, 1), "{sequence} without the ones before it");
        }
        assert!(!propose(&mut streams, first.0, 0, 1), "a reused id");
    }

    #[test]
    fn the_number_of_runs_is_bounded_and_a_dropped_run_is_refused() {
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
