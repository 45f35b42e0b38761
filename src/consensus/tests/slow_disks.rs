//! Simulations of elections among nodes whose disks take seconds for a sync.

use super::sim::{Fate, Rng, World};
use crate::consensus::group::{Rules, TICK_MS};
use crate::storage::log::HardState;
use crate::types::LogIndex;
use crate::writer::VOTE_PAUSE;

/// The disk of a node. Like the log-writer, it performs one drain at a time, and writes the manifest after a term or
/// a vote.
#[derive(Clone, Copy, Default)]
struct Disk {
    /// 0 syncs at once.
    ticks_to_sync: usize,
    /// The Ready that the current drain covers, and the tick at which it ends.
    drain: Option<(u64, usize)>,
    /// The last reported Ready.
    reported: u64,
    /// The tick at which the manifest has been written.
    busy_until: usize,
    /// The term and vote in the manifest, and those of the last drain.
    in_manifest: HardState,
    synced: HardState,
    /// The ticks at which two drains ended: the first one that is newer than the manifest, and the last one.
    first: usize,
    last: usize,
}

/// When the manifest is written after a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ManifestTiming {
    /// As soon as no sync is waiting.
    AtOnce,
    /// As in `writer.rs`.
    AfterAPause,
}

struct Cluster {
    seed: u64,
    world: World,
    timing: ManifestTiming,
    disks: Vec<Disk>,
    ticks: usize,
}

impl Cluster {
    /// Creates nodes with fast disks, and elects a leader.
    fn new(seed: u64, nodes: usize, timing: ManifestTiming) -> Cluster {
        let mut world = World::new(seed, nodes as u64, Rules::default());
        world.reliable = true;
        assert!(world.settle(2000));
        world.random_timeouts = true;
        let mut cluster = Cluster { seed, world, timing, disks: vec![Disk::default(); nodes], ticks: 0 };
        for i in 0..nodes {
            cluster.world.crash(i);
            cluster.world.start(i);
        }
        cluster.set_timeouts();
        let mut value = 0;
        while cluster.world.fates.is_empty() {
            cluster.tick();
            if let Some(leader) = cluster.world.leader() {
                cluster.world.propose(leader, (1 << 16) | value);
                value += 1;
            }
            assert!(cluster.ticks < 400, "seed {seed}: no leader with fast disks");
        }
        (0..40).for_each(|_| cluster.tick());
        cluster
    }

