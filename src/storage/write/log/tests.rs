//! One log on a real disk: reads return what was appended, before and after a reopen.

use super::*;
use crate::storage::format::entry::{EntryKind, Stamp};
use crate::storage::format::frame::encode;
use crate::storage::format::payload::{RecordFields, encode_record, records, stamp_records};
use crate::storage::format::state::{Genesis, Recovered};
use crate::storage::io::disk::Access;
use crate::storage::read::error::ReadError;
use crate::storage::write::options::LogOptions;
use crate::storage::write::sync::{NOTE_BYTES, Urgency};
use crate::types::ReplicaId;
use std::path::Path;

pub(crate) const GROUP: GroupId = GroupId(3);

pub(crate) struct Home {
    pub dir: tempfile::TempDir,
    pub disk: Disk,
}

impl Home {
    pub fn new(genesis: Genesis) -> Home {
        let home = Home { dir: tempfile::tempdir().expect("a directory"), disk: Disk::real() };
        home.create(genesis).expect("made");
        home
    }

    pub fn create(&self, genesis: Genesis) -> Result<(), StorageError> {
        GroupLog::create(&self.disk, self.dir.path(), GROUP, &options(), genesis)
    }

    pub fn try_open(&self) -> Result<(GroupLog, Recovered), StorageError> {
        GroupLog::open(&self.disk, self.dir.path(), GROUP, &options())
    }

    pub fn open(&self) -> (GroupLog, Recovered) {
        self.try_open().expect("opened")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(GROUP.to_string()).join(name)
    }

    pub fn segments(&self) -> Vec<String> {
        let names = self.disk.list(&self.path("")).expect("listed").expect("a directory");
        let mut names: Vec<String> = names.into_iter().filter(|n| n.ends_with(".seg")).collect();
        names.sort();
        names
    }
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 4096 }
}

pub(crate) fn batch(log: &GroupLog, term: u64, values: &[&[u8]]) -> Entry {
    let bounds = log.bounds();
    let (base, time) = (bounds.next_offset, 1000 + bounds.last_index.0);
    let mut payload = Vec::new();
    for value in values {
        encode_record(&mut payload, &RecordFields { value, ..RecordFields::default() });
    }
    stamp_records(&mut payload, base, Term(term), time).expect("canonical");
    let (kind, count) =
        if values.is_empty() { (EntryKind::Noop, 0) } else { (EntryKind::Records, values.len() as u32) };
    let stamp = Stamp { kind, count, base_offset: base, append_time_us: time, producer_id: 0, sequence: 0 };
    Entry::new(bounds.last_index.next(), Term(term), stamp, &payload)
}

pub(crate) fn append(log: &mut GroupLog, term: u64, values: &[&[u8]]) {
    let entry = batch(log, term, values);
    log.append(&[entry]).expect("appended");
}

pub(crate) fn sync(log: &mut GroupLog, home: &Home) {
    let job = log.begin_sync().expect("something to sync");
    job.perform(&home.disk).expect("synced");
    log.end_sync(job);
    assert!(log.begin_sync().is_none(), "all is synced");
}

fn commit(log: &mut GroupLog, term: u64) {
    let commit = log.bounds().last_index;
    log.append_hard_state(&HardState { term: Term(term), vote: Some(ReplicaId(9)), commit }).expect("appended");
}

pub(crate) fn values(log: &GroupLog, from: u64, until: u64) -> Vec<Vec<u8>> {
    let slice = log.reader().records(Offset(from), Offset(until), u32::MAX, usize::MAX, Access::Blocking);
    let slice = slice.expect("records");
    records(&slice.bytes)
        .map(|r| crate::storage::format::payload::record_value(r.expect("a record")).expect("one").to_vec())
        .collect()
}

