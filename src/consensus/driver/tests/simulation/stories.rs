//! Events in an order that one rule makes harmless. Random events hardly ever come in such an order.
//!
//! Each story begins with a cluster in which nothing is wrong, so that nothing but the rule protects it. What it does to
//! nodes is what the rule allows: the cluster must recover from it.

use super::super::cluster::id;
use super::super::machines::Pace;
use super::*;
use crate::catalog::{Destination, LogMeta, Plan};

/// Which rule is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// A replica moves, and meanwhile the disk of another one is lost. (The old replica leaves last.)
    LossDuringMove,
    /// A log is created while a node leaves. (It gets no replica on that node.)
    CreationDuringDrain,
    /// A node should leave while a log could not commit without it. (That is refused.)
    NeededNodeLeaves,
    /// A leader has an older catalog, which lists a replica that an earlier leader has removed. (It does not add it.)
    OutdatedLeader,
    /// A damaged replica, and one that lacks records, have a majority. (The damaged one does not vote.)
    DamagedVoter,
}

/// The rounds after which a story is given up, if the cluster is not in the state that it begins with.
const ROUNDS_MAX: usize = 240;
/// After this many rounds a node that is down counts as silent.
const SILENT_ROUNDS: usize = 80;

impl Simulation {
    pub(super) fn tell(&mut self, story: Story, number: usize) {
        self.calm();
        let whole = (0..ROUNDS_MAX).any(|_| {
            self.round();
            let mut groups = self.log_groups().into_iter().chain([GroupId::CATALOG]);
            let are_led = groups.all(|group| self.cluster.leader(group).is_some());
            are_led && self.is_whole() && (0..self.cluster.running.len()).any(|i| self.may_lose(i))
        });
        self.note(|| format!("the cluster is whole: {whole}"));
        let Some(log) = self.log(number).filter(|log| whole && log.deletion.is_none()) else { return };
        match story {
            Story::LossDuringMove => self.lose_during_move(&log, number),
            Story::CreationDuringDrain => self.create_during_drain(number),
            Story::NeededNodeLeaves => self.leave_though_needed(&log),
            Story::OutdatedLeader => self.lead_with_older_catalog(&log),
            Story::DamagedVoter => self.damage_a_voter(&log, number),
        }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        self.cluster.checks.trace.line(|| format!("-- {}", line()));
    }

    fn rounds(&mut self, rounds: usize) {
        (0..rounds).for_each(|_| self.round());
    }

    /// Runs rounds until `holds` is true, but not many.
    fn soon(&mut self, holds: impl Fn(&Simulation) -> bool) -> bool {
        (0..ROUNDS_MAX / 2).any(|_| {
            self.round();
            holds(self)
        })
    }

    /// The machine of a node.
    fn machine(&self, node: NodeId) -> usize {
        (0..self.cluster.machines.len()).find(|i| id(*i) == node).expect("a machine")
    }

    /// The machines of a log's replicas; the first one leads.
    fn hosts(&self, log: &LogMeta) -> Vec<usize> {
        let leader = self.cluster.leader(log.group);
        let mut hosts: Vec<usize> = log.replicas.iter().map(|placement| self.machine(placement.node)).collect();
        hosts.sort_by_key(|host| Some(*host) != leader);
        hosts
    }

    /// A member without a replica of the log.
    fn free(&self, log: &LogMeta, except: usize) -> Option<usize> {
        let stays = |node: NodeId| self.cluster.checks.catalog.plan(node) == Plan::default();
        let members = self.cluster.checks.catalog.members().map(|member| member.id);
        let free = members.filter(|node| stays(*node) && !log.placements().any(|placed| placed.node == *node));
        free.map(|node| self.machine(node)).find(|i| *i != except)
    }

    fn lose_during_move(&mut self, log: &LogMeta, number: usize) {
        let moved = log.replicas[number % log.replicas.len()];
        let others = log.replicas.iter().map(|placement| placement.node).filter(|node| *node != moved.node);
        let lost = others.map(|node| self.machine(node)).find(|i| self.may_lose(*i));
        let (Some(lost), Some(to)) =
            (lost, self.free(log, self.cluster.leader(GroupId::CATALOG).unwrap_or(usize::MAX)))
        else {
            return;
        };
        if self.cluster.machines.len() >= happen::MACHINES_MAX {
            return;
        }
        // The new replica catches up only when the disks are repaired.
        self.cluster.machines[to].pace = Pace::Slow(100);
        self.command(Command::MoveReplica(log.group, moved.replica, id(to)));
        self.note(|| format!("{moved:?} of group {} moves to node {to}", log.group));
        let rounds = 10 + self.cluster.rng.below(60);
        self.rounds(rounds);
        let voters = self.cluster.leader(log.group).and_then(|i| self.cluster.driver(i)).map(|driver| {
            let status = driver.groups[&log.group].status();
            (status.voters, status.learners)
        });
        self.note(|| format!("after {rounds} rounds, node {lost} is lost; voters and learners are {voters:?}"));
        // Another log may have removed a damaged replica meanwhile, and not have placed it anew (seed 997).
        if self.keeps_majorities(lost, Some(log.group)) {
            self.replace(lost);
        }
    }

