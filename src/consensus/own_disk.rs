//! A leader whose own disk is much slower than those of the others hands over leadership.
//!
//! An entry becomes visible only when it is synced here, too, so a slow leader slows down every append, which a slow follower
//! does not. The leader compares its own synced index with the index that enough other voters for a majority have
//! acknowledged. There is no ping-pong: the next leader has the slow node among its followers, and where as many disks
//! are slow as a majority can't do without, no leader is behind. If disks change all the time, the pause after each
//! attempt doubles.

use super::group::{Group, TICK_MS};

/// The ticks of which a share is counted: ten seconds in which entries wait to be synced somewhere. With few appends that takes longer.
const WINDOW: usize = 10_000 / TICK_MS as usize;
/// With this many ticks of a window in which the own disk was more than a tick behind, it is slow.
const BEHIND_MAX: usize = WINDOW / 4;
/// Between two attempts to hand over, at first and at most.
const PAUSE_MIN: usize = 60_000 / TICK_MS as usize;
const PAUSE_MAX: usize = 60 * PAUSE_MIN;

/// How a leader's disk compares with those of the others.
#[derive(Debug, Default)]
pub(super) struct OwnDisk {
    /// The term that was led at the last tick; 0: none.
    term: u64,
    /// What the others had synced, and this node had not, at the last tick.
    missing: Option<u64>,
    ticks: usize,
    behind: usize,
    next_try: usize,
    pause: usize,
}

impl Group {
    /// Called on each tick.
    pub(super) fn look_at_own_disk(&mut self) {
        let term = if self.leads() { self.node.raft.term } else { 0 };
        if term != self.own_disk.term || term == 0 {
            let OwnDisk { next_try, pause, .. } = self.own_disk;
            self.own_disk = OwnDisk { term, next_try, pause, ..OwnDisk::default() };
            return;
        }
        let (own, others) = (self.node.raft.raft_log.persisted, self.synced_by_others());
        let slowest = self.replicas().iter().filter(|r| r.voter && r.active).map(|r| r.matched.0).min();
        let waits = slowest.is_some_and(|slowest| slowest < self.node.raft.raft_log.last_index());
        let disk = &mut self.own_disk;
        if !waits && disk.missing.is_none() {
            return;
        }
        disk.ticks += 1;
        disk.behind += usize::from(disk.missing.is_some_and(|missing| own < missing));
        disk.missing = others.filter(|others| own < *others);
        if disk.ticks < WINDOW {
            return;
        }
        let behind = std::mem::take(&mut disk.behind);
        disk.ticks = 0;
        if behind < BEHIND_MAX || self.ticks < disk.next_try {
            return;
        }
        log::warn!(
            "group {}: the disk of this leader is much slower than those of a majority (it was behind for {}% of {} s \
             with appends): handing over",
            self.config.id,
            100 * behind / WINDOW,
            WINDOW as u64 * TICK_MS / 1000
        );
        if self.hand_over() {
            let pause = (2 * self.own_disk.pause).clamp(PAUSE_MIN, PAUSE_MAX);
            (self.own_disk.pause, self.own_disk.next_try) = (pause, self.ticks + pause);
        }
    }

    /// The last index that a majority of the voters has without this node; `None` if there is no such majority.
    fn synced_by_others(&self) -> Option<u64> {
        let replicas = self.replicas();
        let voters = replicas.iter().filter(|r| r.voter).count();
        let others = replicas.iter().filter(|r| r.voter && r.active && r.node != self.config.me);
        let mut matched: Vec<u64> = others.map(|r| r.matched.0).collect();
        matched.sort_unstable_by(|a, b| b.cmp(a));
        matched.get(voters / 2).copied()
    }
}
