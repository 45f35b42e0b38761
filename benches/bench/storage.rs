//! Figures that depend on the disk: appends, reads with a cold page cache, and starts with a large log.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use seriatim::storage::disk::Disk;
use seriatim::storage::entry::{Entry, EntryKind, Stamp};
use seriatim::storage::log::{Genesis, GroupLog, HardState, LogOptions, LogState};
use seriatim::types::{GroupId, NodeId};

use super::figures::{Bench, Pair, consume_all, fill};
use super::raw::{RawFile, drop_from_page_cache, read_rate};
use super::report::{Row, Target};

pub fn run(bench: &mut Bench) {
    append(bench);
    cold(bench);
    start(bench);
}

/// Compares an append of the storage layer with a write and a sync of the same bytes.
fn append(bench: &mut Bench) {
    const BYTES: usize = 1 << 20;
    let home = tempfile::tempdir().expect("a folder");
    let (disk, group, options) = (Disk::real(), GroupId(1), LogOptions::default());
    GroupLog::create(&disk, home.path(), group, &options, Genesis::Founder(NodeId(1))).expect("made");
    let (mut log, _) = GroupLog::open(&disk, home.path(), group, &options).expect("opened");
    let block = vec![7; BYTES];
    let turn = bench.turn;
    bench.compare(
        "storage: append of 1 MiB batches, a sync each",
        "MB/s",
        Target::AtLeast(0.8),
        || RawFile::create(home.path(), 1 << 30).rate(&block, turn),
        || {
            let begin = Instant::now();
            let mut bytes = 0;
            while begin.elapsed() < turn {
                let bounds = log.bounds();
                let (base_offset, count) = (bounds.next_offset, 1000);
                let (kind, append_time_us) = (EntryKind::Records, 1);
                let stamp = Stamp { kind, count, base_offset, append_time_us, producer_id: 0, sequence: 0 };
                let entry = Entry::new(bounds.last_index.next(), bounds.last_term, stamp, &block);
                log.append(&[entry]).expect("appends");
                let job = log.begin_sync().expect("something to sync");
                job.perform(&disk).expect("syncs");
                log.end_sync(job);
                bytes += BYTES;
            }
            let rate = bytes as f64 / 1e6 / begin.elapsed().as_secs_f64();
            // Free the space for the next turn.
            let bounds = log.bounds();
            log.append_hard_state(&HardState { term: bounds.last_term, vote: None, commit: bounds.last_index })
                .expect("appends");
            log.set_log_state(LogState { first_offset: bounds.next_offset, last_append_time_us: 1 }, bounds.last_index);
            log.trim(bounds.next_offset, bounds.last_index).expect("trims");
            let job = log.begin_sync().expect("something to sync");
            job.perform(&disk).expect("syncs");
            log.end_sync(job);
            rate
        },
    );
}

/// Opens every segment of the node.
fn segments(pair: &Pair) -> Vec<File> {
    let groups = pair.cluster.site.path().join("n1").join("groups");
    let mut files = Vec::new();
    collect(&groups, &mut files);
    files
}

fn collect(dir: &Path, files: &mut Vec<File>) {
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "seg") {
            files.push(File::open(path).expect("a segment"));
        }
    }
}

fn cold(bench: &mut Bench) {
    let name = "consume: catching up, cold cache";
    if !bench.wants(name) {
        return;
    }
    let pair = Pair::start();
    fill(&pair, 512);
    let request = consume_all(1 << 20);
    bench.compare(
        name,
        "MB/s",
        Target::AtLeast(0.8),
        || {
            let files = segments(&pair);
            drop_from_page_cache(&files);
            read_rate(&files)
        },
        || {
            drop_from_page_cache(&segments(&pair));
            pair.node.download(request.clone()).rate()
        },
    );
}

/// Appends until the newest segment is half full. A start reads that segment, so it should be equally long in both logs.
fn fill_half_a_segment(pair: &Pair) {
    let before = segments(pair).len();
    while segments(pair).len() == before {
        fill(pair, 1);
    }
    fill(pair, 32);
}

/// Measures the time from process start to `ready`, with a small and with a large log. The newest segment is in the page cache.
fn start(bench: &mut Bench) {
    let name = "start: 16 GiB against 1 GiB of log";
    if !bench.wants(name) {
        return;
    }
    let gib = std::env::var("SERIATIM_BENCH_START_GIB").map_or(16, |n| n.parse().expect("a number"));
    let mut pair = Pair::start();
    let mut row = Row::new(name, "ms", Target::Under(100.0));
    fill(&pair, 1024);
    fill_half_a_segment(&pair);
    let small = starts(&mut pair, bench.rounds);
    fill(&pair, (gib - 1) << 10);
    fill_half_a_segment(&pair);
    let large = starts(&mut pair, bench.rounds);
    for (small, large) in small.into_iter().zip(large) {
        row.ceiling.push(small);
        row.ours.push(large);
        row.ratio.push(large / small);
    }
    row.note = format!("{gib} GiB beside 1 GiB; process start to ready, page cache warm, the newest segment half full");
    bench.add(row);
}

fn starts(pair: &mut Pair, rounds: usize) -> Vec<f64> {
    let mut times = Vec::new();
    for round in 0..=rounds {
        pair.cluster.nodes[0].stop();
        let begin = Instant::now();
        pair.cluster.nodes[0].start_again();
        let took: Duration = begin.elapsed();
        if round > 0 {
            times.push(took.as_secs_f64() * 1e3);
        }
    }
    pair.reconnect();
    times
}
