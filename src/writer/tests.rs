use std::path::Path;

use crossbeam_channel::{Receiver, unbounded};

use super::*;
use crate::metrics::Registry;
use crate::storage::disk::sim::Sim;
use crate::storage::entry::{Entry, EntryKind, Stamp};
use crate::storage::log::{Genesis, HardState, LogOptions, QUIET};
use crate::thread::{Fatal, fatal_channel};
use crate::types::{LogIndex, ReplicaId, Term};

const GROUPS: &str = "/groups";

fn log(sim: &Sim, group: u64) -> SharedLog {
    let (disk, groups, options) = (sim.disk(), Path::new(GROUPS), LogOptions { segment_bytes: 1 << 20 });
    GroupLog::create(&disk, groups, GroupId(group), &options, Genesis::founder(ReplicaId(1))).expect("made");
    Arc::new(Mutex::new(GroupLog::open(&disk, groups, GroupId(group), &options).expect("opened").0))
}

fn append(log: &SharedLog) {
    let mut log = log.lock();
    let bounds = log.bounds();
    let stamp = Stamp {
        kind: EntryKind::Noop,
        count: 0,
        base_offset: bounds.next_offset,
        append_time_us: 0,
        producer_id: 0,
        sequence: 0,
    };
    log.append(&[Entry::new(bounds.last_index.next(), Term(1), stamp, b"")]).expect("appended");
    log.append_hard_state(&HardState { term: Term(1), ..HardState::default() }).expect("appended");
}

/// The thread, and one registered log with an entry that is not synced.
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
    let writer =
        Writer::start(&sim.disk(), report, WriterMetrics::new(&Registry::default()), &fatal).expect("a thread");
    let log = log(&sim, 1);
    writer.handle().register(GroupId(1), log.clone());
    append(&log);
    Started { sim, writer, reported, failures, log }
}

fn reports() -> (Report, Receiver<(GroupId, u64)>) {
    let (tx, rx) = unbounded();
    (Report::new(move |group, ready| tx.send((group, ready)).expect("a listener"), |_, _| {}), rx)
}

#[test]
fn what_is_reported_survives_a_power_cut() {
    let sim = Sim::default();
    let (fatal, failures) = fatal_channel();
    let (report, reported) = reports();
    let writer =
        Writer::start(&sim.disk(), report, WriterMetrics::new(&Registry::default()), &fatal).expect("a thread");
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
    assert_eq!(writer.handle().busy_since(), [None; WRITER_THREADS]);
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
    let failure = failures.recv().expect("the failure is reported");
    assert_eq!(failure.thread, "log-writer-1");
    sim.die_after(None);
    writer.handle().sync(GroupId(1), 2);
    writer.stop();
    assert!(reported.is_empty(), "nothing is reported after it");
}

/// The threads share a disk. After a failure of one of them, the others must not report that theirs was fine.
#[test]
fn a_failed_sync_ends_every_thread() {
    let Started { sim, writer, reported, failures, log: _log } = started();
    let other = log(&sim, 2);
    writer.handle().register(GroupId(2), other.clone());
    sim.die_after(Some(0));
    writer.handle().sync(GroupId(1), 1);
    assert_eq!(failures.recv().expect("the failure is reported").thread, thread_name(1));
    sim.die_after(None);
    append(&other);
    writer.handle().sync(GroupId(2), 1);
    writer.stop();
    assert!(reported.is_empty() && failures.is_empty());
    assert!(!other.lock().is_synced(), "nor did the stop sync it");
}

