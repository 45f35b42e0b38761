//! Nodes in network namespaces on one bridge: they find each other by mDNS without join addresses, and their links are cut.
//!
//! Needs root and `ip`; otherwise the tests are skipped with a message. `SERIATIM_TEST_NETNS=required` (CI) makes that a failure.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::fail_over::slowest_until_appended;
use crate::harness::{Node, NodeOptions, Site, eventually, print_uncaptured, record, wait_for_voters};

#[test]
fn clusters_on_one_bridge_find_their_own_members_by_mdns() {
    let Some(bridge) = bridge("mDNS in three network namespaces", 3) else { return };
    let hosts = bridge.hosts();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let (site, other_site) = (Site::of_cluster("seriatim", &hosts), Site::of_cluster("other", &hosts));
    // Both clusters start at once, on the same three hosts.
    let start = |site: &Site, name: &str, number: usize, founder: usize| {
        // `joins_later`, because the founder of the other cluster is the node that is started last.
        let options = bridge.options(number, format!("{name}{number}"));
        Node::start(site, NodeOptions { bootstrap: number == founder, joins_later: true, ..options })
    };
    let (mut nodes, mut others) = (Vec::new(), Vec::new());
    for number in 0..3 {
        nodes.push(start(&site, "node", number, 0));
        others.push(start(&other_site, "other", number, 2));
    }
    for (site, nodes, prefix) in [(&site, &nodes, "node"), (&other_site, &others, "other")] {
        let clients: Vec<_> = nodes.iter().map(|node| site.client(&node.rpc_addr, "root")).collect();
        wait_for_voters(&clients);
        let offset = clients[0].produce("", vec![record("foo")]).expect("produces").offset;
        for client in &clients {
            assert_eq!(client.consume_at("", offset).expect("consumes").value, "foo");
            let servers = client.get_servers("default").expect("servers").servers;
            assert!(
                servers.iter().all(|server| server.id.starts_with(prefix)),
                "a node joined the wrong cluster: {servers:?}"
            );
        }
    }
    for node in nodes.iter_mut().chain(&mut others) {
        let status = node.stop();
        assert!(status.success(), "{status}");
    }
}

/// A client that sent one request at a time through a follower saw the fail-over of a leader that was cut off as one call of 5 to
/// 8 s with an unknown outcome.
#[test]
fn a_forwarded_request_fails_over_quickly_when_the_leader_is_cut_off() {
    let Some(bridge) = bridge("a leader that is cut off", 3) else { return };
    let hosts = bridge.hosts();
    let site = Site::of_cluster("seriatim", &hosts.iter().map(String::as_str).collect::<Vec<_>>());
    let mut join = Vec::new();
    let mut nodes = Vec::new();
    for number in 0..3 {
        let options = bridge.options(number, format!("n{number}"));
        nodes.push(Node::start(&site, NodeOptions { bootstrap: number == 0, join: join.clone(), ..options }));
        join = vec![nodes[0].bind_addr.clone()];
    }
    let clients: Vec<_> = nodes.iter().map(|node| site.client(&node.rpc_addr, "root")).collect();
    wait_for_voters(&clients);
    let leader = eventually("a leader", || {
        let servers = clients[0].get_servers("default").map_err(|e| e.to_string())?.servers;
        let leader = servers.iter().find(|server| server.is_leader).ok_or("none")?;
        (0..3).find(|n| leader.id == format!("n{n}")).ok_or("an unknown one".to_owned())
    });
    bridge.cut(leader);
    let slowest = slowest_until_appended(&clients[(leader + 1) % 3], || true);
    assert!(slowest < Duration::from_secs(8), "a call took {slowest:?}");
}

