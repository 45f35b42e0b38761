//! A model of a log: the set of states that it may be in after a crash, which are those since the last finished sync.

use std::path::Path;
use std::sync::Arc;

use super::entries::{commands, entry};
use crate::log_state::Tables;
use crate::storage::error::StorageError;
use crate::storage::format::digest::Digest;
use crate::storage::format::entry::Entry;
use crate::storage::format::state::{Base, ConfState, Genesis, HardState, LogSnapshot, LogState, Recovered};
use crate::storage::io::disk::Access;
use crate::storage::io::disk::sim::{Rng, Sim};
use crate::storage::recover::tables::replay;
use crate::storage::write::log::GroupLog;
use crate::storage::write::options::LogOptions;
use crate::types::{GroupId, LogIndex, Offset, ReplicaId, Term};

/// The contents of a log, including what a trim has dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The entry before its first entry: entry 1, or the last one of a snapshot.
    start: Base,
    /// The index of the conf state in the snapshot.
    start_conf: LogIndex,
    /// The producers and the cursors at the beginning, and the last entry that they include.
    start_tables: (Arc<Tables>, LogIndex),
    entries: Vec<Entry>,
    hard_state: HardState,
    /// The base. Only trims move it.
    base: Base,
    conf_index: LogIndex,
}

impl State {
    fn last(&self) -> Base {
        end_of(self.start, &self.entries)
    }

    /// The producers and the cursors after an entry.
    fn tables_at(&self, group: GroupId, index: LogIndex) -> Arc<Tables> {
        let (mut tables, included) = self.start_tables.clone();
        let after = self.entries.iter().filter(|entry| entry.index > included && entry.index <= index);
        after.for_each(|entry| {
            replay(&mut tables, group, std::slice::from_ref(entry)).expect("an entry that can be applied");
        });
        tables
    }

    /// True if recovery found this state, given that the log begins at `base`.
    fn matches(&self, found: &Recovered, entries: &[Entry]) -> bool {
        if self.entries.last().is_some_and(|last| last.index != found.last_index) {
            return false;
        }
        let last = self.last();
        let mut hard_state = self.hard_state;
        if last.term > hard_state.term {
            hard_state = HardState { term: last.term, vote: None, ..hard_state };
        }
        hard_state.commit = hard_state.commit.max(found.base.index);
        let mine = self.entries.iter().filter(|e| e.index > found.base.index);
        let mut terms = vec![(found.base.index, found.base.term)];
        for entry in mine.clone() {
            if entry.term > terms[terms.len() - 1].1 {
                terms.push((entry.index, entry.term));
            }
        }
        found.base.index >= self.start.index
            && (found.last_index, found.last_term, found.next_offset) == (last.index, last.term, last.offset)
            && found.hard_state == hard_state
            && found.terms == terms
            && found.conf_index >= self.start_conf
            && mine.eq(entries)
    }
}

/// The end of a log after `entries`, which follow `before`.
pub fn end_of(before: Base, entries: &[Entry]) -> Base {
    entries.iter().fold(before, |at, entry| at.then(entry).expect("a stamp"))
}

/// A log, and the states that it may be in.
pub struct Model {
    pub sim: Sim,
    groups_dir: &'static Path,
    group: GroupId,
    options: LogOptions,
    pub rng: Rng,
    log: GroupLog,
    /// The states since the last finished sync. The first one is the state at that sync.
    states: Vec<State>,
    /// The newest term that was ever used.
    term: u64,
    /// True if the next new entry needs a newer term: lost entries may be appended again, but a different entry must
    /// never have the index and term of a lost one.
    new_term: bool,
    clock: u64,
    /// The entries that a crash or a truncation has removed, and the entry before them. Another node may send them
    /// again.
    lost: (Base, Vec<Entry>),
    /// True if all entries have the same length, so that remains of old entries fit exactly after new ones.
    pub even: bool,
    /// True while a sync job is in progress.
    syncing: bool,
    /// The kinds of steps that this history omits, so that rare steps become frequent.
    pub never: u32,
}

