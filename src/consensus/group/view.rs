//! What a group tells about itself. Nothing here changes it.

use super::Group;
use super::adapter::CACHE_BYTES_MAX;
use super::settings::UNCOMMITTED_BYTES_MAX;
use crate::catalog::policy::facts::ReplicaFacts;
use crate::consensus::handle::GroupStatus;
use crate::log_state::LogState;
use crate::storage::log::HardState;
use crate::types::{LogIndex, NodeId, Term};
use crate::watermark::Visible;

impl Group {
    /// The hard state as of the last Ready, or of the start.
    pub fn hard_state(&self) -> HardState {
        self.node.store().hard_state()
    }

    /// The log state, and the entry that it is as of.
    pub fn log_state(&self) -> (LogState, LogIndex) {
        let (log_state, as_of) = self.node.store().log_state();
        (*log_state, as_of)
    }

    /// What readers may see.
    pub fn visible(&self) -> Visible {
        self.applier.visible()
    }

    /// The leader of the current term, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.node.leader()
    }

    /// True while this node leads the group.
    pub fn leads(&self) -> bool {
        self.node.is_leader() && !self.health.is_damaged()
    }

    /// True if the group takes no part.
    pub fn is_damaged(&self) -> bool {
        self.health.is_damaged()
    }

    /// True if this replica is known to differ from another one.
    pub fn differs(&self) -> bool {
        self.health.differs()
    }

    /// The entry at which the replica may differ from the leader's.
    pub fn suspect(&self) -> Option<LogIndex> {
        self.health.suspect()
    }

    /// True if this node leads and a majority has acknowledged an entry of its term: their replicas are equal to this one.
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

    /// True if raft's log has an entry of this term at `index`. Then all entries before it are those that the store contains.
    pub fn holds(&self, index: LogIndex, term: Term) -> bool {
        self.node.holds(index, term)
    }

    /// True if the store has this entry as raft has it, and no write of it is due.
    pub fn is_stored(&self, index: LogIndex) -> bool {
        self.node.is_stored(index)
    }

    /// True if the node is a voter or a learner here.
    pub fn conf_contains(&self, node: NodeId) -> bool {
        let (conf, _) = self.node.store().conf();
        conf.voters.contains(&node) || conf.learners.contains(&node)
    }

    /// True if the node votes here.
    pub fn votes(&self, node: NodeId) -> bool {
        self.node.store().conf().0.voters.contains(&node)
    }

    /// True if the group has no voters yet: it waits for a snapshot.
    pub fn is_blank(&self) -> bool {
        self.node.store().conf().0.voters.is_empty()
    }

    /// True if another node could lead.
    pub fn has_other_voters(&self) -> bool {
        self.node.other_voters().next().is_some()
    }

    /// True if it leads, and has no other node to send to.
    pub fn leads_alone(&self) -> bool {
        self.leads() && self.node.replicas().iter().all(|r| r.node == self.config.me)
    }

    /// True when every entry here is applied.
    pub fn is_idle(&self) -> bool {
        self.applier.index() == self.node.last_index()
    }

    /// True if too many bytes wait for the disk to accept more entries from a leader. A leader may send 64 messages of 8 MiB
    /// before it waits for an acknowledgement, and entries stay in memory until they are synced.
    pub fn is_behind_with_syncs(&self) -> bool {
        let bytes_max = CACHE_BYTES_MAX + UNCOMMITTED_BYTES_MAX as usize;
        self.persistence.waits() && self.node.store().cached_bytes() > bytes_max
    }

    /// What the catalog's policy needs to know of the group.
    pub fn facts(&self) -> ReplicaFacts {
        let raft = &self.node.raft;
        ReplicaFacts {
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

    /// The newest term that this node knows, and the leader of that term.
    pub fn term_and_leader(&self) -> (Term, Option<NodeId>) {
        (self.node.term(), self.node.leader())
    }

    /// What this node knows of the group.
    pub fn status(&self) -> GroupStatus {
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
            // Told by the leader of the moment, until this node has it.
            stalled: self.stalled.filter(|(by, index)| leader == Some(*by) && applied_index < *index),
        }
    }

    /// Sets the election timeout, in ticks, until raft chooses another one.
    #[cfg(test)]
    pub fn set_election_timeout(&mut self, ticks: usize) {
        self.node.raft.set_randomized_election_timeout(ticks);
    }
}
