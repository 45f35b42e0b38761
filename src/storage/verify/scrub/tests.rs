//! Damage under a running log is found, logged once, and does not stop the log.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;

use super::*;
use crate::storage::error::NewerFrame;
use crate::storage::format::state::{CatalogState, Genesis};
use crate::storage::io::group_files::retired_dir;
use crate::storage::read::error::ReadError;
use crate::storage::write::log::GroupLog;
use crate::storage::write::log::tests::batch;
use crate::storage::write::options::LogOptions;
use crate::thread::fatal_channel;
use crate::types::{LogIndex, NodeId, ReplicaId, Term};

const GROUP: GroupId = GroupId(3);
const OPTIONS: ScrubOptions = ScrubOptions { bytes_per_second: u64::MAX, interval: Duration::from_secs(1) };

struct Home {
    dir: tempfile::TempDir,
    disk: Disk,
    log: GroupLog,
}

impl Home {
    fn new() -> Home {
        let (dir, disk) = (tempfile::tempdir().expect("a directory"), Disk::real());
        let options = LogOptions { segment_bytes: 64 << 10 };
        GroupLog::create(&disk, dir.path(), GROUP, &options, Genesis::founder(ReplicaId(5))).expect("made");
        let (log, _) = GroupLog::open(&disk, dir.path(), GROUP, &options).expect("opened");
        let mut home = Home { dir, disk, log };
        while home.segments().len() < 3 {
            home.append();
        }
        home.append();
        home.sync();
        home
    }

    fn append(&mut self) {
        self.log.append(&[batch(&self.log, 1, &[&[7; 5500], &[8; 5500]])]).expect("appended");
    }

    fn sync(&mut self) {
        let job = self.log.begin_sync().expect("something to sync");
        job.perform(&self.disk).expect("synced");
        self.log.end_sync(job);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(GROUP.to_string()).join(name)
    }

    fn segments(&self) -> Vec<String> {
        let mut names = self.disk.list(&self.path("")).expect("listed").expect("a directory");
        names.retain(|name| name.ends_with(".seg"));
        names.sort();
        names
    }

    fn flip(&self, name: &str, at: u64) {
        use std::os::unix::fs::FileExt;
        let file = fs::OpenOptions::new().read(true).write(true).open(self.path(name)).expect("a file");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("a byte");
        file.write_all_at(&[byte[0] ^ 1], at).expect("written");
        file.sync_all().expect("synced");
    }

    fn scrubber(&self) -> (Scrubber, Sender<ScrubMsg>) {
        let handle = ScrubHandle::default();
        handle.add(GROUP, self.log.reader());
        let (sender, inbox) = bounded(1);
        let node_file = self.dir.path().join(NODE_FILE);
        (Scrubber { handle, disk: self.disk.clone(), node_file, options: OPTIONS, inbox }, sender)
    }
}

fn pass(scrubber: &Scrubber) -> Vec<DamagedRange> {
    assert!(scrubber.pass().is_ok(), "not stopped");
    scrubber.handle.damaged(GROUP)
}

/// Replaces a frame with another valid one, as a misdirected write would.
fn forge(home: &Home, name: &str, at: u64) {
    use crate::storage::format::frame;
    let mut bytes = fs::read(home.path(name)).expect("a segment");
    let (start, salt) = (at as usize, SegmentHeader::decode(&bytes).expect("a header").salt);
    let head: &[u8; 80] = bytes[start..].first_chunk().expect("a frame");
    let end = start + frame::peek_bytes(head, salt, at).expect("a frame");
    let found = frame::decode(&bytes[start..end], salt, at).expect("a frame");
    let mut forged = Vec::new();
    frame::encode(&mut forged, salt, at, &frame::Header { producer_id: 9, ..found.header }, found.payload);
    bytes[start..end].copy_from_slice(&forged);
    fs::write(home.path(name), bytes).expect("written");
}

