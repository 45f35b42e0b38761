//! Damage to synced bytes is refused, with file and position; a torn tail is cut off.

use std::fs;

use super::*;
use crate::storage::format::segment_header::SegmentHeader;
use crate::storage::format::state::Genesis;
use crate::storage::write::log::tests::{Home, append, sync};
use crate::types::{LogIndex, ReplicaId, Term};

const FIRST: &str = "00000000000000000001.seg";

/// Three entries of 280 bytes each, synced. With `noted`, the manifest contains the durable position, as after a clean
/// stop.
fn filled(noted: bool) -> Home {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let (mut log, _) = home.open();
    for _ in 0..3 {
        append(&mut log, 1, &[&[1; 160]]);
    }
    if noted {
        log.close().expect("closed");
    } else {
        sync(&mut log, &home);
    }
    assert_eq!(log.stored_bytes(), 3 * 280);
    home
}

/// The position of entry 2, 3 or 4.
fn position(index: u64) -> usize {
    128 + 280 * (index as usize - 2)
}

fn change(home: &Home, name: &str, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(home.path(name)).expect("a file");
    change(&mut bytes);
    fs::write(home.path(name), bytes).expect("written");
}

fn refused(home: &Home) -> String {
    let before: Vec<_> = home.segments().iter().map(|n| fs::read(home.path(n)).expect("a file")).collect();
    let error = home.try_open().err().expect("refused");
    let after: Vec<_> = home.segments().iter().map(|n| fs::read(home.path(n)).expect("a file")).collect();
    assert!(before == after, "nothing is changed");
    assert!(error.is_damage() && !error.is_config(), "{error}");
    error.to_string()
}

#[test]
fn a_torn_tail_is_cut_off() {
    for cut in ["in the header", "in the payload", "zeros", "a flipped bit", "short"] {
        let home = filled(false);
        let at = position(4);
        change(&home, FIRST, |bytes| match cut {
            "in the header" => bytes[at + 30..].fill(0),
            "in the payload" => bytes[at + 100..].fill(0),
            "zeros" => bytes[at..].fill(0),
            "a flipped bit" => bytes[at + 90] ^= 1,
            _ => bytes.truncate(at + 50),
        });
        let (mut log, found) = home.open();
        assert_eq!(found.last_index, LogIndex(3), "{cut}");
        assert_eq!(found.torn_bytes > 0, cut != "zeros", "{cut}");
        assert_eq!(home.segments().len(), if cut == "zeros" { 1 } else { 2 }, "{cut}: it rolls, but for zeros");
        append(&mut log, 2, &[b"new"]);
        sync(&mut log, &home);
        drop(log);
        let (_, found) = home.open();
        assert_eq!((found.last_index, found.last_term, found.torn_bytes), (LogIndex(4), Term(2), 0), "{cut}");
    }
}

#[test]
fn damage_below_the_durable_position_is_refused() {
    for entry in 2..=4 {
        let home = filled(true);
        let at = position(entry);
        change(&home, FIRST, |bytes| bytes[at + 90] ^= 1);
        let told = refused(&home);
        assert!(told.contains(FIRST) && told.contains(&format!("damaged at byte {at}:")), "{told}");
    }
    let home = filled(true);
    let at = position(4);
    change(&home, FIRST, |bytes| bytes.truncate(at));
    assert!(refused(&home).contains(&format!("byte {at}")));
}

#[test]
fn a_later_frame_contains_the_durable_position() {
    let home = filled(false);
    let (mut log, _) = home.open();
    // The frame of this entry contains a durable position after the three entries before it.
    append(&mut log, 1, &[b"4"]);
    for entry in 2..=4 {
        for bit in [3, 90] {
            let at = position(entry);
            change(&home, FIRST, |bytes| bytes[at + bit] ^= 1);
            assert!(refused(&home).contains(&format!("{FIRST} is damaged at byte {at}:")));
            change(&home, FIRST, |bytes| bytes[at + bit] ^= 1);
        }
    }
    drop(log);
    assert_eq!(home.open().1.last_index, LogIndex(5));
    // A newer segment contains one too.
    let home = filled(false);
    let (mut log, _) = home.open();
    log.truncate_suffix(LogIndex(4)).expect("cut");
    append(&mut log, 1, &[b"4"]);
    let at = position(3);
    change(&home, FIRST, |bytes| bytes[at + 90] ^= 1);
    assert!(refused(&home).contains(&format!("{FIRST} is damaged at byte {at}:")));
}