#[test]
fn groups_are_spread_over_the_threads() {
    let sim = Sim::default();
    let (fatal, failures) = fatal_channel();
    let (tx, reported) = unbounded();
    let report = Report::new(
        move |group, _| {
            tx.send((group, std::thread::current().name().map(str::to_owned))).expect("a listener");
        },
        |_, _| {},
    );
    let writer = Writer::start(&sim.disk(), report, WriterMetrics::new(&Registry::default()), &fatal).expect("threads");
    for group in 0..3 * WRITER_THREADS as u64 {
        writer.handle().register(GroupId(group), log(&sim, group));
        writer.handle().sync(GroupId(group), 1);
    }
    writer.stop();
    for (group, thread) in reported.iter() {
        assert_eq!(thread, Some(thread_name(group.0 as usize % WRITER_THREADS)), "{group}");
    }
    assert!(failures.is_empty());
}

/// The files of a dropped replica are renamed next, and its group may get another replica whose numbers begin again.
#[test]
fn after_unregister_nothing_uses_or_reports_the_log() {
    let sim = Sim::default();
    let (fatal, failures) = fatal_channel();
    let (tx, events) = unbounded();
    let (resume, resumed) = unbounded::<()>();
    let told = tx.clone();
    let report = Report::new(
        move |_, _| {
            told.send("reporting").expect("a listener");
            resumed.recv().expect("resumed");
            told.send("reported").expect("a listener");
        },
        |_, _| {},
    );
    let writer = Writer::start(&sim.disk(), report, WriterMetrics::new(&Registry::default()), &fatal).expect("threads");
    let (group, handle) = (GroupId(1), writer.handle());
    handle.register(group, log(&sim, 1));
    handle.sync(group, 7);
    assert_eq!(events.recv(), Ok("reporting"));
    let unregisters = std::thread::scope(|scope| {
        let unregisters = scope.spawn(|| {
            handle.unregister(group);
            tx.send("unregistered").expect("a listener");
        });
        resume.send(()).expect("resumed");
        unregisters.join()
    });
    unregisters.expect("unregistered");
    assert_eq!(events.try_iter().collect::<Vec<_>>(), ["reported", "unregistered"]);
    writer.stop();
    assert!(failures.is_empty());
}

/// A drain was taken before the log was replaced by that of another replica of the group.
#[test]
fn a_drain_does_not_report_for_the_groups_next_replica() {
    let sim = Sim::default();
    let (report, reported) = reports();
    let by_hand = WriterByHand::new(&sim.disk(), report);
    let (group, handle) = (GroupId(1), by_hand.handle());
    let old = log(&sim, 1);
    handle.register(group, old.clone());
    let drain = vec![Wanted { group, log: old, ready_number: 9 }];
    handle.unregister(group);
    handle.register(group, log(&sim, 2));
    by_hand.worker.act(WriterEvent::Sync(drain), &mut IdleWork::default()).expect("skipped");
    assert!(reported.is_empty());
}

#[test]
fn directories_are_deleted_when_nothing_else_is_due() {
    let Started { sim, writer, reported, failures, log: _log } = started();
    let removed = Path::new(GROUPS).join("9.removed-4");
    drop(log(&sim, 9));
    sim.disk().rename(&Path::new(GROUPS).join("9"), &removed).expect("renamed");
    writer.handle().remove_directory(removed.clone());
    writer.handle().remove_directory(Path::new(GROUPS).join("missing"));
    writer_synced(&writer, &reported, 1);
    let deadline = Instant::now() + 5 * QUIET;
    while sim.disk().list(&removed).expect("listed").is_some() {
        assert!(Instant::now() < deadline, "the directory was not deleted");
        std::thread::yield_now();
    }
    writer.stop();
    assert!(failures.is_empty());
}

/// Under load a file is deleted only every now and then, and each takes at most a part of the thread's time.
#[test]
fn deleting_files_takes_a_part_of_the_time() {
    let sim = Sim::default();
    let (report, _reported) = reports();
    let by_hand = WriterByHand::new(&sim.disk(), report);
    let (group, handle, mut work) = (GroupId(1), by_hand.handle(), IdleWork::default());
    handle.register(group, log(&sim, 1));
    handle.remove_directory(Path::new(GROUPS).join("missing"));
    for overdue in [false, true] {
        handle.sync(group, 1);
        let event = by_hand.worker.next_event(&mut work);
        assert_eq!((matches!(event, WriterEvent::Sync(_)), matches!(event, WriterEvent::Remove)), (!overdue, overdue));
        work.remove_not_before = Some(Instant::now());
    }
    by_hand.worker.act(WriterEvent::Remove, &mut work).expect("removed");
    assert!(work.removals.is_empty());
}

