//! The figures of one contestant, and the ceilings.

use std::time::{Duration, Instant};

use super::callers::CALLERS;
use super::calls::produce_request;
use super::contestant::{Append, Kind, LARGE, Load, Read, SMALL, Shared, Tail};
use super::counters;
use super::harness::{Site, memory_bytes};
use super::process::cpu_time;
use super::raw::{RawFile, RawServer};
use super::sheet::Sheet;

/// The figures that the targets name.
pub const ONE: &str = "one in flight, 100 B";
pub const TAIL: &str = "produce to a waiting tail, 100 B";
pub const SHARED_THREADS: &str = "256 threads share a client";
pub const SHARED_ONE_THREAD: &str = "256 in flight of one thread, one client";
pub const OWN: &str = "256 clients with a connection each";
pub const CATCH_UP: &str = "catching up, 1 KiB";
pub const IDLE_FRESH: &str = "idle, nothing appended";
pub const IDLE_USED: &str = "idle after the load";
const SHARED_UNARY: &str = "256 unary calls in flight, one channel";
const SHARED_STREAM: &str = "256 messages in flight, one ProduceStream";

/// The parts of a figure.
pub const P50: &str = "p50";
pub const P99: &str = "p99";
pub const CPU: &str = "processor time of all nodes";
pub const CORE: &str = "processor time, highest of a node";
pub const MEMORY: &str = "memory, highest of a node";

/// The records of the log that a reader catches up with.
const CATCH_UP_RECORDS: usize = 100_000;
/// The cluster is left alone for this long, and then observed for as long.
const IDLE_FOR: Duration = Duration::from_secs(10);

/// The name of a figure of producers of batches.
pub fn batched(value_bytes: usize, producers: usize) -> String {
    let size = if value_bytes == LARGE { "1 KiB" } else { "100 B" };
    format!("batched, {size}, {producers} producer{}", if producers == 1 { "" } else { "s" })
}

/// The name of a part of a figure.
pub fn part(figure: &str, part: &str) -> String {
    format!("{figure}: {part}")
}

/// A round of one contestant.
pub struct Round<'a> {
    pub sheet: &'a mut Sheet,
    pub only: &'a str,
    pub turn: Duration,
    pub column: usize,
    /// Whether the kernel's events can be counted.
    pub counts: bool,
    /// Whether the figures of idle nodes are measured, which take longest and vary little.
    pub idles: bool,
}

