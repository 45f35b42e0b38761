//! Rows: the proposals of one run of a stream. None is appended after one that was not appended.
//!
//! A stream does not wait for one answer before it sends the next request, so when one is refused (a full queue, an
//! `expected_offset`, a leader that went) others are on their way behind it, here or over a peer's link. Whoever leads
//! takes a row from its position 0 on, one by one, within one term; what comes behind a gap is refused.
//!
//! A run ends when all its requests are answered, and the next run has a new id. The leader does not learn that a run has ended,
//! and still remembers the run's next position. If both runs had the same id, position 1 of the second run could be taken for the
//! next one of the first run although position 0 was refused before it reached the leader. So a known id can't begin again either.

use std::collections::HashMap;

use super::handle::Place;
use crate::types::{RowId, Term};

/// Rows of one generation. When it is full the generation before it is forgotten: a row without a proposal for that long is
/// refused from then on. An unanswered run is not affected: entries are applied in log order, so 32,768 other runs would have to
/// begin between two of its proposals.
const ROWS_MAX: usize = 1 << 15;

/// Where a row goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Next {
    position: u64,
    term: Term,
}

/// The rows that a group takes.
#[derive(Debug, Default)]
pub struct Rows {
    young: HashMap<RowId, Next>,
    old: HashMap<RowId, Next>,
}

impl Rows {
    /// True when the proposal at that place is the row's next. Afterwards the row is broken, unless [`Rows::taken`].
    pub fn take(&mut self, place: Place, term: Term) -> bool {
        let next = self.young.remove(&place.row).or_else(|| self.old.remove(&place.row));
        match next {
            None => place.position == 0,
            Some(next) => next == Next { position: place.position, term },
        }
    }

    /// The proposal at that place was appended.
    pub fn taken(&mut self, place: Place, term: Term) {
        if self.young.len() >= ROWS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(place.row, Next { position: place.position + 1, term });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn propose(rows: &mut Rows, row: u64, position: u64, term: u64) -> bool {
        let place = Place { row: RowId(row), position };
        let taken = rows.take(place, Term(term));
        if taken {
            rows.taken(place, Term(term));
        }
        taken
    }

    #[test]
    fn a_row_has_no_gap_and_one_term() {
        let mut rows = Rows::default();
        assert!(propose(&mut rows, 7, 0, 1) && propose(&mut rows, 7, 1, 1));
        assert!(propose(&mut rows, 8, 0, 1), "rows do not touch each other");
        assert!(!propose(&mut rows, 7, 3, 1), "2 did not come");
        assert!(!propose(&mut rows, 7, 2, 1), "and is late now");
        assert!(!propose(&mut rows, 8, 1, 2), "what was before it may be lost with its term");
        assert!(!propose(&mut rows, 9, 1, 1), "0 was not taken");
        assert!(propose(&mut rows, 10, 0, 2) && propose(&mut rows, 10, 1, 2), "the next run, in the next term");
    }

    /// All runs of a stream once had the same id. The first run ended at position 2; positions 0 and 1 of the second run met a
    /// full inbox and never arrived here, and its position 2 was appended.
    #[test]
    fn a_run_that_lost_its_first_requests_is_refused() {
        let mut rows = Rows::default();
        let first = RowId(7);
        assert!(propose(&mut rows, first.0, 0, 1) && propose(&mut rows, first.0, 1, 1));
        let second = first.next();
        for position in [2, 1, 3] {
            assert!(!propose(&mut rows, second.0, position, 1), "{position} without those before");
        }
        assert!(!propose(&mut rows, first.0, 0, 1), "an id that is used again");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_a_forgotten_row_is_refused() {
        let mut rows = Rows::default();
        assert!(propose(&mut rows, 0, 0, 1) && propose(&mut rows, 1, 0, 1));
        for row in 2..3 * ROWS_MAX as u64 {
            assert!(propose(&mut rows, row, 0, 1));
            if row % 1000 == 0 {
                assert!(propose(&mut rows, 1, row / 1000, 1), "one that goes on is kept");
            }
        }
        assert!(rows.young.len() + rows.old.len() <= 2 * ROWS_MAX);
        assert!(!propose(&mut rows, 0, 1, 1));
    }
}
