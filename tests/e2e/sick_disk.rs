//! Disk failures under a real process: the process exits and logs the reason, acknowledges nothing after the failure,
//! and has every acknowledged record after the next start (RELIABILITY L13 and L19, guarantee P7).

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use seriatim::pb::v1::ProduceRequest;

use crate::harness::{Cluster, Site, TIMEOUT, eventually, print_uncaptured, record, wait_for_voters};
use crate::load::{Random, check, under_load};
use crate::shim::{Fault, Shim};

const SIGABRT: i32 = 6;

/// The write to a segment fails. A write to an index file may fail, because an index is rebuilt.
#[test]
fn a_write_error_stops_the_process() {
    let (status, log) = fail_under_load(&Fault::WriteError(".seg"));
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("cannot write") && log.contains("Input/output error"), "{log}");
    assert!(log.contains("thread consensus failed"), "{log}");
}

/// The shim drops the data of the failed sync, as Linux may do: a second sync would succeed and lose it.
#[test]
fn a_failed_sync_is_final() {
    let (status, log) = fail_under_load(&Fault::SyncError("groups/1/0"));
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("cannot sync") && log.contains("Input/output error"), "{log}");
    assert!(log.contains("thread log-writer-1 failed"), "{log}");
}

#[test]
fn a_failed_manifest_sync_stops_the_process() {
    let (status, log) = fail_under_load(&Fault::SyncError("manifest"));
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("cannot sync") && log.contains("manifest"), "{log}");
}

/// `data verify` reported damage, but the start failed with exit code 1, so that systemd retried it forever.
#[test]
fn an_unreadable_sector_at_startup_is_reported_as_damage() {
    let site = Site::new();
    let shim = Shim::compile(&site);
    let dir = site.path().join("n1");
    let mut cluster = Cluster::start_at(site, 1, &[], |_| shim.env(&dir, None, 7));
    cluster.client(0).produce("", vec![record("a")]).expect("produces");
    assert!(cluster.nodes[0].stop().success());
    // One of a log stops only this log.
    shim.inject(&dir, &Fault::ReadError("groups/1/0", 0));
    cluster.nodes[0].start_again();
    let node = cluster.client(0).get_node().expect("a node");
    let damage = node.groups.into_iter().map(|group| group.damage).find(|damage| !damage.is_empty());
    assert!(damage.as_ref().is_some_and(|text| text.contains("Input/output error")), "{damage:?}");
    assert!(cluster.nodes[0].stop().success());
    // One of the catalog stops the node.
    shim.inject(&dir, &Fault::ReadError("groups/0/0", 0));
    let status = cluster.nodes[0].try_start_again().expect_err("the sector can't be read");
    let log = cluster.nodes[0].log();
    assert_eq!(status.code(), Some(65), "{log}");
    assert!(log.contains("Input/output error") && log.contains("`seriatim data verify` reads all files"), "{log}");
}

/// Normally the node refuses appends before the disk is full. Here the disk is full without a warning.
#[test]
fn an_unexpected_disk_full_error_stops_the_process() {
    let (status, log) = fail_under_load(&Fault::WriteFull("groups/1/0"));
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("the reserve file is released"), "{log}");
    assert!(log.contains("no space left") && log.contains("free some"), "{log}");
}

#[test]
fn a_hanging_sync_aborts_the_process() {
    let begin = Instant::now();
    let (status, log) = fail_under_load(&Fault::SyncHang("groups/1/0"));
    assert_eq!(status.signal(), Some(SIGABRT), "{log}");
    assert!(log.contains("thread log-writer-1 hangs"), "{log}");
    assert!(begin.elapsed() < TIMEOUT, "not long after hang_max");
}

