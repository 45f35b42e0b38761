//! State files: written before entries are dropped, restored with the entries after them, and never taken for empty.

use std::fs;
use std::sync::Arc;

use super::scrub::tests::scrub_once;
use super::tests::{Home, all_files, told};
use super::*;
use crate::log_state::cursors::CommitCursor;
use crate::log_state::{LogState, StateCommand, Tables, TablesOrigin};
use crate::storage::format::entry::{Entry, EntryKind, Stamp};
use crate::storage::format::state::HardState;
use crate::storage::format::state_file::state_path;
use crate::storage::format::versioned;
use crate::storage::recover::tables::replay;
use crate::storage::write::log::GroupLog;
use crate::storage::write::log::tests::batch;
use crate::types::{CursorName, LogIndex, Offset, Term};

/// A log, and its tables after the last entry.
struct Log {
    home: Home,
    log: GroupLog,
    tables: Arc<Tables>,
}

impl Log {
    fn new() -> Log {
        let home = Home::new(true);
        let log = home.try_log().expect("opened");
        Log { home, log, tables: Arc::default() }
    }

    fn append(&mut self, entry: Entry) {
        replay(&mut self.tables, GroupId(3), std::slice::from_ref(&entry)).expect("applied");
        self.log.append(&[entry]).expect("appended");
    }

    /// Moves a cursor, with this many bytes of metadata.
    fn commit(&mut self, metadata: usize) {
        let last = self.log.last();
        let commit = CommitCursor {
            name: CursorName::new(&format!("c{}", last.index)).expect("a name"),
            next_offset: last.offset,
            epoch: 0,
            expected_revision: None,
            allow_rewind: false,
            metadata: vec![7; metadata],
        };
        let (kind, base_offset) = (EntryKind::State, last.offset);
        let stamp = Stamp { kind, count: 0, base_offset, append_time_us: 9, producer_id: 0, sequence: 0 };
        let payload = StateCommand::CommitCursor(commit).encode();
        self.append(Entry::new(last.index.next(), Term(1), stamp, &payload));
    }

    fn append_records(&mut self, entries: usize) {
        for _ in 0..entries {
            self.append(batch(&self.log, 1, &[&[7; 5500], &[8; 5500]]));
        }
    }

    /// Applies all entries.
    fn apply(&mut self) -> LogIndex {
        let commit = self.log.last().index;
        self.log.append_hard_state(&HardState { term: Term(1), vote: None, commit }).expect("appended");
        let log_state = LogState { tables: self.tables.clone(), ..LogState::default() };
        self.log.set_log_state(log_state, commit);
        self.log.set_applied(commit);
        commit
    }

    /// Applies all entries, and drops those below the offset.
    fn trim(&mut self, offset: Offset) -> LogIndex {
        let applied = self.apply();
        let base = self.log.trim(offset, applied).expect("trimmed").index;
        self.sync();
        base
    }

    fn sync(&mut self) {
        if let Some(job) = self.log.begin_sync() {
            job.perform(&self.home.disk).expect("synced");
            self.log.end_sync(job);
        }
    }

    fn state_file(&self) -> Option<String> {
        let index = self.home.manifest().log_state.state_file()?;
        let path = state_path(&self.home.path(""), index);
        Some(path.file_name().expect("a name").to_string_lossy().into_owned())
    }

    /// Restarts, and compares the tables.
    fn restart(self) -> Log {
        let Log { home, log, tables } = self;
        drop(log);
        let options = crate::storage::write::options::LogOptions { segment_bytes: 64 << 10 };
        let (log, found) =
            GroupLog::open(&home.disk, &home.dir.path().join("groups"), GroupId(3), &options).expect("opened");
        assert_eq!((found.log_state.tables, found.log_state_index), (tables.clone(), log.last().index));
        Log { home, log, tables }
    }
}

/// A log whose state file lacks the last entries, and that begins after its first entry.
fn trimmed() -> Log {
    let mut log = Log::new();
    log.commit(10);
    log.append_records(2);
    let end = log.log.last().offset;
    assert!(log.trim(end) > LogIndex(1));
    log.append_records(1);
    log.commit(20);
    log.apply();
    log.log.set_differing(Some(LogIndex(7)));
    log.sync();
    log
}

