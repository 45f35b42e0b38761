//! Queries of a group, and which of its replicas should lead.

use std::collections::BTreeSet;

use raft::eraftpb::Message;

use super::Group;
use super::adapter::CACHE_BYTES_MAX;
use super::checks;
use super::settings::{Successor, UNCOMMITTED_BYTES_MAX};
use crate::catalog::policy::facts::ReplicaFacts;
use crate::consensus::status::GroupStatus;
use crate::log_state::LogState;
use crate::storage::log::HardState;
use crate::types::{LogIndex, NodeId, ReplicaId, Term};
use crate::watermark::Visible;

impl Group {
    /// Returns the hard state of the last Ready, or the recovered one before the first Ready.
    pub fn hard_state(&self) -> HardState {
        self.node.store().hard_state()
    }

    /// Returns the log state, and the index of the last entry that it includes.
    pub fn log_state(&self) -> (LogState, LogIndex) {
        let (log_state, as_of) = self.node.store().log_state();
        (log_state.clone(), as_of)
    }

    /// Returns what readers may see.
    pub fn visible(&self) -> Visible {
        self.applier.visible()
    }

    /// This replica.
    pub fn me(&self) -> ReplicaId {
        self.config.me
    }

    /// The leader of the current term, as far as this node knows.
    pub fn leader(&self) -> Option<ReplicaId> {
        self.node.leader()
    }

    /// Returns true if this node leads the group and is not damaged.
    pub fn leads(&self) -> bool {
        self.node.is_leader() && !self.health.is_damaged()
    }

    /// Returns true if this replica is damaged and takes no part.
    pub fn is_damaged(&self) -> bool {
        self.health.is_damaged()
    }

    /// Returns true if this replica takes no part only while it is being repaired.
    pub fn is_repairing(&self) -> bool {
        self.health.is_repairing()
    }

    /// True if this replica is known to differ from another one.
    pub fn differs(&self) -> bool {
        self.health.differs()
    }

    /// Returns the entry at which the replica may differ from the leader's.
    pub fn suspect(&self) -> Option<LogIndex> {
        self.health.suspect()
    }

    /// Returns true if this node leads and a majority has acknowledged an entry of its term. Their replicas equal
    /// this one.
    pub fn leads_a_majority(&self) -> bool {
        self.leads() && self.node.raft.commit_to_current_term()
    }

    /// The commit index, as far as this node knows.
    pub fn commit_index(&self) -> LogIndex {
        self.node.commit_index()
    }

    /// The last index, stored or not.
    pub fn last_index(&self) -> LogIndex {
        self.node.last_index()
    }

    /// The newest term that this node knows of.
    pub fn term(&self) -> Term {
        self.node.term()
    }

    /// Returns true if raft's log contains an entry of this term at `index`. If so, the store's entries before it are
    /// raft's.
    pub fn has_entry(&self, index: LogIndex, term: Term) -> bool {
        self.node.has_entry(index, term)
    }

    /// Returns true if the store contains raft's entry at this index, so that no write of it is due.
    pub fn is_stored(&self, index: LogIndex) -> bool {
        self.node.is_stored(index)
    }

    /// True for a voter or a learner of the group.
    pub fn conf_contains(&self, replica: ReplicaId) -> bool {
        let (conf, _) = self.node.store().conf();
        conf.voters.contains(&replica) || conf.learners.contains(&replica)
    }

    /// True for a voter of the group.
    pub fn votes(&self, replica: ReplicaId) -> bool {
        self.node.store().conf().0.voters.contains(&replica)
    }

    /// True if the group has no voters yet: it waits for a snapshot.
    pub fn is_blank(&self) -> bool {
        self.node.store().conf().0.voters.is_empty()
    }

    /// Returns the other voters.
    pub fn other_voters(&self) -> impl Iterator<Item = ReplicaId> {
        let (conf, _) = self.node.store().conf();
        conf.voters.iter().copied().filter(|replica| *replica != self.config.me)
    }

    /// Returns the other voters that should lead.
    pub fn successors(&self) -> impl Iterator<Item = ReplicaId> {
        self.other_voters().filter(|replica| !self.node.avoided.contains(replica))
    }

    /// Sets the replicas that should not lead.
    pub fn avoid(&mut self, replicas: BTreeSet<ReplicaId>) {
        self.node.avoided = replicas;
    }

