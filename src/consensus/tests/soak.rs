//! Random histories with crashes that lose unsynced data, with lost, duplicated and reordered messages, partitions,
//! trims, and a membership that grows from one node. No acknowledged record may be lost, and in the end all nodes
//! must agree.

use super::sim::World;
use crate::consensus::group::Rules;
use crate::types::Offset;

fn history(seed: u64, nodes: u64, steps: usize) {
    let mut world = World::new(seed, nodes, Rules::default());
    let mut value = 0;
    for _ in 0..steps {
        let i = world.rng.below(world.nodes.len());
        match world.rng.below(1000) {
            0..250 => world.tick(i),
            250..550 => (0..4).for_each(|_| world.deliver()),
            550..800 => world.sync(i),
            800..960 => {
                value += 1;
                let to = if world.rng.below(8) == 0 { Some(i) } else { world.leader() };
                if let Some(to) = to {
                    world.propose(to, value);
                }
            }
            960..970 => {
                if let Some(leader) = world.leader() {
                    let next = world.nodes[leader].group.as_ref().expect("leads").visible().next_offset.0;
                    let first = Offset(world.rng.below(next as usize + 1) as u64);
                    world.trim(leader, 0, first);
                }
            }
            970..980 => world.crash(i),
            980..992 => {
                if world.nodes[i].group.is_none() {
                    world.start(i);
                }
            }
            992..996 => {
                let other = world.rng.below(world.nodes.len());
                let (a, b) = (world.nodes[i].id.0, world.nodes[other].id.0);
                world.cut.insert((a, b));
                world.cut.insert((b, a));
            }
            _ => world.cut.clear(),
        }
    }
    assert!(world.settle(4000), "seed {seed}: the nodes do not converge");
    world.check_fates();
}

/// SERIATIM_SEEDS=n runs n histories of each size instead of a few.
fn seeds() -> u64 {
    std::env::var("SERIATIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40)
}

#[test]
fn one_node() {
    (1..=seeds()).for_each(|seed| history(seed, 1, 3000));
}

#[test]
fn three_nodes() {
    (1..=seeds()).for_each(|seed| history(seed, 3, 4000));
}

#[test]
fn five_nodes() {
    (1..=seeds() / 2).for_each(|seed| history(seed, 5, 5000));
}