    fn create_during_drain(&mut self, number: usize) {
        let catalog = &self.cluster.checks.catalog;
        let members: Vec<NodeId> = catalog.members().map(|member| member.id).collect();
        if members.len() <= 3 || catalog.leaving_nodes().next().is_some() {
            return;
        }
        let (node, present) = (members[number % members.len()], catalog.plan(members[number % members.len()]));
        let plan = Plan { leaves: Some(Destination::AnyNode), ..present };
        self.command(Command::PlanNode(node, plan, present));
        let leaves = |catalog: &crate::catalog::Catalog| catalog.plan(node).leaves.is_some();
        if !self.soon(|simulation| simulation.cluster.change_catalog(leaves)) {
            return;
        }
        let command = self.cluster.create_log("made-during-drain", 3);
        let Command::CreateLog(new) = &command else { return };
        let log_id = new.log_id;
        self.command(command);
        let placed = |simulation: &Simulation| {
            let catalog = &simulation.cluster.checks.catalog;
            catalog.logs().find(|log| log.log_id == log_id).map(|log| log.first.clone())
        };
        self.note(|| format!("node {node} leaves, and a log is created"));
        if self.soon(|simulation| placed(simulation).is_some()) {
            let first = placed(self).expect("created");
            assert!(first.iter().all(|placement| placement.node != node), "node {node} leaves, and got a replica");
        }
    }

    fn leave_though_needed(&mut self, log: &LogMeta) {
        let hosts = self.hosts(log);
        let members = self.cluster.checks.catalog.members().count();
        if hosts.len() != 3 || members < 5 || self.cluster.checks.catalog.leaving_nodes().next().is_some() {
            return;
        }
        self.note(|| format!("nodes {:?} are killed, and node {} should leave", &hosts[..2], hosts[2]));
        hosts[..2].iter().for_each(|host| self.cluster.kill(*host));
        self.rounds(SILENT_ROUNDS);
        let node = id(hosts[2]);
        let present = self.cluster.checks.catalog.plan(node);
        self.command(Command::PlanNode(node, Plan { leaves: Some(Destination::AnyNode), ..present }, present));
        self.rounds(40);
        let leaves = self.cluster.checks.catalog.plan(node).leaves.is_some();
        assert!(!leaves, "node {node} leaves, and only it runs of the nodes with group {}", log.group);
        self.cluster.start_all();
    }

    fn lead_with_older_catalog(&mut self, log: &LogMeta) {
        let (group, hosts) = (log.group, self.hosts(log));
        let Some(of_catalog) = self.cluster.leader(GroupId::CATALOG) else { return };
        let next = hosts.iter().skip(1).copied().find(|host| *host != of_catalog);
        let (Some(next), Some(to)) = (next, self.free(log, of_catalog)) else { return };
        let old = log.replicas.iter().find(|placement| ![hosts[0], next].contains(&self.machine(placement.node)));
        let Some(old) = old.filter(|_| hosts[0] != of_catalog) else { return };
        self.command(Command::MoveReplica(group, old.replica, id(to)));
        let placed = move |simulation: &Simulation, i: usize| {
            let log = simulation.cluster.driver(i)?.governor.catalog().log(group)?;
            log.replicas.iter().find(|placement| placement.node == id(to)).map(|placement| placement.replica)
        };
        if !self.soon(|simulation| placed(simulation, next).is_some()) {
            return;
        }
        let Some(replica) = placed(self, next) else { return };
        self.cluster.cut(of_catalog, next);
        self.command(Command::RemoveReplica(group, replica));
        let has_left = |simulation: &Simulation| {
            let catalog = &simulation.cluster.checks.catalog;
            catalog.log(group).is_some_and(|log| catalog.has_left(log, replica))
        };
        if self.soon(has_left) && placed(self, next) == Some(replica) {
            self.note(|| format!("node {next}, whose catalog lists replica {replica}, should lead group {group}"));
            self.lead(group, next);
            self.rounds(30);
        }
        self.cluster.cut.clear();
    }

    fn damage_a_voter(&mut self, log: &LogMeta, number: usize) {
        let hosts = self.hosts(log);
        let Some(damaged) = hosts.iter().copied().find(|host| self.may_lose(*host)).filter(|_| hosts.len() == 3) else {
            return;
        };
        if self.cluster.machines.iter().any(|machine| machine.gone) {
            return;
        }
        let others: Vec<usize> = hosts.into_iter().filter(|host| *host != damaged).collect();
        let (lacks, has) = (others[1], others[0]);
        self.note(|| format!("node {lacks} lacks records, node {damaged} is damaged, node {has} is down"));
        self.cluster.isolate(lacks);
        self.clients.load = 4;
        self.rounds(12 + number % 24);
        self.cluster.flush(damaged);
        self.cluster.crash(has);
        self.cluster.crash(damaged);
        self.cluster.damage(damaged, &format!("groups/{}/manifest", log.group), Some(|bytes| bytes[30] ^= 1));
        (self.cluster.machines[damaged].damaged, self.cluster.machines[damaged].rots) = (true, true);
        self.cluster.start(damaged);
        self.cluster.cut.clear();
        self.rounds(SILENT_ROUNDS);
        self.cluster.start_all();
    }
}
