//! Tests of acknowledgements that are capped because a digest is missing. A cap must never stop replication
//! permanently.

use super::*;
use crate::storage::log::SealAge;

impl World {
    fn progress(&self, leader: usize, of: usize) -> (u64, raft::ProgressState) {
        let group = &self.nodes[leader].process.as_ref().expect("running").replica.group;
        let progress = group.node.raft.prs().get(of as u64 + 1).expect("a member");
        (progress.matched, progress.state)
    }

    fn indexes(&self, i: usize) -> (LogIndex, LogIndex) {
        let status = self.nodes[i].process.as_ref().expect("running").replica.group.status();
        (status.commit_index, status.last_index)
    }
}

/// Returns three voters that have applied the same entries, up to one that is not a checkpoint, and the numbers of
/// the leader and of a follower.
pub(super) fn three(seed: u64) -> (World, usize, usize) {
    let mut world = World::new(seed, 3);
    (0..3).for_each(|i| world.nodes[i].wanted = world.wanted.clone());
    loop {
        assert!(world.settle(4000));
        let leader = world.leader().expect("a leader");
        let (commit, last) = world.indexes(leader);
        if commit == last && commit.0 % crate::storage::checkpoints::CHECKPOINT_ENTRIES == 4 {
            let follower = (leader + 1) % 3;
            world.kill(3 - leader - follower, false);
            return (world, leader, follower);
        }
        world.produce(leader);
    }
}

/// Checks that these two nodes can commit everything without the third one.
fn two_commit_all(world: &mut World, nodes: [usize; 2]) {
    for _ in 0..2000 {
        world.heal_step(&nodes, 100);
        let done = |i: usize| world.indexes(i).0 == world.indexes(i).1;
        if nodes.into_iter().all(done) && world.leader().is_some() {
            return;
        }
    }
    let at = nodes.map(|i| world.indexes(i));
    let leader = world.leader().map(|leader| (leader, nodes.map(|i| world.progress(leader, i))));
    panic!("(commit, last) {at:?}, leader {leader:?}");
}

/// A follower's disk hangs while more entries are appended than the leader keeps digests of. Then the follower's
/// process restarts, and all messages in flight are lost. The leader probes from the last committed entry. It no
/// longer knew the digest there, so each acknowledgement was capped at this entry, and replication made no progress.
#[test]
fn a_follower_that_restarts_with_a_long_tail_in_flight_is_acknowledged() {
    for seed in 1..=5 {
        let (mut world, leader, follower) = three(seed);
        for _ in 0..1500 {
            world.produce(leader);
            if world.rng.once_in(20) {
                world.tick(leader);
                world.sync(leader, false);
                world.sync(leader, true);
                world.tick(follower);
                (0..20).for_each(|_| world.deliver());
            }
        }
        assert_eq!(world.leader(), Some(leader));
        world.kill(follower, true);
        world.network.clear();
        world.start(follower);
        let node = NodeId(follower as u64 + 1);
        world.nodes[leader].process.as_mut().expect("running").replica.group.unreachable(node);
        two_commit_all(&mut world, [leader, follower]);
    }
}

/// A leader restarts with uncommitted entries in several segments. Only the newest segment was read for digests.
#[test]
fn a_leader_that_restarts_with_a_tail_in_several_segments_is_acknowledged() {
    for seed in 1..=5 {
        let (mut world, leader, follower) = three(seed);
        let (commit, _) = world.indexes(leader);
        (0..60).for_each(|_| world.produce(leader));
        world.perform(leader);
        world.sync(leader, false);
        world.sync(leader, true);
        [leader, follower].into_iter().for_each(|i| world.kill(i, true));
        world.network.clear();
        [leader, follower].into_iter().for_each(|i| world.start(i));
        for _ in 0..20000 {
            world.heal_step(&[leader, follower], 1);
            if world.leader() == Some(leader) && world.progress(leader, follower).0 >= commit.0 {
                break;
            }
        }
        // The follower has everything, but its acknowledgements are lost.
        for _ in 0..100 {
            world.heal_step(&[leader], 0);
            let at = world.network.iter().position(|m| m.to == follower as u64 + 1);
            let Some(at) = at else { continue };
            let message = world.network.remove(at);
            let process = world.nodes[follower].process.as_mut().expect("running");
            process.replica.step(message, FeatureRange::SUPPORTED).expect("a message of a peer");
            world.perform(follower);
            if world.indexes(follower).1 == world.indexes(leader).1 {
                break;
            }
        }
        world.network.clear();
        let node = NodeId(follower as u64 + 1);
        world.nodes[leader].process.as_mut().expect("running").replica.group.unreachable(node);
        world.network.clear();
        two_commit_all(&mut world, [leader, follower]);
    }
}

