//! A recovery after a lost quorum, stopped at every change of the disk, and again inside the next attempt.
//!
//! Always: after a crash the directory is as it was, or no node starts on it until the recovery is run again. In the end,
//! every entry is there, the node is the only voter, and what was replaced is kept.

use std::path::Path;

use bytes::Bytes;

use super::entries::entry;
use crate::storage::error::StorageError;
use crate::storage::format::recovery_file::RecoveryFile;
use crate::storage::format::state::{CatalogState, ConfState, Genesis, HardState, Recovered};
use crate::storage::io::disk::Access;
use crate::storage::io::disk::sim::{Rng, Sim};
use crate::storage::io::node::{DataDir, NODE_FILE, NodeFile};
use crate::storage::recover::only_voter::{Purpose, StoppedReplica};
use crate::storage::recover::roll_forward::{
    decide, decided, files_in, keep_copies, roll_forward, store_catalog, store_node_file,
};
use crate::storage::verify::{Severity, verify};
use crate::storage::write::log::GroupLog;
use crate::storage::write::options::LogOptions;
use crate::types::{ClusterId, GroupId, LogIndex, NodeId, NodeName, Offset, ReplicaId, Term};

const HOME: &str = "/mnt/data";
const KEPT: &str = "replaced";
const OLD: ClusterId = ClusterId(1);
const NEW: ClusterId = ClusterId(2);
/// The groups of the node, and its replicas of them.
const GROUPS: [(GroupId, ReplicaId); 3] =
    [(GroupId::CATALOG, ReplicaId(3)), (GroupId(1), ReplicaId(3)), (GroupId(2), ReplicaId(12))];
/// The number of different power cuts at each change.
const CUTS: u64 = 3;

fn options() -> LogOptions {
    LogOptions { segment_bytes: 1500 }
}

fn sync(log: &mut GroupLog, sim: &Sim) {
    if let Some(job) = log.begin_sync() {
        job.perform(&sim.disk()).expect("synced");
        log.end_sync(job);
    }
}

/// A node of a cluster of three that was stopped: it knows that only some of its entries are committed.
fn stopped() -> Sim {
    let sim = Sim::default();
    let data = DataDir::open(&sim.disk(), Path::new(HOME)).expect("a data directory");
    let mut node = NodeFile::new(NodeId(3), NodeName::new("a").expect("a name"));
    data.store(&node).expect("stored");
    node.cluster_id = Some(OLD);
    for (group, replica) in GROUPS {
        let genesis = Genesis::Voters(vec![replica, ReplicaId(98), ReplicaId(99)], Offset(0));
        GroupLog::create(data.disk(), &data.groups_dir(), group, &options(), genesis).expect("created");
        node.add(group, replica);
        let (mut log, _) = GroupLog::open(data.disk(), &data.groups_dir(), group, &options()).expect("opened");
        let mut rng = Rng(5);
        for i in 0..14 {
            let next = entry(log.last, Term(1 + i / 5), &mut rng, true, 9 + i);
            log.append(&[next]).expect("appended");
            if i == 9 {
                let hard_state = HardState { term: Term(2), vote: Some(replica), commit: LogIndex(6) };
                log.append_hard_state(&hard_state).expect("appended");
                log.set_applied(LogIndex(5));
            }
            sync(&mut log, &sim);
        }
    }
    data.store(&node).expect("stored");
    drop(data);
    sim.kill();
    sim
}

/// Opens all groups, with all entries.
fn open_all(sim: &Sim) -> Vec<(Recovered, Vec<Bytes>)> {
    let data = DataDir::open(&sim.disk(), Path::new(HOME)).expect("opened");
    let open = |(group, _)| {
        let opened = GroupLog::open(data.disk(), &data.groups_dir(), group, &options());
        let (log, found) = opened.unwrap_or_else(|error| panic!("group {group}: {error}"));
        let entries =
            log.reader().entries(found.base.index.next(), found.last_index.next(), u64::MAX, Access::Blocking);
        (found, entries.expect("entries").into_iter().map(|entry| entry.data).collect())
    };
    GROUPS.map(open).into()
}

