use std::path::Path;

use crossbeam_channel::{Receiver, unbounded};

use super::*;
use crate::storage::disk::sim::Sim;
use crate::storage::entry::{Entry, Kind, Stamp};
use crate::storage::log::{Genesis, HardState, LogOptions};
use crate::thread::{Fatal, fatal_channel};
use crate::types::{LogIndex, NodeId, Term};

const GROUPS: &str = "/groups";

fn log(sim: &Sim, group: u64) -> SharedLog {
    let (disk, groups, options) = (sim.disk(), Path::new(GROUPS), LogOptions { segment_bytes: 1 << 20 });
    GroupLog::create(&disk, groups, GroupId(group), &options, Genesis::Founder(NodeId(1))).expect("made");
    Arc::new(Mutex::new(GroupLog::open(&disk, groups, GroupId(group), &options).expect("opened").0))
}

fn append(log: &SharedLog) {
    let mut log = lock(log);
    let bounds = log.bounds();
    let stamp = Stamp {
        kind: Kind::Noop,
        count: 0,
        base_offset: bounds.next_offset,
        append_time_us: 0,
        producer_id: 0,
        sequence: 0,
    };
    log.append(&[Entry::new(bounds.last_index.next(), Term(1), stamp, b"")]).expect("appended");
    log.append_hard_state(&HardState { term: Term(1), ..HardState::default() }).expect("appended");
}

/// The thread, and one log that it knows, with an entry that is not synced.
struct Started {
    sim: Sim,
    writer: Writer,
    reported: Receiver<(GroupId, u64)>,
    failures: Receiver<Fatal>,
    log: SharedLog,
}

fn started() -> Started {
    let sim = Sim::default();
    let (fatal, failures) = fatal_channel();
    let (report, reported) = reports();
    let writer = Writer::start(&sim.disk(), report, &fatal).expect("a thread");
    let log = log(&sim, 1);
    writer.handle().register(GroupId(1), log.clone());
    append(&log);
    Started { sim, writer, reported, failures, log }
}

fn reports() -> (Report, Receiver<(GroupId, u64)>) {
    let (tx, rx) = unbounded();
    (Arc::new(move |group, ready| tx.send((group, ready)).expect("a listener")), rx)
}

#[test]
fn what_is_reported_survives_a_power_cut() {
    let sim = Sim::default();
    let (fatal, failures) = fatal_channel();
    let (report, reported) = reports();
    let writer = Writer::start(&sim.disk(), report, &fatal).expect("a thread");
    let logs = [log(&sim, 1), log(&sim, 2)];
    for (i, log) in logs.iter().enumerate() {
        writer.handle().register(GroupId(i as u64 + 1), log.clone());
    }
    for ready in 1..=50 {
        for (i, log) in logs.iter().enumerate() {
            append(log);
            writer.handle().sync(GroupId(i as u64 + 1), ready);
        }
    }
    let mut last = [0; 2];
    while last != [50; 2] {
        let (group, ready) = reported.recv().expect("a report");
        let seen = &mut last[group.0 as usize - 1];
        assert!(*seen < ready, "each once, in order, merged");
        *seen = ready;
    }
    assert_eq!(writer.handle().busy_since(), None);
    sim.power_cut(&mut crate::storage::disk::sim::Rng(1));
    for group in 1..=2 {
        let options = LogOptions { segment_bytes: 1 << 20 };
        let (_, found) = GroupLog::open(&sim.disk(), Path::new(GROUPS), GroupId(group), &options).expect("opened");
        assert_eq!(found.last_index.0, 51);
    }
    drop(writer);
    assert!(failures.is_empty());
}

#[test]
fn a_failed_sync_is_final() {
    let Started { sim, writer, reported, failures, log: _log } = started();
    sim.die_after(Some(0));
    writer.handle().sync(GroupId(1), 1);
    let failure = failures.recv().expect("it is told");
    assert_eq!(failure.thread, "log-writer");
    sim.die_after(None);
    writer.handle().sync(GroupId(1), 2);
    writer.stop();
    assert!(reported.is_empty(), "nothing is reported after it");
}

#[test]
fn a_stop_leaves_the_clean_mark() {
    let Started { sim, writer, reported, failures, log } = started();
    writer.handle().sync(GroupId(1), 1);
    // Without a sync of its own: the stop syncs once more.
    append(&log);
    writer.stop();
    assert_eq!(reported.try_recv(), Ok((GroupId(1), 1)));
    sim.power_cut(&mut crate::storage::disk::sim::Rng(3));
    let options = LogOptions { segment_bytes: 1 << 20 };
    let (mut log, found) = GroupLog::open(&sim.disk(), Path::new(GROUPS), GroupId(1), &options).expect("opened");
    assert_eq!(found.last_index.0, 3);
    assert!(!log.append_synced_mark().expect("nothing"), "the manifest says that all is synced");
    assert!(failures.is_empty());
}

#[test]
fn quiet_notes_the_floor() {
    let Started { sim: _sim, writer, reported, failures: _failures, log } = started();
    writer.handle().sync(GroupId(1), 1);
    assert_eq!(reported.recv(), Ok((GroupId(1), 1)));
    let before = lock(&log).stored_bytes();
    let deadline = Instant::now() + 5 * QUIET;
    while lock(&log).stored_bytes() == before {
        assert!(Instant::now() < deadline, "no mark was written");
        std::thread::yield_now();
    }
    let marked = lock(&log).stored_bytes();
    drop(writer);
    assert_eq!(lock(&log).stored_bytes(), marked, "one mark is enough");
}

/// The commit index of the last entries is written behind them, at a tick, and nobody wants a sync for it. The mark was never
/// written then: whatever was produced last stayed above the floor for as long as nothing else came, and a byte of it that
/// a bad disk changed was cut off as torn, silently.
#[test]
fn quiet_notes_the_floor_also_behind_a_commit_that_nobody_wants_synced() {
    let Started { sim, writer, reported, failures: _failures, log } = started();
    let entries = lock(&log).stored_bytes();
    writer.handle().sync(GroupId(1), 1);
    assert_eq!(reported.recv(), Ok((GroupId(1), 1)));
    let commit = HardState { term: Term(1), commit: LogIndex(2), ..HardState::default() };
    lock(&log).append_hard_state(&commit).expect("appended");
    let before = lock(&log).stored_bytes();
    assert!(before > entries);
    let deadline = Instant::now() + 5 * QUIET;
    while lock(&log).stored_bytes() == before || !lock(&log).is_synced() {
        assert!(Instant::now() < deadline, "no mark was written, or not synced");
        std::thread::yield_now();
    }
    // As killed: no clean mark.
    sim.power_cut(&mut crate::storage::disk::sim::Rng(5));
    let path = Path::new(GROUPS).join("1/00000000000000000001.seg");
    let file = sim.disk().open(&path).expect("opened");
    file.write_at(crate::storage::segment::SEGMENT_HEADER_BYTES + 40, &[0xff]).expect("a byte of the entry is changed");
    let options = LogOptions { segment_bytes: 1 << 20 };
    let error = GroupLog::open(&sim.disk(), Path::new(GROUPS), GroupId(1), &options).err().expect("refused");
    assert!(error.is_damage(), "{error}");
}
