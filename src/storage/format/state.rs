//! The state that a log stores besides its entries, and what a restart finds.

use bytes::Bytes;

pub use crate::log_state::{LogState, StoredLogState, TablesOrigin};
use crate::storage::format::digest::Digest;
use crate::storage::format::entry::{BadEntry, Entry, OFFSET_TOO_LARGE, TERM_TOO_LARGE, u64_at};
use crate::storage::format::frame::{Frame, Header, NoteKind, Position};
use crate::types::{LogIndex, Offset, ReplicaId, Term};

/// Raft's hard state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term that this node has seen.
    pub term: Term,
    /// The candidate that it voted for in that term.
    pub vote: Option<ReplicaId>,
    /// The last entry that is known to be committed.
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
        let vote = Some(ReplicaId(u64_at(frame.payload, 0))).filter(|v| v.0 != 0);
        Ok(HardState { term: frame.header.term, vote, commit: frame.header.index })
    }
}

/// The replicas of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// The nodes that vote.
    pub voters: Vec<ReplicaId>,
    /// The nodes that receive entries and do not vote.
    pub learners: Vec<ReplicaId>,
}

/// An end of the log: an entry, and the state after it. The base of a log is the end before its first stored entry:
/// index 0 for a blank log; index 1, term 1 and offset 0 for a founded one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// The index of the entry; 0: before the first one.
    pub index: LogIndex,
    /// The term of the entry; 0: before the first one.
    pub term: Term,
    /// The offset of the first record after the entry.
    pub offset: Offset,
    /// The running digest of the log up to and including the entry.
    pub digest: Digest,
}

impl Base {
    /// The index of the base of a group that begins with voters.
    pub const FIRST: LogIndex = LogIndex(1);

    /// The end of the log after one more entry.
    ///
    /// # Errors
    /// [`BadEntry`] if the entry does not begin with a stamp, or a number has more than 63 bits.
    pub fn then(&self, entry: &Entry) -> Result<Base, BadEntry> {
        self.then_frame(&Header::of_entry(entry, Position::default())?, &entry.payload())
    }

    /// The end of the log after one more entry, which is passed as its frame.
    ///
    /// # Errors
    /// [`BadEntry`] if the offset after it has more than 63 bits.
    pub fn then_frame(&self, header: &Header, payload: &[u8]) -> Result<Base, BadEntry> {
        let offset = header.base_offset.plus(u64::from(header.count)).ok_or(OFFSET_TOO_LARGE)?;
        Ok(Base { index: header.index, term: header.term, offset, digest: self.digest.then(header, payload) })
    }
}

/// The beginning and the end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The end of the log before the first stored entry.
    pub base: Base,
    /// The last entry; the base if no entry is stored.
    pub last_index: LogIndex,
    /// The term of the last entry.
    pub last_term: Term,
    /// The offset of the next record.
    pub next_offset: Offset,
}

/// Raft's snapshot: where the log begins, for a node whose log ends before the first stored entry. It contains no
/// records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSnapshot {
    /// The entry before the first one that will be stored.
    pub base: Base,
    /// The voters and learners.
    pub conf_state: ConfState,
    /// The last entry that the conf state includes. It may be after the base.
    pub conf_index: LogIndex,
    /// The log state at the base of the snapshot or later.
    pub log_state: LogState,
    /// The last entry that the log state includes.
    pub log_state_index: LogIndex,
    /// The state of the catalog. Only in the catalog's group, and only if its log does not begin at its first entry.
    pub catalog: Option<CatalogState>,
}

/// The catalog as bytes, after one of its commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogState {
    /// The entry of the last command that it includes.
    pub index: LogIndex,
    /// The encoded catalog.
    pub bytes: Bytes,
}

/// The age at which the newest segment is sealed, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealAge {
    /// The age of a segment with entries.
    pub used_us: u64,
    /// The age of a segment without entries.
    pub empty_us: u64,
}

/// How a new group begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Genesis {
    /// Empty, until it receives a snapshot.
    Blank,
    /// With a base entry that is not stored, and these voters. All first replicas of a group begin with the same ones.
    /// The first record gets this offset: 0, or of a log that is restored from a backup the first one of the backup.
    Voters(Vec<ReplicaId>, Offset),
}

impl Genesis {
    /// The genesis of a group whose first replica is its only voter.
    pub fn founder(replica: ReplicaId) -> Genesis {
        Genesis::Voters(vec![replica], Offset::default())
    }
}

/// What a start found in a log's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Term, vote and commit; the commit is not below the base and not past the last entry.
    pub hard_state: HardState,
    /// The entry before the first stored one.
    pub base: Base,
    /// The last entry; the base if no entry is stored.
    pub last_index: LogIndex,
    /// The term of the last entry.
    pub last_term: Term,
    /// The offset of the next record.
    pub next_offset: Offset,
    /// An upper bound of all append times, Unix microseconds; 0 if no record was appended yet.
    pub last_append_time_us: u64,
    /// The first index of each run of entries with one term. The first run begins at the base.
    pub terms: Vec<(LogIndex, Term)>,
    /// The voters and learners.
    pub conf_state: ConfState,
    /// The last entry that the conf state includes.
    pub conf_index: LogIndex,
    /// The stored log state.
    pub log_state: LogState,
    /// The last entry that the log state includes.
    pub log_state_index: LogIndex,
    /// The applied index that was stored; not above the commit index.
    pub applied: LogIndex,
    /// This replica differed from a leader's in the last comparison, at this entry or an earlier one.
    pub differing: Option<LogIndex>,
    /// Bytes that were cut off: a torn tail, written but never synced.
    pub torn_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hard_state_is_stored_in_a_frame() {
        for (term, vote) in [(Term(4), None), (Term::MAX, Some(ReplicaId(9)))] {
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
