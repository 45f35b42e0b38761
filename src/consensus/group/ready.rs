//! Handling of raft's Readies: writes entries and the hard state, holds messages until they may be sent, and applies
//! committed entries. Also takes the reports of the disk and of the network.

use raft::SnapshotStatus;

use super::Group;
use super::effects::{Effects, LogWrite};
use crate::consensus::faults::{Fault, broken};
use crate::consensus::handle::{ProposeError, ReadIndexError};
use crate::consensus::wire;
use crate::log_state::Applied;
use crate::storage::entry::Entry;
use crate::storage::log::{Base, CatalogState, LogSnapshot};
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId};

impl Group {
    /// Returns the next effects to perform; `None` if there are none.
    pub fn ready(&mut self) -> Option<Effects> {
        self.propose_gathered();
        if !self.health.is_damaged() {
            self.lead_or_follow();
            if self.node.is_leader() {
                self.commit_notices.send(&mut self.node);
            }
            self.apply();
            if !self.health.is_damaged() && self.node.has_ready() {
                self.handle_ready();
                self.apply();
            }
            self.out.fetches.extend(self.node.mut_store().take_fetches());
        }
        let out = std::mem::take(&mut self.out);
        (!out.is_empty()).then_some(out)
    }

    /// Records that everything up to this Ready is synced.
    pub fn persisted(&mut self, ready: u64) {
        if !self.health.is_damaged() {
            self.persistence.synced(ready);
            self.settle();
        } else if self.health.is_repairing() {
            // Acknowledged when the replica takes part again.
            self.persistence.synced(ready);
        }
    }

    /// Reports that messages to a node were lost.
    pub fn unreachable(&mut self, node: NodeId) {
        for replica in self.node.nodes.replicas_of(node) {
            self.node.unreachable(replica);
        }
    }

    /// Reports that a snapshot was handed to the network, or was lost.
    pub fn snapshot_sent(&mut self, node: NodeId, arrived: bool) {
        let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        for replica in self.node.nodes.replicas_of(node) {
            self.node.report_snapshot(replica.0, status);
        }
    }

    /// Passes on a range that a `reader` has read. `entries` is empty if the read failed; raft then asks again later.
    pub fn fetched(&mut self, low: LogIndex, entries: &[Entry]) {
        let entries: Vec<_> = entries.iter().map_while(|e| wire::entry_to_raft(e).ok()).collect();
        let failed = entries.is_empty();
        let waiting = self.node.mut_store().fetched(low, entries);
        self.bound_in_flight();
        if !failed && !self.health.is_damaged() {
            waiting.into_iter().for_each(|context| self.node.on_entries_fetched(context));
        }
    }

    /// Records that an entry that a follower lacks can't be read here. Returns true if this is new.
    pub fn set_unreadable(&mut self, index: LogIndex) -> bool {
        self.unreadable.insert(index)
    }

    /// The first entry that `follower` lacks and this leader can't read.
    pub fn unreadable_for(&self, follower: ReplicaId) -> Option<LogIndex> {
        self.unreadable.first_for(&self.node, follower)
    }

    /// Records the entry that the leader says it can't send to this node.
    pub fn set_stalled(&mut self, by: Option<(ReplicaId, LogIndex)>) {
        self.stalled = by;
    }

    /// Remembers the newest snapshot of the catalog, in the catalog's group.
    pub fn set_catalog(&mut self, catalog: CatalogState) {
        self.node.mut_store().set_catalog(catalog);
    }

    /// Records that the front of the log was dropped, up to `base`.
    pub fn trimmed(&mut self, base: Base) {
        if base.index > self.node.store().base().index {
            self.node.mut_store().set_base(base);
        }
    }

    /// Updates the limit of appends in flight. Called after entries that may be sent were added to memory.
    fn bound_in_flight(&mut self) {
        if !self.node.is_leader() {
            return;
        }
        let members: Vec<u64> = self.node.raft.prs().iter().map(|(id, _)| *id).collect();
        self.lanes.retain(|follower| members.contains(&follower.0));
        if let Some(messages) = self.in_flight.bound(self.node.store().largest_bytes(), members.len()) {
            for id in members {
                let messages = self.lanes.messages_max(ReplicaId(id), messages);
                self.node.raft.adjust_max_inflight_msgs(id, messages);
            }
        }
    }

    /// Fails reads and held rejections when leadership changes, and starts a round of reads if this node leads.
    fn lead_or_follow(&mut self) {
        let leading = self.node.is_leader().then_some(self.node.raft.term);
        if leading != self.leading {
            let leader = self.node.leader_node();
            self.reads.fail_all(ReadIndexError::NotLeader { leader }, &mut self.out.answers);
            self.pending.withdraw_refusals(ProposeError::NotLeader { leader }, &mut self.out.answers);
            self.stalled = None;
            self.leading = leading;
            self.in_flight = Default::default();
            self.lanes = Default::default();
            self.commit_notices = Default::default();
        }
        if self.node.is_leader()
            && self.node.raft.commit_to_current_term()
            && let Some(context) = self.reads.start_round()
        {
            self.node.read_index(context);
        }
    }

