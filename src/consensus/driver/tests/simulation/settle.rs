//! The end of a history: the faults stop, the cluster recovers, and all that was promised is there.

use std::collections::{BTreeMap, BTreeSet};

use super::super::cluster::id;
use super::*;
use crate::catalog::LogMeta;

/// The cluster must recover within this many rounds. After slow disks, elections take up to 20 s.
const ROUNDS_MAX: usize = 3000;

impl Simulation {
    pub(super) fn settle(&mut self) {
        self.calm();
        self.cluster.machines.iter_mut().for_each(|machine| machine.may_die = false);
        self.end_plans();
        self.recover();
        // Whatever is not synced now is lost, on all nodes.
        self.cluster.checks.trace.line(|| "== all nodes lose power".to_owned());
        (0..self.cluster.machines.len()).for_each(|i| self.cluster.crash(i));
        self.cluster.start_all();
        self.recover();
        self.check_end();
    }

    /// Ends the plans of nodes that stay, so that every node may lead.
    fn end_plans(&mut self) {
        let drained = |catalog: &crate::catalog::Catalog| {
            let planned = catalog.members().map(|member| (member.id, catalog.plan(member.id)));
            planned.filter(|(_, plan)| plan.drained && plan.leaves.is_none()).collect::<Vec<_>>()
        };
        self.cluster.until("a catalog without drained nodes", ROUNDS_MAX, |cluster| {
            let Some(leader) = cluster.leader(GroupId::CATALOG) else { return false };
            let planned = cluster.driver(leader).map(|driver| drained(driver.governor.catalog())).unwrap_or_default();
            for (node, plan) in &planned {
                cluster.command(Command::PlanNode(*node, crate::catalog::Plan::default(), *plan));
            }
            planned.is_empty()
        });
    }

    /// Waits until every log is served as it should be, and all replicas are equal.
    fn recover(&mut self) {
        self.clients.load = 1;
        let mut problem = String::new();
        let mut asked = BTreeMap::new();
        for round in 0..ROUNDS_MAX {
            self.round();
            self.retire_removed();
            // A node that runs heals itself.
            let is_damaged = |i: &usize| {
                let machine = &self.cluster.machines[*i];
                machine.damaged && !machine.rots && !machine.gone
            };
            // Later also where a group may need it: then the product itself says when it can be replaced.
            let may_go = |i: &usize| self.may_lose(*i) || round >= ROUNDS_MAX / 6;
            let damaged = (0..self.cluster.machines.len()).find(|i| is_damaged(i) && may_go(i));
            match damaged {
                Some(i) if self.may_lose(i) => self.replace(i),
                Some(i) => self.wipe(i),
                None => {}
            }
            if round % 10 == 9 {
                problem = self.problem(&mut asked).unwrap_or_default();
                if problem.is_empty() {
                    break;
                }
            }
        }
        assert!(
            problem.is_empty(),
            "not recovered {ROUNDS_MAX} rounds after the faults: {problem}\n{}",
            self.cluster.show()
        );
        self.clients.load = 0;
        let done = (0..ROUNDS_MAX).any(|_| {
            self.round();
            self.log_groups().iter().all(|group| self.cluster.is_equal(*group))
        });
        assert!(done, "the replicas stay different\n{}", self.cluster.show());
    }

    /// The processes of removed nodes end.
    fn retire_removed(&mut self) {
        let Some(catalog) = self.catalog() else { return };
        let removed = |i: &usize| catalog.is_removed(id(*i)) && !self.cluster.machines[*i].gone;
        let removed: Vec<usize> = (0..self.cluster.machines.len()).filter(removed).collect();
        for i in removed {
            self.cluster.crash(i);
            self.cluster.machines[i].gone = true;
        }
    }

