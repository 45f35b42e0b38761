//! Damage is detected from evidence outside the damaged file. A loss at the end of the newest segment, below the
//! durable position in the manifest, is refused, and the error names what is lost. The same holds for any other file of
//! a data directory that is missing, empty, or older than the rest.

use std::fs;

use super::*;
use crate::storage::format::state::{ConfState, Genesis};
use crate::storage::write::log::tests::{GROUP, Home, append, sync};
use crate::types::{LogIndex, ReplicaId, Term};

const FIRST: &str = "00000000000000000001.seg";

fn note(log: &mut GroupLog, home: &Home) {
    let job = log.begin_note().expect("something to note");
    job.perform(&home.disk).expect("noted");
    log.end_sync(job);
}

/// A log whose manifest has the durable position, because the log was idle for a second before the process was killed.
fn quiet(segment_bytes: u64) -> (Home, LogOptions) {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let options = LogOptions { segment_bytes };
    let (mut log, _) = GroupLog::open(&home.disk, home.dir.path(), GROUP, &options).expect("opened");
    for _ in 0..400 {
        append(&mut log, 1, &[&[1; 160]]);
    }
    sync(&mut log, &home);
    if log.begin_note().is_some() {
        note(&mut log, &home);
    }
    (home, options)
}

fn refused(home: &Home, options: &LogOptions) -> String {
    let error = GroupLog::open(&home.disk, home.dir.path(), GROUP, options).err().expect("refused");
    assert!(error.is_damage() && !error.is_config(), "{error}");
    error.to_string()
}

/// Once, 2,000 records were acknowledged, and the node was idle for seconds and then killed. The last sector that it
/// had written was bad, and contained the only copy of the durable position. So the records were cut off as never
/// synced, and their offsets were reused.
#[test]
fn the_end_of_an_idle_log_is_not_taken_for_torn() {
    for (zeroed, cut) in [(1, 0), (8, 0), (128, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 1)] {
        let (home, options) = quiet(64 << 20);
        let path = home.path(FIRST);
        let mut bytes = fs::read(&path).expect("a segment");
        let used = bytes.iter().rposition(|byte| *byte != 0).expect("frames") / 512 * 512 + 512;
        bytes.truncate(used - 512 * cut);
        let from = bytes.len().saturating_sub(512 * zeroed);
        bytes[from..].fill(0);
        fs::write(&path, &bytes).expect("written");
        let told = refused(&home, &options);
        // An entry takes 280 bytes.
        let at = (used - 512 * (cut + zeroed) - 128) / 280 * 280 + 128;
        let first = 2 + (at - 128) / 280;
        let lost = format!("entries {first} to 401, records {} to 399, perhaps a term and a vote", first - 2);
        assert!(told.contains(&format!("{FIRST} is damaged at byte {at}:")), "{zeroed} {cut}: {told}");
        assert!(told.contains(&lost), "{zeroed} {cut}: {lost}: {told}");
        assert_eq!(fs::read(&path).expect("a segment"), bytes, "nothing is changed");
    }
}

/// The current term and vote are in the very last frame: if the loss of its sector were not detected, a node could vote
/// twice in one term.
#[test]
fn a_vote_is_not_forgotten() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let (mut log, _) = home.open();
    append(&mut log, 1, &[&[1; 160]]);
    let vote = HardState { term: Term(7), vote: Some(ReplicaId(9)), commit: LogIndex(2) };
    log.append_hard_state(&vote).expect("appended");
    sync(&mut log, &home);
    note(&mut log, &home);
    drop(log);
    let mut bytes = fs::read(home.path(FIRST)).expect("a segment");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("frames");
    bytes[used - 3..].fill(0);
    fs::write(home.path(FIRST), bytes).expect("written");
    let told = refused(&home, &LogOptions { segment_bytes: 4096 });
    assert!(told.contains("lost: perhaps a term and a vote"), "{told}");
}

/// The newest segment is missing, empty, or without a header. The manifest, written when that segment was first synced,
/// names it.
#[test]
fn a_missing_newest_segment_is_refused() {
    for damage in ["gone", "empty", "zeros", "no header"] {
        let (home, options) = quiet(4096);
        let newest = home.segments().pop().expect("segments");
        let path = home.path(&newest);
        let bytes = fs::read(&path).expect("a segment");
        match damage {
            "gone" => fs::remove_file(&path),
            "empty" => fs::write(&path, b""),
            "zeros" => fs::write(&path, vec![0; bytes.len()]),
            _ => fs::write(&path, [&[0; 128], &bytes[128..]].concat()),
        }
        .expect("damaged");
        let told = refused(&home, &options);
        assert!(told.contains(&newest), "{damage}: {told}");
    }
}

/// An older copy of the manifest lacks information that the segments contain. The same log is recovered; if the
/// manifest names segments that a trim has removed since, the start is refused.
#[test]
fn an_old_copy_of_the_manifest_changes_nothing() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let manifest = || fs::read(home.path("manifest")).expect("a manifest");
    let mut copies = vec![manifest()];
    let (mut log, _) = home.open();
    for term in 1..=6 {
        for _ in 0..9 {
            append(&mut log, term, &[&[1; 160]]);
        }
        let last = log.bounds().last_index;
        log.append_hard_state(&HardState { term: Term(term), vote: Some(ReplicaId(9)), commit: last })
            .expect("appended");
        sync(&mut log, &home);
        copies.push(manifest());
        if log.begin_note().is_some() {
            note(&mut log, &home);
        }
        copies.push(manifest());
    }
    let voters = ConfState { voters: vec![ReplicaId(5), ReplicaId(6)], learners: Vec::new() };
    log.set_conf_state(voters, log.bounds().last_index);
    sync(&mut log, &home);
    drop(log);
    let newest = manifest();
    let (_, whole) = home.open();
    for copy in &copies {
        fs::write(home.path("manifest"), copy).expect("written");
        let (log, found) = home.open();
        // The stored applied index and conf state are older. Both advance again when the entries after them are
        // applied.
        let found = Recovered {
            applied: whole.applied,
            conf_state: whole.conf_state.clone(),
            conf_index: whole.conf_index,
            ..found
        };
        assert_eq!((found, log.bounds().last_index), (whole.clone(), whole.last_index));
    }
    fs::write(home.path("manifest"), &newest).expect("written");
    let (mut log, _) = home.open();
    log.set_log_state(
        crate::storage::format::state::LogState {
            first_offset: crate::types::Offset(30),
            last_append_time_us: 9,
            ..Default::default()
        },
        whole.last_index,
    );
    log.trim(crate::types::Offset(30), whole.last_index).expect("trimmed");
    sync(&mut log, &home);
    drop(log);
    for copy in &copies {
        fs::write(home.path("manifest"), copy).expect("written");
        refused(&home, &LogOptions { segment_bytes: 4096 });
    }
}

/// An older copy of `node.toml` lists fewer groups, or no cluster. A group that is to be created then exists already,
/// and is not overwritten.
#[test]
fn a_group_that_an_old_node_file_does_not_list_is_not_created_again() {
    for listed in [Genesis::founder(ReplicaId(5)), Genesis::Blank] {
        let (home, options) = quiet(64 << 20);
        let before = fs::read(home.path(FIRST)).expect("a segment");
        let error =
            GroupLog::create(&home.disk, home.dir.path(), GROUP, &options, listed).expect_err("it holds records");
        assert!(matches!(error, StorageError::NotBlank { .. }) && error.is_config(), "{error}");
        assert_eq!(fs::read(home.path(FIRST)).expect("a segment"), before);
    }
}
