//! Retention: the leader of a log proposes to trim what is too much or too old, so that all nodes agree on what is gone.
//!
//! - **By size** whole segments go, the oldest first, as long as at least `retention_bytes` stay on the leader: a log has at
//!   most a segment more.
//! - **By age** entries go whose append time is more than `retention_ms` ago. Their file goes with its last record.
//! - **Timestamps that are ahead of the clock** do not give a record's age: a leader's clock was once wrong, by a year perhaps, and
//!   later records repeat its timestamp. Then a segment is removed `retention_ms` after this node created the next one (by its own
//!   clock, in the segment's header), because all its records had arrived by then. To ensure that a next segment exists, the newest
//!   one is sealed after an eighth of `retention_ms`. A record is kept for at most twice `retention_ms` plus that eighth.
//! - What was appended is the leader's clock; what time it is now is [`LogClock`]'s, which no jump of the wall clock moves far.
//! - One look and one trim at a time, every second at most and a twentieth of the age. Records are searched by a `reader`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::handle::{ConsensusHandle, Proposal};
use super::hosted::Hosted;
use crate::catalog::LogMeta;
use crate::clock::AHEAD_MAX;
use crate::storage::entry::Kind;
use crate::storage::reader::{Access, GroupReader, ReadersHandle};
use crate::types::{GroupId, Offset};
use crate::watermark::Mark;

/// Between two looks at a log, at least, and at most.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How much faster than the monotonic clock a [`LogClock`] may run.
const HURRY: u32 = 2;

/// What this node knows of its logs' retention, and the way to propose a trim.
pub struct Retention {
    consensus: ConsensusHandle,
    logs: BTreeMap<GroupId, State>,
}

#[derive(Default)]
struct State {
    clock: LogClock,
    next_look: Option<Instant>,
    looking: Arc<AtomicBool>,
    /// The warning about a timestamp ahead of the clock was logged.
    said_ahead: bool,
}

/// The minimum and maximum of the age at which the newest segment of a log with timestamps ahead is sealed: an eighth of
/// `retention_ms`, within these.
const SEGMENT_AGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));

/// The time that the age of records is measured with, Unix microseconds.
///
/// It begins with the newest record and follows the wall clock, but never runs at more than twice the speed of the monotonic
/// clock. So a wall clock that jumps into the future lets no record go before half its time has passed, and there is time to
/// notice; and after a long stop it catches up. What can't be told from the truth is a wrong clock that also stamped records,
/// over a restart.
///
/// If the wall clock is set back, it begins anew as after a restart: it may have been ahead because the wall clock was, and would
/// otherwise make every new record look old. Without any record it is the wall clock.
#[derive(Debug, Default)]
struct LogClock(Option<(u64, Instant)>);

impl LogClock {
    fn now(&mut self, newest_us: u64, wall_us: u64, now: Instant) -> u64 {
        if newest_us == 0 {
            self.0 = None;
            return wall_us;
        }
        let set_back = |then_us: u64| Duration::from_micros(then_us.saturating_sub(wall_us)) > AHEAD_MAX;
        let last = self.0.filter(|(then_us, _)| !set_back(*then_us));
        let (then_us, then) = last.unwrap_or((newest_us.min(wall_us), now));
        let passed = now.saturating_duration_since(then).saturating_mul(HURRY);
        let most = then_us.saturating_add(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX));
        let now_us = wall_us.clamp(then_us, most);
        self.0 = Some((now_us, now));
        now_us
    }
}

/// What has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    /// At least so many bytes stay.
    bytes: Option<u64>,
    /// Records that were appended before go.
    not_before_us: Option<u64>,
    /// Later timestamps do not give a record's age.
    latest_us: u64,
}

impl Wanted {
    fn of(log: &LogMeta, now_us: u64, latest_us: u64) -> Option<Wanted> {
        let bytes = Some(log.retention_bytes).filter(|bytes| *bytes > 0);
        let age_us = Some(log.retention_ms).filter(|ms| *ms > 0).map(|ms| ms.saturating_mul(1000));
        let not_before_us = age_us.map(|age| now_us.saturating_sub(age));
        (bytes.is_some() || not_before_us.is_some()).then_some(Wanted { bytes, not_before_us, latest_us })
    }

