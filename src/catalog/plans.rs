//! What the operators want to happen to nodes. The policy of the catalog's leader carries it out.

use super::command::{BadCommand, unknown_field};
use crate::pb::catalog as pb;
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

    pub(super) fn store(&self) -> pb::NodePlan {
        pb::NodePlan {
            drained: self.drained,
            leaves: self.leaves.is_some(),
            moves_to: match self.leaves {
                Some(Destination::Node(node)) => node.0,
                Some(Destination::AnyNode) | None => 0,
            },
            may_be_replaced: self.may_be_replaced,
            ..pb::NodePlan::default()
        }
    }

    pub(super) fn load(command: &'static str, plan: pb::NodePlan) -> Result<Plan, BadCommand> {
        if let Some(number) = unknown_field(&plan.special_fields) {
            return Err(BadCommand::UnknownField { command, number });
        }
        let leaves = match (plan.leaves, plan.moves_to) {
            (false, 0) => None,
            (true, 0) => Some(Destination::AnyNode),
            (true, node) => Some(Destination::Node(NodeId(node))),
            (false, _) => return Err(BadCommand::Malformed("a destination for a node that does not leave".to_owned())),
        };
        Ok(Plan { drained: plan.drained, leaves, may_be_replaced: plan.may_be_replaced })
    }
}