    fn handle_ready(&mut self) {
        let mut ready = self.node.ready();
        let number = ready.number();
        let mut write = LogWrite::default();
        let mut votes = false;
        if let Some(hard_state) = ready.hs() {
            self.persistence.sets_term(number, hard_state.term);
            let store = self.node.mut_store();
            let before = store.hard_state();
            store.set_hard_state(hard_state.clone());
            let after = store.hard_state();
            if (before.term, before.vote) != (after.term, after.vote) {
                self.persistence.sets_vote(number);
                votes = true;
            }
            write.hard_state = Some(after);
        }
        if !ready.snapshot().is_empty() {
            match wire::snapshot_from_raft(ready.snapshot()) {
                Ok(snapshot) => self.install(number, snapshot, &mut write),
                Err(error) => return self.set_damaged(error.to_string()),
            }
        }
        if let Err(error) = self.append(ready.take_entries(), &mut write) {
            return self.set_damaged(error);
        }
        self.bound_in_flight();
        for read in ready.take_read_states() {
            let index = LogIndex(read.index);
            for refusal in self.reads.confirmed(&read.request_ctx, index, &mut self.out.answers) {
                self.pending.refuse(refusal, self.applier.index(), &mut self.out.answers);
            }
        }
        let committed = ready.take_committed_entries();
        if ready.must_sync() {
            self.out.sync = Some(number);
        }
        let early = if votes { Fault::VoteNotSynced } else { Fault::AckBeforeSync };
        let must_sync = ready.must_sync() && !broken(early);
        let (messages, after_persisting) = (ready.take_messages(), ready.take_persisted_messages());
        let at_once = self.persistence.begin(number, must_sync, self.node.raft.term, messages, after_persisting);
        self.out.messages.extend(at_once);
        if write != LogWrite::default() {
            self.out.write = Some(write);
        }
        self.node.advance_append_async(ready);
        if self.applier.enqueue(&self.node, number, committed) {
            self.out.sync = Some(number);
        }
        if !self.persistence.waits() {
            self.settle();
        }
    }

    /// Sends the messages that waited for persisted Readies.
    pub(super) fn settle(&mut self) {
        let persisted = self.persistence.settle();
        self.node.on_persist_ready(persisted.ready);
        self.out.messages.extend(persisted.messages);
        self.applier.persisted(persisted.ready, &mut self.node, &mut self.out);
    }

    fn apply(&mut self) {
        if self.health.is_damaged() {
            // After an entry that can't be applied, no other entry is applied.
            return;
        }
        let (persistence, rules) = (&self.persistence, self.config.rules);
        let is_synced = |ready| persistence.covers(ready) || !rules.sync_commit_before_conf_change;
        if let Err(what) = self.applier.apply(&mut self.node, is_synced, &mut self.pending, &mut self.out) {
            self.set_damaged(what);
        }
    }

    /// Installs a snapshot: the log restarts, empty, after it.
    fn install(&mut self, number: u64, snapshot: LogSnapshot, write: &mut LogWrite) {
        let (id, index, visible) = (self.config.id, snapshot.base.index, self.applier.visible());
        if id != GroupId::CATALOG && visible.first_offset < visible.next_offset {
            log::warn!(
                "group {id}: snapshot installed: records {} to {} are dropped here: the log of the leader, node {}, begins \
                 at offset {} (after entry {index})",
                visible.first_offset,
                visible.next_offset.0 - 1,
                self.node.leader_node().map_or_else(|| "unknown".to_owned(), |leader| leader.to_string()),
                snapshot.base.offset
            );
        } else {
            log::info!("group {id}: snapshot installed: the log begins after entry {index}");
        }
        self.pending.skipped(index, &mut self.out.answers);
        self.node.mut_store().install(&snapshot);
        let applied = Applied::new(index, snapshot.base.offset, snapshot.log_state.clone(), snapshot.log_state_index);
        self.applier.install(number, applied);
        write.snapshot = Some(snapshot);
    }

    /// Checks new entries, adds them to the memory and to the write.
    fn append(&mut self, entries: Vec<raft::eraftpb::Entry>, write: &mut LogWrite) -> Result<(), String> {
        let store = self.node.mut_store();
        if let Some(first) = entries.first().map(|e| LogIndex(e.index)).filter(|i| *i <= store.last_end().index) {
            store.truncate_suffix(first);
            write.truncate_from = Some(first);
        }
        for entry in entries {
            let before = store.last_end();
            let stored = wire::entry_to_storage(&entry, before.offset);
            let stamp = stored.stamp().map_err(|e| format!("entry {}: {e}", entry.index))?;
            if stamp.base_offset != before.offset {
                let (index, base) = (entry.index, stamp.base_offset);
                return Err(format!(
                    "entry {index} begins at offset {base}, but the entry before it ends at {}",
                    before.offset
                ));
            }
            let end = store.end_of(&entry, before).map_err(|e| e.to_string())?;
            write.entries.push(stored);
            store.push(entry, end);
        }
        Ok(())
    }
}
