//! Applies committed entries in order. This updates the log state and the conf state, and yields the catalog's
//! commands, trims and answers. Seriatim has no other state machine: clients read the log itself.
//!
//! A conf change, and every entry after it, waits until a commit index that covers it is synced. The reason: voters
//! change when the conf change is applied, so a node that forgot its commit index in a crash would also forget its
//! voters.
//!
//! Conf changes up to the index of the conf state were applied before a snapshot or a restart, and are skipped. So
//! are trims and timestamps up to the index of the log state ([`Applied`]).

use std::collections::VecDeque;

use raft::eraftpb::Entry as RaftEntry;

use super::adapter::CACHE_BYTES_MAX;
use super::effects::{CommittedCommand, Effects};
use super::node::RaftNode;
use super::pending::Pending;
use super::propose::AppliedTables;
use crate::consensus::conf_change::{ConfChange, ConfChangeKind};
use crate::consensus::faults::{Fault, broken};
use crate::consensus::wire::{conf_from_raft, is_conf_change, is_noop};
use crate::log_state::{Applied, Outcome, StateChange, Visible};
use crate::storage::entry::{BadEntry, Stamp};
use crate::storage::payload;
use crate::storage::state_change::state_change;
use crate::types::{GroupId, LogIndex, ReplicaId, Term};

/// A committed entry that is not applied yet, and the Ready whose hard state covers its commit.
struct Committed {
    entry: RaftEntry,
    ready: u64,
}

/// The committed entries that are not applied yet, and the state after the applied ones.
pub struct Applier {
    queue: VecDeque<Committed>,
    applied: Applied,
    /// A snapshot that is being persisted: its Ready, and the applied state after it.
    installing: Option<(u64, Applied)>,
    /// The maximum size of the applied entries in memory.
    cache_bytes_max: usize,
}

impl Applier {
    pub fn new(applied: Applied) -> Applier {
        Applier { queue: VecDeque::new(), applied, installing: None, cache_bytes_max: CACHE_BYTES_MAX }
    }

    /// Sets the maximum size of the applied entries in memory.
    pub fn bound_cache(&mut self, node: &mut RaftNode, bytes_max: usize) {
        self.cache_bytes_max = bytes_max;
        node.mut_store().evict(self.applied.index(), bytes_max);
    }

    /// What readers may see.
    pub fn visible(&self) -> Visible {
        self.applied.visible()
    }

