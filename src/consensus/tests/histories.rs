//! Random histories of a growing cluster, for combinations of faults that random single steps rarely reach: a node
//! that is down while the membership changes and then crashes in the middle of a write, network partitions, streams
//! whose requests are lost in transit, and clients that react to the errors that they receive.
//!
//! With all rules no history ends in a violation. With one rule disabled, some do: this shows that each rule is needed.

use std::collections::{BTreeMap, BTreeSet};

use super::sim::{Answer, World, answered};
use super::violations;
use crate::consensus::group::Rules;
use crate::consensus::handle::{Proposal, ProposeError, StreamPosition};
use crate::storage::entry::EntryKind;
use crate::storage::payload::{RecordFields, encode_record};
use crate::types::{GroupId, Offset, ReplicaId, StreamId};

const NODES: u64 = 5;

/// The rules that a history disables.
#[derive(Clone, Copy, Default)]
struct Without {
    rules: Rules,
    /// Every run of a stream has the same id.
    run_ids: bool,
}

/// A produce stream: runs of pipelined requests. A run ends when all its requests are answered.
#[derive(Default)]
struct Stream {
    id: u64,
    sequence: u64,
    waiting: Vec<(u64, Answer)>,
    /// True if a request was refused before it reached the leader. None of the later ones may be appended.
    lost: bool,
    forbidden: Vec<u64>,
}

struct History {
    world: World,
    without: Without,
    value: u64,
    stream: Stream,
    streams: u64,
    /// Requests that expect an offset, and the acknowledged end of the log when they were sent.
    expecting: Vec<(Offset, u64, Answer)>,
    broken_streams: BTreeSet<u64>,
    /// Clients wait.
    quiet: bool,
}

fn proposal(value: u64) -> Proposal {
    let mut payload = Vec::new();
    encode_record(&mut payload, &RecordFields { value: &value.to_le_bytes(), ..RecordFields::default() });
    Proposal::new(GroupId(1), EntryKind::Records, 1, payload.as_slice().into())
}

impl History {
    fn new(seed: u64, without: Without) -> History {
        let mut world = World::new(seed, NODES, without.rules);
        world.wanted.truncate(3);
        History {
            world,
            without,
            value: 0,
            stream: Stream::default(),
            streams: 1,
            expecting: Vec::new(),
            broken_streams: BTreeSet::new(),
            quiet: false,
        }
    }

    fn below(&mut self, n: usize) -> usize {
        self.world.rng.below(n)
    }

    /// Lets every running node tick, sync and receive messages, and clients send requests to the leader.
    fn round(&mut self) {
        for i in 0..NODES as usize {
            self.world.tick(i);
            self.world.sync(i);
            let leads = self.world.nodes[i].group.as_ref().is_some_and(|g| g.leads());
            if leads && !self.quiet && self.below(3) == 0 {
                self.ask(i);
            }
        }
        for _ in 0..self.world.network.len().min(60) {
            self.world.deliver();
            if self.below(3) == 0 {
                let i = self.below(NODES as usize);
                self.world.sync(i);
            }
        }
        self.take_answers();
    }

    fn ask(&mut self, leader: usize) {
        self.value += 1;
        match self.below(4) {
            0 => self.world.propose(leader, self.value),
            1 => self.expect(leader),
            _ => {
                let burst = 1 + self.below(4);
                for _ in 0..burst {
                    self.value += 1;
                    self.send_on_stream(leader);
                }
            }
        }
    }

    /// Returns the end of the entries that are known to be committed.
    fn committed_end(&self) -> u64 {
        let ends = self.world.committed.values().filter_map(|(term, data)| {
            let entry = crate::storage::entry::Entry { index: Default::default(), term: *term, data: data.clone() };
            entry.end_offset().ok()
        });
        ends.map(|end| end.0).max().unwrap_or(0)
    }

    fn expect(&mut self, leader: usize) {
        let end = self.committed_end();
        let expected = Offset(end.saturating_sub(1) + self.below(4) as u64);
        let asked = Proposal { expected_offset: Some(expected), ..proposal(self.value) };
        let answer = self.world.ask(leader, asked);
        self.expecting.push((expected, end, answer));
    }

    fn send_on_stream(&mut self, leader: usize) {
        if self.stream.waiting.len() >= 6 {
            return;
        }
        if self.stream.waiting.is_empty() && !self.stream.lost {
            // A new run.
            self.stream.sequence = 0;
            if !self.without.run_ids || self.stream.id == 0 {
                self.streams += 1;
                self.stream.id = self.streams;
            }
        }
        let place = StreamPosition { stream: StreamId(self.stream.id), sequence: self.stream.sequence };
        self.stream.sequence += 1;
        if self.stream.lost {
            self.stream.forbidden.push(self.value);
        }
        if self.below(8) == 0 {
            // The inbox is full: refused before it reaches the leader.
            self.stream.lost = true;
            return;
        }
        let answer = self.world.ask(leader, Proposal { in_stream: Some(place), ..proposal(self.value) });
        self.stream.waiting.push((self.value, answer));
    }

    fn take_answers(&mut self) {
        let committed = self.committed_end();
        self.expecting.retain_mut(|(expected, at_least, answer)| match answered(answer) {
            None => true,
            Some(Err(ProposeError::ExpectedOffset { next_offset })) => {
                assert!(next_offset.0 <= committed, "refused by {next_offset}, only {committed} is committed");
                assert!(next_offset.0 >= *at_least, "refused by {next_offset}, though {at_least} was committed before");
                assert_ne!(next_offset, *expected);
                false
            }
            Some(_) => false,
        });
        let failed = std::mem::take(&mut self.stream.waiting);
        for (value, mut answer) in failed {
            match answered(&mut answer) {
                None => self.stream.waiting.push((value, answer)),
                Some(Ok(_)) => {}
                Some(Err(_)) => self.stream.lost = true,
            }
        }
        if self.stream.waiting.is_empty() && self.stream.lost {
            // The stream has ended with a status. The client opens another one.
            self.broken_streams.extend(std::mem::take(&mut self.stream.forbidden));
            let id = if self.without.run_ids { self.stream.id } else { 0 };
            self.stream = Stream { id, ..Stream::default() };
        }
    }

