//! Simulations of whole groups. The state machines use their real log files, on a simulated disk that loses what was
//! not synced. The test runs the log-writer and the readers step by step. Membership grows and shrinks, leadership is
//! handed over, disks hang, processes are killed in the middle of any change of a file, and power is cut at one node
//! or at all of them.

mod capped;
mod chaos;
mod digests;
mod fetches;
mod lanes;
mod late;
mod rollback;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::sim::Fate;
use crate::consensus::Outbound;
use crate::consensus::completions::Completions;
use crate::consensus::group::{GroupConfig, ReplicaNodes, Rules};
use crate::consensus::handle::{Appended, Proposal, ProposeError, ReadIndexError};
use crate::consensus::replica::{Replica, ReplicaOrigin};
use crate::consensus::sinks::Sinks;
use crate::consensus::tests::voters::VoterMover;
use crate::feature_level::FeatureRange;
use crate::pb::peer::RaftMessage;
use crate::reply::{ReplyReceiver, reply};
use crate::storage::disk::sim::{Rng, Sim};
use crate::storage::entry::{Entry, EntryKind};
use crate::storage::log::{Genesis, GroupLog, LogOptions};
use crate::storage::payload::{self, RecordFields, encode_record};
use crate::storage::reader::{Access, ReadersByHand};
use crate::types::{GroupId, LogIndex, NodeId, Offset, ReplicaId, Term};
use crate::watermark::HighWatermark;
use crate::writer::{Report, WriterByHand};

const GROUP: GroupId = GroupId(1);
const GROUPS_DIR: &str = "/n/groups";

#[derive(Default)]
struct Outbox(Mutex<Vec<RaftMessage>>);

impl Outbound for Outbox {
    fn send(&self, _to: NodeId, message: RaftMessage) {
        self.0.lock().push(message);
    }

    fn propose(&self, _to: NodeId, _proposal: Proposal) {}

    fn read_index(&self, _to: NodeId, _group: GroupId) -> ReplyReceiver<Result<LogIndex, ReadIndexError>> {
        reply().1
    }

    fn levels_of(&self, _node: NodeId) -> Option<FeatureRange> {
        Some(FeatureRange::SUPPORTED)
    }
}

struct Process {
    replica: Replica,
    voters: VoterMover,
    sinks: Sinks,
    writer: WriterByHand,
    readers: ReadersByHand,
    outbox: Arc<Outbox>,
    /// The last entry that was compared with the other nodes' entries.
    seen: LogIndex,
}

struct Node {
    id: ReplicaId,
    sim: Sim,
    process: Option<Process>,
    /// The disk hangs until this step.
    hangs_until: usize,
    /// The members that should replicate the group, as far as this node knows.
    wanted: Vec<ReplicaId>,
    removed: BTreeSet<ReplicaId>,
}

struct World {
    rng: Rng,
    step: usize,
    now: Instant,
    nodes: Vec<Node>,
    network: Vec<RaftMessage>,
    cut: BTreeSet<(u64, u64)>,
    wanted: Vec<ReplicaId>,
    removed: BTreeSet<ReplicaId>,
    committed: BTreeMap<LogIndex, (Term, Bytes)>,
    leaders: BTreeMap<Term, ReplicaId>,
    asked: Vec<(u64, ReplyReceiver<Result<Appended, ProposeError>>)>,
    reads: Vec<(LogIndex, ReplyReceiver<Result<LogIndex, ReadIndexError>>)>,
    fates: BTreeMap<u64, Fate>,
    /// The newest entry that was acknowledged.
    acknowledged: LogIndex,
    values: u64,
    rules: Rules,
    /// True if disks are restored to older copies. Replicas may then differ, and must report it.
    rolls_back: bool,
    /// The log of each node when its disk was restored to an older copy.
    held: Vec<Vec<Entry>>,
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 4096 }
}

