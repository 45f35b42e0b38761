//! Wall clocks that are wrong by a month: a leader's for the duration of one record, or a node's from its start.

use std::time::{Duration, Instant};

use seriatim::client::Client;
use seriatim::pb::admin::{ConfigureLogRequest, GroupStatus};
use seriatim::pb::log::Record;

use crate::harness::{Cluster, Site, eventually, read_all, record};
use crate::shim::{Fault, Shim};

const MONTH_SECONDS: i64 = 30 * 86_400;
const MINUTE_US: u64 = 60_000_000;

fn status(client: &Client) -> Result<GroupStatus, String> {
    let node = client.get_node().map_err(|e| e.to_string())?;
    node.groups.into_iter().find(|group| group.group == 1).ok_or("no group".into())
}

fn wall_us() -> u64 {
    seriatim::clock::wall_us()
}

fn stamp(records: &[Record]) -> u64 {
    records.last().expect("a record").append_time_us
}

/// The leader's clock was wrong for the duration of one record. That record and all later ones, of every leader, had a wrong
/// timestamp; no record expired for that long, and there was no warning.
#[test]
fn a_clock_jump_does_not_reach_timestamps() {
    let (shim, cluster) = Shim::cluster(1);
    let client = cluster.client(0);
    client.produce("", vec![record("before")]).expect("produces");
    shim.inject_node(&cluster, 0, &Fault::Clock(MONTH_SECONDS));
    eventually("the jump is noticed", || {
        client.produce("", vec![record("meanwhile")]).map_err(|e| e.to_string())?;
        let log = cluster.nodes[0].log();
        log.contains("clock has jumped").then_some(()).ok_or("not yet".into())
    });
    shim.inject_node(&cluster, 0, &Fault::Clock(0));
    eventually("it is over", || {
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

/// With three nodes the majority's clocks bound the leader's, whether it jumps or is wrong from the start of its process.
#[test]
fn a_leader_ahead_of_the_majority_stamps_the_majority_time() {
    let (shim, cluster) = Shim::cluster(3);
    let client = cluster.client(0);
    client.produce("", vec![record("before")]).expect("produces");
    let leader = cluster.leader();
    shim.inject_node(&cluster, leader, &Fault::Clock(MONTH_SECONDS));
    eventually("it is noticed", || {
        client.produce("", vec![record("meanwhile")]).map_err(|e| e.to_string())?;
        let log = cluster.nodes[leader].log();
        log.contains("ahead of most of the cluster's").then_some(()).ok_or("not yet".into())
    });
    assert_eq!(cluster.leader(), leader);
    client.produce("", vec![record("and on")]).expect("produces");
    for client in cluster.clients() {
        let newest = stamp(&read_all(&client));
        assert!(newest < wall_us() + MINUTE_US, "stamped {} s ahead", (newest - wall_us()) / 1_000_000);
    }
    // Followers receive only the leader's clock: they know that one of the two is wrong.
    for node in (0..3).filter(|node| *node != leader) {
        eventually("the others say so, too", || {
            let log = cluster.nodes[node].log();
            log.contains("one of them is wrong").then_some(()).ok_or("not yet".into())
        });
    }
}

/// A leader's clock was late, and its records looked a month old: after a change of leader, retention removed them at once.
#[test]
fn a_leader_behind_the_majority_stamps_the_majority_time() {
    let (shim, cluster) = Shim::cluster(3);
    let client = cluster.client(0);
    let leader = cluster.leader();
    shim.inject_node(&cluster, leader, &Fault::Clock(-MONTH_SECONDS));
    eventually("it is noticed", || {
        let log = cluster.nodes[leader].log();
        log.contains("behind most of the cluster's").then_some(()).ok_or("not yet".into())
    });
    assert_eq!(cluster.leader(), leader);
    client.produce("", vec![record("now")]).expect("produces");
    let newest = stamp(&read_all(&client));
    assert!(newest + MINUTE_US > wall_us(), "stamped {} s ago", (wall_us() - newest) / 1_000_000);
}

/// A single node was started with a wrong clock, which it could not detect, and gave records wrong timestamps. Once the clock is
/// corrected, the status reports it, and records expire by the time of their arrival. Before, none expired for a month.
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
    eventually("it leads", || {
        client.produce("", vec![record("repeats the stamp")]).map(drop).map_err(|e| e.to_string())
    });
    let group = status(&client).expect("a status");
    assert!(group.stamp_ahead_ms > 29 * 86_400_000, "{}", group.stamp_ahead_ms);
    let cli = |args: &[&str]| {
        let output = cluster.site.cli(&cluster.nodes[0].rpc_addr, args).output().expect("runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let shown = cli(&["status"]);
    assert!(shown.contains("newest timestamp is 29 days ahead of the clock"), "{shown}");
    assert!(cli(&["status", "--verbose"]).contains("seriatim_stamp_ahead_ms_now"));
    eventually("the log says so", || {
        let log = cluster.nodes[0].log();
        log.contains("ahead of this node's clock").then_some(()).ok_or("not yet".into())
    });
    assert_eq!(status(&client).expect("a status").first_offset, 0, "nothing is limited yet");
    cli(&["log", "configure", "--retention-age", "2s"]);
    eventually("what arrived goes", || {
        let group = status(&client)?;
        (group.first_offset == 4).then_some(()).ok_or(format!("{} of {}", group.first_offset, group.next_offset))
    });
    client.produce("", vec![record("the next")]).expect("produces");
}

/// Appends records and looks at what retention removes.
struct Watched<'a> {
    client: &'a Client,
    retention: Duration,
    /// When each record was acknowledged.
    appended: Vec<Instant>,
    removed: usize,
}

impl<'a> Watched<'a> {
    fn new(client: &'a Client, retention: Duration) -> Watched<'a> {
        let retention_ms = Some(retention.as_millis() as u64);
        let request = ConfigureLogRequest { log: "default".into(), retention_ms, ..ConfigureLogRequest::default() };
        client.configure_log(&request).expect("configured");
        Watched { client, retention, appended: Vec::new(), removed: 0 }
    }

    /// No record goes early, and none stays for long.
    fn goes_on_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let offset = self.client.produce("", vec![record("young")]).expect("produces").offset;
            assert_eq!(offset, self.appended.len() as u64);
            self.appended.push(Instant::now());
            let first = self.client.get_log("").expect("a log").first_offset as usize;
            for at in &self.appended[self.removed..first] {
                // Its acknowledgement took a moment.
                assert!(at.elapsed() > self.retention * 9 / 10, "removed after {:?}", at.elapsed());
            }
            self.removed = first;
            // A machine with too much to do is late.
            let oldest = self.appended[first.min(self.appended.len() - 1)].elapsed();
            assert!(oldest < self.retention * 2, "{oldest:?} old");
            // The pace of a client.
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

/// While the leader's clock was a month ahead its timestamps were right, but the age of records was measured with the wrong
/// clock: at twice the speed of time, until each record was removed within a second.
#[test]
fn no_record_expires_early_while_the_leader_clock_is_ahead() {
    const RETENTION: Duration = Duration::from_secs(6);
    let (shim, cluster) = Shim::cluster(1);
    let client = cluster.client(0);
    let mut watched = Watched::new(&client, RETENTION);
    shim.inject_node(&cluster, 0, &Fault::Clock(MONTH_SECONDS));
    watched.goes_on_for(3 * RETENTION);
    assert!(watched.removed > 0, "records expire all the same");
}

/// A node was started with a clock that was a month ahead: no record expired. The clock was set right: records were removed
/// every second or two, the youngest half a second old.
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
    let mut watched = Watched::new(&client, RETENTION);
    watched.goes_on_for(2 * RETENTION);
    assert!(watched.removed > 0, "records expire while the clock is ahead");
    shim.inject(&dir, &Fault::Clock(0));
    watched.goes_on_for(2 * RETENTION);
}
