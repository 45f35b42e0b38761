//! One scripted life of a node whose replicas come and go, stopped at every change of the disk, and again inside the
//! next start. After each start the node replays the catalog's history, as far as its snapshot does not contain it.
//!
//! Always: a replica that was listed is found again with its vote, until it is given up; no replica is created again
//! after it was listed once; in the end exactly the replicas of the history exist, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;

use super::entries::entry;
use crate::storage::error::StorageError;
use crate::storage::format::state::{CatalogState, Genesis, HardState, LogState};
use crate::storage::io::disk::sim::{Rng, Sim};
use crate::storage::io::node::{DataDir, NodeFile};
use crate::storage::recover::replicas::{Files, give_up, retired_dirs, take_up, unlist_retired};
use crate::storage::recover::unlisted::check_groups;
use crate::storage::verify::{Severity, verify};
use crate::storage::write::log::GroupLog;
use crate::storage::write::options::LogOptions;
use crate::storage::write::removal::Removal;
use crate::types::{ClusterId, GroupId, LogIndex, NodeId, NodeName, Offset, ReplicaId, Term};

const HOME: &str = "/mnt/data";
/// The id of the node, and of its replicas in groups of older clusters.
const OWN: u64 = 3;
/// The number of different power cuts at each change.
const CUTS: u64 = 3;

/// What an entry of the catalog does to this node: a replica of a group begins or ends.
#[derive(Clone, Copy, Debug)]
enum Change {
    Placed(u64, u64),
    Removed(u64, u64),
    /// Nothing for this node. The catalog is stored, and its log trimmed.
    Stored,
}

use Change::{Placed, Removed, Stored};

const HISTORY: [Change; 14] = [
    Placed(1, OWN),
    Placed(2, 10),
    Placed(3, 12),
    Removed(2, 10),
    Stored,
    Placed(2, 15),
    Removed(1, OWN),
    Removed(3, 12),
    Placed(4, 20),
    Stored,
    Removed(2, 15),
    Placed(2, 21),
    Placed(5, 30),
    Removed(5, 30),
];
/// The replicas in the end.
const LEFT: [(u64, u64); 3] = [(0, OWN), (2, 21), (4, 20)];

/// What was promised by finished writes.
#[derive(Clone, Default)]
struct Promised {
    /// The replicas that `node.toml` has listed once.
    listed: BTreeSet<(GroupId, ReplicaId)>,
    /// Those that are not given up.
    held: BTreeMap<GroupId, ReplicaId>,
    /// Those whose vote is synced.
    voted: BTreeSet<(GroupId, ReplicaId)>,
    /// The last entry of the catalog that is synced.
    catalog: LogIndex,
}

struct Node {
    data: DataDir,
    file: NodeFile,
    catalog: GroupLog,
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 1500 }
}

fn genesis(replica: ReplicaId) -> Genesis {
    Genesis::Voters(vec![replica, ReplicaId(99)], Offset(0))
}

fn sync(data: &DataDir, log: &mut GroupLog) -> Result<(), StorageError> {
    if let Some(job) = log.begin_sync() {
        job.perform(data.disk())?;
        log.end_sync(job);
    }
    Ok(())
}

/// Starts, and checks what is found. The lock of an earlier process is gone.
fn start(sim: &Sim, promised: &mut Promised) -> Result<Node, StorageError> {
    let data = DataDir::open(&sim.disk(), Path::new(HOME))?;
    let stored = data.load()?;
    check_groups(&data, stored.as_ref())?;
    let mut file = stored.clone().unwrap_or_else(|| NodeFile::new(NodeId(OWN), NodeName::new("a").expect("a name")));
    unlist_retired(&data, &mut file)?;
    if stored.as_ref() != Some(&file) {
        data.store(&file)?;
    }
    if file.cluster_id.is_none() {
        let own = file.own_replica();
        file.cluster_id = Some(ClusterId(1));
        take_up(&data, &mut file, [(GroupId::CATALOG, own, Genesis::founder(own))].into_iter(), &options())?;
        promised.listed.insert((GroupId::CATALOG, own));
        promised.held.insert(GroupId::CATALOG, own);
    }
    for (group, replica) in &promised.held {
        assert_eq!(file.groups.get(group), Some(replica), "group {group} is not listed any more");
    }
    let snapshot = data.load_catalog()?;
    let mut catalog = None;
    for (group, replica) in &file.groups {
        let (log, found) = GroupLog::open(data.disk(), &data.groups_dir(), *group, &options())?;
        let voted = promised.voted.contains(&(*group, *replica));
        assert!(!voted || found.hard_state.vote == Some(*replica), "replica {replica} has forgotten its vote");
        if *group == GroupId::CATALOG {
            data.check_catalog(snapshot.as_ref(), &found.base)?;
            assert!(found.last_index >= promised.catalog, "the catalog has lost entries");
            catalog = Some(log);
        }
    }
    for path in retired_dirs(&data)? {
        let mut removal = Removal::new(path);
        while !removal.step(data.disk())? {}
    }
    let mut node = Node { data, file, catalog: catalog.expect("the catalog") };
    let begins = snapshot.map_or(1, |snapshot| snapshot.index.0);
    for index in begins + 1..=node.catalog.bounds().last_index.0 {
        node.apply(LogIndex(index), promised)?;
    }
    Ok(node)
}

