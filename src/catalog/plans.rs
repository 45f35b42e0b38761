//! What the operators want to happen to nodes. The policy of the catalog's leader carries it out.

use crate::types::NodeId;

/// The plan of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// It hands over leadership.
    pub drained: bool,
    /// Its replicas move to other nodes, and then it is removed.
    pub leaves: Option<Destination>,
    /// A node that has its name and no data may replace it.
    pub may_be_replaced: bool,
}

/// Where the replicas of a node move to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The nodes with the fewest replicas.
    AnyNode,
    /// This node.
    Node(NodeId),
}

impl Plan {
    /// Returns true for a node that should not lead a group.
    pub fn avoids_leading(&self) -> bool {
        self.drained || self.leaves.is_some()
    }
}
