//! Several drivers on simulated disks, with the network between them, in one thread and in simulated time. Everything
//! random follows from the seed. `checks.rs` checks the state of each node after each of its steps.

use std::collections::BTreeSet;

use super::checks::Checks;
use super::machines::{Machine, Running};
use super::network::{Flight, Network, Sent, Weather};
use super::*;
use crate::catalog::Origin;
use crate::consensus::command_proposal;
use crate::consensus::tests::sim::{Answer, Rng, answered};
use crate::random::seeded;
use crate::storage::disk::sim::{Rng as DiskRng, Sim};
use crate::storage::payload::{RecordFields, encode_record};
use crate::storage::reader::Access;
use crate::types::{LogId, Offset};

/// The disks of a cluster that was founded, to begin other histories with.
pub struct Image {
    disks: Vec<Sim>,
    elapsed: Duration,
    starts: u64,
}

/// An acknowledged record.
pub struct Acknowledged {
    pub group: GroupId,
    value: u64,
    pub offset: Offset,
}

pub struct Cluster {
    pub rng: Rng,
    pub disk_rng: DiskRng,
    pub machines: Vec<Machine>,
    pub running: Vec<Option<Running>>,
    pub network: Network,
    /// Links that are cut, each in one direction.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub weather: Weather,
    pub checks: Checks,
    begun: Instant,
    pub elapsed: Duration,
    pub starts: u64,
    /// The size at which a new segment begins.
    pub segment_bytes: u64,
    /// Changes messages on their way.
    pub tamper: Option<fn(&mut RaftMessage)>,
    /// This node sends other entries than those that it should to nodes that repair their logs.
    pub liar: Option<NodeId>,
    values: u64,
    asked: Vec<(GroupId, u64, Answer)>,
    pub acknowledged: Vec<Acknowledged>,
}

pub fn id(i: usize) -> NodeId {
    // Other numbers than those of replicas.
    NodeId((i as u64 + 1) << 40 | 0xbeef)
}

/// Changes the entries that a node sends to one that repairs its log.
pub fn other_entries(message: &mut RaftMessage) {
    if message.repair_answer.is_some()
        && let Some(entry) = message.entries.iter_mut().find(|entry| entry.data.len() > 60)
    {
        let mut data = entry.data.to_vec();
        let last = data.len() - 1;
        data[last] ^= 1;
        entry.data = data.into();
    }
}

pub fn this(i: usize) -> Member {
    member(id(i), &format!("n{i}"))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        clock::simulated::set(None);
        seeded::set(None);
    }
}

impl Cluster {
    fn empty(seed: u64) -> Cluster {
        let mut cluster = Cluster {
            rng: Rng(1),
            disk_rng: DiskRng(seed),
            machines: Vec::new(),
            running: Vec::new(),
            network: Network::default(),
            cut: BTreeSet::new(),
            weather: Weather::CALM,
            checks: Checks::default(),
            begun: Instant::now(),
            elapsed: Duration::ZERO,
            segment_bytes: 1 << 14,
            tamper: None,
            liar: None,
            starts: 0,
            values: 0,
            asked: Vec::new(),
            acknowledged: Vec::new(),
        };
        cluster.seed(seed);
        cluster
    }

    /// From now on everything random follows from this seed.
    pub fn seed(&mut self, seed: u64) {
        self.rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        self.disk_rng = DiskRng(seed);
        seeded::set(Some(seed));
    }

