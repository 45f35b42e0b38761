//! The world of a simulation: nodes, their disks, the messages between them, and the invariants that are checked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;

use super::disk::{Change, Disk};
use super::show;
use crate::consensus::group::{Effects, Group, GroupConfig, Rules};
use crate::consensus::handle::{Appended, Proposal, ProposeError};
use crate::consensus::tests::voters::VoterMover;
use crate::consensus::wire;
use crate::reply::{ReplyReceiver, reply};
use crate::storage::entry::{Entry, EntryKind};
use crate::storage::log::Genesis;
use crate::storage::payload::{RecordFields, encode_record};
use crate::types::{GroupId, LogIndex, Offset, ReplicaId, Term};

/// xorshift64*. The same seed yields the same history.
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

pub struct Node {
    pub id: ReplicaId,
    pub group: Option<Group>,
    pub voters: VoterMover,
    pub disk: Disk,
    applied: LogIndex,
    /// The last role in the trace.
    role: String,
}

/// A proposal whose answer is awaited.
struct Asked {
    value: u64,
    answer: ReplyReceiver<Result<Appended, ProposeError>>,
}

/// The pending answer to a proposal.
pub type Answer = ReplyReceiver<Result<Appended, ProposeError>>;

/// Returns the answer, if it has arrived. If the node is down, the outcome is unknown.
pub fn answered(answer: &mut Answer) -> Option<Result<Appended, ProposeError>> {
    answer.now_or_never().map(|answer| answer.unwrap_or(Err(ProposeError::OutcomeUnknown)))
}

/// What happened to a proposed value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Appended(Offset),
    Not,
    Unknown,
}

pub struct World {
    pub rng: Rng,
    pub nodes: Vec<Node>,
    pub network: Vec<raft::eraftpb::Message>,
    pub cut: BTreeSet<(u64, u64)>,
    /// Each message arrives once, in order, unless its link is cut.
    pub reliable: bool,
    /// If true, started nodes use raft's random election timeouts.
    pub random_timeouts: bool,
    pub wanted: Vec<ReplicaId>,
    pub rules: Rules,
    pub fates: BTreeMap<u64, Fate>,
    /// Every committed entry that any node ever applied.
    pub committed: BTreeMap<LogIndex, (Term, Bytes)>,
    pub leaders: BTreeMap<u64, ReplicaId>,
    asked: Vec<Asked>,
    now: Instant,
    /// The trace of the nodes' actions, for scripts.
    trace: Option<Vec<String>>,
}

