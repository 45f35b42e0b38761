//! A leader that can't read an entry that a follower lacks from its disk.
//!
//! It sends everything before the unreadable entry, tells the follower the index of that entry, and hands over leadership to
//! a voter that holds it. If that voter can't read the entry either, leadership would alternate between the two, so the wait
//! doubles with each attempt.

use std::collections::BTreeSet;

use super::group::{ELECTION_TICKS, Group};
use crate::types::{LogIndex, NodeId};

/// The longest wait between two attempts to hand over, in ticks: a minute.
const WAIT_TICKS_MAX: usize = 1200;

/// At most this many unreadable entries are remembered. Each follower waits for one at a time.
const ENTRIES_MAX: usize = 64;

/// The entries that this leader can't read and some follower lacks, and when it tries to hand over.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    entries: BTreeSet<LogIndex>,
    /// The tick of the next attempt to hand over, and how long to wait after it.
    next_try: usize,
    wait: usize,
}

impl Group {
    /// Records that an entry that a follower lacks can't be read here. True if that was not known.
    pub fn set_unreadable(&mut self, index: LogIndex) -> bool {
        let entries = &mut self.unreadable.entries;
        entries.len() < ENTRIES_MAX && entries.insert(index)
    }

    /// The first entry that `follower` lacks and this leader can't read.
    pub fn unreadable_for(&self, follower: NodeId) -> Option<LogIndex> {
        let matched = LogIndex(self.node.raft.prs().get(follower.0)?.matched);
        self.unreadable.entries.range(matched.next()..).next().copied()
    }

    /// Called on each tick: hands over leadership to a voter that holds what a follower waits for and this node can't read.
    pub(super) fn give_way(&mut self) {
        if self.unreadable.entries.is_empty() || !self.leads() {
            return;
        }
        let replicas = self.replicas();
        self.unreadable.entries.retain(|index| replicas.iter().any(|r| r.matched < *index));
        if self.unreadable.entries.is_empty() {
            self.unreadable = Unreadable::default();
        }
        let waiting = replicas.iter().filter(|r| r.active).filter_map(|r| self.unreadable_for(r.node)).min();
        let Some(index) = waiting.filter(|_| self.ticks >= self.unreadable.next_try) else { return };
        let able = replicas.iter().filter(|r| r.voter && r.active && r.node != self.config.me && r.matched >= index);
        // Without a node to hand over to there was no attempt, so the next one is not delayed.
        let Some(next) = able.max_by_key(|r| r.matched) else { return };
        log::warn!(
            "group {}: entry {index} can't be read here and a follower lacks it: handing leadership to node {}",
            self.config.id,
            next.node
        );
        self.node.transfer_leader(next.node.0);
        let wait = (2 * self.unreadable.wait).clamp(2 * ELECTION_TICKS, WAIT_TICKS_MAX);
        self.unreadable.wait = wait;
        self.unreadable.next_try = self.ticks + wait;
    }

    /// Records the entry that the leader says it can't send to this node.
    pub fn set_stalled(&mut self, by: Option<(NodeId, LogIndex)>) {
        self.stalled = by;
    }
}
