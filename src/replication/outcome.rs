//! The outcome of a forwarded job on the wire: consensus's answers as numbers, and what they mean to whoever forwarded.
//!
//! The node that forwarded must not learn less than the leader knew, but some of the leader's answers are about the leader
//! alone: that it leads no more, is stopping, or does not carry the group means "not appended" here.

use crate::consensus::handle::{Appended, ProposeError, ReadIndexError};
use crate::pb::peer;
use crate::types::{LogIndex, Offset, Term};

const NOT_LEADER: u32 = 1;
const QUEUE_FULL: u32 = 2;
const TOO_LARGE: u32 = 3;
const DROPPED: u32 = 4;
const OUTCOME_UNKNOWN: u32 = 5;
const DEADLINE_PASSED: u32 = 6;
const EXPECTED_OFFSET: u32 = 7;
const PAST_END: u32 = 8;
const NO_SUCH_GROUP: u32 = 9;
const DAMAGED: u32 = 10;
const STOPPING: u32 = 11;
const UNCONFIRMED: u32 = 12;
const DISK_FULL: u32 = 13;

/// The outcome of a proposal, to be sent.
pub fn appended_outcome(id: u64, result: Result<Appended, ProposeError>) -> peer::Outcome {
    let (code, detail) = match result {
        Ok(appended) => {
            let mut outcome = peer::Outcome { id, ..peer::Outcome::default() };
            let out = outcome.mut_appended();
            out.offset = appended.offset.0;
            out.count = appended.count;
            out.term = appended.term.0;
            out.index = appended.index.0;
            out.append_time_us = appended.append_time_us;
            return outcome;
        }
        Err(ProposeError::NotLeader { .. }) => (NOT_LEADER, 0),
        Err(ProposeError::QueueFull) => (QUEUE_FULL, 0),
        Err(ProposeError::DiskFull) => (DISK_FULL, 0),
        Err(ProposeError::TooLarge) => (TOO_LARGE, 0),
        Err(ProposeError::Dropped) => (DROPPED, 0),
        Err(ProposeError::OutcomeUnknown) => (OUTCOME_UNKNOWN, 0),
        Err(ProposeError::DeadlinePassed) => (DEADLINE_PASSED, 0),
        Err(ProposeError::ExpectedOffset { next_offset }) => (EXPECTED_OFFSET, next_offset.0),
        Err(ProposeError::PastEnd { next_offset }) => (PAST_END, next_offset.0),
        Err(ProposeError::NoSuchGroup) => (NO_SUCH_GROUP, 0),
        Err(ProposeError::Damaged) => (DAMAGED, 0),
        Err(ProposeError::Stopping) => (STOPPING, 0),
    };
    refused(id, code, detail)
}

/// The outcome of a read index, to be sent.
pub fn read_index_outcome(id: u64, result: Result<LogIndex, ReadIndexError>) -> peer::Outcome {
    let code = match result {
        Ok(index) => {
            let mut outcome = peer::Outcome { id, ..peer::Outcome::default() };
            outcome.set_read_index(index.0);
            return outcome;
        }
        Err(ReadIndexError::NotLeader { .. }) => NOT_LEADER,
        Err(ReadIndexError::Unconfirmed) => UNCONFIRMED,
        Err(ReadIndexError::QueueFull) => QUEUE_FULL,
        Err(ReadIndexError::NoSuchGroup) => NO_SUCH_GROUP,
        Err(ReadIndexError::Damaged) => DAMAGED,
        Err(ReadIndexError::Stopping) => STOPPING,
    };
    refused(id, code, 0)
}

fn refused(id: u64, code: u32, detail: u64) -> peer::Outcome {
    let mut outcome = peer::Outcome { id, ..peer::Outcome::default() };
    outcome.set_refused(peer::Refused { code, detail, ..peer::Refused::default() });
    outcome
}