    fn rounds(&mut self, most: usize) {
        let rounds = 1 + self.below(most);
        (0..rounds).for_each(|_| self.round());
    }

    fn cut(&mut self, one: &[usize], other: &[usize]) {
        for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a as u64 + 1, *b as u64 + 1))) {
            self.world.cut.extend([(a, b), (b, a)]);
        }
    }

    fn episode(&mut self) {
        let all: Vec<usize> = (0..NODES as usize).collect();
        let x = self.below(NODES as usize);
        let others: Vec<usize> = all.iter().copied().filter(|i| *i != x).collect();
        match self.below(10) {
            0 | 1 => self.rounds(30),
            // One node is down while the membership grows, and after its restart reaches only the leader.
            2..=4 => {
                // One of the three initial voters.
                let x = self.below(3);
                let others: Vec<usize> = all.iter().copied().filter(|i| *i != x).collect();
                self.cut(&[x], &others);
                self.rounds(40);
                self.grow();
                self.world.network.clear();
                self.world.cut.clear();
                let leader = self.world.leader();
                let away: Vec<usize> = others.iter().copied().filter(|i| Some(*i) != leader).collect();
                self.cut(&[x], &away);
                self.crash_in_a_write(x);
                let old = others.iter().copied().find(|i| *i < 3 && Some(*i) != leader);
                if let Some(y) = old.filter(|_| self.below(2) == 0) {
                    self.split(&[x, y]);
                }
            }
            5 => {
                self.world.crash(x);
                self.rounds(30);
            }
            6 => self.world.cut.clear(),
            7 => self.crash_in_a_write(x),
            // A network partition into two groups.
            _ => {
                let y = others[self.below(others.len())];
                if self.below(2) == 0 { self.split(&[x, y]) } else { self.split(&[x]) }
            }
        }
        for i in all {
            if self.world.nodes[i].group.is_none() && self.below(2) == 0 {
                self.world.start(i);
            }
        }
    }

    /// Partitions the network between these nodes and the others for a while.
    fn split(&mut self, one: &[usize]) {
        self.world.network.clear();
        self.world.cut.clear();
        let other: Vec<usize> = (0..NODES as usize).filter(|i| !one.contains(i)).collect();
        self.cut(one, &other);
        self.rounds(160);
    }

    /// Tries for some rounds to make all nodes voters.
    fn grow(&mut self) {
        self.world.wanted = (1..=NODES).map(ReplicaId).collect();
        self.quiet = self.below(4) > 0;
        for _ in 0..150 {
            self.round();
            let voters = |i: usize| self.world.nodes[i].group.as_ref().map_or(0, |g| g.status().voters.len());
            if self.world.leader().is_some_and(|leader| voters(leader) == NODES as usize) {
                break;
            }
        }
        self.quiet = false;
    }

    /// Cuts the power at a node after some prefix of a write has reached its disk.
    fn crash_in_a_write(&mut self, x: usize) {
        for _ in 0..400 {
            if self.world.nodes[x].disk.unsynced() > 2 {
                break;
            }
            for i in (0..NODES as usize).filter(|i| *i != x) {
                if self.world.network.is_empty() {
                    self.world.tick(i);
                }
                self.world.sync(i);
            }
            if self.world.network.is_empty() {
                self.world.tick(x);
                self.world.sync(x);
            }
            self.world.deliver();
        }
        // The last frame contains the commit index that belongs to the entries.
        let unsynced = self.world.nodes[x].disk.unsynced();
        if self.below(2) == 0 {
            self.world.crash(x)
        } else {
            self.world.crash_keeping(x, unsynced.saturating_sub(1))
        }
        self.world.start(x);
    }
}

fn history(seed: u64, without: Without) {
    let mut history = History::new(seed, without);
    history.rounds(120);
    for _ in 0..8 {
        history.episode();
    }
    history.world.wanted = (1..=NODES).map(ReplicaId).collect();
    assert!(history.world.settle(4000), "the nodes do not converge");
    history.take_answers();
    history.world.check_fates();
    let found = history.world.found();
    for value in history.broken_streams {
        assert!(!found.contains_key(&value), "value {value} was appended after a refused request");
    }
}

fn seeds() -> u64 {
    std::env::var("SERIATIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
}

#[test]
fn nothing_is_lost_or_misreported() {
    for seed in 1..=seeds() {
        if let Err(panic) = std::panic::catch_unwind(|| history(seed, Without::default())) {
            println!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Each of these rules was once missing. The histories detect a missing rule.
#[test]
fn histories_detect_each_missing_rule() {
    let rules = Rules::default();
    let without: BTreeMap<&str, Without> = BTreeMap::from([
        (
            "recover_commit_of_conf_changes",
            Without { rules: Rules { recover_commit_of_conf_changes: false, ..rules }, run_ids: false },
        ),
        (
            "hold_uncommitted_refusals",
            Without { rules: Rules { hold_uncommitted_refusals: false, ..rules }, run_ids: false },
        ),
        ("an id for each run", Without { rules, run_ids: true }),
    ]);
    for (rule, without) in without {
        let found = violations(400, |seed| history(seed, without));
        println!("without {rule}: {found} of 400 histories");
        assert!(found > 0, "no history detects that this rule is missing: {rule}");
    }
}