/// Two clusters of one name, founded while the link between them was down, both acknowledged records forever after it was repaired.
#[test]
fn a_second_cluster_of_the_same_name_found_by_mdns_refuses_appends() {
    let Some(bridge) = bridge("two clusters of one name", 2) else { return };
    let hosts = bridge.hosts();
    let site = Site::of_cluster("seriatim", &hosts.iter().map(String::as_str).collect::<Vec<_>>());
    bridge.cut(1);
    let found = |number: usize| {
        let options = bridge.options(number, format!("n{number}"));
        Node::start(&site, NodeOptions { bootstrap: true, ..options })
    };
    let nodes = [found(0), found(1)];
    let client = site.client(&nodes[0].rpc_addr, "root");
    client.produce("", vec![record("a")]).expect("the only reachable cluster accepts it");
    bridge.repair(1);
    for node in &nodes {
        let client = site.client(&node.rpc_addr, "root");
        let refused = eventually("appends are refused", || match client.produce("", vec![record("b")]) {
            Ok(_) => Err("accepted".into()),
            Err(error) if error.to_string().contains("another cluster named") => Ok(error.to_string()),
            Err(error) => Err(error.to_string()),
        });
        assert!(refused.contains("ANOTHER_CLUSTER"), "{refused}");
    }
}

/// Creates the namespaces. Returns `None` if this process can't create them, and prints that `what` is skipped.
fn bridge(what: &str, namespaces: usize) -> Option<Bridge> {
    match Bridge::new(namespaces) {
        Ok(bridge) => Some(bridge),
        Err(why) if std::env::var("SERIATIM_TEST_NETNS").is_ok_and(|v| v == "required") => panic!("{why}"),
        Err(why) => {
            print_uncaptured(&format!("SKIPPED: {what}: {why}"));
            None
        }
    }
}

/// Network namespaces, each with an address, on a bridge that this process can reach too. Removed when dropped.
struct Bridge {
    id: u32,
    namespaces: usize,
}

impl Bridge {
    fn new(namespaces: usize) -> Result<Bridge, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".into());
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = std::process::id().wrapping_mul(4).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let bridge = Bridge { id: id % 50_000, namespaces };
        let name = bridge.name();
        ip(&["link", "add", &name, "type", "bridge", "mcast_snooping", "0"])?;
        ip(&["addr", "add", &format!("{}/24", bridge.host(254)), "dev", &name])?;
        ip(&["link", "set", &name, "up"])?;
        for number in 0..namespaces {
            let (namespace, outside) = (bridge.namespace(number), bridge.link(number));
            ip(&["netns", "add", &namespace])?;
            ip(&["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
            ip(&["link", "set", &outside, "master", &name, "up"])?;
            ip(&["-n", &namespace, "addr", "add", &format!("{}/24", bridge.addr(number)), "dev", "eth0"])?;
            ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        }
        Ok(bridge)
    }

    fn name(&self) -> String {
        format!("sb{}", self.id)
    }

    fn namespace(&self, number: usize) -> String {
        format!("seriatim-{}-{number}", self.id)
    }

    /// The name of the bridge's end of a namespace's link.
    fn link(&self, number: usize) -> String {
        format!("sv{}-{number}", self.id)
    }

    fn addr(&self, number: usize) -> String {
        self.host(number + 1)
    }

    fn hosts(&self) -> Vec<String> {
        (0..self.namespaces).map(|number| self.addr(number)).collect()
    }

    /// Returns the options of a node with this name in a namespace.
    fn options(&self, number: usize, name: String) -> NodeOptions {
        NodeOptions {
            name,
            bind_addr: Some(format!("{}:0", self.addr(number))),
            rpc_addr: Some(format!("{}:0", self.addr(number))),
            wrapper: ["ip", "netns", "exec", &self.namespace(number)].map(str::to_owned).to_vec(),
            ..NodeOptions::default()
        }
    }

    /// Drops every packet from and to a namespace, without an error on either side.
    fn cut(&self, number: usize) {
        ip(&["link", "set", &self.link(number), "nomaster"]).expect("cut");
    }

    fn repair(&self, number: usize) {
        ip(&["link", "set", &self.link(number), "master", &self.name()]).expect("repaired");
    }

    /// Returns an address in 198.18.0.0/15, which is reserved for tests.
    fn host(&self, host: usize) -> String {
        format!("198.{}.{}.{host}", 18 + self.id / 256 % 2, self.id % 256)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Removal fails for parts that were not created.
        for number in 0..self.namespaces {
            let _ = ip(&["netns", "del", &self.namespace(number)]);
        }
        let _ = ip(&["link", "del", &self.name()]);
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|e| format!("`ip` can't be run: {e}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("`ip {}`: {}", args.join(" "), stderr.trim()))
}
