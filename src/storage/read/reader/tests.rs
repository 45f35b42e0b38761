//! Reads: their limits, with wrong indexes, and of damaged bytes.

use super::*;
use crate::codes::UnknownCode;
use crate::storage::error::NewerFrame;
use crate::storage::format::entry::EntryKind;
use crate::storage::format::payload;
use crate::storage::format::state::Genesis;
use crate::storage::read::error::NewerRecords;
use crate::storage::write::log::GroupLog;
use crate::storage::write::log::tests::{Home, append, batch, sync};
use crate::types::ReplicaId;

fn filled() -> (Home, GroupLog) {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let (mut log, _) = home.open();
    for i in 0..100u8 {
        append(&mut log, 1, &[]);
        append(&mut log, 1, &[&[i; 10], &[i; 20], &[i; 30]]);
    }
    sync(&mut log, &home);
    (home, log)
}

fn read(reader: &GroupReader, from: u64, until: u64, records_max: u32, bytes_max: usize) -> (u32, u64, usize) {
    let slice = reader.records(Offset(from), Offset(until), records_max, bytes_max, Access::Blocking).expect("records");
    let lengths: Vec<usize> = payload::records(&slice.bytes).map(|r| r.expect("a record").len()).collect();
    assert_eq!((lengths.len(), lengths.iter().sum::<usize>()), (slice.count as usize, slice.bytes.len()));
    for (i, record) in payload::records(&slice.bytes).enumerate() {
        let offset = from + i as u64;
        let value = payload::record_value(record.expect("a record")).expect("a value");
        assert_eq!(value, vec![(offset / 3) as u8; 10 * (offset as usize % 3 + 1)], "record {offset}");
    }
    (slice.count, slice.next.0, slice.bytes.len())
}

#[test]
fn reads_keep_their_limits() {
    let (_home, log) = filled();
    let reader = log.reader();
    for from in [0, 1, 2, 3, 100, 298, 299] {
        assert_eq!(read(&reader, from, 300, u32::MAX, usize::MAX).1, 300);
        assert_eq!(read(&reader, from, 300, 1, usize::MAX).1, from + 1);
        assert_eq!(read(&reader, from, 300, u32::MAX, 0).1, from + 1, "one, however large");
        assert_eq!(read(&reader, from, from + 1, u32::MAX, usize::MAX).1, from + 1, "not beyond the watermark");
    }
    assert_eq!(read(&reader, 1, 300, 7, usize::MAX).1, 8);
    let (count, _, bytes) = read(&reader, 2, 300, u32::MAX, 1000);
    assert!(bytes <= 1000 && bytes > 900 && count > 10);
    let (_, _, all) = read(&reader, 0, 3, 3, usize::MAX);
    assert_eq!(read(&reader, 0, 300, u32::MAX, all).1, 3, "just as much");
    assert_eq!(read(&reader, 0, 300, u32::MAX, all - 1).1, 2);
    assert_eq!(read(&reader, 300, 300, u32::MAX, usize::MAX), (0, 300, 0), "nothing there yet");
    assert_eq!(read(&reader, 5, 300, 0, usize::MAX), (0, 5, 0), "none wanted");
    // Entry 2 is a no-op, entry 3 the first with records. The time of an entry is 1000 plus the previous index.
    assert_eq!(reader.append_time_us(Offset(1), Offset(300), Access::Blocking), Ok(Some(1002)));
    assert_eq!(reader.append_time_us(Offset(300), Offset(300), Access::Blocking), Ok(None));
}

