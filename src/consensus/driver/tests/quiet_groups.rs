//! Quiet groups among lost messages, cut links and crashes.

use std::collections::BTreeSet;

use super::cluster::{Cluster, id, this};
use super::machines::Running;
use super::network::Weather;
use super::*;
use crate::catalog::faults::{Fault, set};
use crate::consensus::completions::ReplicaEpoch;

impl Cluster {
    fn event(&mut self) {
        let (i, j) = (self.rng.below(self.running.len()), self.rng.below(self.running.len()));
        let logs = self.logs();
        match self.rng.below(20) {
            0 | 1 => self.isolate(i),
            2 => {
                self.cut(i, j);
                self.cut(j, i);
            }
            3 => self.cut(i, j),
            4..=6 => self.cut.clear(),
            7 | 8 => self.crash(i),
            9 | 10 => self.start_all(),
            11 | 14 => {
                // Long enough that groups become quiet.
                self.weather = Weather::CALM;
                (0..80).for_each(|_| self.round());
                self.weather = Weather::ROUGH;
            }
            15 | 16 => self.lose_one(i),
            12 | 13 => {
                let at = self.rng.below(logs.len().max(1));
                if let Some(log) = logs.get(at) {
                    let replicas = Some(1 + self.rng.below(3) as u32);
                    let settings = LogSettings { replicas, ..log.settings.clone() };
                    self.command(Command::UpdateLog(log.group, settings, log.revision));
                }
            }
            _ => logs.iter().for_each(|log| self.propose(log.group)),
        }
    }

    /// Loses a node in a calm moment: the others soon have leaders of all groups in which they are a majority.
    fn lose_one(&mut self, lost: usize) {
        self.weather = Weather::CALM;
        self.cut.clear();
        self.start_all();
        self.until("a catalog", 1000, |cluster| cluster.leader(GroupId::CATALOG).is_some());
        (0..300).for_each(|_| self.round());
        match self.one_in(2) {
            true => self.isolate(lost),
            false => self.crash(lost),
        }
        let keeps = |log: &crate::catalog::LogMeta| {
            let voters = log.placements().count();
            let kept = log.replicas.iter().filter(|placement| placement.node != id(lost)).count();
            kept > voters / 2
        };
        let groups: Vec<GroupId> = self.logs().iter().filter(|log| keeps(log)).map(|log| log.group).collect();
        self.until("leaders on the others", 100, |cluster| {
            groups.iter().all(|group| cluster.leader(*group).is_some_and(|leader| leader != lost))
        });
        self.weather = Weather::ROUGH;
    }

    /// Ends all faults. Each group soon appends again, and is quiet at last, with equal replicas.
    fn settle(&mut self) {
        self.weather = Weather::CALM;
        self.cut.clear();
        self.start_all();
        self.until("a catalog", 1000, |cluster| cluster.leader(GroupId::CATALOG).is_some());
        let logs = self.logs();
        let groups: Vec<GroupId> = logs.iter().map(|log| log.group).collect();
        self.until("leaders", 1000, |cluster| groups.iter().all(|group| cluster.leader(*group).is_some()));
        self.until("equal replicas", 1500, |cluster| {
            groups.iter().all(|group| cluster.leader(*group).is_some() && cluster.is_equal(*group))
        });
        let before: usize = self.acknowledged.len();
        self.until("entries", 200, |cluster| {
            let appended = |group: &GroupId| cluster.acknowledged[before..].iter().any(|a| a.group == *group);
            let missing: Vec<GroupId> = groups.iter().copied().filter(|group| !appended(group)).collect();
            missing.iter().for_each(|group| cluster.propose(*group));
            missing.is_empty()
        });
        self.until("quiet and equal groups", 2000, |cluster| {
            groups.iter().all(|group| cluster.is_quiet(*group) && cluster.is_equal(*group)) && cluster.is_placed()
        });
        self.check_acknowledged();
    }

