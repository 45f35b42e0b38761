//! The simulated hosts, their disks and the network between them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::forming::machine::SEEN_FOR;
use crate::forming::messages::StoredPledge;
use crate::forming::{BlankNode, FormAnswer, FormMessage, Forming, Step};
use crate::types::{NodeId, NodeName};

/// Splitmix64.
pub struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("an index")
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// Adds a line to the trace, if there is one.
macro_rules! note {
    ($world:expr, $($text:tt)+) => {
        if $world.trace.is_some() {
            let text = format!($($text)+);
            $world.note(&text);
        }
    };
}

/// What survives the end of a process.
struct Disk {
    id: NodeId,
    pledge: StoredPledge,
    /// The number of the cluster of which the node is a member.
    cluster: Option<usize>,
}

/// What a process waits for.
enum Pending {
    Nothing,
    /// The pledge is being stored.
    Pledge(StoredPledge, Instant),
    /// It looks for a cluster before it founds one.
    Probe(Instant),
    /// The new cluster is being stored.
    Founding(Instant),
}

struct Process {
    forming: Forming,
    pending: Pending,
    /// A cluster that has answered.
    found: Option<usize>,
    /// The hosts that discovery has found.
    known: BTreeSet<usize>,
}

struct Host {
    disk: Disk,
    process: Option<Process>,
}

#[derive(Clone)]
enum Body {
    Message(FormMessage),
    Answer(FormAnswer),
    /// The sender is a member of a cluster.
    Member(usize),
}

#[derive(Clone)]
struct Packet {
    due: Instant,
    from: usize,
    to: usize,
    body: Body,
}

/// How much fails.
#[derive(Clone, Copy, PartialEq)]
enum Weather {
    Storm,
    Calm,
}

pub struct World {
    rng: Rng,
    begin: Instant,
    now: Instant,
    expect: u32,
    hosts: Vec<Host>,
    packets: Vec<Packet>,
    /// Pairs of hosts between which, in this direction, nothing arrives.
    cut: BTreeSet<(usize, usize)>,
    /// The founder of each cluster.
    clusters: Vec<NodeId>,
    incarnations: u64,
    ids: u64,
    weather: Weather,
    /// The first two hosts never reach each other, and the third one has the highest id.
    is_torn: bool,
    /// One packet in this number is late.
    late: u64,
    /// One step in this number is one in which a process may crash.
    restless: u64,
    pub trace: Option<Vec<String>>,
}

impl World {
    pub fn new(seed: u64, is_traced: bool) -> World {
        let mut rng = Rng(seed);
        // In half of the histories, two nodes that don't reach each other need the pledge of a third one.
        let is_torn = rng.once_in(2);
        let expect = if is_torn { 2 } else { [2, 3, 3, 4][rng.index(4)] };
        // As many as the rules allow, or less.
        let hosts = u64::from(expect) + if is_torn { 1 } else { rng.below(u64::from(expect)) };
        let begin = Instant::now();
        let (late, restless) = ([2, 8][rng.index(2)], [10, 30, 90][rng.index(3)]);
        let mut world = World {
            rng,
            begin,
            now: begin,
            expect,
            hosts: Vec::new(),
            packets: Vec::new(),
            cut: BTreeSet::new(),
            clusters: Vec::new(),
            incarnations: 0,
            ids: 0,
            weather: Weather::Storm,
            is_torn,
            late,
            restless,
            trace: is_traced.then(Vec::new),
        };
        for _ in 0..hosts {
            let disk = world.blank_disk();
            world.hosts.push(Host { disk, process: None });
        }
        note!(world, "{hosts} hosts, {expect} are expected");
        world.part();
        if is_torn {
            world.hosts[2].disk.id.0 |= 1 << 40;
        }
        world
    }

    fn note(&mut self, what: &str) {
        let ms = self.now.duration_since(self.begin).as_millis();
        self.trace.get_or_insert_default().push(format!("{ms:>7} ms  {what}"));
    }

    fn blank_disk(&mut self) -> Disk {
        self.ids += 1;
        let id = NodeId((self.rng.below(1 << 16) << 16 | self.ids) + 1);
        Disk { id, pledge: StoredPledge::default(), cluster: None }
    }

