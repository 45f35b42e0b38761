//! The nodes of the simulation: what is on their disks, and what a process has in memory.

use std::collections::{BTreeMap, BTreeSet};

use super::history::History;
use crate::catalog::faults::{Fault, broken};
use crate::catalog::policy::hosting::{NewReplica, hosting_step};
use crate::catalog::policy::{Policy, PolicyTicks};
use crate::catalog::state::{Applied, Catalog, Touched};
use crate::catalog::{LogMeta, Member};
use crate::consensus::completions::{Completions, ReplicaEpoch};
use crate::consensus::driver::early::EarlyMessages;
use crate::consensus::group::{ELECTION_TICKS, Group, GroupConfig, ReplicaNodes, Rules};
use crate::consensus::removals::Removals;
use crate::consensus::tests::disk::Disk;
use crate::consensus::wake::ConsensusWaker;
use crate::feature_level::Feature;
use crate::storage::log::Genesis;
use crate::storage::node::NodeFile;
use crate::types::{GroupId, LogId, LogIndex, NodeId, NodeName, ReplicaId};

/// A replica that runs.
pub struct Running {
    pub group: Group,
    pub me: ReplicaId,
    pub epoch: ReplicaEpoch,
    pub applied: LogIndex,
}

/// The directory of a group.
pub struct Dir {
    pub disk: Disk,
    genesis: Genesis,
}

/// What a process has in memory.
pub struct Process {
    pub catalog: Catalog,
    /// The number of commands that the catalog includes.
    pub applied: usize,
    pub replicas: BTreeMap<GroupId, Running>,
    pub policy: Policy,
    pub completions: Completions,
    pub early: EarlyMessages,
    pub removals: Removals,
    pub ticks: u64,
}

pub struct Node {
    pub member: Member,
    /// On disk: `node.toml`.
    pub file: NodeFile,
    /// On disk: the directories of groups.
    pub dirs: BTreeMap<GroupId, Dir>,
    /// On disk: the renamed directories of replicas that were given up.
    pub retired: BTreeSet<(GroupId, ReplicaId)>,
    /// On disk: the newest snapshot of the catalog, and the number of commands that it includes.
    pub snapshot: Option<(usize, Vec<u8>)>,
    /// The number of commands that the process had applied before it ended.
    pub had_applied: usize,
    pub process: Option<Process>,
    /// It applies nothing for this many rounds.
    pub lags: usize,
    /// The disk was lost, and the node's id with it.
    pub wiped: bool,
}

/// The process has ended in the middle of a step.
pub struct Ended;

impl Node {
    pub fn new(number: u64) -> Node {
        // Node ids never equal replica ids.
        let id = NodeId(number << 40 | 0xbeef);
        let name = NodeName::new(&format!("n{number}")).expect("a name");
        let member = Member { id, name: name.clone(), bind_addr: "a:1".into(), rpc_addr: "a:2".into() };
        Node {
            member,
            file: NodeFile::new(id, name),
            dirs: BTreeMap::new(),
            retired: BTreeSet::new(),
            snapshot: None,
            had_applied: 0,
            process: None,
            lags: 0,
            wiped: false,
        }
    }

    pub fn id(&self) -> NodeId {
        self.member.id
    }

    pub fn policy(&self) -> Policy {
        let ticks = PolicyTicks { round_max: ELECTION_TICKS as u64, silent_max: 1000 };
        Policy::new(self.member.clone(), ticks, Feature::ManyLogs.level(), || Some(LogId(1)))
    }
}

impl History {
    /// Ends the process. What is not synced may be lost.
    pub fn crash(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        if let Some(process) = node.process.take() {
            node.had_applied = process.applied;
        }
        for dir in node.dirs.values_mut() {
            let kept = self.rng.below(dir.disk.unsynced() + 1);
            dir.disk.cut(kept);
        }
    }

    fn may_end(&mut self, i: usize) -> Result<(), Ended> {
        if self.faulty && self.rng.below(12) == 0 {
            self.crash(i);
            return Err(Ended);
        }
        Ok(())
    }

    /// Starts a node as `Consensus::recover` does: with the catalog of its snapshot, and its listed replicas. The rest
    /// of the catalog is applied later.
    pub fn start(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        assert!(!node.wiped, "a wiped node returns under another id");
        node.file = NodeFile::decode(node.file.encode().as_bytes(), "node.toml".as_ref()).expect("its own file");
        for (group, replica) in node.retired.clone() {
            if !node.dirs.contains_key(&group) && node.file.groups.get(&group) == Some(&replica) {
                node.file.remove(group);
            }
        }
        node.retired.clear();
        let (applied, catalog) = match &node.snapshot {
            Some((applied, bytes)) => (*applied, Catalog::decode(bytes).expect("its own snapshot")),
            None => (0, Catalog::default()),
        };
        node.process = Some(Process {
            catalog,
            applied,
            replicas: BTreeMap::new(),
            policy: node.policy(),
            completions: Completions::new(ConsensusWaker::default()),
            early: EarlyMessages::default(),
            removals: Removals::default(),
            ticks: 0,
        });
        for (group, me) in node.file.groups.clone() {
            self.open(i, group, me, broken(Fault::LeadsAgain) && self.led_first(me));
        }
        let all = self.all_groups(i);
        if self.host(i, &all).is_ok() {
            self.perform_all(i);
        }
    }

    /// True for the replica that leads its group at first.
    fn led_first(&self, replica: ReplicaId) -> bool {
        self.catalog.logs().any(|log| !log.is_of_level_1() && log.first.first().is_some_and(|p| p.replica == replica))
    }