#[test]
fn returns_entries_as_they_were_appended() {
    let (_home, log) = filled();
    let reader = log.reader();
    let entries = |low, high, bytes| reader.entries(LogIndex(low), LogIndex(high), bytes, Access::Blocking);
    let all = entries(2, 202, u64::MAX).expect("entries");
    assert_eq!(all.len(), 200);
    for (i, entry) in all.iter().enumerate() {
        assert_eq!(entry.index, LogIndex(2 + i as u64));
        let kind = if i % 2 == 0 { EntryKind::Noop } else { EntryKind::Records };
        assert_eq!(entry.stamp().expect("a stamp").kind, kind);
    }
    for low in 2..202 {
        let at = low as usize - 2;
        assert_eq!(entries(low, low + 1, u64::MAX).expect("entries"), all[at..=at]);
        assert_eq!(entries(low, 202, 0).expect("entries"), all[at..=at], "one, however large");
    }
    let three: u64 = all[..3].iter().map(|e| e.data.len() as u64).sum();
    assert_eq!(entries(2, 202, three).expect("entries").len(), 3);
    assert_eq!(entries(2, 202, three - 1).expect("entries").len(), 2);
    assert_eq!(entries(202, 300, 1), Ok(Vec::new()), "behind the end");
    assert_eq!(entries(9, 9, 1), Ok(Vec::new()));
    assert!(matches!(entries(1, 9, 1), Err(ReadError::Trimmed { .. })), "the base is nowhere");
}

#[test]
fn cached_reads_need_an_open_segment() {
    let (home, log) = filled();
    let cached = log.reader().records(Offset(0), Offset(300), 1, 1, Access::Cached);
    assert!(matches!(cached, Ok(_) | Err(ReadError::NotCached)), "{cached:?}");
    drop(log);
    let (log, _) = home.open();
    let reader = log.reader();
    assert_eq!(reader.records(Offset(0), Offset(300), 1, 1, Access::Cached), Err(ReadError::NotCached), "not open yet");
    assert_eq!(read(&reader, 0, 300, 1, 1).1, 1);
}

#[test]
fn an_index_is_never_trusted() {
    for damage in ["missing", "zeros", "noise", "leads too far", "leads to no frame"] {
        let (home, log) = filled();
        drop(log);
        let path = home.path("00000000000000000001.idx");
        let mut bytes = std::fs::read(&path).expect("an index");
        match damage {
            "missing" => bytes.clear(),
            "zeros" => bytes.fill(0),
            "noise" => bytes.iter_mut().enumerate().for_each(|(i, b)| *b = (i * 37) as u8),
            // One entry with index 1, offset 0, and the position of another frame or of none.
            _ => {
                let position: u64 = if damage == "leads behind" { 128 + 80 + 80 + 192 } else { 136 };
                let numbers = [1u64, 0, 0, position];
                bytes.truncate(40 + 32);
                bytes[16..24].copy_from_slice(&1u64.to_le_bytes());
                for (i, number) in numbers.iter().enumerate() {
                    bytes[40 + 8 * i..48 + 8 * i].copy_from_slice(&number.to_le_bytes());
                }
                crate::storage::format::index::Index::seal(&mut bytes);
            }
        }
        if bytes.is_empty() {
            std::fs::remove_file(&path).expect("removed");
        } else {
            std::fs::write(&path, bytes).expect("written");
        }
        let (log, _) = home.open();
        assert_eq!(read(&log.reader(), 0, 300, u32::MAX, usize::MAX).1, 300, "{damage}");
        assert_eq!(read(&log.reader(), 4, 300, u32::MAX, usize::MAX).1, 300, "{damage}");
        let entries = log.reader().entries(LogIndex(2), LogIndex(202), u64::MAX, Access::Blocking);
        assert_eq!(entries.expect("entries").len(), 200, "{damage}");
    }
}

#[test]
fn a_damaged_frame_is_named_and_not_skipped() {
    let (home, log) = filled();
    drop(log);
    // A sealed segment: start does not read it.
    let name = "00000000000000000001.seg";
    let mut bytes = std::fs::read(home.path(name)).expect("a segment");
    bytes[128 + 80 + 80 + 20] ^= 1;
    std::fs::write(home.path(name), bytes).expect("written");
    let (log, _) = home.open();
    let reader = log.reader();
    let error = reader.records(Offset(0), Offset(300), u32::MAX, usize::MAX, Access::Blocking).expect_err("damaged");
    let ReadError::Damaged(range) = error else { panic!("{error}") };
    assert_eq!((range.file.as_str(), range.position), (name, 208));
    assert_eq!((range.first_offset, range.next_offset), (Offset(0), Some(Offset(3))), "the three of that entry");
    let entries = |low, high| reader.entries(LogIndex(low), LogIndex(high), u64::MAX, Access::Blocking);
    assert_eq!(entries(2, 9).expect("the one before").len(), 1);
    assert!(matches!(entries(3, 9), Err(ReadError::Damaged(_))));
    assert_eq!(entries(4, 9).expect("those behind").len(), 5);
    assert_eq!(read(&reader, 3, 300, u32::MAX, usize::MAX).1, 300, "at once, and not from the next index point");
    // GetLog reads the time of the first record. Once, it failed if that record was damaged.
    assert_eq!(reader.append_time_us(Offset(0), Offset(300), Access::Blocking), Ok(Some(1004)));
    assert_eq!(read(&reader, 280, 300, u32::MAX, usize::MAX).1, 300, "the rest is served");
}