    /// Starts a cluster of these nodes, all of which vote for the catalog, with some logs of three replicas.
    pub fn new(seed: u64, nodes: usize, logs: usize) -> Cluster {
        let mut cluster = Cluster::empty(seed);
        (0..nodes).for_each(|_| cluster.machines.push(Machine::new(Sim::default())));
        (0..nodes).for_each(|_| cluster.running.push(None));
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

    /// Returns copies of the disks, as if all processes were killed now.
    pub fn image(&self) -> Image {
        let disks = self.machines.iter().map(|machine| machine.disk.copy()).collect();
        Image { disks, elapsed: self.elapsed, starts: self.starts }
    }

    /// Starts a cluster with copies of these disks.
    pub fn resume(seed: u64, image: &Image, segment_bytes: u64) -> Cluster {
        let mut cluster = Cluster::empty(seed);
        cluster.segment_bytes = segment_bytes;
        (cluster.elapsed, cluster.starts) = (image.elapsed, image.starts);
        for disk in &image.disks {
            cluster.machines.push(Machine::new(disk.copy()));
            cluster.running.push(None);
        }
        cluster.start_all();
        cluster
    }

    /// Adds a machine with an empty disk, which must join, and starts it.
    pub fn add_machine(&mut self) -> usize {
        self.machines.push(Machine::joining(Sim::default()));
        self.running.push(None);
        let i = self.machines.len() - 1;
        self.start(i);
        i
    }

    pub fn create_log(&mut self, name: &str, replicas: u32) -> Command {
        self.values += 1;
        let name = LogName::new(name).expect("a name");
        let settings = LogSettings { replicas: Some(replicas), ..LogSettings::default() };
        let log_id = LogId(1 << 40 | (self.starts << 20) | self.values);
        Command::CreateLog(NewLog { name, log_id, origin: Origin::Nodes(Vec::new()), settings, restore: None })
    }

    pub fn one_in(&mut self, times: usize) -> bool {
        self.rng.below(times) == 0
    }

    pub fn now(&self) -> Instant {
        self.begun + self.elapsed
    }

    /// Lets every node tick and sync, and delivers messages.
    pub fn round(&mut self) {
        self.elapsed += Duration::from_millis(group::TICK_MS);
        for i in 0..self.running.len() {
            // Otherwise two nodes with the same election timeout could campaign at the same time forever.
            if !self.one_in(20) {
                self.tick(i);
            }
        }
        // A sync is much shorter than a tick, and so is a message's way.
        let steps = if self.weather.busy { 1 + self.rng.below(3) } else { 5 };
        (0..steps).for_each(|_| self.exchange());
        (0..self.running.len()).for_each(|i| self.perform(i));
        self.take_answers();
        self.watch_leaders();
    }

    /// Lets the disks proceed, and delivers messages.
    pub fn exchange(&mut self) {
        (0..self.running.len()).for_each(|i| self.sync(i));
        for flight in self.network.arriving(self.weather, &mut self.rng) {
            self.deliver(flight);
        }
    }

    fn deliver(&mut self, flight: Flight) {
        let Some(i) = (0..self.running.len()).find(|i| id(*i) == flight.to) else { return };
        if self.cut.contains(&(flight.from, flight.to)) || self.running[i].is_none() {
            return;
        }
        if self.machines[i].paused > 0 {
            return self.network.put_off(flight);
        }
        let now = self.now();
        self.checks.trace.delivered(&flight);
        let Flight { from, sent, clock_us, .. } = flight;
        let tamper = self.tamper.or((self.liar == Some(flight.from)).then_some(other_entries));
        self.act(i, |Running { driver, .. }| {
            driver.peer_clocks.record(from, clock_us, now);
            match sent {
                Sent::Message(mut message) => {
                    if let Some(tamper) = tamper {
                        tamper(&mut message);
                    }
                    driver.step(from, message);
                }
                Sent::Proposal(proposal) => driver.handle(ConsensusMsg::Propose(proposal, reply().0)),
                Sent::Forward(proposal, sender) => driver.handle(ConsensusMsg::Propose(proposal, sender)),
                Sent::ReadIndex(group, sender) => {
                    driver.handle(ConsensusMsg::ReadIndex(group, None, sender.unwrap_or_else(|| reply().0)));
                }
            }
            Ok(())
        });
        // Several messages may be received before their effects are performed.
        if !self.weather.busy || !self.one_in(4) {
            self.perform(i);
        }
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
        drop(self.ask_for(command));
    }

    /// Asks the catalog's leader for a change. Returns its answer, if there is a leader.
    pub fn ask_for(&mut self, command: Command) -> Option<Answer> {
        let i = self.leader(GroupId::CATALOG)?;
        let (sender, answer) = reply();
        let message = match command {
            // Nodes do not request these of each other.
            Command::AddNode(_)
            | Command::RemoveNode(_)
            | Command::ReplaceNode(..)
            | Command::PlaceReplica(..)
            | Command::MoveReplica(..)
            | Command::RemoveReplica(..) => ConsensusMsg::Command(command, FeatureRange::SUPPORTED, sender),
            other => ConsensusMsg::Propose(command_proposal(&other), sender),
        };
        self.handle(i, message);
        Some(answer)
    }

    /// Lets the catalog's leader append a command.
    pub fn decide(&mut self, i: usize, command: &Command) {
        let (now, wall_us) = (self.now(), self.wall_us(i));
        self.act(i, |Running { driver, .. }| {
            let replica = driver.groups.get_mut(&GroupId::CATALOG).expect("a replica");
            replica.group.propose(command_proposal(command), now, wall_us, reply().0);
            Ok(())
        });
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
        self.handle(i, ConsensusMsg::Propose(proposal, sender));
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
            let Some(driver) = self.driver(i) else {
                let Machine { refused, gone, .. } = self.machines[i];
                text += &format!("node {i} is down: refused {refused} gone {gone}\n");
                continue;
            };
            for (group, replica) in driver.groups.iter() {
                let (status, quiet) = (replica.status(), driver.quiet.is_quiet(*group));
                text += &format!(
                    "node {i} group {group}: replica {} {:?} of term {} leader {:?} last {} commit {} applied {} voters {:?} \
                     learners {:?} quiet {quiet} damage {:?}\n",
                    replica.group.me(),
                    status.role,
                    status.term,
                    status.leader.map(|leader| (leader.0 >> 40) - 1),
                    status.last_index,
                    status.commit_index,
                    status.applied_index,
                    status.voters.iter().map(|node| (node.0 >> 40).wrapping_sub(1)).collect::<Vec<_>>(),
                    status.learners.iter().map(|node| (node.0 >> 40).wrapping_sub(1)).collect::<Vec<_>>(),
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
