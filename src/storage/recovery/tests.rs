//! Random histories of a log and its crashes against a model.
//!
//! A log is appended to, truncated, trimmed, given markers, synced, marked and closed; at any change of the disk the
//! process may die, by a kill (the page cache stays) or a power cut (of what was not synced, any part is lost), also inside
//! recovery. After each restart it must hold one of the states that it had since the last finished sync, and never refuse.

use std::path::Path;

use super::super::disk::sim::{Rng, Sim};
use super::super::entry::{Entry, Kind, Stamp};
use super::super::payload::{RecordFields, encode_record, stamp_records};
use super::super::state::{Base, ConfState, Derived, Genesis, Marker};
use super::*;
use crate::types::{LogIndex, NodeId, Offset, Term};

const GROUPS: &str = "/data/groups";
const GROUP: GroupId = GroupId(7);

pub(super) fn options() -> LogOptions {
    LogOptions { segment_bytes: 4096 }
}

/// What a log holds, apart from what a trim has dropped.
#[derive(Clone, Debug, PartialEq)]
struct State {
    /// Where it begins: 1, or the last marker.
    start: Base,
    entries: Vec<Entry>,
    hard_state: HardState,
    /// The base, which trims move on their own.
    base: Base,
    conf_index: LogIndex,
}

impl State {
    fn last(&self) -> Base {
        self.entries.last().map_or(self.start, |entry| Base {
            index: entry.index,
            term: entry.term,
            offset: entry.end_offset().expect("a stamp"),
        })
    }

    /// The state as recovery tells it, when it begins at `base`.
    fn matches(&self, found: &Recovered, entries: &[Entry]) -> bool {
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
            && mine.eq(entries)
    }
}

struct Model {
    sim: Sim,
    rng: Rng,
    log: GroupLog,
    /// The states since the last finished sync, that one first.
    states: Vec<State>,
    term: u64,
    clock: u64,
    /// All entries take the same space: what is left of old ones fits behind new ones.
    even: bool,
    /// A job is under way.
    syncing: bool,
}

fn entry(index: LogIndex, term: Term, base: Offset, rng: &mut Rng, even: bool, time: u64) -> Entry {
    let kind = match rng.below(8) {
        0 if !even => Kind::Noop,
        1 if !even => Kind::ConfChange,
        _ => Kind::Records,
    };
    let mut payload = Vec::new();
    let count = match kind {
        Kind::Records if even => 1,
        Kind::Records => 1 + rng.below(3) as u32,
        _ => 0,
    };
    for _ in 0..count {
        let bytes = if even { 400 } else { rng.below(400) as usize };
        let value = vec![rng.next() as u8; bytes];
        encode_record(&mut payload, &RecordFields { value: &value, ..RecordFields::default() });
    }
    stamp_records(&mut payload, base, term, time).expect("canonical");
    let stamp = Stamp { kind, count, base_offset: base, append_time_us: time, producer_id: 0, sequence: 0 };
    Entry::new(index, term, stamp, &payload)
}

impl Model {
    fn new(seed: u64) -> Model {
        let sim = Sim::default();
        let disk = sim.disk();
        GroupLog::create(&disk, Path::new(GROUPS), GROUP, &options(), Genesis::Founder(NodeId(1))).expect("made");
        let (log, found) = GroupLog::open(&disk, Path::new(GROUPS), GROUP, &options()).expect("opened");
        let state = State {
            start: found.base,
            entries: Vec::new(),
            hard_state: found.hard_state,
            base: found.base,
            conf_index: found.conf_index,
        };
        let even = seed.is_multiple_of(2);
        Model { sim, rng: Rng(seed), log, states: vec![state], term: 1, clock: 0, even, syncing: false }
    }

    fn now(&self) -> State {
        self.states[self.states.len() - 1].clone()
    }

