//! What a log knows beside its entries: the states that its owner hands in, and what a restart gives back.

pub use crate::log_state::LogState;
use crate::storage::format::digest::Digest;
use crate::storage::format::entry::{BadEntry, Entry, OFFSET_TOO_LARGE, TERM_TOO_LARGE, u64_at};
use crate::storage::format::frame::{Frame, Header, NoteKind, Position};
use crate::types::{LogIndex, NodeId, Offset, Term};

/// Raft's hard state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term that this node has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// The last entry known as committed.
    pub commit: LogIndex,
}

impl HardState {
    /// Header and payload of the frame that stores it.
    pub fn to_frame(&self, durable: Position) -> (Header, [u8; 8]) {
        let note = Header::of_note(NoteKind::HardState, durable);
        let header = Header { term: self.term, index: self.commit, ..note };
        (header, self.vote.unwrap_or_default().0.to_le_bytes())
    }

    /// Reads what [`HardState::to_frame`] returned.
    ///
    /// # Errors
    /// [`BadEntry`] if the payload is not a vote, or the term has more than 63 bits.
    pub fn of_frame(frame: &Frame<'_>) -> Result<HardState, BadEntry> {
        if frame.payload.len() != 8 {
            return Err(BadEntry("a hard state of another length"));
        }
        if frame.header.term > Term::MAX {
            return Err(TERM_TOO_LARGE);
        }
        let vote = Some(NodeId(u64_at(frame.payload, 0))).filter(|v| v.0 != 0);
        Ok(HardState { term: frame.header.term, vote, commit: frame.header.index })
    }
}

/// Who carries the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who only listens.
    pub learners: Vec<NodeId>,
}

/// The entry before the first stored one. Blank: 0, 0, 0; founded: index 1, term 1, offset 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// Its index.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The offset of the first record behind it.
    pub offset: Offset,
    /// The running digest of the log up to and including it.
    pub digest: Digest,
}

impl Base {
    /// The end of the log after one more entry.
    ///
    /// # Errors
    /// [`BadEntry`] when the entry does not begin with a stamp, or a number has more than 63 bits.
    pub fn then(&self, entry: &Entry) -> Result<Base, BadEntry> {
        self.then_frame(&Header::of_entry(entry, Position::default())?, &entry.payload())
    }

    /// The end of the log after one more entry, given as its frame.
    ///
    /// # Errors
    /// [`BadEntry`] when the offset after it has more than 63 bits.
    pub fn then_frame(&self, header: &Header, payload: &[u8]) -> Result<Base, BadEntry> {
        let offset = header.base_offset.plus(u64::from(header.count)).ok_or(OFFSET_TOO_LARGE)?;
        Ok(Base { index: header.index, term: header.term, offset, digest: self.digest.then(header, payload) })
    }
}

/// Where a log begins, told to a node that is behind the first stored entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSnapshot {
    /// The entry before the first one that will be stored.
    pub base: Base,
    /// Who carries the group,
    pub conf_state: ConfState,
    /// as of this entry, which may be behind the base.
    pub conf_index: LogIndex,
    /// The log state,
    pub log_state: LogState,
    /// as of this entry.
    pub log_state_index: LogIndex,
}

/// The age at which the newest segment is sealed, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealAge {
    /// If it has entries.
    pub used_us: u64,
    /// If it has none.
    pub empty_us: u64,
}

/// How a new group begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Genesis {
    /// With nothing: it waits for a snapshot.
    Blank,
    /// With a base entry that nobody stores and this founder as its only voter.
    Founder(NodeId),
}

/// What a log's files hold, found at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Term, vote and commit; the commit is not below the base and not past the last entry.
    pub hard_state: HardState,
    /// The entry before the first stored one.
    pub base: Base,
    /// The last entry; the base, when there is none.
    pub last_index: LogIndex,
    /// Its term.
    pub last_term: Term,
    /// The offset that the next record gets.
    pub next_offset: Offset,
    /// No record is newer, Unix microseconds; 0: no record yet.
    pub last_append_time_us: u64,
    /// Each run of one term by its first index; the first run begins at the base.
    pub terms: Vec<(LogIndex, Term)>,
    /// Who carries the group,
    pub conf_state: ConfState,
    /// as of this entry.
    pub conf_index: LogIndex,
    /// The log state,
    pub log_state: LogState,
    /// as of this entry.
    pub log_state_index: LogIndex,
    /// Everything up to here was applied once; not past the commit.
    pub applied: LogIndex,
    /// This replica differed from a leader's when it was last compared, at this entry or an earlier one.
    pub differing: Option<LogIndex>,
    /// How much was cut off as torn: written once, but never synced.
    pub torn_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hard_state_is_stored_in_a_frame() {
        for (term, vote) in [(Term(4), None), (Term::MAX, Some(NodeId(9)))] {
            let state = HardState { term, vote, commit: LogIndex(5) };
            let (header, payload) = state.to_frame(Position::default());
            assert_eq!(HardState::of_frame(&Frame { header, payload: &payload }), Ok(state));
        }
    }

    #[test]
    fn a_hard_state_with_a_term_of_more_than_63_bits_is_refused() {
        let state = HardState { term: Term(1 << 63), vote: None, commit: LogIndex(1) };
        let (header, payload) = state.to_frame(Position::default());
        assert!(HardState::of_frame(&Frame { header, payload: &payload }).is_err());
    }
}