    /// Each log has the replicas that its settings demand, and they vote.
    fn is_placed(&self) -> bool {
        self.logs().iter().all(|log| {
            let wanted = log.settings.replicas.unwrap_or(3) as usize;
            let placed: BTreeSet<NodeId> = log.replicas.iter().map(|placement| placement.node).collect();
            let hosts = |i: &usize| self.driver(*i).is_some_and(|driver| driver.groups.contains_key(&log.group));
            let hosting: BTreeSet<NodeId> = (0..self.running.len()).filter(hosts).map(id).collect();
            let voters =
                self.leader(log.group).and_then(|i| Some(self.driver(i)?.groups.get(&log.group)?.status().voters));
            let voters = voters.map_or(0, |voters| voters.len());
            log.leaving.is_empty() && placed.len() == wanted && placed == hosting && voters == wanted
        })
    }
}

fn history(seed: u64) {
    let mut cluster = Cluster::new(seed, 4, 4);
    cluster.weather = Weather::ROUGH;
    for _ in 0..40 {
        cluster.event();
        (0..cluster.rng.below(40)).for_each(|_| cluster.round());
    }
    cluster.settle();
}

#[test]
fn groups_recover_from_random_partitions_and_become_quiet() {
    let seeds = std::env::var("QUIET_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    let failed: Vec<u64> = (1..=seeds).filter(|seed| std::panic::catch_unwind(|| history(*seed)).is_err()).collect();
    assert!(failed.is_empty(), "{} of {seeds} histories: {failed:?}", failed.len());
}

/// Without them, a quiet group whose leader is lost would wait for a request.
#[test]
fn silent_nodes_that_wake_no_groups_are_found() {
    let fails = |seed: &u64| std::panic::catch_unwind(|| (set(Some(Fault::SilenceIgnored)), history(*seed))).is_err();
    let found = (1..=60).find(fails);
    set(None);
    assert!(found.is_some());
}

/// All groups are quiet soon; then a node is cut off. The others soon have leaders again, and after the cut ends so has it.
#[test]
fn quiet_groups_of_a_node_that_is_cut_off_get_new_leaders() {
    for seed in 1..=4 {
        let mut cluster = Cluster::new(seed, 4, 5);
        let groups: Vec<GroupId> =
            cluster.logs().iter().filter(|log| log.replicas.len() == 3).map(|l| l.group).collect();
        assert!(groups.len() >= 5, "three replicas");
        for node in 0..4 {
            cluster.until("quiet groups", 600, |cluster| groups.iter().all(|group| cluster.is_quiet(*group)));
            cluster.isolate(node);
            let rounds = cluster.until("leaders elsewhere", 60, |cluster| {
                groups.iter().all(|group| cluster.leader(*group).is_some_and(|leader| leader != node))
            });
            println!("seed {seed}, node {node}: {rounds} rounds");
            groups.iter().for_each(|group| cluster.propose(*group));
            (0..cluster.rng.below(100)).for_each(|_| cluster.round());
            cluster.cut.clear();
            cluster.until("equal replicas", 100, |cluster| groups.iter().all(|group| cluster.is_equal(*group)));
        }
        cluster.check_acknowledged();
    }
}

/// Once, a quiet leader that was cut off from its successor reported that its group had removed a replica: the successor
/// had added it. So the node of the replica dropped a voter.
#[test]
fn a_leader_that_was_replaced_reports_no_removed_replica() {
    let stale = (1..=20).filter(|seed| replace_a_leader(*seed)).count();
    set(None);
    println!("{stale} leaders did not notice that they were replaced");
    assert!(stale >= 1, "only {stale} leaders did not notice that they were replaced");
}

/// Returns false if the replaced leader notices it too early.
fn replace_a_leader(seed: u64) -> bool {
    let mut cluster = Cluster::new(seed, 5, 3);
    let log = cluster.logs().into_iter().find(|log| log.replicas.len() == 3).expect("a log");
    let group = log.group;
    cluster.until("a quiet group", 600, |cluster| cluster.is_quiet(group) && cluster.leader(group).is_some());
    let hosts: Vec<usize> = (0..5).filter(|i| log.is_on(id(*i))).collect();
    let others: Vec<usize> = (0..5).filter(|i| !log.is_on(id(*i))).collect();
    let old = cluster.leader(group).expect("a leader");
    let next = hosts.iter().copied().find(|i| *i != old).expect("a follower");
    let [catalog, guest] = others[..] else { panic!("two nodes without a replica") };
    cluster.until("the leader of the catalog", 600, |cluster| {
        let leads = cluster.leader(GroupId::CATALOG);
        if let Some(Running { driver, .. }) = leads.filter(|i| *i != catalog).and_then(|i| cluster.running[i].as_mut())
        {
            let replica = driver.groups.get_mut(&GroupId::CATALOG).expect("a replica");
            group::quiet::hand_over_to(&mut replica.group, id(catalog));
        }
        leads == Some(catalog)
    });
    cluster.cut(old, next);
    cluster.cut(next, old);
    // Otherwise it would soon notice.
    set(Some(Fault::DigestsIgnored));
    cluster.checks.deposes = true;
    let is_stale = |cluster: &Cluster| {
        let driver = cluster.driver(old).expect("running");
        driver.quiet.is_quiet(group) && driver.groups[&group].group.leads() && cluster.leader(group) == Some(next)
    };
    if !cluster.reaches(1000, |cluster| is_stale(cluster)) {
        return false;
    }
    // So that the policy does not remove the new replica at once.
    cluster.decide(catalog, &Command::DeleteLog(group, Some(3_600_000), None));
    cluster.decide(catalog, &Command::PlaceReplica(group, id(guest)));
    let votes = |cluster: &Cluster| {
        let replica = cluster.driver(guest).and_then(|driver| driver.groups.get(&group)).map(|r| r.group.me());
        replica.is_some_and(|replica| cluster.driver(next).expect("running").groups[&group].group.votes(replica))
    };
    if !cluster.reaches(300, |cluster| votes(cluster)) {
        return false;
    }
    // The successor does not learn that the new replica should leave again.
    cluster.cut(catalog, next);
    let replica = cluster.driver(guest).expect("running").groups[&group].group.me();
    cluster.decide(catalog, &Command::RemoveReplica(group, replica));
    let was_stale = is_stale(&cluster);
    for _ in 0..60 {
        cluster.round();
        let is_hosted = cluster.driver(guest).expect("running").groups.contains_key(&group);
        let is_voter = cluster.driver(next).expect("running").groups[&group].group.votes(replica);
        assert!(is_hosted || !is_voter || cluster.leader(group) != Some(next), "a voter was dropped");
    }
    set(None);
    cluster.cut.clear();
    cluster.command(Command::UndeleteLog(group));
    cluster.settle();
    was_stale
}

impl Cluster {
    pub fn replica(&mut self, i: usize, group: GroupId) -> &mut crate::consensus::replica::Replica {
        self.running[i].as_mut().expect("running").driver.groups.get_mut(&group).expect("a replica")
    }

    fn reaches(&mut self, rounds: usize, holds: impl Fn(&Cluster) -> bool) -> bool {
        (0..rounds).any(|_| {
            self.round();
            holds(self)
        })
    }

    pub fn led(&self) -> Vec<usize> {
        let groups: Vec<GroupId> = self.logs().iter().map(|log| log.group).collect();
        (0..self.running.len()).map(|i| groups.iter().filter(|group| self.leader(**group) == Some(i)).count()).collect()
    }

    pub fn quiet_groups(&mut self) -> Vec<GroupId> {
        let groups: Vec<GroupId> = self.logs().iter().map(|log| log.group).collect();
        self.until("quiet groups", 1000, |cluster| {
            groups.iter().all(|group| cluster.is_quiet(*group) && cluster.leader(*group).is_some())
        });
        groups
    }
}

#[test]
fn leadership_is_spread_once_the_imbalance_lasts() {
    let mut cluster = Cluster::new(1, 3, 8);
    let groups = cluster.quiet_groups();
    cluster.until("one leader of all", 400, |cluster| {
        for group in &groups {
            if let Some(leader) = cluster.leader(*group).filter(|leader| *leader != 0) {
                let running = cluster.running[leader].as_mut().expect("running");
                let replica = running.driver.quiet.wake(*group, &mut running.driver.groups).expect("a replica");
                group::quiet::hand_over_to(&mut replica.group, id(0));
            }
        }
        cluster.led() == [9, 0, 0]
    });
    cluster.until("balance", 400, |cluster| cluster.led() == [3, 3, 3]);
    cluster.quiet_groups();
    let terms = |cluster: &mut Cluster| groups.iter().map(|g| cluster.replica(0, *g).group.term()).collect::<Vec<_>>();
    let before = terms(&mut cluster);
    (0..400).for_each(|_| cluster.round());
    assert_eq!((terms(&mut cluster), cluster.led()), (before, vec![3, 3, 3]), "nothing is handed over any more");
}

/// The log-writer may report a sync of an earlier replica of the group after another one was created.
#[test]
fn a_sync_of_an_earlier_replica_does_not_count() {
    for is_broken in [false, true] {
        let mut cluster = Cluster::new(1, 1, 1);
        let group = cluster.quiet_groups()[0];
        set(is_broken.then_some(Fault::EpochIgnored));
        cluster.propose(group);
        let earlier = ReplicaEpoch::default().ticket(1 << 30);
        cluster.running[0].as_ref().expect("running").driver.sinks.completions.persisted(group, earlier);
        cluster.perform(0);
        let before = cluster.acknowledged.len();
        cluster.take_answers();
        assert_eq!(cluster.acknowledged.len() > before, is_broken, "nothing was synced");
        set(None);
    }
}

/// Once, its node woke all groups of the same leader again and again: a replica that takes no part was not quiet.
#[test]
fn a_damaged_replica_does_not_wake_other_groups() {
    let mut cluster = Cluster::new(1, 3, 4);
    let groups = cluster.quiet_groups();
    let damaged = groups[1];
    let leader = cluster.leader(damaged).expect("a leader");
    let follower = (leader + 1) % 3;
    cluster.machines[follower].damaged = true;
    cluster.replica(follower, damaged).group.set_damaged("a test".to_owned());
    let driver = &mut cluster.running[leader].as_mut().expect("running").driver;
    driver.handle(ConsensusMsg::ReadIndex(damaged, None, reply().0));
    (0..200).for_each(|_| cluster.round());
    for _ in 0..100 {
        cluster.round();
        let awake = |group: &&GroupId| **group != damaged && !cluster.is_quiet(**group);
        let awake: Vec<&GroupId> = groups.iter().filter(awake).collect();
        assert!(awake.is_empty(), "{awake:?}\n{}", cluster.show());
    }
}

/// Once, the third node did not notice that its quiet leader was alive, and elected the node that could not reach it.
/// The balance of leadership comes first, because it hands over groups, too.
#[test]
fn a_quiet_leader_keeps_its_groups_if_one_link_is_cut() {
    let mut cluster = Cluster::new(1, 3, 5);
    cluster.until("balance", 600, |cluster| cluster.led() == [2, 2, 2]);
    let groups = cluster.quiet_groups();
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        let leaders: Vec<Option<usize>> = groups.iter().map(|group| cluster.leader(*group)).collect();
        cluster.cut(a, b);
        cluster.cut(b, a);
        (0..300).for_each(|_| cluster.round());
        let after: Vec<Option<usize>> = groups.iter().map(|group| cluster.leader(*group)).collect();
        assert_eq!(after, leaders, "link {a} to {b}\n{}", cluster.show());
        cluster.cut.clear();
        (0..100).for_each(|_| cluster.round());
    }
}

/// The catalog became quiet while a new member could not be reached, and nothing woke it when the member came. It never got
/// the catalog.
#[test]
fn a_new_member_that_cannot_be_reached_at_first_gets_the_catalog_later() {
    let mut cluster = Cluster::new(3, 3, 1);
    let new = cluster.add_machine();
    cluster.isolate(new);
    cluster.until("a member", 400, |cluster| {
        cluster.command(Command::AddNode(this(new)));
        cluster.driver(0).expect("running").governor.catalog().member(id(new)).is_some()
    });
    (0..300).for_each(|_| cluster.round());
    cluster.cut.clear();
    cluster.until("the catalog", 200, |cluster| {
        cluster.driver(new).expect("running").governor.catalog().member(id(new)).is_some()
    });
    cluster.until("quiet again", 600, |cluster| cluster.is_quiet(GroupId::CATALOG));
}
