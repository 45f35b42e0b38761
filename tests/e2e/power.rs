//! Power cuts under real processes, while four clients produce: what was written and not synced is lost, in any part.
//!
//! A shim between the process and libc remembers how to undo what was not synced; at the cut it undoes any of it, down to
//! single sectors and names of files, scrambles the indexes, and kills the process. Every third start is cut
//! again, most of these in the middle of recovery. Afterwards the account of `load.rs` holds, and each node has started again
//! by itself. `make power RUNS=200` does it so many times (RELIABILITY L1, L2, L9 and L10).

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::{Cluster, Node, Site, eventually, wait_for_voters};
use crate::load::{Random, check, pause, under_load};
use crate::shim::{Order, Shim};

const SIGKILL: i32 = 9;

#[test]
fn one_node() {
    power_loop(1, runs());
}

/// All of them at once: a whole room without power.
#[test]
fn three_nodes() {
    power_loop(3, runs().div_ceil(2));
}

/// A short run is part of the tests.
fn runs() -> usize {
    std::env::var("SERIATIM_TEST_POWER_RUNS").map_or(6, |runs| runs.parse().expect("a number"))
}

fn power_loop(nodes: usize, runs: usize) {
    let mut random = Random::from_env(&format!("{nodes} nodes, {runs} power cuts"));
    let site = Site::new();
    let shim = Shim::compile(&site);
    let dirs: Vec<PathBuf> = (1..=nodes).map(|number| site.path().join(format!("n{number}"))).collect();
    let root = site.path().to_owned();
    // Small segments: rolls are among what is interrupted.
    let mut cluster =
        Cluster::start_at(site, nodes, &["--segment-bytes=262144"], |name| shim.env(&root.join(name), None, 1));
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.rpc_addr.clone()).collect();
    let (site, nodes) = (&cluster.site, &mut cluster.nodes);
    let mut again = 0;
    let (sent, ()) = under_load(site, &addrs, &mut random, |random| {
        let client = site.client(&addrs[0], "root");
        for run in 1..=runs {
            if random.below(3) > 0 {
                // Else the cut may meet an election.
                eventually("there is a leader", || {
                    client.wait_connected(Duration::from_millis(100));
                    client.get_log("").map(drop).map_err(|e| e.to_string())
                });
            }
            pause(random.below(400));
            for dir in &dirs {
                shim.order(dir, &Order::Cut(random.next() >> 1));
            }
            for node in nodes.iter_mut() {
                assert_eq!(node.wait().signal(), Some(SIGKILL), "by the cut, and nothing else");
            }
            for (node, dir) in nodes.iter_mut().zip(&dirs) {
                while random.below(3) == 0 {
                    start_and_cut(node, &shim, dir, random);
                    again += 1;
                }
                node.set_env(shim.env(dir, None, 1));
                node.start_again();
            }
            if run % 10 == 0 {
                eprintln!("{run} cuts, and {again} of nodes that had just started");
            }
        }
    });
    wait_for_voters(&cluster.clients());
    eprintln!("{runs} cuts, and {again} of nodes that had just started");
    check(&cluster, &sent);
}

/// A start that is cut off after some operations: in recovery, or when it serves already.
fn start_and_cut(node: &mut Node, shim: &Shim, dir: &Path, random: &mut Random) {
    node.set_env(shim.env(dir, Some(1 + random.below(60)), random.next() >> 1));
    let ended = match node.try_start_again() {
        Ok(()) => {
            // Without the others it may never come to that operation.
            pause(random.below(100));
            shim.order(dir, &Order::Cut(random.next() >> 1));
            node.wait()
        }
        Err(ended) => ended,
    };
    shim.withdraw(dir);
    assert_eq!(ended.signal(), Some(SIGKILL), "by the cut, and nothing else: {}", node.log());
}