impl World {
    /// Creates `nodes` nodes, numbered from 1. The first one is the founder. All are wanted as members.
    pub fn new(seed: u64, nodes: u64, rules: Rules) -> World {
        let mut world = World {
            rng: Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            nodes: Vec::new(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            reliable: false,
            random_timeouts: false,
            wanted: (1..=nodes).map(ReplicaId).collect(),
            rules,
            fates: BTreeMap::new(),
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            asked: Vec::new(),
            now: Instant::now(),
            trace: None,
        };
        for id in (1..=nodes).map(ReplicaId) {
            let genesis = if id.0 == 1 { Genesis::founder(id) } else { Genesis::Blank };
            world.nodes.push(Node {
                id,
                group: None,
                voters: VoterMover::default(),
                disk: Disk::new(genesis),
                applied: LogIndex(0),
                role: String::new(),
            });
        }
        (0..world.nodes.len()).for_each(|i| world.start(i));
        world
    }

    /// Starts to record the trace ([`World::take_trace`]).
    pub fn keep_trace(&mut self) {
        self.trace = Some(Vec::new());
    }

    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    pub fn start(&mut self, i: usize) {
        let election_ticks = (!self.random_timeouts).then(|| 12 + self.rng.below(12));
        let config = GroupConfig {
            id: GroupId(1),
            me: self.nodes[i].id,
            leads_at_first: false,
            election_ticks,
            rules: self.rules,
        };
        let node = &mut self.nodes[i];
        let group = node.disk.open(node.id, &config);
        node.applied = group.visible().applied;
        node.group = Some(group);
        self.perform(i);
    }

    /// Cuts the power at a node. Its process ends, and some unsynced data is lost.
    pub fn crash(&mut self, i: usize) {
        let unsynced = self.nodes[i].disk.unsynced();
        let kept = self.rng.below(unsynced + 1);
        self.crash_keeping(i, kept);
    }

    pub fn crash_keeping(&mut self, i: usize, kept: usize) {
        self.nodes[i].group = None;
        self.nodes[i].disk.cut(kept);
    }

    pub fn tick(&mut self, i: usize) {
        self.now += Duration::from_millis(50);
        let (now, wanted) = (self.now, self.wanted.clone());
        let node = &mut self.nodes[i];
        if let Some(group) = &mut node.group {
            group.tick(now);
            node.voters.tick(group, &wanted, |_| false);
        }
        self.perform(i);
    }

    pub fn sync(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        if let Some(group) = &mut node.group {
            group.persisted(node.disk.sync());
        }
        self.perform(i);
    }

    /// Reports a Ready as synced to a node.
    pub fn persisted(&mut self, i: usize, ready: u64) {
        if let Some(group) = &mut self.nodes[i].group {
            group.persisted(ready);
        }
        self.perform(i);
    }

    /// Delivers, drops or duplicates one message.
    pub fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let once_in = |rng: &mut Rng, times: usize| !self.reliable && rng.below(times) == 0;
        let at = if once_in(&mut self.rng, 4) { self.rng.below(self.network.len()) } else { 0 };
        let message = self.network.remove(at);
        if self.cut.contains(&(message.from, message.to)) || once_in(&mut self.rng, 50) {
            return;
        }
        if once_in(&mut self.rng, 50) {
            self.network.push(message.clone());
        }
        let i = message.to as usize - 1;
        if let Some(group) = self.nodes.get_mut(i).and_then(|n| n.group.as_mut()) {
            // Converted to the wire format and back, as between real peers.
            let message = wire::message_from_pb(wire::message_to_pb(GroupId(1), message)).expect("our own message");
            group.step(message);
            self.perform(i);
        }
    }

    pub fn propose(&mut self, i: usize, value: u64) {
        let mut payload = Vec::new();
        encode_record(&mut payload, &RecordFields { value: &value.to_le_bytes(), ..RecordFields::default() });
        self.propose_kind(i, value, EntryKind::Records, 1, payload);
    }

    pub fn trim(&mut self, i: usize, value: u64, first: Offset) {
        self.propose_kind(i, value, EntryKind::Trim, 0, first.0.to_le_bytes().to_vec());
    }

    fn propose_kind(&mut self, i: usize, value: u64, kind: EntryKind, count: u32, payload: Vec<u8>) {
        let Some(group) = &mut self.nodes[i].group else { return };
        let (sender, answer) = reply();
        group.propose(Proposal::new(GroupId(1), kind, count, payload.as_slice().into()), self.now, 1, sender);
        if kind == EntryKind::Records {
            self.asked.push(Asked { value, answer });
        }
        self.perform(i);
    }

    /// Proposes on behalf of a client that waits for the answer itself.
    pub fn ask(&mut self, i: usize, proposal: Proposal) -> Answer {
        let answer = self.ask_later(i, proposal);
        self.perform(i);
        answer
    }

    /// The same, but the node does not turn to it yet: other requests may arrive before.
    pub fn ask_later(&mut self, i: usize, proposal: Proposal) -> Answer {
        let (sender, answer) = reply();
        self.nodes[i].group.as_mut().expect("running").propose(proposal, self.now, 1, sender);
        answer
    }

    /// Crashes a random node, cuts one of its links or all of them, or heals the network.
    pub fn disturb(&mut self) {
        let nodes = self.nodes.len();
        let x = self.rng.below(nodes);
        match self.rng.below(4) {
            0 => self.crash(x),
            1 => self.cut_link(x, (x + 1) % nodes),
            2 => (0..nodes).filter(|other| *other != x).for_each(|other| self.cut_link(x, other)),
            _ => self.cut.clear(),
        }
    }