impl Model {
    /// A new group on a disk of its own.
    pub fn new(seed: u64) -> Model {
        let sim = Sim::default();
        let groups_dir = Path::new("/data/groups");
        let options = LogOptions { segment_bytes: if seed.is_multiple_of(3) { 1500 } else { 4096 } };
        let (disk, group) = (sim.disk(), GroupId(7));
        GroupLog::create(&disk, groups_dir, group, &options, Genesis::founder(ReplicaId(1))).expect("made");
        let mut model = Model::open(&sim, groups_dir, group, options, seed).expect("opened");
        model.even = seed.is_multiple_of(2);
        if seed % 4 < 2 {
            model.never = model.rng.next() as u32 & !(1 << 7 | 1 << 25);
        }
        model
    }

    /// An existing blank group.
    pub fn open(
        sim: &Sim,
        groups_dir: &'static Path,
        group: GroupId,
        options: LogOptions,
        seed: u64,
    ) -> Result<Model, StorageError> {
        let (log, found) = GroupLog::open(&sim.disk(), groups_dir, group, &options)?;
        assert_eq!((found.last_index, found.torn_bytes), (found.base.index, 0), "it is blank");
        let state = State {
            start: found.base,
            start_conf: found.conf_index,
            start_tables: (Arc::default(), found.base.index),
            entries: Vec::new(),
            hard_state: found.hard_state,
            base: found.base,
            conf_index: found.conf_index,
        };
        Ok(Model {
            sim: sim.clone(),
            groups_dir,
            group,
            options,
            rng: Rng(seed),
            log,
            states: vec![state],
            term: 1,
            new_term: false,
            clock: 0,
            lost: (found.base, Vec::new()),
            even: false,
            syncing: false,
            never: 0,
        })
    }

    fn now(&self) -> State {
        self.states[self.states.len() - 1].clone()
    }

    /// Executes one step; an error means that the process died during it.
    pub fn step(&mut self) -> Result<(), StorageError> {
        let step = self.rng.below(26);
        if self.never & (1 << step) != 0 {
            return Ok(());
        }
        match step {
            0..=7 => {
                let count = 1 + self.rng.below(5);
                self.append(count)
            }
            8..=11 => self.hard_state(),
            12..=13 => self.truncate(),
            14 => self.trim(),
            15 if self.rng.once_in(3) => self.snapshot(),
            16 if !self.syncing => self.apply(),
            17 if !self.syncing => self.note(),
            18 if !self.syncing => self.close(),
            19..=20 => self.append_lost(),
            _ if !self.syncing => self.sync(),
            _ => Ok(()),
        }
    }

    pub fn append(&mut self, count: u64) -> Result<(), StorageError> {
        if std::mem::take(&mut self.new_term) || self.rng.once_in(6) {
            self.term += 1;
        }
        let mut entries = Vec::new();
        let mut last = self.now().last();
        for _ in 0..count {
            self.clock += 1;
            let entry = entry(last, Term(self.term), &mut self.rng, self.even, self.clock);
            last = last.then(&entry).expect("a stamp");
            entries.push(entry);
        }
        self.append_these(entries)
    }

    fn append_these(&mut self, entries: Vec<Entry>) -> Result<(), StorageError> {
        let mut state = self.now();
        for entry in &entries {
            state.entries.push(entry.clone());
            // Each appended entry makes another state: any number of them may be on the disk.
            self.states.push(state.clone());
        }
        self.log.append(&entries)
    }

    /// Appends some of the lost entries again.
    pub fn append_lost(&mut self) -> Result<(), StorageError> {
        let (before, lost) = &mut self.lost;
        if *before != self.states[self.states.len() - 1].last() || lost.is_empty() {
            return Ok(());
        }
        let count = 1 + self.rng.below(lost.len() as u64) as usize;
        let again: Vec<Entry> = lost.drain(..count).collect();
        *before = end_of(*before, &again);
        self.append_these(again)
    }

    pub fn hard_state(&mut self) -> Result<(), StorageError> {
        let mut state = self.now();
        let last = state.last();
        let commit = state.hard_state.commit.0;
        state.hard_state = HardState {
            term: Term(self.term.max(last.term.0)),
            vote: Some(ReplicaId(1 + self.rng.below(3))).filter(|v| v.0 < 3),
            commit: LogIndex(commit + self.rng.below(last.index.0 - commit + 1)),
        };
        self.states.push(state.clone());
        self.log.append_hard_state(&state.hard_state)
    }