fn recover(sim: &Sim) -> Result<(), StorageError> {
    let data = DataDir::look(&sim.disk(), Path::new(HOME))?;
    if let Some(recovery) = decided(&data)? {
        return roll_forward(&data, &recovery);
    }
    let node = data.load()?.expect("a node");
    if node.cluster_id == Some(NEW) {
        return Ok(());
    }
    let (mut changes, mut copies) = (Vec::new(), vec![NODE_FILE.to_owned(), "catalog".to_owned()]);
    for (group, replica) in GROUPS {
        let stopped = StoppedReplica::read(data.disk(), &data.groups_dir(), group, Purpose::Recover)?;
        if group == GroupId::CATALOG {
            let index = stopped.facts()?.last.index;
            changes.extend(stopped.begun_anew(data.disk(), replica, index)?);
            changes.push(store_catalog(&CatalogState { index, bytes: Bytes::from_static(b"catalog") }));
            copies.extend(files_in(&data, "groups/0")?);
        } else {
            changes.extend(stopped.continued(data.disk(), replica)?);
            copies.push(format!("groups/{group}/manifest"));
        }
    }
    changes.push(store_node_file(&NodeFile { cluster_id: Some(NEW), ..node }));
    keep_copies(&data, KEPT, &copies)?;
    let recovery = RecoveryFile { cluster_id: NEW, changes };
    decide(&data, &recovery)?;
    roll_forward(&data, &recovery)
}

/// The directory is as it was, or recovered, or no node starts on it.
fn check_whole(sim: &Sim, before: &[(Recovered, Vec<Bytes>)]) {
    let sim = sim.copy();
    let data = match DataDir::open(&sim.disk(), Path::new(HOME)) {
        Ok(data) => data,
        Err(StorageError::RecoveryUnfinished { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    let node = data.load().expect("loaded").expect("a node");
    drop(data);
    match node.cluster_id {
        Some(OLD) => assert_eq!(open_all(&sim), before, "the old cluster's state"),
        _ => check_end(&sim, before),
    }
}

fn check_end(sim: &Sim, before: &[(Recovered, Vec<Bytes>)]) {
    let old_node = stopped().files()[&Path::new(HOME).join(NODE_FILE)].clone();
    assert_eq!(sim.files()[&Path::new(HOME).join(KEPT).join(NODE_FILE)], old_node);
    let report = verify(&sim.disk(), Path::new(HOME)).expect("a report");
    assert!(report.worst() < Some(Severity::Format), "{:?}", report.findings);
    assert_eq!(report.node.expect("a node").cluster_id, Some(NEW));
    let after = open_all(sim);
    for ((group, replica), ((old, entries), (new, after))) in GROUPS.iter().zip(before.iter().zip(&after)) {
        let alone = ConfState { voters: vec![*replica], learners: Vec::new() };
        assert_eq!((&new.conf_state, new.conf_index), (&alone, old.last_index), "group {group}");
        let hard_state = HardState { term: Term(old.last_term.0 + 1), vote: None, commit: old.last_index };
        assert_eq!(new.hard_state, hard_state, "group {group}");
        assert_eq!((new.last_index, new.next_offset), (old.last_index, old.next_offset), "group {group}");
        if *group == GroupId::CATALOG {
            assert!(after.is_empty() && new.base.index == old.last_index, "it begins after its snapshot");
        } else {
            assert_eq!(after, entries, "group {group}");
            assert_eq!((new.applied, &new.log_state), (old.applied, &old.log_state), "group {group}");
        }
    }
}

/// Applies one of the kinds of crash to the disk.
fn crash(sim: &Sim, way: u64) {
    sim.die_after(None);
    match way {
        0 => sim.kill(),
        _ => sim.power_cut(&mut Rng(way)),
    }
}

/// Runs the recovery up to each change, and dies there; then the next attempt, up to one of its changes. Returns the
/// number of attempts.
pub fn told(cuts: u64) -> u64 {
    let origin = stopped();
    let before = open_all(&origin.copy());
    let mut attempts = 0;
    for told in 0.. {
        let sim = origin.copy();
        sim.die_after(Some(told));
        let ended = recover(&sim);
        let died = sim.died();
        assert!(ended.is_ok() || died, "it failed for another reason: {:?}", ended.err());
        for way in 0..cuts {
            let left = sim.copy();
            crash(&left, way + cuts * told * u64::from(way > 0));
            check_whole(&left, &before);
            if (way + told).is_multiple_of(cuts) {
                left.die_after(Some(told % 19));
                let again = recover(&left);
                assert!(again.is_ok() || left.died(), "the attempt failed: {:?}", again.err());
                crash(&left, (way + told) % 5);
                check_whole(&left, &before);
                attempts += 1;
            }
            recover(&left).expect("nothing stops it");
            left.kill();
            check_end(&left, &before);
            attempts += 1;
        }
        if !died {
            break;
        }
    }
    attempts
}

#[test]
fn a_recovery_is_decided_at_once_and_finished_after_any_crash() {
    let attempts = told(CUTS);
    assert!(attempts > 150, "{attempts} attempts");
}
