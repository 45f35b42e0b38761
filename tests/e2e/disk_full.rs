//! A full disk: the data directory is a tmpfs of 64 MiB.
//!
//! Produce requests are refused and certainly not appended, reads and trims still work, and appends resume within ten seconds after
//! space is free again (RELIABILITY L14). Needs root to mount; otherwise the tests are skipped with a message.
//! `SERIATIM_TEST_TMPFS=required` (CI) makes that a failure. `make disk-full RUNS=20` fills and trims that many times.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use seriatim::client::{Client, Outcome as ErrorOutcome};
use seriatim::pb::v1::DiskState;

use crate::harness::{Cluster, Site, eventually, memory_bytes, read_all, record, wait_for_voters};
use crate::load::{Random, StopOnDrop};
use crate::tmpfs::{Tmpfs, fill};

/// What is skipped without root.
const WHAT: &str = "a full disk";

/// The time in which appends must resume.
const RESUME_MAX: Duration = Duration::from_secs(10);

#[test]
fn a_disk_filled_under_load_resumes_after_a_trim() {
    let rounds = std::env::var("SERIATIM_TEST_FULL_ROUNDS").map_or(3, |rounds| rounds.parse().expect("a number"));
    let site = Site::new();
    let Some(_tmpfs) = Tmpfs::mount(WHAT, &site.path().join("n1"), 64) else { return };
    let cluster = Cluster::start_at(site, 1, &[], |_| Vec::new());
    let client = cluster.client(0);
    let mut random = Random::from_env(&format!("a tmpfs of 64 MiB, filled {rounds} times"));
    let ledger = Ledger::default();
    let stop = AtomicBool::new(false);
    let mut memory = Vec::new();
    std::thread::scope(|scope| {
        let (ledger, stop) = (&ledger, &stop);
        let _ending = StopOnDrop(stop);
        for producer in 0..4 {
            let (random, client) = (Random::new(random.next()), cluster.client(0));
            scope.spawn(move || produce(producer, &client, random, ledger, stop));
        }
        for round in 1..=rounds {
            wait_for_disk(&client, DiskState::DISK_STATE_FULL);
            let refused = ledger.refused();
            eventually("appends are refused", || (ledger.refused() > refused + 4).then_some(()).ok_or("none".into()));
            memory.push(memory_bytes(cluster.nodes[0].pid()) >> 10);
            ledger.compare(&client);
            let log = client.get_log("").expect("reads still work");
            // Sometimes some records are kept.
            let keep = if random.below(3) == 0 { random.below(200) } else { 0 };
            let first = log.position.next_offset.saturating_sub(keep).max(log.position.first_offset);
            let acknowledged = ledger.last();
            let trimmed = client.trim("", first).expect("a trim works on a full disk");
            assert_eq!(trimmed.log.position.first_offset, first);
            let begin = Instant::now();
            eventually("appends resume", || (ledger.last() > acknowledged).then_some(()).ok_or("not yet".into()));
            assert!(begin.elapsed() < RESUME_MAX, "it took {:?} to resume", begin.elapsed());
            eprintln!("round {round}: trimmed to {first}, {:?} until the next record, {memory:?} KiB", begin.elapsed());
        }
    });
    ledger.compare(&client);
    assert_eq!(ledger.refused_but_present(&client), 0);
    let (early, last) = (memory[memory.len() / 2], memory[memory.len() - 1]);
    assert!(last < early + early / 4 + (16 << 10), "memory grows: {memory:?} KiB");
    let log = cluster.nodes[0].log();
    assert!(log.contains("is full: ") && log.contains("bytes free again"), "{log}");
    assert!(!log.contains("the reserve file is released"), "the reserve file was not needed: {log}");
}