/// Once, if a segment was sealed before all of it was synced, the scrub read it up to the durable position, and
/// compared the digest there with that of the whole segment. So valid segments were listed as damaged, a few times a
/// minute under load.
#[test]
fn a_sealed_segment_that_is_not_synced_to_its_end_is_valid() {
    let mut home = Home::new();
    let sealed = home.segments().len();
    home.append();
    home.sync();
    while home.segments().len() == sealed {
        home.append();
    }
    let (scrubber, _stop) = home.scrubber();
    let found = pass(&scrubber);
    assert!(found.is_empty(), "{found:?}");
    home.sync();
    let found = pass(&scrubber);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn finds_a_replaced_frame_by_the_digest() {
    let home = Home::new();
    let (scrubber, _inbox) = home.scrubber();
    let first = &home.segments()[0];
    forge(&home, first, SEGMENT_HEADER_BYTES);
    let found = pass(&scrubber);
    assert!(found.len() == 1 && found[0].file == *first && found[0].what.contains("digest"), "{found:?}");
    assert_eq!(found[0].first_offset, Offset(0), "which of the records it is nobody can tell");
}

#[test]
fn damage_is_found_and_the_log_continues() {
    let mut home = Home::new();
    let (scrubber, _inbox) = home.scrubber();
    assert_eq!(pass(&scrubber), []);
    assert_eq!(scrubber.handle.counts().bytes, home.log.stored_bytes(), "all of it was read");
    let names = home.segments();
    // The second entry of the first segment, the first of the third (which is the active one).
    let second = SEGMENT_HEADER_BYTES + frame_bytes(&home);
    home.flip(&names[0], second + 200);
    home.flip(&names[2], SEGMENT_HEADER_BYTES + 20);
    let found = pass(&scrubber);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((&found[0].file, found[0].position, found[0].bytes), (&names[0], second, frame_bytes(&home)));
    assert_eq!((found[0].first_offset, found[0].next_offset), (Offset(2), Some(Offset(4))));
    assert_eq!((&found[1].file, found[1].position), (&names[2], SEGMENT_HEADER_BYTES));
    assert_eq!(pass(&scrubber), found, "found again");
    let counts = scrubber.handle.counts();
    assert_eq!((counts.passes, counts.damaged_ranges), (3, 2), "and counted once");

    let end = home.log.bounds().next_offset;
    let read = |from: u64| home.log.reader().records(Offset(from), end, 1, usize::MAX, Access::Blocking);
    assert_eq!(read(1).expect("whole").count, 1);
    assert!(matches!(read(2), Err(ReadError::Damaged(_))));
    assert_eq!(read(4).expect("whole").count, 1);
    home.append();
    home.sync();
    home.flip(&names[0], second + 200);
    home.flip(&names[2], SEGMENT_HEADER_BYTES + 20);
    assert_eq!(pass(&scrubber), [], "put right");
}

/// Once, the scrub got no descriptor, and reported for a week that a whole segment was damaged.
#[test]
fn without_a_descriptor_it_waits_and_reports_no_damage() {
    let sim = crate::storage::io::disk::sim::Sim::default();
    let (disk, groups) = (sim.disk(), std::path::Path::new("/groups"));
    let options = LogOptions { segment_bytes: 4096 };
    GroupLog::create(&disk, groups, GROUP, &options, Genesis::founder(ReplicaId(5))).expect("made");
    let (mut log, _) = GroupLog::open(&disk, groups, GROUP, &options).expect("opened");
    for _ in 0..10 {
        log.append(&[batch(&log, 1, &[&[7; 1500]])]).expect("appended");
    }
    let job = log.begin_sync().expect("something to sync");
    job.perform(&disk).expect("synced");
    log.end_sync(job);
    let handle = ScrubHandle::default();
    handle.add(GROUP, log.reader());
    let (_sender, inbox) = bounded(1);
    let scrubber = Scrubber { handle, disk: sim.disk(), node_file: NODE_FILE.into(), options: OPTIONS, inbox };
    sim.no_descriptor(5);
    assert_eq!(pass(&scrubber), []);
    assert_eq!(scrubber.handle.counts().bytes, log.stored_bytes(), "all of it was read");
}

/// Bytes of each entry's frame.
fn frame_bytes(home: &Home) -> u64 {
    home.log.stored_bytes() / (home.log.bounds().last_index.0 - 1)
}

#[test]
fn ignores_what_is_not_synced() {
    let mut home = Home::new();
    let (scrubber, _inbox) = home.scrubber();
    let synced = home.log.stored_bytes();
    home.append();
    let name = home.segments()[2].clone();
    let at = home.log.reader().published().durable().at;
    home.flip(&name, at + 100);
    assert_eq!(pass(&scrubber), []);
    assert_eq!(scrubber.handle.counts().bytes, synced);
    home.sync();
    assert_eq!(pass(&scrubber)[0].position, at, "now it is");
}

/// Once, a pass between the creation of a segment and its sync read a part of the sealed segment, compared the digest
/// there with that of the whole one, and reported that all of it was damaged.
#[test]
fn a_sealed_segment_before_its_sync_is_not_damage() {
    let mut home = Home::new();
    let (scrubber, _inbox) = home.scrubber();
    home.append();
    home.log.roll().expect("rolled");
    assert_eq!(pass(&scrubber), []);
    home.sync();
    assert_eq!(pass(&scrubber), []);
}

#[test]
fn segments_deleted_during_a_pass_are_not_damage() {
    let mut home = Home::new();
    let (scrubber, _inbox) = home.scrubber();
    let (names, frame) = (home.segments(), frame_bytes(&home));
    home.flip(&names[0], SEGMENT_HEADER_BYTES + 200);
    assert_eq!(pass(&scrubber).len(), 1);
    let commit = home.log.bounds().last_index;
    let state = crate::storage::format::state::HardState { term: Term(1), vote: None, commit };
    home.log.append_hard_state(&state).expect("appended");
    let first_offset = home.log.bounds().next_offset;
    home.log.set_log_state(
        crate::storage::format::state::LogState { first_offset, last_append_time_us: 1, ..Default::default() },
        commit,
    );
    let old = home.log.reader().published().view();
    home.log.trim(first_offset, commit).expect("trimmed");
    home.sync();
    assert_eq!(home.segments().len(), 1);
    // This pass took its view earlier.
    let mut pace = Pace { begun: Instant::now(), bytes: 0, since_step: 0 };
    let found = scrubber
        .part(home.log.reader().published(), &old.parts[0], old.parts[0].end(), None, &mut pace)
        .ok()
        .expect("not stopped");
    assert_eq!((found[0].position, found[0].what.as_str()), (0, "the file is missing"));
    assert!(!home.log.reader().published().still_contains(&old.parts[0], 0));
    assert_eq!(pass(&scrubber), [], "and what was damaged in it is forgotten");

    // A truncated suffix: the position is not part of the log any more.
    home.append();
    home.append();
    let from = home.log.bounds().last_index;
    let old = home.log.reader().published().view();
    // In the entry before the truncated one.
    let kept = old.parts[0].end() - frame - frame / 2;
    home.log.truncate_suffix(LogIndex(from.0)).expect("cut");
    assert!(home.log.reader().published().still_contains(&old.parts[0], kept));
    assert!(!home.log.reader().published().still_contains(&old.parts[0], old.parts[0].end() - 8));
}

#[test]
fn the_thread_keeps_its_rate_and_stops_at_once() {
    let home = Home::new();
    let (fatal, failures) = fatal_channel();
    // All of it would take days.
    let options = ScrubOptions { bytes_per_second: 1, interval: Duration::from_millis(1) };
    let mut big = home.log;
    for _ in 0..60 {
        let entry = batch(&big, 1, &[&[7; 5500], &[8; 5500]]);
        big.append(&[entry]).expect("appended");
    }
    let job = big.begin_sync().expect("something to sync");
    job.perform(&home.disk).expect("synced");
    big.end_sync(job);
    let scrub = Scrub::start(&home.disk, home.dir.path(), options, &fatal).expect("a thread");
    scrub.handle().add(GROUP, big.reader());
    let until = Instant::now() + Duration::from_secs(20);
    while scrub.handle().counts().bytes < STEP_BYTES {
        assert!(Instant::now() < until, "it begins");
        std::thread::yield_now();
    }
    let counts = scrub.handle().counts();
    assert!(counts.bytes < STEP_BYTES + frame_bytes_max() && counts.bytes < big.stored_bytes(), "{counts:?}");
    let handle = scrub.handle();
    let begun = Instant::now();
    scrub.stop();
    assert!(begun.elapsed() < Duration::from_secs(10), "it waits on its inbox");
    assert_eq!(handle.counts(), counts, "and did nothing meanwhile");
    assert!(failures.try_recv().is_err());

    let off = Scrub::start(&home.disk, home.dir.path(), ScrubOptions { bytes_per_second: 0, ..options }, &fatal)
        .expect("none");
    assert!(off.thread.is_none());
}

fn frame_bytes_max() -> u64 {
    12_000
}

#[test]
fn reading_the_disk_leaves_the_page_cache_as_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Disk::real();
    let bytes: Vec<u8> = (0..1 << 20).map(|i| (i / 4096) as u8).collect();
    let cold = |name: &str| {
        let file = disk.create(&dir.path().join(name)).expect("a file");
        file.write_at(0, &bytes).expect("written");
        file.sync().expect("synced");
        file.drop_cache().expect("dropped");
        file
    };
    // A query makes the kernel read ahead, so each position is queried only once.
    let cached = |file: &crate::storage::io::disk::DiskFile, at| {
        file.append_cached_at(at, 1, &mut Vec::new()).expect("asked").is_some()
    };
    let other = cold("other");
    let (was, warm) = (cached(&other, 0), other.read_at(512 << 10, &mut [0; 4096]).map(|_| cached(&other, 512 << 10)));
    if was || !warm.expect("read") {
        println!("SKIPPED: this file system keeps its pages, or can't say what it has");
        return;
    }
    // A busy system may keep a page that it should drop, or drop one unasked, but not every time.
    let as_it_was = (0..10).any(|attempt| {
        let file = cold(&attempt.to_string());
        file.read_at(512 << 10, &mut [0; 4096]).expect("read");
        let mut buffer = vec![0; 64 << 10];
        for at in [0, 512 << 10] {
            file.read_disk_at(at, &mut buffer).expect("read");
            assert!(buffer == bytes[at as usize..at as usize + buffer.len()]);
        }
        let (not_there, there) = (cached(&file, 0), cached(&file, 512 << 10));
        !not_there && there
    });
    assert!(as_it_was, "what was not there is not there, and what was is");
}