    /// The first record to keep, where that is another one than now.
    fn first_to_keep(&self, reader: &GroupReader, mark: Mark) -> Option<Offset> {
        let by_size = self.bytes.and_then(|bytes| reader.first_within(bytes));
        let by_age = self.not_before_us.and_then(|time_us| {
            let found = reader.first_not_before(time_us, mark.first_offset, mark.next_offset, Access::Blocking);
            match found {
                Ok(found) => Some(found.unwrap_or(mark.next_offset)),
                Err(error) => {
                    log::warn!("retention: records can't be read, and stay: {error}");
                    None
                }
            }
        });
        let by_arrival = self.not_before_us.and_then(|time_us| reader.arrived_before(time_us, self.latest_us));
        by_size
            .max(by_age)
            .max(by_arrival)
            .map(|first| first.min(mark.next_offset))
            .filter(|first| *first > mark.first_offset)
    }
}

fn look_every(log: &LogMeta) -> Duration {
    let (least, most) = LOOK_EVERY;
    if log.retention_ms == 0 { least } else { Duration::from_millis(log.retention_ms / 20).clamp(least, most) }
}

impl Retention {
    /// Proposes by this handle.
    pub fn new(consensus: ConsensusHandle) -> Retention {
        Retention { consensus, logs: BTreeMap::new() }
    }

    /// Checks one log, if it is time to; the leader proposes a trim. Returns an age if the newest segment should be sealed when
    /// it is older than that (microseconds).
    pub fn look(
        &mut self,
        log: &LogMeta,
        hosted: &Hosted,
        readers: &ReadersHandle,
        now: Instant,
        wall_us: u64,
    ) -> Option<u64> {
        let state = self.logs.entry(log.group).or_default();
        let mark = hosted.group.mark();
        // On every node, so that a new leader's clock is not new.
        let now_us = state.clock.now(mark.last_append_time_us, wall_us, now);
        state.warn_of_stamps(log, mark.last_append_time_us, wall_us);
        // After a long downtime the log's clock is late, but the wall clock's timestamps are still right.
        let latest_us = now_us.max(wall_us);
        let age = segment_age(log, mark.last_append_time_us, latest_us);
        if !hosted.group.leads() || state.next_look.is_some_and(|next| now < next) {
            return age;
        }
        let Some(wanted) = Wanted::of(log, now_us, latest_us) else { return age };
        if state.looking.swap(true, Ordering::AcqRel) {
            return age;
        }
        state.next_look = Some(now + look_every(log));
        let (group, reader, consensus) = (log.group, hosted.reader.clone(), self.consensus.clone());
        let looking = Arc::clone(&state.looking);
        let job = move || {
            if let Some(first) = wanted.first_to_keep(&reader, mark) {
                log::debug!("retention: group {group} keeps records from {first} on");
                let payload = first.0.to_le_bytes().as_slice().into();
                // Refused or lost, it is proposed again at the next look.
                drop(consensus.propose(Proposal::new(group, Kind::Trim, 0, payload)));
            }
            looking.store(false, Ordering::Release);
        };
        if readers.run_own(Box::new(job)).is_err() {
            state.looking.store(false, Ordering::Release);
        }
        age
    }
}

impl State {
    /// Logs once that the newest timestamp is ahead of the clock, and once that it no longer is.
    fn warn_of_stamps(&mut self, log: &LogMeta, newest_us: u64, wall_us: u64) {
        let ahead = Duration::from_micros(newest_us.saturating_sub(wall_us));
        if self.said_ahead == (ahead > AHEAD_MAX) {
            return;
        }
        self.said_ahead = ahead > AHEAD_MAX;
        if self.said_ahead {
            log::warn!(
                "log {}: the newest record's timestamp is {ahead:.0?} ahead of this node's clock, and new records repeat it until \
                 the clock reaches it; if this node's clock is right, a leader's was wrong: see docs/RELIABILITY.md, \"Clocks\"",
                log.name
            );
        } else {
            log::info!("log {}: the newest record's timestamp is no longer ahead of this node's clock", log.name);
        }
    }
}

