//! Wall clocks: the timestamps of records, and how far they can be wrong.
//!
//! A wall clock can be wrong, by a second or by a year. A timestamp can't be corrected later: timestamps never decrease
//! within a log, so every later record repeats one that is a year ahead, until the clocks reach it. So [`StampClock`]
//! overrides the wall clock in these cases:
//!
//! - **It is more than a minute ahead of or behind the majority of the cluster's clocks.** The majority's time is
//!   used. (A timestamp that is too early makes its record look old, and retention may remove it early.) Peers send
//!   their clocks with every batch of raft messages ([`PeerClocks`]). A majority requires three known clocks.
//! - **A majority has contradicted it, and fewer than three clocks are known now.** The majority's last time,
//!   advanced by the monotonic clock, is used until the wall clock agrees with it.
//! - **It has jumped more than a minute ahead of the monotonic clock, and no majority confirms the jump.** Timestamps
//!   ignore the jump for ten minutes. Then it is accepted: a jump that persists may be correct, for example after the
//!   machine was suspended.
//!
//! With fewer than three clocks, a clock that is wrong from the start can't be distinguished from a correct one. The
//! node warns as soon as any two differ. A clock that lags or jumps back is used then: until it has caught up,
//! records repeat the last timestamp.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::types::NodeId;

/// If two clocks differ by more, at least one is wrong.
pub const AHEAD_MAX: Duration = Duration::from_secs(60);
const AHEAD_US: i64 = 60_000_000;
/// A jump that no majority confirms is accepted after this time.
const HOLD: Duration = Duration::from_secs(600);
/// A peer's clock that was received longer ago is ignored.
const HEARD: Duration = Duration::from_secs(10);

/// The monotonic clock.
pub fn now() -> Instant {
    #[cfg(test)]
    if let Some((now, _)) = simulated::get() {
        return now;
    }
    Instant::now()
}

/// The wall clock, Unix microseconds. Timeouts use the monotonic clock.
pub fn wall_us() -> u64 {
    #[cfg(test)]
    if let Some((_, wall_us)) = simulated::get() {
        return wall_us;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}

/// The last received clock of each peer, and when it was received. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct PeerClocks(Arc<Mutex<BTreeMap<NodeId, (u64, Instant)>>>);

impl PeerClocks {
    /// Records a peer's clock, received now.
    pub fn record(&self, peer: NodeId, clock_us: u64, now: Instant) {
        let mut clocks = self.0.lock();
        clocks.retain(|_, (_, heard)| now.saturating_duration_since(*heard) < HEARD);
        clocks.insert(peer, (clock_us, now));
    }

    /// The current time of the clocks received recently, advanced by the monotonic clock: this node's wall clock may
    /// have jumped since.
    pub fn now(&self, now: Instant) -> Vec<(NodeId, u64)> {
        let clocks = self.0.lock();
        let age = |heard: &Instant| now.saturating_duration_since(*heard);
        let recent = clocks.iter().filter(|(_, (_, heard))| age(heard) < HEARD);
        recent.map(|(peer, (clock_us, heard))| (*peer, later(*clock_us, age(heard)))).collect()
    }
}

/// A clock's reading, advanced by `passed`.
fn later(clock_us: u64, passed: Duration) -> u64 {
    clock_us.saturating_add(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX))
}

/// How far one clock is ahead of another, microseconds.
fn ahead_us(clock_us: u64, of_us: u64) -> i64 {
    let least = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
    least(clock_us) - least(of_us)
}

/// Why this node distrusts its wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// It is ahead of the majority: records get the majority's time.
    AheadOfMajority,
    /// It lags: records get the majority's time.
    BehindMajority,
    /// It has jumped ahead, and no majority confirms the jump.
    Jumped,
    /// It differs from the clock of a peer, and a majority is missing.
    Differs(NodeId),
}

/// The clock for the timestamps of records.
#[derive(Debug, Default)]
pub struct StampClock {
    /// The time that was last used, and when it was used.
    line: Option<(u64, Instant)>,
    /// When the wall clock was first ahead of `line`.
    jumped: Option<Instant>,
    majority: Option<Majority>,
    /// A majority has contradicted the wall clock, and none has confirmed it since.
    refuted: bool,
    /// A peer whose clock differs from this node's, unless the majority shows which of them is wrong; and by how much.
    differs: Option<(NodeId, i64)>,
    wrong: Option<Wrong>,
}