#[test]
fn a_founder_begins_after_a_base_that_is_not_stored() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let (_, found) = home.open();
    assert_eq!(found.base, Base { index: LogIndex(1), term: Term(1), offset: Offset(0), ..Base::default() });
    assert_eq!(found.hard_state, HardState { term: Term(1), vote: None, commit: LogIndex(1) });
    assert_eq!((found.last_index, found.last_term, found.applied), (LogIndex(1), Term(1), LogIndex(1)));
    assert_eq!((found.conf_state.voters, found.conf_index), (vec![ReplicaId(5)], LogIndex(1)));
    assert_eq!(found.terms, [(LogIndex(1), Term(1))]);
    home.create(Genesis::founder(ReplicaId(5))).expect("blank: used again");
    home.create(Genesis::Blank).expect("nothing in it: replaced");
    assert_eq!(home.open().1.base, Base::default());
    home.create(Genesis::founder(ReplicaId(6))).expect("nothing in it: replaced");
    let (mut log, found) = home.open();
    assert_eq!(found.conf_state.voters, [ReplicaId(6)]);
    append(&mut log, 1, &[b"a"]);
    for genesis in [Genesis::founder(ReplicaId(6)), Genesis::Blank] {
        assert!(matches!(home.create(genesis), Err(StorageError::NotBlank { .. })), "not blank");
    }
    assert_eq!(home.open().1.last_index, LogIndex(2));
}

#[test]
fn a_partly_created_group_is_created_again() {
    let home = Home { dir: tempfile::tempdir().expect("a directory"), disk: Disk::real() };
    let half = home.dir.path().join(".new-3");
    home.disk.create_dir(&half).expect("a directory");
    home.disk.create(&half.join("00000000000000000001.seg")).expect("a file");
    home.create(Genesis::Blank).expect("made");
    let (_, found) = home.open();
    assert_eq!((found.base, found.last_index), (Base::default(), LogIndex(0)));
    assert!(found.conf_state.voters.is_empty());
}

#[test]
fn appended_entries_survive_a_reopen() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let (mut log, _) = home.open();
    append(&mut log, 1, &[]);
    for i in 0..100u8 {
        append(&mut log, 1 + u64::from(i) / 40, &[&[i; 100], &[i], b""]);
    }
    commit(&mut log, 3);
    let bounds = log.bounds();
    assert_eq!((bounds.last_index, bounds.next_offset), (LogIndex(102), Offset(300)));
    assert!(home.segments().len() > 3, "it has rolled");
    let before = log.reader().entries(LogIndex(2), LogIndex(103), u64::MAX, Access::Blocking).expect("entries");
    assert_eq!(before.len(), 101);
    let stored = log.stored_bytes();
    sync(&mut log, &home);
    drop(log);
    let (log, found) = home.open();
    assert_eq!(log.bounds(), bounds);
    assert_eq!(found.terms, [(LogIndex(1), Term(1)), (LogIndex(43), Term(2)), (LogIndex(83), Term(3))]);
    assert_eq!(found.hard_state, HardState { term: Term(3), vote: Some(ReplicaId(9)), commit: LogIndex(102) });
    assert_eq!((found.last_append_time_us, found.torn_bytes), (1101, 0));
    assert_eq!(log.reader().entries(LogIndex(2), LogIndex(103), u64::MAX, Access::Blocking), Ok(before));
    assert_eq!(log.stored_bytes(), stored);
    assert_eq!(values(&log, 297, 300), [vec![99; 100], vec![99], vec![]]);
}

#[test]
fn a_truncation_continues_in_a_new_segment() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let (mut log, _) = home.open();
    for _ in 0..30 {
        append(&mut log, 1, &[&[1; 300]]);
    }
    sync(&mut log, &home);
    let before = home.segments();
    log.truncate_suffix(LogIndex(32)).expect("nothing to cut");
    assert_eq!(home.segments(), before);
    // Entry 4 is in the first segment; the other segments are dead.
    log.truncate_suffix(LogIndex(5)).expect("cut");
    append(&mut log, 2, &[b"new"]);
    assert_eq!(log.bounds().next_offset, Offset(4));
    assert_eq!(values(&log, 2, 4), [&[1; 300][..], b"new"]);
    assert_eq!(home.segments().len(), before.len() + 1, "removed only when the new one is synced");
    // Without a sync, and with the new segment lost, the old segments would be needed: see the histories in `proof`.
    sync(&mut log, &home);
    assert_eq!(home.segments().len(), 2);
    // Twice at the same position, and down to the base.
    log.truncate_suffix(LogIndex(5)).expect("cut");
    log.truncate_suffix(LogIndex(2)).expect("cut");
    append(&mut log, 3, &[b"first"]);
    sync(&mut log, &home);
    drop(log);
    let (log, found) = home.open();
    assert_eq!(values(&log, 0, 1), [b"first"]);
    assert_eq!((found.last_index, found.terms.len()), (LogIndex(2), 2));
}

