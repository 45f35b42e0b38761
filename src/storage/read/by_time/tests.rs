//! The search by time, compared with a plain scan of everything that was appended.

use super::*;
use crate::storage::format::entry::EntryKind;
use crate::storage::format::entry::{Entry, Stamp};
use crate::storage::format::payload::{RecordFields, encode_record, stamp_records};
use crate::storage::format::state::{Base, ConfState, Genesis, HardState, LogSnapshot, LogState, SealAge};
use crate::storage::io::disk::sim::Rng;
use crate::storage::write::log::GroupLog;
use crate::storage::write::log::tests::{GROUP, Home, append, sync};
use crate::storage::write::options::LogOptions;
use crate::types::{LogIndex, ReplicaId, Term};

/// The expected contents of a log: the time of each record from `first` on.
#[derive(Default)]
struct Model {
    first: u64,
    times: Vec<u64>,
    now: u64,
    term: u64,
}

impl Model {
    fn next(&self) -> u64 {
        self.first + self.times.len() as u64
    }

    fn scan(&self, time_us: u64, from: u64, until: u64) -> Option<Offset> {
        (from.max(self.first)..until).find(|o| self.times[(o - self.first) as usize] >= time_us).map(Offset)
    }

    fn append(&mut self, log: &mut GroupLog, random: &mut Rng, kind: EntryKind) {
        let bounds = log.bounds();
        // Often equal, now and then far apart.
        self.now += [0, 0, 0, 1, 2, 1000][random.below(6) as usize];
        let count = if kind == EntryKind::Records { 1 + random.below(3) as u32 } else { 0 };
        let mut payload = Vec::new();
        for _ in 0..count {
            let value = vec![7; random.below(2500) as usize];
            encode_record(&mut payload, &RecordFields { value: &value, ..RecordFields::default() });
        }
        if kind == EntryKind::Trim {
            payload.extend_from_slice(&self.first.to_le_bytes());
        }
        // raft's own entries have no time.
        let time = if kind == EntryKind::Noop { 0 } else { self.now };
        let term = Term(self.term);
        if count > 0 {
            stamp_records(&mut payload, bounds.next_offset, term, time).expect("canonical");
        }
        let base_offset = bounds.next_offset;
        let stamp = Stamp { kind, count, base_offset, append_time_us: time, producer_id: 0, sequence: 0 };
        log.append(&[Entry::new(bounds.last_index.next(), term, stamp, &payload)]).expect("appended");
        self.times.extend((0..count).map(|_| time));
    }

    fn commit(&self, log: &mut GroupLog) {
        let commit = log.bounds().last_index;
        let hard_state = HardState { term: Term(self.term), vote: Some(ReplicaId(9)), commit };
        log.append_hard_state(&hard_state).expect("appended");
    }

    fn check(&self, log: &GroupLog, random: &mut Rng) {
        let reader = log.reader();
        for _ in 0..8 {
            let (a, b) = (random.below(self.next() + 1), random.below(self.next() + 1));
            let (from, until) = if random.once_in(2) { (0, self.next()) } else { (a.min(b), a.max(b)) };
            let known = self.times.get(random.below(self.times.len() as u64 + 1) as usize).copied();
            let time = known.unwrap_or_else(|| random.below(self.now + 3)) + random.below(2);
            let found = reader.first_not_before(time, Offset(from), Offset(until), Access::Blocking);
            assert_eq!(found, Ok(self.scan(time, from, until)), "time {time} in {from}..{until}");
        }
    }
}