/// What most of at least three clocks agree on.
#[derive(Clone, Copy, Debug)]
struct Majority {
    /// Most clocks show this time or a later one.
    least_us: u64,
    /// Most clocks show this time or an earlier one. It equals the other one if the number of clocks is odd.
    most_us: u64,
    /// When it was determined.
    at: Instant,
}

impl StampClock {
    /// Updates the majority from the known clocks of the peers. Called periodically.
    pub fn observe(&mut self, peers: &[(NodeId, u64)], wall_us: u64, now: Instant) {
        let mut all: Vec<u64> = peers.iter().map(|(_, clock_us)| *clock_us).chain([wall_us]).collect();
        all.sort_unstable();
        let (least_us, most_us) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
        self.majority = (all.len() > 2).then_some(Majority { least_us, most_us, at: now });
        let unclear = all.len() < 3 || ahead_us(most_us, least_us) > AHEAD_US;
        let ahead = peers.iter().map(|(peer, clock_us)| (*peer, ahead_us(*clock_us, wall_us)));
        self.differs = ahead.into_iter().find(|(_, ahead)| unclear && ahead.abs() > AHEAD_US);
    }

    /// The timestamp for a record now; the caller raises it to that of the previous record.
    pub fn now(&mut self, wall_us: u64, now: Instant) -> u64 {
        let passed = |then: Instant| now.saturating_duration_since(then);
        let (then_us, then) = *self.line.get_or_insert((wall_us, now));
        let line_us = later(then_us, passed(then));
        let jump = ahead_us(wall_us, line_us);
        if let Some(majority) = self.majority {
            let (least_us, most_us) =
                (later(majority.least_us, passed(majority.at)), later(majority.most_us, passed(majority.at)));
            if ahead_us(wall_us, most_us) > AHEAD_US {
                return self.refute(Wrong::AheadOfMajority, ahead_us(wall_us, most_us), most_us, now);
            }
            if ahead_us(least_us, wall_us) > AHEAD_US {
                return self.refute(Wrong::BehindMajority, ahead_us(least_us, wall_us), least_us, now);
            }
        } else if self.refuted && jump.abs() > AHEAD_US {
            return line_us;
        } else if jump > AHEAD_US {
            let since = *self.jumped.get_or_insert(now);
            if passed(since) < HOLD {
                self.log_change(Some(Wrong::Jumped), jump);
                return line_us;
            }
        }
        (self.jumped, self.refuted) = (None, false);
        self.line = Some((wall_us, now));
        self.log_change(self.differs.map(|(peer, _)| Wrong::Differs(peer)), self.differs.map_or(0, |(_, ahead)| ahead));
        wall_us
    }

    /// Uses the majority's time instead of the wall clock's. `line` follows it: if the majority is lost, the wall
    /// clock is still wrong.
    fn refute(&mut self, wrong: Wrong, by_us: i64, majority_us: u64, now: Instant) -> u64 {
        self.line = Some((majority_us, now));
        (self.jumped, self.refuted) = (None, true);
        self.log_change(Some(wrong), by_us);
        majority_us
    }

    /// Logs when a condition begins and when it ends.
    fn log_change(&mut self, wrong: Option<Wrong>, by_us: i64) {
        if self.wrong == wrong {
            return;
        }
        self.wrong = wrong;
        let by = Duration::from_micros(by_us.unsigned_abs());
        match wrong {
            Some(Wrong::AheadOfMajority) => log::warn!(
                "this node's clock is {by:.0?} ahead of most of the cluster's clocks: records get their time instead; set this clock"
            ),
            Some(Wrong::BehindMajority) => log::warn!(
                "this node's clock is {by:.0?} behind most of the cluster's clocks: records get their time instead; set this clock"
            ),
            Some(Wrong::Jumped) => log::warn!(
                "this node's clock has jumped {by:.0?} ahead: record timestamps ignore the jump for {HOLD:?}; set the clock if \
                 the jump was wrong"
            ),
            Some(Wrong::Differs(peer)) => {
                let side = if by_us > 0 { "behind" } else { "ahead of" };
                log::warn!(
                    "this node's clock is {by:.0?} {side} that of node {peer}: one of them is wrong; set that one"
                );
            }
            None => log::info!("this node's clock is plausible again"),
        }
    }
}