#[test]
fn missing_and_foreign_files_are_refused() {
    let home = filled(true);
    fs::remove_file(home.path(FIRST)).expect("removed");
    assert!(refused(&home).contains(FIRST));

    let home = filled(true);
    fs::remove_file(home.path("manifest")).expect("removed");
    assert!(refused(&home).contains("manifest is damaged at byte 0: the file is missing"));

    let home = filled(true);
    change(&home, "manifest", |bytes| bytes[30] ^= 1);
    assert!(refused(&home).contains("manifest is damaged at byte 12"));

    let home = filled(true);
    change(&home, FIRST, |bytes| bytes[30] ^= 1);
    assert!(refused(&home).contains(FIRST), "its header");

    let home = filled(true);
    fs::remove_dir_all(home.path("")).expect("removed");
    let error = home.try_open().err().expect("refused");
    assert!(error.is_damage() && error.to_string().contains("missing"), "{error}");
}

#[test]
fn a_missing_sealed_segment_is_refused() {
    let home = filled(false);
    let (mut log, _) = home.open();
    for _ in 0..40 {
        append(&mut log, 1, &[&[1; 160]]);
    }
    sync(&mut log, &home);
    drop(log);
    let names = home.segments();
    for name in &names {
        let bytes = fs::read(home.path(name)).expect("a file");
        fs::remove_file(home.path(name)).expect("removed");
        let told = refused(&home);
        assert!(told.contains(name) || told.contains(&names[names.len() - 1]), "{name}: {told}");
        fs::write(home.path(name), bytes).expect("written");
    }
    home.open();
}

#[test]
fn newer_formats_are_refused_by_name() {
    for name in [FIRST, "manifest"] {
        let home = filled(true);
        change(&home, name, |bytes| {
            bytes[8] += 1;
            if name == FIRST { SegmentHeader::seal(bytes) } else { Manifest::seal(bytes) }
        });
        let error = home.try_open().err().expect("newer");
        assert!(
            error.is_config() && error.to_string().contains(name) && error.to_string().contains(", newer than"),
            "{error}"
        );
    }
}

#[test]
fn a_commit_past_the_end_is_refused() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let (mut log, _) = home.open();
    append(&mut log, 1, &[&[1; 160]]);
    log.append_hard_state(&HardState { commit: LogIndex(2), ..HardState::default() }).expect("appended");
    // The new segment's header contains the commit, and its chain shows that the entry was truncated.
    log.hard_state.commit = LogIndex(1);
    log.truncate_suffix(LogIndex(2)).expect("cut");
    log.append_hard_state(&HardState { commit: LogIndex(1), ..HardState::default() }).expect("appended");
    let bytes = fs::read(home.path("00000000000000000002.seg")).expect("a segment");
    let mut header = SegmentHeader::decode(&bytes).expect("a header");
    header.hard_state.commit = LogIndex(2);
    change(&home, "00000000000000000002.seg", |bytes| {
        bytes[..128].copy_from_slice(&header.encode());
        bytes.truncate(128);
    });
    assert!(refused(&home).contains("entries up to 2 are committed, but the log ends with 1"));
}

#[test]
fn leftovers_are_removed_and_other_files_left_alone() {
    let home = filled(false);
    fs::write(home.path("00000000000000000009.seg"), b"").expect("an empty segment");
    fs::write(home.path("00000000000000000009.idx"), b"x").expect("its index");
    fs::write(home.path("manifest.tmp"), b"half").expect("half a manifest");
    fs::write(home.path("notes.txt"), b"mine").expect("a stranger");
    let (mut log, found) = home.open();
    assert_eq!((found.last_index, found.torn_bytes), (LogIndex(4), 0));
    assert_eq!(home.segments(), [FIRST]);
    for (name, stays) in [("notes.txt", true), ("manifest.tmp", false), ("00000000000000000009.idx", false)] {
        assert_eq!(home.path(name).exists(), stays, "{name}");
    }
    // A number is never used twice.
    log.truncate_suffix(LogIndex(4)).expect("cut");
    assert_eq!(home.segments(), [FIRST, "00000000000000000010.seg"]);
}