    pub fn truncate(&mut self) -> Result<(), StorageError> {
        let mut state = self.now();
        let commit = state.hard_state.commit.max(state.base.index).0;
        let from = LogIndex(commit + 1 + self.rng.below(state.last().index.0 - commit + 1));
        let cut = state.entries.extract_if(.., |e| e.index >= from).collect();
        self.lost = (state.last(), cut);
        self.new_term = true;
        self.states.push(state);
        self.log.truncate_suffix(from)
    }

    pub fn trim(&mut self) -> Result<(), StorageError> {
        let mut state = self.now();
        let last = state.last();
        let mut offset = Offset(self.rng.below(last.offset.0 + 1));
        if self.rng.once_in(2) {
            // A trim of everything seals the newest segment, too.
            offset = last.offset;
            let term = Term(self.term.max(last.term.0));
            state.hard_state = HardState { term, vote: None, commit: last.index };
            self.states.push(state.clone());
            self.log.append_hard_state(&state.hard_state)?;
        }
        let commit = state.hard_state.commit;
        self.set_log_state(&state, offset);
        let base = self.log.trim(offset, commit)?;
        assert!(base.offset <= offset.max(state.base.offset) && base.index <= commit.max(state.base.index));
        state.base = base;
        self.states.push(state);
        Ok(())
    }

    /// Passes the state after the committed entries to the log. After a snapshot, it may include later ones.
    fn set_log_state(&mut self, state: &State, first_offset: Offset) {
        let as_of = state.hard_state.commit.max(self.log.log_state_index);
        let tables = state.tables_at(self.group, as_of);
        self.log.set_log_state(LogState { first_offset, last_append_time_us: self.clock, tables }, as_of);
    }

    pub fn snapshot(&mut self) -> Result<(), StorageError> {
        let last = self.now().last();
        let index = LogIndex(last.index.0 + 1 + self.rng.below(9));
        self.term += 1;
        let base = Base {
            index,
            term: Term(self.term),
            offset: Offset(last.offset.0 + self.rng.below(9)),
            digest: Digest(index.0),
        };
        // On real replicas, the states after the same entry are equal.
        let log_state_index = LogIndex(index.max(self.log.log_state_index.next()).0 + self.rng.below(4));
        let mut tables = self.now().tables_at(self.group, last.index);
        let skipped = Base { index: LogIndex(log_state_index.0 - 1), ..last };
        if self.rng.once_in(4) {
            tables = Arc::default();
        } else {
            let skipped = commands(skipped, Term(self.term), &mut self.rng, self.clock);
            replay(&mut tables, self.group, &[skipped]).expect("applied");
        }
        let snapshot = LogSnapshot {
            base,
            catalog: None,
            conf_state: ConfState { voters: vec![ReplicaId(index.0)], learners: Vec::new() },
            conf_index: index,
            log_state: LogState { tables: tables.clone(), ..LogState::default() },
            log_state_index,
        };
        let hard_state = HardState { term: base.term, vote: None, commit: index };
        self.states.push(State {
            start: base,
            start_conf: index,
            start_tables: (tables, log_state_index),
            entries: Vec::new(),
            hard_state,
            base,
            conf_index: index,
        });
        self.log.install_snapshot(&snapshot, &hard_state)
    }

    /// Applies what is committed, which changes the conf state.
    pub fn apply(&mut self) -> Result<(), StorageError> {
        let state = self.now();
        let commit = state.hard_state.commit;
        self.log.set_applied(commit);
        self.set_log_state(&state, self.log.log_state.first_offset);
        if commit > state.conf_index {
            // The owner of a log syncs the commit index before it applies entries.
            self.sync()?;
            if self.now().hard_state.commit < commit || self.now().conf_index >= commit {
                return Ok(()); // a snapshot came between
            }
            let voters = vec![ReplicaId(commit.0)];
            self.log.set_conf_state(ConfState { voters, learners: Vec::new() }, commit);
            let mut state = self.now();
            state.conf_index = commit;
            self.states.push(state);
        }
        Ok(())
    }

    /// Writes the durable position to the manifest between two sync jobs, whatever was appended since the last one.
    pub fn note(&mut self) -> Result<(), StorageError> {
        if let Some(job) = self.log.begin_note() {
            job.perform(&self.sim.disk())?;
            self.log.end_sync(job);
        }
        Ok(())
    }

