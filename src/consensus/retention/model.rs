//! A model test of retention: random histories of one leading replica, with appends, pauses, clean and unclean
//! restarts, downtime, and a wall clock that may jump anywhere. Every removed record and every remaining record is
//! checked against the guarantees in docs/RELIABILITY.md, "Clocks".

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::catalog::policy::ages::as_us;
use crate::catalog::policy::facts::{Now, ReplicaFacts};
use crate::catalog::policy::retention::Retention;
use crate::catalog::{EffectiveSettings, LogMeta};
use crate::log_state::LogState;
use crate::storage::disk::sim::{Rng, Sim};
use crate::storage::entry::{Entry, EntryKind, Stamp};
use crate::storage::log::{Genesis, GroupLog, HardState, LogOptions};
use crate::storage::payload::{RecordFields, encode_record, stamp_records};
use crate::types::{GroupId, Offset, ReplicaId, Term};
use crate::watermark::Visible;

const GROUPS: &str = "/data/groups";
const GROUP: GroupId = GroupId(3);
const STEP: Duration = Duration::from_millis(200);
const RETENTION: Duration = Duration::from_secs(24);
/// The resolution of retention: searches are a second apart, plus a step if one is missed, and time marks are 0.1 s
/// apart.
const LOOKS: Duration = Duration::from_millis(1600);
const DAY: i64 = 86_400_000_000;
const TERM: Term = Term(1);

/// What happens to the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    Right,
    /// At each restart and at random moments it becomes wrong by another amount, or right again.
    Wild,
    /// It is wrong in every second run. It changes only at restarts.
    WrongInRuns,
}

struct Record {
    run: u64,
    at: Duration,
    /// When it became visible, in this run or the last one.
    visible_at: Duration,
    /// The total running time of all processes until then.
    ran: Duration,
    /// True if its timestamp is correct.
    well_stamped: bool,
}

/// The tested part of a node: one log with its retention, during one run of the process.
struct Node {
    log: GroupLog,
    retention: Retention,
    begun_us: u64,
}

struct World {
    sim: Sim,
    node: Node,
    epoch: Instant,
    /// The time since the start, including and excluding downtime.
    at: Duration,
    ran: Duration,
    run: u64,
    run_began: Duration,
    /// By how much the wall clock is ahead, microseconds.
    ahead_us: i64,
    kind: Clock,
    first: u64,
    records: VecDeque<Record>,
    last_stamp_us: u64,
    removed: u64,
}

fn settings() -> EffectiveSettings {
    EffectiveSettings { retention_ms: RETENTION.as_millis() as u64, ..EffectiveSettings::default() }
}

impl Node {
    fn start(sim: &Sim, next_offset: Option<Offset>, wall_us: u64, now: Instant) -> Node {
        let options = LogOptions { segment_bytes: 4096 };
        let (log, _) = GroupLog::open(&sim.disk(), Path::new(GROUPS), GROUP, &options).expect("opened");
        let visible = next_offset.unwrap_or(log.bounds().next_offset);
        let begun_us = log.reader().begun_us();
        let mut node = Node { log, retention: Retention::default(), begun_us };
        // The node does not lead yet.
        let visible = Visible { next_offset: visible, ..Visible::default() };
        node.retention.update(
            &LogMeta::of_group_1(),
            &settings(),
            &ReplicaFacts { visible, begun_us, ..ReplicaFacts::default() },
            at(wall_us, now),
        );
        node
    }

    /// Does what the driver does on a tick. Returns the first record to keep.
    fn tick(&mut self, visible: Visible, wall_us: u64, now: Instant) -> Option<Offset> {
        let facts = ReplicaFacts { leads: true, visible, begun_us: self.begun_us, ..ReplicaFacts::default() };
        let step = self.retention.update(&LogMeta::of_group_1(), &settings(), &facts, at(wall_us, now));
        self.log.set_local_time(step.local_us);
        if let Some(age) = step.seal {
            self.log.end_old_segment(age).expect("sealed");
        }
        let reader = self.log.reader();
        step.expired.and_then(|expired| expired.first_to_keep(&reader))
    }
}

