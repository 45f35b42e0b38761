//! What neither a crash nor one damaged byte can make: valid bytes that say something impossible. A rule against it is the
//! last line against a mistake of our own, or a disk that puts a write in another place.

use std::path::Path;

use super::super::disk::sim::{Rng, Sim};
use super::super::frame::{self, Header};
use super::super::log::{Genesis, GroupLog, HardState, LogOptions, Recovered, StorageError};
use super::model::entry;
use crate::types::{GroupId, LogIndex, NodeId, Term};

const GROUPS: &str = "/data/groups";
const GROUP: GroupId = GroupId(7);

fn open(sim: &Sim) -> Result<(GroupLog, Recovered), StorageError> {
    GroupLog::open(&sim.disk(), Path::new(GROUPS), GROUP, &LogOptions { segment_bytes: 4096 })
}

/// A log with two entries.
fn filled() -> (Sim, GroupLog) {
    let sim = Sim::default();
    let options = LogOptions { segment_bytes: 4096 };
    let genesis = Genesis::Founder(NodeId(1));
    GroupLog::create(&sim.disk(), Path::new(GROUPS), GROUP, &options, genesis).expect("made");
    let (mut log, _) = open(&sim).expect("opened");
    for time in 1..=2 {
        let next = entry(log.last, Term(1), &mut Rng(time), true, time);
        log.append(&[next]).expect("appended");
    }
    (sim, log)
}

/// Puts a frame behind the last one.
fn put(log: &GroupLog, header: &Header, payload: &[u8]) {
    let mut bytes = Vec::new();
    let at = log.active.position().at;
    frame::encode(&mut bytes, log.active.segment.header.salt, at, header, payload);
    log.active.file.write_at(at, &bytes).expect("written");
}

/// A frame that does not continue the log ends it.
pub fn a_hole() {
    for skipped in ["an index", "an offset", "a term"] {
        let (sim, log) = filled();
        let mut last = log.last;
        last.term = Term(2);
        match skipped {
            "an index" => last.index = last.index.next(),
            "an offset" => last.offset.0 += 1,
            _ => last.term = Term(0),
        }
        let next = entry(last, last.term, &mut Rng(0), true, 9);
        put(&log, &Header::of_entry(&next, log.floor).expect("an entry"), &next.payload());
        let found = open(&sim).expect("opened").1;
        assert_eq!(found.last_index, LogIndex(3), "{skipped}");
        assert!(found.torn_bytes > 0, "{skipped}");
    }
}

/// A commit of entries that are not there is refused.
pub fn a_commit_behind_the_end() {
    let (sim, log) = filled();
    let hard_state = HardState { commit: LogIndex(4), ..log.hard_state };
    let (header, payload) = Header::of_hard_state(&hard_state, log.floor);
    put(&log, &header, &payload);
    let error = open(&sim).map(drop).expect_err("refused");
    assert!(error.is_damage() && error.to_string().contains("entries up to 4 are committed"), "{error}");
}

/// What is applied was committed: a manifest follows the sync of every hard state before it, so no crash takes it back.
/// raft would not start if it were otherwise.
pub fn applied_behind_the_commit() {
    let (sim, mut log) = filled();
    log.set_applied(LogIndex(3));
    log.close().expect("closed");
    let found = open(&sim).expect("opened").1;
    assert_eq!((found.applied, found.hard_state.commit), (LogIndex(1), LogIndex(1)));
}

/// All of them.
pub fn all() {
    a_hole();
    a_commit_behind_the_end();
    applied_behind_the_commit();
}

#[test]
fn what_is_impossible_is_not_believed() {
    all();
}