/// A flipped byte in a segment's header or in the manifest makes the next start fail, but no read before it. Once, the
/// scrub checked neither, and the node did not start again.
#[test]
fn finds_what_would_stop_the_next_start() {
    let home = Home::new();
    let (scrubber, _inbox) = home.scrubber();
    let names = home.segments();
    for (name, at) in [(&names[0], 30), (&names[1], 40), (&names[2], 8), (&"manifest".to_owned(), 20)] {
        home.flip(name, at);
        let found = pass(&scrubber);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert_eq!((&found[0].file, found[0].next_offset), (name, Some(found[0].first_offset)), "no record is in it");
        home.flip(name, at);
        assert_eq!(pass(&scrubber), [], "{name}: put right");
    }
    for bytes in [&b""[..], &[0; 300][..]] {
        let whole = fs::read(home.path("manifest")).expect("a manifest");
        fs::write(home.path("manifest"), bytes).expect("written");
        assert_eq!(pass(&scrubber)[0].file, "manifest");
        fs::remove_file(home.path("manifest")).expect("removed");
        assert_eq!(pass(&scrubber)[0].what, "the file is missing");
        fs::write(home.path("manifest"), whole).expect("written");
    }
    assert_eq!(pass(&scrubber), []);
}

/// Once, the scrub did not check `node.toml` either.
#[test]
fn the_node_file_is_checked_with_the_catalog() {
    let sim = crate::storage::io::disk::sim::Sim::default();
    let data_dir = std::path::Path::new("/mnt/data");
    let data = crate::storage::io::node::DataDir::open(&sim.disk(), data_dir).expect("made");
    let options = LogOptions { segment_bytes: 4096 };
    let group = GroupId::CATALOG;
    GroupLog::create(&sim.disk(), &data.groups_dir(), group, &options, Genesis::founder(ReplicaId(5))).expect("made");
    let (log, _) = GroupLog::open(&sim.disk(), &data.groups_dir(), group, &options).expect("opened");
    let node = NodeFile::new(NodeId(5), crate::types::NodeName::new("a").expect("a name")).with_group(group);
    data.store(&node).expect("stored");
    let handle = ScrubHandle::default();
    handle.add(group, log.reader());
    let (_sender, inbox) = bounded(1);
    let node_file = data_dir.join(NODE_FILE);
    let scrubber = Scrubber { handle, disk: sim.disk(), node_file: node_file.clone(), options: OPTIONS, inbox };
    let found = || {
        assert!(scrubber.pass().is_ok(), "not stopped");
        scrubber.handle.damaged(group)
    };
    assert_eq!(found(), []);
    let whole = sim.files()[&node_file].clone().expect("a file");
    let mut bytes = whole.clone();
    bytes[30] ^= 1;
    sim.damage(&node_file, bytes);
    let range = &found()[0];
    assert!(range.file == "node.toml" && range.what.contains("checksum"), "{range:?}");
    sim.damage(&node_file, whole);
    let catalog = CatalogState { index: LogIndex(9), bytes: Bytes::from_static(b"catalog") };
    data.store_catalog(&catalog).expect("stored");
    assert_eq!(found(), []);
    let path = data.catalog_path();
    let sound = sim.files()[&path].clone().expect("a file");
    let mut bytes = sound.clone();
    bytes[30] ^= 1;
    sim.damage(&path, bytes);
    let range = &found()[0];
    assert!(range.file == "catalog" && range.what.contains("checksum"), "{range:?}");
    sim.damage(&path, sound);
    sim.unreadable(&node_file, 0..10);
    let range = &found()[0];
    assert!(range.what.contains("Input/output error"), "{range:?}");
}

