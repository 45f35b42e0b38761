//! When a group may be quiet: nothing is to be replicated, so its leader sends no heartbeats of its own and no replica of
//! it needs ticks. `consensus/heartbeats.rs` notices if a node with such replicas is silent.

use raft::ProgressState;

use super::Group;
use super::settings::ELECTION_TICKS;
use crate::types::{LogIndex, NodeId, ReplicaId, Term};

/// Returns true if every entry is applied here, and nothing waits: no request, no sync, no change of the members or the
/// leader.
fn is_at_rest(group: &Group) -> bool {
    let raft = &group.node.raft;
    group.is_idle()
        && group.node.commit_index() == group.node.last_index()
        && !group.health.is_damaged()
        && group.health.suspect().is_none()
        && !group.persistence.waits()
        && group.pending.is_empty()
        && group.reads.is_empty()
        && group.unreadable.is_empty()
        && raft.lead_transferee.is_none()
        && !raft.has_pending_conf()
}

/// Returns the nodes of the other replicas if this leader may let the group become quiet. Each replica must have every
/// entry and know that it is committed, except on nodes that are silent anyway; those must be a minority.
pub fn followers(group: &Group, is_silent: impl Fn(NodeId) -> bool) -> Option<Vec<NodeId>> {
    if !group.leads() || !is_at_rest(group) || !group.leads_a_majority() {
        return None;
    }
    let (me, last) = (group.config.me.0, group.node.last_index().0);
    let prs = group.node.raft.prs();
    let voters = prs.conf().voters().ids();
    let (mut nodes, mut heard) = (Vec::new(), 1);
    for (id, progress) in prs.iter().filter(|(id, _)| **id != me) {
        let node = group.node.nodes.node_of(ReplicaId(*id))?;
        if is_silent(node) {
            continue;
        }
        // A replica that was unreachable stays in the state Probe until the next entry.
        let is_equal =
            progress.state != ProgressState::Snapshot && progress.matched == last && progress.committed_index == last;
        if !is_equal {
            return None;
        }
        heard += usize::from(voters.contains(*id));
        nodes.push(node);
    }
    (heard > voters.len() / 2).then_some(nodes)
}

/// Returns true if this follower may be quiet after a heartbeat in which its leader says that the group is.
pub fn may_follow(group: &Group, leader: ReplicaId, term: Term, commit: LogIndex) -> bool {
    is_at_rest(group)
        && !group.node.is_leader()
        && group.node.leader() == Some(leader)
        && group.node.term() == term
        && group.node.last_index() == commit
}

/// Sets the maximum size of the applied entries that stay in memory.
pub fn bound_cache(group: &mut Group, bytes_max: usize) {
    group.applier.bound_cache(&mut group.node, bytes_max);
}

/// Sends a heartbeat to every replica, if this node leads.
pub fn send_heartbeats(group: &mut Group) {
    group.node.ping();
}

/// Continues to count ticks after the group was quiet. A leader asks the others at once; a follower waits for a whole
/// election timeout, or only for the random part of it if its leader has been silent for that long already.
pub fn wake(group: &mut Group, leader_is_silent: bool) {
    group.node.raft.election_elapsed = if leader_is_silent { ELECTION_TICKS } else { 0 };
    if group.node.is_leader() {
        group.node.raft.election_elapsed = 0;
        group.node.ping();
    }
}

/// Called when the leader's node has been silent for an election timeout: this replica soon campaigns.
pub fn leader_is_silent(group: &mut Group) {
    if !group.node.is_leader() {
        group.node.raft.election_elapsed = group.node.raft.election_elapsed.max(ELECTION_TICKS);
    }
}

/// Hands over leadership to the replica on a node, if it is an up-to-date voter.
pub fn hand_over_to(group: &mut Group, node: NodeId) {
    let last = group.node.last_index();
    let replicas = group.node.nodes.replicas_of(node);
    let next = group.node.other_voters().find(|r| replicas.contains(&r.replica) && r.matched == last);
    if let Some(next) = next.filter(|_| group.leads() && group.node.raft.lead_transferee.is_none()) {
        group.node.transfer_leader(next.replica.0);
    }
}
