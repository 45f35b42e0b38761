//! Several drivers on simulated disks, and the network between them: messages are lost, duplicated and reordered, links
//! are cut in one or both directions, and nodes crash. Groups become quiet in between.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::*;
use crate::catalog::Origin;
use crate::consensus::command_proposal;
use crate::consensus::tests::sim::{Answer, Rng, answered};
use crate::storage::disk::sim::{Rng as DiskRng, Sim};
use crate::storage::payload::{RecordFields, encode_record};
use crate::storage::reader::{Access, ReadersByHand};
use crate::storage::replicas::{retired_dirs, unlist_retired};
use crate::types::{LogId, Offset};
use crate::writer::WriterByHand;

enum Sent {
    Message(RaftMessage),
    Proposal(Proposal),
    /// Without a reply: the second delivery of a duplicated request.
    ReadIndex(GroupId, Option<ReplySender<Result<LogIndex, ReadIndexError>>>),
}

impl Sent {
    fn again(&self) -> Sent {
        match self {
            Sent::Message(message) => Sent::Message(message.clone()),
            Sent::Proposal(proposal) => Sent::Proposal(proposal.clone()),
            Sent::ReadIndex(group, _) => Sent::ReadIndex(*group, None),
        }
    }
}

/// What a node has sent and the network has not taken yet.
#[derive(Default)]
struct Outbox(Mutex<Vec<(NodeId, Sent)>>);

impl Outbound for Outbox {
    fn send(&self, to: NodeId, message: RaftMessage) {
        self.0.lock().push((to, Sent::Message(message)));
    }

    fn propose(&self, to: NodeId, proposal: Proposal) {
        self.0.lock().push((to, Sent::Proposal(proposal)));
    }

    fn read_index(&self, to: NodeId, group: GroupId) -> ReplyReceiver<Result<LogIndex, ReadIndexError>> {
        let (sender, answer) = reply();
        self.0.lock().push((to, Sent::ReadIndex(group, Some(sender))));
        answer
    }

    fn levels_of(&self, _node: NodeId) -> Option<FeatureRange> {
        Some(FeatureRange::SUPPORTED)
    }
}

pub struct Running {
    pub driver: Driver,
    writer: WriterByHand,
    readers: ReadersByHand,
    outbox: Arc<Outbox>,
}

/// An acknowledged record.
pub struct Acknowledged {
    pub group: GroupId,
    value: u64,
    offset: Offset,
}

pub struct Cluster {
    pub rng: Rng,
    disk_rng: DiskRng,
    disks: Vec<Sim>,
    pub running: Vec<Option<Running>>,
    network: Vec<(NodeId, NodeId, Sent)>,
    /// Links that are cut, each in one direction.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub faulty: bool,
    starts: u64,
    values: u64,
    asked: Vec<(GroupId, u64, Answer)>,
    pub acknowledged: Vec<Acknowledged>,
}

pub fn id(i: usize) -> NodeId {
    // Other numbers than those of replicas.
    NodeId((i as u64 + 1) << 40 | 0xbeef)
}

fn this(i: usize) -> Member {
    member(id(i), &format!("n{i}"))
}