    fn open(&mut self, i: usize, group: GroupId, me: ReplicaId, leads_at_first: bool) {
        let election_ticks = Some(12 + self.rng.below(12));
        let config = GroupConfig { id: group, me, leads_at_first, election_ticks, rules: Rules::default() };
        self.epoch = self.epoch.next();
        let node = &mut self.nodes[i];
        let dir = node.dirs.get(&group).unwrap_or_else(|| panic!("group {group} is listed, and has no directory"));
        let opened = dir.disk.open_group(config);
        let applied = opened.visible().applied;
        let running = Running { group: opened, me, epoch: self.epoch, applied };
        node.process.as_mut().expect("running").replicas.insert(group, running);
    }

    fn all_groups(&self, i: usize) -> BTreeSet<GroupId> {
        let process = self.nodes[i].process.as_ref().expect("running");
        process.catalog.logs().map(|log| log.group).chain(process.replicas.keys().copied()).collect()
    }

    /// Applies the next `count` commands in one batch, as `Governor::apply` does.
    pub fn apply(&mut self, i: usize, count: usize) {
        let Some(process) = self.nodes[i].process.as_mut() else { return };
        let mut touched = BTreeSet::new();
        let mut all = false;
        for (at_us, command) in self.commands[process.applied..].iter().take(count) {
            process.applied += 1;
            match process.catalog.apply(command, *at_us) {
                Applied::Changed(Touched::Log(group)) => {
                    touched.insert(group);
                }
                Applied::Changed(Touched::AllLogs) => all = true,
                Applied::Changed(Touched::NoLog) | Applied::Unchanged | Applied::Ignored(_) => {}
            }
        }
        if all {
            touched.extend(self.all_groups(i));
        }
        if self.host(i, &touched).is_ok() {
            self.perform_all(i);
            self.take_early(i);
        }
    }

    /// Installs a snapshot of the whole catalog, as a node that lacks many commands does.
    pub fn install_snapshot(&mut self, i: usize) {
        let (applied, bytes) = (self.commands.len(), self.catalog.encode());
        let node = &mut self.nodes[i];
        let Some(process) = node.process.as_mut() else { return };
        process.catalog = Catalog::decode(&bytes).expect("a catalog");
        process.applied = applied;
        node.snapshot = Some((applied, bytes));
        let all = self.all_groups(i);
        if self.host(i, &all).is_ok() {
            self.perform_all(i);
            self.take_early(i);
        }
    }

    fn host(&mut self, i: usize, touched: &BTreeSet<GroupId>) -> Result<(), Ended> {
        let mut created = BTreeMap::<GroupId, NewReplica>::new();
        for group in touched {
            let node = &self.nodes[i];
            let process = node.process.as_ref().expect("running");
            let hosted = node.file.groups.get(group).copied();
            let may_create = |replica| node.file.may_create(*group, replica);
            let step = hosting_step(&process.catalog, node.id(), *group, hosted, may_create);
            if let Some(replica) = step.drop {
                self.drop_replica(i, *group, replica)?;
            }
            created.extend(step.create.map(|new| (*group, new)));
        }
        self.create(i, created)?;
        let process = self.nodes[i].process.as_mut().expect("running");
        for group in touched {
            if let (Some(log), Some(replica)) = (process.catalog.log(*group), process.replicas.get_mut(group)) {
                replica.group.nodes_mut().clone_from(&nodes_of(log));
            }
        }
        Ok(())
    }

    /// `Host::drop_replica` and `storage/recover/replicas.rs`, step by step.
    fn drop_replica(&mut self, i: usize, group: GroupId, replica: ReplicaId) -> Result<(), Ended> {
        let process = self.nodes[i].process.as_mut().expect("running");
        if let Some(mut dropped) = process.replicas.remove(&group) {
            dropped.group.stop();
            // Reports of it may arrive later.
            process.policy.forget(group);
        }
        self.nodes[i].dirs.remove(&group);
        self.nodes[i].retired.insert((group, replica));
        self.may_end(i)?;
        self.nodes[i].file.remove(group);
        self.may_end(i)?;
        self.nodes[i].retired.remove(&(group, replica));
        Ok(())
    }

    fn create(&mut self, i: usize, created: BTreeMap<GroupId, NewReplica>) -> Result<(), Ended> {
        for (group, new) in &created {
            let node = &mut self.nodes[i];
            if let Some(found) = node.dirs.get(group) {
                assert!(!node.file.groups.contains_key(group), "group {group} is created over a listed replica");
                assert!(found.disk.is_new(), "group {group} is created over one that was used");
            }
            if node.dirs.get(group).is_none_or(|found| found.genesis != new.genesis) {
                let disk = Disk::new(new.genesis.clone());
                node.dirs.insert(*group, Dir { disk, genesis: new.genesis.clone() });
            }
            self.may_end(i)?;
        }
        for (group, new) in &created {
            self.nodes[i].file.add(*group, new.replica);
            let id = self.nodes[i].id();
            let before = self.made.insert(new.replica, (*group, id));
            assert_eq!(before, None, "replica {} is created on node {i} in group {group} again", new.replica);
        }
        self.may_end(i)?;
        for (group, new) in created {
            self.open(i, group, new.replica, new.leads);
        }
        Ok(())
    }
}

fn nodes_of(log: &LogMeta) -> ReplicaNodes {
    ReplicaNodes::Listed(log.placements().map(|placement| (placement.replica, placement.node)).collect())
}
