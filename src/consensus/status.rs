//! What `consensus` publishes about its groups: leaders, terms, positions.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::types::{GroupId, LogIndex, NodeId, Term};

/// What a node is in a group.
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

/// What a node knows of one group, published by `consensus` whenever it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// The id of the group.
    pub group: GroupId,
    /// What this node is in the group.
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
    /// This node lacks the entry, and the leader can't read it from its own disk.
    pub stalled: Option<(NodeId, LogIndex)>,
}

/// The newest status of each group that this node carries.
#[derive(Debug, Default)]
pub struct Statuses(RwLock<BTreeMap<GroupId, Arc<GroupStatus>>>);

impl Statuses {
    /// The status of one group.
    pub fn get(&self, group: GroupId) -> Option<Arc<GroupStatus>> {
        self.0.read().get(&group).cloned()
    }

    /// The statuses of all groups, by id.
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
