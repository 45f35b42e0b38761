//! Files and frames of a newer version are refused with an error that names them. They are never treated as damage, and
//! never cut off as a torn tail.

use std::fs;

use super::dump::dump;
use super::scrub::tests::scrub_once;
use super::tests::{Home, SEGMENTS, all_files, told};
use super::*;
use crate::storage::format::entry::u64_at;
use crate::storage::format::frame::{Position, set_kind};
use crate::storage::format::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::storage::format::segment_header::{SegmentHeader, segment_number};
use crate::storage::io::disk::Access;
use crate::storage::io::node::NODE_FILE_BYTES_MAX;
use crate::storage::read::error::ReadError;
use crate::storage::write::log::GroupLog;
use crate::storage::write::log::tests::batch;
use crate::types::{LogIndex, Offset};

const KIND: &str = "a frame of kind 99, which this version does not know; start a newer version";

/// Changes the kind of a frame to one of a newer version; returns the file and the position.
fn forge(home: &Home, segment: usize, frame: usize) -> (String, u64) {
    let name = home.segments()[segment].clone();
    let at = home.frames(&name)[frame];
    home.change(&name, |bytes| set_kind(bytes, at, 99));
    (name, at)
}

/// The highest durable position within a segment that the frames of this segment contain.
fn durable_in(home: &Home, name: &str) -> u64 {
    let (bytes, frames) = (fs::read(home.path(name)).expect("a segment"), home.frames(name));
    let number = segment_number(name).expect("a number");
    let durable =
        |at: &u64| Position { file: u64_at(&bytes, *at as usize + 64), at: u64_at(&bytes, *at as usize + 72) };
    frames.iter().map(durable).filter(|durable| durable.file == number).map(|durable| durable.at).max().unwrap_or(0)
}

/// Checks that a start refuses the directory and changes nothing, and that `data verify` reports no damage.
fn refused(home: &Home, name: &str, what: &str) {
    let before = all_files(home.dir.path());
    let error = home.try_log().map(drop).expect_err("refused");
    assert!(error.is_config() && !error.is_damage(), "{error:?}");
    assert!(error.to_string().contains(name) && error.to_string().contains(what), "{error}");
    assert!(before == all_files(home.dir.path()), "nothing is changed");
    let report = home.look();
    assert_eq!(report.worst(), Some(Severity::Format), "{report:?}");
    let named = |finding: &Finding| finding.file.ends_with(name) && finding.what.contains(what);
    assert!(report.findings.iter().any(named), "{report:?}");
}

/// Once, such a frame was cut off if it was above the known durable position, and reported as damage otherwise.
#[test]
fn a_start_refuses_a_newer_frame_wherever_it_is() {
    for clean in [false, true] {
        let home = Home::new(clean);
        let last = home.segments().len() - 1;
        let frames = home.frames(&home.segments()[last]).len();
        for frame in 0..frames {
            let home = Home::new(clean);
            let (name, at) = forge(&home, last, frame);
            refused(&home, &name, KIND);
            assert!(home.try_log().map(drop).expect_err("refused").to_string().contains(&format!("at byte {at} ")));
        }
    }
}

#[test]
fn a_newer_frame_after_a_torn_one_is_not_cut_off() {
    let home = Home::new(false);
    let last = home.segments().len() - 1;
    let name = home.segments()[last].clone();
    let frames = home.frames(&name);
    assert!(frames.len() > 2, "{frames:?}");
    let (torn, at) = (frames[frames.len() - 2], frames[frames.len() - 1]);
    home.change(&name, |bytes| {
        set_kind(bytes, at, 99);
        bytes[torn as usize + 100] ^= 1;
    });
    let before = all_files(home.dir.path());
    let error = home.try_log().map(drop).expect_err("refused");
    assert!(error.is_config() && error.to_string().contains(KIND), "{error}");
    assert!(before == all_files(home.dir.path()), "nothing is changed");
}

