//! Files and frames that a newer version wrote are refused by name. They are never damage, and never cut off as a torn tail.

use std::fs;

use super::dump::dump;
use super::scrub::tests::scrub_once;
use super::tests::{Home, SEGMENTS, all_files};
use super::*;
use crate::storage::format::frame::set_kind;
use crate::storage::format::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::storage::format::segment_header::SegmentHeader;
use crate::storage::io::disk::Access;
use crate::storage::io::node::NODE_FILE_BYTES_MAX;
use crate::storage::read::error::ReadError;
use crate::storage::write::log::GroupLog;
use crate::types::{LogIndex, Offset};

const KIND: &str = "a frame of kind 9, which this version does not know; start a newer version";

/// Sets the kind of a frame to one of a newer version; returns the file and the position.
fn forge(home: &Home, segment: usize, frame: usize) -> (String, u64) {
    let name = home.segments()[segment].clone();
    let at = home.frames(&name)[frame];
    home.change(&name, |bytes| set_kind(bytes, at, 9));
    (name, at)
}

/// A start refuses the directory and changes nothing; `log verify` reports no damage.
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

/// Such a frame was cut off if the log was not known to be synced up to it, and damage otherwise.
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
        set_kind(bytes, at, 9);
        bytes[torn as usize + 100] ^= 1;
    });
    let before = all_files(home.dir.path());
    let error = home.try_log().map(drop).expect_err("refused");
    assert!(error.is_config() && error.to_string().contains(KIND), "{error}");
    assert!(before == all_files(home.dir.path()), "nothing is changed");
}

/// A start does not read sealed segments that are synced.
#[test]
fn reads_refuse_a_newer_frame_and_serve_what_precedes_it() {
    let home = Home::new(true);
    let (name, _) = forge(&home, 1, 2);
    fs::remove_file(home.path(&name.replace(".seg", ".idx"))).expect("removed");
    let log = home.try_log().expect("the newest segment has no such frame");
    let (reader, until) = (log.reader(), log.bounds().next_offset);
    let first_segment = reader.view().parts[1].base();
    let (from, lost) = (first_segment.offset, Offset(first_segment.offset.0 + 4));
    let newer = |error: &ReadError| matches!(error, ReadError::NewerFrame(_)) && error.to_string().ends_with(KIND);
    for access in [Access::Blocking, Access::Cached] {
        let records = |from| reader.records(from, until, u32::MAX, usize::MAX, access);
        assert_eq!(records(from).expect("what precedes it").next, lost);
        assert!(newer(&records(lost).expect_err("refused")));
        let block = |from| reader.block(from, until, usize::MAX, access, None);
        assert_eq!(block(from).expect("what precedes it").0.next, lost);
        assert!(newer(&block(lost).expect_err("refused")));
        let index = |after: u64| LogIndex(first_segment.index.0 + after);
        let entries = |low| reader.entries(low, index(5), u64::MAX, access);
        assert_eq!(entries(index(1)).expect("what precedes it").len(), 2);
        assert!(newer(&entries(index(3)).expect_err("refused")));
        assert!(newer(&reader.append_time_us(lost, until, access).expect_err("refused")));
        let time_us = 1000 + index(3).0;
        assert!(newer(&reader.first_not_before(time_us, from, until, access).expect_err("refused")));
    }
    assert!(reader.end_at(LogIndex(first_segment.index.0 + 4), None).expect_err("refused").is_config());
    // Its index was rebuilt, with the frames after the newer one.
    let last = Offset(reader.view().parts[2].base().offset.0 - 1);
    assert_eq!(reader.records(last, until, 1, 0, Access::Blocking).expect("the last record").count, 1);
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
        let error = dump::<StorageError>(&home.disk, home.dir.path(), GroupId(3), |_| Ok(())).expect_err("refused");
        assert!(error.is_config() && error.to_string().contains(&name), "{error}");
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
        bytes[at] = 2;
        Manifest::seal(bytes);
    });
    refused(&home, "manifest", &format!("a log state of format 2, {newer}"));
}

/// A newer version may write shorter and longer files than this one reads. A header that was too short was taken for torn, and its
/// segment deleted; a file that was too long, and a `node.toml` that is not text, for damaged.
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
        fs::write(home.dir.path().join("node.toml"), [b"format = 2\n", more].concat()).expect("written");
        let data = DataDir::open(&home.disk, home.dir.path()).expect("locked");
        let error = data.load().expect_err("newer");
        assert!(error.is_config() && error.to_string().contains(&format!("format 2, {newer}")), "{error}");
        drop(data);
        assert_eq!(home.look().worst(), Some(Severity::Format));
        fs::write(home.dir.path().join("node.toml"), [b"format = 1\n", more].concat()).expect("written");
        let data = DataDir::open(&home.disk, home.dir.path()).expect("locked");
        assert!(data.load().expect_err("damaged").is_damage());
    }
}

/// An index is derived from its segment, so another format only costs the time to rebuild it.
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
