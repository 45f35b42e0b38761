//! Decides which replicas move to other nodes: those of nodes that leave the cluster, and those that balance the nodes.
//! Used by the catalog's leader.
//!
//! - A replica moves only if no other replica of its log is leaving.
//! - At most [`MOVES_MAX`] logs have a replica that moves. Deleted logs, and replicas of nodes that are removed already,
//!   do not count.
//! - If no node is left for it, a replica of a node that leaves is removed without a successor, unless it is the last.
//! - Balancing ends when no move would bring two nodes closer to each other.
//! - A node that leaves is removed from the catalog's group once it has no replica, and then from the cluster.

use std::collections::BTreeSet;

use super::facts::{ReplicaFacts, Replicas};
use super::placement::{Candidates, MOVES_MAX, PendingPlacements};
use crate::catalog::command::Command;
use crate::catalog::faults::{Fault, broken};
use crate::catalog::meta::{LogMeta, Placement};
use crate::catalog::plans::{Destination, Plan};
use crate::catalog::state::Catalog;
use crate::types::{GroupId, NodeId, ReplicaId};

/// Returns the nodes that are leaving or were replaced, and have no replica of a log.
pub fn retired(catalog: &Catalog) -> BTreeSet<NodeId> {
    let mut retired: BTreeSet<NodeId> =
        catalog.leaving_nodes().map(|(node, _)| node).chain(catalog.replaced()).collect();
    if !retired.is_empty() && !broken(Fault::RemovedWithReplicas) {
        for placement in catalog.logs().flat_map(LogMeta::placements) {
            retired.remove(&placement.node);
        }
    }
    retired
}

/// Returns a group that could not commit while the node leaves or without it, if there is one. `of_catalog` are the
/// facts of the catalog's leader, which hears from every member.
pub fn needs(catalog: &Catalog, of_catalog: &ReplicaFacts, node: NodeId, plan: &Plan) -> Option<GroupId> {
    let destination = plan.leaves.filter(|_| !broken(Fault::NeededNodeRemoved))?;
    let is_active = |node: NodeId| {
        let id = ReplicaId::of_node(node);
        of_catalog.progress.iter().any(|r| r.replica == id && r.active)
    };
    let has_majority = |nodes: &[NodeId]| nodes.iter().filter(|node| is_active(**node)).count() > nodes.len() / 2;
    let voters: Vec<NodeId> = of_catalog.voters.iter().map(|replica| NodeId(replica.0)).collect();
    let rest: Vec<NodeId> = voters.iter().copied().filter(|voter| *voter != node).collect();
    if voters.contains(&node) && !has_majority(&rest) {
        return Some(GroupId::CATALOG);
    }
    let mut logs: Vec<&LogMeta> = catalog.logs().filter(|log| log.is_on(node) && log.deletion.is_none()).collect();
    logs.sort_unstable_by_key(|log| log.group);
    let loses = |log: &&LogMeta| {
        let present: Vec<NodeId> = log.replicas.iter().map(|placement| placement.node).collect();
        let mut after: Vec<NodeId> = present.iter().copied().filter(|other| *other != node).collect();
        let is_free = |other: &NodeId| {
            let stays = *other != node && catalog.plan(*other).leaves.is_none();
            stays && is_active(*other) && !log.placements().any(|placement| placement.node == *other)
        };
        after.extend(match destination {
            Destination::Node(to) => Some(to).filter(is_free),
            Destination::AnyNode => catalog.members().map(|member| member.id).find(is_free),
        });
        !has_majority(&present) || !has_majority(&after)
    };
    logs.into_iter().find(loses).map(|log| log.group)
}

