//! A group's membership, moved by its leader: one step at a time, as `reconcile.rs` decides.

use super::adapter::CACHE_BYTES_MAX;
use super::group::{ELECTION_TICKS, Group, UNCOMMITTED_BYTES_MAX};
use super::reconcile::{Replica, Step, next_step};
use super::wire::ConfChange;
use crate::types::{LogIndex, NodeId};

impl Group {
    /// As the leader, takes the next step towards who should carry the group (`reconcile.rs`), when none is under way.
    pub fn reconcile(
        &mut self,
        wanted: &[NodeId],
        removed: impl Fn(NodeId) -> bool,
        may_vote: impl Fn(NodeId) -> bool,
    ) {
        if !self.leads() {
            return;
        }
        let mut replicas = self.replicas();
        let last_index = LogIndex(self.node.raft.raft_log.last_index());
        let (term, tick) = (self.node.raft.term, self.ticks as u64);
        self.catch_up.look(term, tick, last_index, &mut replicas, ELECTION_TICKS as u64);
        if self.node.raft.has_pending_conf() || self.node.raft.lead_transferee.is_some() {
            return;
        }
        match next_step(self.config.me, &replicas, wanted, removed, may_vote) {
            Some(Step::Change(change)) => self.propose_conf_change(change),
            Some(Step::HandOver) => {
                self.hand_over();
            }
            None => {}
        }
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

    /// True if this leader has heard from the node lately.
    pub fn hears(&self, node: NodeId) -> bool {
        self.replicas().iter().any(|r| r.node == node && r.active)
    }

    /// True if the group has no voters yet: it waits for a snapshot.
    pub fn is_blank(&self) -> bool {
        self.node.store().conf().0.voters.is_empty()
    }

    /// True when somebody else could lead.
    pub fn has_other_voters(&self) -> bool {
        self.replicas().iter().any(|r| r.voter && r.active && r.node != self.config.me)
    }

    /// True when it leads, and there is nobody whom it could tell.
    pub fn leads_alone(&self) -> bool {
        self.leads() && self.replicas().iter().all(|r| r.node == self.config.me)
    }

    /// True when every entry here is applied.
    pub fn is_idle(&self) -> bool {
        self.mark.applied.0 == self.node.raft.raft_log.last_index()
    }

    /// True if too many bytes wait for the disk to accept more entries from a leader. A leader may send 64 messages of 8 MiB
    /// before it waits for an acknowledgement, and entries stay in memory until they are synced.
    pub fn is_behind_with_syncs(&self) -> bool {
        let waits = self.persistence.last_needed > self.persistence.synced;
        waits && self.node.store().cached_bytes() > CACHE_BYTES_MAX + UNCOMMITTED_BYTES_MAX as usize
    }

    pub(super) fn replicas(&self) -> Vec<Replica> {
        let prs = self.node.raft.prs();
        let voters = prs.conf().voters().ids();
        let replica = |(id, progress): (&u64, &raft::Progress)| Replica {
            node: NodeId(*id),
            voter: voters.contains(*id),
            matched: LogIndex(progress.matched),
            active: progress.recent_active || *id == self.config.me.0,
            caught_up: false,
        };
        let mut replicas: Vec<Replica> = prs.iter().map(replica).collect();
        replicas.sort_unstable_by_key(|r| r.node);
        replicas
    }

    fn propose_conf_change(&mut self, change: ConfChange) {
        match self.node.propose_conf_change(change.encode().to_vec(), change.to_raft()) {
            Ok(()) => log::info!("group {}: proposed {:?} of node {}", self.config.id, change.kind, change.node),
            Err(error) => log::debug!("group {}: a conf change was not taken: {error}", self.config.id),
        }
    }

    /// As the leader, gives leadership to the voter that is nearest; false when there is none to give it to.
    pub fn hand_over(&mut self) -> bool {
        let others = self.replicas().into_iter().filter(|r| r.voter && r.active && r.node != self.config.me);
        match others.max_by_key(|r| r.matched) {
            Some(next) if self.leads() => {
                self.node.transfer_leader(next.node.0);
                true
            }
            Some(_) | None => false,
        }
    }
}