    /// Returns the election timeout of a node in a term: random like raft's own, but the same in each run of the test.
    fn timeout(&self, i: usize, term: u64) -> usize {
        let mut rng = Rng((self.seed << 32 | term << 8 | (i as u64 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        12 + rng.below(12)
    }

    fn set_timeouts(&mut self) {
        for i in 0..self.disks.len() {
            let term = self.world.nodes[i].group.as_ref().map_or(0, |group| group.term().0);
            let ticks = self.timeout(i, term);
            if let Some(group) = &mut self.world.nodes[i].group {
                group.set_election_timeout(ticks);
            }
        }
    }

    /// Removes a node permanently.
    fn lose(&mut self, i: usize) {
        self.world.crash(i);
    }

    /// Ticks all nodes, and delivers all messages.
    fn tick(&mut self) {
        self.ticks += 1;
        for i in 0..self.disks.len() {
            self.world.tick(i);
            self.work(i);
        }
        for _ in 0..1000 {
            if self.world.network.is_empty() {
                break;
            }
            self.world.deliver();
            (0..self.disks.len()).for_each(|i| self.work(i));
        }
    }

    /// Ends and begins the drains and manifest writes of a disk that are due.
    fn work(&mut self, i: usize) {
        self.set_timeouts();
        if self.world.nodes[i].group.is_none() {
            return;
        }
        let (disk, now) = (&mut self.disks[i], self.ticks);
        if let Some((ready, _)) = disk.drain.take_if(|(_, until)| *until <= now) {
            if disk.synced == disk.in_manifest {
                disk.first = now;
            }
            let hard_state = self.world.nodes[i].disk.files.hard_state;
            disk.synced = HardState { commit: LogIndex(0), ..hard_state };
            (disk.reported, disk.last) = (ready, now);
            self.world.persisted(i, ready);
            self.set_timeouts();
        }
        let (disk, wanted) = (&mut self.disks[i], self.world.nodes[i].disk.wanted());
        if disk.drain.is_some() || disk.busy_until > now {
            return;
        }
        let waits = wanted > disk.reported;
        let pause = if self.timing == ManifestTiming::AtOnce { 0 } else { VOTE_PAUSE as usize * disk.ticks_to_sync };
        let overdue = now >= disk.first + (1000 / TICK_MS as usize).max(2 * pause);
        if disk.synced != disk.in_manifest && (overdue || (!waits && now >= disk.last + pause)) {
            // Two syncs: of the file and of its directory.
            disk.busy_until = now + 2 * disk.ticks_to_sync;
            disk.in_manifest = disk.synced;
        } else if waits {
            let ticks = disk.ticks_to_sync;
            disk.drain = Some((wanted, now + ticks + self.world.rng.below(ticks / 8 + 1)));
            if ticks == 0 {
                self.work(i);
            }
        }
    }

    /// Returns the number of ticks until an elected leader acknowledges a record; `None` if that takes more than two
    /// minutes.
    fn ticks_to_elect(&mut self) -> Option<usize> {
        const VALUE: u64 = 1 << 32;
        let began = self.ticks;
        for attempt in 0..(120_000 / TICK_MS) {
            self.tick();
            if let Some(leader) = self.world.leader() {
                self.world.propose(leader, VALUE + attempt);
            }
            if self.world.fates.iter().any(|(value, fate)| *value >= VALUE && matches!(fate, Fate::Appended(_))) {
                return Some(self.ticks - began);
            }
        }
        None
    }

    /// Returns the number of ticks without a leader in a minute of load, and the number of terms with a leader.
    fn minute_of_load(&mut self) -> (usize, usize) {
        self.load(60_000 / TICK_MS, 1)
    }

    /// Returns the number of ticks without a leader, and the number of terms with a leader, in `ticks` ticks with a
    /// record in every `every`-th tick.
    fn load(&mut self, ticks: u64, every: u64) -> (usize, usize) {
        let mut without_leader = 0;
        let mut terms = std::collections::BTreeSet::new();
        for value in 0..ticks {
            self.tick();
            match self.world.leader() {
                Some(leader) => {
                    if value.is_multiple_of(every) {
                        self.world.propose(leader, value);
                    }
                    terms.insert(self.world.nodes[leader].group.as_ref().expect("up").status().term);
                }
                None => without_leader += 1,
            }
        }
        (without_leader, terms.len())
    }
}

/// Returns the seconds until a new leader is elected, after the disks became slow and the leader was lost. Checks
/// that the new leader keeps its leadership.
fn elects(seed: u64, nodes: usize, slow: &[usize], millis: usize, timing: ManifestTiming) -> f64 {
    let mut cluster = Cluster::new(seed, nodes, timing);
    let lost = cluster.world.leader().expect("a leader");
    for i in slow {
        cluster.disks[(lost + i) % nodes].ticks_to_sync = millis / TICK_MS as usize;
    }
    cluster.lose(lost);
    let what = format!("{nodes} nodes, {slow:?} with syncs of {millis} ms, seed {seed}");
    let Some(elected) = cluster.ticks_to_elect() else { panic!("{what}: no leader") };
    assert_eq!(cluster.minute_of_load(), (0, 1), "{what}: it stays");
    cluster.world.check_fates();
    elected as f64 * TICK_MS as f64 / 1000.0
}

/// Runs [`elects`] with ten seeds. Returns the seconds in ascending order.
fn elects_each(nodes: usize, slow: &[usize], millis: usize, timing: ManifestTiming) -> Vec<f64> {
    let mut taken: Vec<f64> = (1..=10).map(|seed| elects(seed, nodes, slow, millis, timing)).collect();
    taken.sort_by(f64::total_cmp);
    println!("{nodes} nodes, {slow:?} with syncs of {millis} ms, manifest {timing:?}: a leader after {taken:?} s");
    taken
}

/// A candidate syncs its vote, then a voter syncs its vote, and a manifest may delay each of them. If a sync takes
/// 0.5 s or more, this exceeds the election timeout, and elections failed forever.
#[test]
fn a_leader_is_elected_although_every_sync_takes_seconds() {
    for millis in [500, 1000, 2000] {
        for timing in [ManifestTiming::AtOnce, ManifestTiming::AfterAPause] {
            elects_each(3, &[1, 2], millis, timing);
            elects_each(5, &[1, 2, 3, 4], millis, timing);
        }
    }
}

/// Either the voter's disk is slow, which the candidate can't see from its own disk, or the candidate's disk is slow.
#[test]
fn a_fast_node_and_a_slow_one_elect_a_leader() {
    for millis in [500, 2000] {
        for timing in [ManifestTiming::AtOnce, ManifestTiming::AfterAPause] {
            elects_each(3, &[1], millis, timing);
            elects_each(3, &[2], millis, timing);
        }
    }
}

/// The leader's disk took 100 ms for a sync, and the others' disks took no time. Every append took 218 ms, and the
/// leader kept its leadership.
#[test]
fn a_leader_with_the_slowest_disk_hands_over_once() {
    for seed in 1..=10 {
        let mut cluster = Cluster::new(seed, 3, ManifestTiming::AfterAPause);
        let slow = cluster.world.leader().expect("a leader");
        cluster.disks[slow].ticks_to_sync = 2;
        let (_, terms) = cluster.minute_of_load();
        let next = cluster.world.leader().expect("a leader");
        assert!(next != slow && terms == 2, "seed {seed}: {terms} terms");
        assert_eq!(cluster.minute_of_load(), (0, 1), "seed {seed}: no ping-pong");
        assert_eq!(cluster.world.leader(), Some(next));
        // If most disks are slow, no other leader is better.
        cluster.disks.iter_mut().for_each(|disk| disk.ticks_to_sync = 2);
        cluster.disks[slow].ticks_to_sync = 0;
        assert_eq!(cluster.minute_of_load(), (0, 1), "seed {seed}: most disks are slow");
    }
}

/// With a record every two seconds, the slow leader lagged for only a small part of the time and never handed over.
/// Each of these records took 218 ms.
#[test]
fn a_leader_with_the_slowest_disk_hands_over_although_there_are_few_records() {
    for seed in 1..=5 {
        let mut cluster = Cluster::new(seed, 3, ManifestTiming::AfterAPause);
        let slow = cluster.world.leader().expect("a leader");
        let (two_seconds, five_minutes) = (2000 / TICK_MS, 300_000 / TICK_MS);
        assert_eq!(cluster.load(five_minutes, two_seconds), (0, 1), "seed {seed}: no disk is slow");
        cluster.disks[slow].ticks_to_sync = 2;
        let (_, terms) = cluster.load(five_minutes, two_seconds);
        let next = cluster.world.leader().expect("a leader");
        assert!(next != slow && terms == 2, "seed {seed}: {terms} terms");
        assert_eq!(cluster.load(five_minutes, two_seconds), (0, 1), "seed {seed}: no ping-pong");
    }
}

/// With fast disks, the first election succeeds after the first election timeout: the backoff for slow disks does not
/// delay it.
#[test]
fn fast_disks_elect_as_soon_as_the_first_timeout_is_over() {
    let mut elections = 0;
    for seed in 1..=40 {
        let mut cluster = Cluster::new(seed, 3, ManifestTiming::AfterAPause);
        let lost = cluster.world.leader().expect("a leader");
        let term = cluster.world.nodes[lost].group.as_ref().expect("up").term().0;
        let timeouts: Vec<usize> = (0..3).filter(|i| *i != lost).map(|i| cluster.timeout(i, term)).collect();
        cluster.lose(lost);
        let elected = cluster.ticks_to_elect().expect("a leader");
        if timeouts[0].abs_diff(timeouts[1]) > 2 {
            assert!(elected <= timeouts[0].min(timeouts[1]) + 1, "seed {seed}: {elected} of {timeouts:?}");
            elections += 1;
        } else {
            // Both may become candidates at once. The second election succeeds, after the usual timeout.
            assert!(elected <= 2 * 24, "seed {seed}: {elected}");
        }
    }
    assert!(elections > 20, "{elections}");
}