/// Returns a group that could not go on without a node, if there is one, as far as this node knows its voters.
pub fn stops_without(catalog: &Catalog, replicas: &Replicas, node: NodeId) -> Option<GroupId> {
    let of_catalog = replicas.get(&GroupId::CATALOG)?;
    let is_active = |other: NodeId| {
        let id = ReplicaId::of_node(other);
        other != node && of_catalog.progress.iter().any(|r| r.replica == id && r.active)
    };
    let keeps = |voters: &[NodeId]| {
        !voters.contains(&node) || voters.iter().filter(|voter| is_active(**voter)).count() > voters.len() / 2
    };
    let voters: Vec<NodeId> = of_catalog.voters.iter().map(|replica| NodeId(replica.0)).collect();
    if !keeps(&voters) {
        return Some(GroupId::CATALOG);
    }
    let mut logs: Vec<&LogMeta> = catalog.logs().filter(|log| log.deletion.is_none()).collect();
    logs.retain(|log| log.placements().any(|placement| placement.node == node));
    logs.sort_unstable_by_key(|log| log.group);
    let stops = |log: &&LogMeta| {
        let placed: Vec<NodeId> = log.replicas.iter().map(|placement| placement.node).collect();
        // A replica here that no leader has reached yet: the others may be as new, and the lost one the only voter.
        if replicas.get(&log.group).is_some_and(|facts| facts.voters.is_empty() && !facts.is_damaged) {
            return true;
        }
        let known = replicas.get(&log.group).filter(|facts| !facts.voters.is_empty() && !facts.is_damaged);
        let by_votes = known.map(|facts| {
            let voters: Vec<NodeId> = facts.voters.iter().filter_map(|voter| log.node_of(*voter)).collect();
            voters.len() == facts.voters.len() && keeps(&voters)
        });
        // Only the leader of a group knows its newest voters.
        let leads = known.is_some_and(|facts| facts.leads);
        !(by_votes.unwrap_or(true) && (leads || keeps(&placed)))
    };
    logs.into_iter().find(stops).map(|log| log.group)
}

