//! Retention: the leader of a log trims records when the log is too large or they are too old. The trim is an entry,
//! so all nodes remove the same records.
//!
//! - **By size**: whole segments are removed, the oldest first, while at least `retention_bytes` remain on the
//!   leader. So a log exceeds the limit by at most one segment.
//! - **By age**: records older than `retention_ms` are removed; a file is removed with its last record. Every replica
//!   tracks ages (`ages.rs`), so that a new leader knows them.
//!
//! A record is removed by age if one of these is true:
//!
//! 1. By the monotonic clock of the leader's process, the record was visible on this node `retention_ms` ago.
//! 2. The record is from an earlier run of the process, and by both the log's clock and its timestamp it is
//!    `retention_ms` old. Neither is enough alone: the log's clock can reach this age in half of the time, and a
//!    timestamp may be wrong by any amount.
//!
//! So a record of this run is never removed before `retention_ms` have passed, and a record of an earlier run not
//! before running processes of this node have stored it for half of that time. A record with a wrong timestamp is
//! kept until rule 1 removes it. docs/RELIABILITY.md, "Clocks", states the guarantees, and
//! `consensus/retention/model.rs` checks them.
//!
//! The log's clock is stored in the headers of segments. For the necessary resolution, the newest segment is sealed
//! after an eighth of `retention_ms`.
//!
//! The decision has two steps, because finding records by time reads the disk: [`Retention::update`] determines the
//! conditions ([`Expired`]), and a reader thread finds the first record to keep. Each log has at most one search at a
//! time, at most one per second, and at most one per twentieth of the age.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::ages::{LogAges, as_us};
use super::facts::{Now, ReplicaFacts};
use super::notice::Notice;
use crate::catalog::meta::{EffectiveSettings, LogMeta};
use crate::clock::AHEAD_MAX;
use crate::storage::log::SealAge;
use crate::types::{GroupId, Offset};
use crate::watermark::Visible;

/// The bounds of the time between two searches of a log.
const SEARCH_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The newest segment is sealed after `retention_ms` divided by this number.
const SEALS_PER_AGE: u64 = 8;
/// The bounds of that time. The upper one applies only to segments with entries.
const SEAL_AGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));

/// The ages of this node's logs.
#[derive(Default)]
pub struct Retention {
    logs: BTreeMap<GroupId, LogRetention>,
}

struct LogRetention {
    ages: LogAges,
    next_search: Option<Instant>,
    /// True if the newest timestamp is ahead of the clock, which was reported.
    stamps_ahead: bool,
}

/// The result of [`Retention::update`].
#[derive(Debug)]
pub struct RetentionStep {
    /// The time of the log's clock, for the header of the next segment.
    pub local_us: u64,
    /// Set if the newest segment should be sealed at this age.
    pub seal: Option<SealAge>,
    /// Set if a search for the first record to keep should start.
    pub expired: Option<Expired>,
    /// Set when the newest timestamp begins or ceases to be ahead of the clock.
    pub notice: Option<Notice>,
}

/// The conditions under which records have expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    visible: Visible,
    /// The oldest segments are removed while this many bytes remain.
    bytes: Option<u64>,
    /// Records below this offset are old by the monotonic clock.
    old: Option<Offset>,
    times: Option<Times>,
}

/// The three conditions that all must hold for a record of an earlier run of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    /// The record is below the offset: it was visible when this run started.
    visible_at_start: Offset,
    /// The record had arrived by this time of the log's clock.
    arrived_by_us: u64,
    /// The record's timestamp is before this time.
    stamped_before_us: u64,
}

/// The queries that a search needs from a log.
pub trait LogContents {
    /// Returns the first record to keep if only whole segments are removed and at least `bytes` remain; `None` if no
    /// segment can be removed. Does not read the disk.
    fn first_within(&self, bytes: u64) -> Option<Offset>;

    /// Returns an offset such that all records below it had arrived by a time of the log's clock. Does not read the
    /// disk.
    fn arrived_by(&self, local_us: u64) -> Option<Offset>;

    /// Returns the first record in `from..below` with a timestamp at or after the time, or `below` if no record
    /// matches. Returns `from` if records can't be read, so that they are kept. May read the disk.
    fn first_not_before(&self, time_us: u64, from: Offset, below: Offset) -> Offset;
}

impl Expired {
    fn of(log: &EffectiveSettings, ages: &mut LogAges, visible: Visible, local_us: u64, now: Now) -> Expired {
        let bytes = Some(log.retention_bytes).filter(|bytes| *bytes > 0);
        let expired = Expired { visible, bytes, ..Expired::default() };
        if log.retention_ms == 0 {
            return expired;
        }
        let age = Duration::from_millis(log.retention_ms);
        let ago = |clock_us: u64| clock_us.checked_sub(as_us(age));
        let times = ago(local_us).zip(ago(now.wall_us)).map(|(arrived_by_us, stamped_before_us)| Times {
            visible_at_start: ages.visible_at_start(),
            arrived_by_us,
            stamped_before_us,
        });
        Expired { old: ages.older_than(age, now.at), times, ..expired }
    }

    fn is_any(&self) -> bool {
        self.bytes.is_some() || self.old.is_some() || self.times.is_some()
    }

    fn old_below(&self, times: Times, log: &impl LogContents) -> Option<Offset> {
        log.arrived_by(times.arrived_by_us).map(|below| below.min(times.visible_at_start).min(self.visible.next_offset))
    }