/// The log's clock is stored in segment headers, and continues from the stored time after a restart.
#[test]
fn segments_show_when_their_predecessors_had_arrived() {
    let home = Home::new(Genesis::founder(ReplicaId(1)));
    let (mut log, _) = home.open();
    let (mut model, mut random) = (Model { term: 1, now: 7, ..Model::default() }, Rng(1));
    let age = |used_us, empty_us| SealAge { used_us, empty_us };
    assert!(!log.end_old_segment(age(0, 0)).expect("nothing"), "the time is unknown");
    assert_eq!(log.reader().begun_us(), 0);
    let mut begun = Vec::new();
    for next_begins in [10_000, 20_000, 30_000] {
        model.append(&mut log, &mut random, EntryKind::Records);
        log.set_local_time(next_begins);
        assert!(log.end_old_segment(age(10_000, 10_000)).expect("ended"));
        assert!(!log.end_old_segment(age(0, 0)).expect("nothing"), "no time has passed");
        begun.push(Offset(model.next()));
    }
    let check = |log: &GroupLog| {
        let arrived = |local_us| log.reader().arrived_by(local_us);
        assert_eq!(arrived(9_999), None);
        assert_eq!(arrived(10_000), Some(begun[0]));
        assert_eq!(arrived(29_999), Some(begun[1]));
        assert_eq!(arrived(u64::MAX), Some(begun[2]));
        assert_eq!(log.reader().begun_us(), 30_000);
    };
    check(&log);
    log.set_local_time(25_000);
    assert!(!log.end_old_segment(age(1, 1)).expect("nothing"), "the clock does not go back");
    log.set_local_time(30_100);
    assert!(!log.end_old_segment(age(50, 500)).expect("nothing"), "an empty one stays for longer");
    model.append(&mut log, &mut random, EntryKind::Records);
    sync(&mut log, &home);
    drop(log);
    // A segment that is created at a start, or soon after it, has the newest stored time.
    let (mut log, _) = home.open();
    log.roll().expect("rolled");
    assert_eq!(log.reader().arrived_by(30_000), Some(Offset(model.next())));
    log.set_local_time(30_500);
    assert!(log.end_old_segment(age(50, 500)).expect("ended"), "an empty one stores the time");
    assert_eq!(log.reader().begun_us(), 30_500);
    sync(&mut log, &home);
    drop(log);
    assert_eq!(home.open().0.reader().begun_us(), 30_500);
}

fn snapshot(log: &GroupLog, model: &Model) -> LogSnapshot {
    let bounds = log.bounds();
    let base = Base {
        index: LogIndex(bounds.last_index.0 + 5),
        term: Term(model.term),
        offset: Offset(model.next()),
        ..Base::default()
    };
    let log_state = LogState { first_offset: base.offset, last_append_time_us: model.now, ..LogState::default() };
    LogSnapshot {
        base,
        conf_state: ConfState { voters: vec![ReplicaId(9)], learners: Vec::new() },
        conf_index: base.index,
        log_state,
        catalog: None,
        log_state_index: base.index,
    }
}

/// Random times, many of them equal, over rolls, cut suffixes, trims, snapshots, no-ops and reopened logs.
#[test]
fn finds_what_a_scan_finds() {
    for seed in 0..5 {
        let random = &mut Rng(seed + 1);
        let home = Home::new(Genesis::founder(ReplicaId(5)));
        let (mut log, _) = home.open();
        let mut model = Model { term: 1, now: 10, ..Model::default() };
        for _ in 0..150 {
            match random.below(100) {
                0..60 => model.append(&mut log, random, EntryKind::Records),
                60..75 => model.append(&mut log, random, EntryKind::Noop),
                75..78 => model.append(&mut log, random, EntryKind::Trim),
                78..84 => model.commit(&mut log),
                84..88 => {
                    let first = Offset(model.first + random.below(model.next() - model.first + 1));
                    model.commit(&mut log);
                    let log_state =
                        LogState { first_offset: first, last_append_time_us: model.now, ..LogState::default() };
                    let applied = log.bounds().last_index;
                    log.set_log_state(log_state, applied);
                    let base = log.trim(first, applied).expect("trimmed");
                    model.times.drain(..(base.offset.0 - model.first) as usize);
                    model.first = base.offset.0;
                }
                88..92 => {
                    // Only uncommitted entries are truncated; the entries that replace them may be older.
                    let committed = log.bounds().last_index;
                    let next = model.next();
                    model.commit(&mut log);
                    let now = model.now;
                    for _ in 0..1 + random.below(3) {
                        model.append(&mut log, random, EntryKind::Records);
                    }
                    log.truncate_suffix(committed.next()).expect("cut");
                    model.times.truncate((next - model.first) as usize);
                    (model.now, model.term) = (now, model.term + 1);
                }
                92..94 => {
                    let snapshot = snapshot(&log, &model);
                    let term = Term(model.term);
                    let hard_state = HardState { term, vote: Some(ReplicaId(9)), commit: snapshot.base.index };
                    log.install_snapshot(&snapshot, &hard_state).expect("installed");
                    (model.first, model.times) = (model.next(), Vec::new());
                }
                _ => {
                    log.close().expect("closed");
                    drop(log);
                    log = home.open().0;
                }
            }
            model.check(&log, random);
        }
    }
}

