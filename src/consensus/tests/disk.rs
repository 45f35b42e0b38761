//! A simulated disk that keeps what was synced and may lose the rest.
//!
//! As on a real disk, the log state is stored without its tables. They are stored less often, together with a snapshot,
//! before a trim, and after [`REPLAYED_MAX`] entries. A start applies the entries after them again.

use std::sync::Arc;

use crate::consensus::group::EntryEnd;
use crate::consensus::group::LogWrite;
use crate::consensus::group::{Group, GroupConfig, ReplicaNodes};
use crate::log_state::{LogState, Tables};
use crate::storage::entry::Entry;
use crate::storage::faults::{Fault, broken};
use crate::storage::log::{Base, ConfState, Genesis, HardState, Recovered};
use crate::storage::replay;
use crate::types::{GroupId, LogIndex, Offset, ReplicaId, Term};

/// A state file is written after this many entries.
const REPLAYED_MAX: u64 = 200;

/// One change of a log's files.
#[derive(Clone, Debug)]
pub enum Change {
    Write(LogWrite),
    Conf(ConfState, LogIndex),
    /// The log state, the index of the last entry that it includes, and the applied index.
    Applied(LogState, LogIndex, LogIndex),
    Trim(Base),
}

/// The content of a disk.
#[derive(Clone, Debug)]
pub struct Files {
    pub hard_state: HardState,
    pub base: Base,
    pub conf_state: ConfState,
    pub conf_index: LogIndex,
    /// Its tables are not used.
    pub log_state: LogState,
    pub log_state_index: LogIndex,
    /// The tables in the state file, and the last entry that they include.
    pub state_file: (Arc<Tables>, LogIndex),
    pub applied: LogIndex,
    pub entries: Vec<Entry>,
}

impl Files {
    fn new(genesis: Genesis) -> Files {
        let (voters, offset) = match genesis {
            Genesis::Voters(voters, first_offset) => (voters, first_offset),
            Genesis::Blank => (Vec::new(), Offset(0)),
        };
        let first = u64::from(!voters.is_empty());
        let base = Base { index: LogIndex(first), term: Term(first), offset, ..Base::default() };
        Files {
            hard_state: HardState { term: Term(first), vote: None, commit: LogIndex(first) },
            base,
            conf_state: ConfState { voters, learners: Vec::new() },
            conf_index: base.index,
            log_state: LogState { first_offset: offset, last_append_time_us: 0, ..LogState::default() },
            log_state_index: base.index,
            state_file: (Arc::default(), base.index),
            applied: base.index,
            entries: Vec::new(),
        }
    }

    fn make(&mut self, change: &Change) {
        match change {
            Change::Write(write) => {
                if let Some(snapshot) = &write.snapshot {
                    self.base = snapshot.base;
                    (self.conf_state, self.conf_index) = (snapshot.conf_state.clone(), snapshot.conf_index);
                    (self.log_state, self.log_state_index) = (snapshot.log_state.clone(), snapshot.log_state_index);
                    self.write_state_file();
                    if broken(Fault::SnapshotWithoutState) {
                        self.state_file.0 = Arc::default();
                    }
                    self.applied = snapshot.base.index;
                    self.entries.clear();
                }
                if let Some(from) = write.truncate_from {
                    self.entries.retain(|e| e.index < from);
                }
                for entry in &write.entries {
                    assert_eq!(entry.index, self.last_index().next());
                    self.entries.push(entry.clone());
                }
                if let Some(hard_state) = &write.hard_state {
                    self.hard_state = *hard_state;
                }
            }
            Change::Conf(conf_state, index) => (self.conf_state, self.conf_index) = (conf_state.clone(), *index),
            Change::Applied(log_state, as_of, applied) => {
                (self.log_state, self.log_state_index, self.applied) = (log_state.clone(), *as_of, *applied);
                if as_of.0 - self.state_file.1.0 > REPLAYED_MAX {
                    self.write_state_file();
                }
            }
            Change::Trim(base) => {
                if base.index > self.state_file.1 && !broken(Fault::TrimBeyondState) {
                    self.write_state_file();
                }
                self.base = *base;
                self.entries.retain(|e| e.index > base.index);
            }
        }
    }

    fn write_state_file(&mut self) {
        self.state_file = (self.log_state.tables.clone(), self.log_state_index);
    }

    /// The log state as a start finds it.
    fn recovered_log_state(&self) -> LogState {
        let (mut tables, included) = self.state_file.clone();
        let again = self.entries.iter().filter(|e| e.index > included && e.index <= self.log_state_index);
        for entry in again {
            replay(&mut tables, GroupId(1), std::slice::from_ref(entry)).expect("an entry that can be applied");
        }
        LogState { tables, ..self.log_state.clone() }
    }

    pub fn last_index(&self) -> LogIndex {
        self.entries.last().map_or(self.base.index, |e| e.index)
    }

    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.0.checked_sub(self.base.index.0 + 1)?).ok()?)
    }
}