/// Other programs use the last free byte. The node continues with its reserve file, and can also restart.
#[test]
fn a_disk_filled_by_others_still_serves_reads_and_trims() {
    let site = Site::new();
    let dir = site.path().join("n1");
    let Some(_tmpfs) = Tmpfs::mount(WHAT, &dir, 64) else { return };
    let mut cluster = Cluster::start_at(site, 1, &[], |_| Vec::new());
    let client = cluster.client(0);
    let values: Vec<String> = (0..100).map(|n| format!("{n}-{}", "x".repeat(20_000))).collect();
    for value in &values {
        client.produce("", vec![record(value)]).expect("the disk is not full yet");
    }
    let foreign = dir.join("groups/foreign");
    fill(&foreign);
    wait_for_disk(&client, DiskState::DISK_STATE_FULL);
    let error = client.produce("", vec![record("one more")]).expect_err("full");
    let status = error.status().expect("a status");
    assert_eq!((status.code.to_string().as_str(), status.reason.as_str()), ("8-RESOURCE_EXHAUSTED", "DISK_FULL"));
    assert!(error.outcome() == ErrorOutcome::None && status.retry_after.is_some(), "{status}");
    let output = cluster.site.cli(&cluster.nodes[0].rpc_addr, &["status"]).output().expect("runs");
    assert!(String::from_utf8_lossy(&output.stdout).contains("DISK FULL"), "{output:?}");

    // Each start writes a term and a vote. The second time, the reserve file may be missing.
    for _ in 0..2 {
        cluster.nodes[0].kill();
        cluster.nodes[0].start_again();
        wait_for_voters(&cluster.clients());
        fill(&foreign);
    }
    let client = cluster.client(0);
    wait_for_disk(&client, DiskState::DISK_STATE_FULL);
    let found: Vec<String> = read_all(&client).iter().map(|r| String::from_utf8_lossy(&r.value).into_owned()).collect();
    assert_eq!(found, values, "every record can be read");
    assert_eq!(client.trim("", 50).expect("a trim is accepted").log.position.first_offset, 50);
    assert_eq!(client.produce("", vec![record("no")]).expect_err("full").outcome(), ErrorOutcome::None);

    fs::remove_file(&foreign).expect("space is freed");
    let begin = Instant::now();
    let offset = eventually("appends resume", || {
        client.produce("", vec![record("again")]).map(|answer| answer.offset).map_err(|e| e.to_string())
    });
    assert!(begin.elapsed() < RESUME_MAX, "it took {:?}", begin.elapsed());
    assert_eq!(offset, 100, "refused records are not in the log");
    eventually("the reserve file is created again", || {
        let disk = client.get_node().map_err(|e| e.to_string())?.disk;
        disk.reserve.then_some(()).ok_or(format!("{disk:?}"))
    });
}

/// A follower on a full disk does not acknowledge entries that it could not write: the others continue without it, and it catches
/// up after a trim.
#[test]
fn a_follower_on_a_full_disk_lags_and_catches_up() {
    let site = Site::new();
    let Some(_tmpfs) = Tmpfs::mount(WHAT, &site.path().join("n3"), 64) else { return };
    let mut cluster = Cluster::start_at(site, 3, &["--segment-bytes=1MiB"], |_| Vec::new());
    if cluster.leader() == 2 {
        // It hands leadership over, and starts as a follower.
        assert!(cluster.nodes[2].stop().success());
        cluster.nodes[2].start_again();
        wait_for_voters(&cluster.clients());
    }
    let leader = cluster.client(cluster.leader());
    let value = "y".repeat(1_000_000);
    for _ in 0..90 {
        leader.produce("", vec![record(&value)]).expect("two of three can append");
    }
    let third = cluster.client(2);
    wait_for_disk(&third, DiskState::DISK_STATE_FULL);
    let next = |client: &Client| {
        let node = client.get_node().map_err(|e| e.to_string())?;
        node.groups.iter().find(|g| g.log == "default").map(|g| g.next_offset).ok_or("no log".to_owned())
    };
    let stored = next(&third).expect("a response");
    assert!(stored < 70, "64 MiB can't hold {stored} records of 1 MB");
    assert_eq!(leader.trim("", 90).expect("trims").log.position.first_offset, 90);
    let begin = Instant::now();
    eventually("the follower catches up", || {
        next(&third).and_then(|n| (n >= 90).then_some(()).ok_or(format!("{n} records")))
    });
    eprintln!("caught up {:?} after the trim", begin.elapsed());
    let offset = leader.produce("", vec![record("after")]).expect("produces").offset;
    assert_eq!(third.consume_at("", offset).expect("reads").value, "after");
    wait_for_disk(&third, DiskState::DISK_STATE_ENOUGH);
}

