//! Proposing: what is checked before raft is asked, and the stamp that the leader puts on an entry.
//!
//! An entry's base offset is derived from the end of raft's last entry, stored or not; no separate counter exists. A
//! rejection because of that end is sent only once the end is committed: until then another leader may replace it.

use std::time::Instant;

use raft::eraftpb::Message;

use super::node::RaftNode;
use super::sequences::StreamSequences;
use super::settings::UNCOMMITTED_BYTES_MAX;
use crate::consensus::handle::{Appended, Proposal, ProposeError};
use crate::storage::entry::{ENTRY_BYTES_MAX, EntryKind, Stamp};
use crate::storage::frame::frame_bytes;
use crate::storage::payload::stamp_records;
use crate::storage::space::Space;
use crate::types::{GroupId, LogIndex, Offset};

/// Why a proposal is rejected.
pub enum Rejected {
    /// Independent of the log's contents.
    AtOnce(ProposeError),
    /// The log does not end where the request expects. Valid once the last entry is committed. If the request expects a later
    /// end (`beyond`), the leader must also be confirmed after this check, as a newer leader may have more entries.
    ByLogEnd {
        error: ProposeError,
        /// The request expects a later end.
        beyond: bool,
    },
}

impl From<ProposeError> for Rejected {
    fn from(error: ProposeError) -> Rejected {
        Rejected::AtOnce(error)
    }
}

/// What a leader remembers between two proposals.
#[derive(Default)]
pub struct Proposer {
    streams: StreamSequences,
    space: Space,
}

impl Proposer {
    /// Counts what is appended against the space of this disk; without it the space is unlimited.
    pub fn set_space(&mut self, space: Space) {
        self.space = space;
    }

    /// True if a leader's entries can be stored. If not they are dropped, as if the network had lost them: the leader continues
    /// without this node, and sends them again until they fit. The catalog's are small and few, and tell a node what it should be.
    pub fn has_room_for(&self, append: &Message, group: GroupId) -> bool {
        if append.entries.is_empty() || group == GroupId::CATALOG {
            return true;
        }
        let bytes = append.entries.iter().map(|e| frame_bytes(e.data.len().max(e.context.len())) as u64).sum();
        let fits = self.space.promise_to_leader(bytes);
        if !fits {
            log::debug!("group {group}: the disk is full: {bytes} bytes of entries from the leader are dropped");
        }
        fits
    }

    /// Hands a proposal to raft. `time_us` is the clock, Unix microseconds.
    ///
    /// # Errors
    /// [`Rejected`]; nothing is appended.
    pub fn propose(
        &mut self,
        node: &mut RaftNode,
        proposal: Proposal,
        now: Instant,
        time_us: u64,
    ) -> Result<Appended, Rejected> {
        let (group, leader, term) = (node.group(), node.leader(), node.term());
        if !node.is_leader() || proposal.term.is_some_and(|wanted| wanted != term) {
            return Err(ProposeError::NotLeader { leader }.into());
        }
        if proposal.in_stream.is_some_and(|position| !self.streams.take(position, term)) {
            return Err(ProposeError::Dropped.into());
        }
        if proposal.deadline.is_some_and(|d| d <= now) {
            return Err(ProposeError::DeadlinePassed.into());
        }
        if proposal.payload.len() + Stamp::BYTES > ENTRY_BYTES_MAX {
            return Err(ProposeError::TooLarge.into());
        }
        let end = node.log_end().ok_or(ProposeError::Damaged)?;
        if let Some(expected) = proposal.expected_offset.filter(|expected| *expected != end.offset) {
            let error = ProposeError::ExpectedOffset { next_offset: end.offset };
            return Err(Rejected::ByLogEnd { error, beyond: expected > end.offset });
        }
        if proposal.kind == EntryKind::Trim && trim_to(&proposal)? > end.offset {
            return Err(Rejected::ByLogEnd { error: ProposeError::PastEnd { next_offset: end.offset }, beyond: true });
        }
        // A trim makes room, and the catalog is small: they go on when the disk is full.
        if proposal.kind == EntryKind::Records
            && group != GroupId::CATALOG
            && !self.space.promise(frame_bytes(proposal.payload.len()) as u64)
        {
            return Err(ProposeError::DiskFull.into());
        }
        let appended = Appended {
            offset: end.offset,
            count: proposal.count,
            term,
            index: LogIndex(node.last_index().0 + 1),
            append_time_us: time_us.max(end.append_time_us),
        };
        let position = proposal.in_stream;
        let data = stamped(proposal, &appended)?;
        node.propose(Vec::new(), data).map_err(|e| raft_refusal(node, &e))?;
        if let Some(position) = position {
            self.streams.taken(position, term);
        }
        Ok(appended)
    }
}

fn raft_refusal(node: &RaftNode, error: &raft::Error) -> ProposeError {
    let full = node.raft.uncommitted_size() as u64 > UNCOMMITTED_BYTES_MAX / 2;
    match error {
        raft::Error::ProposalDropped if full && node.raft.lead_transferee.is_none() => ProposeError::QueueFull,
        _ => ProposeError::Dropped,
    }
}

/// The first offset that a trim keeps.
fn trim_to(proposal: &Proposal) -> Result<Offset, ProposeError> {
    proposal.payload.first_chunk().map(|bytes| Offset(u64::from_le_bytes(*bytes))).ok_or_else(|| {
        log::error!("a proposal of a trim without its offset");
        ProposeError::Dropped
    })
}

/// The entry's data: the stamp and the records, with offsets, term and time filled in.
fn stamped(proposal: Proposal, appended: &Appended) -> Result<Vec<u8>, ProposeError> {
    let stamp = Stamp {
        kind: proposal.kind,
        count: proposal.count,
        base_offset: appended.offset,
        append_time_us: appended.append_time_us,
        producer_id: proposal.producer_id,
        sequence: proposal.sequence,
    };
    let mut data = proposal.payload.stamp(&stamp);
    if proposal.kind == EntryKind::Records {
        let records = &mut data[Stamp::BYTES..];
        let count = stamp_records(records, appended.offset, appended.term, appended.append_time_us);
        match count {
            Ok(count) if count == proposal.count => {}
            Ok(count) => {
                log::error!("a proposal of {} records whose payload holds {count}", proposal.count);
                return Err(ProposeError::Dropped);
            }
            Err(bad) => {
                log::error!("a proposal that cannot be appended at offset {}: {bad}", appended.offset);
                return Err(ProposeError::Dropped);
            }
        }
    }
    Ok(data)
}
