//! Figures that depend on the disk: appends, reads with a cold page cache, and starts with a large log.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use seriatim::storage::disk::Disk;
use seriatim::storage::entry::{Entry, EntryKind, Stamp};
use seriatim::storage::log::{Genesis, GroupLog, HardState, LogOptions, LogState};
use seriatim::types::{GroupId, LogIndex, Offset, ReplicaId};

use super::figures::{Bench, Pair, consume_all, fill};
use super::harness::memory_bytes;
use super::raw::{RawFile, drop_from_page_cache, read_rate};
use super::report::{Row, Target};

pub fn run(bench: &mut Bench) {
    append(bench);
    many_logs(bench);
    cold(bench);
    start(bench);
}

/// Compares an append of the storage layer with a write and a sync of the same bytes.
fn append(bench: &mut Bench) {
    const BYTES: usize = 1 << 20;
    let home = tempfile::tempdir().expect("a folder");
    let (disk, group, options) = (Disk::real(), GroupId(1), LogOptions::default());
    GroupLog::create(&disk, home.path(), group, &options, Genesis::founder(ReplicaId(1))).expect("made");
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
            log.set_log_state(
                LogState { first_offset: bounds.next_offset, last_append_time_us: 1, ..LogState::default() },
                bounds.last_index,
            );
            log.trim(bounds.next_offset, bounds.last_index).expect("trims");
            let job = log.begin_sync().expect("something to sync");
            job.perform(&disk).expect("syncs");
            log.end_sync(job);
            rate
        },
    );
}

/// Measures what logs cost that nobody uses: each contains one small record, and was synced and closed.
fn many_logs(bench: &mut Bench) {
    if !bench.wants("storage: logs") {
        return;
    }
    let logs = std::env::var("SERIATIM_BENCH_LOGS").map_or(1000, |n| n.parse().expect("a number"));
    let home = tempfile::tempdir().expect("a folder");
    let (disk, options) = (Disk::real(), LogOptions::default());
    let groups = || (1..=logs).map(GroupId);
    let begin = Instant::now();
    for group in groups() {
        GroupLog::create(&disk, home.path(), group, &options, Genesis::founder(ReplicaId(1))).expect("made");
    }
    let of = format!("of {logs} logs");
    let each = begin.elapsed().as_secs_f64() * 1e3 / logs as f64;
    bench.add_single("storage: logs, to create one", "ms", Target::None, each, &of);
    for group in groups() {
        let (mut log, _) = GroupLog::open(&disk, home.path(), group, &options).expect("opened");
        let bounds = log.bounds();
        let (kind, base_offset) = (EntryKind::Records, bounds.next_offset);
        let stamp = Stamp { kind, count: 1, base_offset, append_time_us: 1, producer_id: 0, sequence: 0 };
        log.append(&[Entry::new(bounds.last_index.next(), bounds.last_term, stamp, &[7; 100])]).expect("appends");
        log.close().expect("synced");
    }
    let bytes: u64 = groups().map(|group| allocated(&home.path().join(group.to_string()))).sum();
    let each = bytes as f64 / 1024.0 / logs as f64;
    bench.add_single("storage: logs, disk space of one", "KiB", Target::None, each, "with one small record");
    let memory = || memory_bytes(std::process::id()) as f64 / f64::from(1 << 20);
    let descriptors = || std::fs::read_dir("/proc/self/fd").expect("listed").count();
    let (before, open_before, begin) = (memory(), descriptors(), Instant::now());
    let open = GroupLog::open_all(&disk, home.path(), groups(), &options);
    let took = begin.elapsed().as_secs_f64() * 1e3;
    bench.add_single("storage: logs, to open all", "ms", Target::Under(1000.0), took, &of);
    let note = format!("RssAnon {of}; {} descriptors", descriptors() - open_before);
    bench.add_single("storage: logs, memory", "MiB", Target::Under(40.0), memory() - before, &note);
    // Logs that are busy and then idle again must not keep the memory of their busiest moment.
    let mut open: Vec<_> = open.into_iter().map(|log| log.expect("opened")).collect();
    for (log, _) in &mut open {
        for batch in [1, 1, 200, 1000] {
            let first = log.bounds();
            let entries: Vec<Entry> = (0..batch)
                .map(|n| {
                    let (kind, base_offset) = (EntryKind::Records, Offset(first.next_offset.0 + n));
                    let stamp = Stamp { kind, count: 1, base_offset, append_time_us: 1, producer_id: 0, sequence: 0 };
                    Entry::new(LogIndex(first.last_index.0 + 1 + n), first.last_term, stamp, &[7; 200])
                })
                .collect();
            log.append(&entries).expect("appends");
        }
        let bounds = log.bounds();
        log.append_hard_state(&HardState { term: bounds.last_term, vote: None, commit: bounds.last_index })
            .expect("appends");
        log.set_applied(bounds.last_index);
        let job = log.begin_sync().expect("something to sync");
        job.perform(&disk).expect("syncs");
        log.end_sync(job);
    }
    let busy = memory() - before;
    open.iter_mut().for_each(|(log, _)| log.rest());
    // SAFETY: it releases only pages that hold no allocation. A node returns free memory, too (`src/free_memory.rs`).
    unsafe { libc::malloc_trim(0) };
    bench.add_single(
        "storage: logs, memory after use",
        "MiB",
        Target::Under(40.0),
        memory() - before,
        &format!("1,202 records in each; {busy:.0} MiB before the logs were idle"),
    );
}

/// Bytes that the files of a directory take on the disk.
fn allocated(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::read_dir(dir).expect("a folder").map(|file| file.expect("an entry").metadata());
    files.map(|file| file.expect("a file").blocks() * 512).sum()
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
