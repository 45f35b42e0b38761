//! A log compared with a plain `Vec`: random appends, new segments, truncations, trims, snapshots, syncs and reopens,
//! and between them reads of all kinds, each of which must return the contents of the `Vec`. Nothing is lost here, so a
//! reopen must change nothing.

use std::path::Path;

use super::entries::entry;
use crate::storage::format::digest::Digest;
use crate::storage::format::entry::Entry;
use crate::storage::format::payload;
use crate::storage::format::state::{Base, ConfState, Genesis, HardState, LogSnapshot, LogState};
use crate::storage::io::disk::Access;
use crate::storage::io::disk::sim::{Rng, Sim};
use crate::storage::read::error::ReadError;
use crate::storage::read::reader::GroupReader;
use crate::storage::write::log::GroupLog;
use crate::storage::write::options::LogOptions;
use crate::types::{GroupId, LogIndex, Offset, ReplicaId, Term};

const GROUPS: &str = "/data/groups";
const GROUP: GroupId = GroupId(7);
const STEPS: u64 = 2000;

struct Plain {
    sim: Sim,
    rng: Rng,
    options: LogOptions,
    log: GroupLog,
    /// A reader that is kept until the next reopen.
    reader: GroupReader,
    base: Base,
    entries: Vec<Entry>,
    /// The end of the log after each entry.
    ends: Vec<Base>,
    hard_state: HardState,
    /// True while the manifest with the new base is not on the disk, so that a kill would restore the old base.
    begins_anew: bool,
    term: u64,
    clock: u64,
}

impl Plain {
    fn new(seed: u64) -> Plain {
        let mut rng = Rng(seed);
        let sim = Sim::default();
        let options = LogOptions { segment_bytes: [300, 1000, 4096, 20_000][rng.below(4) as usize] };
        let genesis = Genesis::founder(ReplicaId(1));
        GroupLog::create(&sim.disk(), Path::new(GROUPS), GROUP, &options, genesis).expect("made");
        let (log, found) = GroupLog::open(&sim.disk(), Path::new(GROUPS), GROUP, &options).expect("opened");
        Plain {
            sim,
            rng,
            options,
            reader: log.reader(),
            log,
            base: found.base,
            entries: Vec::new(),
            ends: Vec::new(),
            hard_state: found.hard_state,
            begins_anew: false,
            term: 1,
            clock: 0,
        }
    }

    fn last(&self) -> Base {
        self.ends.last().copied().unwrap_or(self.base)
    }

    fn step(&mut self) {
        let last = self.last();
        match self.rng.below(24) {
            0..=9 => {
                let from = self.entries.len();
                for _ in 0..1 + self.rng.below(6) {
                    self.clock += 1;
                    self.term += u64::from(self.rng.once_in(20));
                    let next = entry(self.last(), Term(self.term), &mut self.rng, false, self.clock);
                    self.ends.push(self.last().then(&next).expect("a stamp"));
                    self.entries.push(next);
                }
                self.log.append(&self.entries[from..]).expect("appended");
            }
            10..=12 => {
                let commit = self.hard_state.commit.max(self.base.index).0;
                let commit = LogIndex(commit + self.rng.below(last.index.0 - commit + 1));
                self.hard_state = HardState { term: Term(self.term), vote: Some(ReplicaId(2)), commit };
                self.log.append_hard_state(&self.hard_state).expect("appended");
                self.log.set_applied(commit);
            }
            13 => self.log.roll().expect("rolled"),
            14..=15 => {
                let commit = self.hard_state.commit.max(self.base.index).0;
                let from = LogIndex(commit + 1 + self.rng.below(last.index.0 - commit + 1));
                self.log.truncate_suffix(from).expect("cut");
                self.entries.retain(|e| e.index < from);
                self.ends.truncate(self.entries.len());
                self.term += 1;
            }
            16 => self.trim(),
            17 if self.rng.once_in(8) => self.snapshot(),
            18..=20 => self.sync(),
            21 => self.note(),
            22 if self.rng.once_in(3) => self.reopen(),
            _ => {}
        }
        assert_eq!(self.log.bounds().base, self.base);
        let last = self.last();
        assert_eq!(self.log.last(), last, "the digest is that of the entries");
        let bounds = self.log.bounds();
        assert_eq!((bounds.last_index, bounds.last_term, bounds.next_offset), (last.index, last.term, last.offset));
        self.read_entries();
        self.read_records();
    }

    fn note(&mut self) {
        if let Some(job) = self.log.begin_note() {
            job.perform(&self.sim.disk()).expect("noted");
            self.log.end_sync(job);
        }
    }

    fn sync(&mut self) {
        if let Some(job) = self.log.begin_sync() {
            job.perform(&self.sim.disk()).expect("synced");
            self.log.end_sync(job);
        }
        self.begins_anew = false;
    }

    fn trim(&mut self) {
        let commit = self.hard_state.commit;
        let offset = Offset(self.base.offset.0 + self.rng.below(self.last().offset.0 - self.base.offset.0 + 1));
        self.log.set_log_state(
            LogState { first_offset: offset, last_append_time_us: self.clock, ..LogState::default() },
            commit,
        );
        let base = self.log.trim(offset, commit).expect("trimmed");
        assert!(base.offset <= offset && base.index <= commit && base.index >= self.base.index, "{base:?}");
        let dropped = self.entries.iter().filter(|e| e.index <= base.index).count();
        if let Some(at) = self.ends[..dropped].last() {
            assert_eq!(base, *at);
        }
        self.entries.drain(..dropped);
        self.ends.drain(..dropped);
        self.begins_anew |= base != self.base;
        self.base = base;
    }

