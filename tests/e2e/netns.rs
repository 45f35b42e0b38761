//! Nodes that find each other by mDNS, with no join address: three network namespaces on one bridge.
//!
//! Needs root and `ip`; says so where it can't run. `SERIATIM_TEST_NETNS=required` (CI) makes that a failure.

use std::process::Command;

use crate::harness::{Node, NodeOptions, Site, loudly, record, wait_for_voters};

#[test]
fn two_clusters_on_one_bridge_find_their_own_by_mdns() {
    let bridge = match Bridge::new(3) {
        Ok(bridge) => bridge,
        Err(why) if std::env::var("SERIATIM_TEST_NETNS").is_ok_and(|v| v == "required") => panic!("{why}"),
        Err(why) => {
            loudly(&format!("SKIPPED: mDNS in three network namespaces: {why}"));
            return;
        }
    };
    let hosts: Vec<String> = (0..3).map(|n| bridge.addr(n)).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let (site, other_site) = (Site::of_cluster("seriatim", &hosts), Site::of_cluster("other", &hosts));
    // The two clusters are started at once, on the same three machines.
    let start = |site: &Site, name: &str, number: usize, founder: usize| {
        let options = NodeOptions {
            name: format!("{name}{number}"),
            bootstrap: number == founder,
            bind_addr: Some(format!("{}:0", bridge.addr(number))),
            rpc_addr: Some(format!("{}:0", bridge.addr(number))),
            // The founder of the other cluster is started last.
            joins_later: true,
            under: ["ip", "netns", "exec", &bridge.namespace(number)].map(str::to_owned).to_vec(),
            ..NodeOptions::default()
        };
        Node::start(site, options)
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
            let servers = client.get_servers("").expect("servers").servers;
            assert!(servers.iter().all(|server| server.id.starts_with(prefix)), "they do not mix: {servers:?}");
        }
    }
    for node in nodes.iter_mut().chain(&mut others) {
        let status = node.stop();
        assert!(status.success(), "{status}");
    }
}

/// Network namespaces with an address each, on a bridge; this process reaches them too. Gone when dropped.
struct Bridge {
    id: u32,
    namespaces: usize,
}

impl Bridge {
    fn new(namespaces: usize) -> Result<Bridge, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".into());
        }
        let bridge = Bridge { id: std::process::id() % 50_000, namespaces };
        let name = bridge.name();
        ip(&["link", "add", &name, "type", "bridge", "mcast_snooping", "0"])?;
        ip(&["addr", "add", &format!("{}/24", bridge.host(254)), "dev", &name])?;
        ip(&["link", "set", &name, "up"])?;
        for number in 0..namespaces {
            let (namespace, outside) = (bridge.namespace(number), format!("sv{}-{number}", bridge.id));
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

    fn addr(&self, number: usize) -> String {
        self.host(number + 1)
    }

    /// Of 198.18.0.0/15, which is for tests.
    fn host(&self, host: usize) -> String {
        format!("198.{}.{}.{host}", 18 + self.id / 256 % 2, self.id % 256)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // What was not made can't be removed: then there is nothing to do.
        for number in 0..self.namespaces {
            let _ = ip(&["netns", "del", &self.namespace(number)]);
        }
        let _ = ip(&["link", "del", &self.name()]);
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|e| format!("`ip` can't be run: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("`ip {}`: {}", args.join(" "), said.trim()))
}