/// Every record that was acknowledged, and the labels of those that were refused.
#[derive(Default)]
struct Ledger {
    acknowledged: Mutex<BTreeMap<u64, String>>,
    refused: Mutex<BTreeSet<String>>,
    refusals: AtomicUsize,
}

impl Ledger {
    fn refused(&self) -> usize {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Returns the last acknowledged offset.
    fn last(&self) -> u64 {
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        acknowledged.last_key_value().map_or(0, |(offset, _)| *offset)
    }

    /// Asserts that each acknowledged record that is not trimmed is in the log once, at its acknowledged offset.
    #[track_caller]
    fn compare(&self, client: &Client) {
        let known = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let records = read_all(client);
        let first = records.first().map_or(u64::MAX, |record| record.offset);
        let mut labels = BTreeSet::new();
        for (record, offset) in records.iter().zip(first..) {
            assert_eq!(record.offset, offset, "no gap");
            assert!(labels.insert(label_of(&record.value)), "twice: {:?}", label_of(&record.value));
        }
        for (offset, label) in known.range(client.get_log("").expect("a log").position.first_offset..) {
            let found = offset.checked_sub(first).and_then(|at| records.get(at as usize));
            let found = found.map(|record| label_of(&record.value));
            assert_eq!(found.as_ref(), Some(label), "acknowledged at {offset}");
        }
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).retain(|offset, _| *offset >= first);
    }

    /// Counts the refused records that are in the log.
    fn refused_but_present(&self, client: &Client) -> usize {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        read_all(client).iter().filter(|record| refused.contains(&label_of(&record.value))).count()
    }
}

/// Returns a value: a label, the length of the padding, and the padding.
fn value(label: &str, padding: u64) -> String {
    format!("{label}-{padding}-{}", "z".repeat(padding as usize))
}

/// Returns the label of a value, and asserts that the value is complete.
#[track_caller]
fn label_of(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).expect("text");
    let (rest, padding) = text.rsplit_once('-').expect("a value");
    let (_, length) = rest.rsplit_once('-').expect("a length");
    assert!(length.parse() == Ok(padding.len()) && padding.bytes().all(|b| b == b'z'), "incomplete: {rest}");
    rest.to_owned()
}

fn produce(producer: usize, client: &Client, mut random: Random, ledger: &Ledger, stop: &AtomicBool) {
    for request in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let count = 1 + random.below(4);
        let padding = random.below(30_000);
        let values: Vec<String> = (0..count).map(|n| value(&format!("{producer}-{request}-{n}"), padding)).collect();
        let labels = values.iter().map(|v| label_of(v.as_bytes()));
        match client.produce("", values.iter().map(record).collect()) {
            Ok(answer) => {
                let mut acknowledged = ledger.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                acknowledged.extend((answer.offset..).zip(labels));
            }
            Err(error) => {
                let status = error.status().unwrap_or_else(|| panic!("{error}"));
                assert_eq!(status.reason, "DISK_FULL", "{status}");
                assert_eq!(error.outcome(), ErrorOutcome::None);
                ledger.refused.lock().unwrap_or_else(PoisonError::into_inner).extend(labels);
                ledger.refusals.fetch_add(1, Ordering::Relaxed);
                // A client that respects retry_after.
                std::thread::sleep(status.retry_after.expect("when to try again"));
            }
        }
    }
}

#[track_caller]
fn wait_for_disk(client: &Client, state: DiskState) {
    eventually("the disk's state", || {
        let disk = client.get_node().map_err(|e| e.to_string())?.disk;
        (disk.state.enum_value() == Ok(state)).then_some(()).ok_or(format!("{disk:?}"))
    });
}