impl Cluster {
    /// Starts a cluster of these nodes, all of which vote for the catalog, with some logs of three replicas.
    pub fn new(seed: u64, nodes: usize, logs: usize) -> Cluster {
        let mut cluster = Cluster {
            rng: Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            disk_rng: DiskRng(seed),
            disks: (0..nodes).map(|_| Sim::default()).collect(),
            running: (0..nodes).map(|_| None).collect(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            faulty: false,
            starts: 0,
            values: 0,
            asked: Vec::new(),
            acknowledged: Vec::new(),
        };
        (0..nodes).for_each(|i| cluster.start(i));
        cluster.until("a founded cluster", 400, |cluster| cluster.change_catalog(|catalog| catalog.had_logs()));
        for i in 0..nodes {
            let command = Command::AddNode(this(i));
            cluster.until("a member", 400, |cluster| {
                cluster.command(command.clone());
                cluster.change_catalog(|catalog| catalog.member(id(i)).is_some())
            });
        }
        for log in 0..logs {
            let command = cluster.create_log(&format!("log-{log}"), 3);
            cluster.until("a log", 400, |cluster| {
                cluster.command(command.clone());
                cluster.change_catalog(|catalog| catalog.log_count() == log + 2)
            });
        }
        cluster
    }

    pub fn create_log(&mut self, name: &str, replicas: u32) -> Command {
        self.values += 1;
        let name = LogName::new(name).expect("a name");
        let settings = LogSettings { replicas: Some(replicas), ..LogSettings::default() };
        let log_id = LogId(1 << 40 | self.values);
        Command::CreateLog(NewLog { name, log_id, origin: Origin::Nodes(Vec::new()), settings })
    }

    pub fn one_in(&mut self, times: usize) -> bool {
        self.rng.below(times) == 0
    }

    pub fn start(&mut self, i: usize) {
        self.starts += 1;
        let disk = self.disks[i].disk();
        let data_dir = Arc::new(DataDir::open(&disk, "/n".as_ref()).expect("a data directory"));
        let log_options = LogOptions { segment_bytes: 1 << 16 };
        let mut node_file = data_dir.load().expect("read").unwrap_or_else(|| {
            let mut voters: Vec<ReplicaId> = (0..self.disks.len()).map(|i| ReplicaId::of_node(id(i))).collect();
            voters.sort_unstable();
            let (groups, genesis) = (data_dir.groups_dir(), Genesis::Voters(voters));
            GroupLog::create(&disk, &groups, GroupId::CATALOG, &log_options, genesis).expect("created");
            let node_file = NodeFile::new(id(i), this(i).name).with_group(GroupId::CATALOG);
            NodeFile { cluster_id: Some(crate::types::ClusterId(7)), ..node_file }
        });
        unlist_retired(&data_dir, &mut node_file).expect("listed");
        data_dir.store(&node_file).expect("stored");
        let consensus = Consensus { incarnation: self.starts, ..Consensus::default() };
        let writer = WriterByHand::new(&disk, consensus.report());
        for retired in retired_dirs(&data_dir).expect("listed") {
            writer.handle().remove_directory(retired);
        }
        let readers = ReadersByHand::new(64);
        let outbox = Arc::new(Outbox::default());
        let parts = ConsensusParts {
            metrics: crate::metrics::Registry::default(),
            me: this(i),
            disk,
            data_dir,
            node_file,
            log_options,
            writer: writer.handle(),
            readers: readers.handle(),
            scrub: ScrubHandle::default(),
            outbound: outbox.clone(),
            catalog: CatalogView::default(),
            catalog_watermark: HighWatermark::default(),
            logs: Logs::default(),
        };
        let driver = consensus.recover(parts).expect("recovered");
        driver.bell.attach_current_thread();
        self.running[i] = Some(Running { driver, writer, readers, outbox });
    }

    /// Cuts the power of a node.
    pub fn crash(&mut self, i: usize) {
        if self.running[i].take().is_some() {
            self.disks[i].power_cut(&mut self.disk_rng);
        }
    }

    /// Does what the thread does after an event.
    pub fn perform(&mut self, i: usize) {
        let Some(Running { driver, outbox, .. }) = &mut self.running[i] else { return };
        driver.take_completions();
        driver.perform().expect("performed");
        driver.quiet.obey(&mut driver.groups);
        let sent = std::mem::take(&mut *outbox.0.lock());
        self.network.extend(sent.into_iter().map(|(to, sent)| (id(i), to, sent)));
    }

    /// Lets every node tick and sync, and delivers messages.
    pub fn round(&mut self) {
        for i in 0..self.running.len() {
            // Otherwise two nodes with the same election timeout could campaign at the same time forever.
            if self.one_in(20) {
                continue;
            }
            let (syncs, begins) = (!self.faulty || !self.one_in(3), self.one_in(2));
            let quiet = self.one_in(16);
            let Some(Running { driver, writer, readers, .. }) = &mut self.running[i] else { continue };
            driver.tick().expect("a tick");
            if syncs {
                writer.begin();
            }
            if !self.faulty || begins {
                writer.end().expect("synced");
                readers.run();
            }
            if quiet {
                writer.quiet(false).expect("synced");
            }
            self.perform(i);
        }
        for _ in 0..self.network.len().min(1000) {
            self.deliver();
        }
        if !self.faulty {
            // A sync is much shorter than a tick, and so is a message's way.
            for _ in 0..4 {
                for i in 0..self.running.len() {
                    if let Some(Running { writer, readers, .. }) = &mut self.running[i] {
                        writer.begin();
                        writer.end().expect("synced");
                        readers.run();
                    }
                    self.perform(i);
                }
                for _ in 0..self.network.len() {
                    self.deliver();
                }
            }
        }
        self.take_answers();
    }

    pub fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let at = if self.faulty && self.one_in(4) { self.rng.below(self.network.len()) } else { 0 };
        let (from, to, sent) = self.network.remove(at);
        if self.cut.contains(&(from, to)) {
            return;
        }
        if self.faulty {
            match self.rng.below(100) {
                0..=2 => return,
                3 | 4 => self.network.push((from, to, sent.again())),
                _ => {}
            }
        }
        let Some(i) = (0..self.running.len()).find(|i| id(*i) == to) else { return };
        let Some(Running { driver, .. }) = &mut self.running[i] else { return };
        match sent {
            Sent::Message(message) => driver.step(from, message),
            Sent::Proposal(proposal) => driver.handle(ConsensusMsg::Propose(proposal, reply().0)),
            Sent::ReadIndex(group, sender) => {
                let sender = sender.unwrap_or_else(|| reply().0);
                driver.handle(ConsensusMsg::ReadIndex(group, None, sender));
            }
        }
        self.perform(i);
    }

