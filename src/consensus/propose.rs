//! Proposing: what is checked before raft is asked, and the stamp that the leader puts on an entry.
//!
//! An entry's base offset is derived from the end of raft's last entry, stored or not; there is no separate counter. A
//! rejection because of that end is sent only once the end is committed: until then another leader may replace it.

use std::time::Instant;

use raft::eraftpb::Message;

use super::adapter::End;
use super::group::{Group, UNCOMMITTED_BYTES_MAX};
use super::handle::{Appended, Proposal, ProposeError};
use super::pending::{Answer, Refusal, WAIT_MAX};
use crate::reply::ReplySender;
use crate::storage::entry::{ENTRY_BYTES_MAX, EntryKind, Stamp};
use crate::storage::frame::frame_bytes;
use crate::storage::payload::stamp_records;
use crate::storage::space::Space;
use crate::types::{GroupId, LogIndex, Offset, Term};

/// Why a proposal is rejected.
enum Refused {
    /// Independent of the log's contents.
    AtOnce(ProposeError),
    /// The log does not end where the request expects. Valid once the last entry is committed. If the request expects a later
    /// end (`beyond`), the leader must also be confirmed after this check, as a newer leader may have more entries.
    ByLogEnd { error: ProposeError, beyond: bool },
}

impl From<ProposeError> for Refused {
    fn from(error: ProposeError) -> Refused {
        Refused::AtOnce(error)
    }
}

impl Group {
    /// Counts what is appended against the space of this disk; without it there is no end of it.
    pub fn set_space(&mut self, space: Space) {
        self.space = space;
    }

    /// Can a leader's entries be stored? If not it is as if the network had lost them: the leader goes on without us, and
    /// sends them again until there is room. The catalog's are small and few, and tell a node what it should be.
    pub(super) fn has_room_for(&self, append: &Message) -> bool {
        if append.entries.is_empty() || self.config.id == GroupId::CATALOG {
            return true;
        }
        let bytes = append.entries.iter().map(|e| frame_bytes(e.data.len().max(e.context.len())) as u64).sum();
        let fits = self.space.promise_to_leader(bytes);
        if !fits {
            log::debug!(
                "group {}: the disk is full: {bytes} bytes of entries from the leader are dropped",
                self.config.id
            );
        }
        fits
    }

    /// Proposes an entry; the answer comes among the effects, now or later. `time_us` is the clock, Unix microseconds.
    pub fn propose(
        &mut self,
        proposal: Proposal,
        now: Instant,
        time_us: u64,
        reply: ReplySender<Result<Appended, ProposeError>>,
    ) {
        let deadline = proposal.deadline.unwrap_or(now + WAIT_MAX);
        match self.try_propose(proposal, now, time_us) {
            Ok(appended) => {
                self.pending.insert(appended, deadline, reply, &mut self.out.answers);
            }
            Err(Refused::AtOnce(error)) => self.out.answers.push(Answer::Append(reply, Err(error))),
            Err(Refused::ByLogEnd { error, .. }) if !self.config.rules.hold_uncommitted_refusals => {
                self.out.answers.push(Answer::Append(reply, Err(error)));
            }
            Err(Refused::ByLogEnd { error, beyond }) => {
                let log = &self.node.raft.raft_log;
                let (last_index, last_term) = (LogIndex(log.last_index()), Term(log.last_term()));
                let refusal = Refusal { error, last_index, last_term, deadline, reply };
                if beyond {
                    self.reads.confirm_first(refusal);
                } else {
                    self.pending.refuse(refusal, self.mark.applied, &mut self.out.answers);
                }
            }
        }
    }

    fn try_propose(&mut self, proposal: Proposal, now: Instant, time_us: u64) -> Result<Appended, Refused> {
        if self.damage.is_some() {
            return Err(ProposeError::Damaged.into());
        }
        if !self.is_leader() {
            return Err(ProposeError::NotLeader { leader: self.leader() }.into());
        }
        let term = Term(self.node.raft.term);
        if proposal.term.is_some_and(|wanted| wanted != term) {
            return Err(ProposeError::NotLeader { leader: self.leader() }.into());
        }
        if proposal.in_stream.is_some_and(|place| !self.streams.take(place, term)) {
            return Err(ProposeError::Dropped.into());
        }
        if proposal.deadline.is_some_and(|d| d <= now) {
            return Err(ProposeError::DeadlinePassed.into());
        }
        if proposal.payload.len() + Stamp::BYTES > ENTRY_BYTES_MAX {
            return Err(ProposeError::TooLarge.into());
        }
        let end = self.log_end()?;
        if let Some(expected) = proposal.expected_offset.filter(|expected| *expected != end.offset) {
            let error = ProposeError::ExpectedOffset { next_offset: end.offset };
            return Err(Refused::ByLogEnd { error, beyond: expected > end.offset });
        }
        if proposal.kind == EntryKind::Trim && trim_to(&proposal)? > end.offset {
            return Err(Refused::ByLogEnd { error: ProposeError::PastEnd { next_offset: end.offset }, beyond: true });
        }
        // A trim makes room, and the catalog is small: they go on when the disk is full.
        if proposal.kind == EntryKind::Records
            && self.config.id != GroupId::CATALOG
            && !self.space.promise(frame_bytes(proposal.payload.len()) as u64)
        {
            return Err(ProposeError::DiskFull.into());
        }
        let appended = Appended {
            offset: end.offset,
            count: proposal.count,
            term,
            index: LogIndex(self.node.raft.raft_log.last_index() + 1),
            append_time_us: time_us.max(end.append_time_us),
        };
        let place = proposal.in_stream;
        let data = stamped(proposal, &appended)?;
        self.node.propose(Vec::new(), data).map_err(|e| self.refusal(&e))?;
        if let Some(place) = place {
            self.streams.taken(place, term);
        }
        Ok(appended)
    }

    /// The end of raft's last entry, stored or not: where the next one's records begin.
    fn log_end(&mut self) -> Result<End, ProposeError> {
        let unstable = self.node.raft.raft_log.unstable_entries();
        let store = self.node.store();
        let mut end = match unstable.first() {
            Some(first) => store.end_at(LogIndex(first.index - 1)).unwrap_or(store.last_end()),
            None => store.last_end(),
        };
        // Entries without a stamp take no offset; the last stamped one tells, and it is nearly always the last.
        let stamped = unstable.iter().rev().find(|e| !e.data.is_empty() && e.context.is_empty());
        if let Some(entry) = stamped {
            end = store.end_of(entry, end).map_err(|_| ProposeError::Damaged)?;
        }
        Ok(end)
    }

    fn refusal(&self, error: &raft::Error) -> ProposeError {
        let full = self.node.raft.uncommitted_size() as u64 > UNCOMMITTED_BYTES_MAX / 2;
        match error {
            raft::Error::ProposalDropped if full && self.node.raft.lead_transferee.is_none() => ProposeError::QueueFull,
            _ => ProposeError::Dropped,
        }
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