    /// Returns false if no record can have expired. Does not read the disk.
    pub fn is_possible(&self, log: &impl LogContents) -> bool {
        self.bytes.is_some() || self.old.is_some() || self.times.is_some_and(|t| self.old_below(t, log).is_some())
    }

    /// Returns the first record to keep, or `None` if no record has expired. May read the disk.
    pub fn first_to_keep(&self, log: &impl LogContents) -> Option<Offset> {
        let visible = self.visible;
        let by_size = self.bytes.and_then(|bytes| log.first_within(bytes));
        let known = by_size.max(self.old);
        let by_times = self.times.and_then(|times| {
            let below = self.old_below(times, log)?;
            let from = visible.first_offset.max(known.unwrap_or_default());
            (below > from).then(|| log.first_not_before(times.stamped_before_us, from, below))
        });
        known.max(by_times).map(|first| first.min(visible.next_offset)).filter(|first| *first > visible.first_offset)
    }
}

fn search_every(log: &EffectiveSettings) -> Duration {
    let (least, most) = SEARCH_EVERY;
    if log.retention_ms == 0 { least } else { Duration::from_millis(log.retention_ms / 20).clamp(least, most) }
}

/// Returns the age at which the newest segment is sealed. `None` if the log has no records that will expire.
fn seal_age(log: &EffectiveSettings, visible: Visible) -> Option<SealAge> {
    let (least, most) = SEAL_AGE;
    let age = Duration::from_millis(log.retention_ms / SEALS_PER_AGE).max(least);
    let expires = log.retention_ms > 0 && visible.first_offset < visible.next_offset;
    // An empty segment only stores the time, so a day's limit is not needed.
    expires.then_some(SealAge { used_us: as_us(age.min(most)), empty_us: as_us(age) })
}

impl Retention {
    /// Updates the ages of one log. Called at least once a second on every node with a replica, so that a new leader
    /// knows the ages. A deleted log is not trimmed.
    pub fn update(
        &mut self,
        log: &LogMeta,
        settings: &EffectiveSettings,
        replica: &ReplicaFacts,
        now: Now,
    ) -> RetentionStep {
        let visible = replica.visible;
        let state = self.logs.entry(log.group).or_insert_with(|| LogRetention {
            ages: LogAges::new(replica.begun_us, visible.next_offset, now.wall_us, now.at),
            next_search: None,
            stamps_ahead: false,
        });
        let local_us = state.ages.update(visible.next_offset, now.wall_us, now.at);
        let notice = state.check_stamps(log, visible.last_append_time_us, now.wall_us);
        let seal = seal_age(settings, visible);
        let due = state.next_search.is_none_or(|next| now.at >= next);
        let searches = replica.leads && due && !replica.is_searched && log.deletion.is_none();
        let expired = searches.then(|| {
            state.next_search = Some(now.at + search_every(settings));
            Expired::of(settings, &mut state.ages, visible, local_us, now)
        });
        RetentionStep { local_us, seal, expired: expired.filter(Expired::is_any), notice }
    }
}

impl Retention {
    /// Forgets a log that this node no longer has a replica of.
    pub fn forget(&mut self, group: GroupId) {
        self.logs.remove(&group);
    }
}

impl LogRetention {
    /// Returns a notice when the newest timestamp begins or ceases to be ahead of the clock.
    fn check_stamps(&mut self, log: &LogMeta, newest_us: u64, wall_us: u64) -> Option<Notice> {
        let ahead = Duration::from_micros(newest_us.saturating_sub(wall_us));
        if std::mem::replace(&mut self.stamps_ahead, ahead > AHEAD_MAX) == (ahead > AHEAD_MAX) {
            return None;
        }
        let name = log.name.clone();
        Some(if self.stamps_ahead { Notice::StampsAhead(name, ahead) } else { Notice::StampsPlausible(name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn the_newest_segment_is_sealed_while_records_will_expire() {
        let log = EffectiveSettings { retention_ms: 80_000, ..EffectiveSettings::default() };
        let visible = Visible { next_offset: Offset(7), ..Visible::default() };
        assert_eq!(seal_age(&log, visible), Some(SealAge { used_us: 10 * SECOND, empty_us: 10 * SECOND }));
        assert_eq!(seal_age(&log, Visible { first_offset: Offset(7), ..visible }), None, "no record will expire");
        assert_eq!(seal_age(&EffectiveSettings { retention_ms: 0, ..log }, visible), None);
        let short = EffectiveSettings { retention_ms: 2000, ..log };
        assert_eq!(seal_age(&short, visible), Some(SealAge { used_us: SECOND, empty_us: SECOND }));
        let (day, days) = (86_400 * SECOND, EffectiveSettings { retention_ms: 80 * 86_400_000, ..log });
        assert_eq!(seal_age(&days, visible), Some(SealAge { used_us: day, empty_us: 10 * day }), "a day at most");
    }

    #[test]
    fn logs_are_searched_every_twentieth_of_their_age() {
        let log = EffectiveSettings { retention_ms: 2000, ..EffectiveSettings::default() };
        assert_eq!(search_every(&log), Duration::from_secs(1));
        assert_eq!(search_every(&EffectiveSettings { retention_ms: 10 * 60 * 1000, ..log }), Duration::from_secs(30));
    }
}