fn poll<T>(receiver: &mut ReplyReceiver<T>) -> Option<Option<T>> {
    let waker = futures::task::noop_waker();
    let polled = std::pin::Pin::new(receiver);
    match std::future::Future::poll(polled, &mut std::task::Context::from_waker(&waker)) {
        std::task::Poll::Pending => None,
        std::task::Poll::Ready(answer) => Some(answer.ok()),
    }
}

impl World {
    fn new(seed: u64, nodes: u64) -> World {
        let mut world = World {
            rng: Rng(seed),
            step: 0,
            now: Instant::now(),
            nodes: Vec::new(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            wanted: Vec::new(),
            removed: BTreeSet::new(),
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            asked: Vec::new(),
            reads: Vec::new(),
            fates: BTreeMap::new(),
            acknowledged: LogIndex(0),
            values: 0,
            rules: Rules::default(),
            rolls_back: false,
            held: vec![Vec::new(); nodes as usize],
        };
        (0..nodes).for_each(|_| world.add());
        world
    }

    /// Adds a node. The first one founds the group.
    fn add(&mut self) {
        let id = ReplicaId(self.nodes.len() as u64 + 1);
        let sim = Sim::default();
        let disk = sim.disk();
        let genesis = if id.0 == 1 { Genesis::founder(id) } else { Genesis::Blank };
        GroupLog::create(&disk, Path::new(GROUPS_DIR), GROUP, &options(), genesis).expect("made");
        self.nodes.push(Node { id, sim, process: None, hangs_until: 0, wanted: Vec::new(), removed: BTreeSet::new() });
        self.wanted.push(id);
        self.start(self.nodes.len() - 1);
    }

    fn start(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        node.sim.die_after(None);
        let disk = node.sim.disk();
        let (log, recovered) = GroupLog::open(&disk, Path::new(GROUPS_DIR), GROUP, &options())
            .unwrap_or_else(|e| panic!("step {}: node {} does not start: {e}", self.step, node.id));
        let completions = Completions::default();
        let reports = completions.clone();
        let writer =
            WriterByHand::new(&disk, Report::new(move |group, ready| reports.persisted(group, ready), |_, _| {}));
        let readers = ReadersByHand::new(2);
        let outbox = Arc::new(Outbox::default());
        let sinks = Sinks { writer: writer.handle(), readers: readers.handle(), outbound: outbox.clone(), completions };
        let election_ticks = Some(12 + self.rng.below(12) as usize);
        let config = GroupConfig { id: GROUP, me: node.id, leads_at_first: false, election_ticks, rules: self.rules };
        let seen = recovered.applied;
        let origin = ReplicaOrigin::default();
        let watermark = HighWatermark::default();
        let mut replica = Replica::start(config, log, recovered, watermark, &sinks, origin).expect("a possible state");
        replica.group.nodes_mut().clone_from(&ReplicaNodes::SameIds);
        node.process = Some(Process { replica, voters: VoterMover::default(), sinks, writer, readers, outbox, seen });
        self.perform(i);
    }

    /// Kills the process. With `power`, any part of the unsynced data is lost, too.
    fn kill(&mut self, i: usize, power: bool) {
        self.nodes[i].process = None;
        self.nodes[i].sim.die_after(None);
        if power {
            self.nodes[i].sim.power_cut(&mut self.rng);
        }
    }

    fn perform(&mut self, i: usize) {
        let step = self.step;
        let Some(process) = &mut self.nodes[i].process else { return };
        let (persisted, fetched) = process.sinks.completions.take();
        persisted.into_values().for_each(|ticket| process.replica.synced(ticket));
        for fetched in fetched {
            process.replica.fetched(fetched);
        }
        if process.replica.perform_ready(&process.sinks).is_err() {
            let power = self.rng.once_in(2);
            return self.kill(i, power);
        }
        let sent = std::mem::take(&mut *process.outbox.0.lock());
        for message in sent {
            if message.snapshot.is_some() && !self.rng.once_in(4) {
                process.replica.group.snapshot_sent(NodeId(message.to), !self.rng.once_in(3));
            }
            self.network.push(message);
        }
        let status = process.replica.group.status();
        if let Some(damage) = status.damage.filter(|_| !self.rolls_back) {
            panic!("step {step}: node {i} reports damage: {damage}");
        }
        if process.replica.group.leads() && !self.rolls_back {
            let leader = *self.leaders.entry(status.term).or_insert(ReplicaId(i as u64 + 1));
            assert_eq!(leader.0, i as u64 + 1, "two leaders in term {}", status.term);
        }
        if !self.rolls_back {
            self.compare(i);
        }
        self.take_answers();
    }

    /// Checks that this node has applied the same entries as the others.
    fn compare(&mut self, i: usize) {
        let Some(process) = &mut self.nodes[i].process else { return };
        let visible = process.replica.watermark.get();
        let mut low = process.seen.next();
        process.seen = visible.applied.max(process.seen);
        while low <= visible.applied {
            // The node does not have the entries that a snapshot replaced.
            let read = process.replica.reader.entries(low, visible.applied.next(), 1 << 20, Access::Blocking);
            let Ok(entries) = read else {
                low = low.next();
                continue;
            };
            let Some(last) = entries.last() else { panic!("entry {low} is applied and not stored at node {i}") };
            low = last.index.next();
            for entry in entries {
                let Entry { index, term, data } = entry;
                let known = self.committed.entry(index).or_insert((term, data.clone()));
                assert_eq!(*known, (term, data), "step {}: entry {index} differs at node {i}", self.step);
            }
        }
        if visible.first_offset < visible.next_offset && self.rng.once_in(8) {
            let from = Offset(visible.first_offset.0 + self.rng.below(visible.next_offset.0 - visible.first_offset.0));
            let read = process.replica.reader.records(from, visible.next_offset, 3, 1 << 16, Access::Blocking);
            match read {
                Ok(slice) => assert!(slice.count > 0 && slice.next <= visible.next_offset),
                // A snapshot is installed but not applied yet.
                Err(crate::storage::reader::ReadError::Trimmed { .. }) => {}
                Err(error) => panic!("step {}: record {from} of {visible:?} at node {i}: {error}", self.step),
            }
        }
    }

    fn take_answers(&mut self) {
        let (fates, acknowledged) = (&mut self.fates, &mut self.acknowledged);
        self.asked.retain_mut(|(value, answer)| {
            let fate = match poll(answer) {
                None => return true,
                Some(Some(Ok(appended))) => {
                    *acknowledged = appended.index.max(*acknowledged);
                    Fate::Appended(appended.offset)
                }
                Some(Some(Err(ProposeError::OutcomeUnknown)) | None) => Fate::Unknown,
                Some(Some(Err(_))) => Fate::Not,
            };
            fates.insert(*value, fate);
            false
        });
        let step = self.step;
        self.reads.retain_mut(|(least, answer)| match poll(answer) {
            None => true,
            Some(Some(Ok(index))) => {
                assert!(index >= *least, "step {step}: a read at {index} does not see {least}");
                false
            }
            Some(_) => false,
        });
    }

    fn tick(&mut self, i: usize) {
        self.now += Duration::from_millis(10);
        let now = self.now;
        let node = &mut self.nodes[i];
        if let Some(process) = &mut node.process {
            process.replica.group.tick(now);
            let removed = |n| node.removed.contains(&n);
            process.voters.tick(&mut process.replica.group, &node.wanted, removed);
        }
        self.perform(i);
    }

    /// Begins or ends a drain of the log-writer.
    fn sync(&mut self, i: usize, end: bool) {
        let node = &mut self.nodes[i];
        if node.hangs_until > self.step {
            return;
        }
        let Some(process) = &mut node.process else { return };
        let failed = if end {
            process.writer.end().is_err()
        } else {
            process.writer.begin();
            false
        };
        if failed {
            let power = self.rng.once_in(2);
            return self.kill(i, power);
        }
        self.perform(i);
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let at = if self.rng.once_in(4) { self.rng.below(self.network.len() as u64) as usize } else { 0 };
        let message = self.network.remove(at);
        let (from, to) = (message.from, message.to);
        let Some(receiver) = self.nodes.get_mut(to as usize - 1) else { return };
        if self.cut.contains(&(from, to)) || receiver.process.is_none() || self.rng.once_in(50) {
            if let Some(sender) = self.nodes[from as usize - 1].process.as_mut().filter(|_| self.rng.once_in(2)) {
                sender.replica.group.unreachable(NodeId(to));
                self.perform(from as usize - 1);
            }
            return;
        }
        if self.rng.once_in(50) {
            self.network.push(message.clone());
        }
        if let Some(process) = &mut receiver.process {
            process.replica.step(message, FeatureRange::SUPPORTED).expect("our own message");
            // Several messages arrive before the effects of the first one are performed.
            if !self.rng.once_in(3) {
                self.perform(to as usize - 1);
            }
        }
    }

    fn leader(&self) -> Option<usize> {
        let leads = |i: &usize| self.nodes[*i].process.as_ref().is_some_and(|p| p.replica.group.leads());
        let term = |i: &usize| self.nodes[*i].process.as_ref().map(|p| p.replica.group.status().term);
        (0..self.nodes.len()).filter(leads).max_by_key(term)
    }

    fn propose(&mut self, i: usize, kind: EntryKind, payload: Vec<u8>, count: u32, value: Option<u64>) {
        let deadline = self.rng.once_in(2).then(|| self.now + Duration::from_millis(1 + self.rng.below(3000)));
        let time_us = 1_000_000 + self.rng.below(1000);
        let Some(process) = &mut self.nodes[i].process else { return };
        let (sender, answer) = reply();
        let proposal = Proposal { deadline, ..Proposal::new(GROUP, kind, count, payload.as_slice().into()) };
        process.replica.group.propose(proposal, self.now, time_us, sender);
        self.asked.extend(value.map(|value| (value, answer)));
        if !self.rng.once_in(3) {
            self.perform(i);
        }
    }

    fn produce(&mut self, i: usize) {
        self.values += 1;
        let mut value = self.values.to_le_bytes().to_vec();
        value.resize(8 + self.rng.below(400) as usize, 7);
        let mut payload = Vec::new();
        encode_record(&mut payload, &RecordFields { value: &value, ..RecordFields::default() });
        self.propose(i, EntryKind::Records, payload, 1, Some(self.values));
    }

    fn trim(&mut self, leader: usize) {
        let Some(process) = &self.nodes[leader].process else { return };
        let first = self.rng.below(process.replica.group.visible().next_offset.0 + 1);
        self.propose(leader, EntryKind::Trim, first.to_le_bytes().to_vec(), 0, None);
    }

    fn read(&mut self, i: usize) {
        let Some(process) = &mut self.nodes[i].process else { return };
        let (sender, answer) = reply();
        process.replica.group.read_index(None, self.now, sender);
        self.reads.push((self.acknowledged, answer));
        self.perform(i);
    }

    /// Starts these nodes, lets them tick and sync, and delivers up to `messages` messages.
    fn heal_step(&mut self, nodes: &[usize], messages: usize) {
        self.step += 1;
        for i in nodes.iter().copied() {
            if self.nodes[i].process.is_none() {
                self.start(i);
            }
            self.tick(i);
            self.sync(i, false);
            self.sync(i, true);
            if let Some(process) = &self.nodes[i].process {
                process.readers.run();
            }
        }
        (0..self.network.len().min(messages)).for_each(|_| self.deliver());
    }
}
