//! What happens when voters believe that the leader's node is lost: if it is, one of them is elected in the next term;
//! if a majority still hears the leader, it keeps leading.

use std::collections::BTreeMap;

use super::sim::World;
use crate::catalog::faults::{Fault, set};
use crate::consensus::group::quiet;
use crate::consensus::group::{Group, Rules};
use crate::types::Term;

/// The rounds between the campaigns of two voters. Messages and syncs take less.
const GAP: usize = 4;

fn group(world: &mut World, i: usize) -> &mut Group {
    world.nodes[i].group.as_mut().expect("running")
}

/// A cluster with random timeouts and a reliable network, and its leader.
fn settled(seed: u64, nodes: u64) -> (World, usize) {
    let mut world = World::new(seed, nodes, Rules::default());
    world.random_timeouts = true;
    world.reliable = true;
    for i in 0..world.nodes.len() {
        world.crash_keeping(i, usize::MAX);
        world.start(i);
    }
    assert!(world.settle(2000), "seed {seed}");
    let leader = world.leader().expect("settled");
    (world, leader)
}

/// Syncs all disks and delivers what is sent now. No time passes.
fn exchange(world: &mut World) {
    for i in 0..world.nodes.len() {
        world.sync(i);
    }
    for _ in 0..world.network.len() {
        world.deliver();
    }
}

/// With random timeouts, two voters would sometimes campaign at the same time, and no one would win that term. Without
/// forgetting the leader, the pre-votes would be refused until the election timeout.
#[test]
fn voters_of_a_lost_leader_elect_one_in_the_next_term_before_the_election_timeout() {
    for seed in 0..20 {
        for nodes in [3, 5] {
            let (mut world, leader) = settled(seed, nodes);
            let term = group(&mut world, leader).term();
            world.crash(leader);
            let mut due = BTreeMap::new();
            for i in (0..world.nodes.len()).filter(|i| *i != leader) {
                let place = quiet::forget_leader(group(&mut world, i)).expect("a voter");
                assert!(due.insert(place * GAP, i).is_none(), "each has its place");
            }
            for round in 0..GAP * nodes as usize {
                if let Some(i) = due.remove(&round).filter(|i| group(&mut world, *i).term() == term) {
                    quiet::campaign(group(&mut world, i));
                    world.perform(i);
                }
                exchange(&mut world);
            }
            let next = world.leader().unwrap_or_else(|| panic!("seed {seed}: no leader without a tick"));
            assert_eq!(group(&mut world, next).term(), Term(term.0 + 1), "seed {seed}: more than one campaign");
        }
    }
}

fn ticks(world: &mut World, count: usize) {
    for _ in 0..count {
        for i in 0..world.nodes.len() {
            world.tick(i);
        }
        (0..4).for_each(|_| exchange(world));
    }
}

/// Random voters are told that the leader is lost, and their links to it are cut at that time. The others still hear
/// the leader, and they are a majority with it. Returns the number of terms in which another node led.
fn deposed(seed: u64, nodes: usize) -> usize {
    let (mut world, leader) = settled(seed, nodes as u64);
    let (term, id) = (group(&mut world, leader).term(), world.nodes[leader].id.0);
    let minority = (nodes - 1) / 2;
    for _ in 0..60 {
        let deceived: Vec<usize> = (1..=minority).map(|n| (leader + n + world.rng.below(2)) % nodes).collect();
        for i in deceived.iter().copied().filter(|i| *i != leader) {
            let other = world.nodes[i].id.0;
            world.cut.extend([(id, other), (other, id)]);
        }
        // Longer than an election timeout, so that some lease would have expired without the leader's heartbeats.
        for _ in 0..world.rng.below(40) {
            for i in deceived.iter().copied().filter(|i| *i != leader) {
                if world.rng.below(3) == 0 {
                    quiet::forget_leader(group(&mut world, i));
                    quiet::campaign(group(&mut world, i));
                    world.perform(i);
                }
            }
            ticks(&mut world, 1);
        }
        world.cut.clear();
        // They hear the leader again before others are told.
        ticks(&mut world, 4);
    }
    ticks(&mut world, 40);
    let leaders = world.leaders.keys().filter(|led| **led > term.0).count();
    assert!(leaders > 0 || world.leader() == Some(leader), "seed {seed}: it leads");
    leaders
}

#[test]
fn links_that_are_cut_and_refused_never_depose_a_leader_that_a_majority_hears() {
    for seed in 1..=30 {
        for nodes in [3, 5] {
            assert_eq!(deposed(seed, nodes), 0, "seed {seed}, {nodes} nodes");
        }
    }
}

/// raft's rule, which this depends on: a voter that has heard the leader within the election timeout ignores requests
/// for pre-votes, too.
#[test]
fn voters_that_grant_the_pre_votes_of_a_rumour_are_found() {
    set(Some(Fault::DeposedByRumour));
    let found = (1..=30).find(|seed| deposed(*seed, 3) > 0);
    set(None);
    assert!(found.is_some(), "no leader was deposed");
}
