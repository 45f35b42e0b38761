//! Nodes whose processes have ended, that restarted, or whose disks are full: their groups get other leaders soon, and
//! no group gets another leader without a reason.

use super::cluster::{Cluster, id};
use super::machines::Running;
use super::*;
use crate::catalog::faults::{Fault, set};

/// Far fewer rounds than an election timeout has ticks.
const SOON: usize = 6;

/// All groups, once those of logs are quiet.
fn all_groups(cluster: &mut Cluster) -> Vec<GroupId> {
    let mut groups = cluster.quiet_groups();
    groups.push(GroupId::CATALOG);
    groups
}

fn terms(cluster: &mut Cluster, groups: &[GroupId]) -> Vec<u64> {
    groups.iter().map(|group| cluster.replica(0, *group).group.term().0).collect()
}

/// Reports to a node that the process of another one has ended.
fn report(cluster: &mut Cluster, to: usize, gone: usize) {
    if let Some(Running { driver, .. }) = &mut cluster.running[to] {
        driver.peers.put_gone(id(gone));
    }
    cluster.perform(to);
}

fn until_led_elsewhere(cluster: &mut Cluster, groups: &[GroupId], lost: usize) -> usize {
    cluster.until("leaders elsewhere", 100, |cluster| {
        groups.iter().all(|group| cluster.leader(*group).is_some_and(|leader| leader != lost))
    })
}

/// Kills each node once. Returns the largest number of rounds until all groups had other leaders.
fn kill_each(seed: u64) -> usize {
    let mut cluster = Cluster::new(seed, 3, 5);
    let mut slowest = 0;
    for node in 0..3 {
        let groups = all_groups(&mut cluster);
        // Half of them are awake.
        groups.iter().step_by(2).for_each(|group| cluster.propose(*group));
        cluster.round();
        cluster.crash(node);
        (0..3).filter(|to| *to != node).for_each(|to| report(&mut cluster, to, node));
        slowest = slowest.max(until_led_elsewhere(&mut cluster, &groups, node));
        groups.iter().for_each(|group| cluster.propose(*group));
        cluster.start(node);
        cluster.until("equal replicas", 200, |cluster| groups.iter().all(|group| cluster.is_equal(*group)));
    }
    cluster.check_acknowledged();
    slowest
}

/// The followers of a dead leader waited for the election timeout, although its kernel had closed their connections.
#[test]
fn groups_of_a_node_whose_process_has_ended_get_leaders_before_the_election_timeout() {
    for seed in 1..=6 {
        let rounds = kill_each(seed);
        assert!(rounds <= SOON, "seed {seed}: {rounds} rounds");
    }
}

#[test]
fn reports_that_are_ignored_are_found() {
    set(Some(Fault::GoneIgnored));
    let found = (1..=6).find(|seed| kill_each(*seed) > SOON);
    set(None);
    assert!(found.is_some());
}

/// The groups of a leader that was started again at once had no leader for an election timeout.
#[test]
fn groups_of_a_node_that_restarts_at_once_get_leaders_before_the_election_timeout() {
    let mut cluster = Cluster::new(1, 3, 5);
    for node in 0..3 {
        let groups = all_groups(&mut cluster);
        cluster.crash(node);
        cluster.start(node);
        let rounds =
            cluster.until("leaders", 60, |cluster| groups.iter().all(|group| cluster.leader(*group).is_some()));
        // Its first heartbeat takes up to two ticks.
        assert!(rounds <= SOON + 3, "{rounds} rounds");
    }
}

/// One node is told again and again that another one is gone. It is not, and the third node hears it.
#[test]
fn wrong_reports_at_one_node_cause_no_election() {
    for seed in 1..=3 {
        let mut cluster = Cluster::new(seed, 3, 5);
        cluster.until("balance", 600, |cluster| cluster.led() == [2, 2, 2]);
        let groups = all_groups(&mut cluster);
        let before = terms(&mut cluster, &groups);
        for round in 0..60 {
            let (deceived, alive) = (cluster.rng.below(3), cluster.rng.below(3));
            if deceived != alive {
                if round % 2 == 0 {
                    cluster.cut(deceived, alive);
                    cluster.cut(alive, deceived);
                }
                report(&mut cluster, deceived, alive);
            }
            (0..cluster.rng.below(30)).for_each(|_| cluster.round());
            cluster.cut.clear();
            // It hears the leader again before another node is told: a quiet leader notices the different digest of a
            // follower after two heartbeats.
            (0..12 + cluster.rng.below(20)).for_each(|_| cluster.round());
        }
        (0..100).for_each(|_| cluster.round());
        assert_eq!(terms(&mut cluster, &groups), before, "seed {seed}\n{}", cluster.show());
    }
}

/// From now on the disk of a node is full.
fn fill(cluster: &mut Cluster, node: usize) {
    cluster.set_free_bytes(node, 0);
}

/// Fills the disks of all nodes, one after the other. Returns an error if a full node leads while another one has room,
/// or if leadership moves although all are full.
fn fill_each(seed: u64) -> Result<(), String> {
    let mut cluster = Cluster::new(seed, 3, 5);
    let groups = all_groups(&mut cluster);
    let led_by = |cluster: &Cluster, node: usize| groups.iter().any(|group| cluster.leader(*group) == Some(node));
    for full in 0..2 {
        fill(&mut cluster, full);
        let left = (0..100).any(|_| {
            cluster.round();
            !(0..=full).any(|node| led_by(&cluster, node))
        });
        if !left {
            return Err(format!("node {full} is full and leads\n{}", cluster.show()));
        }
        // Long enough for the balance of leadership.
        for _ in 0..300 {
            cluster.round();
            if (0..=full).any(|node| led_by(&cluster, node)) {
                return Err(format!("a full node took leadership back\n{}", cluster.show()));
            }
        }
    }
    fill(&mut cluster, 2);
    // The balance spreads them once.
    (0..400).for_each(|_| cluster.round());
    let before = terms(&mut cluster, &groups);
    (0..300).for_each(|_| cluster.round());
    let after = terms(&mut cluster, &groups);
    if before == after { Ok(()) } else { Err(format!("terms {before:?} became {after:?}")) }
}

/// A leader whose disk alone was full refused appends while a majority had room.
#[test]
fn a_leader_whose_disk_alone_is_full_hands_over_and_leads_no_more() {
    for seed in 1..=3 {
        fill_each(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

#[test]
fn full_leaders_that_keep_leading_are_found() {
    set(Some(Fault::FullDiskLeads));
    let found = (1..=3).find(|seed| fill_each(*seed).is_err());
    set(None);
    assert!(found.is_some());
}
