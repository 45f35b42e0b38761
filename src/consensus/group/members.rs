//! A group's membership, moved by its leader: one step at a time, as `reconcile.rs` decides.

use super::node::RaftNode;
use super::settings::ELECTION_TICKS;
use crate::consensus::catch_up::CatchUp;
use crate::consensus::reconcile::{Step, next_step};
use crate::types::NodeId;

/// What a leader remembers between two steps.
#[derive(Debug, Default)]
pub struct Membership {
    catch_up: CatchUp,
}

impl Membership {
    /// Called on each tick of a leader. Returns the next step towards the wanted members, if none is under way.
    pub fn next_step(
        &mut self,
        node: &RaftNode,
        tick: usize,
        wanted: &[NodeId],
        removed: impl Fn(NodeId) -> bool,
        may_vote: impl Fn(NodeId) -> bool,
    ) -> Option<Step> {
        let mut replicas = node.replicas();
        let ticks_max = ELECTION_TICKS as u64;
        self.catch_up.look(node.raft.term, tick as u64, node.last_index(), &mut replicas, ticks_max);
        if node.raft.has_pending_conf() || node.raft.lead_transferee.is_some() {
            return None;
        }
        next_step(node.me(), &replicas, wanted, removed, may_vote)
    }
}
