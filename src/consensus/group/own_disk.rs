//! A leader whose own disk is much slower than those of the others hands over leadership.
//!
//! An entry becomes visible only when it is synced here, too, so a slow leader slows down every append, which a slow follower
//! does not. The leader compares its own synced index with the index that enough other voters for a majority have
//! acknowledged. Leadership does not alternate: the next leader has the slow node among its followers, and where
//! every majority contains a slow disk, no leader lags behind. If disks change all the time, the pause after each
//! attempt doubles.

use super::node::RaftNode;
use super::settings::TICK_MS;

/// The ticks of which a share is counted: ten seconds in which entries wait to be synced somewhere. With few appends that takes longer.
const WINDOW: usize = 10_000 / TICK_MS as usize;
/// With this many ticks of a window in which the own disk was more than a tick behind, it is slow.
const BEHIND_MAX: usize = WINDOW / 4;
/// Between two attempts to hand over, at first and at most.
const PAUSE_MIN: usize = 60_000 / TICK_MS as usize;
const PAUSE_MAX: usize = 60 * PAUSE_MIN;

/// How a leader's disk compares with those of the others.
#[derive(Debug, Default)]
pub struct OwnDisk {
    /// The term that was led at the last tick; 0: none.
    term: u64,
    /// What the others had synced, and this node had not, at the last tick.
    missing: Option<u64>,
    ticks: usize,
    behind: usize,
    next_try: usize,
    pause: usize,
}

impl OwnDisk {
    /// Called on each tick with its number. True if the leader should hand over.
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

    /// Leadership is being handed over, as [`OwnDisk::tick`] asked for.
    pub fn hands_over(&mut self, tick: usize) {
        self.pause = (2 * self.pause).clamp(PAUSE_MIN, PAUSE_MAX);
        self.next_try = tick + self.pause;
    }
}

/// The last index that a majority of the voters has without this node; `None` without such a majority.
fn synced_by_others(node: &RaftNode) -> Option<u64> {
    let voters = node.replicas().iter().filter(|r| r.voter).count();
    let mut matched: Vec<u64> = node.other_voters().map(|r| r.matched.0).collect();
    matched.sort_unstable_by(|a, b| b.cmp(a));
    matched.get(voters / 2).copied()
}