#[test]
fn a_reader_works_at_the_same_time_as_the_writer() {
    let (home, mut log) = filled();
    let reader = log.reader();
    let old = reader.clone();
    let thread = std::thread::spawn(move || {
        let mut reads = 0;
        while old.records(Offset(299), Offset(300), 1, 1, Access::Blocking).expect("it stays").count == 1
            && reads < 2000
        {
            reads += 1;
        }
    });
    for _ in 0..100 {
        append(&mut log, 2, &[&[7; 500]]);
        if log.bounds().last_index.0 % 7 == 0 {
            log.truncate_suffix(log.bounds().last_index).expect("cut");
        }
    }
    sync(&mut log, &home);
    thread.join().expect("read all the while");
    let entry = batch(&log, 2, &[b"last"]);
    log.append(std::slice::from_ref(&entry)).expect("appended");
    assert_eq!(reader.entries(entry.index, entry.index.next(), 1, Access::Blocking), Ok(vec![entry]));
    assert_eq!(reader.stored_bytes(), log.stored_bytes());
}

/// A read whose segment was trimmed is repeated with the newer view. Once, a second trim during the repetition was
/// reported as lost data. A read that finds a frame of a newer version is repeated too, because another segment may
/// have replaced this one.
#[test]
fn a_read_is_retried_as_often_as_the_log_has_changed() {
    let (_home, log) = filled();
    let reader = log.reader();
    let tries = std::cell::Cell::new(0);
    let gone = || ReadError::Io("no such file".to_owned());
    let kind = UnknownCode { what: "a frame of kind", code: 99 };
    let frame = NewerFrame { file: "1.seg".into(), position: 128, end: 208, kind };
    let newer = || {
        let (first_offset, next_offset) = (Offset(0), None);
        ReadError::NewerFrame(NewerRecords { frame: frame.clone(), first_offset, next_offset })
    };
    let read = reader.published().read(|view| {
        tries.set(tries.get() + 1);
        if tries.get() < 5 {
            reader.published().publish(View { base: view.base, parts: view.parts.clone() });
            return Err(if tries.get() % 2 == 0 { gone() } else { newer() });
        }
        Ok(tries.get())
    });
    assert_eq!(read, Ok(5));
    let read: Result<(), ReadError> = reader.published().read(|_| {
        tries.set(tries.get() + 1);
        Err(gone())
    });
    assert_eq!((read, tries.get()), (Err(gone()), 6), "the same log says the same");
}

/// While a replica is given up, reads of it may still be in progress. They found that files were missing, and reported
/// lost records.
#[test]
fn a_read_of_a_replica_that_is_given_up_finds_no_damage() {
    let (home, mut log) = filled();
    log.roll().expect("a new segment");
    log.close().expect("closed");
    drop(log);
    // In a new process a sealed segment is opened when it is read.
    let (log, _) = home.open();
    let reader = log.reader();
    std::fs::remove_file(reader.view().parts[0].segment.path()).expect("removed");
    let read = || reader.records(Offset(0), Offset(300), 10, usize::MAX, Access::Blocking);
    assert!(matches!(read(), Err(ReadError::Io(_) | ReadError::Damaged(_))));
    reader.published().damages().begin_pass();
    reader.published().damages().keep(&[]);
    reader.give_up();
    assert_eq!(read().map(|slice| slice.count), Err(ReadError::Gone));
    assert_eq!(reader.published().damages().list(), []);
}
