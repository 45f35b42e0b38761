//! The outcome of a forwarded job on the wire: encodes the answers of the leader's consensus, and decodes them for
//! the node that forwarded the job.
//!
//! The forwarding node must learn everything that the leader knows about the outcome. Some answers concern only the
//! leader itself: if it no longer leads, is stopping, or has no replica of the group, the forwarding node only needs
//! to know that the proposal was not appended. If this version does not know a code or a kind of outcome, the outcome
//! is unknown.

use crate::codes::{UnknownCode, codes};
use crate::consensus::handle::{Appended, ProposeError, ReadIndexError};
use crate::log_state::StateRefusal;
use crate::pb::peer;
use crate::types::{GroupId, LogIndex, NodeId, Offset, Term};

codes! {
    /// Why the other node has refused a job.
    pub enum RefusedJob: u32, "refusal code" {
        /// It does not lead the group.
        NotLeader = 1,
        /// A queue is full.
        QueueFull = 2,
        /// The entry is too large.
        TooLarge = 3,
        /// The proposal was dropped before it was appended.
        Dropped = 4,
        /// It is not known whether the proposal was appended.
        OutcomeUnknown = 5,
        /// The job's deadline has passed.
        DeadlinePassed = 6,
        /// The expected offset does not match.
        ExpectedOffset = 7,
        /// The offset is above the end of the log.
        PastEnd = 8,
        /// It has no replica of the group.
        NoSuchGroup = 9,
        /// Its replica is damaged.
        Damaged = 10,
        /// It is stopping.
        Stopping = 11,
        /// It could not confirm that it still leads.
        Unconfirmed = 12,
        /// Its disk is full.
        DiskFull = 13,
        /// A member does not support the feature level.
        LevelUnsupported = 14,
        /// The leader does not hear from a member.
        MemberSilent = 15,
        /// A group could not commit without the node that is to leave.
        NodeNeeded = 16,
    }
}

/// Encodes the outcome of a proposal.
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
            out.duplicate = appended.duplicate;
            return outcome;
        }
        Err(ProposeError::NotLeader { leader }) => (RefusedJob::NotLeader, node_number(leader)),
        Err(ProposeError::QueueFull) => (RefusedJob::QueueFull, 0),
        Err(ProposeError::DiskFull) => (RefusedJob::DiskFull, 0),
        Err(ProposeError::TooLarge) => (RefusedJob::TooLarge, 0),
        Err(ProposeError::Dropped) => (RefusedJob::Dropped, 0),
        Err(ProposeError::OutcomeUnknown) => (RefusedJob::OutcomeUnknown, 0),
        Err(ProposeError::DeadlinePassed) => (RefusedJob::DeadlinePassed, 0),
        Err(ProposeError::ExpectedOffset { next_offset }) => (RefusedJob::ExpectedOffset, next_offset.0),
        Err(ProposeError::PastEnd { next_offset }) => (RefusedJob::PastEnd, next_offset.0),
        Err(ProposeError::State(refusal)) => {
            let (code, detail) = refusal.code();
            return refused(id, code, detail);
        }
        Err(ProposeError::LevelUnsupported { member }) => (RefusedJob::LevelUnsupported, member.0),
        Err(ProposeError::MemberSilent { member }) => (RefusedJob::MemberSilent, member.0),
        Err(ProposeError::NodeNeeded { group }) => (RefusedJob::NodeNeeded, group.0),
        Err(ProposeError::NoSuchGroup) => (RefusedJob::NoSuchGroup, 0),
        Err(ProposeError::Damaged) => (RefusedJob::Damaged, 0),
        Err(ProposeError::Stopping) => (RefusedJob::Stopping, 0),
    };
    refused(id, code.code(), detail)
}

