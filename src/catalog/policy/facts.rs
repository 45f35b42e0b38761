//! What the policy is told: facts about this node's replicas. `consensus` collects them for each decision.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::types::{GroupId, LogIndex, NodeId, Term};
use crate::watermark::Visible;

/// This node's replicas, by group.
pub type Replicas = BTreeMap<GroupId, ReplicaFacts>;

/// What is known of this node's replica of one group.
#[derive(Clone, Debug, Default)]
pub struct ReplicaFacts {
    /// This node leads the group.
    pub leads: bool,
    /// The replica is damaged and takes no part: its voters may be outdated.
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
    pub voters: Vec<NodeId>,
    /// The progress of all replicas of the group, this one included. Known to the leader; empty elsewhere.
    pub progress: Vec<ReplicaProgress>,
    /// The records that readers may see.
    pub visible: Visible,
    /// The time of the log's clock in the newest segment's header; 0: unknown.
    pub begun_us: u64,
    /// Expired records are being searched for.
    pub is_searched: bool,
}

/// What a leader knows of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaProgress {
    /// The replica's node.
    pub node: NodeId,
    /// It is a voter, not a learner.
    pub voter: bool,
    /// The last entry that it is known to hold.
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
