//! Damaged replicas that their own nodes can't repair. Each node tells the others in its heartbeats, and the leader of
//! the group has the replica replaced (`catalog/policy/rebuilds.rs`).

use std::collections::{BTreeMap, BTreeSet};

use crate::pb::peer::{DamagedReplica, NodeHeartbeat};
use crate::types::{GroupId, NodeId, ReplicaId};

/// The maximum number of replicas in a heartbeat. The others are reported once these are replaced.
const REPORTED_MAX: usize = 64;

/// Returns the message for damaged replicas of this node.
pub fn report(damaged: impl Iterator<Item = (GroupId, ReplicaId)>) -> Vec<DamagedReplica> {
    let message = |(group, replica): (GroupId, ReplicaId)| DamagedReplica {
        group: group.0,
        replica: replica.0,
        ..DamagedReplica::default()
    };
    damaged.take(REPORTED_MAX).map(message).collect()
}

/// The damaged replicas of other nodes, as their last heartbeats reported them.
#[derive(Debug, Default)]
pub struct ReportedDamage(BTreeMap<NodeId, BTreeSet<(GroupId, ReplicaId)>>);

impl ReportedDamage {
    /// Reads the heartbeat of a member.
    pub fn receive(&mut self, from: NodeId, heartbeat: &NodeHeartbeat) {
        let replica = |damaged: &DamagedReplica| (GroupId(damaged.group), ReplicaId(damaged.replica));
        let damaged: BTreeSet<_> = heartbeat.damaged.iter().take(REPORTED_MAX).map(replica).collect();
        match damaged.is_empty() {
            true => self.0.remove(&from),
            false => self.0.insert(from, damaged),
        };
    }

    /// Forgets what nodes reported that are silent now.
    pub fn forget(&mut self, silent: &BTreeSet<NodeId>) {
        self.0.retain(|node, _| !silent.contains(node));
    }

    /// Returns the damaged replicas of a group, each with the node that reported it.
    pub fn of(&self, group: GroupId) -> Vec<(NodeId, ReplicaId)> {
        let of_node = |(node, damaged): (&NodeId, &BTreeSet<(GroupId, ReplicaId)>)| {
            let node = *node;
            let replicas: Vec<ReplicaId> =
                damaged.range((group, ReplicaId(0))..=(group, ReplicaId(u64::MAX))).map(|(_, id)| *id).collect();
            replicas.into_iter().map(move |replica| (node, replica))
        };
        self.0.iter().flat_map(of_node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_heartbeat_of_each_node_counts() {
        let (a, b, group) = (NodeId(1), NodeId(2), GroupId(7));
        let heartbeat = |damaged: &[(GroupId, ReplicaId)]| NodeHeartbeat {
            damaged: report(damaged.iter().copied()),
            ..NodeHeartbeat::default()
        };
        let mut reported = ReportedDamage::default();
        reported.receive(a, &heartbeat(&[(group, ReplicaId(3)), (GroupId(8), ReplicaId(4))]));
        reported.receive(b, &heartbeat(&[(group, ReplicaId(5))]));
        assert_eq!(reported.of(group), [(a, ReplicaId(3)), (b, ReplicaId(5))]);
        reported.receive(a, &heartbeat(&[]));
        assert_eq!(reported.of(group), [(b, ReplicaId(5))]);
        reported.forget(&[b].into());
        assert!(reported.of(group).is_empty());
        let many: Vec<_> = (0..1000).map(|id| (group, ReplicaId(id))).collect();
        reported.receive(a, &heartbeat(&many));
        assert_eq!(reported.of(group).len(), REPORTED_MAX);
    }
}
