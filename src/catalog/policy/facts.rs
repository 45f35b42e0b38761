//! The inputs of the policy: facts about this node's replicas. `consensus` collects them for each decision.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::types::{GroupId, LogIndex, NodeId, ReplicaId, Term};
use crate::watermark::Visible;

/// This node's replicas, by group.
pub type Replicas = BTreeMap<GroupId, ReplicaFacts>;

/// Facts about this node's replica of one group.
#[derive(Clone, Debug, Default)]
pub struct ReplicaFacts {
    /// This replica.
    pub replica: ReplicaId,
    /// This node leads the group.
    pub leads: bool,
    /// The replica is damaged and takes no part, so its list of voters may be outdated.
    pub is_damaged: bool,
    /// Every entry of its log is applied.
    pub is_idle: bool,
    /// A conf change or a handover of leadership is under way.
    pub is_changing: bool,
    /// Its current term.
    pub term: Term,
    /// The last index of its log.
    pub last_index: LogIndex,
    /// The group's voters. Empty while the replica waits for its first snapshot.
    pub voters: Vec<ReplicaId>,
    /// The progress of all replicas of the group, including this one. Empty unless this node leads.
    pub progress: Vec<ReplicaProgress>,
    /// Replicas of the group that their nodes report as damaged, each with its node.
    pub damaged: Vec<(NodeId, ReplicaId)>,
    /// The records that readers may see.
    pub visible: Visible,
    /// The time of the log's clock in the newest segment's header; 0 if it is unknown.
    pub begun_us: u64,
    /// A search for expired records is running.
    pub is_searched: bool,
}

/// The progress of one replica, as its leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaProgress {
    /// Raft's peer id.
    pub replica: ReplicaId,
    /// It is a voter, not a learner.
    pub voter: bool,
    /// The last entry that it has acknowledged.
    pub matched: LogIndex,
    /// The leader has heard from it recently. Always true for the leader itself.
    pub active: bool,
}

/// The time of a decision.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The number of ticks so far.
    pub tick: u64,
    /// The monotonic clock.
    pub at: Instant,
    /// The clock for record timestamps, Unix microseconds.
    pub wall_us: u64,
}