/// What the outcome means for a proposal that this node forwarded. What can't be understood may have been appended.
pub fn read_appended(outcome: peer::Outcome) -> Result<Appended, ProposeError> {
    let refused = match outcome.outcome {
        // No log comes to such numbers, and no client could be told.
        Some(peer::outcome::Outcome::Appended(a))
            if Offset(a.offset).plus(a.count.into()).is_none() || Term(a.term) > Term::MAX =>
        {
            return Err(ProposeError::OutcomeUnknown);
        }
        Some(peer::outcome::Outcome::Appended(a)) => {
            return Ok(Appended {
                offset: Offset(a.offset),
                count: a.count,
                term: Term(a.term),
                index: LogIndex(a.index),
                append_time_us: a.append_time_us,
            });
        }
        Some(peer::outcome::Outcome::Refused(refused)) => refused,
        Some(peer::outcome::Outcome::ReadIndex(_)) | None => return Err(ProposeError::OutcomeUnknown),
    };
    let next_offset = Offset(refused.detail);
    Err(match refused.code {
        NOT_LEADER | DROPPED | NO_SUCH_GROUP | DAMAGED | STOPPING => ProposeError::Dropped,
        QUEUE_FULL => ProposeError::QueueFull,
        DISK_FULL => ProposeError::DiskFull,
        TOO_LARGE => ProposeError::TooLarge,
        DEADLINE_PASSED => ProposeError::DeadlinePassed,
        EXPECTED_OFFSET => ProposeError::ExpectedOffset { next_offset },
        PAST_END => ProposeError::PastEnd { next_offset },
        // A code of a newer version says nothing about what happened.
        OUTCOME_UNKNOWN | UNCONFIRMED | 0 | 14.. => ProposeError::OutcomeUnknown,
    })
}

/// What the outcome means for a read index that this node asked for.
pub fn read_read_index(outcome: peer::Outcome) -> Result<LogIndex, ReadIndexError> {
    match outcome.outcome {
        Some(peer::outcome::Outcome::ReadIndex(index)) => Ok(LogIndex(index)),
        Some(peer::outcome::Outcome::Refused(refused)) => Err(match refused.code {
            NOT_LEADER | NO_SUCH_GROUP | DAMAGED | STOPPING => ReadIndexError::NotLeader { leader: None },
            QUEUE_FULL => ReadIndexError::QueueFull,
            0 | TOO_LARGE..=PAST_END | UNCONFIRMED.. => ReadIndexError::Unconfirmed,
        }),
        Some(peer::outcome::Outcome::Appended(_)) | None => Err(ReadIndexError::Unconfirmed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_consensus_survive_the_way() {
        let appended = Appended {
            offset: Offset(7),
            count: 2,
            term: Term(3),
            index: LogIndex(11),
            append_time_us: 1_700_000_000_000_000,
        };
        assert_eq!(read_appended(appended_outcome(1, Ok(appended))), Ok(appended));
        for large in [Appended { offset: Offset::MAX, ..appended }, Appended { term: Term(1 << 63), ..appended }] {
            assert_eq!(read_appended(appended_outcome(1, Ok(large))), Err(ProposeError::OutcomeUnknown));
        }
        let next_offset = Offset(9);
        for same in [
            ProposeError::QueueFull,
            ProposeError::DiskFull,
            ProposeError::TooLarge,
            ProposeError::Dropped,
            ProposeError::OutcomeUnknown,
            ProposeError::DeadlinePassed,
            ProposeError::ExpectedOffset { next_offset },
            ProposeError::PastEnd { next_offset },
        ] {
            assert_eq!(read_appended(appended_outcome(1, Err(same))), Err(same));
        }
        for not_here in [
            ProposeError::NotLeader { leader: None },
            ProposeError::NoSuchGroup,
            ProposeError::Damaged,
            ProposeError::Stopping,
        ] {
            assert_eq!(read_appended(appended_outcome(1, Err(not_here))), Err(ProposeError::Dropped));
        }
        assert_eq!(read_appended(refused(1, 99, 0)), Err(ProposeError::OutcomeUnknown));
        assert_eq!(read_appended(peer::Outcome::new()), Err(ProposeError::OutcomeUnknown));

        assert_eq!(read_read_index(read_index_outcome(1, Ok(LogIndex(5)))), Ok(LogIndex(5)));
        for same in [ReadIndexError::QueueFull, ReadIndexError::Unconfirmed, ReadIndexError::NotLeader { leader: None }]
        {
            assert_eq!(read_read_index(read_index_outcome(1, Err(same))), Err(same));
        }
        assert_eq!(read_read_index(refused(1, 99, 0)), Err(ReadIndexError::Unconfirmed));
    }
}