/// The age at which the newest segment is sealed (microseconds), if timestamps do not give a record's age.
fn segment_age(log: &LogMeta, newest_us: u64, now_us: u64) -> Option<u64> {
    let ahead = Duration::from_micros(newest_us.saturating_sub(now_us)) > AHEAD_MAX;
    let (least, most) = SEGMENT_AGE;
    let age = Duration::from_millis(log.retention_ms / 8).clamp(least, most);
    let age_us = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
    (ahead && log.retention_ms > 0).then_some(age_us)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeId;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_jump_of_the_wall_clock_moves_the_log_clock_no_further_than_time_allows() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut clock = LogClock::default();
        assert_eq!(clock.now(1000 * SECOND, 1001 * SECOND, at(0)), 1000 * SECOND, "it begins with the newest record");
        let newest = 1000 * SECOND;
        assert_eq!(clock.now(newest, 1002 * SECOND, at(1)), 1002 * SECOND, "and catches up");
        assert_eq!(clock.now(newest, 1012 * SECOND, at(11)), 1012 * SECOND);
        let far = 9_000_000 * SECOND;
        assert_eq!(clock.now(far, far, at(12)), 1014 * SECOND, "twice as fast, and not to the far future");
        assert_eq!(clock.now(far, far, at(112)), 1214 * SECOND);
        assert_eq!(clock.now(far, 1160 * SECOND, at(113)), 1214 * SECOND, "a small step is not one back");
        assert_eq!(clock.now(far, 1114 * SECOND, at(114)), 1114 * SECOND, "set right");
        assert_eq!(clock.now(far, 1215 * SECOND, at(215)), 1215 * SECOND, "and right again");
    }

    #[test]
    fn an_empty_log_begins_now_and_a_clock_that_was_behind_catches_up() {
        let start = Instant::now();
        assert_eq!(LogClock::default().now(0, 7 * SECOND, start), 7 * SECOND);
        let mut clock = LogClock::default();
        assert_eq!(clock.now(1000 * SECOND, 5 * SECOND, start), 5 * SECOND, "before the network told the time");
        let later = start + Duration::from_secs(600);
        assert_eq!(clock.now(1000 * SECOND, 1600 * SECOND, later), 1205 * SECOND);
    }

    /// A node was started with a clock a year ahead, and the clock was set right before or after the first record. The time that
    /// ages are measured with stayed a year ahead: records with right timestamps were removed at once, and those with timestamps
    /// ahead were not seen as such and never removed.
    #[test]
    fn a_clock_that_was_ahead_at_the_start_and_is_set_right_makes_no_record_old() {
        let start = Instant::now();
        let (year, later) = (365 * 86_400 * SECOND, start + Duration::from_secs(5));
        let right = 1000 * SECOND;
        let mut clock = LogClock::default();
        assert_eq!(clock.now(0, right + year, start), right + year, "there is no record to remove");
        assert_eq!(clock.now(right, right, later), right);
        let mut clock = LogClock::default();
        assert_eq!(clock.now(right + year, right + year, start), right + year);
        assert_eq!(clock.now(right + year, right, later), right, "timestamps are ahead of it now");
        // Ahead again, it does not help itself.
        assert_eq!(clock.now(right + year, right + year, later + Duration::from_secs(1)), right + 2 * SECOND);
    }

    /// If timestamps are ahead of the clock, records that arrived long ago are removed, and the newest segment is sealed, so that
    /// a later one exists.
    #[test]
    fn what_is_stamped_ahead_goes_by_its_arrival() {
        let log = LogMeta { retention_ms: 80_000, ..LogMeta::first(NodeId(1)).expect("a log") };
        let day = 86_400 * SECOND;
        assert_eq!(segment_age(&log, 100 * SECOND, 100 * SECOND), None);
        assert_eq!(segment_age(&log, 159 * SECOND, 100 * SECOND), None, "clocks differ");
        assert_eq!(segment_age(&log, 365 * day, 100 * SECOND), Some(10 * SECOND));
        let forever = LogMeta { retention_ms: 0, ..log.clone() };
        assert_eq!(segment_age(&forever, 365 * day, 100 * SECOND), None, "nothing expires");
        let years = LogMeta { retention_ms: u64::MAX, ..log };
        assert_eq!(segment_age(&years, 365 * day, 3 * day), Some(day), "a day at most");

        let mut state = State::default();
        for (newest, said) in [(0, false), (60 * SECOND, false), (62 * SECOND, true), (99 * SECOND, true), (7, false)] {
            state.warn_of_stamps(&forever, newest, SECOND);
            assert_eq!(state.said_ahead, said);
        }
    }

    #[test]
    fn what_nobody_limits_stays() {
        let log = LogMeta::first(NodeId(1)).expect("a log");
        assert_eq!(Wanted::of(&log, 1, 1), None);
        let aged = LogMeta { retention_ms: 2000, ..log.clone() };
        let wanted = Wanted { bytes: None, not_before_us: Some(3 * SECOND), latest_us: 6 * SECOND };
        assert_eq!(Wanted::of(&aged, 5 * SECOND, 6 * SECOND), Some(wanted));
        assert_eq!(Wanted::of(&aged, SECOND, SECOND).and_then(|w| w.not_before_us), Some(0), "older than time itself");
        let sized = LogMeta { retention_bytes: 9, ..log };
        assert_eq!(Wanted::of(&sized, 1, 1), Some(Wanted { bytes: Some(9), not_before_us: None, latest_us: 1 }));
        assert_eq!(look_every(&aged), Duration::from_secs(1));
        assert_eq!(look_every(&LogMeta { retention_ms: 10 * 60 * 1000, ..aged }), Duration::from_secs(30));
    }
}
