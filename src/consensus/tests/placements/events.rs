//! What happens in a history, and what must hold at its end.

use std::collections::BTreeSet;

use super::history::History;
use super::nodes::Node;
use crate::catalog::LogMeta;
use crate::catalog::command::Command;
use crate::catalog::meta::{LogSettings, NewLog, Origin, Placement};
use crate::catalog::policy::placement::{Candidates, PendingPlacements};
use crate::feature_level::Feature;
use crate::types::{GroupId, LogId, LogIndex, LogName, NodeId, ReplicaId};

const NODES: u64 = 4;
const LOGS_MAX: usize = 4;

/// Runs a history. Returns false if a log lost a majority of its disks.
pub fn run(seed: u64) -> bool {
    let mut history = History::new(seed);
    (1..=NODES).for_each(|number| history.nodes.push(Node::new(number)));
    let is_old = history.one_in(4);
    for i in 0..history.nodes.len() {
        if i == 1 && is_old {
            let founder = history.nodes[0].id();
            let settings = LogSettings { replicas: Some(3), ..LogSettings::default() };
            history.command(Command::CreateLog(NewLog::of_level_1(founder, settings)));
        }
        let member = history.nodes[i].member.clone();
        history.command(Command::AddNode(member));
        history.start(i);
    }
    history.command(Command::RaiseFeatureLevel(Feature::ManyLogs.level()));
    let rounds = 60 + history.rng.below(120);
    for _ in 0..rounds {
        history.round();
        history.event();
    }
    history.settle(seed)
}

impl History {
    fn round(&mut self) {
        self.pass_time();
        for i in 0..self.nodes.len() {
            // Otherwise two nodes with the same election timeout could campaign at the same time forever.
            if self.one_in(20) {
                continue;
            }
            self.tick(i);
            let groups: Vec<GroupId> = self.nodes[i].file.groups.keys().copied().collect();
            for group in groups {
                if !self.faulty || self.one_in(2) {
                    self.sync(i, group);
                }
            }
            if !self.faulty || !self.one_in(3) {
                self.take_completions(i);
            }
            self.nodes[i].lags = self.nodes[i].lags.saturating_sub(1);
            if self.nodes[i].lags == 0 && (!self.faulty || self.one_in(2)) {
                let count = if self.faulty { 1 + self.rng.below(4) } else { usize::MAX };
                self.apply(i, count);
            }
        }
        for _ in 0..self.network.len().min(400) {
            self.deliver();
        }
        for _ in 0..self.rng.below(3) {
            self.deliver_delayed();
        }
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let len = from.len();
        (len > 0).then(|| from[self.rng.below(len)].clone())
    }

    fn event(&mut self) {
        let i = self.rng.below(self.nodes.len());
        let logs: Vec<LogMeta> = self.catalog.logs().cloned().collect();
        let log = self.pick(&logs);
        match self.rng.below(30) {
            0..=9 => self.ask(),
            10..=12 => self.create_log(),
            13 | 14 => {
                if let Some(log) = log {
                    let after = Some(self.rng.below(3000) as u64);
                    self.command(Command::DeleteLog(log.group, after, None));
                }
            }
            15 => {
                if let Some(log) = log {
                    self.command(Command::UndeleteLog(log.group));
                }
            }
            16..=18 => {
                if let Some(log) = log {
                    let replicas: Vec<ReplicaId> = log.replicas.iter().map(|placement| placement.replica).collect();
                    if let Some(replica) = self.pick(&replicas) {
                        self.command(Command::RemoveReplica(log.group, replica));
                    }
                }
            }
            19 | 20 => {
                if let Some(log) = log {
                    let node = self.nodes[i].id();
                    self.command(Command::PlaceReplica(log.group, node));
                }
            }
            21 | 22 => self.place(),
            23 | 24 => self.crash(i),
            25 | 26 => self.start_if_down(i),
            27 => self.nodes[i].lags = self.rng.below(60),
            28 => match self.one_in(2) {
                true => self.store_snapshot(i),
                false => self.install_snapshot(i),
            },
            _ => self.wipe(i),
        }
    }

    fn start_if_down(&mut self, i: usize) {
        if self.nodes[i].process.is_none() && !self.nodes[i].wiped {
            self.start(i);
            // The commit index that the catalog's log has on disk may be older than what was applied.
            let again = self.nodes[i].had_applied;
            let first = self.rng.below(again + 1);
            self.apply(i, first);
        }
    }

    fn store_snapshot(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        if let Some(process) = &node.process {
            node.snapshot = Some((process.applied, process.catalog.encode()));
        }
    }

    fn ask(&mut self) {
        for i in 0..self.nodes.len() {
            let Some(process) = &self.nodes[i].process else { continue };
            let led = process.replicas.iter().filter(|(_, replica)| replica.group.leads());
            let led: Vec<GroupId> = led.map(|(group, _)| *group).collect();
            for group in led {
                self.propose(i, group);
            }
        }
    }