/// A bad frame below the durable position is damage, whatever follows it. `data verify` agrees.
#[test]
fn damage_before_a_newer_frame_is_damage() {
    let home = Home::new(false);
    let last = home.segments().len() - 1;
    let (name, at) = forge(&home, last, 2);
    home.change(&name, |bytes| bytes[home.frames(&name)[0] as usize + 100] ^= 1);
    let before = all_files(home.dir.path());
    let error = home.try_log().map(drop).expect_err("refused");
    assert!(error.is_damage() && error.to_string().contains(&format!("{name} is damaged at byte 128")), "{error}");
    assert!(before == all_files(home.dir.path()), "nothing is changed");
    let report = home.look();
    assert_eq!(report.worst(), Some(Severity::Damage));
    assert!(told(&report, Severity::Format).iter().any(|found| found.1 == at), "{report:?}");
}

/// Once, with such a frame in the log, only the durable position of the manifest was used, which is older than those in
/// the frames. Damage between the two was treated as the end of the log: it was not reported, and nothing after it was
/// checked.
#[test]
fn a_newer_frame_does_not_hide_damage() {
    let home = Home::new(false);
    let mut log = home.try_log().expect("opened");
    for _ in 0..2 {
        log.append(&[batch(&log, 1, &[b"a"])]).expect("appended");
        let job = log.begin_sync().expect("something to sync");
        job.perform(&home.disk).expect("synced");
        log.end_sync(job);
    }
    log.append(&[batch(&log, 1, &[b"not synced"])]).expect("appended");
    drop(log);
    let name = home.segments().pop().expect("a segment");
    let (frames, durable) = (home.frames(&name), durable_in(&home, &name));
    let last = frames.len() - 1;
    assert!(home.manifest().durable.at < frames[3] && frames[last] == durable, "{frames:?}");
    let sound = fs::read(home.path(&name)).expect("a segment");
    for damaged in [1, 3, last - 1, last] {
        home.change(&name, |bytes| {
            bytes.clone_from(&sound);
            set_kind(bytes, frames[0], 99);
            bytes[frames[damaged] as usize + 90] ^= 1;
        });
        let report = home.look();
        let found = told(&report, Severity::Damage);
        match frames[damaged] < durable {
            true => assert!(found.len() == 1 && found[0].1 == frames[damaged], "{damaged}: {report:?}"),
            false => assert_eq!(found, [], "{damaged}"),
        }
        assert!(told(&report, Severity::Format).iter().any(|found| found.1 == frames[0]), "{report:?}");
    }
}

/// Once, the first entry after damage and such a frame was compared with the last entry before them, and the second one
/// was not compared.
#[test]
fn damage_next_to_a_newer_frame_is_named_without_it() {
    for order in [[1, 2, 3], [2, 1, 3], [3, 1, 2], [1, 3, 2]] {
        let home = Home::new(true);
        let name = home.segments()[1].clone();
        let frames = home.frames(&name);
        let [newer, damaged, other] = order.map(|i| frames[i]);
        home.change(&name, |bytes| {
            set_kind(bytes, newer, 99);
            bytes[damaged as usize + 100] ^= 1;
            bytes[other as usize + 100] ^= 1;
        });
        let report = home.look();
        let end = |at: u64| frames[frames.iter().position(|frame| *frame == at).expect("a frame") + 1];
        let covers =
            |f: &&Finding| f.severity == Severity::Damage && f.position < end(newer) && newer < f.end.unwrap_or(0);
        assert_eq!(report.findings.iter().find(covers), None, "{order:?}");
        for at in [damaged, other] {
            let is_named = |f: &Finding| f.severity == Severity::Damage && f.position <= at && f.end >= Some(end(at));
            assert!(report.findings.iter().any(is_named), "{order:?}: {report:?}");
        }
    }
}