/// Everything was applied when the leader started, and its newest segment was empty.
#[test]
fn a_leader_that_restarts_with_an_empty_segment_is_acknowledged() {
    for seed in 1..=5 {
        let (mut world, leader, follower) = three(seed);
        for i in [leader, follower] {
            world.kill(i, false);
            world.start(i);
            // The segment is sealed, and the next one contains no entries.
            let process = world.nodes[i].process.as_mut().expect("running");
            let seal = Some(SealAge { used_us: 0, empty_us: 0 });
            process.replica.keep_time(1 << 40, seal, &process.sinks).expect("written");
        }
        (0..10).for_each(|_| world.heal_step(&[leader, follower], 0));
        for i in [leader, follower] {
            world.kill(i, false);
            world.start(i);
        }
        world.network.clear();
        two_commit_all(&mut world, [leader, follower]);
        let Some(leader) = world.leader() else { panic!("no leader") };
        let follower = 3 - (0..3).find(|i| world.nodes[*i].process.is_none()).expect("one is down") - leader;
        world.kill(follower, true);
        world.network.clear();
        (0..3).for_each(|_| world.produce(leader));
        world.start(follower);
        let node = NodeId(follower as u64 + 1);
        world.nodes[leader].process.as_mut().expect("running").replica.group.unreachable(node);
        two_commit_all(&mut world, [leader, follower]);
    }
}

impl World {
    fn capped_step(&mut self) {
        self.step += 1;
        let n = self.nodes.len();
        let i = self.rng.below(n as u64) as usize;
        match self.rng.below(1000) {
            0..200 => self.tick(i),
            200..400 => (0..n).for_each(|_| self.deliver()),
            400..500 => {
                let end = self.rng.once_in(2);
                self.sync(i, end);
            }
            500..900 => self.leader().into_iter().for_each(|leader| {
                let burst = if self.rng.once_in(200) { 1200 } else { 1 };
                (0..burst).for_each(|_| self.produce(leader));
            }),
            900..920 => {
                if let Some(process) = &self.nodes[i].process {
                    process.readers.run();
                    self.perform(i);
                }
            }
            920..923 => self.leader().into_iter().for_each(|leader| self.trim(leader)),
            923..926 => self.kill(i, true),
            926..950 => {
                if self.nodes[i].process.is_none() {
                    self.start(i);
                }
            }
            950..960 => {
                let other = self.rng.below(n as u64) + 1;
                self.cut.extend([(i as u64 + 1, other), (other, i as u64 + 1)]);
            }
            960..964 => self.nodes[i].hangs_until = self.step + self.rng.below(1000) as usize,
            964..970 => {
                let node = NodeId(self.rng.below(n as u64) + 1);
                if let Some(process) = &mut self.nodes[i].process {
                    process.replica.group.unreachable(node);
                }
                self.perform(i);
            }
            _ => self.cut.clear(),
        }
    }
}

fn history(seed: u64) {
    let mut world = World::new(seed, 3);
    (0..3).for_each(|i| world.nodes[i].wanted = world.wanted.clone());
    for _ in 0..5 {
        assert!(world.settle(6000), "the nodes do not converge");
        (0..1500).for_each(|_| world.capped_step());
        let down = world.rng.below(3) as usize;
        world.cut.clear();
        world.nodes.iter_mut().for_each(|node| node.hangs_until = 0);
        world.kill(down, true);
        if world.rng.once_in(2) {
            world.network.clear();
        }
        let pair: Vec<usize> = (0..3).filter(|i| *i != down).collect();
        two_commit_all(&mut world, [pair[0], pair[1]]);
    }
}

/// After any history, two of three nodes can commit all their entries.
#[test]
fn two_of_three_make_progress() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let (first, count): (u64, u64) = (number("SERIATIM_SEED").unwrap_or(1), number("SERIATIM_SEEDS").unwrap_or(4));
    for seed in first..first + count {
        if let Err(panic) = std::panic::catch_unwind(|| history(seed)) {
            println!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