    /// What the leader needs to decide about proposals.
    pub fn tables(&self) -> AppliedTables<'_> {
        AppliedTables { index: self.applied.index(), tables: self.applied.tables() }
    }

    /// The last applied entry.
    pub fn index(&self) -> LogIndex {
        self.applied.index()
    }

    /// Adds the committed entries of a Ready. Returns true if the Ready must be synced before they can be applied.
    pub fn enqueue(&mut self, node: &RaftNode, ready: u64, entries: Vec<RaftEntry>) -> bool {
        let waits = entries.iter().any(|entry| is_new_conf_change(node, entry));
        self.queue.extend(entries.into_iter().map(|entry| Committed { entry, ready }));
        waits
    }

    /// Applies as many entries as possible. `is_synced` returns whether a Ready is synced.
    ///
    /// # Errors
    /// A text that says which entry can't be applied, and why. The entries before it have been applied.
    pub fn apply(
        &mut self,
        node: &mut RaftNode,
        is_synced: impl Fn(u64) -> bool,
        pending: &mut Pending,
        out: &mut Effects,
    ) -> Result<(), String> {
        if node.snap().is_some() {
            // raft has already taken over the conf state of a snapshot. The snapshot includes all entries that wait
            // here.
            return Ok(());
        }
        let before = self.applied.index();
        let mut result = Ok(());
        while let Some(committed) = self.queue.front() {
            let new_conf_change = is_new_conf_change(node, &committed.entry);
            if new_conf_change && !is_synced(committed.ready) {
                break;
            }
            let Some(Committed { entry, .. }) = self.queue.pop_front() else { break };
            if new_conf_change {
                result = apply_conf_change(node, &entry, out);
            }
            result = result.and_then(|()| self.apply_entry(node.group(), &entry, out));
            if let Err(error) = &mut result {
                *error = format!("entry {} can't be applied: {error}", entry.index);
                break;
            }
            pending.applied(LogIndex(entry.index), Term(entry.term), &mut out.answers);
        }
        // What was applied before a failure is acknowledged, so it must be visible too.
        if self.applied.index() != before {
            self.publish(node, out);
        }
        result
    }

    fn publish(&self, node: &mut RaftNode, out: &mut Effects) {
        let applied = self.applied.index();
        node.advance_apply_to(applied.0);
        let store = node.mut_store();
        let (log_state, as_of) = self.applied.log_state();
        if as_of > store.log_state().1 {
            store.set_log_state(log_state.clone(), as_of);
        }
        store.evict(applied, self.cache_bytes_max);
        let mut visible = self.applied.visible();
        if broken(Fault::VisibleBeforeCommit) {
            let end = node.store().last_end();
            (visible.applied, visible.next_offset) = (end.index, end.offset);
        }
        out.visible = Some(visible);
    }

    fn apply_entry(&mut self, group: GroupId, entry: &RaftEntry, out: &mut Effects) -> Result<(), String> {
        let index = LogIndex(entry.index);
        let change = change(group, entry).map_err(|e| e.to_string())?;
        if group == GroupId::CATALOG && matches!(change, StateChange::Records { .. }) {
            out.commands.extend(commands(entry)?);
        }
        match self.applied.apply(index, change) {
            // The storage decides which files can be deleted, at its next sync.
            Outcome::Trimmed(first_offset) => out.trim = Some((first_offset, index)),
            Outcome::Applied => {}
        }
        Ok(())
    }

    /// Records that this Ready contains a snapshot. Waiting entries are dropped, because the snapshot includes them.
    pub fn install(&mut self, ready: u64, snapshot: Applied) {
        self.queue.clear();
        self.installing = Some((ready, self.applied.after_snapshot(snapshot)));
    }

    /// Returns true while a snapshot is being persisted.
    pub fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// Everything up to this Ready is persisted.
    pub fn persisted(&mut self, ready: u64, node: &mut RaftNode, out: &mut Effects) {
        if let Some((_, applied)) = self.installing.take_if(|(installing, _)| *installing <= ready) {
            node.advance_apply_to(applied.index().0);
            out.visible = Some(applied.visible());
            self.applied = applied;
        }
    }
}

fn is_new_conf_change(node: &RaftNode, entry: &RaftEntry) -> bool {
    let (_, conf_index) = node.store().conf();
    is_conf_change(entry) && entry.index > conf_index.0
}

fn apply_conf_change(node: &mut RaftNode, entry: &RaftEntry, out: &mut Effects) -> Result<(), String> {
    let change = ConfChange::decode(&entry.context).map_err(|e| e.to_string())?;
    let loses_own_vote = change.replica == node.me() && change.kind != ConfChangeKind::AddVoter;
    if loses_own_vote && node.is_leader() {
        // raft panics when a leader applies its own removal.
        node.step_down();
    }
    let conf = node.apply_conf_change(&change.to_raft()).map_err(|e| e.to_string())?;
    let conf = conf_from_raft(&conf);
    let index = LogIndex(entry.index);
    let ids = |replicas: &[ReplicaId]| replicas.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    log::info!(
        "group {}: {:?} replica={} index={index} voters={} learners={}",
        node.group(),
        change.kind,
        change.replica,
        ids(&conf.voters),
        ids(&conf.learners)
    );
    node.mut_store().set_conf(conf.clone(), index);
    out.conf_state = Some((conf, index));
    Ok(())
}

/// Returns how an entry changes the log state. Conf changes and raft's no-ops change nothing.
fn change(group: GroupId, entry: &RaftEntry) -> Result<StateChange, BadEntry> {
    if is_conf_change(entry) || is_noop(entry) {
        return Ok(StateChange::Nothing);
    }
    state_change(
        group,
        (LogIndex(entry.index), Term(entry.term)),
        &Stamp::decode(&entry.data)?,
        &entry.data[Stamp::BYTES..],
    )
}

/// Returns the catalog's commands: the values of an entry's records.
fn commands(entry: &RaftEntry) -> Result<Vec<CommittedCommand>, String> {
    let append_time_us = Stamp::decode(&entry.data).map_err(|e| e.to_string())?.append_time_us;
    let command = |bytes| CommittedCommand { index: LogIndex(entry.index), append_time_us, bytes };
    let value = |record: Result<_, _>| record.and_then(payload::record_value).map_err(|e| e.to_string());
    let records = payload::records(&entry.data[Stamp::BYTES..]);
    records.map(|record| value(record).map(|value| command(entry.data.slice_ref(value)))).collect()
}