/// The files of a replica that the node drops are renamed, and deleted, while a pass checks them.
#[test]
fn a_replica_that_is_given_up_during_a_pass_is_not_damaged() {
    let home = Home::new();
    let (scrubber, _inbox) = home.scrubber();
    let reader = home.log.reader();
    let check = || {
        let mut pace = Pace { begun: Instant::now(), bytes: 0, since_step: 0 };
        scrubber.group(GROUP, &reader, &mut pace).unwrap_or_else(|Stopped| panic!("stopped"))
    };
    let retired = retired_dir(home.dir.path(), GROUP, ReplicaId(5));
    GroupLog::retire(&home.disk, home.dir.path(), GROUP, &retired).expect("renamed");
    assert!(!check().is_empty(), "it is still checked");
    scrubber.handle.remove(GROUP);
    assert_eq!(check(), []);
    // Another replica of the group is not affected.
    let options = LogOptions { segment_bytes: 64 << 10 };
    GroupLog::create(&home.disk, home.dir.path(), GROUP, &options, Genesis::founder(ReplicaId(6))).expect("made");
    let (log, _) = GroupLog::open(&home.disk, home.dir.path(), GROUP, &options).expect("opened");
    scrubber.handle.add(GROUP, log.reader());
    assert_eq!(check(), []);
    assert_eq!(pass(&scrubber), []);
}