    /// The number of blank nodes must be below this, counted over the whole time until the cluster has formed.
    fn ids_max(&self) -> u64 {
        2 * u64::from(self.expect) - 1
    }

    /// Runs a whole history.
    pub fn run(&mut self) -> Result<(), String> {
        let result = self.history();
        result.map_err(|error| format!("{}\n{error}", self.trace.take().unwrap_or_default().join("\n")))
    }

    fn history(&mut self) -> Result<(), String> {
        for _ in 0..if self.is_torn { 300 } else { 300 + self.rng.below(1200) } {
            self.step()?;
            self.fail();
            if self.hosts.iter().all(|host| host.disk.cluster.is_some()) {
                break;
            }
        }
        self.settle()?;
        // The cluster has formed. Nodes are wiped, but less than expected at the same time.
        for _ in 0..self.rng.below(3) {
            self.weather = Weather::Storm;
            for _ in 1..self.expect.min(u32::try_from(self.hosts.len()).unwrap_or(1)) {
                let host = self.rng.index(self.hosts.len());
                let blank = self.hosts.iter().filter(|host| host.disk.cluster.is_none()).count();
                if blank + 1 < self.expect as usize {
                    self.wipe(host);
                }
            }
            for _ in 0..300 {
                self.step()?;
                let (from, to) = (self.rng.index(self.hosts.len()), self.rng.index(self.hosts.len()));
                if self.rng.once_in(20) {
                    self.crash(from);
                }
                if self.rng.once_in(10) {
                    self.start(to);
                }
            }
            self.settle()?;
        }
        Ok(())
    }

    /// The faults stop. Every node must become a member of the one cluster.
    fn settle(&mut self) -> Result<(), String> {
        note!(self, "the faults stop");
        self.weather = Weather::Calm;
        self.cut.clear();
        for step in 0..6000 {
            for host in 0..self.hosts.len() {
                if step % 200 == 0 {
                    self.forget_pledge_to_the_dead(host);
                }
                if self.hosts[host].process.is_none() {
                    self.start(host);
                }
            }
            self.step()?;
            let cluster = self.hosts[0].disk.cluster;
            if cluster.is_some() && self.hosts.iter().all(|host| host.disk.cluster == cluster) {
                // Until no node remembers another one that was blank.
                self.now += 2 * SEEN_FOR;
                self.packets.clear();
                return Ok(());
            }
        }
        let state: Vec<String> = self.hosts.iter().map(|host| format!("{:?}", host.disk.cluster)).collect();
        let pledges: Vec<String> =
            self.hosts.iter().map(|host| format!("{} {:?}", host.disk.id, host.disk.pledge)).collect();
        Err(format!("{}\nnot all nodes are members: {}", pledges.join("\n"), state.join(", ")))
    }

    /// An operator removes a pledge to a node whose disk is gone, with the cluster that it may have founded.
    fn forget_pledge_to_the_dead(&mut self, host: usize) {
        let Some(candidate) = &self.hosts[host].disk.pledge.candidate else { return };
        let id = candidate.id;
        let is_alive = self.hosts.iter().any(|host| host.disk.id == id);
        let founded = self.clusters.iter().position(|founder| *founder == id);
        if is_alive || founded.is_some_and(|cluster| self.survives(cluster)) {
            return;
        }
        self.crash(host);
        note!(self, "host {host}: the operator removes its pledge to {id}");
        self.hosts[host].disk.pledge = StoredPledge::default();
    }

    fn survives(&self, cluster: usize) -> bool {
        self.hosts.iter().any(|host| host.disk.cluster == Some(cluster))
    }