/// The clocks of a simulated node.
#[cfg(test)]
pub mod simulated {
    use std::cell::Cell;
    use std::time::Instant;

    thread_local! {
        static CLOCKS: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
    }

    /// From now on this thread sees these clocks; `None`: those of the system.
    pub fn set(clocks: Option<(Instant, u64)>) {
        CLOCKS.set(clocks);
    }

    pub(super) fn get() -> Option<(Instant, u64)> {
        CLOCKS.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    const YEAR: u64 = 365 * 24 * 3600 * SECOND;
    const T: u64 = 50 * YEAR;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn peers(clocks: &[u64]) -> Vec<(NodeId, u64)> {
        clocks.iter().enumerate().map(|(i, clock_us)| (NodeId(i as u64 + 2), *clock_us)).collect()
    }

    /// The clock of a leader was a year ahead for the duration of one record, and every later record got a timestamp
    /// a year ahead, whichever node was the leader.
    #[test]
    fn a_jump_ahead_is_not_stamped() {
        let (start, mut clock) = (Instant::now(), StampClock::default());
        assert_eq!(clock.now(T, start), T);
        assert_eq!(clock.now(T + 50 * SECOND, at(start, 1)), T + 50 * SECOND, "small jumps are accepted");
        assert_eq!(clock.now(T + YEAR, at(start, 2)), T + 51 * SECOND, "the jump is ignored");
        assert_eq!(clock.wrong, Some(Wrong::Jumped));
        assert_eq!(clock.now(T + 52 * SECOND, at(start, 3)), T + 52 * SECOND, "corrected");
        assert_eq!(clock.wrong, None);
        // The jump persists: the machine was suspended.
        assert_eq!(clock.now(T + YEAR, at(start, 4)), T + 53 * SECOND);
        assert_eq!(clock.now(T + YEAR, at(start, 603)), T + 652 * SECOND);
        assert_eq!(clock.now(T + YEAR, at(start, 604)), T + YEAR);
        assert_eq!(clock.now(T, at(start, 605)), T, "a jump back is followed: timestamps repeat the last one");
    }

    #[test]
    fn the_majority_bounds_a_clock_that_is_wrong_from_the_start() {
        let start = Instant::now();
        let mut clock = StampClock::default();
        clock.observe(&peers(&[T]), T + YEAR, start);
        assert_eq!(clock.now(T + YEAR, start), T + YEAR, "two clocks have no majority");
        assert_eq!(clock.wrong, Some(Wrong::Differs(NodeId(2))));
        clock.observe(&peers(&[T, T + 5]), T + YEAR, start);
        assert_eq!(clock.now(T + YEAR, start), T + 5, "three clocks have one");
        assert_eq!(clock.now(T + YEAR + SECOND, at(start, 1)), T + 5 + SECOND);
        assert_eq!(clock.wrong, Some(Wrong::AheadOfMajority));
        // One wrong clock, early or late, does not change the result.
        for wrong in [T + YEAR, T - YEAR] {
            clock.observe(&peers(&[wrong, T + 3]), T, at(start, 1));
            assert_eq!(clock.now(T, at(start, 1)), T);
            assert_eq!(clock.wrong, None);
        }
    }

    /// A leader's clock lagged, and its records looked old: retention could remove them at once.
    #[test]
    fn the_majority_bounds_a_clock_that_lags() {
        let start = Instant::now();
        let mut clock = StampClock::default();
        clock.observe(&peers(&[T]), T - YEAR, start);
        assert_eq!(clock.now(T - YEAR, start), T - YEAR, "two clocks have no majority");
        assert_eq!(clock.wrong, Some(Wrong::Differs(NodeId(2))));
        clock.observe(&peers(&[T, T + 5]), T - YEAR, start);
        assert_eq!(clock.now(T - YEAR, start), T);
        assert_eq!(clock.wrong, Some(Wrong::BehindMajority));
        assert_eq!(clock.now(T - YEAR + SECOND, at(start, 1)), T + SECOND);
        assert_eq!(clock.now(T - 58 * SECOND, at(start, 1)), T - 58 * SECOND, "within a minute it is followed");
        assert_eq!(clock.wrong, None);
        // It jumps back between two calls of `observe`.
        assert_eq!(clock.now(T - YEAR, at(start, 2)), T + 2 * SECOND);
    }

    /// Of four clocks two are a year ahead: no majority says which two are right, so each node uses its own.
    #[test]
    fn half_of_the_clocks_are_not_a_majority() {
        let start = Instant::now();
        for (own, other) in [(T, T + YEAR), (T + YEAR, T)] {
            let mut clock = StampClock::default();
            clock.observe(&peers(&[other, own, other]), own, start);
            assert_eq!(clock.now(own, start), own);
            assert_eq!(clock.wrong, Some(Wrong::Differs(NodeId(2))));
        }
    }

    /// A node was started with a wrong clock, and the majority's time was used. When a peer was lost, the wrong clock
    /// was used again, as it had not jumped since the start.
    #[test]
    fn a_clock_that_a_majority_has_refuted_is_not_used_without_one() {
        let start = Instant::now();
        for wrong in [T + YEAR, T - YEAR] {
            let mut clock = StampClock::default();
            assert_eq!(clock.now(wrong, start), wrong, "no peer has said anything yet");
            clock.observe(&peers(&[T, T]), wrong, start);
            assert_eq!(clock.now(wrong, start), T);
            for seconds in [1, 700] {
                let (wall_us, now) = (wrong + seconds * SECOND, at(start, seconds));
                clock.observe(&peers(&[T + seconds * SECOND]), wall_us, now);
                assert_eq!(clock.now(wall_us, now), T + seconds * SECOND, "the monotonic clock continues");
            }
            // Once corrected, it is used again.
            let (wall_us, now) = (T + 710 * SECOND, at(start, 705));
            clock.observe(&peers(&[wall_us]), wall_us, now);
            assert_eq!((clock.now(wall_us, now), clock.wrong), (wall_us, None));
            assert_eq!(clock.now(wall_us - YEAR, now), wall_us - YEAR, "a jump back without a majority is followed");
        }
    }

    /// A node was started alone with a clock that was ahead; then the clock was corrected.
    #[test]
    fn a_corrected_clock_is_used_again_at_once() {
        let start = Instant::now();
        let mut clock = StampClock::default();
        assert_eq!(clock.now(T + YEAR, start), T + YEAR);
        assert_eq!(clock.now(T + SECOND, at(start, 1)), T + SECOND);
        assert_eq!(clock.now(T + YEAR, at(start, 2)), T + 2 * SECOND, "a jump is measured from the corrected time");
        assert_eq!(clock.wrong, Some(Wrong::Jumped));
    }

    /// Peers' clocks that were received before the jump do not confirm it: they are advanced by the monotonic clock.
    #[test]
    fn a_jump_is_confirmed_by_the_majority_or_not_at_all() {
        let start = Instant::now();
        let mut clock = StampClock::default();
        clock.observe(&peers(&[T, T]), T, start);
        assert_eq!(clock.now(T, start), T);
        assert_eq!(clock.now(T + YEAR, at(start, 1)), T + SECOND, "at once, before the next `observe`");
        assert_eq!(clock.wrong, Some(Wrong::AheadOfMajority));
        // All clocks were corrected together.
        clock.observe(&peers(&[T + YEAR, T + YEAR]), T + YEAR, at(start, 2));
        assert_eq!(clock.now(T + YEAR, at(start, 2)), T + YEAR);
        assert_eq!(clock.wrong, None);
    }

    #[test]
    fn ignores_clocks_received_long_ago() {
        let (start, clocks) = (Instant::now(), PeerClocks::default());
        clocks.record(NodeId(2), T + 3, start);
        clocks.record(NodeId(3), u64::MAX, at(start, 5));
        assert_eq!(clocks.now(at(start, 9)), [(NodeId(2), T + 3 + 9 * SECOND), (NodeId(3), u64::MAX)]);
        assert_eq!(clocks.now(at(start, 12)), [(NodeId(3), u64::MAX)]);
    }
}