#[test]
fn a_trim_writes_a_state_file_first_and_a_restart_applies_what_follows() {
    let log = trimmed();
    let manifest = log.home.manifest();
    let origin = manifest.log_state.tables.expect("tables");
    assert!(origin.in_file && origin.index >= manifest.base.index && origin.index < manifest.log_state_index);
    assert!(log.state_file().is_some());
    let log = log.restart();
    assert_eq!(log.home.look().findings, []);
}

#[test]
fn without_tables_there_is_no_state_file() {
    let mut log = Log::new();
    log.append_records(9);
    let end = log.log.last().offset;
    log.trim(end);
    assert_eq!((log.state_file(), log.home.manifest().log_state.tables), (None, None));
    let empty_up_to = log.log.last().index;
    // The entries after the last one without tables are enough.
    log.commit(10);
    log.apply();
    log.log.set_differing(Some(LogIndex(7)));
    log.sync();
    let origin = TablesOrigin { index: empty_up_to, in_file: false };
    assert_eq!(log.home.manifest().log_state.tables, Some(origin));
    log.restart();
}

/// Otherwise each trim after a few records would write megabytes.
#[test]
fn a_trim_waits_until_it_frees_more_than_a_state_file_takes() {
    let mut log = Log::new();
    (0..100).for_each(|_| log.commit(4000));
    let end = log.log.last().offset;
    let base = log.trim(end);
    let file = log.state_file();
    assert!(file.is_some());
    for _ in 0..3 {
        log.append_records(8);
        let end = log.log.last().offset;
        assert_eq!(log.trim(end), base);
        assert_eq!(log.state_file(), file);
    }
    log.append_records(30);
    let end = log.log.last().offset;
    assert!(log.trim(end) > base);
    assert_ne!(log.state_file(), file);
    log.restart();
}

#[test]
fn a_damaged_or_missing_state_file_is_damage() {
    for missing in [false, true] {
        let log = trimmed();
        let name = log.state_file().expect("a state file");
        if missing {
            fs::remove_file(log.home.path(&name)).expect("removed");
        } else {
            log.home.change(&name, |bytes| bytes[40] ^= 1);
        }
        let (found, _) = scrub_once(&log.home.disk, &log.log);
        assert_eq!(found.iter().map(|range| range.file.as_str()).collect::<Vec<_>>(), [name.as_str()]);
        let Log { home, log, .. } = log;
        drop(log);
        let damage = told(&home.look(), Severity::Damage);
        assert!(damage.len() == 1 && damage[0].0 == name, "{damage:?}");
        let before = all_files(home.dir.path());
        let error = home.try_log().err().expect("refused");
        assert!(error.is_damage() && error.to_string().contains(&name), "{error}");
        assert!(before == all_files(home.dir.path()), "nothing is changed");
    }
}

/// All entries are still there, so nothing is lost.
#[test]
fn a_damaged_state_file_of_a_whole_log_is_written_again() {
    let mut log = Log::new();
    log.commit(10);
    log.append_records(10);
    log.apply();
    log.sync();
    let name = log.state_file().expect("written, because a segment was appended");
    log.home.change(&name, |bytes| bytes[40] ^= 1);
    let log = log.restart();
    assert_eq!(log.home.look().findings, []);
    assert!(log.state_file().is_some());
    log.restart();
}

#[test]
fn a_state_file_of_a_newer_version_is_not_damage() {
    let log = trimmed();
    let name = log.state_file().expect("a state file");
    log.home.change(&name, |bytes| {
        bytes[8] = 2;
        versioned::seal(bytes);
    });
    let Log { home, log, .. } = log;
    drop(log);
    let error = home.try_log().err().expect("refused");
    assert!(error.is_config() && error.to_string().contains("format 2, newer"), "{error}");
    assert_eq!(home.look().worst(), Some(Severity::Format));
}

#[test]
fn state_files_that_the_manifest_does_not_name_are_removed() {
    let log = trimmed();
    let name = log.state_file().expect("a state file");
    let others = ["00000000000000000001.state", "00000000000000000001.tmp", &name.replace("state", "tmp")];
    for other in others {
        fs::copy(log.home.path(&name), log.home.path(other)).expect("copied");
    }
    let mut noted: Vec<String> = told(&log.home.look(), Severity::Note).into_iter().map(|note| note.0).collect();
    noted.sort_unstable();
    assert_eq!(noted, others);
    let log = log.restart();
    assert_eq!(log.state_file(), Some(name));
    assert_eq!(log.home.look().findings, []);
}
