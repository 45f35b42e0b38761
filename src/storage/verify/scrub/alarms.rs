//! No false alarms: whatever a log does, neither a pass of the scrub at any moment nor a check of the files that a kill
//! would leave finds damage. The running digest always is that of the entries, whatever was truncated, trimmed or
//! replaced by a snapshot.

use std::path::Path;

use super::*;
use crate::storage::format::digest::Digest;
use crate::storage::format::frame::{Header, Position};
use crate::storage::format::state::{CatalogState, Genesis, HardState, LogSnapshot, LogState};
use crate::storage::io::disk::sim::{Rng, Sim};
use crate::storage::io::node::DataDir;
use crate::storage::verify::{Severity, verify};
use crate::storage::write::log::GroupLog;
use crate::storage::write::log::tests::batch;
use crate::storage::write::options::LogOptions;
use crate::storage::write::sync::SyncJob;
use crate::types::{LogIndex, NodeId, NodeName, ReplicaId, Term};

const GROUP: GroupId = GroupId::CATALOG;
const DATA: &str = "/mnt/data";
const OPTIONS: LogOptions = LogOptions { segment_bytes: 4096 };

struct Life {
    sim: Sim,
    rng: Rng,
    log: GroupLog,
    term: u64,
    job: Option<SyncJob>,
}

impl Life {
    fn open(sim: &Sim) -> GroupLog {
        GroupLog::open(&sim.disk(), &Path::new(DATA).join("groups"), GROUP, &OPTIONS).expect("opened").0
    }

    fn new(seed: u64) -> Life {
        let sim = Sim::default();
        let data = DataDir::open(&sim.disk(), Path::new(DATA)).expect("made");
        GroupLog::create(&sim.disk(), &data.groups_dir(), GROUP, &OPTIONS, Genesis::founder(ReplicaId(5)))
            .expect("made");
        let node = NodeFile::new(NodeId(5), NodeName::new("a").expect("a name")).with_group(GROUP);
        data.store(&node).expect("stored");
        // The log is trimmed up to a snapshot of the catalog.
        let snapshot = CatalogState { index: LogIndex(1 << 40), ..CatalogState::default() };
        data.store_catalog(&snapshot).expect("stored");
        let log = Life::open(&sim);
        Life { sim, rng: Rng(seed), log, term: 1, job: None }
    }

    fn end_job(&mut self) {
        if let Some(job) = self.job.take() {
            job.perform(&self.sim.disk()).expect("performed");
            self.log.end_sync(job);
        }
    }

    fn commit(&mut self) {
        let commit = self.log.bounds().last_index;
        let hard_state = HardState { term: Term(self.term), vote: Some(ReplicaId(9)), commit };
        self.log.append_hard_state(&hard_state).expect("appended");
    }

    fn step(&mut self) {
        match self.rng.below(20) {
            0..=7 => {
                let value = vec![7; self.rng.below(700) as usize];
                let values = [&value[..], b"b"];
                let entry = batch(&self.log, self.term, &values[..self.rng.below(3) as usize]);
                self.log.append(&[entry]).expect("appended");
            }
            8 => self.commit(),
            9..=12 => {
                self.end_job();
                self.job = if self.rng.once_in(3) { self.log.begin_note() } else { self.log.begin_sync() };
            }
            13 => self.end_job(),
            14 => self.log.roll().expect("rolled"),
            15 => {
                let (commit, last) = (self.log.hard_state.commit, self.log.bounds().last_index);
                let base = self.log.bounds().base.index;
                let kept = commit.max(base).0;
                self.term += 1;
                if last.0 > kept {
                    self.log.truncate_suffix(LogIndex(kept + 1 + self.rng.below(last.0 - kept))).expect("cut");
                }
            }
            16 => {
                let (first, next) = (self.log.bounds().base.offset, self.log.bounds().next_offset);
                let applied = self.log.hard_state.commit;
                let first_offset = Offset(first.0 + self.rng.below(next.0 - first.0 + 1));
                self.log
                    .set_log_state(LogState { first_offset, last_append_time_us: 1, ..LogState::default() }, applied);
                self.log.trim(first_offset, applied).expect("trimmed");
            }
            17 if self.rng.once_in(4) => {
                let mut base = self.log.last();
                (base.index, base.offset) = (LogIndex(base.index.0 + 5), Offset(base.offset.0 + 7));
                base.digest = Digest(self.rng.next());
                let snapshot =
                    LogSnapshot { base, conf_index: base.index, log_state_index: base.index, ..LogSnapshot::default() };
                let hard_state = HardState { term: Term(self.term), vote: None, commit: base.index };
                self.log.install_snapshot(&snapshot, &hard_state).expect("installed");
            }
            18 if self.rng.once_in(3) => {
                self.job = None;
                if self.rng.once_in(2) {
                    self.log.close().ok();
                }
                self.sim = self.sim.copy();
                self.sim.kill();
                self.log = Life::open(&self.sim);
            }
            _ => {}
        }
    }

    fn check(&self) {
        let handle = ScrubHandle::default();
        handle.add(GROUP, self.log.reader());
        let (_sender, inbox) = bounded(1);
        let node_file = Path::new(DATA).join(NODE_FILE);
        let options = ScrubOptions { bytes_per_second: u64::MAX, interval: Duration::from_secs(1) };
        let scrubber = Scrubber { handle, disk: self.sim.disk(), node_file, options, inbox };
        assert!(scrubber.pass().is_ok(), "not stopped");
        assert_eq!(scrubber.handle.damaged(GROUP), []);
        let left = self.sim.copy();
        let report = verify(&left.disk(), Path::new(DATA)).expect("looked");
        assert!(report.worst() < Some(Severity::Damage), "{:?}", report.findings);
        let bounds = self.log.bounds();
        let mut digest = bounds.base.digest;
        let mut low = bounds.base.index.next();
        while low <= bounds.last_index {
            let entries = self.log.reader().entries(low, bounds.last_index.next(), u64::MAX, Access::Blocking);
            for entry in entries.expect("entries") {
                let header = Header::of_entry(&entry, Position::default()).expect("an entry");
                digest = digest.then(&header, &entry.payload());
                if let Some(known) = self.log.known_at(entry.index).map(|known| known.digest) {
                    assert_eq!(known, digest, "entry {}", entry.index);
                }
                low = entry.index.next();
            }
        }
        assert_eq!(self.log.last().digest, digest);
    }
}

#[test]
fn reports_no_damage_whatever_a_log_does() {
    for seed in 0..150 {
        let told = std::panic::catch_unwind(|| {
            let mut life = Life::new(seed);
            for _ in 0..60 {
                life.step();
                life.check();
            }
        });
        assert!(told.is_ok(), "seed {seed}");
    }
}
