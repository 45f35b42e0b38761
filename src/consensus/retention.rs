//! Retention: the leader of a log proposes to trim what is too much or too old, so that all nodes agree on what is gone.
//!
//! - **By size** whole segments go, the oldest first, as long as at least `retention_bytes` stay on the leader: a log has at
//!   most a segment more.
//! - **By age** records go that are older than `retention_ms`. Their file goes with its last record. For ages `ages.rs` is
//!   responsible. Every replica keeps them, so that a new leader knows them.
//!
//! A record is removed by age when one of these is true:
//!
//! 1. The monotonic clock of the leader's process shows it: the record was visible here `retention_ms` ago.
//! 2. An earlier run of the process had it, and both the log's clock and the timestamps say that it is `retention_ms` old. The log's
//!    clock alone could say so after half of that time, and timestamps alone may be wrong by any amount.
//!
//! So a record of this run is never removed before `retention_ms`, and one of an earlier run not before running processes of this
//! node have held it for half of that. Timestamps that are wrong keep records until rule 1 removes them.
//! docs/RELIABILITY.md, "Clocks", states the guarantees, and `retention/model.rs` checks them.
//!
//! The log's clock is stored in the headers of segments. So the newest one is sealed after an eighth of `retention_ms`.
//!
//! One look and one trim at a time, every second at most and a twentieth of the age. Records are searched by a `reader`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::ages::{LogAges, as_us};
use super::handle::{ConsensusHandle, Proposal};
use super::replica::Replica;
use crate::catalog::LogMeta;
use crate::clock::AHEAD_MAX;
use crate::storage::entry::EntryKind;
use crate::storage::log::SealAge;
use crate::storage::reader::{Access, GroupReader, ReadersHandle};
use crate::types::{GroupId, Offset};
use crate::watermark::Mark;

/// Between two looks at a log, at least, and at most.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The newest segment is sealed after `retention_ms` divided by this,
const SEALS_PER_AGE: u64 = 8;
/// but not sooner than the first, nor later than the second if it has entries.
const SEAL_AGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));

/// What this node knows of its logs' retention, and the way to propose a trim.
pub struct Retention {
    consensus: ConsensusHandle,
    logs: BTreeMap<GroupId, State>,
}

struct State {
    ages: LogAges,
    next_look: Option<Instant>,
    looking: Arc<AtomicBool>,
    /// The warning about a timestamp ahead of the clock was logged.
    said_ahead: bool,
}

/// What has to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// At least so many bytes stay.
    bytes: Option<u64>,
    /// Records below go.
    old: Option<Offset>,
    /// Records below go, too, if their timestamp is before that time.
    old_if_before: Option<(Offset, u64)>,
}

impl Wanted {
    /// `local_us` is the log's clock, `wall_us` the clock of timestamps.
    fn of(
        log: &LogMeta,
        ages: &mut LogAges,
        reader: &GroupReader,
        local_us: u64,
        wall_us: u64,
        now: Instant,
    ) -> Wanted {
        let bytes = Some(log.retention_bytes).filter(|bytes| *bytes > 0);
        if log.retention_ms == 0 {
            return Wanted { bytes, ..Wanted::default() };
        }
        let age = Duration::from_millis(log.retention_ms);
        let ago = |clock_us: u64| clock_us.checked_sub(as_us(age));
        let arrived = ago(local_us).and_then(|then_us| reader.arrived_by(then_us));
        let found = arrived.map(|below| below.min(ages.found()));
        Wanted { bytes, old: ages.older_than(age, now), old_if_before: found.zip(ago(wall_us)) }
    }

    /// The first record to keep, where that is another one than now.
    fn first_to_keep(&self, reader: &GroupReader, mark: Mark) -> Option<Offset> {
        let by_size = self.bytes.and_then(|bytes| reader.first_within(bytes));
        let known = by_size.max(self.old);
        let by_times = self.old_if_before.and_then(|(below, time_us)| {
            let below = below.min(mark.next_offset);
            let from = mark.first_offset.max(known.unwrap_or_default());
            if below <= from {
                return None;
            }
            match reader.first_not_before(time_us, from, below, Access::Blocking) {
                Ok(found) => Some(found.unwrap_or(below)),
                Err(error) => {
                    log::warn!("retention: records can't be read, and stay for now: {error}");
                    None
                }
            }
        });
        known.max(by_times).map(|first| first.min(mark.next_offset)).filter(|first| *first > mark.first_offset)
    }

    fn is_nothing(&self) -> bool {
        *self == Wanted::default()
    }
}

fn look_every(log: &LogMeta) -> Duration {
    let (least, most) = LOOK_EVERY;
    if log.retention_ms == 0 { least } else { Duration::from_millis(log.retention_ms / 20).clamp(least, most) }
}

