//! The nodes of a run: each in a network namespace of its own, with a small disk of its own, and reached by its peers
//! through the forwarder only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use seriatim::client::Client;
use seriatim::pb::v1::{Node as Member, NodeState};

use super::field::Field;
use super::forwarder::Forwarder;
use crate::bridge::{Bridge, bridge};
use crate::harness::{Node, NodeOptions, Site};
use crate::load::Random;
use crate::shim::{Fault, Shim};
use crate::tmpfs::Tmpfs;

/// The number of hosts, of which some run no node.
pub const HOSTS: usize = 6;
/// More nodes never run at once: as many as can vote in the catalog.
pub const NODES_MAX: usize = 5;
/// The size of a disk. It holds some minutes of records, and can be filled quickly.
const DISK_MIB: u32 = 192;
/// The peer port and the client port of each node.
const PORTS: [u16; 2] = [8401, 8400];
/// A request that asks a node for its state takes at most this long.
const ASK_MAX: Duration = Duration::from_secs(2);
/// The time in which a node that is asked to stop exits: what `systemd` allows by default.
const STOP_MAX: Duration = Duration::from_secs(90);

const WHAT: &str = "chaos";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs, or it has been told to start.
    Runs,
    /// SIGSTOP.
    Suspended,
    /// The process does not exist.
    Down,
}

/// A host with a node.
pub struct Host {
    pub node: Node,
    pub state: State,
    /// It was asked to stop.
    stopping: bool,
}

pub struct World<'a> {
    // Dropped in this order: processes before their disks and namespaces.
    pub hosts: Vec<Option<Host>>,
    pub forwarder: Forwarder,
    disks: Vec<Tmpfs>,
    shim: Shim,
    pub bridge: Bridge,
    pub site: &'a Site,
    pub field: &'a Field,
    /// The hosts to whose process or disk something happens.
    pub busy: BTreeSet<usize>,
    /// Names are never used twice, except by a node that lost its disk.
    next_name: usize,
}

/// The hosts' network, and a site with certificates for them. `None`: this process may not create namespaces.
pub fn network() -> Option<(Bridge, Site)> {
    let bridge = bridge(WHAT, HOSTS)?;
    let hosts = bridge.hosts();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    Some((bridge, Site::of_cluster("seriatim", &hosts)))
}