    /// If this node leads, hands leadership over to the most up-to-date voter. Returns false if that is not possible.
    pub fn hand_over(&mut self, to: Successor) -> bool {
        let any = || self.node.other_voters().max_by_key(|r| r.matched).filter(|_| to == Successor::Any);
        // Raft takes no proposals while a transfer waits for a replica that lags.
        let committed = LogIndex(self.node.raft.raft_log.committed);
        let close = self.node.successors().filter(|r| r.matched >= committed);
        match close.max_by_key(|r| r.matched).or_else(any) {
            Some(next) if self.leads() => {
                self.node.transfer_leader(next.replica.0);
                true
            }
            Some(_) | None => false,
        }
    }

    /// If this node leads, hands leadership over to the replica on a node, even to one that should not lead. Returns false
    /// if no replica on it votes and was heard recently.
    pub fn hand_over_to(&mut self, node: NodeId) -> bool {
        let replicas = self.node.nodes.replicas_of(node);
        let next = self.node.other_voters().find(|r| replicas.contains(&r.replica)).filter(|_| self.leads());
        next.map(|next| self.node.transfer_leader(next.replica.0)).is_some()
    }

    /// True if another node could lead.
    pub fn has_other_voters(&self) -> bool {
        self.node.other_voters().next().is_some()
    }

    /// Returns true if this node leads and the group has no other replica.
    pub fn leads_alone(&self) -> bool {
        self.leads() && self.node.replicas().iter().all(|r| r.replica == self.config.me)
    }

    /// Returns true if every entry of this replica is applied.
    pub fn is_idle(&self) -> bool {
        self.applier.index() == self.node.last_index()
    }

    /// See [`checks::leads_another`].
    pub fn leads_another(&self, message: &Message) -> bool {
        checks::leads_another(&self.node, message)
    }

    /// Records whether a follower needs to be told at once that the commit index has advanced.
    pub fn set_commit_may_wait(&mut self, follower: ReplicaId, may_wait: bool) {
        // The sender chooses the id.
        if self.leads() && self.node.raft.prs().get(follower.0).is_some() {
            self.commit_notices.set_may_wait(follower, may_wait);
        }
    }

    /// Returns the number of proposals that raft has accepted and that are not answered yet.
    pub fn unanswered(&self) -> usize {
        self.pending.unanswered()
    }

    /// Returns true if so many bytes wait for a sync that this replica can't accept more entries from a leader. A
    /// leader may send up to 64 messages of 8 MiB before it waits for an acknowledgement, and entries stay in memory
    /// until they are synced.
    pub fn is_behind_with_syncs(&self) -> bool {
        let bytes_max = CACHE_BYTES_MAX + UNCOMMITTED_BYTES_MAX as usize;
        self.persistence.waits() && self.node.store().cached_bytes() > bytes_max
    }

    /// Returns the facts about the group that the catalog's policy uses.
    pub fn facts(&self) -> ReplicaFacts {
        let raft = &self.node.raft;
        ReplicaFacts {
            replica: self.config.me,
            leads: self.leads(),
            is_damaged: self.is_damaged(),
            is_idle: self.is_idle(),
            is_changing: raft.has_pending_conf() || raft.lead_transferee.is_some(),
            term: self.node.term(),
            last_index: self.node.last_index(),
            voters: self.node.store().conf().0.voters.clone(),
            progress: if self.leads() { self.node.replicas() } else { Vec::new() },
            visible: self.visible(),
            ..ReplicaFacts::default()
        }
    }

    /// Returns the group's status, as far as this node knows.
    pub fn status(&self) -> GroupStatus<ReplicaId> {
        let (conf, _) = self.node.store().conf();
        let applied_index = self.applier.index();
        let leader = self.node.leader();
        GroupStatus {
            group: self.config.id,
            role: self.node.role(),
            term: self.node.term(),
            leader,
            last_index: self.node.last_index(),
            commit_index: self.node.commit_index(),
            applied_index,
            applied_term: Term(self.node.raft.raft_log.term(applied_index.0).unwrap_or(0)),
            voters: conf.voters.clone(),
            learners: conf.learners.clone(),
            damage: self.health.text(),
            // Only if the current leader reported it, and until this node has the entry.
            stalled: self.stalled.filter(|(by, index)| leader == Some(*by) && applied_index < *index),
        }
    }

    /// Sets the election timeout, in ticks, until raft chooses the next one.
    #[cfg(test)]
    pub fn set_election_timeout(&mut self, ticks: usize) {
        self.node.raft.set_randomized_election_timeout(ticks);
    }
}