/// A start does not read sealed segments that are synced. Once, a read failed from such a frame up to the next indexed
/// one.
#[test]
fn reads_refuse_a_newer_frame_and_serve_what_is_around_it() {
    let home = Home::new(true);
    let (name, at) = forge(&home, 1, 2);
    fs::remove_file(home.path(&name.replace(".seg", ".idx"))).expect("removed");
    let log = home.try_log().expect("the newest segment has no such frame");
    let (reader, until) = (log.reader(), log.bounds().next_offset);
    let first_segment = reader.view().parts[1].base();
    let from = first_segment.offset;
    let (lost, next) = (Offset(from.0 + 4), Offset(from.0 + 6));
    let newer = |error: ReadError| {
        let ReadError::NewerFrame(newer) = error else { panic!("{error}") };
        assert!(newer.to_string().ends_with(KIND) && newer.frame.position == at, "{newer}");
        (newer.first_offset, newer.next_offset)
    };
    for access in [Access::Blocking, Access::Cached] {
        let records = |from| reader.records(from, until, 2, usize::MAX, access);
        assert_eq!(reader.records(from, until, u32::MAX, usize::MAX, access).expect("what precedes it").next, lost);
        assert_eq!(newer(records(lost).expect_err("refused")), (lost, Some(next)));
        assert_eq!(newer(records(Offset(lost.0 + 1)).expect_err("refused")), (Offset(lost.0 + 1), Some(next)));
        assert_eq!(records(next).expect("what follows it").next, Offset(next.0 + 2));
        let block = |from| reader.block(from, until, usize::MAX, access, None);
        assert_eq!(block(from).expect("what precedes it").0.next, lost);
        assert_eq!(newer(block(lost).expect_err("refused")), (lost, Some(next)));
        assert!(block(next).expect("what follows it").0.next > next);
        let index = |after: u64| LogIndex(first_segment.index.0 + after);
        let entries = |low| reader.entries(low, index(5), u64::MAX, access);
        assert_eq!(entries(index(1)).expect("what precedes it").len(), 2);
        newer(entries(index(3)).expect_err("refused"));
        assert_eq!(entries(index(4)).expect("what follows it").len(), 1);
        let time_us = 1000 + index(3).0;
        assert_eq!(reader.append_time_us(lost, until, access), Ok(Some(time_us)), "of the next one");
        assert_eq!(reader.first_not_before(time_us - 1, from, until, access), Ok(Some(lost)));
    }
    assert!(reader.end_at(LogIndex(first_segment.index.0 + 4), None).expect_err("refused").is_config());
    let last = Offset(reader.view().parts[2].base().offset.0 - 1);
    assert_eq!(reader.records(last, until, 1, 0, Access::Blocking).expect("the last record").count, 1);
    assert_eq!((reader.published().damages().list(), reader.published().damages().newer().len()), (vec![], 1));
}

/// An entry of a newer version is in the index, because that version wrote the index too.
#[test]
fn a_read_that_the_index_leads_to_a_newer_frame_finds_what_is_around_it() {
    let home = Home::new(true);
    forge(&home, 1, 2);
    let log = home.try_log().expect("opened");
    let (reader, until) = (log.reader(), log.bounds().next_offset);
    let from = reader.view().parts[1].base().offset.0 + 4;
    let read = |offset| reader.records(Offset(offset), until, 1, 0, Access::Blocking);
    assert!(matches!(read(from + 1), Err(ReadError::NewerFrame(newer)) if newer.next_offset == Some(Offset(from + 2))));
    assert_eq!(read(from + 2).expect("what follows it").count, 1);
    assert!(!reader.view().parts[1].segment.has_wrong_index());
}

#[test]
fn checks_name_a_newer_frame_and_call_nothing_damaged() {
    for frame in [0, 2, 4] {
        let home = Home::new(true);
        let (name, at) = forge(&home, 1, frame);
        let report = home.look();
        assert_eq!(report.worst(), Some(Severity::Format), "{report:?}");
        let found: Vec<_> = report.findings.iter().filter(|finding| finding.severity == Severity::Format).collect();
        assert!(found.len() == 1 && found[0].position == at && found[0].what.starts_with(KIND), "{report:?}");
        let dumped = dump::<StorageError>(&home.disk, home.dir.path(), GroupId(3), false, |_| Ok(())).expect("a dump");
        assert!(dumped.findings.len() == 1 && dumped.findings[0].file.ends_with(&name), "{dumped:?}");
        let log = home.try_log().expect("opened");
        let (damaged, newer) = scrub_once(&home.disk, &log);
        assert_eq!(damaged, [], "frame {frame}");
        assert!(newer.len() == 1 && newer[0].position == at && newer[0].to_string().ends_with(KIND), "{newer:?}");
    }
}

