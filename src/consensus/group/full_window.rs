//! Keeps raft from sending more appends than a follower's limit while the follower makes progress.
//!
//! While the limit of appends in flight is reached, raft takes one of them for lost with each heartbeat response, and sends
//! another. On a slow network, each heartbeat would add an append to those that wait, until the outbox is full and all are
//! sent again, and a draining follower (`lanes.rs`) would never be drained. So this is left to raft only if the follower
//! makes no progress.

use raft::{Progress, ProgressState};

use super::lanes::Lanes;
use super::node::RaftNode;
use crate::types::{LogIndex, ReplicaId};

/// Steps a heartbeat response of a follower.
pub fn step_response(node: &mut RaftNode, lanes: &mut Lanes, follower: ReplicaId, step: impl FnOnce(&mut RaftNode)) {
    let is_full = |progress: &&Progress| progress.state == ProgressState::Replicate && progress.ins.full();
    let progress = node.raft.prs().get(follower.0).filter(is_full);
    let Some(matched) = progress.map(|progress| LogIndex(progress.matched)) else { return step(node) };
    if lanes.takes_for_lost(follower, matched) {
        return step(node);
    }
    // In this state, raft sends nothing and frees nothing.
    set_state(node, follower, ProgressState::Replicate, ProgressState::Snapshot);
    step(node);
    set_state(node, follower, ProgressState::Snapshot, ProgressState::Replicate);
}

fn set_state(node: &mut RaftNode, follower: ReplicaId, from: ProgressState, to: ProgressState) {
    let progress = node.raft.mut_prs().get_mut(follower.0);
    if let Some(progress) = progress.filter(|progress| progress.state == from) {
        progress.state = to;
    }
}