#[test]
fn a_stop_closes_every_log() {
    let Started { sim, writer, reported, failures, log } = started();
    writer.handle().sync(GroupId(1), 1);
    // No sync was requested for this log: the stop syncs it.
    append(&log);
    writer.stop();
    assert_eq!(reported.try_recv(), Ok((GroupId(1), 1)));
    sim.power_cut(&mut crate::storage::disk::sim::Rng(3));
    let options = LogOptions { segment_bytes: 1 << 20 };
    let (log, found) = GroupLog::open(&sim.disk(), Path::new(GROUPS), GroupId(1), &options).expect("opened");
    assert_eq!(found.last_index.0, 3);
    assert_eq!(log.urgency(), Urgency::Nothing, "the manifest says that all is synced");
    assert!(failures.is_empty());
}

/// Waits until the manifest's durable position is the end of the log.
fn wait_until_noted(log: &SharedLog) {
    let deadline = Instant::now() + 5 * QUIET;
    loop {
        let log = log.lock();
        if log.is_synced() && log.urgency() == Urgency::Nothing {
            return;
        }
        assert!(Instant::now() < deadline, "the manifest was not written");
        drop(log);
        std::thread::yield_now();
    }
}

/// A power cut; then the last sector that was written is unreadable. It contained acknowledged records.
fn lose_the_last_sector(sim: &Sim) -> StorageError {
    sim.power_cut(&mut crate::storage::disk::sim::Rng(5));
    let path = Path::new(GROUPS).join("1/00000000000000000001.seg");
    let bytes = sim.files()[&path].clone().expect("a segment");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("frames");
    let mut bytes = bytes;
    bytes[used / 512 * 512..].fill(0);
    sim.damage(&path, bytes);
    let options = LogOptions { segment_bytes: 1 << 20 };
    GroupLog::open(&sim.disk(), Path::new(GROUPS), GroupId(1), &options).err().expect("refused")
}

/// The durable position that protects the last records was stored only among them: a bad sector at the end of the
/// newest segment, hours after the last record, was taken for a torn tail, and acknowledged records were cut off.
#[test]
fn an_idle_log_loses_nothing_to_a_bad_sector() {
    let Started { sim, writer: _writer, reported, failures: _failures, log } = started();
    (0..20).for_each(|_| append(&log));
    writer_synced(&_writer, &reported, 1);
    wait_until_noted(&log);
    let error = lose_the_last_sector(&sim);
    assert!(error.is_damage(), "{error}");
    assert!(error.to_string().contains("lost: "), "{error}");
}

fn writer_synced(writer: &Writer, reported: &Receiver<(GroupId, u64)>, ready: u64) {
    writer.handle().sync(GroupId(1), ready);
    assert_eq!(reported.recv(), Ok((GroupId(1), ready)));
}

/// The commit index of the last entries is written after them, at a tick, and no request syncs it. When the log is
/// idle, the commit index is synced and the manifest is written once. After that nothing more is written.
#[test]
fn an_idle_log_is_noted_once_after_a_commit_without_a_sync_request() {
    let Started { sim, writer, reported, failures: _failures, log } = started();
    writer_synced(&writer, &reported, 1);
    let commit = HardState { term: Term(1), commit: LogIndex(2), ..HardState::default() };
    log.lock().append_hard_state(&commit).expect("appended");
    assert!(!log.lock().is_synced());
    wait_until_noted(&log);
    let stored = log.lock().stored_bytes();
    let changes = sim.changes();
    // Another log is registered, and its manifest is written a second later. By then all other due work is done.
    let same_thread = 1 + WRITER_THREADS as u64;
    let other = self::log(&sim, same_thread);
    let made = sim.changes();
    append(&other);
    let written = sim.changes();
    writer.handle().register(GroupId(same_thread), other.clone());
    wait_until_noted(&other);
    let changed = sim.changes() - written;
    assert!(changed < 10 && made > changes, "one sync, one manifest: {changed} changes");
    assert_eq!(log.lock().stored_bytes(), stored, "and nothing is written for it");
}