    fn fail(&mut self) {
        let host = self.rng.index(self.hosts.len());
        let other = self.rng.index(self.hosts.len());
        if self.rng.once_in(self.restless) {
            self.crash(host);
        }
        match self.rng.below(60) {
            0..=11 => self.start(host),
            15 if self.ids < self.ids_max() && self.rng.once_in(6) => self.wipe(host),
            12..=13 if self.rng.once_in(4) => self.part(),
            14 if !self.is_torn => {
                self.cut.insert((host, other));
            }
            16..=17 if !self.is_torn => {
                let repaired = self.rng.index(self.cut.len().max(1));
                self.cut =
                    self.cut.iter().copied().enumerate().filter(|(n, _)| *n != repaired).map(|(_, c)| c).collect();
            }
            18 if !self.is_torn && self.rng.once_in(3) => self.cut.clear(),
            19 if self.rng.once_in(4) => self.forget_pledge_to_the_dead(host),
            _ => {}
        }
    }

    /// Divides the hosts into two camps. Some of them can reach both.
    fn part(&mut self) {
        let mut camps: Vec<u64> = self.hosts.iter().map(|_| [1, 1, 2, 2, 3][self.rng.index(5)]).collect();
        if self.is_torn {
            camps = vec![1, 2, 3];
        }
        self.cut.clear();
        for (host, own) in camps.iter().enumerate() {
            let apart = camps.iter().enumerate().filter(|(_, other)| own & *other == 0);
            self.cut.extend(apart.map(|(other, _)| (host, other)));
        }
        note!(self, "the camps are {camps:?}");
    }

    fn start(&mut self, host: usize) {
        if self.hosts[host].process.is_some() {
            return;
        }
        self.incarnations += 1;
        let disk = &self.hosts[host].disk;
        let me = BlankNode {
            id: disk.id,
            name: NodeName::new(&format!("n{host}")).expect("a name"),
            addr: format!("h{host}:1"),
            expect: self.expect,
            incarnation: self.incarnations,
        };
        let forming = Forming::new(me, disk.pledge.clone());
        let (id, cluster) = (disk.id, disk.cluster);
        self.hosts[host].process =
            Some(Process { forming, pending: Pending::Nothing, found: None, known: BTreeSet::new() });
        note!(self, "host {host} starts as {id}, {cluster:?}");
    }

    fn crash(&mut self, host: usize) {
        if self.hosts[host].process.take().is_some() {
            note!(self, "host {host} crashes");
        }
    }

    fn wipe(&mut self, host: usize) {
        self.crash(host);
        self.hosts[host].disk = self.blank_disk();
        note!(self, "host {host} is wiped, and is {} now", self.hosts[host].disk.id);
    }

    fn send(&mut self, from: usize, to: usize, body: Body) {
        let is_calm = self.weather == Weather::Calm;
        if self.cut.contains(&(from, to)) || (!is_calm && self.rng.once_in(6)) {
            return;
        }
        let copies = if !is_calm && self.rng.once_in(6) { 2 } else { 1 };
        for _ in 0..copies {
            let late = !is_calm && self.rng.once_in(self.late);
            let delay = if late { self.rng.ms(100, 6000) } else { self.rng.ms(1, 60) };
            self.packets.push(Packet { due: self.now + delay, from, to, body: body.clone() });
        }
    }

    /// One step: packets arrive, what is due is finished, and one host does something.
    fn step(&mut self) -> Result<(), String> {
        self.now += self.rng.ms(1, 80);
        loop {
            let due = self.packets.iter().position(|packet| packet.due <= self.now);
            let Some(due) = due else { break };
            let packet = self.packets.swap_remove(due);
            self.deliver(packet);
        }
        for host in 0..self.hosts.len() {
            self.finish(host)?;
        }
        let host = self.rng.index(self.hosts.len());
        if self.rng.once_in(2) {
            self.ask(host)
        } else {
            self.decide(host)
        }
        Ok(())
    }

    fn deliver(&mut self, packet: Packet) {
        let (now, host) = (self.now, &mut self.hosts[packet.to]);
        let Some(process) = &mut host.process else { return };
        match (packet.body, host.disk.cluster) {
            (Body::Message(_), Some(cluster)) => self.send(packet.to, packet.from, Body::Member(cluster)),
            (Body::Message(message), None) => {
                let answer = process.forming.receive(message, now);
                self.send(packet.to, packet.from, Body::Answer(answer));
            }
            (Body::Answer(answer), None) => process.forming.answered(answer, now),
            (Body::Member(cluster), None) => process.found = Some(cluster),
            (Body::Answer(_) | Body::Member(_), Some(_)) => {}
        }
    }

