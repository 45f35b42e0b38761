use super::*;
use crate::storage::format::entry::EntryKind;
use crate::storage::format::frame::{Header, NoteKind, Position};
use crate::storage::format::index::{BYTES_BETWEEN, Key};
use crate::storage::format::state::Genesis;
use crate::storage::io::disk::sim::Sim;
use crate::storage::write::log::GroupLog;
use crate::storage::write::log::tests::{Home, append, sync};
use crate::storage::write::options::LogOptions;
use crate::types::{GroupId, LogIndex, Offset, ReplicaId};

fn of_entry(kind: EntryKind) -> Header {
    Header { kind: kind.into(), ..Header::of_note(NoteKind::Synced, Position::default()) }
}

fn filled() -> Index {
    let index = Index::new(64);
    for i in 0..100u64 {
        let note = of_entry(EntryKind::Records);
        let header = Header { index: LogIndex(10 + i), base_offset: Offset(i / 2), ..note };
        index.push(&header, SEGMENT_HEADER_BYTES + i * BYTES_BETWEEN / 2);
        index.push(&Header::of_note(NoteKind::Synced, Position::default()), u64::MAX / 2);
    }
    index
}

fn at(i: u64) -> u64 {
    SEGMENT_HEADER_BYTES + i * BYTES_BETWEEN / 2
}

#[test]
fn finds_the_last_frame_that_is_not_after_the_key() {
    let index = filled();
    assert_eq!(index.position(Key::Index(LogIndex(1))), SEGMENT_HEADER_BYTES);
    assert_eq!(index.position(Key::Index(LogIndex(10))), at(0));
    assert_eq!(index.position(Key::Index(LogIndex(13))), at(2));
    assert_eq!(index.position(Key::Index(LogIndex(14))), at(4));
    assert_eq!(index.position(Key::Offset(Offset(2))), at(4));
    assert_eq!(index.position(Key::Index(LogIndex(u64::MAX))), at(98));
    assert_eq!((index.before(at(98), 1), index.before(at(98), 3), index.before(at(0), 1)), (at(96), at(92), at(0)));
    let full = Index::new(1);
    full.push(&of_entry(EntryKind::Noop), 128);
    full.push(&of_entry(EntryKind::Noop), 1 << 20);
    assert_eq!(full.entries().len(), 1, "past its last entry it ends");
}

/// One flipped bit in the count of a mapped index made `consensus` panic. Now the count must match the file's size, or
/// the file is not used.
#[test]
fn refuses_an_incomplete_index() {
    let (dir, disk) = (tempfile::tempdir().expect("a directory"), Disk::real());
    let index = filled();
    store(&index, &disk, dir.path(), 1, 7, 1 << 30);
    let load = |number, salt| load(&disk, dir.path(), number, salt).expect("no shortage");
    assert_eq!(*load(1, 7).expect("whole").entries(), *index.entries());
    assert!(load(1, 8).is_none(), "of another segment");
    assert!(load(2, 7).is_none(), "missing");
    let good = std::fs::read(index_path(dir.path(), 1)).expect("a file");
    assert_eq!(good.len(), 40 + 32 * 50);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Index::decode(&bytes, 7), Err(BadIndex::Invalid), "bit {bit}");
    }
    for length in 0..good.len() {
        assert_eq!(Index::decode(&good[..length], 7), Err(BadIndex::Invalid), "cut to {length}");
    }
    for count in [0, 49, 51, 1 << 20, u64::MAX] {
        let mut bytes = good.clone();
        bytes[16..24].copy_from_slice(&count.to_le_bytes());
        Index::seal(&mut bytes);
        assert_eq!(Index::decode(&bytes, 7), Err(BadIndex::Invalid), "count {count}");
    }
    let mut newer = good.clone();
    newer[7] = b'3';
    Index::seal(&mut newer);
    assert_eq!(Index::decode(&newer, 7), Err(BadIndex::OtherFormat('3')));
    let file = std::fs::OpenOptions::new().write(true).open(index_path(dir.path(), 1)).expect("a file");
    file.set_len(1 << 40).expect("longer");
    assert!(load(1, 7).is_none(), "a terabyte is not read");
}

/// A bad sector under a mapped index killed the process, at every read of that segment and again after each restart.
#[test]
fn an_unreadable_index_is_rebuilt() {
    let sim = Sim::default();
    let (disk, groups, group) = (sim.disk(), Path::new("/groups"), GroupId(3));
    let options = LogOptions { segment_bytes: 8192 };
    GroupLog::create(&disk, groups, group, &options, Genesis::founder(ReplicaId(5))).expect("made");
    let (mut log, _) = GroupLog::open(&disk, groups, group, &options).expect("opened");
    for _ in 0..40 {
        append(&mut log, 1, &[&[7; 700]]);
    }
    let path = index_path(&groups.join("3"), 1);
    let whole = sim.files()[&path].clone().expect("written when the segment was sealed");
    disk.segment_cache().close_all();
    sim.unreadable(&path, 0..8);
    let read = |offset: u64| log.reader().records(Offset(offset), Offset(40), 1, 1, Access::Blocking);
    assert_eq!(read(5).expect("a record").count, 1);
    assert_eq!(sim.files()[&path].as_ref(), Some(&whole), "in the place of the bad one");
    disk.segment_cache().close_all();
    assert_eq!(read(5).expect("a record").count, 1);
    // An index file that is truncated or deleted while it is in use does not matter either.
    for bytes in [whole[..100].to_vec(), Vec::new(), vec![0xff; whole.len()]] {
        sim.damage(&path, bytes);
        assert_eq!(read(6).expect("a record").count, 1);
        disk.segment_cache().close_all();
        assert_eq!(read(6).expect("a record").count, 1);
    }
}

/// The index of the active segment is only in memory, so no file can damage it; it takes memory only for its entries.
#[test]
fn the_newest_index_is_only_in_memory() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let (mut log, _) = home.open();
    std::fs::write(home.path("00000000000000000001.idx"), b"of an older version").expect("written");
    drop(log);
    (log, _) = home.open();
    assert!(!home.path("00000000000000000001.idx").exists(), "what knows less than the segment is removed");
    append(&mut log, 1, &[&[7; 700]]);
    sync(&mut log, &home);
    assert!(!home.path("00000000000000000001.idx").exists());
    log.roll().expect("rolled");
    assert_eq!(std::fs::metadata(home.path("00000000000000000001.idx")).expect("sealed").len(), 40 + 32);
}

/// Once, the message for an index file that was too large told the operator to move the node's data directory away.
#[test]
fn a_too_large_index_is_rebuilt_without_other_advice() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = index_path(dir.path(), 1);
    std::fs::File::create(&path).expect("a file").set_len(INDEX_BYTES_MAX as u64 + 1).expect("longer");
    let disk = Disk::real();
    assert!(load(&disk, dir.path(), 1, 0).expect("no shortage").is_none());
    let text = rebuilding(&disk.read(&path, INDEX_BYTES_MAX).expect_err("too large"));
    assert!(text.starts_with("the index ") && text.ends_with(" can have been written: rebuilding it"), "{text}");
}