impl Round<'_> {
    /// Starts the contestant, measures it and stops it, if any of its figures is wanted.
    pub fn measure(mut self, kind: Kind) {
        let batches = [(SMALL, 1), (SMALL, 4), (LARGE, 1), (LARGE, 4)];
        let shared = [
            (SHARED_THREADS, Shared::Threads),
            (SHARED_ONE_THREAD, Shared::OneThread),
            (SHARED_UNARY, Shared::Unary),
            (SHARED_STREAM, Shared::Stream),
        ];
        let idles = [IDLE_FRESH, IDLE_USED].into_iter().filter(|_| self.idles);
        let names = [ONE, TAIL, OWN, CATCH_UP].into_iter().chain(shared.map(|(name, _)| name)).chain(idles);
        let mut names = names.map(str::to_owned).chain(batches.map(|(bytes, producers)| batched(bytes, producers)));
        if !names.any(|name| self.wants(&name)) {
            return;
        }
        // What the previous contestant has written must not be written during this turn.
        rustix::fs::sync();
        let contestant = kind.start();
        let pids = contestant.pids();
        if self.idles && self.wants(IDLE_FRESH) {
            self.idle(IDLE_FRESH, &pids);
        }
        if self.wants(ONE) {
            self.one(&pids, contestant.append());
        }
        if let Some(tail) = self.wants(TAIL).then(|| contestant.tail()).flatten() {
            self.tail(tail);
        }
        for (name, form) in shared {
            if let Some(load) = self.wants(name).then(|| contestant.shared(form)).flatten() {
                self.load(&pids, name, load);
            }
        }
        if self.wants(OWN) {
            self.load(&pids, OWN, contestant.own_connections());
        }
        for (bytes, producers) in batches {
            let name = batched(bytes, producers);
            if self.wants(&name) {
                self.load(&pids, &name, contestant.batched(bytes, producers));
            }
        }
        if self.wants(CATCH_UP) {
            self.catch_up(contestant.catch_up(CATCH_UP_RECORDS));
        }
        if self.idles && self.wants(IDLE_USED) {
            self.idle(IDLE_USED, &pids);
        }
    }

    fn wants(&self, figure: &str) -> bool {
        format!("{}: {figure}", self.sheet.columns[self.column]).contains(self.only)
    }

    fn push(&mut self, figure: &str, unit: &'static str, value: f64) {
        self.sheet.push(self.column, figure, unit, value);
    }

    fn one(&mut self, pids: &[u32], mut append: Append) {
        // A virtual disk may be throttled, and differ by far between two turns.
        let disk = disk_latencies(self.turn / 4);
        self.push(&part(ONE, "the raw disk just before, p50"), "µs", percentile(&disk, 0.5));
        latencies(self.turn / 4, &mut append);
        let before = cpu(pids);
        let times = latencies(self.turn, &mut append);
        let each = (cpu(pids) - before).as_secs_f64() / times.len() as f64;
        self.push(&part(ONE, P50), "µs", percentile(&times, 0.5));
        self.push(&part(ONE, P99), "µs", percentile(&times, 0.99));
        self.push(&part(ONE, CPU), "µs", each * 1e6);
        if self.counts {
            let turn = self.turn;
            let each = counters::count_each(turn, || latencies(turn, &mut append).len() as u64);
            for (name, each) in counters::NAMES.into_iter().zip(each) {
                self.push(&part(ONE, name), "a record", each);
            }
        }
    }

    /// Appends one record at a time, and measures the time from before the append to its arrival at the consumer.
    fn tail(&mut self, tail: Tail) {
        let Tail { mut append, mut receive } = tail;
        let (sender, arrivals) = crossbeam_channel::unbounded::<Instant>();
        let warm_up = 20;
        let mut times = Vec::new();
        let turn = self.turn;
        std::thread::scope(|scope| {
            let (more, next) = crossbeam_channel::bounded::<()>(1);
            scope.spawn(move || {
                while next.recv().is_ok() {
                    sender.send(receive()).expect("the producer waits");
                }
            });
            let end = Instant::now() + turn;
            let mut count = 0;
            while count < warm_up || Instant::now() < end {
                // Before the pause, so that the consumer waits already.
                more.send(()).expect("the consumer runs");
                std::thread::park_timeout(Duration::from_micros(500));
                let begin = Instant::now();
                append();
                let arrival = arrivals.recv().expect("the consumer runs");
                if count >= warm_up {
                    times.push(arrival.saturating_duration_since(begin));
                }
                count += 1;
            }
            drop(more);
        });
        times.sort();
        self.push(&part(TAIL, P50), "µs", percentile(&times, 0.5));
        self.push(&part(TAIL, P99), "µs", percentile(&times, 0.99));
    }

    fn load(&mut self, pids: &[u32], name: &str, mut load: Load) {
        load(self.turn / 4);
        let (before, begin) = (cpu(pids), Instant::now());
        let rate = load(self.turn);
        let records = rate * begin.elapsed().as_secs_f64();
        let each = (cpu(pids) - before).as_secs_f64() / records;
        self.push(name, "k records/s", rate / 1e3);
        self.push(&part(name, CPU), "µs a record", each * 1e6);
    }

    fn catch_up(&mut self, mut read: Read) {
        let (begin, mut bytes) = (Instant::now(), 0);
        while begin.elapsed() < self.turn {
            bytes += read();
        }
        self.push(CATCH_UP, "MB/s", bytes as f64 / 1e6 / begin.elapsed().as_secs_f64());
    }

    fn idle(&mut self, figure: &str, pids: &[u32]) {
        std::thread::park_timeout(IDLE_FOR);
        let used = || pids.iter().map(|pid| (cpu_time(*pid), counters::context_switches(*pid))).collect::<Vec<_>>();
        let (before, begin) = (used(), Instant::now());
        std::thread::park_timeout(IDLE_FOR);
        let (after, took) = (used(), begin.elapsed().as_secs_f64());
        let each = before.into_iter().zip(after).map(|((cpu, switches), (cpu_after, switches_after))| {
            let percent = (cpu_after.saturating_sub(cpu)).as_secs_f64() * 100.0 / took;
            (percent, switches_after.saturating_sub(switches) as f64 / took)
        });
        let (percent, switches): (Vec<f64>, Vec<f64>) = each.unzip();
        let memory: Vec<f64> = pids.iter().map(|pid| memory_bytes(*pid) as f64 / f64::from(1 << 20)).collect();
        let parts = [
            (CORE, "processor time, mean of the others", "% of a core", percent),
            ("context switches, highest of a node", "context switches, mean of the others", "/s", switches),
            (MEMORY, "memory, mean of the others", "MiB", memory),
        ];
        for (highest, others, unit, mut values) in parts {
            values.sort_by(f64::total_cmp);
            self.push(&part(figure, highest), unit, values.pop().unwrap_or_default());
            self.push(&part(figure, others), unit, values.iter().sum::<f64>() / values.len().max(1) as f64);
        }
    }
}