/// A follower has entries of term 3 that were never committed. The leader of term 4 replaces the first of them with its
/// own entry of term 2. If that entry were overwritten in place, as this test does by hand, the entries after it would
/// be valid again after a crash, although they never followed the new entry. The log continues in a new segment
/// instead, so they are never part of it again.
#[test]
fn entries_after_a_truncated_one_stay_dead() {
    let last_after_crash = |in_place: bool| {
        let home = Home::new(Genesis::founder(ReplicaId(5)));
        let (mut log, _) = home.open();
        append(&mut log, 2, &[b"kept"]);
        let new = batch(&log, 2, &[b"new"]);
        for _ in 0..3 {
            append(&mut log, 3, &[b"old"]);
        }
        sync(&mut log, &home);
        if in_place {
            let view = log.published.view();
            let (part, at, _) = locate(&log.published, &view, LogIndex(2), None).expect("located");
            let segment = &view.parts[part].segment;
            let header = Header::of_entry(&new, Position::default()).expect("an entry");
            let mut frame = Vec::new();
            encode(&mut frame, segment.header.salt, at, &header, &new.payload());
            let file = std::fs::OpenOptions::new().write(true).open(segment.path()).expect("opened");
            std::os::unix::fs::FileExt::write_all_at(&file, &frame, at).expect("written");
        } else {
            log.truncate_suffix(new.index).expect("cut");
            log.append(&[new]).expect("appended");
            sync(&mut log, &home);
        }
        drop(log);
        let (log, found) = home.open();
        assert_eq!(values(&log, 0, 2), [&b"kept"[..], b"new"]);
        found.last_index
    };
    assert_eq!(last_after_crash(false), LogIndex(3));
    assert_eq!(last_after_crash(true), LogIndex(5), "what the rule is for");
}

/// Once, on a 64 MiB file system with segments of 64 MiB, a trim freed nothing, because all records were in the newest
/// segment (RELIABILITY L14).
#[test]
fn a_trim_of_everything_ends_the_newest_segment() {
    let home = Home::new(Genesis::founder(ReplicaId(1)));
    let large = LogOptions { segment_bytes: 64 << 20 };
    let open = || GroupLog::open(&home.disk, home.dir.path(), GROUP, &large).expect("opened");
    let (mut log, _) = open();
    for _ in 0..3 {
        log.append(&[batch(&log, 1, &[&[7; 50_000]])]).expect("appended");
    }
    let bounds = log.bounds();
    let (end, last) = (bounds.next_offset, bounds.last_index);
    log.append_hard_state(&HardState { term: Term(1), vote: None, commit: last }).expect("appended");
    log.set_log_state(LogState { first_offset: end, last_append_time_us: 1003, ..LogState::default() }, last);
    let before = log.trim(Offset(end.0 - 1), last).expect("trimmed");
    assert_eq!(before.index, LogIndex(1), "one record is kept, and its segment with it");
    assert_eq!(log.trim(end, LogIndex(last.0 - 1)).expect("trimmed"), before, "the last entry is not applied");
    let base = log.trim(end, last).expect("trimmed");
    assert_eq!((base.index, base.offset), (last, end));
    sync(&mut log, &home);
    assert_eq!(home.segments(), ["00000000000000000002.seg"]);
    assert_eq!(log.stored_bytes(), 0);
    assert_eq!(log.trim(end, last).expect("trimmed"), base, "an empty segment is not ended again");
    log.append(&[batch(&log, 1, &[b"next"])]).expect("appended");
    sync(&mut log, &home);
    drop(log);
    let (log, recovered) = open();
    assert_eq!((recovered.base, recovered.next_offset), (base, Offset(end.0 + 1)));
    assert_eq!(log.bounds().last_index, last.next());
}