/// Encodes the outcome of a read index.
pub fn read_index_outcome(id: u64, result: Result<LogIndex, ReadIndexError>) -> peer::Outcome {
    let (code, detail) = match result {
        Ok(index) => {
            let mut outcome = peer::Outcome { id, ..peer::Outcome::default() };
            outcome.set_read_index(index.0);
            return outcome;
        }
        Err(ReadIndexError::NotLeader { leader }) => (RefusedJob::NotLeader, node_number(leader)),
        Err(ReadIndexError::Unconfirmed) => (RefusedJob::Unconfirmed, 0),
        Err(ReadIndexError::QueueFull) => (RefusedJob::QueueFull, 0),
        Err(ReadIndexError::NoSuchGroup) => (RefusedJob::NoSuchGroup, 0),
        Err(ReadIndexError::Damaged) => (RefusedJob::Damaged, 0),
        Err(ReadIndexError::Stopping) => (RefusedJob::Stopping, 0),
    };
    refused(id, code.code(), detail)
}

/// Encodes the leader in a refusal; 0 if none is known.
fn node_number(leader: Option<NodeId>) -> u64 {
    leader.map_or(0, |node| node.0)
}

fn node_of(detail: u64) -> Option<NodeId> {
    (detail != 0).then_some(NodeId(detail))
}

fn refused(id: u64, code: u32, detail: u64) -> peer::Outcome {
    let mut outcome = peer::Outcome { id, ..peer::Outcome::default() };
    outcome.set_refused(peer::Refused { code, detail, ..peer::Refused::default() });
    outcome
}

/// Returns the part of an outcome that only a newer version knows, for the log.
pub fn unknown_part(outcome: &peer::Outcome) -> Option<String> {
    match &outcome.outcome {
        None => Some("an outcome of a kind that this version does not know".to_owned()),
        Some(peer::outcome::Outcome::Refused(refused)) => {
            let of_state = StateRefusal::of_code(refused.code, refused.detail);
            RefusedJob::try_from(refused.code).err().filter(|_| of_state.is_none()).map(|e| e.to_string())
        }
        Some(peer::outcome::Outcome::Appended(_) | peer::outcome::Outcome::ReadIndex(_)) => None,
    }
}

/// Decodes the outcome of a proposal that this node forwarded. If the outcome can't be decoded, the proposal may have
/// been appended.
pub fn read_appended(outcome: peer::Outcome) -> Result<Appended, ProposeError> {
    let refused = match outcome.outcome {
        // No log reaches such numbers, and they can't be sent to a client.
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
                duplicate: a.duplicate,
            });
        }
        Some(peer::outcome::Outcome::Refused(refused)) => refused,
        Some(peer::outcome::Outcome::ReadIndex(_)) | None => return Err(ProposeError::OutcomeUnknown),
    };
    let next_offset = Offset(refused.detail);
    if let Some(refusal) = StateRefusal::of_code(refused.code, refused.detail) {
        return Err(ProposeError::State(refusal));
    }
    let Ok(code) = RefusedJob::try_from(refused.code) else { return Err(ProposeError::OutcomeUnknown) };
    Err(match code {
        RefusedJob::NotLeader => ProposeError::NotLeader { leader: node_of(refused.detail) },
        RefusedJob::Dropped | RefusedJob::NoSuchGroup | RefusedJob::Damaged | RefusedJob::Stopping => {
            ProposeError::Dropped
        }
        RefusedJob::QueueFull => ProposeError::QueueFull,
        RefusedJob::DiskFull => ProposeError::DiskFull,
        RefusedJob::TooLarge => ProposeError::TooLarge,
        RefusedJob::DeadlinePassed => ProposeError::DeadlinePassed,
        RefusedJob::ExpectedOffset => ProposeError::ExpectedOffset { next_offset },
        RefusedJob::PastEnd => ProposeError::PastEnd { next_offset },
        RefusedJob::LevelUnsupported => ProposeError::LevelUnsupported { member: NodeId(refused.detail) },
        RefusedJob::MemberSilent => ProposeError::MemberSilent { member: NodeId(refused.detail) },
        RefusedJob::NodeNeeded => ProposeError::NodeNeeded { group: GroupId(refused.detail) },
        RefusedJob::OutcomeUnknown | RefusedJob::Unconfirmed => ProposeError::OutcomeUnknown,
    })
}

