//! Valid bytes with impossible contents, which neither a crash nor one damaged byte can produce. The rules against them
//! protect from a bug in this code, or from a disk that writes to another position.

use std::path::{Path, PathBuf};

use super::entries::entry;
use crate::storage::error::StorageError;
use crate::storage::format::entry::u64_at;
use crate::storage::format::frame::{self, Header};
use crate::storage::format::index::Index;
use crate::storage::format::state::{Genesis, HardState, Recovered};
use crate::storage::io::disk::Access;
use crate::storage::io::disk::sim::{Rng, Sim};
use crate::storage::read::index_file::index_path;
use crate::storage::write::log::GroupLog;
use crate::storage::write::options::LogOptions;
use crate::types::{GroupId, LogIndex, Offset, ReplicaId, Term};

const GROUPS: &str = "/data/groups";
const GROUP: GroupId = GroupId(7);

fn open(sim: &Sim) -> Result<(GroupLog, Recovered), StorageError> {
    GroupLog::open(&sim.disk(), Path::new(GROUPS), GROUP, &LogOptions { segment_bytes: 4096 })
}

/// A log with two entries.
fn filled() -> (Sim, GroupLog) {
    let sim = Sim::default();
    let options = LogOptions { segment_bytes: 4096 };
    let genesis = Genesis::founder(ReplicaId(1));
    GroupLog::create(&sim.disk(), Path::new(GROUPS), GROUP, &options, genesis).expect("made");
    let (mut log, _) = open(&sim).expect("opened");
    for time in 1..=2 {
        let next = entry(log.last, Term(1), &mut Rng(time), true, time);
        log.append(&[next]).expect("appended");
    }
    (sim, log)
}

/// Writes a frame after the last one.
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
        put(&log, &Header::of_entry(&next, log.durable).expect("an entry"), &next.payload());
        let found = open(&sim).expect("opened").1;
        assert_eq!(found.last_index, LogIndex(3), "{skipped}");
        assert!(found.torn_bytes > 0, "{skipped}");
    }
}

/// A commit index above the last entry is refused.
pub fn a_commit_behind_the_end() {
    let (sim, log) = filled();
    let hard_state = HardState { commit: LogIndex(4), ..log.hard_state };
    let (header, payload) = hard_state.to_frame(log.durable);
    put(&log, &header, &payload);
    let error = open(&sim).map(drop).expect_err("refused");
    assert!(error.is_damage() && error.to_string().contains("entries up to 4 are committed"), "{error}");
}

/// The applied index is never above the stored commit index: a manifest is written only after the sync of every earlier
/// hard state, so a crash can't cause this. Recovery lowers such an applied index, because raft would refuse to start
/// with it.
pub fn applied_behind_the_commit() {
    let (sim, mut log) = filled();
    log.set_applied(LogIndex(3));
    log.close().expect("closed");
    let found = open(&sim).expect("opened").1;
    assert_eq!((found.applied, found.hard_state.commit), (LogIndex(1), LogIndex(1)));
}

/// A sealed segment, and the path of its index.
fn sealed() -> (Sim, GroupLog, PathBuf) {
    let (sim, mut log) = filled();
    for time in 3..30 {
        let next = entry(log.last, Term(1), &mut Rng(time), true, time);
        log.append(&[next]).expect("appended");
    }
    log.disk.segment_cache().close_all();
    (sim, log, index_path(&Path::new(GROUPS).join(GROUP.to_string()), 1))
}

/// Reads every record, one by one.
fn read_all(log: &GroupLog) {
    let until = log.bounds().next_offset;
    for offset in 0..until.0 {
        let read = log.reader().records(Offset(offset), until, 1, 1, Access::Blocking);
        assert_eq!(read.expect("a record").next, Offset(offset + 1));
        let time = log.reader().append_time_us(Offset(offset), until, Access::Blocking).expect("a record");
        let first = log.reader().first_not_before(time.unwrap_or(0), Offset(0), until, Access::Blocking);
        assert!(first.expect("found").is_some_and(|first| first <= Offset(offset)));
    }
}

/// An index with a correct checksum and wrong positions: after the wanted frame, or not at a frame.
pub fn an_index_that_leads_astray() {
    for (word, change) in [(1, u64::MAX), (2, u64::MAX), (3, 8), (3, 1), (1, 1), (2, 100)] {
        let (sim, log, path) = sealed();
        let mut bytes = sim.files()[&path].clone().expect("an index");
        let entries = (bytes.len() - 40) / 32;
        assert!(entries > 2, "{entries}");
        for i in 0..entries {
            let at = 40 + 32 * i + 8 * word;
            let number = u64_at(&bytes, at);
            let number = match (word, change) {
                // Every entry has the position of a later frame.
                (_, u64::MAX) => i as u64,
                (3, more) => number + more,
                (_, more) => number.saturating_sub(more),
            };
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        Index::seal(&mut bytes);
        sim.damage(&path, bytes);
        read_all(&log);
    }
}

/// An index on a bad sector: the segment can still be read, and its index is rebuilt.
pub fn an_index_that_can_not_be_read() {
    let (sim, log, path) = sealed();
    sim.unreadable(&path, 0..4096);
    read_all(&log);
    assert!(log.reader().published().damages().list().is_empty(), "no data is damaged");
}

/// A file name with an impossible number does not affect the numbers of new segments.
pub fn a_number_that_is_too_high() {
    let (sim, log) = filled();
    drop(log);
    for name in ["18446744073709551615.seg", "04611686018427387904.seg", "04611686018427387903.seg"] {
        sim.disk().create(&Path::new(GROUPS).join(GROUP.to_string()).join(name)).expect("created");
    }
    let (mut log, _) = open(&sim).expect("opened");
    log.roll().expect("rolled");
    assert_eq!(log.active.position().file, 2);
    log.close().expect("closed");
    open(&sim).expect("opened again");
}

pub fn all() {
    an_index_that_leads_astray();
    an_index_that_can_not_be_read();
    a_number_that_is_too_high();
    a_hole();
    a_commit_behind_the_end();
    applied_behind_the_commit();
}

#[test]
fn impossible_bytes_are_refused() {
    all();
}