/// Once, a read that found damage reported it only to its client.
#[test]
fn damage_found_by_a_read_is_listed_and_logged_once() {
    let home = Home::new();
    let (scrubber, _inbox) = home.scrubber();
    let names = home.segments();
    home.flip(&names[0], SEGMENT_HEADER_BYTES + frame_bytes(&home) + 200);
    let end = home.log.bounds().next_offset;
    for _ in 0..3 {
        let read = home.log.reader().records(Offset(0), end, u32::MAX, usize::MAX, Access::Blocking);
        assert_eq!(read.expect("what is sound").next, Offset(2));
        let read = home.log.reader().records(Offset(2), end, u32::MAX, usize::MAX, Access::Blocking);
        let Err(ReadError::Damaged(range)) = read else { panic!("{read:?}") };
        assert_eq!((range.first_offset, range.next_offset), (Offset(2), Some(Offset(4))));
        assert_eq!(scrubber.handle.damaged(GROUP), [range], "before any pass");
        assert_eq!(scrubber.handle.counts().damaged_ranges, 1);
    }
    assert_eq!(pass(&scrubber).len(), 1, "the scrub finds the same");
    assert_eq!(scrubber.handle.counts().damaged_ranges, 1, "and does not tell it again");
    home.flip(&names[0], SEGMENT_HEADER_BYTES + frame_bytes(&home) + 200);
    assert_eq!(pass(&scrubber), [], "put right");
}

