//! Log lines for operators: leaders and missing voters.

use crate::harness::{Cluster, eventually, record};

/// No line named the leader. A survivor without a majority logged a line for each peer, but none that the majority was missing.
#[test]
fn the_log_names_the_leader_and_the_missing_voters() {
    let mut cluster = Cluster::start(3);
    let client = cluster.client(0);
    client.produce("", vec![record("a")]).expect("produces");
    let leader = cluster.leader();
    for (i, node) in cluster.nodes.iter().enumerate() {
        let whose = if i == leader { " (this node)" } else { "" };
        let line = format!("log default (group 1): n{}{whose} leads in term ", leader + 1);
        eventually("the leader is logged", || {
            let log = node.log();
            if log.contains(&line) { Ok(()) } else { Err(format!("no line {line:?} in {log}")) }
        });
    }
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    eventually("the missing majority is logged", || {
        let log = cluster.nodes[0].log();
        let line = log.lines().find(|l| l.contains("log default (group 1): no majority for ")).ok_or(log.clone())?;
        let named = line.contains("WARN")
            && (line.ends_with("no answer from n2, n3") || line.ends_with("no answer from n3, n2"));
        if named { Ok(()) } else { Err(line.to_owned()) }
    });
    cluster.nodes[2].start_again();
    eventually("the new leader is logged", || {
        let log = cluster.nodes[0].log();
        if log.contains(" s without a leader") { Ok(()) } else { Err(log) }
    });
    let log = cluster.nodes[2].log();
    assert!(log.contains("log default (group 1): recovered last_index="), "{log}");
    assert!(log.contains("recovery ended after "), "{log}");
}