/// Decodes the outcome of a read index that this node requested.
pub fn read_read_index(outcome: peer::Outcome) -> Result<LogIndex, ReadIndexError> {
    match outcome.outcome {
        Some(peer::outcome::Outcome::ReadIndex(index)) => Ok(LogIndex(index)),
        Some(peer::outcome::Outcome::Refused(refused)) => Err(match RefusedJob::try_from(refused.code) {
            Ok(RefusedJob::NotLeader) => ReadIndexError::NotLeader { leader: node_of(refused.detail) },
            Ok(RefusedJob::NoSuchGroup | RefusedJob::Damaged | RefusedJob::Stopping) => {
                ReadIndexError::NotLeader { leader: None }
            }
            Ok(RefusedJob::QueueFull) => ReadIndexError::QueueFull,
            Ok(
                RefusedJob::TooLarge
                | RefusedJob::Dropped
                | RefusedJob::OutcomeUnknown
                | RefusedJob::DeadlinePassed
                | RefusedJob::ExpectedOffset
                | RefusedJob::PastEnd
                | RefusedJob::Unconfirmed
                | RefusedJob::DiskFull
                | RefusedJob::LevelUnsupported
                | RefusedJob::MemberSilent
                | RefusedJob::NodeNeeded,
            )
            | Err(UnknownCode { .. }) => ReadIndexError::Unconfirmed,
        }),
        Some(peer::outcome::Outcome::Appended(_)) | None => Err(ReadIndexError::Unconfirmed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_consensus_decode_as_encoded() {
        let appended = Appended {
            offset: Offset(7),
            count: 2,
            term: Term(3),
            index: LogIndex(11),
            append_time_us: 1_700_000_000_000_000,
            duplicate: true,
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
            ProposeError::LevelUnsupported { member: NodeId(5) },
            ProposeError::MemberSilent { member: NodeId(5) },
            ProposeError::NodeNeeded { group: GroupId(5) },
            ProposeError::NotLeader { leader: None },
            ProposeError::NotLeader { leader: Some(NodeId(5)) },
        ] {
            assert_eq!(read_appended(appended_outcome(1, Err(same))), Err(same));
        }
        for refusal in StateRefusal::all(7) {
            let outcome = appended_outcome(1, Err(ProposeError::State(refusal)));
            assert_eq!(unknown_part(&outcome), None);
            assert_eq!(read_appended(outcome), Err(ProposeError::State(refusal)));
        }
        for not_here in [ProposeError::NoSuchGroup, ProposeError::Damaged, ProposeError::Stopping] {
            assert_eq!(read_appended(appended_outcome(1, Err(not_here))), Err(ProposeError::Dropped));
        }
        let mut newer = refused(1, RefusedJob::Dropped.code(), 0);
        newer.mut_refused().code = 99;
        assert_eq!(read_appended(newer.clone()), Err(ProposeError::OutcomeUnknown));
        assert!(unknown_part(&newer).is_some_and(|text| text.contains("refusal code 99")));
        assert_eq!(unknown_part(&refused(1, RefusedJob::Dropped.code(), 0)), None);
        assert_eq!(read_appended(peer::Outcome::new()), Err(ProposeError::OutcomeUnknown));

        assert_eq!(read_read_index(read_index_outcome(1, Ok(LogIndex(5)))), Ok(LogIndex(5)));
        let not_leader = [None, Some(NodeId(5))].map(|leader| ReadIndexError::NotLeader { leader });
        for same in [ReadIndexError::QueueFull, ReadIndexError::Unconfirmed].into_iter().chain(not_leader) {
            assert_eq!(read_read_index(read_index_outcome(1, Err(same))), Err(same));
        }
        assert_eq!(read_read_index(newer), Err(ReadIndexError::Unconfirmed));
        assert!(unknown_part(&peer::Outcome::new()).is_some());
    }
}