/// The age at which the newest segment is sealed, while the log has records that will expire.
fn seal_age(log: &LogMeta, mark: Mark) -> Option<SealAge> {
    let (least, most) = SEAL_AGE;
    let age = Duration::from_millis(log.retention_ms / SEALS_PER_AGE).max(least);
    let expires = log.retention_ms > 0 && mark.first_offset < mark.next_offset;
    // An empty segment only stores the time.
    expires.then_some(SealAge { used_us: as_us(age.min(most)), empty_us: as_us(age) })
}

impl Retention {
    /// Proposes by this handle.
    pub fn new(consensus: ConsensusHandle) -> Retention {
        Retention { consensus, logs: BTreeMap::new() }
    }

    /// Checks one log, if it is time to; the leader proposes a trim. Returns an age if the newest segment should be sealed when
    /// it is older than that.
    pub fn look(
        &mut self,
        log: &LogMeta,
        replica: &Replica,
        readers: &ReadersHandle,
        now: Instant,
        wall_us: u64,
    ) -> Option<SealAge> {
        let mark = replica.group.mark();
        let state = self
            .logs
            .entry(log.group)
            .or_insert_with(|| State::new(LogAges::new(replica.reader.begun_us(), mark.next_offset, wall_us, now)));
        // On every node, so that a new leader knows the ages.
        let local_us = state.ages.look(mark.next_offset, wall_us, now);
        replica.set_local_time(local_us);
        state.warn_of_stamps(log, mark.last_append_time_us, wall_us);
        let seal = seal_age(log, mark);
        if !replica.group.leads() || state.next_look.is_some_and(|next| now < next) {
            return seal;
        }
        if state.looking.load(Ordering::Acquire) {
            return seal;
        }
        let wanted = Wanted::of(log, &mut state.ages, &replica.reader, local_us, wall_us, now);
        state.next_look = Some(now + look_every(log));
        if wanted.is_nothing() {
            return seal;
        }
        state.looking.store(true, Ordering::Release);
        let (group, reader, consensus) = (log.group, replica.reader.clone(), self.consensus.clone());
        let looking = Arc::clone(&state.looking);
        let job = move || {
            if let Some(first) = wanted.first_to_keep(&reader, mark) {
                log::debug!("retention: group {group} keeps records from {first} on");
                let payload = first.0.to_le_bytes().as_slice().into();
                // Refused or lost, it is proposed again at the next look.
                drop(consensus.propose(Proposal::new(group, EntryKind::Trim, 0, payload)));
            }
            looking.store(false, Ordering::Release);
        };
        if readers.run_own(Box::new(job)).is_err() {
            state.looking.store(false, Ordering::Release);
        }
        seal
    }
}

impl State {
    fn new(ages: LogAges) -> State {
        State { ages, next_look: None, looking: Arc::default(), said_ahead: false }
    }

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

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeId;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn the_newest_segment_is_sealed_while_records_will_expire() {
        let log = LogMeta { retention_ms: 80_000, ..LogMeta::first(NodeId(1)).expect("a log") };
        let mark = Mark { next_offset: Offset(7), ..Mark::default() };
        assert_eq!(seal_age(&log, mark), Some(SealAge { used_us: 10 * SECOND, empty_us: 10 * SECOND }));
        assert_eq!(seal_age(&log, Mark { first_offset: Offset(7), ..mark }), None, "nothing will expire");
        assert_eq!(seal_age(&LogMeta { retention_ms: 0, ..log.clone() }, mark), None);
        let short = LogMeta { retention_ms: 2000, ..log.clone() };
        assert_eq!(seal_age(&short, mark), Some(SealAge { used_us: SECOND, empty_us: SECOND }));
        let (day, days) = (86_400 * SECOND, LogMeta { retention_ms: 80 * 86_400_000, ..log });
        assert_eq!(seal_age(&days, mark), Some(SealAge { used_us: day, empty_us: 10 * day }), "a day at most");
    }

    #[test]
    fn a_timestamp_ahead_is_logged_once() {
        let log = LogMeta::first(NodeId(1)).expect("a log");
        let mut state = State::new(LogAges::new(0, Offset(0), SECOND, Instant::now()));
        for (newest, said) in [(0, false), (60 * SECOND, false), (62 * SECOND, true), (99 * SECOND, true), (7, false)] {
            state.warn_of_stamps(&log, newest, SECOND);
            assert_eq!(state.said_ahead, said);
        }
    }

    #[test]
    fn logs_are_looked_at_every_twentieth_of_their_age() {
        let log = LogMeta { retention_ms: 2000, ..LogMeta::first(NodeId(1)).expect("a log") };
        assert_eq!(look_every(&log), Duration::from_secs(1));
        assert_eq!(look_every(&LogMeta { retention_ms: 10 * 60 * 1000, ..log }), Duration::from_secs(30));
    }
}
