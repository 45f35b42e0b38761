//! Power cuts of real processes, while four clients produce: any part of the unsynced data is lost.
//!
//! A shim between the process and libc records how to undo unsynced changes. At the cut it undoes a random part of them, down
//! to single sectors and file names, scrambles the index files, and kills the process. One start in three is cut again,
//! mostly during recovery. Afterwards the checks of `load.rs` hold, and each node has started again on its own.
//! `make power RUNS=200` cuts that many times (RELIABILITY L1, L2, L9 and L10).

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::{Cluster, Node, Site, eventually, wait_for_voters};
use crate::load::{Random, check, pause, under_load};
use crate::shim::{Fault, Shim};

const SIGKILL: i32 = 9;

#[test]
fn one_node_keeps_acknowledged_records() {
    power_loop(1, runs());
}

/// All nodes lose power at once.
#[test]
fn three_nodes_keep_acknowledged_records() {
    power_loop(3, runs().div_ceil(2));
}

/// Returns the number of power cuts; by default few.
fn runs() -> usize {
    std::env::var("SERIATIM_TEST_POWER_RUNS").map_or(6, |runs| runs.parse().expect("a number"))
}

fn power_loop(nodes: usize, runs: usize) {
    let mut random = Random::from_env(&format!("{nodes} nodes, {runs} power cuts"));
    let site = Site::new();
    let shim = Shim::compile(&site);
    let dirs: Vec<PathBuf> = (1..=nodes).map(|number| site.path().join(format!("n{number}"))).collect();
    let root = site.path().to_owned();
    // Small segments, so that cuts also interrupt segment rolls.
    let mut cluster =
        Cluster::start_at(site, nodes, &["--segment-bytes=262144"], |name| shim.env(&root.join(name), None, 1));
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.rpc_addr.clone()).collect();
    let (site, nodes) = (&cluster.site, &mut cluster.nodes);
    let mut cuts_at_start = 0;
    let (sent, ()) = under_load(site, &addrs, &mut random, |random| {
        let client = site.client(&addrs[0], "root");
        for run in 1..=runs {
            if random.below(3) > 0 {
                // Otherwise, the cut may happen during an election.
                eventually("a leader exists", || {
                    client.wait_connected(Duration::from_millis(100));
                    client.get_log("").map(drop).map_err(|e| e.to_string())
                });
            }
            pause(random.below(400));
            for dir in &dirs {
                shim.inject(dir, &Fault::Cut(random.next() >> 1));
            }
            for node in nodes.iter_mut() {
                assert_eq!(node.wait().signal(), Some(SIGKILL), "only the power cut stops a node");
            }
            for (node, dir) in nodes.iter_mut().zip(&dirs) {
                while random.below(3) == 0 {
                    start_and_cut(node, &shim, dir, random);
                    cuts_at_start += 1;
                }
                node.set_env(shim.env(dir, None, 1));
                node.start_again();
            }
            if run % 10 == 0 {
                eprintln!("{run} cuts, and {cuts_at_start} more during or soon after a start");
            }
        }
    });
    wait_for_voters(&cluster.clients());
    eprintln!("{runs} cuts, and {cuts_at_start} more during or soon after a start");
    check(&cluster, &sent);
}

/// Starts a node and cuts its power after some operations: during recovery, or when it already serves.
fn start_and_cut(node: &mut Node, shim: &Shim, dir: &Path, random: &mut Random) {
    node.set_env(shim.env(dir, Some(1 + random.below(60)), random.next() >> 1));
    let ended = match node.try_start_again() {
        Ok(()) => {
            // Without the other nodes, this node may never perform that many operations.
            pause(random.below(100));
            shim.inject(dir, &Fault::Cut(random.next() >> 1));
            node.wait()
        }
        Err(ended) => ended,
    };
    shim.withdraw(dir);
    assert_eq!(ended.signal(), Some(SIGKILL), "only the power cut stops a node: {}", node.log());
}
