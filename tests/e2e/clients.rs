//! The clients of other languages, run against three nodes: `make test-clients` builds them and calls this.

use std::process::Command;

use crate::harness::{Cluster, loudly};

/// The programs are named by `SERIATIM_TEST_CLIENTS`, separated by `:`. Each gets one node's address, the certificates, and
/// a folder of its own.
#[test]
fn other_languages_produce_consume_and_tail_on_any_node() {
    let Ok(programs) = std::env::var("SERIATIM_TEST_CLIENTS") else {
        loudly("SKIPPED: `make test-clients` runs the clients of other languages, this is `make test`");
        return;
    };
    let cluster = Cluster::start(3);
    for program in programs.split(':') {
        for node in &cluster.nodes {
            let output = Command::new(program)
                .args(["--addr", &node.rpc_addr])
                .arg("--certs")
                .arg(cluster.site.certs())
                .output()
                .expect("the client runs");
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{program}: {out}{err}");
            eprint!("{program} at {}: {out}", node.rpc_addr);
        }
    }
}