#[test]
fn a_trim_drops_whole_segments() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let (mut log, _) = home.open();
    for _ in 0..60 {
        append(&mut log, 1, &[&[1; 300]]);
    }
    commit(&mut log, 1);
    sync(&mut log, &home);
    let applied = log.bounds().last_index;
    assert_eq!(log.trim(Offset(50), applied).expect("trimmed").offset, Offset(0), "log state has not seen it");
    log.set_log_state(LogState { first_offset: Offset(50), last_append_time_us: 7, ..LogState::default() }, applied);
    let base = log.trim(Offset(50), applied).expect("trimmed");
    assert!((40..=50).contains(&base.offset.0), "{base:?}");
    let reader = log.reader();
    let first = ReadError::Trimmed { first_offset: base.offset };
    assert_eq!(reader.records(Offset(3), Offset(9), 1, 1, Access::Blocking), Err(first.clone()));
    assert_eq!(reader.entries(base.index, LogIndex(60), 1, Access::Blocking), Err(first));
    let segments = home.segments();
    sync(&mut log, &home);
    assert!(home.segments().len() < segments.len());
    drop(log);
    let (log, found) = home.open();
    assert_eq!((found.base, found.terms), (base, vec![(base.index, Term(1))]));
    assert_eq!(found.log_state, LogState { first_offset: Offset(50), last_append_time_us: 7, ..LogState::default() });
    assert_eq!(values(&log, 50, 60).len(), 10);
}

/// A restart applies the entries up to the stored commit index again, so the log must still contain them.
#[test]
fn a_trim_keeps_entries_whose_commit_is_not_written() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let (mut log, _) = home.open();
    for _ in 0..20 {
        append(&mut log, 1, &[&[1; 300]]);
    }
    commit(&mut log, 1);
    let committed = log.bounds().last_index;
    for _ in 0..40 {
        append(&mut log, 1, &[&[1; 300]]);
    }
    sync(&mut log, &home);
    let applied = log.bounds().last_index;
    log.set_log_state(LogState { first_offset: Offset(50), last_append_time_us: 7, ..LogState::default() }, applied);
    let base = log.trim(Offset(50), applied).expect("trimmed");
    assert!(base.index <= committed && base.offset > Offset(0), "{base:?}");
    commit(&mut log, 1);
    assert!(log.trim(Offset(50), applied).expect("trimmed").index > committed);
}

#[test]
fn the_number_of_a_removed_segment_is_not_used_again() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    drop(home.open());
    // The state after a power cut, if the file was not synced.
    std::fs::write(home.path("00000000000000000090.seg"), [0; 4096]).expect("written");
    drop(home.open());
    assert_eq!(home.segments(), ["00000000000000000001.seg"]);
    let (mut log, _) = home.open();
    for _ in 0..10 {
        append(&mut log, 1, &[&[1; 1000]]);
    }
    assert_eq!(home.segments()[1], "00000000000000000091.seg");
}

#[test]
fn a_snapshot_replaces_the_log() {
    let home = Home::new(Genesis::Blank);
    let (mut log, _) = home.open();
    let base = Base { index: LogIndex(100), term: Term(7), offset: Offset(1000), ..Base::default() };
    let snapshot = LogSnapshot {
        base,
        catalog: None,
        conf_state: ConfState { voters: vec![ReplicaId(1)], learners: vec![ReplicaId(2)] },
        conf_index: LogIndex(120),
        log_state: LogState { first_offset: Offset(1005), last_append_time_us: 9, ..LogState::default() },
        log_state_index: LogIndex(110),
    };
    let hard_state = HardState { term: Term(8), vote: None, commit: LogIndex(100) };
    let ahead = HardState { commit: LogIndex(101), ..hard_state };
    log.install_snapshot(&snapshot, &ahead).expect("installed");
    let time_before_us = |log: &GroupLog| log.published.view().parts[0].segment.header.time_before_us;
    assert_eq!(time_before_us(&log), 9, "no record before is newer, and none is here");
    append(&mut log, 8, &[b"a"]);
    sync(&mut log, &home);
    assert_eq!(home.segments(), ["00000000000000000002.seg"]);
    drop(log);
    let (log, found) = home.open();
    assert_eq!((found.base, found.hard_state), (base, hard_state));
    assert_eq!((found.conf_state, found.conf_index), (snapshot.conf_state, LogIndex(120)));
    assert_eq!((found.log_state, found.log_state_index), (snapshot.log_state, LogIndex(110)));
    assert_eq!(found.terms, [(LogIndex(100), Term(7)), (LogIndex(101), Term(8))]);
    assert_eq!(values(&log, 1000, 1001), [b"a"]);
}

