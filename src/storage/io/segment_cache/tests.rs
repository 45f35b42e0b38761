//! A long log takes no more descriptors than a short one, and a node without a free descriptor loses nothing.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::*;
use crate::storage::format::state::Genesis;
use crate::storage::io::disk::Access;
use crate::storage::io::disk::sim::Sim;
use crate::storage::read::error::ReadError;
use crate::storage::read::reader::GroupReader;
use crate::storage::write::log::GroupLog;
use crate::storage::write::log::tests::{Home, append, sync};
use crate::storage::write::options::LogOptions;
use crate::types::{GroupId, Offset, ReplicaId};

const GROUP: GroupId = GroupId(3);

/// The number of this process's descriptors for files below a directory.
fn descriptors(below: &Path) -> usize {
    let all = std::fs::read_dir("/proc/self/fd").expect("a list");
    let files = all.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    files.filter(|path| path.starts_with(below)).count()
}

/// Reads every record, one by one.
fn check(reader: &GroupReader, records: u64) {
    for offset in 0..records {
        let slice = reader.records(Offset(offset), Offset(records), 1, 1, Access::Blocking).expect("a record");
        assert_eq!((slice.count, slice.next), (1, Offset(offset + 1)));
    }
}

fn fill(log: &mut GroupLog, records: u64) {
    for i in 0..records {
        append(log, 1, &[&[i as u8; 1000]]);
    }
}

/// Once, each segment that a node had written since its start stayed open. When they had taken all descriptors, the
/// node could not create another segment, and ended.
#[test]
fn a_long_log_takes_few_descriptors() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let (mut log, _) = home.open();
    fill(&mut log, 100);
    let segments = home.segments();
    assert!(segments.len() > 30, "{}", segments.len());
    sync(&mut log, &home);
    // The newest segment takes one descriptor, in addition to the sealed segments that are still open.
    assert!(descriptors(home.dir.path()) <= SEALED_OPEN_MAX + 1, "written: {}", descriptors(home.dir.path()));
    let index = |name: &str| home.path(&name.replace(".seg", ".idx"));
    let inodes = |names: &[String]| -> Vec<u64> {
        names.iter().map(|name| std::fs::metadata(index(name)).expect("an index").ino()).collect()
    };
    // The index of the newest segment is only in memory.
    let sealed = &segments[..segments.len() - 1];
    let before = inodes(sealed);
    for _ in 0..2 {
        check(&log.reader(), 100);
        assert!(descriptors(home.dir.path()) <= SEALED_OPEN_MAX + 1, "read: {}", descriptors(home.dir.path()));
        assert_eq!(home.disk.segment_cache().count(), SEALED_OPEN_MAX);
    }
    assert_eq!(inodes(sealed), before, "an index that is opened again is not made again");
    // The segment that is written is never closed.
    let newest = log.reader().records(Offset(99), Offset(100), 1, 1, Access::Cached);
    assert!(matches!(newest, Ok(_) | Err(ReadError::NotCached)), "{newest:?}");
    fill(&mut log, 1);
    check(&log.reader(), 101);
}

#[test]
fn recently_read_segments_stay_open() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let (mut log, _) = home.open();
    fill(&mut log, 40);
    sync(&mut log, &home);
    let path = home.path("00000000000000000001.seg");
    let first = || {
        std::fs::read_dir("/proc/self/fd")
            .expect("a list")
            .flatten()
            .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|open| open == path))
    };
    for offset in 0..40 {
        let reader = log.reader();
        for offset in [offset, 0] {
            reader.records(Offset(offset), Offset(40), 1, 1, Access::Blocking).expect("a record");
        }
        assert!(first(), "it was read just now");
    }
    home.disk.segment_cache().close_all();
    assert!(!first() && descriptors(home.dir.path()) == 1);
    check(&log.reader(), 40);
}

fn on_sim(sim: &Sim) -> GroupLog {
    let (groups, options) = (Path::new("/groups"), LogOptions { segment_bytes: 4096 });
    let disk = sim.disk();
    GroupLog::create(&disk, groups, GROUP, &options, Genesis::founder(ReplicaId(5))).expect("made");
    GroupLog::open(&disk, groups, GROUP, &options).expect("opened").0
}

/// Once, a read without a descriptor was reported as lost data, and an index that could not be opened was deleted and
/// rebuilt.
#[test]
fn without_a_descriptor_a_read_fails_and_no_damage_is_noted() {
    let sim = Sim::default();
    let mut log = on_sim(&sim);
    fill(&mut log, 20);
    let job = log.begin_sync().expect("a job");
    job.perform(&log.disk).expect("synced");
    log.end_sync(job);
    drop(log);
    let options = LogOptions { segment_bytes: 4096 };
    let (log, _) = GroupLog::open(&sim.disk(), Path::new("/groups"), GROUP, &options).expect("opened");
    let (reader, before) = (log.reader(), sim.files());
    for shortages in 1..=4 {
        log.disk.segment_cache().close_all();
        sim.no_descriptor(u64::MAX);
        let read = reader.records(Offset(0), Offset(20), 1, 1, Access::Blocking);
        assert!(matches!(read, Err(ReadError::Shortage(_))), "{read:?}");
        let read = reader.block(Offset(0), Offset(20), 1, Access::Blocking, None);
        assert!(matches!(read, Err(ReadError::Shortage(_))), "{read:?}");
        let read = reader.first_not_before(1001, Offset(0), Offset(20), Access::Blocking);
        assert!(matches!(read, Err(ReadError::Shortage(_))), "{read:?}");
        // The file is opened, and its index is not.
        sim.no_descriptor(0);
        let part = &reader.view().parts[0];
        part.segment.file(Access::Blocking).expect("opened");
        sim.no_descriptor(shortages);
        let read = reader.records(Offset(0), Offset(20), 1, 1, Access::Blocking);
        assert!(matches!(read, Ok(_) | Err(ReadError::Shortage(_))), "{read:?}");
        sim.no_descriptor(0);
        assert_eq!(reader.records(Offset(0), Offset(20), 1, 1, Access::Blocking).expect("a record").count, 1);
    }
    check(&reader, 20);
    assert!(sim.files() == before, "no index was rebuilt");
}

/// Creating a segment closes segments that are only read.
#[test]
fn without_a_descriptor_a_log_still_continues_in_a_new_segment() {
    let sim = Sim::default();
    let mut log = on_sim(&sim);
    for i in 0..20u64 {
        sim.no_descriptor(u64::from(i > 4));
        fill(&mut log, 1);
        sim.no_descriptor(0);
    }
    check(&log.reader(), 20);
}
