//! Wall clocks that are wrong by a month: a leader's for the duration of one record, or a node's from its start on.

use std::time::{Duration, Instant};

use seriatim::client::Client;
use seriatim::pb::v1::{GroupStatus, Record};

use crate::harness::{self, Cluster, Site, eventually, read_all, record};
use crate::shim::{Fault, Shim};

const MONTH_SECONDS: i64 = 30 * 86_400;
const MINUTE_US: u64 = 60_000_000;

fn status(client: &Client) -> Result<GroupStatus, String> {
    let node = client.get_node().map_err(|e| e.to_string())?;
    node.groups.into_iter().find(|group| !group.log.is_empty()).ok_or("no group".into())
}

fn wall_us() -> u64 {
    seriatim::clock::wall_us()
}

fn stamp(records: &[Record]) -> u64 {
    records.last().expect("a record").append_time_us
}

/// The leader's clock was wrong for the duration of one record. That record and all later ones, of every leader, had a
/// wrong timestamp. No record expired until the clocks reached it, and nothing was logged.
#[test]
fn a_clock_jump_does_not_reach_timestamps() {
    let (shim, cluster) = Shim::cluster(1);
    let client = cluster.client(0);
    client.produce("", vec![record("before")]).expect("produces");
    shim.inject_node(&cluster, 0, &Fault::Clock(MONTH_SECONDS));
    eventually("the jump is logged", || {
        client.produce("", vec![record("meanwhile")]).map_err(|e| e.to_string())?;
        let log = cluster.nodes[0].log();
        log.contains("clock has jumped").then_some(()).ok_or("not yet".into())
    });
    shim.inject_node(&cluster, 0, &Fault::Clock(0));
    eventually("the end of the jump is logged", || {
        client.produce("", vec![record("after")]).map_err(|e| e.to_string())?;
        cluster.nodes[0].log().contains("clock is plausible again").then_some(()).ok_or("not yet".into())
    });
    let records = read_all(&client);
    assert!(records.len() >= 3);
    let newest = stamp(&records);
    assert!(newest < wall_us() + MINUTE_US, "stamped {} s ahead", (newest - wall_us()) / 1_000_000);
    let log = cluster.nodes[0].log();
    assert_eq!(log.matches("clock has jumped").count(), 1, "logged once");
}

/// With three nodes, the majority's clocks bound the leader's, whether it jumps or is wrong from the start of the
/// process.
#[test]
fn a_leader_ahead_of_the_majority_stamps_the_majority_time() {
    let (shim, cluster) = Shim::cluster(3);
    let client = cluster.client(0);
    client.produce("", vec![record("before")]).expect("produces");
    let leader = cluster.leader();
    shim.inject_node(&cluster, leader, &Fault::Clock(MONTH_SECONDS));
    eventually("the leader logs it", || {
        client.produce("", vec![record("meanwhile")]).map_err(|e| e.to_string())?;
        let log = cluster.nodes[leader].log();
        log.contains("ahead of most of the cluster's").then_some(()).ok_or("not yet".into())
    });
    assert_eq!(cluster.leader(), leader);
    client.produce("", vec![record("after")]).expect("produces");
    for client in cluster.clients() {
        let newest = stamp(&read_all(&client));
        assert!(newest < wall_us() + MINUTE_US, "stamped {} s ahead", (newest - wall_us()) / 1_000_000);
    }
    // The followers receive each other's clocks, too, and agree with the majority.
    for node in (0..3).filter(|node| *node != leader) {
        assert!(!cluster.nodes[node].log().contains("one of them is wrong"), "node {node}");
    }
}

/// A leader's clock was a month slow, so that its records looked old: after a leader change, retention removed them at
/// once.
#[test]
fn a_leader_behind_the_majority_stamps_the_majority_time() {
    let (shim, cluster) = Shim::cluster(3);
    let client = cluster.client(0);
    let leader = cluster.leader();
    shim.inject_node(&cluster, leader, &Fault::Clock(-MONTH_SECONDS));
    eventually("the leader logs it", || {
        let log = cluster.nodes[leader].log();
        log.contains("behind most of the cluster's").then_some(()).ok_or("not yet".into())
    });
    assert_eq!(cluster.leader(), leader);
    client.produce("", vec![record("now")]).expect("produces");
    let newest = stamp(&read_all(&client));
    assert!(newest + MINUTE_US > wall_us(), "stamped {} s ago", (wall_us() - newest) / 1_000_000);
}