/// A log's files, and the changes that a power cut may lose.
pub struct Disk {
    /// The files as a process reads them, from the page cache.
    pub files: Files,
    synced: Files,
    unsynced: Vec<Change>,
    ready: u64,
}

impl Disk {
    pub fn new(genesis: Genesis) -> Disk {
        let files = Files::new(genesis);
        Disk { synced: files.clone(), files, unsynced: Vec::new(), ready: 0 }
    }

    /// Applies a change. A write reaches the disk frame by frame, so a power loss, a kill or a full disk may leave
    /// any prefix.
    pub fn make(&mut self, change: Change) {
        self.files.make(&change);
        match change {
            Change::Write(write) => self.unsynced.extend(frames(write).map(Change::Write)),
            other => self.unsynced.push(other),
        }
    }

    /// Requests a sync, after which this Ready is reported.
    pub fn want(&mut self, ready: u64) {
        self.ready = self.ready.max(ready);
    }

    /// Returns the newest Ready to report.
    pub fn wanted(&self) -> u64 {
        self.ready
    }

    /// Syncs everything. Returns the Ready to report.
    pub fn sync(&mut self) -> u64 {
        self.synced = self.files.clone();
        self.unsynced.clear();
        self.ready
    }

    /// Cuts the power. Only the first `kept` unsynced changes have reached the disk.
    pub fn cut(&mut self, kept: usize) {
        for change in self.unsynced.drain(..).take(kept) {
            self.synced.make(&change);
        }
        // As recovery does: if the hard state is lost, the term is that of the last entry; the commit index is
        // limited to the end of the log.
        let last_term = self.synced.entries.last().map_or(self.synced.base.term, |e| e.term);
        if last_term > self.synced.hard_state.term {
            self.synced.hard_state.term = last_term;
            self.synced.hard_state.vote = None;
        }
        self.synced.hard_state.commit = self.synced.hard_state.commit.max(self.synced.base.index);
        self.synced.applied = self.synced.applied.min(self.synced.hard_state.commit);
        self.files = self.synced.clone();
        self.ready = 0;
    }

    /// Returns true if nothing was written yet.
    pub fn is_new(&self) -> bool {
        self.files.last_index().0 <= 1 && self.files.hard_state.term.0 <= 1 && self.files.hard_state.vote.is_none()
    }

    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// Starts a group, whose replicas have the ids of their nodes, from the files.
    pub fn open(&self, me: ReplicaId, config: &GroupConfig) -> Group {
        let mut group = self.open_group(GroupConfig { id: GroupId(1), me, ..config.clone() });
        group.nodes_mut().clone_from(&ReplicaNodes::SameIds);
        group
    }

    /// Starts a group from the files.
    pub fn open_group(&self, config: GroupConfig) -> Group {
        let files = &self.files;
        let mut terms = vec![(files.base.index, files.base.term)];
        for entry in &files.entries {
            if terms.last().is_none_or(|(_, term)| *term != entry.term) {
                terms.push((entry.index, entry.term));
            }
        }
        let end = |entry: &Entry| entry.end_offset().expect("a stamp");
        let next_offset = files.entries.last().map_or(files.base.offset, end);
        let recovered = Recovered {
            hard_state: files.hard_state,
            base: files.base,
            last_index: files.last_index(),
            last_term: files.entries.last().map_or(files.base.term, |e| e.term),
            next_offset,
            last_append_time_us: files.log_state.last_append_time_us,
            terms,
            conf_state: files.conf_state.clone(),
            conf_index: files.conf_index,
            log_state: files.recovered_log_state(),
            log_state_index: files.log_state_index,
            applied: files.applied,
            differing: None,
            torn_bytes: 0,
        };
        let tail: Vec<Entry> = files.entries.iter().filter(|e| e.index > files.applied).cloned().collect();
        let offset = files.entry(files.applied).map_or(files.base.offset, end);
        let start = EntryEnd { index: files.applied, offset, append_time_us: files.log_state.last_append_time_us };
        Group::new(config, &recovered, start, &tail).expect("a possible state")
    }
}

/// Returns the parts of a write, in the order in which they reach the disk. A snapshot and its hard state take effect
/// together, because the manifest, which names the snapshot's segment, is written after both.
fn frames(write: LogWrite) -> impl Iterator<Item = LogWrite> {
    let LogWrite { snapshot, truncate_from, entries, hard_state } = write;
    let install = snapshot.map(|snapshot| {
        let hard_state = hard_state.map(|h| HardState { commit: h.commit.min(snapshot.base.index), ..h });
        LogWrite { snapshot: Some(snapshot), hard_state, ..LogWrite::default() }
    });
    let truncate = truncate_from.map(|from| LogWrite { truncate_from: Some(from), ..LogWrite::default() });
    let entries = entries.into_iter().map(|entry| LogWrite { entries: vec![entry], ..LogWrite::default() });
    let hard_state = hard_state.map(|h| LogWrite { hard_state: Some(h), ..LogWrite::default() });
    install.into_iter().chain(truncate).chain(entries).chain(hard_state)
}