fn at(wall_us: u64, now: Instant) -> Now {
    Now { tick: 0, at: now, wall_us }
}

impl World {
    fn new(kind: Clock) -> World {
        let (sim, epoch) = (Sim::default(), Instant::now());
        let options = LogOptions { segment_bytes: 4096 };
        let genesis = Genesis::founder(ReplicaId(9));
        GroupLog::create(&sim.disk(), Path::new(GROUPS), GROUP, &options, genesis).expect("made");
        let node = Node::start(&sim, None, 50 * 365 * DAY.unsigned_abs(), epoch);
        World {
            sim,
            node,
            epoch,
            at: Duration::ZERO,
            ran: Duration::ZERO,
            run: 0,
            run_began: Duration::ZERO,
            ahead_us: 0,
            kind,
            first: 0,
            records: VecDeque::new(),
            last_stamp_us: 0,
            removed: 0,
        }
    }

    fn wall_us(&self) -> u64 {
        (50 * 365 * DAY.unsigned_abs() + as_us(self.at)).checked_add_signed(self.ahead_us).expect("a time")
    }

    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn append(&mut self, random: &mut Rng) {
        let (bounds, time) = (self.node.log.bounds(), self.last_stamp_us.max(self.wall_us()));
        let mut payload = Vec::new();
        let value = vec![7; random.below(900) as usize];
        encode_record(&mut payload, &RecordFields { value: &value, ..RecordFields::default() });
        stamp_records(&mut payload, bounds.next_offset, TERM, time).expect("canonical");
        let stamp = Stamp {
            kind: EntryKind::Records,
            count: 1,
            base_offset: bounds.next_offset,
            append_time_us: time,
            producer_id: 0,
            sequence: 0,
        };
        let entry = Entry::new(bounds.last_index.next(), TERM, stamp, &payload);
        let log = &mut self.node.log;
        let hard_state = HardState { term: TERM, vote: Some(ReplicaId(9)), commit: entry.index };
        log.append_ready(&[entry], Some(&hard_state)).expect("appended");
        self.sync();
        self.last_stamp_us = time;
        let well_stamped = self.ahead_us == 0;
        self.records.push_back(Record { run: self.run, at: self.at, visible_at: self.at, ran: self.ran, well_stamped });
    }

    fn sync(&mut self) {
        if let Some(job) = self.node.log.begin_sync() {
            job.perform(&self.sim.disk()).expect("synced");
            self.node.log.end_sync(job);
        }
    }

    fn change_clock(&mut self, random: &mut Rng) {
        self.ahead_us = match random.below(6) {
            0 | 1 => 0,
            2 => 200 * DAY,
            3 => -2000 * DAY,
            // Within a minute's tolerance, or within the retention.
            4 => random.below(100) as i64 * 1_000_000,
            _ => -(random.below(100) as i64) * 1_000_000,
        };
    }

    fn restart(&mut self, random: &mut Rng) {
        // Records that became visible just before a crash are not visible at the start, only after the election.
        let mut visible = None;
        match random.below(3) {
            0 => self.node.log.close().expect("closed"),
            1 => {
                self.sim.kill();
                let late = random.below(4).min(self.records.len() as u64);
                visible = Some(Offset(self.next() - late));
            }
            _ => self.sim.power_cut(random),
        }
        if random.once_in(3) {
            self.at += Duration::from_millis(random.below(3 * RETENTION.as_millis() as u64));
        } else {
            self.at += Duration::from_millis(random.below(500));
        }
        match self.kind {
            Clock::Right => {}
            Clock::Wild => self.change_clock(random),
            Clock::WrongInRuns if self.run.is_multiple_of(2) => self.ahead_us = 200 * DAY,
            Clock::WrongInRuns => self.ahead_us = 0,
        }
        (self.run, self.run_began) = (self.run + 1, self.at);
        self.node = Node::start(&self.sim, visible, self.wall_us(), self.epoch + self.at);
        let visible = visible.map_or(u64::MAX, |visible| visible.0);
        for (offset, record) in (self.first..).zip(&mut self.records) {
            if offset >= visible {
                record.visible_at = self.at;
            }
        }
    }

