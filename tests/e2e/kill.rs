//! `kill -9` of a random node at random moments, while four clients produce through all nodes.
//!
//! Afterwards the checks of `load.rs` hold, and each node has started again on its own. `make kill RUNS=100` kills that
//! many times (RELIABILITY L1, L5, L9 and L25).

use std::time::Instant;

use crate::harness::{Cluster, wait_for_voters};
use crate::load::{Random, check, pause, under_load};

#[test]
fn three_nodes_keep_acknowledged_records() {
    kill_loop(3, runs());
}

#[test]
fn one_node_keeps_acknowledged_records() {
    kill_loop(1, runs());
}

/// Returns the number of kills; by default few.
fn runs() -> usize {
    std::env::var("SERIATIM_TEST_KILL_RUNS").map_or(5, |runs| runs.parse().expect("a number"))
}

fn kill_loop(nodes: usize, runs: usize) {
    let mut random = Random::from_env(&format!("{nodes} nodes, {runs} kills"));
    // Small segments, so that kills also interrupt segment rolls.
    let mut cluster = Cluster::start_with(nodes, &["--segment-bytes=262144"]);
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.rpc_addr.clone()).collect();
    let (site, nodes) = (&cluster.site, &mut cluster.nodes);
    let (sent, ()) = under_load(site, &addrs, &mut random, |random| {
        for run in 1..=runs {
            let victim = random.below(addrs.len() as u64) as usize;
            pause(random.below(400));
            nodes[victim].kill();
            pause(random.below(200));
            let begin = Instant::now();
            nodes[victim].start_again();
            if run % 10 == 0 {
                eprintln!("{run} kills, the last start took {:?}", begin.elapsed());
            }
        }
    });
    wait_for_voters(&cluster.clients());
    check(&cluster, &sent);
}