fn note(log: &mut GroupLog, home: &Home) {
    let job = log.begin_note().expect("something to note");
    job.perform(&home.disk).expect("noted");
    log.end_sync(job);
}

/// Once, the durable position was only in the frames of the newest segment, and was lost with them.
#[test]
fn the_manifest_gets_the_durable_position_once() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let (mut log, _) = home.open();
    let durable = || Manifest::decode(&std::fs::read(home.path("manifest")).expect("a manifest"), Path::new("m"));
    assert!(log.begin_note().is_none(), "a new log is noted");
    append(&mut log, 1, &[b"a"]);
    assert!(log.begin_note().is_none(), "not synced yet");
    sync(&mut log, &home);
    assert_eq!(log.urgency(), Urgency::Quiet);
    assert!(log.published.unprotected_bytes() > 0);
    let synced = log.active.position();
    append(&mut log, 1, &[b"not synced"]);
    note(&mut log, &home);
    let told = durable().expect("a manifest");
    assert_eq!((told.durable, told.durable_end), (synced, (LogIndex(2), Offset(1))), "what is synced, and no more");
    assert_eq!((log.urgency(), log.published.unprotected_bytes()), (Urgency::Nothing, 0));
    assert!(log.begin_note().is_none(), "once");
    sync(&mut log, &home);
    log.close().expect("closed");
    assert!(log.begin_note().is_none(), "the clean mark says so");
    assert_eq!(durable().expect("a manifest").durable, log.active.position());
}

/// No request waits until the manifest contains the durable position. If no descriptor or space is left for the
/// manifest, it is written later.
#[test]
fn a_manifest_without_space_or_descriptor_is_written_later() {
    let sim = crate::storage::io::disk::sim::Sim::default();
    let dir = Path::new("/groups");
    GroupLog::create(&sim.disk(), dir, GROUP, &options(), Genesis::founder(ReplicaId(5))).expect("made");
    let (mut log, _) = GroupLog::open(&sim.disk(), dir, GROUP, &options()).expect("opened");
    append(&mut log, 1, &[b"a"]);
    let job = log.begin_sync().expect("something to sync");
    job.perform(&sim.disk()).expect("synced");
    log.end_sync(job);
    sim.no_descriptor(u64::MAX);
    let job = log.begin_note().expect("something to note");
    assert!(!job.perform_note(&sim.disk()).expect("no failure"));
    assert_eq!(log.urgency(), Urgency::Quiet, "it is due");
    sim.no_descriptor(0);
    let job = log.begin_note().expect("something to note");
    assert!(job.perform_note(&sim.disk()).expect("noted"));
    log.end_sync(job);
    assert_eq!(log.urgency(), Urgency::Nothing);
    // Any other error of the disk is final.
    append(&mut log, 1, &[b"b"]);
    let job = log.begin_sync().expect("something to sync");
    job.perform(&sim.disk()).expect("synced");
    log.end_sync(job);
    sim.die_after(Some(1));
    assert!(log.begin_note().expect("something to note").perform_note(&sim.disk()).is_err());
}

