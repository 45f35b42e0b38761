//! A leader whose own disk is much slower than those of the others hands over leadership.
//!
//! An entry becomes visible only after the leader has synced it, too. So a leader with a slow disk delays every
//! append, while a follower with a slow disk does not. The leader compares its own synced index with the highest
//! index that a majority of the voters, not counting itself, has acknowledged.
//!
//! Leadership does not alternate: the next leader does not depend on the slow node, which is now a follower. If every
//! majority contains a slow disk, the leader does not lag behind a majority and keeps its leadership. If the disks'
//! speeds change repeatedly, the doubling pause between attempts limits the number of handovers.

use super::node::RaftNode;
use super::settings::TICK_MS;

/// The number of ticks in a measurement: ten seconds. Only ticks in which some voter has unsynced entries count, so
/// with few appends a measurement takes longer.
const WINDOW: usize = 10_000 / TICK_MS as usize;
/// The disk is slow if it lagged by more than a tick in this many ticks of a measurement.
const BEHIND_MAX: usize = WINDOW / 4;
/// The pause between two attempts to hand over: its first value, and its maximum below.
const PAUSE_MIN: usize = 60_000 / TICK_MS as usize;
const PAUSE_MAX: usize = 60 * PAUSE_MIN;

/// How a leader's disk compares with those of the others.
#[derive(Debug, Default)]
pub struct OwnDisk {
    /// The term that this node led at the last tick; 0 if it did not lead.
    term: u64,
    /// The index that a majority of the others had synced at the last tick, if this node had not.
    missing: Option<u64>,
    ticks: usize,
    behind: usize,
    next_try: usize,
    pause: usize,
}

impl OwnDisk {
    /// Called on each tick with the number of the tick. Returns true if this node should hand over leadership.
    pub fn tick(&mut self, node: &RaftNode, leads: bool, tick: usize) -> bool {
        let term = if leads { node.raft.term } else { 0 };
        if term != self.term || term == 0 {
            let OwnDisk { next_try, pause, .. } = *self;
            *self = OwnDisk { term, next_try, pause, ..OwnDisk::default() };
            return false;
        }
        let (own, others) = (node.raft.raft_log.persisted, synced_by_others(node));
        let slowest = node.replicas().iter().filter(|r| r.voter && r.active).map(|r| r.matched).min();
        let waits = slowest.is_some_and(|slowest| slowest < node.last_index());
        if !waits && self.missing.is_none() {
            return false;
        }
        self.ticks += 1;
        self.behind += usize::from(self.missing.is_some_and(|missing| own < missing));
        self.missing = others.filter(|others| own < *others);
        if self.ticks < WINDOW {
            return false;
        }
        let behind = std::mem::take(&mut self.behind);
        self.ticks = 0;
        let is_slow = behind >= BEHIND_MAX && tick >= self.next_try;
        if is_slow {
            log::warn!(
                "group {}: the disk of this leader is much slower than those of a majority (it was behind for {}% of {} s \
                 with appends): handing over",
                node.group(),
                100 * behind / WINDOW,
                WINDOW as u64 * TICK_MS / 1000
            );
        }
        is_slow
    }

    /// Records that leadership is being handed over because of [`OwnDisk::tick`].
    pub fn hands_over(&mut self, tick: usize) {
        self.pause = (2 * self.pause).clamp(PAUSE_MIN, PAUSE_MAX);
        self.next_try = tick + self.pause;
    }
}

/// Returns the highest index that a majority of the voters has synced, not counting this node. `None` if too few
/// other voters are active.
fn synced_by_others(node: &RaftNode) -> Option<u64> {
    let voters = node.replicas().iter().filter(|r| r.voter).count();
    let mut matched: Vec<u64> = node.other_voters().map(|r| r.matched.0).collect();
    matched.sort_unstable_by(|a, b| b.cmp(a));
    matched.get(voters / 2).copied()
}