/// Measures the raw disk and a gRPC server without logic.
pub fn ceilings(sheet: &mut Sheet, only: &str, turn: Duration) {
    if !"raw".contains(only) {
        return;
    }
    let site = Site::new();
    let times = disk_latencies(turn);
    sheet.push_ceiling("write of 200 B and fdatasync, p50", "µs", percentile(&times, 0.5));
    sheet.push_ceiling("write of 200 B and fdatasync, p99", "µs", percentile(&times, 0.99));
    sheet.push_ceiling(
        "writes of 1 MiB, each synced",
        "MB/s",
        RawFile::create(site.path(), 1 << 30).rate(&vec![7; 1 << 20], turn),
    );
    let server = RawServer::start(&site.certs(), site.client_files("root"));
    let (caller, small) = (server.connect(), produce_request(1, SMALL));
    let mut times = caller.latencies(small.clone(), turn);
    times.sort();
    sheet.push_ceiling("gRPC echo with TLS, 100 B, one in flight, p50", "µs", percentile(&times, 0.5));
    sheet.push_ceiling("gRPC echo with TLS, 100 B, one in flight, p99", "µs", percentile(&times, 0.99));
    let before = cpu_time(server.pid());
    let begin = Instant::now();
    let rate = caller.unary_rate(&small, CALLERS, turn);
    let each = (cpu_time(server.pid()) - before).as_secs_f64() / (rate * begin.elapsed().as_secs_f64());
    sheet.push_ceiling("gRPC echo with TLS, 100 B, 256 in flight", "k calls/s", rate / 1e3);
    sheet.push_ceiling("gRPC echo with TLS, 100 B, 256 in flight, processor time of the server", "µs", each * 1e6);
}

/// Returns the processor time that processes have used.
fn cpu(pids: &[u32]) -> Duration {
    pids.iter().map(|pid| cpu_time(*pid)).sum()
}

/// Writes 200 B and syncs them, again and again. Returns the latencies, sorted.
fn disk_latencies(took: Duration) -> Vec<Duration> {
    let mut times = RawFile::create(&std::env::temp_dir(), 64 << 20).latencies(&[7; 200], took);
    times.sort();
    times
}

/// Appends one record after the other. Returns the latencies, sorted.
fn latencies(took: Duration, append: &mut Append) -> Vec<Duration> {
    let end = Instant::now() + took;
    let mut times = Vec::new();
    while Instant::now() < end {
        let begin = Instant::now();
        append();
        times.push(begin.elapsed());
    }
    times.sort();
    times
}

/// Returns a percentile of sorted times in µs.
fn percentile(times: &[Duration], percentile: f64) -> f64 {
    let last = times.len().saturating_sub(1) as f64;
    times.get((last * percentile) as usize).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}