    /// One step; an error means that the process died in it.
    fn step(&mut self) -> Result<(), StorageError> {
        let mut state = self.now();
        let last = state.last();
        match self.rng.below(24) {
            0..=7 => {
                if self.rng.once_in(6) {
                    self.term += 1;
                }
                let mut entries = Vec::new();
                for _ in 0..1 + self.rng.below(5) {
                    self.clock += 1;
                    let last = state.last();
                    let term = Term(self.term.max(last.term.0));
                    let entry = entry(last.index.next(), term, last.offset, &mut self.rng, self.even, self.clock);
                    state.entries.push(entry.clone());
                    entries.push(entry);
                    // Each is a state of its own: any number of them may be on the disk.
                    self.states.push(state.clone());
                }
                self.log.append(&entries)
            }
            8..=11 => {
                let commit = state.hard_state.commit.0;
                state.hard_state = HardState {
                    term: Term(self.term.max(last.term.0)),
                    vote: Some(NodeId(1 + self.rng.below(3))).filter(|v| v.0 < 3),
                    commit: LogIndex(commit + self.rng.below(last.index.0 - commit + 1)),
                };
                self.states.push(state.clone());
                self.log.append_hard_state(&state.hard_state)
            }
            12..=13 => {
                let commit = state.hard_state.commit.max(state.base.index).0;
                let from = LogIndex(commit + 1 + self.rng.below(last.index.0 - commit + 1));
                self.term += 1;
                state.entries.retain(|e| e.index < from);
                self.states.push(state);
                self.log.truncate_suffix(from)
            }
            14 => {
                let mut offset = Offset(self.rng.below(last.offset.0 + 1));
                if self.rng.once_in(2) {
                    // All of it: then the newest segment ends, too.
                    offset = last.offset;
                    let term = Term(self.term.max(last.term.0));
                    state.hard_state = HardState { term, vote: None, commit: last.index };
                    self.states.push(state.clone());
                    self.log.append_hard_state(&state.hard_state)?;
                }
                let commit = state.hard_state.commit;
                self.log.set_derived(Derived { first_offset: offset, last_append_time_us: self.clock }, commit);
                let base = self.log.trim(offset, commit)?;
                assert!(base.offset <= offset.max(state.base.offset) && base.index <= commit.max(state.base.index));
                state.base = base;
                self.states.push(state);
                Ok(())
            }
            15 if self.rng.once_in(3) => {
                let index = LogIndex(last.index.0 + 1 + self.rng.below(9));
                self.term += 1;
                let base = Base { index, term: Term(self.term), offset: Offset(last.offset.0 + self.rng.below(9)) };
                let marker = Marker {
                    base,
                    conf_state: ConfState { voters: vec![NodeId(index.0)], learners: Vec::new() },
                    conf_index: index,
                    derived: Derived::default(),
                    derived_index: index,
                };
                let hard_state = HardState { term: base.term, vote: None, commit: index };
                self.states.push(State { start: base, entries: Vec::new(), hard_state, base, conf_index: index });
                self.log.install_marker(&marker, &hard_state)
            }
            16 if !self.syncing => {
                let commit = state.hard_state.commit;
                self.log.set_applied(commit);
                if commit > state.conf_index {
                    // Its owner has the commit synced before.
                    self.sync()?;
                    if self.now().hard_state.commit < commit || self.now().conf_index >= commit {
                        return Ok(()); // a marker came between
                    }
                    let voters = vec![NodeId(commit.0)];
                    self.log.set_conf_state(ConfState { voters, learners: Vec::new() }, commit);
                    let mut state = self.now();
                    state.conf_index = commit;
                    self.states.push(state);
                }
                Ok(())
            }
            17 => self.log.append_synced_mark().map(|_| ()),
            18 if !self.syncing => self.log.close().map(|()| self.states = vec![self.now()]),
            _ if !self.syncing => self.sync(),
            _ => Ok(()),
        }
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        let covered = self.states.len() - 1;
        let job = self.log.begin_sync();
        // The log is written while it is synced.
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

    /// Starts again, and again if it dies in that, and compares.
    fn restart(&mut self) {
        self.syncing = false;
        let disk = self.sim.disk();
        loop {
            if self.rng.once_in(2) {
                self.sim.power_cut(&mut self.rng);
            }
            self.sim.die_after(self.rng.once_in(3).then(|| self.rng.below(12)));
            match GroupLog::open(&disk, Path::new(GROUPS), GROUP, &options()) {
                Ok((log, found)) => {
                    self.sim.die_after(None);
                    self.log = log;
                    self.check(&found);
                    return;
                }
                Err(StorageError::Io { .. }) => self.sim.die_after(None),
                Err(error) => panic!("refused: {error}"),
            }
        }
    }

    fn check(&mut self, found: &Recovered) {
        let reader = self.log.reader();
        let entries = reader.entries(found.base.index.next(), LogIndex(u64::MAX), u64::MAX, super::Access::Blocking);
        let entries = entries.expect("entries");
        let bases: Vec<Base> = self.states.iter().map(|s| s.base).collect();
        assert!(bases.contains(&found.base), "{:?} is none of {bases:?}", found.base);
        let Some(state) = self.states.iter().rev().find(|s| s.matches(found, &entries)) else {
            let states: Vec<_> = self.states.iter().map(|s| (s.start, s.last(), s.hard_state)).collect();
            panic!("found {found:#?},\nnone of {states:#?}");
        };
        assert!(found.conf_index >= self.states[0].conf_index && found.applied <= found.hard_state.commit);
        if found.conf_index > LogIndex(1) {
            assert_eq!(found.conf_state.voters, [NodeId(found.conf_index.0)]);
        }
        let state =
            State { hard_state: found.hard_state, base: found.base, conf_index: found.conf_index, ..state.clone() };
        let records = reader.records(found.base.offset, found.next_offset, u32::MAX, usize::MAX, Access::Blocking);
        let payloads: Vec<u8> =
            entries.iter().filter(|e| e.stamp().expect("a stamp").count > 0).flat_map(|e| e.payload()).collect();
        assert_eq!(records.expect("records").bytes, payloads);
        self.term = self.term.max(found.hard_state.term.0) + 1;
        // What was found was synced before it was read.
        self.states = vec![state];
    }
}

#[test]
fn random_histories() {
    let histories = std::env::var("SERIATIM_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(1500);
    let first: u64 = std::env::var("SERIATIM_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    for seed in first..first + histories {
        let told = std::panic::catch_unwind(|| {
            let mut model = Model::new(seed);
            for _ in 0..8 {
                let deadly = model.rng.below(60);
                model.sim.die_after(Some(deadly));
                while model.step().is_ok() {}
                model.sim.die_after(None);
                model.restart();
            }
        });
        assert!(told.is_ok(), "history {seed} failed: SERIATIM_SEED={seed} SERIATIM_HISTORIES=1 runs it alone");
    }
}
