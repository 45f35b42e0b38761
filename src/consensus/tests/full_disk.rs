//! Tests of a node with a full disk: what it refuses, what it still does, and that it recovers (RELIABILITY L14).

use std::path::Path;

use super::sim::{Fate, World};
use crate::config::DiskSpace;
use crate::consensus::group::{Group, Rules};
use crate::storage::disk::sim::Sim;
use crate::storage::space::Space;
use crate::types::Offset;

/// The space of a disk with less free space than required.
fn full() -> Space {
    let disk = Sim::default().disk();
    let config =
        DiskSpace { disk_free_soft_bytes: None, disk_free_hard_bytes: Some(1 << 40), disk_reserve_bytes: Some(0) };
    disk.watch_space(Path::new("/"), &config).expect("watched");
    disk.space().clone()
}

fn group(world: &mut World, i: usize) -> &mut Group {
    world.nodes[i].group.as_mut().expect("running")
}

fn settled() -> (World, usize) {
    let mut world = World::new(7, 3, Rules::default());
    assert!(world.settle(2000), "three voters");
    let leader = world.leader().expect("a leader");
    (world, leader)
}

#[test]
fn a_leader_refuses_appends_and_takes_trims() {
    let (mut world, leader) = settled();
    world.propose(leader, 1);
    assert!(world.settle(500));
    assert_eq!(world.fates[&1], Fate::Appended(Offset(0)));
    group(&mut world, leader).set_space(full());
    world.propose(leader, 2);
    assert_eq!(world.fates.get(&2), Some(&Fate::Not), "at once");
    world.trim(leader, 0, Offset(1));
    assert!(world.settle(500));
    for i in 0..3 {
        assert_eq!(group(&mut world, i).visible().first_offset, Offset(1), "node {i}");
    }
    group(&mut world, leader).set_space(Space::default());
    world.propose(leader, 3);
    assert!(world.settle(500));
    assert_eq!(world.fates[&3], Fate::Appended(Offset(1)));
    world.check_fates();
}

#[test]
fn a_follower_accepts_no_entries_and_recovers() {
    let (mut world, leader) = settled();
    let follower = (leader + 1) % 3;
    let (term, last) = {
        let status = group(&mut world, follower).status();
        (status.term, status.last_index)
    };
    group(&mut world, follower).set_space(full());
    for value in 1..=50 {
        world.propose(leader, value);
    }
    let mut rounds = 0;
    while world.fates.len() < 50 {
        rounds += 1;
        assert!(rounds < 500, "the other two are a majority: {:?}", world.fates);
        for i in 0..3 {
            world.tick(i);
            world.sync(i);
        }
        for _ in 0..world.network.len().min(500) {
            world.deliver();
        }
    }
    assert!(world.fates.values().all(|fate| matches!(fate, Fate::Appended(_))), "{:?}", world.fates);
    let status = group(&mut world, follower).status();
    assert_eq!(status.last_index, last, "no entry is accepted that can't be stored");
    assert!(status.commit_index <= last && status.term == term, "it follows and does not campaign: {status:?}");
    group(&mut world, follower).set_space(Space::default());
    assert!(world.settle(1000), "it has everything");
    world.check_fates();
}