    fn cut_link(&mut self, a: usize, b: usize) {
        let (a, b) = (a as u64 + 1, b as u64 + 1);
        self.cut.extend([(a, b), (b, a)]);
    }

    /// Starts about half of the crashed nodes.
    pub fn start_some(&mut self) {
        for i in 0..self.nodes.len() {
            if self.nodes[i].group.is_none() && self.rng.below(2) == 0 {
                self.start(i);
            }
        }
    }

    pub fn perform(&mut self, i: usize) {
        while let Some(effects) = self.nodes[i].group.as_mut().and_then(Group::ready) {
            self.perform_effects(i, effects);
        }
        self.trace_role(i);
        let node = &self.nodes[i];
        if let Some(group) = node.group.as_ref().filter(|g| g.leads()) {
            let leader = self.leaders.entry(group.status().term.0).or_insert(node.id);
            assert_eq!(*leader, node.id, "two leaders in term {}", group.status().term);
        }
        if let Some(damage) = node.group.as_ref().and_then(|g| g.status().damage) {
            panic!("node {} reports damage: {damage}", node.id);
        }
    }

    fn trace_role(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        let (Some(trace), Some(group)) = (&mut self.trace, &node.group) else { return };
        let role = show::role(group);
        if role != node.role {
            trace.push(format!("{} {role}", show::node(node.id)));
            node.role = role;
        }
    }

    fn perform_effects(&mut self, i: usize, effects: Effects) {
        self.trace_role(i);
        let node = &mut self.nodes[i];
        if let Some(trace) = &mut self.trace {
            trace.extend(show::effects(node.id, &effects));
        }
        if let Some(write) = effects.write {
            node.disk.make(Change::Write(write));
        }
        if let Some((conf, index)) = effects.conf_state {
            node.disk.make(Change::Conf(conf, index));
        }
        if let Some(visible) = effects.visible {
            let (log_state, as_of) = node.group.as_ref().expect("running").log_state();
            node.disk.make(Change::Applied(log_state, as_of, visible.applied));
            self.applied(i, visible.applied);
        }
        let node = &mut self.nodes[i];
        if let Some((first, applied)) = effects.trim {
            let files = &node.disk.files;
            let below = |e: &&Entry| e.index < applied && e.end_offset().expect("a stamp") <= first;
            let dropped = files.entries.iter().take_while(below);
            let base = dropped.fold(files.base, |at, entry| at.then(entry).expect("a stamp"));
            if base != files.base {
                node.disk.make(Change::Trim(base));
                node.group.as_mut().expect("running").trimmed(base);
            }
        }
        if let Some(ready) = effects.sync {
            node.disk.want(ready);
        }
        self.network.extend(effects.messages);
        for answer in effects.answers {
            answer.send();
        }
        for fetch in effects.fetches {
            let entries: Vec<_> = (fetch.low.0..fetch.high.0)
                .map_while(|index| self.nodes[i].disk.files.entry(LogIndex(index)).cloned())
                .collect();
            self.nodes[i].group.as_mut().expect("running").fetched(fetch.low, &entries);
        }
        self.take_answers();
    }

    /// Checks that every node applies the same entries, and that an applied entry never changes.
    fn applied(&mut self, i: usize, applied: LogIndex) {
        let node = &mut self.nodes[i];
        let from = std::mem::replace(&mut node.applied, applied);
        for index in from.0 + 1..=applied.0 {
            let Some(entry) = node.disk.files.entry(LogIndex(index)) else { continue };
            let known = self.committed.entry(LogIndex(index)).or_insert((entry.term, entry.data.clone()));
            assert_eq!(*known, (entry.term, entry.data.clone()), "entry {index} differs at node {}", node.id);
        }
    }

