//! The nodes of a group's replicas, as far as this node knows.

use std::collections::BTreeMap;

use crate::types::{NodeId, ReplicaId};

/// Maps replicas to nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaNodes {
    /// Each replica has the id of its node: in the catalog's group.
    SameIds,
    /// As the catalog lists them, and as messages of peers show.
    Listed(BTreeMap<ReplicaId, NodeId>),
}

impl ReplicaNodes {
    /// Returns the node of a replica.
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        match self {
            ReplicaNodes::SameIds => Some(NodeId(replica.0)),
            ReplicaNodes::Listed(nodes) => nodes.get(&replica).copied(),
        }
    }

    /// Returns the replicas of a node. It has more than one for a short time, if it returns to a group that it left.
    pub fn replicas_of(&self, node: NodeId) -> Vec<ReplicaId> {
        match self {
            ReplicaNodes::SameIds => vec![ReplicaId::of_node(node)],
            ReplicaNodes::Listed(nodes) => {
                nodes.iter().filter(|(_, of)| **of == node).map(|(replica, _)| *replica).collect()
            }
        }
    }

    /// Returns every known node; empty in the catalog's group.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        let listed = match self {
            ReplicaNodes::SameIds => None,
            ReplicaNodes::Listed(nodes) => Some(nodes.values().copied()),
        };
        listed.into_iter().flatten()
    }

    /// Records that a message of the replica came from the node. The catalog that lists it may not be applied here yet.
    pub fn learn(&mut self, replica: ReplicaId, node: NodeId) {
        /// A peer chooses the ids in its messages, so their number is limited.
        const LEARNED_MAX: usize = 32;
        if let ReplicaNodes::Listed(nodes) = self
            && nodes.len() < LEARNED_MAX
        {
            nodes.entry(replica).or_insert(node);
        }
    }
}
