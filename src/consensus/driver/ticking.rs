//! When the thread ticks, and how long it may sleep.
//!
//! A tick is 50 ms long, the unit of all timeouts. An idle node would wake for each tick, and nearly all of them do
//! nothing. So there are two exceptions:
//!
//! - **A node that has no peer** ticks every 250 ms while it leads all its groups. It holds no elections.
//! - **While all groups are quiet**, the thread sleeps until the next tick that must be on time: one that sends
//!   heartbeats, or at which a node becomes silent. When it wakes, also for another reason, it first performs the ticks
//!   that have passed. So a tick is at most late, and the number of ticks is the same as without sleep.

use std::time::{Duration, Instant};

use crate::consensus::group::TICK_MS;

const TICK: Duration = Duration::from_millis(TICK_MS);
const TICK_ALONE: Duration = Duration::from_millis(250);

/// What must be done for the time that has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// The number of ticks that the thread has slept through.
    pub slept: u32,
    /// The tick that the thread has waited for is due, after the received messages.
    pub is_due: bool,
    /// It is so late that messages of peers are probably unread.
    pub is_late: bool,
}

/// The time of the next tick.
#[derive(Debug)]
pub(super) struct Ticking {
    next: Instant,
}

impl Ticking {
    /// The first tick is due at this time.
    pub fn new(next: Instant) -> Ticking {
        Ticking { next }
    }

    /// Makes the next tick due now.
    pub fn hurry(&mut self, now: Instant) {
        self.next = self.next.min(now);
    }

    /// Returns true if a tick has passed that was not performed.
    pub fn has_passed(&self, now: Instant) -> bool {
        self.next <= now
    }

    /// Returns when the thread must wake, if it may sleep until the n-th tick from now, counted from 1.
    pub fn wakes_at(&self, ticks: u32) -> Instant {
        self.next + TICK * ticks.saturating_sub(1)
    }

    /// Returns the ticks that are due. Missed ticks, unlike those that the thread may sleep through, are skipped.
    pub fn pass(&mut self, now: Instant, ticks: u32, is_alone: impl FnOnce() -> bool) -> Passed {
        let due = self.wakes_at(ticks);
        if now >= due {
            self.next = now + if is_alone() { TICK_ALONE } else { TICK };
            return Passed { slept: ticks.saturating_sub(1), is_due: true, is_late: now - due > 2 * TICK };
        }
        let mut passed = Passed::default();
        while self.next <= now {
            self.next += TICK;
            passed.slept += 1;
        }
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn ticks_that_pass_during_a_sleep_are_performed_when_the_thread_wakes() {
        let begin = Instant::now();
        let mut ticking = Ticking::new(begin);
        assert_eq!(ticking.wakes_at(4), begin + ms(150));
        // A message arrives.
        assert_eq!(ticking.pass(begin + ms(70), 4, || false), Passed { slept: 2, ..Passed::default() });
        assert_eq!(ticking.pass(begin + ms(70), 2, || false), Passed::default());
        assert_eq!(ticking.wakes_at(2), begin + ms(150));
        let last = Passed { slept: 1, is_due: true, is_late: false };
        assert_eq!(ticking.pass(begin + ms(151), 2, || false), last);
        assert_eq!(ticking.wakes_at(1), begin + ms(201));
    }

    /// A process that was suspended does not catch up: all its timeouts would pass at once.
    #[test]
    fn missed_ticks_are_skipped() {
        let begin = Instant::now();
        let mut ticking = Ticking::new(begin);
        let missed = Passed { slept: 3, is_due: true, is_late: true };
        assert_eq!(ticking.pass(begin + ms(10_000), 4, || false), missed);
        assert_eq!(ticking.wakes_at(1), begin + ms(10_050));
        let mut alone = Ticking::new(begin);
        assert_eq!(alone.pass(begin, 1, || true), Passed { is_due: true, ..Passed::default() });
        assert_eq!(alone.wakes_at(1), begin + TICK_ALONE);
    }
}
