//! The story that must hold first: append to one node, read from every node at once, and leave nothing behind.
//!
//! `make scenario RUNS=100` tells it so many times.

use seriatim::agent::Agent;

use crate::harness::{Site, record, start_agent, wait_for_voters};
use crate::traces::Traces;

#[test]
fn three_nodes_replicate_one_log() {
    for _ in 0..runs() {
        let site = Site::alone();
        let before = Traces::take();

        // Three nodes of their own folders; the second and the third know where the first one is.
        let mut config = site.config("first");
        config.cluster.bootstrap = true;
        let first = start_agent(config);
        let mut config = site.config("second");
        config.cluster.join = vec![first.bind_addr().to_string()];
        let second = start_agent(config);
        let mut config = site.config("third");
        config.cluster.join = vec![first.bind_addr().to_string()];
        let third = start_agent(config);
        let nodes = vec![first, second, third];
        let clients: Vec<_> = nodes.iter().map(|node| site.client(node.rpc_addr(), "root")).collect();
        wait_for_voters(&clients);

        // What goes into the first one ...
        let appended = clients[0].produce("", vec![record("foo")]).expect("produces");
        // ... comes out of it, and at the same offset out of the others: at once, with no sleep and no retry.
        for client in &clients {
            let found = client.consume_at("", appended.offset).expect("consumes");
            assert_eq!((&found.value[..], found.offset, found.term), (&b"foo"[..], appended.offset, appended.term));
        }

        drop(clients);
        stop_and_look(nodes, before, site);
    }
}

#[test]
fn one_node_is_a_cluster_of_one_voter() {
    for _ in 0..runs() {
        let site = Site::alone();
        let before = Traces::take();
        let mut config = site.config("only");
        config.cluster.bootstrap = true;
        let only = start_agent(config);
        let client = site.client(only.rpc_addr(), "root");
        wait_for_voters(std::slice::from_ref(&client));

        let appended = client.produce("", vec![record("foo")]).expect("produces");
        assert_eq!(client.consume_at("", appended.offset).expect("consumes").value, "foo");

        drop(client);
        stop_and_look(vec![only], before, site);
    }
}

/// Every node stops cleanly, the folder is removed, and no thread, port or file is left.
fn stop_and_look(nodes: Vec<Agent>, before: Traces, site: Site) {
    let addrs: Vec<_> = nodes.iter().flat_map(|node| [node.bind_addr(), node.rpc_addr()]).collect();
    for node in nodes {
        node.stop().expect("stops cleanly");
    }
    let dir = site.path().to_owned();
    std::fs::remove_dir_all(&dir).expect("the folder goes");
    before.assert_nothing_left(&addrs, &dir);
    // Other tests may run from here on.
    drop(site);
}

fn runs() -> usize {
    std::env::var("SERIATIM_TEST_SCENARIO_RUNS").map_or(1, |runs| runs.parse().expect("a number"))
}
