//! The status of each group that `consensus` publishes: leader, term, positions.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::types::{GroupId, LogIndex, NodeId, Term};

/// The role of a node in a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It replicates the group and votes.
    #[default]
    Follower,
    /// It requests votes.
    Candidate,
    /// It appends entries and replicates them.
    Leader,
    /// It replicates the group without a vote.
    Learner,
}

/// The status of one group, as far as this node knows. `consensus` publishes it whenever it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// The id of the group.
    pub group: GroupId,
    /// The role of this node.
    pub role: Role,
    /// The newest term this node knows.
    pub term: Term,
    /// The leader of that term.
    pub leader: Option<NodeId>,
    /// The last entry here.
    pub last_index: LogIndex,
    /// The last entry known as committed.
    pub commit_index: LogIndex,
    /// The last entry applied here.
    pub applied_index: LogIndex,
    /// The term of that entry.
    pub applied_term: Term,
    /// The nodes that vote.
    pub voters: Vec<NodeId>,
    /// The nodes that replicate the group without a vote.
    pub learners: Vec<NodeId>,
    /// The damage of this replica, in words.
    pub damage: Option<String>,
    /// The leader, and an entry that this node lacks and the leader can't read from its disk.
    pub stalled: Option<(NodeId, LogIndex)>,
}

/// The newest status of each group of which this node has a replica.
#[derive(Debug, Default)]
pub struct Statuses(RwLock<BTreeMap<GroupId, Arc<GroupStatus>>>);

impl Statuses {
    /// Returns the status of one group.
    pub fn get(&self, group: GroupId) -> Option<Arc<GroupStatus>> {
        self.0.read().get(&group).cloned()
    }

    /// Returns the statuses of all groups, ordered by id.
    pub fn all(&self) -> Vec<Arc<GroupStatus>> {
        self.0.read().values().cloned().collect()
    }

    /// Replaces the status of one group.
    pub fn publish(&self, status: GroupStatus) {
        let mut all = self.0.write();
        if all.get(&status.group).is_none_or(|old| **old != status) {
            all.insert(status.group, Arc::new(status));
        }
    }
}