/// Once, a pass held one view of a group until its end. Trimmed segments stayed open meanwhile, and took space that
/// neither `du` nor `stored_bytes` showed.
#[test]
fn a_pass_does_not_keep_the_space_of_trimmed_segments() {
    let mut home = Home::new();
    let (scrubber, inbox) = home.scrubber();
    // One step, and then it waits to be stopped.
    let scrubber = Scrubber { options: ScrubOptions { bytes_per_second: 1, ..OPTIONS }, ..scrubber };
    let view = home.log.reader().view();
    let sealed = Arc::downgrade(&view.parts[1].segment);
    drop(view);
    while home.segments().len() < 8 {
        home.append();
    }
    home.sync();
    let counts = scrubber.handle.clone();
    let pass = std::thread::spawn(move || scrubber.pass().is_err());
    let deadline = Instant::now() + Duration::from_secs(20);
    while counts.counts().bytes == 0 {
        assert!(Instant::now() < deadline, "the pass does not begin");
        std::thread::yield_now();
    }
    let last = home.log.bounds();
    home.log.set_log_state(
        crate::storage::format::state::LogState { first_offset: last.next_offset, ..Default::default() },
        last.last_index,
    );
    let hard_state = crate::storage::format::state::HardState { term: Term(1), vote: None, commit: last.last_index };
    home.log.append_hard_state(&hard_state).expect("appended");
    home.log.trim(last.next_offset, last.last_index).expect("trimmed");
    home.sync();
    assert!(!pass.is_finished(), "it waits in the first segment");
    assert!(sealed.upgrade().is_none(), "the second segment is closed");
    inbox.send(ScrubMsg::Stop).expect("it runs");
    assert!(pass.join().expect("no panic"), "stopped");
}

/// Checks one log once; returns the damage and the frames of newer versions that were logged.
pub(in super::super) fn scrub_once(disk: &Disk, log: &GroupLog) -> (Vec<DamagedRange>, Vec<NewerFrame>) {
    let handle = ScrubHandle::default();
    handle.add(GROUP, log.reader());
    let (_sender, inbox) = bounded(1);
    let scrubber = Scrubber { handle, disk: disk.clone(), node_file: PathBuf::new(), options: OPTIONS, inbox };
    assert!(scrubber.pass().is_ok() && scrubber.pass().is_ok(), "not stopped");
    (scrubber.handle.damaged(GROUP), log.reader().published().damages().newer())
}
