//! The status of each group that `consensus` publishes: leader, term, positions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::RwLock;

use super::catch_up::Behind;
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId, Term};

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

/// The status of one group, as far as this node knows. `consensus` publishes it whenever it changes. Replicas are named
/// by their nodes, or within consensus by their own ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus<Id = NodeId> {
    /// The id of the group.
    pub group: GroupId,
    /// The role of this node.
    pub role: Role,
    /// The newest term this node knows.
    pub term: Term,
    /// The leader of that term.
    pub leader: Option<Id>,
    /// The last entry here.
    pub last_index: LogIndex,
    /// The last entry known as committed.
    pub commit_index: LogIndex,
    /// The last entry applied here.
    pub applied_index: LogIndex,
    /// The term of that entry.
    pub applied_term: Term,
    /// The replicas that vote.
    pub voters: Vec<Id>,
    /// The replicas without a vote.
    pub learners: Vec<Id>,
    /// The damage of this replica, in words.
    pub damage: Option<String>,
    /// The leader, and an entry that this node lacks and the leader can't read from its disk.
    pub stalled: Option<(Id, LogIndex)>,
}

impl GroupStatus<ReplicaId> {
    /// Names the replicas by their nodes. A replica whose node is not known is left out.
    pub fn by_node(self, node_of: impl Fn(ReplicaId) -> Option<NodeId>) -> GroupStatus {
        let nodes = |replicas: Vec<ReplicaId>| {
            let mut nodes: Vec<NodeId> = replicas.into_iter().filter_map(&node_of).collect();
            nodes.sort_unstable();
            nodes
        };
        GroupStatus {
            group: self.group,
            role: self.role,
            term: self.term,
            leader: self.leader.and_then(&node_of),
            last_index: self.last_index,
            commit_index: self.commit_index,
            applied_index: self.applied_index,
            applied_term: self.applied_term,
            voters: nodes(self.voters),
            learners: nodes(self.learners),
            damage: self.damage,
            stalled: self.stalled.and_then(|(by, index)| Some((node_of(by)?, index))),
        }
    }
}

/// The lagging followers of a group, by their nodes.
type BehindNodes = Arc<[(NodeId, Behind)]>;

/// The newest status of each group of which this node has a replica, and the nodes that are silent.
#[derive(Debug, Default)]
pub struct Statuses {
    groups: RwLock<BTreeMap<GroupId, Arc<GroupStatus>>>,
    /// The groups whose replica here could not be opened, with the damage.
    lost: RwLock<BTreeMap<GroupId, Arc<str>>>,
    silent: RwLock<BTreeSet<NodeId>>,
    /// The lagging followers, of the groups that this node leads.
    behind: RwLock<BTreeMap<GroupId, BehindNodes>>,
}

impl Statuses {
    /// Returns the status of one group.
    pub fn get(&self, group: GroupId) -> Option<Arc<GroupStatus>> {
        self.groups.read().get(&group).cloned()
    }

    /// Returns the damage of a replica that could not be opened.
    pub fn lost(&self, group: GroupId) -> Option<Arc<str>> {
        self.lost.read().get(&group).cloned()
    }

    /// Records that the replica of a group could not be opened.
    pub fn set_lost(&self, group: GroupId, what: &str) {
        self.lost.write().insert(group, what.into());
    }

    /// Returns true for a node that has sent no heartbeat for an election timeout.
    pub fn is_silent(&self, node: NodeId) -> bool {
        self.silent.read().contains(&node)
    }

    /// Replaces the nodes that are silent.
    pub fn set_silent(&self, nodes: BTreeSet<NodeId>) {
        if *self.silent.read() != nodes {
            *self.silent.write() = nodes;
        }
    }

    /// Returns what a group's lagging followers lack, if this node leads the group.
    pub fn behind(&self, group: GroupId) -> Option<Arc<[(NodeId, Behind)]>> {
        self.behind.read().get(&group).cloned()
    }

    /// Replaces what the followers lack, of all groups that this node leads.
    pub fn set_behind(&self, behind: BTreeMap<GroupId, Arc<[(NodeId, Behind)]>>) {
        if !behind.is_empty() || !self.behind.read().is_empty() {
            *self.behind.write() = behind;
        }
    }

    /// Returns the statuses of some groups, ordered by id.
    pub fn of(&self, groups: &BTreeSet<GroupId>) -> Vec<Arc<GroupStatus>> {
        let all = self.groups.read();
        groups.iter().filter_map(|group| all.get(group).cloned()).collect()
    }

    /// Removes the statuses of groups that this node no longer has replicas of.
    pub fn remove(&self, groups: &[GroupId]) {
        if !groups.is_empty() {
            self.groups.write().retain(|group, _| !groups.contains(group));
            self.lost.write().retain(|group, _| !groups.contains(group));
        }
    }

    /// Returns the statuses of all groups, ordered by id. Of a replica that could not be opened, only the damage is
    /// known.
    pub fn all(&self) -> Vec<Arc<GroupStatus>> {
        let mut all = self.groups.read().clone();
        for (group, what) in self.lost.read().iter() {
            let status = GroupStatus { group: *group, damage: Some(what.to_string()), ..GroupStatus::default() };
            all.insert(*group, Arc::new(status));
        }
        all.into_values().collect()
    }

    /// Replaces the status of one group.
    pub fn publish(&self, status: GroupStatus) {
        let mut all = self.groups.write();
        if all.get(&status.group).is_none_or(|old| **old != status) {
            all.insert(status.group, Arc::new(status));
        }
    }
}