/// Two adjacent segments are damaged at the same position. Once, the hole in the first segment was mistaken for the one
/// in the second, and the search skipped the lost records: a client that read from its result was never told of the
/// loss.
#[test]
fn damage_at_the_same_position_of_two_segments_is_two_holes() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let (mut log, _) = home.open();
    for values in [&[&b"a"[..]][..], &[b"b"]] {
        append(&mut log, 1, values);
        log.roll().expect("rolled");
    }
    append(&mut log, 1, &[]);
    append(&mut log, 1, &[b"c"]);
    sync(&mut log, &home);
    for name in &home.segments()[1..] {
        let mut bytes = std::fs::read(home.path(name)).expect("a segment");
        bytes[128 + 20] ^= 1;
        std::fs::write(home.path(name), bytes).expect("written");
    }
    // The first is stamped 1001, and the second 1002.
    let found = |time_us| log.reader().first_not_before(time_us, Offset(0), Offset(3), Access::Blocking);
    assert_eq!(found(1001), Ok(Some(Offset(0))));
    assert_eq!(found(1002), Ok(Some(Offset(1))), "it is lost, and reading there says so");
    let read = log.reader().records(Offset(1), Offset(3), 1, 0, Access::Blocking);
    let Err(ReadError::Damaged(range)) = read else { panic!("{read:?}") };
    assert_eq!((range.file.as_str(), range.next_offset), ("00000000000000000002.seg", Some(Offset(2))));
}

/// The index of a truncated segment still contains the frames that were cut off. Once, it was reported as wrong for
/// that.
#[test]
fn the_index_of_a_truncated_segment_is_not_called_wrong() {
    let random = &mut Rng(5);
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let large = LogOptions { segment_bytes: 1 << 20 };
    let mut log = GroupLog::open(&home.disk, home.dir.path(), GROUP, &large).expect("opened").0;
    let mut model = Model { term: 1, now: 10, ..Model::default() };
    for _ in 0..200 {
        model.append(&mut log, random, EntryKind::Records);
    }
    let half = model.next() / 2;
    while log.bounds().next_offset.0 > half {
        log.truncate_suffix(log.bounds().last_index).expect("cut");
    }
    let until = log.bounds().next_offset;
    model.times.truncate((until.0 - model.first) as usize);
    for time in 0..model.now + 2 {
        let found = log.reader().first_not_before(time, Offset(0), until, Access::Blocking);
        assert_eq!(found, Ok(model.scan(time, 0, until.0)), "time {time}");
    }
    let parts = &log.reader().view().parts;
    assert!(parts.iter().all(|part| !part.segment.has_wrong_index()));
}

/// An index may contain arbitrary positions, so the frame at a position is checked.
#[test]
fn a_wrong_index_only_costs_time() {
    let random = &mut Rng(3);
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let (mut log, _) = home.open();
    let mut model = Model { term: 1, now: 10, ..Model::default() };
    for _ in 0..300 {
        model.append(&mut log, random, EntryKind::Records);
    }
    sync(&mut log, &home);
    log.close().expect("closed");
    drop(log);
    for name in home.segments() {
        let path = home.path(&name.replace(".seg", ".idx"));
        // The newest segment has no index file.
        let Ok(mut bytes) = std::fs::read(&path) else { continue };
        for time in bytes[40..].chunks_exact_mut(32).map(|entry| &mut entry[16..24]) {
            if time.iter().any(|b| *b != 0) {
                let wrong: u64 = [1, model.now / 2, model.now][random.below(3) as usize];
                time.copy_from_slice(&wrong.to_le_bytes());
            }
        }
        crate::storage::format::index::Index::seal(&mut bytes);
        std::fs::write(&path, bytes).expect("written");
    }
    let (log, _) = home.open();
    for time in 0..model.now + 2 {
        let found = log.reader().first_not_before(time, Offset(0), Offset(model.next()), Access::Blocking);
        assert_eq!(found, Ok(model.scan(time, 0, model.next())), "time {time}");
    }
}

#[test]
fn retention_by_size_drops_whole_segments() {
    let random = &mut Rng(4);
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let (mut log, _) = home.open();
    let mut model = Model { term: 1, now: 10, ..Model::default() };
    assert_eq!(log.reader().first_within(0), None, "the newest segment stays");
    for _ in 0..50 {
        model.append(&mut log, random, EntryKind::Records);
    }
    model.commit(&mut log);
    let all = log.reader().stored_bytes();
    assert_eq!(log.reader().first_within(all), None);
    let first = log.reader().first_within(20_000).expect("some can go");
    let applied = log.bounds().last_index;
    log.set_log_state(LogState { first_offset: first, last_append_time_us: model.now, ..LogState::default() }, applied);
    log.trim(first, applied).expect("trimmed");
    let left = log.reader().stored_bytes();
    assert!((20_000..20_000 + 3 * 4096).contains(&left), "{left} of {all} bytes");
    assert_eq!(log.reader().first_within(20_000), None, "once is enough");
}
