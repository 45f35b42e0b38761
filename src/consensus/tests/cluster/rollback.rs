//! Simulations of disks that are restored to an older copy, or lose a synced tail. Acknowledged records may then be
//! lost, because two of three nodes may no longer have them. But the loss is detected: replicas that differ below
//! their commit indexes do not continue as if they were equal, and no leader counts an acknowledgement from a node
//! that does not have its entries.

use super::*;
use crate::consensus::handle::{GroupStatus, Role};
use crate::consensus::tests::violations;

impl World {
    fn status(&self, i: usize) -> Option<GroupStatus<ReplicaId>> {
        self.nodes[i].process.as_ref().map(|p| p.replica.group.status())
    }

    fn entry(&self, i: usize, index: LogIndex) -> Option<Entry> {
        let reader = &self.nodes[i].process.as_ref()?.replica.reader;
        reader.entries(index, index.next(), u64::MAX, Access::Blocking).ok()?.into_iter().next()
    }

    /// Returns the index of the entry before the first stored one.
    fn base(&self, i: usize) -> LogIndex {
        self.nodes[i].process.as_ref().map_or(LogIndex(0), |p| p.replica.group.node.store().base().index)
    }

    /// Records the entries of a node before its process ends. Its disk may be restored while it is down and its
    /// acknowledgements are in flight. The recorded entries count as stored, because no leader can know that they
    /// were lost.
    fn remember(&mut self, i: usize) {
        if let Some(process) = &self.nodes[i].process {
            let reader = &process.replica.reader;
            let last = process.replica.group.status().last_index.0;
            let first = last.saturating_sub(200).max(self.base(i).next().0);
            let held = reader.entries(LogIndex(first), LogIndex(u64::MAX), u64::MAX, Access::Blocking);
            self.held[i].extend(held.unwrap_or_default());
        }
    }

    /// Restores a disk to an older copy.
    fn roll_back(&mut self, i: usize, copy: &Sim) {
        self.remember(i);
        self.kill(i, true);
        self.nodes[i].sim = copy.copy();
    }

    /// Random steps without membership changes; sometimes a disk is restored to an older copy.
    fn rollback_step(&mut self, copies: &mut [Sim]) {
        self.step += 1;
        let n = self.nodes.len();
        let i = self.rng.below(n as u64) as usize;
        match self.rng.below(1000) {
            0..250 => self.tick(i),
            250..600 => (0..n).for_each(|_| self.deliver()),
            600..800 => {
                let end = self.rng.once_in(2);
                self.sync(i, end);
            }
            800..940 => self.leader().into_iter().for_each(|leader| self.produce(leader)),
            940..947 => {
                if let Some(process) = &self.nodes[i].process {
                    process.readers.run();
                    self.perform(i);
                }
            }
            947..950 => self.leader().into_iter().for_each(|leader| self.trim(leader)),
            950..962 => copies[i] = self.nodes[i].sim.copy(),
            962..966 => {
                let copy = copies[i].copy();
                self.roll_back(i, &copy);
            }
            966..972 => {
                self.remember(i);
                self.kill(i, true);
            }
            972..988 => {
                if self.nodes[i].process.is_none() {
                    self.start(i);
                }
            }
            988..993 => {
                let other = self.rng.below(n as u64) + 1;
                self.cut.extend([(i as u64 + 1, other), (other, i as u64 + 1)]);
            }
            _ => self.cut.clear(),
        }
        self.check_acknowledged();
    }

    /// Checks that everything acknowledged since the last step is on a majority. (A node that is down may have it.)
    fn check_acknowledged(&mut self) {
        let index = std::mem::take(&mut self.acknowledged);
        if index == LogIndex(0) {
            return;
        }
        let leader = (0..self.nodes.len()).filter(|i| self.status(*i).is_some_and(|s| s.role == Role::Leader));
        let holds = |a: &Entry, b: usize| {
            let held = self.nodes[b].process.is_none() || self.base(b) >= index || self.held[b].contains(a);
            held || self.entry(b, index).as_ref() == Some(a)
        };
        let most = leader
            .filter_map(|i| self.entry(i, index))
            .map(|entry| (0..self.nodes.len()).filter(|b| holds(&entry, *b)).count())
            .max();
        assert!(
            most.is_none_or(|most| most > self.nodes.len() / 2),
            "step {}: {index} is at {most:?} nodes",
            self.step
        );
    }

    /// After all faults are over: any two nodes that do not report damage have equal logs.
    fn check_replicas(&self) {
        let sound: Vec<usize> =
            (0..self.nodes.len()).filter(|i| self.status(*i).is_some_and(|s| s.damage.is_none())).collect();
        for (a, b) in sound.iter().flat_map(|a| sound.iter().filter(move |b| a < b).map(move |b| (*a, *b))) {
            let applied = |i| self.status(i).expect("running").applied_index;
            let first = self.base(a).max(self.base(b)).next();
            for index in (first.0..=applied(a).min(applied(b)).0).map(LogIndex) {
                let (in_a, in_b) = (self.entry(a, index), self.entry(b, index));
                assert!(
                    in_a.is_some() && in_a == in_b,
                    "entry {index} differs at nodes {a} and {b}: {in_a:?}, {in_b:?}"
                );
            }
        }
    }
}

/// Returns how many nodes report damage in the end.
fn history(seed: u64, rules: Rules) -> usize {
    let mut world = World::new(seed, 3);
    (world.rules, world.rolls_back) = (rules, true);
    for i in 0..3 {
        world.kill(i, true);
        world.start(i);
        world.nodes[i].wanted = world.wanted.clone();
    }
    let grown = |world: &World| (0..3).all(|i| world.status(i).is_some_and(|s| s.voters.len() == 3));
    while !grown(&world) {
        world.heal_step(&[0, 1, 2], 100);
    }
    let mut copies: Vec<Sim> = world.nodes.iter().map(|node| node.sim.copy()).collect();
    (0..6000).for_each(|_| world.rollback_step(&mut copies));
    world.cut.clear();
    (0..400).for_each(|_| world.heal_step(&[0, 1, 2], 100));
    world.check_replicas();
    (0..3).filter(|i| world.status(*i).is_some_and(|s| s.damage.is_some())).count()
}

#[test]
fn replicas_that_differ_report_it() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let (first, count): (u64, u64) = (number("SERIATIM_SEED").unwrap_or(1), number("SERIATIM_SEEDS").unwrap_or(60));
    let of_seed = |seed| {
        std::panic::catch_unwind(|| history(seed, Rules::default())).unwrap_or_else(|panic| {
            println!("seed {seed}");
            std::panic::resume_unwind(panic)
        })
    };
    let damaged: usize = (first..first + count).map(of_seed).sum();
    assert!(damaged > 0 || count < 60, "the histories make replicas differ");
}

#[test]
fn without_the_comparison_histories_end_in_violations() {
    let forgotten = Rules { compare_with_leader: false, acknowledge_compared_only: false, ..Rules::default() };
    assert!(
        violations(60, |seed| {
            history(seed, forgotten);
        }) > 0
    );
}