/// A single node that starts with a wrong clock cannot detect it, and stamps records a month ahead. After the clock is
/// corrected, `status` reports it, and records expire by their arrival time. They used to expire a month late.
#[test]
fn records_stamped_ahead_expire_by_their_arrival_time() {
    let site = Site::new();
    let shim = Shim::compile(&site);
    let dir = site.path().join("n1");
    let right = shim.env(&dir, None, 1);
    let mut wrong = right.clone();
    wrong.push(("SHIM_CLOCK".to_owned(), MONTH_SECONDS.to_string()));
    let mut cluster = Cluster::start_at(site, 1, &[], |_| wrong.clone());
    let client = cluster.client(0);
    for _ in 0..3 {
        client.produce("", vec![record("a month ahead")]).expect("produces");
    }
    assert!(cluster.nodes[0].stop().success());
    cluster.nodes[0].set_env(right);
    cluster.nodes[0].start_again();
    let client = cluster.client(0);
    eventually("the node leads", || {
        client.produce("", vec![record("repeats the stamp")]).map(drop).map_err(|e| e.to_string())
    });
    let group = status(&client).expect("a status");
    assert!(group.append_time_ahead.seconds > 29 * 86_400, "{group:?}");
    let cli = |args: &[&str]| {
        let output = cluster.site.cli(&cluster.nodes[0].rpc_addr, args).output().expect("runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let shown = cli(&["status"]);
    assert!(shown.contains("newest timestamp is 29 days ahead of the clock"), "{shown}");
    assert!(cli(&["status", "--verbose"]).contains("seriatim_stamp_ahead_seconds"));
    eventually("the log says so", || {
        let log = cluster.nodes[0].log();
        log.contains("ahead of this node's clock").then_some(()).ok_or("not yet".into())
    });
    assert_eq!(status(&client).expect("a status").first_offset, 0, "no retention is configured yet");
    cli(&["log", "set", "--retention-age", "2s"]);
    eventually("the old records are removed", || {
        let group = status(&client)?;
        (group.first_offset == 4).then_some(()).ok_or(format!("{} of {}", group.first_offset, group.next_offset))
    });
    client.produce("", vec![record("the next")]).expect("produces");
}

/// Appends records and checks which ones retention removes.
struct RetentionWatch<'a> {
    client: &'a Client,
    retention: Duration,
    /// When each record was acknowledged.
    appended: Vec<Instant>,
    removed: usize,
}

impl<'a> RetentionWatch<'a> {
    fn new(client: &'a Client, retention: Duration) -> RetentionWatch<'a> {
        let request = harness::retention(None, Some(retention.as_millis() as u64));
        client.update_log(&request).expect("configured");
        RetentionWatch { client, retention, appended: Vec::new(), removed: 0 }
    }

    /// Appends a record. gRPC keeps a request's deadline by the wall clock, so one that is under way when the clock
    /// jumps may fail: then it was not appended.
    fn append(&self) -> u64 {
        eventually("a record is appended", || match self.client.produce("", vec![record("young")]) {
            Ok(response) => Ok(response.offset),
            Err(error) => {
                assert!(error.to_string().contains("nothing will be done"), "{error}");
                Err(error.to_string())
            }
        })
    }

    /// Asserts for `time` that no record is removed early, and none is kept for much longer than the retention.
    fn check_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let offset = self.append();
            assert_eq!(offset, self.appended.len() as u64);
            self.appended.push(Instant::now());
            let first = self.client.get_log("").expect("a log").position.first_offset as usize;
            for at in &self.appended[self.removed..first] {
                // The record is a little older than its acknowledgement.
                assert!(at.elapsed() > self.retention * 9 / 10, "removed after {:?}", at.elapsed());
            }
            self.removed = first;
            // On a busy machine, retention runs late.
            let oldest = self.appended[first.min(self.appended.len() - 1)].elapsed();
            assert!(oldest < self.retention * 2, "{oldest:?} old");
            // The interval between requests.
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

/// While the leader's clock was a month ahead, timestamps were right, but the age of records was measured with the
/// wrong clock. It grew at twice the speed of time, until each record was removed within a second.
#[test]
fn no_record_expires_early_while_the_leader_clock_is_ahead() {
    const RETENTION: Duration = Duration::from_secs(6);
    let (shim, cluster) = Shim::cluster(1);
    let client = cluster.client(0);
    let mut watched = RetentionWatch::new(&client, RETENTION);
    shim.inject_node(&cluster, 0, &Fault::Clock(MONTH_SECONDS));
    watched.check_for(3 * RETENTION);
    assert!(watched.removed > 0, "records still expire");
}

/// A node was started with a clock that was a month ahead, and no record expired. After the clock was corrected,
/// records were removed every second or two, the youngest half a second old.
#[test]
fn no_record_expires_early_after_a_clock_is_corrected() {
    const RETENTION: Duration = Duration::from_secs(6);
    let site = Site::new();
    let shim = Shim::compile(&site);
    let dir = site.path().join("n1");
    let mut env = shim.env(&dir, None, 1);
    env.push(("SHIM_CLOCK".to_owned(), MONTH_SECONDS.to_string()));
    let cluster = Cluster::start_at(site, 1, &[], |_| env.clone());
    let client = cluster.client(0);
    let mut watched = RetentionWatch::new(&client, RETENTION);
    watched.check_for(2 * RETENTION);
    assert!(watched.removed > 0, "records expire while the clock is ahead");
    shim.inject(&dir, &Fault::Clock(0));
    watched.check_for(2 * RETENTION);
}