impl<'a> World<'a> {
    /// Creates the disks and the forwarder, and starts no node. `None`: this process may not mount disks.
    pub fn new(bridge: Bridge, site: &'a Site, field: &'a Field, seed: u64) -> Option<World<'a>> {
        let disk = |host| Tmpfs::mount(WHAT, &site.path().join(format!("disk{host}")), DISK_MIB);
        let disks = (0..HOSTS).map(disk).collect::<Option<Vec<_>>>()?;
        let real = |host| SocketAddr::new(bridge.addr(host).parse().expect("an address"), PORTS[0]);
        let own: IpAddr = bridge.host(254).parse().expect("an address");
        let forwarder = Forwarder::new(own, &(0..HOSTS).map(real).collect::<Vec<_>>(), seed);
        let hosts = (0..HOSTS).map(|_| None).collect();
        let shim = Shim::compile(site);
        Some(World { hosts, forwarder, disks, shim, bridge, site, field, busy: BTreeSet::new(), next_name: 1 })
    }

    /// Starts this number of nodes as a new cluster.
    pub fn found(&mut self, nodes: usize) {
        for host in 0..nodes {
            self.add(host, host == 0);
        }
    }

    /// Starts a new node on a host, with an empty disk. It joins the others, or founds the cluster.
    pub fn add(&mut self, host: usize, bootstrap: bool) {
        let name = format!("n{}", self.next_name);
        self.next_name += 1;
        let data = self.disk(host).join("data");
        let _ = fs::remove_dir_all(&data);
        // All hosts, since a node that loses its disk must find those that are members then.
        let join = (0..HOSTS).map(|host| self.forwarder.advertised(host).to_string());
        let addr = |port: u16| Some(format!("{}:{port}", self.bridge.addr(host)));
        let options = self.bridge.options(host, name);
        let mut wrapper = options.wrapper.clone();
        // Not in the environment of the wrapper, which is another program.
        wrapper.push("env".to_owned());
        let clock = self.clock(host);
        wrapper.extend(self.shim.env(&clock, None, 1).into_iter().map(|(name, value)| format!("{name}={value}")));
        let mut more = vec![
            format!("--data-dir={}", data.display()),
            format!("--advertise-bind-addr={}", self.forwarder.advertised(host)),
            "--mdns=false".to_owned(),
            "--segment-bytes=256KiB".to_owned(),
            "--scrub-interval-seconds=1".to_owned(),
        ];
        let later = more.clone();
        // For this start only: a founder that loses its disk must join the others.
        more.extend(bootstrap.then(|| "--bootstrap".to_owned()));
        let options = NodeOptions {
            join: join.collect(),
            bind_addr: addr(PORTS[0]),
            rpc_addr: addr(PORTS[1]),
            joins_later: true,
            more,
            wrapper,
            ..options
        };
        self.forwarder.listen(host);
        let mut node = Node::start(self.site, options);
        node.set_more(later);
        self.field.add(host, node.rpc_addr.clone());
        self.hosts[host] = Some(Host { node, state: State::Runs, stopping: false });
    }

    /// A host's file system.
    pub fn disk(&self, host: usize) -> PathBuf {
        self.site.path().join(format!("disk{host}"))
    }

    pub fn data(&self, host: usize) -> PathBuf {
        self.disk(host).join("data")
    }

    /// The path by which the shim is told a host's clock. It contains no files, so that the shim does nothing else.
    fn clock(&self, host: usize) -> PathBuf {
        self.site.path().join(format!("clock{host}"))
    }

    /// Sets how far the clock of a host is ahead.
    pub fn set_clock(&self, host: usize, seconds: i64) {
        self.shim.inject(&self.clock(host), &Fault::Clock(seconds));
    }

    pub fn host(&mut self, host: usize) -> &mut Host {
        self.hosts[host].as_mut().expect("a node")
    }

    /// Returns the hosts with a node.
    pub fn members(&self) -> Vec<usize> {
        (0..HOSTS).filter(|host| self.hosts[*host].is_some()).collect()
    }

    /// Returns the hosts whose node runs and is not suspended.
    pub fn running(&self) -> Vec<usize> {
        let runs = |host: &usize| self.hosts[*host].as_ref().is_some_and(|host| host.state == State::Runs);
        (0..HOSTS).filter(runs).collect()
    }

    /// Returns the hosts whose node runs, and to which nothing happens.
    pub fn free(&self) -> Vec<usize> {
        self.running().into_iter().filter(|host| !self.busy.contains(host)).collect()
    }

    pub fn name(&self, host: usize) -> String {
        self.hosts[host].as_ref().map_or(String::new(), |host| host.node.name().to_owned())
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self, host: usize) {
        let killed = self.host(host);
        killed.node.kill();
        killed.state = State::Down;
        killed.stopping = false;
        self.forwarder.close(host);
    }

    /// Sends SIGTERM.
    pub fn terminate(&mut self, host: usize) {
        let host = self.host(host);
        host.stopping = true;
        host.node.terminate();
    }

    /// Waits until a node that was asked to stop has exited.
    pub fn wait_for_exit(&mut self, host: usize) {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.host(host).node.has_exited() {
                break status;
            }
            if begin.elapsed() > STOP_MAX {
                let name = self.name(host);
                self.field.problem(format!("{name} has not stopped {STOP_MAX:?} after SIGTERM"));
                return self.kill(host);
            }
            std::thread::park_timeout(Duration::from_millis(10));
        };
        if !status.success() {
            let name = self.name(host);
            self.field.problem(format!("{name} was asked to stop, and ended with {status}"));
        }
        let stopped = self.host(host);
        stopped.state = State::Down;
        stopped.stopping = false;
        self.forwarder.close(host);
    }

    /// Starts a node that is down, and does not wait until it is ready.
    pub fn start(&mut self, host: usize) {
        // Its clock is right again.
        self.shim.withdraw(&self.clock(host));
        self.forwarder.listen(host);
        let started = self.host(host);
        started.node.start_later();
        started.state = State::Runs;
    }

    /// Forgets a node that is down and not a member any more.
    pub fn forget(&mut self, host: usize) {
        self.forwarder.close(host);
        self.field.remove(host);
        self.hosts[host] = None;
    }

    /// A client of a host's node.
    pub fn client(&self, host: usize) -> Client {
        let addr = &self.hosts[host].as_ref().expect("a node").node.rpc_addr;
        self.field.client(addr).within(ASK_MAX)
    }

    /// Asks the running nodes, one after the other, until one answers.
    pub fn ask<T>(&self, mut ask: impl FnMut(&Client) -> Option<T>) -> Option<T> {
        self.running().into_iter().find_map(|host| ask(&self.client(host)))
    }

    /// Returns the host of the node that leads a log, or of any running node if none is known to.
    pub fn leader(&self, log: &str, random: &mut Random) -> Option<usize> {
        let leader = self.ask(|client| {
            let servers = client.get_servers(log).ok()?.servers;
            servers.into_iter().find(|server| server.is_leader).map(|server| server.id)
        });
        let running = self.running();
        running.iter().copied().find(|host| Some(self.name(*host)) == leader).or_else(|| pick(&running, random))
    }

    /// Returns the entry of a host's node in the list of members.
    pub fn member(&self, host: usize) -> Option<Member> {
        let name = self.name(host);
        self.ask(|client| client.list_nodes().ok()?.nodes.into_iter().find(|node| node.name == name))
    }

    /// Reports processes that have ended without being asked to, and connections around the forwarder.
    pub fn watch(&mut self) {
        for host in self.running() {
            let name = self.name(host);
            let watched = self.host(host);
            if let Some(status) = watched.node.has_exited() {
                if !watched.stopping {
                    watched.state = State::Down;
                    self.field.problem(format!("{name} has ended by itself: {status}"));
                }
                continue;
            }
            let process = watched.node.pid();
            for way in self.ways_around(process, host) {
                self.field.problem(format!("{name} is connected with {way}, and not through the forwarder"));
            }
        }
    }

    /// Returns the addresses of other hosts with which a process is connected.
    fn ways_around(&self, process: u32, host: usize) -> BTreeSet<IpAddr> {
        let others: BTreeSet<IpAddr> =
            (0..HOSTS).filter(|o| *o != host).map(|o| self.bridge.addr(o).parse().expect("an address")).collect();
        connected(process).intersection(&others).copied().collect()
    }

    /// Whether every node runs and is ready, and every log has all its replicas, which vote and are intact.
    pub fn is_whole(&self) -> Result<(), String> {
        let members = self.members();
        let names: BTreeSet<String> = members.iter().map(|host| self.name(*host)).collect();
        for host in &members {
            let (client, name) = (self.client(*host), self.name(*host));
            let node = client.get_node().map_err(|error| format!("{name}: {error}"))?;
            if !node.waiting_for.is_empty() || !node.another_cluster.is_empty() {
                return Err(format!("{name} waits for {}{}", node.waiting_for, node.another_cluster));
            }
            for group in &node.groups {
                let votes = group.replicas.iter().filter(|replica| replica.is_voter).count();
                let wanted = members.len().min(if group.log.is_empty() { 5 } else { 3 });
                let is_intact = group.damage.is_empty() && group.stalled.is_empty() && group.damaged_ranges.is_empty();
                if votes != wanted || votes != group.replicas.len() || !is_intact || group.leader.is_empty() {
                    return Err(format!("{name}: {group:?}"));
                }
            }
            let nodes = client.list_nodes().map_err(|error| format!("{name}: {error}"))?.nodes;
            let found: BTreeSet<String> = nodes.iter().map(|node| node.name.clone()).collect();
            let is_at_rest = nodes.iter().all(|node| node.state == NodeState::NODE_STATE_ACTIVE.into());
            if found != names || !is_at_rest {
                return Err(format!("{name}: {nodes:?}"));
            }
        }
        Ok(())
    }

    /// Returns the last index of each group on any node.
    fn last_indexes(&self) -> Result<BTreeMap<String, u64>, String> {
        let mut ends = BTreeMap::new();
        for host in self.members() {
            let node = self.client(host).get_node().map_err(|error| error.to_string())?;
            for group in node.groups {
                let end: &mut u64 = ends.entry(group.log).or_default();
                *end = group.last_index.max(*end);
            }
        }
        Ok(ends)
    }

    /// Whether each replica has applied its group up to these indexes.
    fn have_applied(&self, ends: &BTreeMap<String, u64>) -> Result<(), String> {
        for host in self.members() {
            let node = self.client(host).get_node().map_err(|error| error.to_string())?;
            let lags =
                node.groups.iter().find(|group| ends.get(&group.log).is_some_and(|end| group.applied_index < *end));
            if let Some(group) = lags {
                return Err(format!("{} lags: {group:?}", node.name));
            }
        }
        Ok(())
    }

    /// Waits until the cluster is whole, and each replica has what was there when it became whole. So a disk may
    /// be lost afterwards.
    pub fn wait_until_whole(&mut self, max: Duration) -> Result<Duration, String> {
        let begin = Instant::now();
        let mut ends: Option<BTreeMap<String, u64>> = None;
        loop {
            self.watch();
            let checked = self.is_whole().and_then(|()| {
                let ends = match &ends {
                    Some(ends) => ends,
                    None => ends.insert(self.last_indexes()?),
                };
                self.have_applied(ends)
            });
            match checked {
                Ok(()) => return Ok(begin.elapsed()),
                Err(why) if begin.elapsed() > max => return Err(format!("not whole after {max:?}: {why}")),
                Err(_) => std::thread::park_timeout(Duration::from_millis(100)),
            }
        }
    }

    /// Copies logs and data directories to a directory that stays.
    pub fn keep(&self, to: &std::path::Path) {
        let copied = std::process::Command::new("cp").arg("-rL").arg(self.site.path()).arg(to).status();
        if !copied.is_ok_and(|status| status.success()) {
            crate::harness::print_uncaptured(&format!("not everything could be copied to {}", to.display()));
        }
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        // A suspended process is killed, too. Fields are dropped in their order.
        self.hosts.clear();
        self.disks.clear();
    }
}

/// Returns one of them.
pub fn pick<T: Copy>(all: &[T], random: &mut Random) -> Option<T> {
    (!all.is_empty()).then(|| all[random.below(all.len() as u64) as usize])
}

/// Returns the remote addresses of all TCP connections in the network namespace of a process, which is another one than
/// that of this process.
pub fn connected(process: u32) -> BTreeSet<IpAddr> {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    if namespace(&process.to_string()) == namespace("self") {
        // It is just being started, and not in its namespace yet.
        return BTreeSet::new();
    }
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{process}/net/{table}")));
    tables.iter().flatten().flat_map(|table| table.lines().skip(1)).filter_map(remote).collect()
}

/// Returns the remote IPv4 address in a line of `/proc/net/tcp` or `tcp6`. The kernel prints each four bytes of an
/// address as a number of the machine, and the last ones of an IPv6 socket are those of an IPv4 address.
fn remote(line: &str) -> Option<IpAddr> {
    let addr = line.split_whitespace().nth(2)?.split_once(':')?.0;
    let last = addr.get(addr.len().checked_sub(8)?..)?;
    Some(IpAddr::from(u32::from_str_radix(last, 16).ok()?.to_ne_bytes()))
}
