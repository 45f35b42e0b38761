//! A leader that can't read from its disk what a follower lacks.
//!
//! It sends everything before the unreadable entry, tells the follower which entry it can't send, and gives leadership to a
//! voter that holds it. If that one can't read it either, leadership would go back and forth, so each try waits twice as long
//! as the one before.

use super::group::{ELECTION_TICKS, Group};
use crate::types::{LogIndex, NodeId};

/// The longest wait between two tries to hand over, in ticks: a minute.
const WAIT_TICKS_MAX: usize = 1200;

/// What this node can't read of its log.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    index: Option<LogIndex>,
    /// The tick of the next try to hand over, and how long to wait after it.
    next_try: usize,
    wait: usize,
}

impl Group {
    /// An entry that a follower lacks can't be read here. True if that is news.
    pub fn set_unreadable(&mut self, index: LogIndex) -> bool {
        self.unreadable.index.replace(index) != Some(index)
    }

    /// The entry that this leader can't read, if that follower lacks it.
    pub fn unreadable_for(&self, follower: NodeId) -> Option<LogIndex> {
        let matched = LogIndex(self.node.raft.prs().get(follower.0)?.matched);
        self.unreadable.index.filter(|index| matched < *index)
    }

    /// Each tick: a leader that holds a follower up hands over to a voter that can serve it.
    pub(super) fn give_way(&mut self) {
        let Some(index) = self.unreadable.index.filter(|_| self.leads()) else { return };
        let replicas = self.replicas();
        let lacks = |active: bool| replicas.iter().any(|r| r.matched < index && (r.active || !active));
        if !lacks(false) {
            self.unreadable = Unreadable::default();
        }
        if !lacks(true) || self.ticks < self.unreadable.next_try {
            return;
        }
        let able = replicas.iter().filter(|r| r.voter && r.active && r.node != self.config.me && r.matched >= index);
        // Nobody to hand over to is no try: the next one is not put off.
        let Some(next) = able.max_by_key(|r| r.matched) else { return };
        log::warn!(
            "group {}: entry {index} can't be read here and a follower lacks it: handing leadership to node {}",
            self.config.id,
            next.node
        );
        let node = next.node;
        self.node.transfer_leader(node.0);
        let wait = (2 * self.unreadable.wait).clamp(2 * ELECTION_TICKS, WAIT_TICKS_MAX);
        self.unreadable.wait = wait;
        self.unreadable.next_try = self.ticks + wait;
    }

    /// What the leader says that it can't send to this node.
    pub fn set_blocked(&mut self, by: Option<(NodeId, LogIndex)>) {
        self.blocked = by;
    }
}
