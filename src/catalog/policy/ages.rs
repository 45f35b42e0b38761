//! The age of a log's records, for retention: for how long this replica has provably stored them.
//!
//! Wall clocks may be wrong by any amount, so neither of the two measures here relies on one:
//!
//! - **Records that became visible in this run of the process** are measured by the monotonic clock. [`LogAges`]
//!   keeps marks: "all records below this offset were visible at that time". The age of a record is that of the first
//!   mark above it.
//! - **Records of earlier runs** are measured by the log's own clock (`LogClock`), which continues over restarts. A
//!   segment's header contains the time of this clock when the segment was created; all records before that segment
//!   had arrived by then.
//!
//! The log's clock never runs slower than the monotonic clock. While the wall clock is ahead of it, it runs at twice
//! that speed, to make up for downtime. So a record whose age by the log's clock is `A` has been stored by running
//! processes for at least `A / 2`, whatever the wall clocks were. After a crash, the clock continues from the newest
//! header: it may lose time, but never gains any.

use std::time::{Duration, Instant};

use crate::types::Offset;

/// The maximum speed of a [`LogClock`], as a multiple of the monotonic clock's speed.
const SPEED_MAX: u32 = 2;

/// A mark is removed if the remaining gap is at most the age of the next mark divided by this number.
const MARKS_PER_AGE: u32 = 16;

/// The minimum time between two marks.
const MARK_EVERY: Duration = Duration::from_millis(100);

/// Converts a duration to microseconds.
pub fn as_us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The clock of one replica of a log: a value in microseconds, and the time at which the clock had it. Only
/// differences between its values matter.
#[derive(Debug)]
struct LogClock(u64, Instant);

impl LogClock {
    fn now(&mut self, wall_us: u64, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.1);
        let least = self.0.saturating_add(as_us(passed));
        let most = self.0.saturating_add(as_us(passed.saturating_mul(SPEED_MAX)));
        *self = LogClock(wall_us.clamp(least, most), now);
        self.0
    }
}

/// The ages of one log's records.
#[derive(Debug)]
pub struct LogAges {
    clock: LogClock,
    /// All records below this offset were visible when this run started. Only to them the log's clock applies.
    visible_at_start: Offset,
    /// Marks, ascending: all records below the offset were visible at that time. The gap between two marks is at most
    /// a sixteenth of the newer one's age. So their number grows with the logarithm of time: a few hundred after
    /// years.
    marks: Vec<(Instant, Offset)>,
}

impl LogAges {
    /// Starts with the records that are visible now, and with the time in the newest segment's header (0 if it is
    /// unknown).
    pub fn new(begun_us: u64, next_offset: Offset, wall_us: u64, now: Instant) -> LogAges {
        let start_us = if begun_us == 0 { wall_us } else { begun_us };
        LogAges { clock: LogClock(start_us, now), visible_at_start: next_offset, marks: vec![(now, next_offset)] }
    }

    /// Records that all records below `next_offset` are visible now. Returns the time of the log's clock.
    pub fn update(&mut self, next_offset: Offset, wall_us: u64, now: Instant) -> u64 {
        let newer =
            |(at, below): &(Instant, Offset)| next_offset > *below && now.saturating_duration_since(*at) >= MARK_EVERY;
        if self.marks.last().is_none_or(newer) {
            self.marks.push((now, next_offset));
            self.thin(now);
        }
        self.clock.now(wall_us, now)
    }

    /// Returns the offset below which records are at least this old by the monotonic clock.
    pub fn older_than(&mut self, age: Duration, now: Instant) -> Option<Offset> {
        let old = self.marks.partition_point(|(at, _)| now.saturating_duration_since(*at) >= age);
        let newest = old.checked_sub(1)?;
        self.marks.drain(..newest);
        self.marks.first().map(|(_, below)| *below)
    }

    /// Returns the offset below which records were visible when this run started. Only to them the log's clock applies.
    pub fn visible_at_start(&self) -> Offset {
        self.visible_at_start
    }

    fn thin(&mut self, now: Instant) {
        let mut kept: Vec<(Instant, Offset)> = Vec::with_capacity(self.marks.len());
        for (i, mark) in self.marks.iter().enumerate() {
            let between = kept.last().zip(self.marks.get(i + 1));
            let is_spare = between.is_some_and(|((before, _), (after, _))| {
                *after - *before <= now.saturating_duration_since(*after) / MARKS_PER_AGE
            });
            if !is_spare {
                kept.push(*mark);
            }
        }
        self.marks = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn the_clock_runs_at_one_to_two_times_the_speed_of_the_monotonic_clock() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut clock = LogClock(1000 * SECOND, start);
        assert_eq!(clock.now(1001 * SECOND, at(0)), 1000 * SECOND, "no time has passed");
        assert_eq!(clock.now(1002 * SECOND, at(1)), 1002 * SECOND, "it catches up");
        assert_eq!(clock.now(9_000_000 * SECOND, at(2)), 1004 * SECOND, "it does not jump");
        assert_eq!(clock.now(7, at(3)), 1005 * SECOND, "it never goes back and never stops");
        assert_eq!(clock.now(1015 * SECOND, at(13)), 1015 * SECOND);
        let mut clock = LogClock(u64::MAX - 1, start);
        assert_eq!(clock.now(7, at(13)), u64::MAX, "a header may contain anything");
    }

    #[test]
    fn a_record_is_as_old_as_the_first_mark_above_it() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let age = Duration::from_secs(10);
        let mut ages = LogAges::new(0, Offset(5), 7, start);
        ages.update(Offset(6), 7, at(50));
        ages.update(Offset(8), 7, at(150));
        assert_eq!(ages.older_than(age, at(9_999)), None);
        assert_eq!(ages.older_than(age, at(10_149)), Some(Offset(5)));
        assert_eq!(ages.older_than(age, at(10_150)), Some(Offset(8)));
        assert_eq!(
            ages.older_than(Duration::from_secs(20), at(20_150)),
            Some(Offset(8)),
            "retention may become longer"
        );
        assert_eq!(ages.visible_at_start(), Offset(5));
    }

    /// With a record every 300 seconds for a year, each age is known with a precision of a sixteenth.
    #[test]
    fn a_year_needs_few_marks() {
        let start = Instant::now();
        let mut ages = LogAges::new(0, Offset(0), 7, start);
        let mut most = 0;
        for step in 1..=100_000 {
            ages.update(Offset(step), 7, start + Duration::from_secs(300 * step));
            most = most.max(ages.marks.len());
        }
        let now = start + Duration::from_secs(30_000_000);
        assert!(most < 400, "{most}");
        for pair in ages.marks.windows(2) {
            let (gap, age) = (pair[1].0 - pair[0].0, now - pair[1].0);
            assert!(gap <= Duration::from_secs(300).max(age / MARKS_PER_AGE), "{gap:?} before {age:?}");
        }
    }
}