/// The order of urgency: many bytes above the manifest's durable position, then a term or a vote.
#[test]
fn a_vote_is_noted_before_records() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let large = LogOptions { segment_bytes: 64 << 20 };
    let (mut log, _) = GroupLog::open(&home.disk, home.dir.path(), GROUP, &large).expect("opened");
    let hard_state = |term, vote, commit| HardState { term: Term(term), vote, commit: LogIndex(commit) };
    append(&mut log, 1, &[b"a"]);
    log.append_hard_state(&hard_state(1, None, 2)).expect("appended");
    sync(&mut log, &home);
    assert_eq!(log.urgency(), Urgency::Quiet, "a commit index alone is no vote");
    log.append_hard_state(&hard_state(2, Some(ReplicaId(9)), 2)).expect("appended");
    assert_eq!(log.urgency(), Urgency::Quiet, "it is not synced yet");
    sync(&mut log, &home);
    assert_eq!(log.urgency(), Urgency::Vote);
    note(&mut log, &home);
    assert_eq!(log.urgency(), Urgency::Nothing);
    let value = vec![7; 1 << 20];
    while log.published.unprotected_bytes() < NOTE_BYTES {
        append(&mut log, 2, &[&value]);
        sync(&mut log, &home);
    }
    assert_eq!(log.urgency(), Urgency::Now);
    // A new segment writes the manifest as well.
    log.roll().expect("rolled");
    assert_eq!(log.urgency(), Urgency::Nothing, "the next drain does");
    sync(&mut log, &home);
    assert_eq!((log.urgency(), log.published.unprotected_bytes()), (Urgency::Nothing, 0));
}

#[test]
fn after_an_error_the_log_refuses_everything() {
    let sim = crate::storage::io::disk::sim::Sim::default();
    let dir = Path::new("/groups");
    GroupLog::create(&sim.disk(), dir, GROUP, &options(), Genesis::Blank).expect("made");
    let (mut log, _) = GroupLog::open(&sim.disk(), dir, GROUP, &options()).expect("opened");
    append(&mut log, 1, &[b"written, and not synced"]);
    let entry = batch(&log, 1, &[b"a"]);
    sim.die_after(Some(0));
    assert!(matches!(log.append(std::slice::from_ref(&entry)), Err(StorageError::Io { .. })));
    sim.die_after(None);
    assert!(matches!(log.append(&[entry]), Err(StorageError::Failed { .. })));
    let refused = log.begin_sync().expect("something to sync").perform(&sim.disk());
    assert!(matches!(refused, Err(StorageError::Failed { .. })));
    assert!(matches!(log.close(), Err(StorageError::Failed { .. })));
}

/// Once, a snapshot that could not be installed had already scheduled segments for deletion. They must be kept.
#[test]
fn a_sync_does_not_finish_a_failed_change() {
    let sim = crate::storage::io::disk::sim::Sim::default();
    let dir = Path::new("/groups");
    GroupLog::create(&sim.disk(), dir, GROUP, &options(), Genesis::founder(ReplicaId(5))).expect("made");
    let (mut log, _) = GroupLog::open(&sim.disk(), dir, GROUP, &options()).expect("opened");
    for _ in 0..20 {
        append(&mut log, 1, &[&[1; 1000]]);
    }
    let job = log.begin_sync().expect("something to sync");
    job.perform(&sim.disk()).expect("synced");
    log.end_sync(job);
    let end = log.bounds();
    let base = Base { index: LogIndex(100), term: Term(7), offset: Offset(1000), ..Base::default() };
    let snapshot = LogSnapshot { base, ..LogSnapshot::default() };
    sim.no_descriptor(u64::MAX);
    let hard_state = HardState { term: Term(8), vote: None, commit: LogIndex(100) };
    assert!(log.install_snapshot(&snapshot, &hard_state).expect_err("no new segment").is_shortage());
    sim.no_descriptor(0);
    let job = log.begin_sync().expect("it has begun");
    assert!(matches!(job.perform(&sim.disk()), Err(StorageError::Failed { .. })));
    assert!(matches!(log.close(), Err(StorageError::Failed { .. })));
    drop(log);
    let (log, _) = GroupLog::open(&sim.disk(), dir, GROUP, &options()).expect("opened");
    assert_eq!(log.bounds(), end);
}

#[test]
#[should_panic(expected = "does not continue")]
fn a_gap_is_not_written() {
    let home = Home::new(Genesis::Blank);
    let (mut log, _) = home.open();
    let entry = Entry { index: LogIndex(2), ..batch(&log, 1, &[b"a"]) };
    let _ = log.append(&[entry]);
}