    /// Returns what is not yet as it should be.
    fn problem(&mut self, asked: &mut BTreeMap<GroupId, u64>) -> Option<String> {
        if self.cluster.machines.iter().any(|machine| machine.damaged && !machine.gone) {
            return Some("the node with the damaged disk is not replaced".to_owned());
        }
        if let Some((node, _)) = self.catalog().and_then(|catalog| catalog.leaving_nodes().next()) {
            return Some(format!("node {node} has not left yet"));
        }
        if self.catalog().is_some_and(crate::catalog::Catalog::is_balancing) {
            return Some("replicas still move".to_owned());
        }
        if !self.joining.is_empty() || !self.removing.is_empty() {
            return Some(format!("joining {:?}, removing {:?}", self.joining, self.removing));
        }
        let live: Vec<usize> = (0..self.cluster.machines.len()).filter(|i| !self.cluster.machines[*i].gone).collect();
        let Some(catalog) = self.catalog().cloned() else { return Some("no node runs".to_owned()) };
        if catalog != self.cluster.checks.catalog {
            return Some("the catalog is not what its entries say".to_owned());
        }
        for i in &live {
            let Some(driver) = self.cluster.driver(*i) else { return Some(format!("node {i} is down")) };
            if *driver.governor.catalog() != catalog {
                return Some(format!("node {i} has another catalog"));
            }
            let placed = |log: &&LogMeta| log.placements().any(|placement| placement.node == id(*i));
            let placed: BTreeSet<GroupId> = catalog.logs().filter(placed).map(|log| log.group).collect();
            let hosts = driver.groups.iter().map(|(group, _)| *group).filter(|group| *group != GroupId::CATALOG);
            let hosts: BTreeSet<GroupId> = hosts.collect();
            if hosts != placed {
                return Some(format!("node {i} has replicas of {hosts:?}, should have {placed:?}"));
            }
        }
        if self.cluster.leader(GroupId::CATALOG).is_none() {
            return Some("the catalog has no leader".to_owned());
        }
        let members = catalog.members().count();
        for log in catalog.logs().filter(|log| log.deletion.is_none()) {
            let wanted = (catalog.settings_of(log).replicas as usize).min(members);
            if let Some(what) = self.problem_of(log, wanted, asked) {
                return Some(format!("group {}: {what}", log.group));
            }
        }
        None
    }

    fn problem_of(&mut self, log: &LogMeta, wanted: usize, asked: &mut BTreeMap<GroupId, u64>) -> Option<String> {
        let group = log.group;
        let Some(leader) = self.cluster.leader(group) else { return Some("no leader".to_owned()) };
        let Some(driver) = self.cluster.driver(leader) else { return Some("the leader is down".to_owned()) };
        let mut voters = driver.groups[&group].status().voters;
        let mut placed: Vec<NodeId> = log.replicas.iter().map(|placement| placement.node).collect();
        voters.sort_unstable();
        placed.sort_unstable();
        if voters != placed || !log.leaving.is_empty() || placed.len() != wanted {
            return Some(format!("voters {voters:?}, should be {wanted} of {log:?}"));
        }
        match asked.get(&group) {
            Some(value) if self.clients.is_acknowledged(*value) => None,
            _ => {
                self.clients.append(&mut self.cluster, group, leader);
                asked.insert(group, self.clients.last_value());
                Some("nothing was acknowledged yet".to_owned())
            }
        }
    }

    /// Compares what the nodes have with all that was visible and promised.
    fn check_end(&self) {
        let Some(catalog) = self.catalog() else { return };
        let logs = catalog.logs().filter(|log| log.deletion.is_none()).map(|log| log.group);
        for group in logs.chain([GroupId::CATALOG]) {
            let history = &self.cluster.checks.groups[&group];
            let mut tables = None;
            for i in 0..self.cluster.running.len() {
                let Some(replica) = self.cluster.driver(i).and_then(|driver| driver.groups.get(&group)) else {
                    continue;
                };
                let applied = replica.group.visible().applied;
                assert!(
                    applied >= history.last(),
                    "node {i}: group {group} ends at entry {applied} of {}",
                    history.last()
                );
                let here = replica.tables.get();
                for (name, expected) in &history.cursors.cursors {
                    let cursor = here.cursors.get(name);
                    let cursor = cursor.map(|cursor| (cursor.next_offset, cursor.instance));
                    let expected = (expected.next_offset, expected.instance);
                    assert_eq!(cursor, Some(expected), "cursor {name} of group {group} on node {i}");
                }
                let first = tables.get_or_insert_with(|| here.clone());
                assert!(**first == *here, "the replicas of group {group} have other producers or cursors on node {i}");
            }
        }
        self.clients.check_fates(&self.cluster);
        self.check_refused();
    }
}
