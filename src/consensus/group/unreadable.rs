//! An entry that a follower lacks and its leader can't read from its disk.
//!
//! The leader sends everything before the unreadable entry, tells the follower the index of that entry, and hands
//! over leadership to a voter that holds it. If that voter can't read the entry either, leadership would alternate
//! between the two, so the wait doubles with each attempt.

use std::collections::BTreeSet;

use super::node::RaftNode;
use super::settings::ELECTION_TICKS;
use crate::types::{LogIndex, ReplicaId};

/// The longest wait between two attempts to hand over, in ticks: a minute.
const WAIT_TICKS_MAX: usize = 1200;

/// At most this many unreadable entries are remembered. Each follower waits for one at a time.
const ENTRIES_MAX: usize = 64;

/// The entries that this leader can't read and some follower lacks, and when it tries to hand over.
#[derive(Debug, Default)]
pub struct UnreadableEntries {
    entries: BTreeSet<LogIndex>,
    /// The tick of the next attempt to hand over, and how long to wait after it.
    next_try: usize,
    wait: usize,
}

impl UnreadableEntries {
    /// Returns true if every entry can be read, as far as it is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Records that an entry that a follower lacks can't be read here. Returns true if this is new.
    pub fn insert(&mut self, index: LogIndex) -> bool {
        self.entries.len() < ENTRIES_MAX && self.entries.insert(index)
    }

    /// Returns the first entry that `follower` lacks and this leader can't read.
    pub fn first_for(&self, node: &RaftNode, follower: ReplicaId) -> Option<LogIndex> {
        let matched = LogIndex(node.raft.prs().get(follower.0)?.matched);
        self.entries.range(matched.next()..).next().copied()
    }

    /// Called on each tick of a leader. Returns the voter to which leadership should be handed over: it has the entry
    /// that a follower waits for and that this node can't read.
    pub fn tick(&mut self, node: &RaftNode, tick: usize) -> Option<ReplicaId> {
        if self.entries.is_empty() {
            return None;
        }
        let replicas = node.replicas();
        self.entries.retain(|index| replicas.iter().any(|r| r.matched < *index));
        if self.entries.is_empty() {
            *self = UnreadableEntries::default();
        }
        let waiting = replicas.iter().filter(|r| r.active).filter_map(|r| self.first_for(node, r.replica)).min();
        let index = waiting.filter(|_| tick >= self.next_try)?;
        // If no node qualifies, this is not an attempt, and the next one is not delayed.
        let next = node.other_voters().filter(|r| r.matched >= index).max_by_key(|r| r.matched)?;
        log::warn!(
            "group {}: entry {index} can't be read here and a follower lacks it: handing leadership to node {}",
            node.group(),
            node.node_text(next.replica)
        );
        self.wait = (2 * self.wait).clamp(2 * ELECTION_TICKS, WAIT_TICKS_MAX);
        self.next_try = tick + self.wait;
        Some(next.replica)
    }
}
