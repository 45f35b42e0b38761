//! Blank nodes with the same configuration (`bootstrap_expect`) form one cluster.

use std::fs;
use std::net::TcpListener;

use seriatim::client::Client;

use crate::harness::{Node, NodeOptions, Site, eventually, record, wait_for_voters};

/// Every order in which three nodes can be started.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

fn free_addrs<const N: usize>() -> [String; N] {
    // All at once, so that they differ.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address").to_string())
}

/// Returns the options of a node that is to form a cluster of three with those at `join`.
fn options(name: &str, addr: &str, join: &[String]) -> NodeOptions {
    NodeOptions {
        name: name.to_owned(),
        bind_addr: Some(addr.to_owned()),
        join: join.to_vec(),
        joins_later: true,
        more: vec!["--bootstrap-expect=3".to_owned()],
        ..NodeOptions::default()
    }
}

fn clients(site: &Site, nodes: &[Node]) -> Vec<Client> {
    nodes.iter().map(|node| site.client(&node.rpc_addr, "root")).collect()
}

/// The number of clusters that these nodes have founded.
fn founded(nodes: &[Node]) -> usize {
    nodes.iter().map(|node| node.log().matches("founding cluster seriatim with id").count()).sum()
}

#[test]
fn three_nodes_with_the_same_configuration_form_one_cluster_in_every_order_of_starts() {
    for order in ORDERS {
        let site = Site::new();
        let addrs: [String; 3] = free_addrs();
        let start = |number: usize| Node::start(&site, options(&format!("n{number}"), &addrs[number], &addrs));
        let mut nodes = vec![start(order[0]), start(order[1])];
        assert_eq!(founded(&nodes), 0, "two of three nodes don't found a cluster");
        nodes.push(start(order[2]));
        let all = clients(&site, &nodes);
        wait_for_voters(&all);
        assert_eq!(founded(&nodes), 1, "{order:?}");
        all[0].produce("", vec![record("a")]).expect("produces");
        // A late node with the same configuration joins.
        let [late]: [String; 1] = free_addrs();
        nodes.push(Node::start(&site, options("late", &late, &addrs)));
        wait_for_voters(&clients(&site, &nodes));
        assert_eq!(founded(&nodes), 1, "{order:?}");
        // The configuration does not matter to a member.
        assert!(nodes[0].stop().success());
        nodes[0].start_again();
        assert_eq!(founded(&nodes), 1, "{order:?}");
        for node in &nodes {
            let pledge = site.path().join(node.name()).join("pledge.toml");
            assert!(!pledge.exists(), "a member has no pledge: {}", pledge.display());
        }
    }
}

/// Five nodes, of which three are expected, start at the same time.
#[test]
fn more_nodes_than_expected_form_one_cluster() {
    let site = Site::new();
    let addrs: [String; 5] = free_addrs();
    let start = |number: usize| Node::start(&site, options(&format!("n{number}"), &addrs[number], &addrs));
    let nodes: Vec<Node> = (0..5).map(start).collect();
    wait_for_voters(&clients(&site, &nodes));
    assert_eq!(founded(&nodes), 1);
}

/// The candidate waits for a silent join address when it is killed. The other two have pledged to it, and it may have
/// founded the cluster, so they wait for it, also after a restart, and don't found one by another way.
#[test]
fn a_pledge_survives_restarts_and_holds_until_its_candidate_answers() {
    let site = Site::new();
    // Accepts connections but never responds, like a host whose node is suspended.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_addr = silent.local_addr().expect("an address").to_string();
    let addrs: [String; 3] = free_addrs();
    let join: Vec<String> = addrs.iter().chain([&silent_addr]).cloned().collect();
    let start = |number: usize| Node::start(&site, options(&format!("n{number}"), &addrs[number], &join));
    let mut nodes: Vec<Node> = (0..3).map(start).collect();
    let candidate = eventually("a candidate waits for the silent address", || {
        let waits = |node: &Node| node.log().contains("not founding cluster") && node.log().contains(&silent_addr);
        nodes.iter().position(waits).ok_or_else(|| nodes[0].log())
    });
    nodes[candidate].kill();
    let other = (candidate + 1) % 3;
    nodes[other].kill();
    let id = |node: &Node, file: &str, key: &str| {
        let text = fs::read_to_string(site.path().join(node.name()).join(file)).expect("a file");
        let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("a line").to_owned();
        line.trim_start_matches([' ', '=']).to_owned()
    };
    let pledge = id(&nodes[other], "pledge.toml", "candidate");
    assert_eq!(pledge, id(&nodes[candidate], "node.toml", "node_id"), "the pledge is on the disk");
    // An operator must not found a cluster of which the candidate knows nothing.
    let more = nodes[other].set_more(vec!["--bootstrap".to_owned()]);
    assert_eq!(nodes[other].try_start_again().expect_err("it refuses").code(), Some(78));
    assert!(nodes[other].log().contains("may have founded the cluster"), "{}", nodes[other].log());
    nodes[other].set_more(more);
    nodes[other].start_later();
    drop(silent);
    eventually("the log says what to do", || {
        let log = nodes[other].log();
        let says = log.contains("which does not answer: start that node") && log.contains("pledge.toml");
        says.then_some(()).ok_or(log)
    });
    assert_eq!(founded(&nodes), 0);
    nodes[candidate].start_later();
    wait_for_voters(&clients(&site, &nodes));
    assert_eq!(founded(&nodes), 1);
}

/// Two of three members lose their disks. The third one still knows the cluster, so they don't form a new one.
#[test]
fn wiped_members_find_the_cluster_and_form_no_other() {
    let site = Site::new();
    let addrs: [String; 3] = free_addrs();
    let start = |number: usize| Node::start(&site, options(&format!("n{number}"), &addrs[number], &addrs));
    let mut nodes: Vec<Node> = (0..3).map(start).collect();
    wait_for_voters(&clients(&site, &nodes));
    for number in [0, 1] {
        nodes[number].kill();
        fs::remove_dir_all(site.path().join(nodes[number].name())).expect("removed");
    }
    let wiped: Vec<Node> = [0, 1]
        .iter()
        .map(|number| Node::start(&site, options(&format!("new{number}"), &addrs[*number], &addrs)))
        .collect();
    for node in &wiped {
        eventually("it has asked the cluster", || {
            let log = node.log();
            // The third node alone can't commit anything: the majority is lost.
            (log.contains("has not admitted it") || log.contains("asked to be admitted by")).then_some(()).ok_or(log)
        });
    }
    nodes[2].kill();
    // Two of three blank nodes, and no member answers.
    for node in &wiped {
        eventually("it waits for a third node", || {
            let log = node.log();
            log.contains("sees 2 blank nodes of 3").then_some(()).ok_or(log)
        });
    }
    assert_eq!(founded(&nodes) + founded(&wiped), 1);
}
