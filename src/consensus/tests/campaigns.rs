//! When the node of a leader is silent, its voters campaign one after the other.

use super::sim::World;
use crate::consensus::group::quiet;
use crate::consensus::group::{ELECTION_TICKS, Rules};
use crate::types::Term;

/// With random timeouts, two voters would sometimes campaign at the same time, and no one would win that term.
#[test]
fn voters_of_a_silent_leader_are_elected_in_the_next_term() {
    for seed in 0..20 {
        for nodes in [3, 5] {
            let mut world = World::new(seed, nodes, Rules::default());
            world.random_timeouts = true;
            world.reliable = true;
            for i in 0..world.nodes.len() {
                world.crash_keeping(i, usize::MAX);
                world.start(i);
            }
            assert!(world.settle(2000), "seed {seed}");
            let leader = world.leader().expect("settled");
            let term = world.nodes[leader].group.as_ref().expect("running").term();
            world.crash(leader);
            for node in &mut world.nodes {
                node.group.iter_mut().for_each(quiet::campaign_soon);
            }
            let mut ticks = 0;
            while world.leader().is_none() {
                ticks += 1;
                for i in 0..world.nodes.len() {
                    world.tick(i);
                    world.sync(i);
                }
                while !world.network.is_empty() {
                    world.deliver();
                    (0..world.nodes.len()).for_each(|i| world.sync(i));
                }
                assert!(ticks <= ELECTION_TICKS / 2, "seed {seed}: no leader after {ticks} ticks");
            }
            let next = world.leader().expect("elected");
            let elected = world.nodes[next].group.as_ref().expect("running").term();
            assert_eq!(elected, Term(term.0 + 1), "seed {seed}: more than one campaign");
        }
    }
}