#[test]
fn files_of_a_newer_format_are_refused_by_name() {
    let newer = "newer than what this version of seriatim reads";
    for segment in [0, 3] {
        let home = Home::new(true);
        let name = home.segments()[segment].clone();
        home.change(&name, |bytes| {
            bytes[8] = 3;
            SegmentHeader::seal(&mut bytes[..128]);
        });
        refused(&home, &name, &format!("format 3, {newer}"));
    }
    let home = Home::new(true);
    home.change("manifest", |bytes| {
        bytes[8] = 9;
        Manifest::seal(bytes);
    });
    refused(&home, "manifest", &format!("format 9, {newer}"));
    let home = Home::new(true);
    home.change("manifest", |bytes| {
        // The log state is the last 24 bytes.
        let at = bytes.len() - 24;
        bytes[at] = 4;
        Manifest::seal(bytes);
    });
    refused(&home, "manifest", &format!("a log state of format 4, {newer}"));
}

/// A newer version may write shorter and longer files than this one. Once, a segment with a short header was treated as
/// torn and deleted, and a file that was too long, or a `node.toml` that is not text, was reported as damaged.
#[test]
fn files_of_a_newer_format_are_refused_by_name_in_every_size() {
    let newer = "newer than what this version of seriatim reads";
    let manifest = |bytes: usize| {
        let mut file = fs::read(Home::new(true).path("manifest")).expect("a manifest");
        file[8] = 9;
        file.resize(bytes, 7);
        file
    };
    for bytes in [12, 16, 159, 160, 5000, MANIFEST_BYTES_MAX, MANIFEST_BYTES_MAX + 1] {
        let home = Home::new(true);
        home.change("manifest", |file| *file = manifest(bytes));
        refused(&home, "manifest", &format!("format 9, {newer}"));
        home.change("manifest", |file| file[8] = 2);
        let error = home.try_log().map(drop).expect_err("damaged");
        assert!(error.is_damage() && home.look().worst() == Some(Severity::Damage), "{bytes} bytes: {error}");
    }
    for bytes in [12, 16, 127, 128, 5000] {
        let home = Home::new(true);
        let name = home.segments()[SEGMENTS - 1].clone();
        home.change(&name, |file| {
            // The format, and a checksum that is elsewhere.
            file[8..16].copy_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0]);
            file.resize(bytes, 7);
        });
        refused(&home, &name, &format!("format 3, {newer}"));
    }
    for more in [&b"\xff\xfe"[..], b"", &vec![b'x'; NODE_FILE_BYTES_MAX]] {
        let home = Home::new(true);
        fs::write(home.dir.path().join("node.toml"), [b"format = 3\n", more].concat()).expect("written");
        let data = DataDir::open(&home.disk, home.dir.path()).expect("locked");
        let error = data.load().expect_err("newer");
        assert!(error.is_config() && error.to_string().contains(&format!("format 3, {newer}")), "{error}");
        drop(data);
        assert_eq!(home.look().worst(), Some(Severity::Format));
        fs::write(home.dir.path().join("node.toml"), [b"format = 1\n", more].concat()).expect("written");
        let data = DataDir::open(&home.disk, home.dir.path()).expect("locked");
        assert!(data.load().expect_err("damaged").is_damage());
    }
}

/// An index is derived from its segment, so an index with another format is only rebuilt.
#[test]
fn an_index_of_a_newer_format_is_named_and_rebuilt() {
    let home = Home::new(true);
    let name = home.segments()[0].replace(".seg", ".idx");
    home.change(&name, |bytes| {
        bytes[7] = b'3';
        crate::storage::format::index::Index::seal(bytes);
    });
    let report = home.look();
    assert_eq!(report.worst(), Some(Severity::Note), "{report:?}");
    assert!(report.findings[0].what.contains("has format 3"), "{report:?}");
    let log: GroupLog = home.try_log().expect("opened");
    let read = log.reader().records(Offset(1), Offset(2), 1, 0, Access::Blocking);
    assert_eq!(read.expect("a record").count, 1);
    assert!(home.look().worst().is_none());
}