/// Under steady load the log is never idle: its manifest is written after some seconds nevertheless, and no report
/// waits for it.
#[test]
fn under_load_the_manifest_is_written_every_few_seconds() {
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let (one, two) = (GroupId(1), GroupId(2));
    let (mut manifests, fast) = (ManifestWrites::default(), Duration::from_millis(1));
    for second in 0..4 {
        manifests.synced(one, Urgency::Quiet, at(second), fast);
        manifests.synced(two, Urgency::Nothing, at(second), fast);
        assert_eq!(manifests.overdue(at(second)), None, "second {second}");
    }
    assert_eq!(manifests.next(), Some((one, at(4))), "quiet for a second");
    manifests.synced(one, Urgency::Vote, at(4), fast);
    assert_eq!(manifests.overdue(at(4)), Some(one), "a vote waits for a second at most");
    manifests.due.remove(&one);
    assert_eq!(manifests.overdue(at(5)), Some(two));
    manifests.not_before = Some(at(6));
    assert_eq!(manifests.overdue(at(5)), None, "manifests take only a part of the thread's time");
    assert_eq!(manifests.overdue(at(6)), Some(two));
    manifests.due.remove(&two);
    assert_eq!((manifests.overdue(at(9)), manifests.next()), (None, None));
    manifests.synced(two, Urgency::Now, at(9), fast);
    assert_eq!(manifests.overdue(at(9)), Some(two), "the manifest is overdue");
}

/// The manifest was written immediately after a vote, which took two more syncs. On a slow disk the next sync of the
/// election waited for them.
#[test]
fn after_a_vote_the_manifest_waits_in_proportion_to_the_disk() {
    let start = Instant::now();
    let at = |millis: u64| start + Duration::from_millis(millis);
    let group = GroupId(1);
    for (millis, idle, must) in [(1, 3, 1000), (100, 300, 1000), (2000, 6000, 12_000)] {
        let mut manifests = ManifestWrites::default();
        manifests.synced(group, Urgency::Vote, at(0), Duration::from_millis(millis));
        assert_eq!(manifests.next(), Some((group, at(idle))));
        assert_eq!(manifests.overdue(at(must - 1)), None, "the waiting sync goes first");
        assert_eq!(manifests.overdue(at(must)), Some(group));
    }
}

/// A manifest was overdue while another log was busy, and no space was left for it. It was no longer due afterwards,
/// so it was never written, even after space became free.
#[test]
fn an_overdue_manifest_without_space_stays_due() {
    let sim = Sim::default();
    let (report, _reported) = reports();
    let by_hand = WriterByHand::new(&sim.disk(), report);
    let (group, log) = (GroupId(1), log(&sim, 1));
    by_hand.handle().register(group, log.clone());
    let worker = &by_hand.worker;
    let mut work = IdleWork::default();
    append(&log);
    worker
        .act(WriterEvent::Sync(vec![Wanted { group, log: log.clone(), ready_number: 1 }]), &mut work)
        .expect("synced");
    for room in [false, true] {
        sim.no_descriptor(if room { 0 } else { u64::MAX });
        worker.act(WriterEvent::ManifestOverdue(group), &mut work).expect("no failure");
        assert_eq!((work.manifests.due.contains_key(&group), log.lock().urgency() == Urgency::Nothing), (!room, room));
    }
}