impl Node {
    /// Commits further entries of the catalog, up to the end of the history.
    fn go_on(&mut self, promised: &mut Promised) -> Result<(), StorageError> {
        while self.catalog.bounds().last_index.0 < 1 + HISTORY.len() as u64 {
            let next = entry(self.catalog.last, Term(1), &mut Rng(7), true, 9);
            self.catalog.append(&[next])?;
            let commit = self.catalog.bounds().last_index;
            self.catalog.append_hard_state(&HardState { term: Term(1), vote: None, commit })?;
            sync(&self.data, &mut self.catalog)?;
            promised.catalog = commit;
            self.apply(commit, promised)?;
        }
        Ok(())
    }

    fn apply(&mut self, index: LogIndex, promised: &mut Promised) -> Result<(), StorageError> {
        self.catalog.set_applied(index);
        self.catalog.set_log_state(LogState::default(), index);
        match HISTORY[index.0 as usize - 2] {
            Placed(group, replica) => self.place(GroupId(group), ReplicaId(replica), promised),
            Removed(group, replica) if self.file.groups.get(&GroupId(group)) == Some(&ReplicaId(replica)) => {
                promised.held.remove(&GroupId(group));
                match give_up(&self.data, &mut self.file, GroupId(group), Files::Delete)? {
                    Some(retired) => {
                        let mut removal = Removal::new(retired);
                        while !removal.step(self.data.disk())? {}
                        Ok(())
                    }
                    None => Ok(()),
                }
            }
            Removed(..) => Ok(()),
            Stored => {
                self.data.store_catalog(&CatalogState { index, bytes: Bytes::from_static(b"catalog") })?;
                // The records of the catalog are not read by offset, so its log state never advances.
                self.catalog.trim(Offset::MAX, index)?;
                sync(&self.data, &mut self.catalog)
            }
        }
    }

    fn place(&mut self, group: GroupId, replica: ReplicaId, promised: &mut Promised) -> Result<(), StorageError> {
        if self.file.groups.contains_key(&group) || !self.file.may_create(group, replica) {
            return Ok(());
        }
        assert!(!promised.listed.contains(&(group, replica)), "replica {replica} is created again");
        take_up(&self.data, &mut self.file, [(group, replica, genesis(replica))].into_iter(), &options())?;
        promised.listed.insert((group, replica));
        promised.held.insert(group, replica);
        let (mut log, found) = GroupLog::open(self.data.disk(), &self.data.groups_dir(), group, &options())?;
        assert_eq!(found.conf_state.voters, [replica, ReplicaId(99)], "another replica's files");
        log.append_hard_state(&HardState { term: Term(2), vote: Some(replica), commit: LogIndex(1) })?;
        sync(&self.data, &mut log)?;
        promised.voted.insert((group, replica));
        Ok(())
    }
}

fn live(sim: &Sim, promised: &mut Promised) -> Result<(), StorageError> {
    start(sim, promised)?.go_on(promised)
}

/// Applies one of the kinds of crash to the disk.
fn crash(sim: &Sim, way: u64) {
    sim.die_after(None);
    match way {
        0 => sim.kill(),
        _ => sim.power_cut(&mut Rng(way)),
    }
}

/// Checks the end of the life, after a start that nothing stops.
fn check_end(sim: &Sim, promised: &mut Promised) {
    live(sim, promised).expect("nothing stops it");
    let disk = sim.disk();
    sim.kill();
    let data = DataDir::open(&disk, Path::new(HOME)).expect("opened");
    let file = data.load().expect("loaded").expect("a node");
    assert_eq!(file.groups, LEFT.map(|(group, replica)| (GroupId(group), ReplicaId(replica))).into());
    assert_eq!(retired_dirs(&data).expect("listed"), Vec::<std::path::PathBuf>::new());
    drop(data);
    let report = verify(&disk, Path::new(HOME)).expect("a report");
    assert!(report.worst() < Some(Severity::Format), "{:?}", report.findings);
}

/// Runs the life up to each change, and dies there; then the next start, up to each of its changes. Returns the number
/// of starts.
pub fn told(cuts: u64) -> u64 {
    let mut starts = 0;
    for told in 0.. {
        let (sim, mut promised) = (Sim::default(), Promised::default());
        sim.die_after(Some(told));
        let ended = live(&sim, &mut promised);
        let died = sim.died();
        assert!(ended.is_ok() || died, "it failed for another reason: {:?}", ended.err());
        for way in 0..cuts {
            let (left, mut after) = (sim.copy(), promised.clone());
            crash(&left, way + cuts * told * u64::from(way > 0));
            // One of the starts dies too, at one of its own changes.
            if (way + told).is_multiple_of(cuts) {
                left.die_after(Some(told % 23));
                let again = live(&left, &mut after);
                assert!(again.is_ok() || left.died(), "the start failed: {:?}", again.err());
                crash(&left, (way + told) % 5);
                starts += 1;
            }
            check_end(&left, &mut after);
            starts += 1;
        }
        if !died {
            break;
        }
    }
    starts
}

#[test]
fn replicas_come_and_go_with_a_crash_at_every_change() {
    let starts = told(CUTS);
    assert!(starts > 500, "{starts} starts");
}
