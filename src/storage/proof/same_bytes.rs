//! The same operations write the same bytes as commit 86ed53a, which wrote `tests/golden/log-life.bin`. So that version
//! can read a directory that this version has written.

use std::path::Path;

use crate::storage::format::state::{ConfState, Genesis, HardState, LogSnapshot, LogState, SealAge};
use crate::storage::io::disk::sim::Sim;
use crate::storage::write::log::GroupLog;
use crate::storage::write::log::tests::append;
use crate::storage::write::options::LogOptions;
use crate::types::{GroupId, LogIndex, Offset, ReplicaId, Term};

const GROUPS: &str = "/data/groups";
const GROUP: GroupId = GroupId(7);
const OPTIONS: LogOptions = LogOptions { segment_bytes: 4096 };

fn open(sim: &Sim) -> GroupLog {
    GroupLog::open(&sim.disk(), Path::new(GROUPS), GROUP, &OPTIONS).expect("opened").0
}

fn sync(sim: &Sim, log: &mut GroupLog) {
    for job in [log.begin_sync(), log.begin_note()].into_iter().flatten() {
        job.perform(&sim.disk()).expect("performed");
        log.end_sync(job);
    }
}

fn commit(log: &mut GroupLog, term: u64) {
    let commit = log.bounds().last_index;
    log.append_hard_state(&HardState { term: Term(term), vote: Some(ReplicaId(9)), commit }).expect("appended");
}

/// Adds the name, the length and the bytes of every file, without the zeros at its end.
fn add_files(sim: &Sim, out: &mut Vec<u8>) {
    for (path, bytes) in sim.files() {
        let Some(bytes) = bytes else { continue };
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        out.extend_from_slice(format!("\n{} {}\n", path.display(), bytes.len()).as_bytes());
        out.extend_from_slice(&bytes[..used]);
    }
}

/// The files after several stages of a log's life. The test sets identifiers, times and salts.
fn life() -> Vec<u8> {
    let (sim, mut out) = (Sim::default(), Vec::new());
    let genesis = Genesis::founder(ReplicaId(5));
    GroupLog::create(&sim.disk(), Path::new(GROUPS), GROUP, &OPTIONS, genesis).expect("created");
    add_files(&sim, &mut out);
    let mut log = open(&sim);
    for i in 0..12u8 {
        append(&mut log, 1, &[]);
        append(&mut log, 1, &[&[i; 300], b"", &[i; 20]]);
    }
    commit(&mut log, 1);
    sync(&sim, &mut log);
    append(&mut log, 1, &[&[1; 1000]]);
    append(&mut log, 1, &[&[2; 1000]]);
    sync(&sim, &mut log);
    log.truncate_suffix(LogIndex(log.bounds().last_index.0)).expect("truncated");
    append(&mut log, 3, &[&[3; 10]]);
    log.set_conf_state(
        ConfState { voters: vec![ReplicaId(5), ReplicaId(6)], learners: vec![ReplicaId(7)] },
        log.bounds().last_index,
    );
    log.set_differing(Some(LogIndex(4)));
    log.set_local_time(77);
    assert!(log.end_old_segment(SealAge { used_us: 0, empty_us: 0 }).expect("sealed"));
    append(&mut log, 3, &[&[4; 10]]);
    commit(&mut log, 4);
    sync(&sim, &mut log);
    add_files(&sim, &mut out);
    let applied = log.hard_state.commit;
    log.set_log_state(LogState { first_offset: Offset(20), last_append_time_us: 1020, ..LogState::default() }, applied);
    log.trim(Offset(20), applied).expect("trimmed");
    sync(&sim, &mut log);
    log.close().expect("closed");
    add_files(&sim, &mut out);
    // Killed with appended entries that are not synced.
    append(&mut log, 4, &[&[5; 700]]);
    drop(log);
    sim.kill();
    let mut log = open(&sim);
    append(&mut log, 4, &[&[6; 700]]);
    sync(&sim, &mut log);
    let mut base = log.last();
    (base.index, base.offset) = (LogIndex(base.index.0 + 5), Offset(base.offset.0 + 7));
    let snapshot = LogSnapshot { base, conf_index: base.index, log_state_index: base.index, ..LogSnapshot::default() };
    let hard_state = HardState { term: Term(6), vote: None, commit: base.index };
    log.install_snapshot(&snapshot, &hard_state).expect("installed");
    append(&mut log, 6, &[b"after the snapshot"]);
    sync(&sim, &mut log);
    add_files(&sim, &mut out);
    out
}

#[test]
fn the_same_operations_write_the_same_bytes() {
    crate::golden::assert_golden("log-life.bin", &life());
}
