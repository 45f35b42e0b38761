//! The basic scenario: append at one node, read at every node without delay, and shut down without leaks.
//!
//! `make scenario RUNS=100` repeats it.

use seriatim::agent::Agent;

use crate::harness::{Site, record, start_agent, wait_for_voters};
use crate::leaks::LeakCheck;

#[test]
fn three_nodes_replicate_one_log() {
    for _ in 0..runs() {
        let site = Site::exclusive();
        let leaks = LeakCheck::start();

        // The second and the third node have the address of the first one.
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

        let appended = clients[0].produce("", vec![record("foo")]).expect("produces");
        // Every node returns the record at the same offset, without a pause and without a retry.
        for client in &clients {
            let found = client.consume_at("", appended.offset).expect("consumes");
            assert_eq!((&found.value[..], found.offset, found.term), (&b"foo"[..], appended.offset, appended.term));
        }

        drop(clients);
        stop_and_check_for_leaks(nodes, leaks, site);
    }
}

#[test]
fn one_node_is_a_cluster_of_one_voter() {
    for _ in 0..runs() {
        let site = Site::exclusive();
        let leaks = LeakCheck::start();
        let mut config = site.config("only");
        config.cluster.bootstrap = true;
        let only = start_agent(config);
        let client = site.client(only.rpc_addr(), "root");
        wait_for_voters(std::slice::from_ref(&client));

        let appended = client.produce("", vec![record("foo")]).expect("produces");
        assert_eq!(client.consume_at("", appended.offset).expect("consumes").value, "foo");

        drop(client);
        stop_and_check_for_leaks(vec![only], leaks, site);
    }
}

/// Stops every node, removes the site's directory, and checks that no thread, port or file is leaked.
fn stop_and_check_for_leaks(nodes: Vec<Agent>, leaks: LeakCheck, site: Site) {
    let addrs: Vec<_> = nodes.iter().flat_map(|node| [node.bind_addr(), node.rpc_addr()]).collect();
    for node in nodes {
        node.stop().expect("stops cleanly");
    }
    let dir = site.path().to_owned();
    std::fs::remove_dir_all(&dir).expect("the directory is removed");
    leaks.assert_no_leaks(&addrs, &dir);
    // Other tests may run after this.
    drop(site);
}

fn runs() -> usize {
    std::env::var("SERIATIM_TEST_SCENARIO_RUNS").map_or(1, |runs| runs.parse().expect("a number"))
}