    /// A blank node sends a message to each node that it knows.
    fn ask(&mut self, host: usize) {
        let found = self.rng.index(self.hosts.len());
        let Host { disk: Disk { cluster: None, .. }, process: Some(process) } = &mut self.hosts[host] else { return };
        process.known.insert(found);
        if self.weather == Weather::Calm {
            process.known.extend(0..found);
        }
        let addresses = process.forming.addresses();
        let hosts = addresses.iter().filter_map(|addr| addr.strip_prefix('h')?.strip_suffix(":1")?.parse().ok());
        let known: BTreeSet<usize> = process.known.iter().copied().chain(hosts).filter(|to| *to != host).collect();
        let messages: Vec<_> =
            known.into_iter().map(|to| (to, process.forming.message_to(&format!("h{to}:1")))).collect();
        for (to, message) in messages {
            self.send(host, to, Body::Message(message));
        }
    }

    fn decide(&mut self, host: usize) {
        let soon = if self.rng.once_in(3) { self.rng.ms(300, 4000) } else { self.rng.ms(1, 300) };
        let (now, soon) = (self.now, self.now + soon);
        let slow = self.now + self.rng.ms(1, 4000);
        let found = self.hosts[host].process.as_ref().and_then(|process| process.found);
        let admits = found.is_some_and(|cluster| self.admits(cluster, host));
        let Host { disk, process: Some(process) } = &mut self.hosts[host] else { return };
        if disk.cluster.is_some() || !matches!(process.pending, Pending::Nothing) {
            return;
        }
        if let Some(cluster) = process.found.take() {
            if admits {
                disk.cluster = Some(cluster);
                note!(self, "host {host} joins cluster {cluster}");
            }
            return;
        }
        process.pending = match process.forming.decide(now) {
            Step::Wait => return,
            Step::Store(pledge) => {
                process.pending = Pending::Pledge(pledge.clone(), soon);
                note!(self, "host {host} decides {pledge:?}");
                return;
            }
            Step::Found => Pending::Probe(slow),
        };
        note!(self, "host {host} has the pledges");
    }

    /// A member that runs can be reached, and commits the entry of the new one.
    fn admits(&self, cluster: usize, host: usize) -> bool {
        let is_reached = |other: usize| !self.cut.contains(&(host, other)) && !self.cut.contains(&(other, host));
        let is_member = |other: usize| self.hosts[other].disk.cluster == Some(cluster);
        (0..self.hosts.len()).any(|other| is_member(other) && is_reached(other) && self.hosts[other].process.is_some())
    }

    fn finish(&mut self, host: usize) -> Result<(), String> {
        let now = self.now;
        let (unsure, soon, dies) = (self.rng.once_in(4), now + self.rng.ms(1, 3000), self.rng.once_in(2));
        let Host { disk, process: Some(process) } = &mut self.hosts[host] else { return Ok(()) };
        match std::mem::replace(&mut process.pending, Pending::Nothing) {
            Pending::Pledge(pledge, due) if due <= now => {
                disk.pledge = pledge.clone();
                process.forming.stored(pledge);
            }
            Pending::Probe(due) if due <= now => {
                let may_found = process.found.is_none() && !unsure && process.forming.may_found(now);
                if may_found {
                    process.pending = Pending::Founding(soon);
                } else {
                    process.forming.reopen();
                }
            }
            Pending::Founding(due) if due <= now => {
                let (id, cluster) = (disk.id, self.clusters.len());
                disk.cluster = Some(cluster);
                self.clusters.push(id);
                note!(self, "host {host} founds cluster {cluster}");
                let other = (0..cluster).find(|cluster| self.survives(*cluster));
                if let Some(other) = other {
                    return Err(format!("cluster {cluster} is founded, although cluster {other} exists"));
                }
                if dies && self.weather == Weather::Storm {
                    self.crash(host);
                }
            }
            pending => process.pending = pending,
        }
        Ok(())
    }
}
