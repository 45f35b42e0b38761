//! When a group may be quiet: it has nothing to replicate, so its leader sends no heartbeats and none of its replicas
//! needs ticks. `consensus/heartbeats.rs` notices if a node with such replicas is silent.

use raft::ProgressState;

use super::Group;
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId, Term};

/// Returns true if every entry is applied here, and nothing waits: no request, no sync, no change of the members or the
/// leader.
fn is_at_rest(group: &Group) -> bool {
    let raft = &group.node.raft;
    group.is_idle()
        && group.node.commit_index() == group.node.last_index()
        && !group.health.is_damaged()
        && group.health.suspect().is_none()
        && !group.persistence.waits()
        && group.gathered.is_empty()
        && group.pending.is_empty()
        && group.reads.is_empty()
        && group.unreadable.is_empty()
        && raft.lead_transferee.is_none()
        && !raft.has_pending_conf()
}

/// Returns the nodes of the other replicas if this leader may let the group become quiet. Each replica must have every
/// entry and know that it is committed, except on nodes that are silent anyway; those must be a minority. A node that has
/// just joined is silent until it has the catalog, so in the catalog's group every replica must have every entry.
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
        let has_entries = progress.matched == last || group.config.id != GroupId::CATALOG;
        if is_silent(node) && has_entries {
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
/// election timeout.
pub fn wake(group: &mut Group) {
    group.node.raft.election_elapsed = 0;
    if group.node.is_leader() {
        group.node.ping();
    }
}

/// Forgets the leader, because its node is lost: pre-votes of others are granted from now on. If this replica votes,
/// returns its place in the order in which the voters other than the leader campaign, counted from 0. The order differs
/// between groups, so that the groups of a lost node get leaders on different nodes.
pub fn forget_leader(group: &mut Group) -> Option<usize> {
    if group.node.is_leader() {
        return None;
    }
    let place = campaign_place(group);
    group.node.step_down();
    (group.node.raft.promotable() && !group.health.is_damaged()).then_some(place)
}

/// The place of this replica among the voters other than the leader.
fn campaign_place(group: &Group) -> usize {
    let (me, leader) = (group.config.me, group.node.leader());
    let mut others = group.node.voters();
    others.retain(|voter| Some(*voter) != leader);
    let first = (group.config.id.0 % others.len().max(1) as u64) as usize;
    let place = others.iter().position(|voter| *voter == me).unwrap_or_default();
    (place + others.len() - first) % others.len().max(1)
}

/// Asks for pre-votes now. Does nothing if this replica may not campaign, or if its last vote is not synced.
pub fn campaign(group: &mut Group) {
    let waits = group.persistence.vote_waits() || !group.may_campaign();
    if waits || group.health.is_damaged() || !group.node.raft.promotable() {
        return;
    }
    group.node.raft.election_elapsed = 0;
    if let Err(error) = group.node.campaign() {
        log::debug!("group {}: no campaign: {error}", group.config.id);
    }
}

/// Hands over leadership to the replica on a node, if it is an up-to-date voter. Returns true if it begins to.
pub fn hand_over_to(group: &mut Group, node: NodeId) -> bool {
    let last = group.node.last_index();
    let replicas = group.node.nodes.replicas_of(node);
    let next = group.node.successors().find(|r| replicas.contains(&r.replica) && r.matched == last);
    let next = next.filter(|_| group.leads() && group.node.raft.lead_transferee.is_none());
    if let Some(next) = &next {
        group.node.transfer_leader(next.replica.0);
    }
    next.is_some()
}
