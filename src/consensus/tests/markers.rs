//! A snapshot that comes to a node whose disk is slow.

use raft::eraftpb::{Message, MessageType};

use super::sim::World;
use crate::consensus::group::Rules;
use crate::types::Offset;

/// Three voters; the third has got a snapshot, and nothing of it is synced.
fn a_marker_that_is_not_synced() -> World {
    let mut world = World::new(1, 3, Rules::default());
    assert!(world.settle(2000));
    world.crash(2);
    let leader = world.leader().expect("a majority");
    for value in 0..20 {
        world.propose(leader, value);
    }
    let round = |world: &mut World| {
        for i in [0, 1] {
            world.tick(i);
            world.sync(i);
        }
        (0..world.network.len()).for_each(|_| world.deliver());
    };
    (0..20).for_each(|_| round(&mut world));
    let leader = world.leader().expect("a majority");
    world.trim(leader, 0, Offset(20));
    (0..20).for_each(|_| round(&mut world));
    world.start(2);
    let base = world.nodes[leader].disk.files.base;
    for _ in 0..200 {
        round(&mut world);
        if world.nodes[2].disk.files.base == base {
            return world;
        }
    }
    panic!("no snapshot arrived");
}

/// raft looks at what is not applied before an election, and what lies before a snapshot is not there any more: a voter whose
/// leader went away while it wrote a snapshot to a slow disk panicked ("unexpected error getting unapplied entries").
#[test]
fn a_node_whose_marker_is_not_synced_starts_no_election() {
    let mut world = a_marker_that_is_not_synced();
    world.network.clear();
    (0..100).for_each(|_| world.tick(2));
    let group = world.nodes[2].group.as_mut().expect("running");
    let mut now = Message { from: 1, to: 3, term: group.status().term.0, ..Message::default() };
    now.set_msg_type(MessageType::MsgTimeoutNow);
    group.step(now);
    world.sync(2);
    assert!(world.settle(2000));
}