    fn take_answers(&mut self) {
        let now = std::mem::take(&mut self.asked);
        for Asked { value, mut answer } in now {
            let waker = futures::task::noop_waker();
            let polled = std::pin::Pin::new(&mut answer);
            match std::future::Future::poll(polled, &mut std::task::Context::from_waker(&waker)) {
                std::task::Poll::Pending => self.asked.push(Asked { value, answer }),
                std::task::Poll::Ready(Ok(Ok(appended))) => {
                    self.fates.insert(value, Fate::Appended(appended.offset));
                }
                std::task::Poll::Ready(Ok(Err(ProposeError::OutcomeUnknown)) | Err(_)) => {
                    self.fates.insert(value, Fate::Unknown);
                }
                std::task::Poll::Ready(Ok(Err(_))) => {
                    self.fates.insert(value, Fate::Not);
                }
            }
        }
    }

    /// Returns the leader of the newest term.
    pub fn leader(&self) -> Option<usize> {
        let leads = |n: &Node| n.group.as_ref().filter(|g| g.leads()).map(|g| g.status().term);
        (0..self.nodes.len()).filter(|i| leads(&self.nodes[*i]).is_some()).max_by_key(|i| leads(&self.nodes[*i]))
    }

    /// Removes all faults: starts all nodes and loses no messages. Returns true once all nodes vote and have applied
    /// the same entries.
    pub fn settle(&mut self, rounds: usize) -> bool {
        self.cut.clear();
        for i in 0..self.nodes.len() {
            if self.nodes[i].group.is_none() {
                self.start(i);
            }
        }
        for _ in 0..rounds {
            for i in 0..self.nodes.len() {
                self.tick(i);
                self.sync(i);
            }
            for _ in 0..self.network.len().min(500) {
                self.deliver();
            }
            let statuses: Vec<_> = self.nodes.iter().filter_map(|n| n.group.as_ref()).map(Group::status).collect();
            let last = statuses.iter().map(|s| s.last_index).max();
            let same = statuses.iter().all(|s| Some(s.applied_index) == last);
            if same && self.leader().is_some() && statuses.iter().all(|s| s.voters.len() == self.nodes.len()) {
                return true;
            }
        }
        false
    }

    /// Returns the offsets of each committed value.
    pub fn found(&self) -> BTreeMap<u64, Vec<Offset>> {
        let mut found: BTreeMap<u64, Vec<Offset>> = BTreeMap::new();
        for (term_data, index) in self.committed.iter().map(|(i, d)| (d, i)) {
            let entry = crate::storage::entry::Entry { index: *index, term: term_data.0, data: term_data.1.clone() };
            let stamp = entry.stamp().expect("a stamp");
            if stamp.kind == EntryKind::Records {
                let payload = entry.payload();
                let record = crate::storage::payload::records(&payload).next().expect("a record").expect("canonical");
                let value = crate::storage::payload::record_value(record).expect("a value");
                let value = u64::from_le_bytes(value.try_into().expect("eight bytes"));
                found.entry(value).or_default().push(stamp.base_offset);
            }
        }
        found
    }

    /// Checks, after a history, that each acknowledged record is at its offset, and that no record answered with "not
    /// appended" is stored.
    pub fn check_fates(&self) {
        let found = self.found();
        for (value, fate) in &self.fates {
            let places = found.get(value).map_or(&[][..], Vec::as_slice);
            match fate {
                Fate::Appended(offset) => assert_eq!(places, [*offset], "value {value} was acknowledged"),
                Fate::Not => assert!(places.is_empty(), "value {value} was refused and is stored at {places:?}"),
                Fate::Unknown => assert!(places.len() <= 1, "value {value} is stored at {places:?}"),
            }
        }
        let mut next = 0;
        for places in found.values() {
            next = next.max(places.iter().map(|o| o.0 + 1).max().unwrap_or(0));
        }
        assert_eq!(found.values().map(Vec::len).sum::<usize>() as u64, next, "offsets have a gap or are used twice");
    }
}