    fn create_log(&mut self) {
        if self.catalog.log_count() >= LOGS_MAX {
            return;
        }
        let name = LogName::new(&format!("log-{}", self.rng.below(3))).expect("a name");
        let settings = LogSettings { replicas: Some(1 + self.rng.below(3) as u32), ..LogSettings::default() };
        self.values += 1;
        let log_id = LogId(1 << 40 | self.values);
        let new = NewLog { name, log_id, origin: Origin::Nodes(Vec::new()), settings, restore: None };
        let placed = self.candidates(|candidates| candidates.place(new, &mut PendingPlacements::default()));
        self.command(Command::CreateLog(placed));
    }

    fn candidates<T>(
        &self,
        use_them: impl FnOnce(&Candidates<'_, &dyn Fn(NodeId) -> bool, &dyn Fn(NodeId) -> bool>) -> T,
    ) -> T {
        let is_active = |id| self.nodes.iter().any(|node| node.id() == id && node.process.is_some());
        let catalog = &self.catalog;
        use_them(&Candidates { catalog, is_active: &is_active, has_joined: &|_| true })
    }

    /// What the catalog's leader proposes.
    fn place(&mut self) {
        let now_us = self.time_us;
        for command in self.candidates(|candidates| candidates.commands(now_us)) {
            self.command(command);
        }
    }

    /// A node loses its disk, and a new node takes its place.
    fn wipe(&mut self, i: usize) {
        if self.nodes[i].wiped || self.nodes.len() >= 6 {
            return;
        }
        self.nodes[i].wiped = true;
        let keeps = self.catalog.logs().all(|log| self.has_majority(log));
        if !keeps {
            self.nodes[i].wiped = false;
            return;
        }
        self.crash(i);
        self.nodes[i].dirs.clear();
        self.nodes[i].file.groups.clear();
        let old = self.nodes[i].id();
        let number = self.nodes.len() as u64 + 1;
        self.nodes.push(Node::new(number));
        let member = self.nodes.last().expect("just added").member.clone();
        self.command(Command::AddNode(member));
        if self.one_in(2) {
            self.command(Command::RemoveNode(old));
        }
        self.start(self.nodes.len() - 1);
    }

    /// Returns true if a majority of these voters has its disk.
    fn are_kept(&self, log: &LogMeta, voters: &[ReplicaId]) -> bool {
        let placements = || log.first.iter().chain(log.placements());
        let is_kept = |replica: &ReplicaId| {
            let made = self.made.get(replica).map(|(_, node)| *node);
            let node = made.or_else(|| placements().find(|p| p.replica == *replica).map(|p| p.node));
            self.nodes.iter().any(|of| Some(of.id()) == node && !of.wiped)
        };
        voters.iter().filter(|voter| is_kept(voter)).count() * 2 > voters.len()
    }

    /// Returns true if every membership that a log may have has a majority with a disk.
    fn has_majority(&self, log: &LogMeta) -> bool {
        let disks = self.nodes.iter().filter_map(|node| node.dirs.get(&log.group)).map(|dir| &dir.disk.files);
        let mut known: Vec<Vec<ReplicaId>> = disks.map(|files| files.conf_state.voters.clone()).collect();
        known.retain(|voters| !voters.is_empty());
        if known.is_empty() {
            known.push(log.first.iter().map(|placement| placement.replica).collect());
        }
        known.iter().all(|voters| self.are_kept(log, voters))
    }

    /// Ends all faults, and checks the state that every node reaches.
    fn settle(mut self, seed: u64) -> bool {
        self.faulty = false;
        for i in 0..self.nodes.len() {
            self.nodes[i].lags = 0;
            if self.nodes[i].wiped {
                let id = self.nodes[i].id();
                self.command(Command::RemoveNode(id));
            }
            self.start_if_down(i);
        }
        let deleted: Vec<GroupId> =
            self.catalog.logs().filter(|log| log.deletion.is_some()).map(|log| log.group).collect();
        if self.one_in(2) {
            self.time_us += 3_600_000_000;
        }
        for group in deleted {
            if self.one_in(2) {
                self.command(Command::UndeleteLog(group));
            }
        }
        let mut asked = BTreeSet::new();
        let mut problem = String::new();
        for round in 0..1500 {
            self.round();
            if round % 20 == 0 {
                self.place();
                self.ask();
            }
            if round % 5 == 0 {
                problem = self.problem(&mut asked).unwrap_or_default();
                if problem.is_empty() {
                    break;
                }
            }
        }
        self.check_acknowledged();
        if !problem.is_empty() {
            let lost = self.catalog.logs().any(|log| !self.has_majority(log));
            assert!(lost, "seed {seed}: {problem}");
            return false;
        }
        true
    }

    /// Returns what is not yet as the catalog wants it.
    fn problem(&mut self, asked: &mut BTreeSet<GroupId>) -> Option<String> {
        for i in 0..self.nodes.len() {
            if self.nodes[i].wiped {
                continue;
            }
            let id = self.nodes[i].id();
            let process = self.nodes[i].process.as_ref().expect("running");
            if process.catalog != self.catalog {
                return Some(format!("node {i} has another catalog"));
            }
            let (mut wanted, mut allowed) = (BTreeSet::new(), BTreeSet::new());
            for log in self.catalog.logs() {
                let here = |placement: &&Placement| placement.node == id;
                wanted.extend(log.replicas.iter().filter(here).map(|placement| (log.group, placement.replica)));
                allowed.extend(log.placements().filter(here).map(|placement| (log.group, placement.replica)));
            }
            let hosts: BTreeSet<(GroupId, ReplicaId)> = process.replicas.iter().map(|(g, r)| (*g, r.me)).collect();
            let listed: BTreeSet<(GroupId, ReplicaId)> =
                self.nodes[i].file.groups.iter().map(|(group, replica)| (*group, *replica)).collect();
            if listed != hosts || !wanted.is_subset(&hosts) || !hosts.is_subset(&allowed) {
                return Some(format!("node {i} hosts {hosts:?} and lists {listed:?}, should host {wanted:?}"));
            }
            let used = self.nodes[i].dirs.iter().filter(|(_, dir)| !dir.disk.is_new()).map(|(group, _)| *group);
            if let Some(group) = used.into_iter().find(|group| hosts.iter().all(|(of, _)| of != group)) {
                return Some(format!("node {i} still has files of group {group}"));
            }
        }
        let logs: Vec<LogMeta> = self.catalog.logs().filter(|log| log.deletion.is_none()).cloned().collect();
        for log in logs {
            if let Some(what) = self.problem_of(&log, asked) {
                return Some(format!("group {}: {what}", log.group));
            }
        }
        None
    }

    /// Describes the replicas of a log.
    fn show(&self, log: &LogMeta) -> String {
        let mut text = format!("no leader: {log:?}");
        for (i, node) in self.nodes.iter().enumerate() {
            if let Some(dir) = node.dirs.get(&log.group) {
                let replica = node.process.as_ref().and_then(|process| process.replicas.get(&log.group));
                let status = replica.map(|replica| (replica.me, replica.group.status(), replica.group.nodes()));
                let files = &dir.disk.files;
                text += &format!(
                    "\n node {i} wiped {}: {status:?}, {:?}, conf {:?}, last {}",
                    node.wiped,
                    files.hard_state,
                    files.conf_state,
                    files.last_index()
                );
            }
        }
        text
    }

    fn problem_of(&mut self, log: &LogMeta, asked: &mut BTreeSet<GroupId>) -> Option<String> {
        let group = log.group;
        let leads = |node: &Node| {
            let replicas = node.process.as_ref().map(|process| &process.replicas);
            replicas.and_then(|replicas| replicas.get(&group)).is_some_and(|replica| replica.group.leads())
        };
        let Some(leader) = self.nodes.iter().position(leads) else { return Some(self.show(log)) };
        let process = self.nodes[leader].process.as_ref().expect("running");
        let mut voters = process.replicas[&group].group.facts().voters;
        let mut wanted: Vec<ReplicaId> = log.replicas.iter().map(|placement| placement.replica).collect();
        voters.sort_unstable();
        wanted.sort_unstable();
        let number = self.catalog.settings_of(log).replicas as usize;
        if voters != wanted || !log.leaving.is_empty() || wanted.len() != number.min(self.catalog.members().count()) {
            return Some(format!("voters {voters:?} of {log:?}"));
        }
        if asked.insert(group) {
            self.propose(leader, group);
            return Some("asked".to_owned());
        }
        let facts = self.groups.entry(group).or_default();
        let last = facts.committed.keys().last().copied().unwrap_or_default();
        for placement in &log.replicas {
            let node = self.nodes.iter().find(|node| node.id() == placement.node).expect("a node");
            let files = &node.dirs[&group].disk.files;
            if files.applied != last || files.last_index() != last {
                return Some(format!("replica {} is at {} of {last}", placement.replica, files.applied));
            }
            for index in files.base.index.0 + 1..=last.0 {
                let entry = files.entry(LogIndex(index)).expect("an entry");
                let same =
                    facts.committed.get(&LogIndex(index)).is_some_and(|c| *c == (entry.term, entry.data.clone()));
                assert!(same, "group {group}: entry {index} of replica {} has changed", placement.replica);
            }
        }
        if facts.acknowledged.is_empty() { Some("nothing was acknowledged".to_owned()) } else { None }
    }
}
