//! Which catalog changes are proposed: commands that this node requests, and proposals that peers forward.
//!
//! A peer is any node with a peer certificate. A faulty or compromised peer must not be able to fill the catalog: even
//! an entry without an effect would be synced on every node and kept forever.

use super::facts::{ReplicaFacts, Replicas};
use super::joins::Verdict;
use super::{moves, rebuilds};
use crate::catalog::command::Command;
use crate::catalog::meta::{Member, NewLog, Origin};
use crate::catalog::state::Catalog;
use crate::feature_level::FeatureRange;
use crate::storage::payload;
use crate::types::{GroupId, NodeId, ReplicaId};

/// The decision about a requested command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Propose it. If this node does not lead the catalog, the proposal is refused there.
    Propose,
    /// Do not propose it, because it would change nothing or a new node must wait.
    Drop,
    /// Do not propose it. Instead propose the removal of this node, which has abandoned its join.
    Replace(NodeId),
    /// Do not propose it, because this group needs the node that is to be replaced.
    Needed(GroupId),
}

/// Decides about a requested command. `replica` is this node's replica of the catalog; `join` decides about a new node.
///
/// Only a leader that has applied all its entries knows what a command would change. It adds a node only in that state,
/// because an entry that is not applied yet may add another node.
pub(super) fn decide(
    catalog: &Catalog,
    replicas: &Replicas,
    replica: &ReplicaFacts,
    command: &Command,
    join: impl FnOnce() -> Verdict,
) -> Decision {
    if !replica.leads {
        return Decision::Propose;
    }
    if matches!(command, Command::AddNode(member) if catalog.member(member.id).is_none()) {
        match join() {
            Verdict::Admit if replica.is_idle => {}
            Verdict::Replace(abandoned) if replica.is_idle => return Decision::Replace(abandoned),
            Verdict::Admit | Verdict::Replace(_) | Verdict::Wait => return Decision::Drop,
        }
    }
    if let Command::ReplaceNode(old, by) = command {
        let id = ReplicaId::of_node(*old);
        let is_heard = replica.progress.iter().any(|progress| progress.replica == id && progress.active);
        if is_heard || !replica.is_idle || !may_replace(catalog, *old, by) {
            return Decision::Drop;
        }
        if let Some(group) = moves::stops_without(catalog, replicas, *old) {
            return Decision::Needed(group);
        }
    }
    if replica.is_idle && catalog.would_change(command) != Ok(true) {
        return Decision::Drop;
    }
    Decision::Propose
}

/// Returns true if a node without data may replace a member.
pub fn may_replace(catalog: &Catalog, old: NodeId, by: &Member) -> bool {
    let plan = catalog.plan(old);
    let same_address = catalog.member(old).is_some_and(|member| member.bind_addr == by.bind_addr);
    let auto = catalog.cluster_settings().auto_replace_wiped && same_address;
    // A node that leaves is not replaced: its name is free once it is out.
    plan.leaves.is_none() && (plan.may_be_replaced || auto)
}

/// The decision about a proposal to the catalog that a peer may have forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerDecision {
    /// The leader appends it.
    Accept,
    /// The leader chooses the nodes of a new log, and appends the command with them.
    Place(NewLog),
    /// The leader does not append it.
    Drop,
    /// The leader does not append it, because this member does not support the feature level.
    LevelUnsupported(NodeId),
    /// The leader does not append it, because it has not heard from this member.
    MemberSilent(NodeId),
    /// The leader does not append it, because this group needs the node that is to leave.
    NodeNeeded(GroupId),
}

/// Decides about a proposal to the catalog. The leader appends a proposal with exactly one command that has an effect:
/// a change of a log or of the cluster's settings, a damaged replica to remove, or a feature level that every member
/// supports. All other commands are proposed only by the leader itself.
///
/// `replica` is the leader's replica of the catalog. `levels_of` returns the levels that a member supported when it
/// last connected. The level is raised only while the leader hears from every member and has applied all entries,
/// because an entry that is not applied yet may add a member.
pub fn decide_for_peer(
    catalog: &Catalog,
    records: &[u8],
    count: u32,
    replica: &ReplicaFacts,
    levels_of: impl Fn(NodeId) -> Option<FeatureRange>,
) -> PeerDecision {
    let mut all = payload::records(records);
    let (Some(Ok(record)), None, 1) = (all.next(), all.next(), count) else {
        return PeerDecision::Drop;
    };
    let Ok(command) = Command::of_record(record) else { return PeerDecision::Drop };
    // A key, headers or unknown fields would be kept forever, whatever their size.
    let is_canonical = command.payload().payload() == records;
    if !is_canonical || !command.is_requested() || catalog.feature_level() < command.feature().level() {
        return PeerDecision::Drop;
    }
    if let Command::CreateLog(NewLog { origin: Origin::Nodes(nodes), .. }) = &command
        && nodes.is_empty()
    {
        // Checked with the nodes that the leader chooses.
        let Command::CreateLog(new) = command else { return PeerDecision::Drop };
        return PeerDecision::Place(new);
    }
    if catalog.would_change(&command) != Ok(true) {
        return PeerDecision::Drop;
    }
    match command {
        // The cluster is not founded yet.
        Command::RaiseFeatureLevel(_) if catalog.members().next().is_none() => PeerDecision::Drop,
        Command::RaiseFeatureLevel(level) => {
            let obstacle = |member: &Member| {
                let id = ReplicaId::of_node(member.id);
                let is_heard = replica.progress.iter().any(|progress| progress.replica == id && progress.active);
                match levels_of(member.id) {
                    Some(range) if !range.contains(level) => Some(PeerDecision::LevelUnsupported(member.id)),
                    Some(_) if is_heard => None,
                    Some(_) | None => Some(PeerDecision::MemberSilent(member.id)),
                }
            };
            match catalog.members().find_map(obstacle) {
                Some(obstacle) => obstacle,
                None if replica.is_idle => PeerDecision::Accept,
                None => PeerDecision::Drop,
            }
        }
        Command::PlanNode(node, plan, expected) if plan.leaves != expected.leaves => {
            match moves::needs(catalog, replica, node, &plan) {
                Some(group) => PeerDecision::NodeNeeded(group),
                None if replica.is_idle => PeerDecision::Accept,
                // An entry that is not applied yet may contain the plan of another node.
                None => PeerDecision::Drop,
            }
        }
        Command::RemoveReplica(group, damaged) => match rebuilds::may_give_up(catalog, replica, group, damaged) {
            true => PeerDecision::Accept,
            false => PeerDecision::Drop,
        },
        _ => PeerDecision::Accept,
    }
}
