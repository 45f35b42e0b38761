//! Nodes in network namespaces on one bridge: they find each other by mDNS without join addresses, and their links are cut.
//!
//! `bridge.rs` creates the namespaces, and says what they need.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use crate::bridge::{bridge, ip};
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

/// Nodes announced themselves on all interfaces of their hosts, also on those on which they do not listen.
#[test]
fn mdns_uses_only_the_interface_of_bind_addr() {
    let Some(bridge) = bridge("mDNS on one interface", 3) else { return };
    let hosts = bridge.hosts();
    let site = Site::of_cluster("seriatim", &hosts.iter().map(String::as_str).collect::<Vec<_>>());
    // A second interface of the first host, which leads nowhere.
    let namespace = bridge.namespace(0);
    ip(&["-n", &namespace, "link", "add", "inner", "type", "veth", "peer", "name", "end"]).expect("a link");
    ip(&["-n", &namespace, "addr", "add", "198.51.100.1/24", "dev", "inner"]).expect("an address");
    for link in ["inner", "end"] {
        ip(&["-n", &namespace, "link", "set", link, "up"]).expect("up");
    }
    let id = |node: &Node| {
        let text = fs::read_to_string(site.path().join(node.name()).join("node.toml")).expect("a file");
        text.lines().find_map(|line| line.strip_prefix("node_id = ")).expect("an id").trim_matches('"').to_owned()
    };
    let listen = Some("198.51.100.1:0".to_owned());
    let more = vec!["--log-level=debug".to_owned()];
    let options = |number: usize| NodeOptions { more: more.clone(), ..bridge.options(number, format!("n{number}")) };
    let inner = NodeOptions { bind_addr: listen.clone(), rpc_addr: listen, bootstrap: true, ..options(0) };
    let inner = Node::start(&site, inner);
    let outer = Node::start(&site, NodeOptions { bootstrap: true, ..options(1) });
    let blank = Node::start(&site, options(2));
    let found = |by: &Node, node: &Node| by.log().contains(&format!("mDNS found node {}", id(node)));
    assert!(found(&blank, &outer), "it has joined the node on the bridge");
    assert!(!found(&blank, &inner) && !found(&inner, &outer) && !found(&outer, &inner), "{}", inner.log());
}

/// Blank hosts with the same file, in which no address of a host is, and no join address. The order and the times of their starts
/// are random. `SERIATIM_TEST_FORMING_RUNS` says how often.
#[test]
fn blank_nodes_with_one_configuration_file_form_one_cluster_by_mdns() {
    let Some(bridge) = bridge("forming by mDNS in three network namespaces", 3) else { return };
    let hosts = bridge.hosts();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let runs = std::env::var("SERIATIM_TEST_FORMING_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(2);
    for run in 0..runs {
        let site = Site::of_cluster("seriatim", &hosts);
        let file = site.path().join("seriatim.toml");
        let (certs, policy) = (site.certs(), site.policy());
        let (certs, policy) = (certs.display(), policy.display());
        let text = format!(
            "config_version = 1\n[cluster]\nbootstrap_expect = 3\n\
             [listen.client]\naddr = \"0.0.0.0:8400\"\nca_file = \"{certs}/ca.pem\"\n\
             cert_file = \"{certs}/server.pem\"\nkey_file = \"{certs}/server-key.pem\"\n\
             [listen.peer]\naddr = \"0.0.0.0:8401\"\n[access]\npolicy_file = \"{policy}\"\n"
        );
        fs::write(&file, text).expect("a file");
        let random = RandomState::new().hash_one(run);
        let mut order = [0, 1, 2];
        order.rotate_left((random % 3) as usize);
        order[1..].rotate_left((random / 3 % 2) as usize);
        let pauses = [0, random / 6 % 4000, random / 6 / 4000 % 4000];
        let begin = Instant::now();
        let mut nodes = Vec::new();
        for (number, pause) in order.into_iter().zip(pauses) {
            // A host starts some time after the one before.
            std::thread::park_timeout(Duration::from_millis(pause));
            nodes.push(bridge.start_host(&site, number, &file));
        }
        let started = begin.elapsed();
        let addrs = order.map(|number| format!("{}:8400", bridge.addr(number)));
        let clients: Vec<_> = addrs.iter().map(|addr| site.client(addr, "root")).collect();
        wait_for_voters(&clients);
        let founded: usize = nodes.iter().map(|node| node.log().matches("founding cluster seriatim").count()).sum();
        assert_eq!(founded, 1, "order {order:?}, pauses {pauses:?} ms");
        clients[0].produce("", vec![record("a")]).expect("produces");
        let formed = begin.elapsed().saturating_sub(started);
        print_uncaptured(&format!("run {run}: order {order:?}, pauses {pauses:?} ms: three voters after {formed:.1?}"));
        for node in &mut nodes {
            assert!(node.stop().success());
        }
    }
}