    pub fn close(&mut self) -> Result<(), StorageError> {
        self.log.close().map(|()| self.states = vec![self.now()])
    }

    pub fn sync(&mut self) -> Result<(), StorageError> {
        let covered = self.states.len() - 1;
        let job = self.log.begin_sync();
        // The log is written during the sync.
        self.syncing = true;
        for _ in 0..self.rng.below(4) {
            self.step()?;
        }
        if let Some(job) = job {
            job.perform(&self.sim.disk())?;
            for _ in 0..self.rng.below(2) {
                self.step()?;
            }
            self.log.end_sync(job);
        }
        self.syncing = false;
        self.states.drain(..covered);
        Ok(())
    }

    /// Restarts and compares the result; returns `false` if the process died during the restart.
    pub fn reopen(&mut self) -> bool {
        self.syncing = false;
        let Some((log, state)) = self.look(&self.sim) else { return false };
        let newest = self.now();
        let last = state.last();
        if newest.last() == last || newest.entries.iter().any(|e| (e.index, e.term) == (last.index, last.term)) {
            self.lost = (last, newest.entries.into_iter().filter(|e| e.index > last.index).collect());
        }
        self.term = self.term.max(state.hard_state.term.0);
        self.new_term = true;
        // A start syncs before it reads.
        self.states = vec![state];
        self.log = log;
        true
    }

    /// Starts on a disk with the group's files, and compares the log with its possible states; `None` if the process
    /// died during the start.
    pub fn look(&self, sim: &Sim) -> Option<(GroupLog, State)> {
        let (log, found) = match GroupLog::open(&sim.disk(), self.groups_dir, self.group, &self.options) {
            Ok(opened) => opened,
            Err(_) if sim.died() => return None,
            Err(error) => panic!("refused: {error}"),
        };
        let reader = log.reader();
        let entries = reader.entries(found.base.index.next(), LogIndex(u64::MAX), u64::MAX, Access::Blocking);
        let entries = entries.expect("entries");
        let bases: Vec<Base> = self.states.iter().map(|s| s.base).collect();
        assert!(bases.contains(&found.base), "{:?} is none of {bases:?}", found.base);
        let Some(state) = self.states.iter().rev().find(|s| s.matches(&found, &entries)) else {
            let states: Vec<_> = self.states.iter().map(|s| (s.start, s.last(), s.hard_state)).collect();
            panic!("found {found:#?},\nnone of {states:#?}");
        };
        assert_eq!(log.last(), state.last(), "the digest is that of the entries");
        assert!(log.checkpoints().iter().all(|at| at.index <= log.last().index), "{:?}", log.checkpoints());
        let ends = state.entries.iter().scan(state.start, |at, entry| {
            *at = at.then(entry).expect("a stamp");
            Some(*at)
        });
        for at in ends {
            assert!(log.known_at(at.index).is_none_or(|known| known == at), "the checkpoint at {at:?}");
        }
        assert!(found.base.index >= self.states[0].base.index, "what was trimmed stays so");
        assert!(found.conf_index >= self.states[0].conf_index);
        assert!((found.base.index..=found.hard_state.commit).contains(&found.applied), "{found:?}");
        assert!(found.log_state_index >= found.base.index, "nothing else knows of what was dropped: {found:?}");
        let expected = state.tables_at(self.group, found.log_state_index);
        assert_eq!(found.log_state.tables, expected, "the tables after entry {}", found.log_state_index);
        if found.conf_index > LogIndex(1) {
            assert_eq!(found.conf_state.voters, [ReplicaId(found.conf_index.0)]);
        }
        let records = reader.records(found.base.offset, found.next_offset, u32::MAX, usize::MAX, Access::Blocking);
        let payloads: Vec<u8> =
            entries.iter().filter(|e| e.stamp().expect("a stamp").count > 0).flat_map(|e| e.payload()).collect();
        assert_eq!(records.expect("records").bytes, payloads);
        for some in [entries.len() / 3, entries.len() / 2].into_iter().filter_map(|i| entries.get(i)) {
            let one = reader.entries(some.index, some.index.next(), 0, Access::Blocking);
            assert_eq!(one.as_deref(), Ok(std::slice::from_ref(some)), "by its index");
        }
        let state =
            State { hard_state: found.hard_state, base: found.base, conf_index: found.conf_index, ..state.clone() };
        Some((log, state))
    }
}
