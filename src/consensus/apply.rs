//! Applying committed entries, in their order: the watermark, the catalog's commands, conf changes, trims, answers.
//!
//! There is no other state machine: the log is what clients read. A conf change waits until the commit that covers it is
//! synced, and everything behind it waits with it. Conf changes at or below the index that the conf state is as of, and
//! trims and times at or below the one that the log state is as of, were applied before a snapshot or a restart.

use bytes::Bytes;
use raft::eraftpb::{Entry as RaftEntry, EntryType};

use super::group::Group;
use super::wire::{ConfChange, ConfChangeKind, conf_from_raft, is_noop};
use crate::storage::entry::{EntryKind, Stamp};
use crate::storage::log::{LogState, Recovered};
use crate::storage::payload;
use crate::types::{GroupId, LogIndex, Offset, Term};

/// A committed entry on its way, and the Ready whose hard state covers its commit.
pub(super) struct Committed {
    entry: RaftEntry,
    ready: u64,
}

impl Group {
    /// Takes committed entries of a Ready.
    pub(super) fn enqueue(&mut self, ready: u64, entries: Vec<RaftEntry>) {
        let (_, conf_index) = self.node.store().conf();
        let conf_change = |e: &RaftEntry| is_conf_change(e) && e.index > conf_index.0;
        if entries.iter().any(conf_change) {
            self.out.sync = Some(ready);
        }
        self.queue.extend(entries.into_iter().map(|entry| Committed { entry, ready }));
    }

    /// Applies what can be applied.
    pub(super) fn apply(&mut self) {
        if self.node.snap().is_some() || self.damage.is_some() {
            // raft's conf state is a snapshot's already, which has seen whatever waits here. And behind an entry that can't be
            // applied nothing is.
            return;
        }
        let before = self.mark;
        let mut failed = None;
        while let Some(committed) = self.queue.front() {
            let (_, conf_index) = self.node.store().conf();
            let new_conf_change = is_conf_change(&committed.entry) && committed.entry.index > conf_index.0;
            let synced =
                self.persistence.synced >= committed.ready || !self.config.rules.sync_commit_before_conf_change;
            if new_conf_change && !synced {
                break;
            }
            let Some(Committed { entry, .. }) = self.queue.pop_front() else { break };
            if let Err(error) = self.apply_entry(&entry, new_conf_change) {
                failed = Some(format!("entry {} can't be applied: {error}", entry.index));
                break;
            }
            self.mark.applied = LogIndex(entry.index);
            self.pending.applied(LogIndex(entry.index), Term(entry.term), &mut self.out.answers);
        }
        // What was applied before a failure is acknowledged, so it must be visible too.
        if self.mark != before {
            self.publish_mark();
        }
        if let Some(what) = failed {
            self.set_damaged(what);
        }
    }

    fn publish_mark(&mut self) {
        let applied = self.mark.applied;
        self.node.advance_apply_to(applied.0);
        let store = self.node.mut_store();
        if applied > store.log_state().1 {
            let log_state =
                LogState { first_offset: self.mark.first_offset, last_append_time_us: self.mark.last_append_time_us };
            store.set_log_state(log_state, applied);
        }
        store.evict(applied);
        self.out.mark = Some(self.mark);
    }

    fn apply_entry(&mut self, entry: &RaftEntry, new_conf_change: bool) -> Result<(), String> {
        if is_conf_change(entry) {
            return if new_conf_change { self.apply_conf_change(entry) } else { Ok(()) };
        }
        if is_noop(entry) {
            return Ok(());
        }
        let stamp = Stamp::decode(&entry.data).map_err(|e| e.to_string())?;
        let body = &entry.data[Stamp::BYTES..];
        match stamp.kind {
            EntryKind::Records => {
                if self.config.id == GroupId::CATALOG {
                    self.out.commands.extend(commands(entry, body)?);
                }
                self.mark.next_offset = Offset(stamp.base_offset.0 + u64::from(stamp.count));
                self.mark.last_append_time_us = self.mark.last_append_time_us.max(stamp.append_time_us);
                Ok(())
            }
            EntryKind::Trim => self.apply_trim(entry, body),
            EntryKind::Noop | EntryKind::ConfChange => Err(format!("an entry of kind {:?}", stamp.kind)),
        }
    }

    /// Moves the logical front. Which files can go for it is the storage's matter, and that of its next sync.
    fn apply_trim(&mut self, entry: &RaftEntry, body: &[u8]) -> Result<(), String> {
        let first = body.try_into().map(u64::from_le_bytes).map_err(|_| "a malformed trim".to_owned())?;
        let (_, as_of) = self.node.store().log_state();
        if entry.index > as_of.0 {
            let first = Offset(first).min(self.mark.next_offset).max(self.mark.first_offset);
            self.mark.first_offset = first;
            self.out.trim = Some((first, LogIndex(entry.index)));
        }
        Ok(())
    }

    fn apply_conf_change(&mut self, entry: &RaftEntry) -> Result<(), String> {
        let change = ConfChange::decode(&entry.context).map_err(|e| e.to_string())?;
        let loses_own_vote = change.node == self.config.me && change.kind != ConfChangeKind::AddVoter;
        if loses_own_vote && self.leads() {
            // raft panics when a leader applies its own removal.
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        }
        let conf = self.node.apply_conf_change(&change.to_raft()).map_err(|e| e.to_string())?;
        let conf = conf_from_raft(&conf);
        let index = LogIndex(entry.index);
        log::info!(
            "group {}: {:?} of node {} at entry {index}: voters {:?}, learners {:?}",
            self.config.id,
            change.kind,
            change.node,
            conf.voters,
            conf.learners
        );
        self.node.mut_store().set_conf(conf.clone(), index);
        self.out.conf_state = Some((conf, index));
        Ok(())
    }
}

/// The values of an entry's records: the catalog's commands.
fn commands(entry: &RaftEntry, body: &[u8]) -> Result<Vec<Bytes>, String> {
    let value = |record: Result<_, _>| record.and_then(payload::record_value).map_err(|e| e.to_string());
    payload::records(body).map(|record| value(record).map(|value| entry.data.slice_ref(value))).collect()
}

pub(super) fn is_conf_change(entry: &RaftEntry) -> bool {
    matches!(entry.get_entry_type(), EntryType::EntryConfChange | EntryType::EntryConfChangeV2)
}

/// The highest commit index that the recovered log proves, independent of the recovered hard state.
///
/// A Ready's entries are written before its hard state, so a crash can leave entries without the commit index that belongs to
/// them. If the node fell back to an older commit index, it would not know voters that a majority has already applied, and
/// could be elected by a majority of the old voters. Two facts give a lower bound:
/// - a leader proposes a conf change only after it has applied the previous one (raft's `pending_conf_index`), so every conf
///   change in the log except the last is committed;
/// - the conf state was produced by a committed entry, which is in the log unless the log after a snapshot has not reached it.
pub(super) fn committed_by_conf_changes(tail: &[RaftEntry], recovered: &Recovered) -> LogIndex {
    let last_but_one = tail.iter().rev().filter(|e| is_conf_change(e)).nth(1).map_or(0, |e| e.index);
    LogIndex(last_but_one).max(recovered.conf_index.min(recovered.last_index))
}