/// A shutdown waits for running syncs, but not forever.
#[test]
fn a_shutdown_on_a_hanging_disk_aborts_the_process() {
    let site = Site::new();
    let shim = Shim::compile(&site);
    let dir = site.path().join("n1");
    let mut cluster = Cluster::start_at(site, 1, &["--hang-seconds-max=5"], |_| shim.env(&dir, None, 7));
    let client = cluster.client(0);
    let node = &mut cluster.nodes[0];
    shim.inject(&dir, &Fault::SyncHang(".seg"));
    let mut unanswered = Vec::new();
    eventually("a sync hangs", || {
        let mut calls = client.produce_stream().map_err(|e| e.to_string())?;
        calls.send(ProduceRequest { records: vec![record("a")], ..ProduceRequest::default() });
        unanswered.push(calls);
        node.log().contains("shim: a sync hangs").then_some(()).ok_or("none yet".into())
    });
    node.terminate();
    let status = node.wait();
    assert_eq!(status.signal(), Some(SIGABRT), "{}", node.log());
    assert!(node.log().contains("the stop hangs in step \"syncing the logs\""), "{}", node.log());
}

/// The leader is killed while every sync takes half a second. No other node was elected: the syncs of a candidate and
/// of a voter took longer than the election timeout, and each vote also wrote a manifest, which takes two more syncs.
/// `SERIATIM_TEST_SYNC_MILLIS` sets another delay.
#[test]
fn slow_disks_elect_a_leader() {
    let millis = std::env::var("SERIATIM_TEST_SYNC_MILLIS").map_or(500, |millis| millis.parse().expect("a number"));
    let (shim, mut cluster) = Shim::cluster(3);
    cluster.client(0).produce("", vec![record("before")]).expect("produces");
    let lost = cluster.leader();
    let dirs: Vec<_> = (1..=3).map(|n| cluster.site.path().join(format!("n{n}"))).collect();
    dirs.iter().for_each(|dir| shim.inject(dir, &Fault::SyncSlow(millis)));
    eventually("the disks are slow", || {
        let injected = dirs.iter().all(|dir| !dir.with_extension("control").exists());
        injected.then_some(()).ok_or("not yet".into())
    });
    cluster.nodes[lost].kill();
    let killed = Instant::now();
    let client = cluster.client((lost + 1) % 3);
    eventually("another node leads", || client.produce("", vec![record("after")]).map(drop).map_err(|e| e.to_string()));
    print_uncaptured(&format!(
        "syncs of {millis} ms: a record is acknowledged {:.1?} after the leader was killed",
        killed.elapsed()
    ));
}

/// Injects a fault into one node under load, starts the node again, and runs the checks of `load.rs`. Returns the
/// node's exit status and its log until then.
fn fail_under_load(fault: &Fault<'_>) -> (ExitStatus, String) {
    let mut random = Random::from_env("one node with a failing disk");
    let site = Site::new();
    let shim = Shim::compile(&site);
    let dir = site.path().join("n1");
    // Small segments, so that manifests are written.
    let more = ["--segment-bytes=262144", "--hang-seconds-max=2"];
    let mut cluster = Cluster::start_at(site, 1, &more, |_| shim.env(&dir, None, 7));
    let addrs = [cluster.nodes[0].rpc_addr.clone()];
    let (site, node) = (&cluster.site, &mut cluster.nodes[0]);
    let client = site.client(&addrs[0], "root");
    let wait_for_records = |more: u64| {
        let from = std::cell::Cell::new(None);
        eventually("there is load", || {
            client.wait_connected(Duration::from_millis(100));
            let next = client.get_log("").map_err(|e| e.to_string())?.position.next_offset;
            let first = from.get().unwrap_or(next);
            from.set(Some(first));
            (next >= first + more).then_some(()).ok_or(format!("{next} records"))
        });
    };
    let (sent, outcome) = under_load(site, &addrs, &mut random, |_| {
        wait_for_records(200);
        shim.inject(&dir, fault);
        let status = node.wait();
        let log = node.log();
        node.start_again();
        wait_for_records(50);
        (status, log)
    });
    wait_for_voters(&cluster.clients());
    check(&cluster, &sent);
    outcome
}
