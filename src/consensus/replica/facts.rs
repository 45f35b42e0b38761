//! What other parts need to know about a replica.

use super::Replica;
use crate::catalog::policy::facts::ReplicaFacts;
use crate::consensus::status::GroupStatus;
use crate::types::NodeId;

impl Replica {
    /// Returns the facts about this replica that the catalog's policy uses. `is_searched`: a search for expired
    /// records is running.
    pub fn facts(&self, is_searched: bool) -> ReplicaFacts {
        ReplicaFacts { begun_us: self.begun_us, is_searched, ..self.group.facts() }
    }

    /// Returns the node of the leader, as far as this node knows.
    pub fn leader_node(&self) -> Option<NodeId> {
        self.group.leader().and_then(|leader| self.group.nodes().node_of(leader))
    }

    /// Returns the nodes of the other voters that should lead.
    pub fn successors(&self) -> impl Iterator<Item = NodeId> {
        self.group.successors().filter_map(|replica| self.group.nodes().node_of(replica))
    }

    /// Returns the group's status, by the nodes of its replicas.
    pub fn status(&self) -> GroupStatus {
        self.group.status().by_node(|replica| self.group.nodes().node_of(replica))
    }
}