    fn snapshot(&mut self) {
        self.term += 1;
        let last = self.last();
        let index = LogIndex(last.index.0 + 1 + self.rng.below(9));
        let base = Base {
            index,
            term: Term(self.term),
            offset: Offset(last.offset.0 + self.rng.below(9)),
            digest: Digest(index.0),
        };
        let conf_state = ConfState { voters: vec![ReplicaId(3)], learners: vec![ReplicaId(4)] };
        let log_state = LogState { first_offset: base.offset, last_append_time_us: self.clock, ..LogState::default() };
        let snapshot =
            LogSnapshot { base, conf_state, conf_index: index, log_state, log_state_index: index, catalog: None };
        self.hard_state = HardState { term: base.term, vote: None, commit: index };
        self.log.install_snapshot(&snapshot, &self.hard_state).expect("installed");
        self.base = base;
        self.entries.clear();
        self.ends.clear();
        self.begins_anew = true;
    }

    /// Stops by a kill, or by a power cut after everything is synced, and starts again.
    fn reopen(&mut self) {
        if self.rng.once_in(2) && !self.begins_anew {
            self.sim.kill();
        } else {
            self.sync();
            self.sim.power_cut(&mut self.rng);
        }
        let (log, found) = GroupLog::open(&self.sim.disk(), Path::new(GROUPS), GROUP, &self.options).expect("opened");
        let last = self.last();
        assert_eq!((found.base, found.torn_bytes), (self.base, 0));
        assert_eq!((found.last_index, found.last_term, found.next_offset), (last.index, last.term, last.offset));
        let raised = last.term > self.hard_state.term;
        let hard_state = HardState { term: last.term, vote: None, ..self.hard_state };
        assert_eq!(found.hard_state, if raised { hard_state } else { self.hard_state });
        self.hard_state = found.hard_state;
        assert_eq!(log.last(), last, "the digest is found again");
        // The reopened log has all checkpoints of the old one.
        assert!(self.log.checkpoints().iter().all(|at| log.checkpoints().contains(at)));
        for at in self.ends.iter().chain([&self.base]) {
            assert!(log.known_at(at.index).is_none_or(|known| known == *at), "the checkpoint at {at:?}");
        }
        self.reader = log.reader();
        self.log = log;
    }

    fn read_entries(&mut self) {
        let low = LogIndex(self.base.index.0 + self.rng.below(self.entries.len() as u64 + 3));
        let high = LogIndex(low.0 + self.rng.below(12));
        let bytes_max = [0, 500, 2000, u64::MAX][self.rng.below(4) as usize];
        let found = self.reader.entries(low, high, bytes_max, Access::Blocking);
        if low <= self.base.index {
            assert_eq!(found, Err(ReadError::Trimmed { first_offset: self.base.offset }));
            return;
        }
        let mut bytes = 0;
        let mut wanted: Vec<&Entry> = Vec::new();
        for entry in self.entries.iter().filter(|e| e.index >= low && e.index < high) {
            bytes += entry.data.len() as u64;
            if bytes > bytes_max && !wanted.is_empty() {
                break;
            }
            wanted.push(entry);
        }
        assert!(found.expect("entries").iter().eq(wanted), "{low} to {high}, {bytes_max} bytes");
    }

    fn read_records(&mut self) {
        let last = self.last().offset.0;
        let from = Offset((self.base.offset.0 + self.rng.below(last - self.base.offset.0 + 2)).saturating_sub(1));
        let until = Offset(from.0 + self.rng.below(40)).min(Offset(last));
        let records_max = [0, 1, 3, u32::MAX][self.rng.below(4) as usize];
        let bytes_max = [0, 300, 2000, usize::MAX][self.rng.below(4) as usize];
        let found = self.reader.records(from, until, records_max, bytes_max, Access::Blocking);
        if from < self.base.offset {
            assert_eq!(found, Err(ReadError::Trimmed { first_offset: self.base.offset }));
            return;
        }
        let (mut bytes, mut count) = (Vec::new(), 0);
        'entries: for entry in &self.entries {
            let stamp = entry.stamp().expect("a stamp");
            if stamp.count == 0 || entry.end_offset().expect("a stamp") <= from {
                continue;
            }
            for (offset, record) in (stamp.base_offset.0..).zip(payload::records(&entry.payload())) {
                let record = record.expect("a record");
                if offset < from.0 {
                    continue;
                }
                let full = count > 0 && bytes.len() + record.len() > bytes_max;
                if offset >= until.0 || count >= records_max || full {
                    break 'entries;
                }
                bytes.extend_from_slice(record);
                count += 1;
            }
        }
        let found = found.expect("records");
        assert_eq!((found.count, found.next), (count, Offset(from.0 + u64::from(count))), "{from} to {until}");
        assert!(found.bytes == bytes, "{from} to {until}, {records_max} records, {bytes_max} bytes");
    }
}

#[test]
fn a_log_is_a_vec() {
    super::by_seed(100, |seed| {
        let mut plain = Plain::new(seed);
        for _ in 0..STEPS {
            plain.step();
        }
    });
}