    fn step(&mut self) {
        let now = self.epoch + self.at;
        let (first_offset, next_offset) = (Offset(self.first), Offset(self.next()));
        let visible =
            Visible { first_offset, next_offset, last_append_time_us: self.last_stamp_us, ..Visible::default() };
        let keep = self.node.tick(visible, self.wall_us(), now);
        if let Some(keep) = keep {
            self.remove(keep.0);
            let log = &mut self.node.log;
            let applied = log.bounds().last_index;
            log.set_log_state(
                LogState { first_offset: keep, last_append_time_us: self.last_stamp_us, ..LogState::default() },
                applied,
            );
            log.trim(keep, applied).expect("trimmed");
        }
        self.sync();
        self.check_what_stays();
    }

    /// Removes records. None may be too young.
    fn remove(&mut self, keep: u64) {
        for offset in self.first..keep {
            let record = self.records.pop_front().expect("a record");
            let (age, held) = (self.at - record.at, self.ran - record.ran);
            let about = format!("record {offset} of run {} in run {}: {:?}", record.run, self.run, self.kind);
            assert!(held * 2 >= RETENTION, "{about}: processes had it for {held:?} only");
            if record.run == self.run {
                assert!(age >= RETENTION, "{about}: the record is of this run, and {age:?} old");
            }
            if record.well_stamped && self.ahead_us == 0 {
                assert!(age >= RETENTION, "{about}: the clock is and was correct, and the record is {age:?} old");
            }
            self.removed += 1;
        }
        self.first = keep;
    }

    /// Checks that no record stays too long. It is enough to check the oldest one.
    fn check_what_stays(&self) {
        let Some(record) = self.records.front() else { return };
        let about = format!("record {} of run {} in run {}: {:?}", self.first, record.run, self.run, self.kind);
        let age_here = self.at - record.visible_at.max(self.run_began);
        assert!(age_here <= RETENTION * 9 / 8 + LOOKS, "{about}: this run has had it for {age_here:?}");
        if self.kind == Clock::Right && record.visible_at < self.run_began {
            let (age, run) = (self.at - record.visible_at, self.at - self.run_began);
            let old = age > RETENTION * 3 / 2 + LOOKS;
            assert!(
                !old || run <= RETENTION * 3 / 4 + LOOKS,
                "{about}: the record is {age:?} old, and the run {run:?}"
            );
        }
    }
}

/// Runs one history, and returns the number of removed records. Runs of the process last from less than a second to
/// four times the retention; in some, nothing is appended.
fn history(kind: Clock, seed: u64) -> u64 {
    let random = &mut Rng(seed);
    let mut world = World::new(kind);
    for _ in 0..8 {
        let longest = [RETENTION / 8, RETENTION, RETENTION * 4][random.below(3) as usize];
        let end = world.at + Duration::from_millis(random.below(longest.as_millis() as u64));
        let busy = random.below(4);
        while world.at < end {
            if busy > 0 && random.below(10) < busy * busy {
                world.append(random);
            }
            if kind == Clock::Wild && random.once_in(60) {
                world.change_clock(random);
            }
            world.step();
            world.at += STEP;
            world.ran += STEP;
        }
        world.restart(random);
    }
    world.removed
}

#[test]
fn no_record_is_removed_too_early_or_stays_too_long_whatever_the_clocks_are() {
    for kind in [Clock::Right, Clock::Wild, Clock::WrongInRuns] {
        let removed: u64 = (0..40).map(|seed| history(kind, seed)).sum();
        assert!(removed > 2000, "{kind:?}: {removed}");
    }
}

/// With a correct clock, records also expire if each run lasts only a fraction of the retention.
#[test]
fn records_expire_over_many_short_runs() {
    for seed in 0..10 {
        let random = &mut Rng(seed);
        let mut world = World::new(Clock::Right);
        for _ in 0..20 {
            world.append(random);
        }
        let mut runs = 0;
        while !world.records.is_empty() {
            let end = world.at + RETENTION / 4;
            while world.at < end {
                world.step();
                world.at += STEP;
                world.ran += STEP;
            }
            world.restart(random);
            runs += 1;
            assert!(runs < 9, "{} records stay", world.records.len());
        }
    }
}