    pub fn take_answers(&mut self) {
        for (group, value, mut answer) in std::mem::take(&mut self.asked) {
            match answered(&mut answer) {
                None => self.asked.push((group, value, answer)),
                Some(Ok(appended)) => {
                    self.acknowledged.push(Acknowledged { group, value, offset: appended.offset });
                }
                Some(Err(_)) => {}
            }
        }
    }

    pub fn driver(&self, i: usize) -> Option<&Driver> {
        self.running[i].as_ref().map(|running| &running.driver)
    }

    /// Returns the leader of the newest term.
    pub fn leader(&self, group: GroupId) -> Option<usize> {
        let term = |i: usize| {
            let replica = self.driver(i)?.groups.get(&group)?;
            replica.group.leads().then(|| replica.group.term())
        };
        (0..self.running.len()).filter(|i| term(*i).is_some()).max_by_key(|i| term(*i))
    }

    /// Asks the catalog's leader for a change.
    pub fn command(&mut self, command: Command) {
        let Some(i) = self.leader(GroupId::CATALOG) else { return };
        let Some(Running { driver, .. }) = &mut self.running[i] else { return };
        driver.handle(match command {
            Command::AddNode(_) => ConsensusMsg::Command(command, FeatureRange::SUPPORTED, reply().0),
            other => ConsensusMsg::Propose(command_proposal(&other), reply().0),
        });
        self.perform(i);
    }

    /// Lets the catalog's leader append a command.
    pub fn decide(&mut self, i: usize, command: &Command) {
        if let Some(Running { driver, .. }) = &mut self.running[i] {
            let replica = driver.groups.get_mut(&GroupId::CATALOG).expect("a replica");
            replica.group.propose(command_proposal(command), Instant::now(), wall_us(), reply().0);
        }
        self.perform(i);
    }

    /// Returns true if every running node has a catalog for which `holds` is true.
    pub fn change_catalog(&self, holds: impl Fn(&crate::catalog::Catalog) -> bool) -> bool {
        (0..self.running.len()).filter_map(|i| self.driver(i)).all(|driver| holds(driver.governor.catalog()))
    }

