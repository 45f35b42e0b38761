//! Diverged replicas, and a leader that can't read an entry that a follower lacks: both are detected and reported.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use grpcio::RpcStatusCode as Code;
use seriatim::client::Client;
use seriatim::pb::v1::GroupStatus;

use crate::harness::{Cluster, Outcome, counter, eventually, outcome, record};

fn data_dir(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.site.path().join(format!("n{}", node + 1))
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("runs");
    assert!(done.success(), "{from:?} to {to:?}");
}

fn group(client: &Client) -> Result<GroupStatus, String> {
    let node = client.get_node().map_err(|e| e.to_string())?;
    node.groups.into_iter().find(|group| !group.log.is_empty()).ok_or("no group".into())
}

/// Runs `seriatim status`.
fn status(cluster: &Cluster, node: usize) -> Outcome {
    outcome(&cluster.site.cli(&cluster.nodes[node].rpc_addr, &["status"]).output().expect("runs"))
}

fn produce(client: &Client, what: &str, count: usize) {
    for n in 0..count {
        eventually("the record is appended", || {
            client.produce("", vec![record(format!("{what} {n}"))]).map(drop).map_err(|e| e.to_string())
        });
    }
}

/// n3 is down while n1 and n2 acknowledge records. n2's disk is restored from an older copy, and n2 and n3 continue with other
/// records at the same offsets. n1 restarted with lag 0, `status` exited with code 0, and n1 served records that differ
/// from those of n2 and n3.
#[test]
fn a_diverged_replica_stops_serving_and_reports_it() {
    let mut cluster = Cluster::start(3);
    produce(&cluster.client(0), "before", 20);
    // Copy n2's data while it is in sync and stopped.
    let end = group(&cluster.client(0)).expect("a group").next_offset;
    eventually("n2 has every record", || match group(&cluster.client(1))?.next_offset {
        next if next == end => Ok(()),
        next => Err(format!("{next} of {end}")),
    });
    assert!(cluster.nodes[1].stop().success());
    let (now, old) = (data_dir(&cluster, 1), cluster.site.path().join("n2-old"));
    copy(&now, &old);
    cluster.nodes[1].start_again();
    cluster.nodes[2].kill();
    produce(&cluster.client(0), "first", 60);
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    fs::remove_dir_all(&now).expect("removed");
    fs::rename(&old, &now).expect("put back");
    cluster.nodes[1].start_again();
    cluster.nodes[2].start_again();
    produce(&cluster.client(1), "second", 30);
    cluster.nodes[0].start_again();

    let client = cluster.client(0);
    let damage = eventually("n1 reports that it differs", || {
        let damage = group(&client)?.damage;
        if damage.is_empty() { Err("no damage reported".to_owned()) } else { Ok(damage) }
    });
    assert!(damage.contains("this replica differs from that of node"), "{damage}");
    let error = client.consume_at("", 30).expect_err("n1 does not serve its records");
    let refused = error.status().expect("a status");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::UNAVAILABLE, "REPLICA_DAMAGED"), "{}", refused.message);
    let (code, stdout, stderr) = status(&cluster, 1);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let line = stdout.lines().find(|line| line.starts_with("n1 ")).expect("a line");
    assert!(line.contains("DAMAGED: this replica differs"), "{stdout}");
    assert!(stderr.contains("data is damaged on n1"), "{stderr}");
    // The other two continue, and have equal records.
    produce(&cluster.client(2), "third", 5);
    let (two, three) = (cluster.client(1), cluster.client(2));
    for offset in 0..group(&two).expect("a group").next_offset {
        assert_eq!(
            two.consume_at("", offset).expect("served").value,
            three.consume_at("", offset).expect("served").value
        );
    }
    assert_eq!(counter(&client, "seriatim_replicas_damaged_now"), 1);
}

/// One byte changes in an old segment of the leader, and n3 lacks that entry. Not even the valid entries before it were sent, the
/// leader did not hand over, reads on n3 failed without a reason, and 30 errors per second were logged.
#[test]
fn a_leader_that_cannot_read_a_missing_entry_hands_over() {
    let mut cluster = Cluster::start_with(3, &["--segment-bytes=1MiB"]);
    produce(&cluster.client(0), "before", 3);
    cluster.nodes[2].kill();
    // More data than the leader keeps in memory.
    let value = |n: usize| format!("record {n} {}", "x".repeat(4000));
    let client = cluster.client(0);
    for n in 0..40 {
        let records: Vec<_> = (0..100).map(|i| record(value(100 * n + i))).collect();
        eventually("the records are appended", || {
            client.produce("", records.clone()).map(drop).map_err(|e| e.to_string())
        });
    }
    let leader = [0, 1].into_iter().find(|i| group(&cluster.client(*i)).is_ok_and(|g| g.role.value() == 3));
    let leader = leader.expect("one of the two leads");
    let other = 1 - leader;
    cluster.nodes[other].kill();
    let file = data_dir(&cluster, leader).join("groups/1/00000000000000000001.seg");
    let bytes = fs::read(&file).expect("a segment");
    let at = bytes.windows(11).position(|part| part == b"record 150 ").expect("the record is stored") as u64;
    let open = fs::OpenOptions::new().write(true).open(&file).expect("a segment");
    open.write_all_at(b"R", at).expect("written");

    // With only this leader, n3 gets the valid entries, and its reads fail with the reason.
    cluster.nodes[2].start_again();
    let third = cluster.client(2);
    eventually("n3 has the entries before the bad frame", || match group(&third)?.next_offset {
        103.. => Ok(()),
        next => Err(format!("{next}")),
    });
    eventually("n3 returns the reason of its lag", || {
        let error = third.consume_at("", 4002).err().ok_or("the record was read")?;
        match error.status() {
            Some(status) if status.code == Code::UNAVAILABLE && status.reason == "LEADER_DAMAGED" => Ok(()),
            _ => Err(error.to_string()),
        }
    });
    let (_, stdout, _) = status(&cluster, 2);
    assert!(stdout.lines().any(|line| line.starts_with("n3 ") && line.contains("STALLED: entry ")), "{stdout}");

    // The other node can send the remaining entries.
    cluster.nodes[other].start_again();
    eventually("n3 has caught up", || third.consume_at("", 4002).map(drop).map_err(|e| e.to_string()));
    assert_eq!(third.consume_at("", 153).expect("served").value, value(150).as_bytes());
    assert_ne!(group(&cluster.client(leader)).expect("a group").role.value(), 3, "it handed leadership over");
    let log = cluster.nodes[leader].log();
    assert_eq!(log.matches("can't be read for a follower").count(), 1, "{log}");
}