impl<A: Fn(NodeId) -> bool, J: Fn(NodeId) -> bool> Candidates<'_, A, J> {
    /// Returns true for a node that may get replicas.
    pub(super) fn stays(&self, node: NodeId) -> bool {
        self.catalog.plan(node).leaves.is_none() || broken(Fault::LeavingNodesChosen)
    }

    /// Returns the command that moves a replica away from a node that leaves, if the log has one.
    pub(super) fn move_away(&self, log: &LogMeta, pending: &mut PendingPlacements) -> Option<Command> {
        // The successor of another replica may be lost before it votes: then it is replaced, too.
        let may_move = |placement: &&Placement| {
            let is_lost = log.leaving.len() < 2 && !(self.is_active)(placement.node);
            self.catalog.plan(placement.node).leaves.is_some() && (log.leaving.is_empty() || is_lost)
        };
        let placement = log.replicas.iter().find(may_move)?;
        let is_free = |node: &NodeId| self.stays(*node) && !log.placements().any(|p| p.node == *node);
        let members = || self.catalog.members().map(|member| member.id);
        let remove = || (log.replicas.len() > 1).then_some(Command::RemoveReplica(log.group, placement.replica));
        let node = match self.catalog.plan(placement.node).leaves? {
            Destination::Node(to) if is_free(&to) => Some(to).filter(|to| (self.is_active)(*to)),
            // The node has a replica of the log already.
            Destination::AnyNode | Destination::Node(_) if !members().any(|node| is_free(&node)) => return remove(),
            Destination::AnyNode | Destination::Node(_) => {
                let usable = members().filter(|node| is_free(node) && (self.is_active)(*node));
                usable.min_by_key(|node| (pending.load(self.catalog, *node), *node))
            }
        }?;
        pending.add(&[node]);
        Some(Command::MoveReplica(log.group, placement.replica, node))
    }

    /// Returns the moves that make the numbers of replicas on two nodes more equal, or the end of the balancing.
    pub(super) fn balance(&self, logs: &[&LogMeta], under_way: usize, pending: &mut PendingPlacements) -> Vec<Command> {
        let mut commands = Vec::new();
        let mut moved = BTreeSet::new();
        while under_way + commands.len() < MOVES_MAX {
            let Some((log, replica, node)) = self.next_move(logs, &moved, pending) else { break };
            moved.insert(log);
            commands.push(Command::MoveReplica(log, replica, node));
        }
        if commands.is_empty() && under_way == 0 {
            commands.push(Command::SetBalancing(false));
        }
        commands
    }

    /// From a node with more replicas to one that has at least two fewer.
    fn next_move(
        &self,
        logs: &[&LogMeta],
        moved: &BTreeSet<GroupId>,
        pending: &mut PendingPlacements,
    ) -> Option<(GroupId, ReplicaId, NodeId)> {
        let load = |pending: &PendingPlacements, node| pending.load(self.catalog, node).replicas;
        let members = self.catalog.members().map(|member| member.id);
        let mut nodes: Vec<NodeId> = members.filter(|node| self.stays(*node) && (self.is_active)(*node)).collect();
        nodes.sort_by_key(|node| (load(pending, *node), *node));
        for from in nodes.iter().rev() {
            for to in &nodes {
                if load(pending, *from) < load(pending, *to) + 2 {
                    break;
                }
                let movable = |log: &&&LogMeta| {
                    let at_rest = log.leaving.is_empty() && log.deletion.is_none() && !moved.contains(&log.group);
                    at_rest && log.is_on(*from) && !log.is_on(*to)
                };
                let Some(log) = logs.iter().find(movable) else { continue };
                let replica = log.replicas.iter().find(|placement| placement.node == *from)?.replica;
                pending.add(&[*to]);
                pending.remove(*from);
                return Some((log.group, replica, *to));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::meta::{LogSettings, Member, NewLog, Origin};
    use crate::catalog::policy::facts::ReplicaProgress;
    use crate::feature_level::Feature;
    use crate::types::{LogId, LogIndex, LogName, NodeName};

    /// The only replica of a log was on a wiped node, and two new ones were placed. The node was admitted as if these could
    /// vote, and its records were given up without anybody's consent.
    #[test]
    fn a_node_is_not_replaced_while_the_other_replicas_of_a_log_are_blank() {
        let nodes = [NodeId(100), NodeId(200), NodeId(300)];
        let mut catalog = Catalog::default();
        for id in nodes {
            let name = NodeName::new(&format!("n{id}")).expect("a name");
            let member = Member { id, name, bind_addr: "a:1".to_owned(), rpc_addr: "a:2".to_owned() };
            catalog.apply(&Command::AddNode(member), 1);
        }
        catalog.apply(&Command::RaiseFeatureLevel(Feature::Membership.level()), 1);
        let (name, origin) = (LogName::new("a").expect("a name"), Origin::Nodes(vec![nodes[2]]));
        let settings = LogSettings { replicas: Some(3), ..LogSettings::default() };
        catalog.apply(&Command::CreateLog(NewLog { name, log_id: LogId(7), origin, settings, restore: None }), 1);
        let group = GroupId(1);
        catalog.apply(&Command::PlaceReplica(group, nodes[0]), 1);
        catalog.apply(&Command::PlaceReplica(group, nodes[1]), 1);
        let progress = nodes.map(|node| ReplicaProgress {
            replica: ReplicaId::of_node(node),
            voter: true,
            matched: LogIndex(9),
            active: node != nodes[2],
        });
        let of_catalog = ReplicaFacts {
            leads: true,
            voters: nodes.map(ReplicaId::of_node).to_vec(),
            progress: progress.to_vec(),
            ..ReplicaFacts::default()
        };
        let with = |voters: Vec<ReplicaId>| {
            let replica = ReplicaFacts { replica: ReplicaId(2), voters, ..ReplicaFacts::default() };
            let replicas: Replicas = [(GroupId::CATALOG, of_catalog.clone()), (group, replica)].into();
            stops_without(&catalog, &replicas, nodes[2])
        };
        assert_eq!(with(Vec::new()), Some(group));
        assert_eq!(with(vec![ReplicaId(1)]), Some(group));
        assert_eq!(with(vec![ReplicaId(1), ReplicaId(2), ReplicaId(3)]), None);
    }
}