    pub fn propose(&mut self, group: GroupId) {
        let Some(i) = self.leader(group) else { return };
        self.values += 1;
        let value = self.values;
        let mut payload = Vec::new();
        encode_record(&mut payload, &RecordFields { value: &value.to_le_bytes(), ..RecordFields::default() });
        let proposal = Proposal::new(group, EntryKind::Records, 1, payload.as_slice().into());
        let (sender, answer) = reply();
        self.asked.push((group, value, answer));
        if let Some(Running { driver, .. }) = &mut self.running[i] {
            driver.handle(ConsensusMsg::Propose(proposal, sender));
        }
        self.perform(i);
    }

    /// Runs rounds until `holds` is true.
    pub fn until(&mut self, what: &str, rounds_max: usize, mut holds: impl FnMut(&mut Cluster) -> bool) -> usize {
        for round in 0..rounds_max {
            if holds(self) {
                return round;
            }
            self.round();
        }
        panic!("not in {rounds_max} rounds: {what}\n{}", self.show());
    }

    pub fn show(&self) -> String {
        let mut text = String::new();
        for i in 0..self.running.len() {
            let Some(driver) = self.driver(i) else { continue };
            for (group, replica) in driver.groups.iter() {
                let (status, quiet) = (replica.status(), driver.quiet.is_quiet(*group));
                text += &format!(
                    "node {i} group {group}: replica {} {:?} of term {} leader {:?} last {} commit {} voters {:?} learners {:?} \
                     quiet {quiet} damage {:?}\n",
                    replica.group.me(),
                    status.role,
                    status.term,
                    status.leader.map(|leader| leader.0 >> 40),
                    status.last_index,
                    status.commit_index,
                    status.voters,
                    status.learners,
                    status.damage,
                );
            }
        }
        text
    }

    pub fn logs(&self) -> Vec<crate::catalog::LogMeta> {
        let catalogs = (0..self.running.len()).filter_map(|i| self.driver(i)).map(|driver| driver.governor.catalog());
        let newest = catalogs.max_by_key(|catalog| catalog.logs().map(|log| log.revision).sum::<u64>());
        newest.map(|catalog| catalog.logs().cloned().collect()).unwrap_or_default()
    }

    pub fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert((id(a), id(b)));
    }

    pub fn isolate(&mut self, i: usize) {
        for other in (0..self.running.len()).filter(|other| *other != i) {
            self.cut(i, other);
            self.cut(other, i);
        }
    }

    pub fn is_quiet(&self, group: GroupId) -> bool {
        let mut hosts =
            (0..self.running.len()).filter_map(|i| self.driver(i)).filter(|d| d.groups.contains_key(&group));
        hosts.all(|driver| driver.quiet.is_quiet(group))
    }

    /// Checks that every acknowledged record can be read at its offset from each replica.
    pub fn check_acknowledged(&self) {
        for Acknowledged { group, value, offset } in &self.acknowledged {
            for i in 0..self.running.len() {
                let Some(replica) = self.driver(i).and_then(|driver| driver.groups.get(group)) else { continue };
                let slice = replica.reader.records(*offset, Offset(offset.0 + 1), 1, 1 << 20, Access::Blocking);
                let slice = slice.unwrap_or_else(|error| panic!("value {value} of group {group} on node {i}: {error}"));
                let record =
                    crate::storage::payload::records(&slice.bytes).next().expect("a record").expect("canonical");
                let stored = crate::storage::payload::record_value(record).expect("a value");
                assert_eq!(stored, value.to_le_bytes(), "group {group}, offset {offset} on node {i}");
            }
        }
    }

    /// Every replica of the group is equal, and its newest leader has an entry acknowledged.
    pub fn is_equal(&self, group: GroupId) -> bool {
        let replicas = (0..self.running.len()).filter_map(|i| self.driver(i)?.groups.get(&group));
        let ends: BTreeSet<_> = replicas.map(|r| (r.group.last_index(), r.group.visible().applied)).collect();
        ends.len() == 1 && ends.iter().all(|(last, applied)| last == applied)
    }
}
