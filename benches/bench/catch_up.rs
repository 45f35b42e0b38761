//! Catch-up: a follower that was away gets what it lacks, without load and while producers write.
//!
//! The three nodes share one disk and the processors of this machine. So each figure says what the three nodes wrote together,
//! and the raw disk is measured in the same run, just before the follower starts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use seriatim::client::Client;
use seriatim::pb::v1::CreateLogRequest;

use super::calls::{Bytes, Caller, produce_request, produce_request_to};
use super::figures::Bench;
use super::harness::{Cluster, counter};
use super::process::cpu_time;
use super::raw::RawFile;
use super::report::{Row, Target};

/// The bytes of a record's value.
const VALUE_BYTES: usize = 1024;
/// The log of the lone appends, whose replicas are up to date.
const LONE: &str = "lone";
/// A follower has caught up if it lacks less than this part of what it lacked at first.
const REST: u64 = 100;
/// A follower that does not catch up is given up after this time.
const CATCH_UP_MAX: Duration = Duration::from_secs(900);
/// The limit of a catch-up that is limited, in bytes per second, and how long it is observed: it may never end.
const LIMIT: u64 = 20_000_000;
const LIMITED_FOR: Duration = Duration::from_secs(20);
/// The interval of the lone appends.
const LONE_EVERY: Duration = Duration::from_millis(10);

/// What producers do while the follower catches up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    None,
    /// Open loop: half of the rate of `Full`.
    Half,
    /// Closed loop: as many as are acknowledged.
    Full,
}

struct Case {
    name: &'static str,
    trims: bool,
    load: Load,
}

const UNLIMITED: [Case; 4] = [
    Case { name: "behind, no load", trims: false, load: Load::None },
    Case { name: "no load", trims: true, load: Load::None },
    Case { name: "half load", trims: true, load: Load::Half },
    Case { name: "full load", trims: true, load: Load::Full },
];
const LIMITED: [Case; 1] = [Case { name: "full load, at most 20 MB/s", trims: true, load: Load::Full }];

pub fn run(bench: &mut Bench) {
    let shapes = [("1 KiB entries", 1, 256), ("100 KiB entries", 100, 32)];
    for (shape, records, window) in shapes {
        for (limit, cases) in [(None, UNLIMITED.as_slice()), (Some(LIMIT), LIMITED.as_slice())] {
            if cases.iter().any(|case| bench.wants(&title(shape, case.name))) {
                Scene::start(shape, records, window, limit).run(bench, cases);
            }
        }
    }
}

fn title(shape: &str, what: &str) -> String {
    format!("catch-up: {shape}, {what}")
}

/// The bytes that a follower lacks at first.
fn lacking_bytes() -> u64 {
    std::env::var("SERIATIM_BENCH_CATCH_UP_MIB").map_or(512, |mib| mib.parse().expect("a number of MiB")) << 20
}

struct Scene {
    cluster: Cluster,
    leader: usize,
    follower: usize,
    shape: &'static str,
    /// The records of a message.
    records: usize,
    message: Bytes,
    window: usize,
    /// `catch_up_bytes_per_second`.
    limit: Option<u64>,
}

/// Counts the acknowledged messages of a load until it is dropped.
struct Producers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Producers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the load ends");
        }
    }
}

/// Appends one record at a time to another log, and collects the latencies.
struct LoneAppends {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

/// What happened while a follower caught up.
struct CaughtUp {
    took: Duration,
    /// Bytes of values that the follower appended per second, in MB/s.
    rate: f64,
    /// The acknowledged messages of producers per second: with the follower away, meanwhile, and afterwards.
    producers: [f64; 3],
    lone: [Vec<Duration>; 2],
    elections: u64,
    /// Processor time per second of the leader and of the follower.
    cpu: [f64; 2],
}

impl Scene {
    fn start(shape: &'static str, records: usize, window: usize, limit: Option<u64>) -> Scene {
        let limited = format!("--catch-up-bytes-per-second={}", limit.unwrap_or_default());
        let cluster = Cluster::start_with(3, &["--scrub-bytes-per-second=0", &limited]);
        let leader = cluster.leader();
        let create = CreateLogRequest { log: LONE.to_owned(), ..CreateLogRequest::default() };
        cluster.client(leader).create_log(&create).expect("created");
        let message = produce_request(records, VALUE_BYTES);
        Scene { leader, follower: (leader + 1) % 3, cluster, shape, records, message, window, limit }
    }

    fn run(mut self, bench: &mut Bench, cases: &[Case]) {
        for Case { name, trims, load } in cases {
            let name = title(self.shape, name);
            if !bench.wants(&name) {
                continue;
            }
            self.stop_follower(*trims);
            let disk = self.raw_disk();
            let caught_up = self.catch_up(*load);
            self.report(bench, &name, disk, *load, &caught_up);
        }
    }

    fn caller(&self) -> Caller {
        Caller::connect(&self.cluster.nodes[self.leader].rpc_addr, &self.cluster.site.client_files("root"))
    }

    fn next_offset(client: &Client) -> Option<u64> {
        let node = client.get_node().ok()?;
        node.groups.iter().find(|group| group.log == "default").map(|group| group.next_offset)
    }

    fn fill(&self, bytes: u64) {
        let messages = bytes.div_ceil((self.records * VALUE_BYTES) as u64);
        self.caller().upload(self.message.clone(), self.window, messages);
    }

    /// Stops the follower and appends what it will lack. `trims`: its own log ends before the leader's log begins.
    fn stop_follower(&mut self, trims: bool) {
        self.fill(16 << 20);
        self.cluster.nodes[self.follower].stop();
        self.leader = loop {
            // The follower may have been the leader.
            let client = self.cluster.client((self.follower + 1) % 3);
            let servers = client.get_servers("default").map(|found| found.servers).unwrap_or_default();
            let leader = servers.iter().find(|server| server.is_leader).map(|server| server.id.clone());
            let leads = |node: &super::harness::Node| Some(node.name()) == leader.as_deref();
            match self.cluster.nodes.iter().position(leads).filter(|node| *node != self.follower) {
                Some(node) => break node,
                None => std::thread::park_timeout(Duration::from_millis(100)),
            }
        };
        if trims {
            self.fill(192 << 20);
            let client = self.cluster.client(self.leader);
            let next = Scene::next_offset(&client).expect("an answer");
            client.trim("default", next).expect("trimmed");
        }
        self.fill(lacking_bytes());
    }

    fn raw_disk(&self) -> f64 {
        let mut file = RawFile::create(self.cluster.site.path(), 1 << 30);
        file.rate(&vec![7; 1 << 20], Duration::from_secs(3))
    }

    fn producers(&self, load: Load) -> Option<Producers> {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, counting) = (stop.clone(), acknowledged.clone());
        let (caller, message, window) = (self.caller(), self.message.clone(), self.window);
        let is_enough = move |count, _| {
            counting.store(count, Ordering::Relaxed);
            stopping.load(Ordering::Relaxed)
        };
        let thread = match load {
            Load::None => return None,
            Load::Full => std::thread::spawn(move || caller.upload_until_enough(message, window, is_enough)),
            Load::Half => {
                let full = self.producers(Load::Full).expect("a load");
                let every = Duration::from_secs_f64(2.0 / full.rate(Duration::from_secs(4)));
                drop(full);
                std::thread::spawn(move || caller.feed_until_enough(message, every, is_enough))
            }
        };
        Some(Producers { stop, acknowledged, thread: Some(thread) })
    }

    fn catch_up(&mut self, load: Load) -> CaughtUp {
        let settle = Duration::from_secs(5);
        let producers = self.producers(load);
        let rate = |over: Duration| producers.as_ref().map_or(f64::NAN, |producers| producers.rate(over));
        let lone = LoneAppends::start(self.caller());
        rate(Duration::from_secs(1));
        let before = if load == Load::None { f64::NAN } else { rate(settle) };
        let lone_before = lone.take();
        let leader = self.cluster.client(self.leader);
        let elections = counter(&leader, "seriatim_elections_total");
        let lone = LoneAppends::start(self.caller());
        let follower = self.cluster.client(self.follower);
        let first = Scene::next_offset(&leader).expect("an answer");
        self.cluster.nodes[self.follower].start_later();
        let pids = [self.leader, self.follower].map(|node| self.cluster.nodes[node].pid());
        let (begin, cpu) = (Instant::now(), pids.map(cpu_time));
        let acknowledged = || producers.as_ref().map_or(0, |producers| producers.acknowledged.load(Ordering::Relaxed));
        let acknowledged_before = acknowledged();
        let lacking = lacking_bytes() / VALUE_BYTES as u64;
        let start = first.saturating_sub(lacking);
        let done = loop {
            let (ends, here) = (Scene::next_offset(&leader), Scene::next_offset(&follower));
            let is_over = |end: u64, here| match self.limit {
                Some(_) => begin.elapsed() >= LIMITED_FOR && here > start,
                None => end.saturating_sub(here) < lacking / REST,
            };
            if let (Some(end), Some(here)) = (ends, here)
                && is_over(end, here)
            {
                break here;
            }
            if std::env::var_os("SERIATIM_BENCH_VERBOSE").is_some() {
                println!(
                    "  {:.1} s: {ends:?} {here:?}, acknowledged {}",
                    begin.elapsed().as_secs_f64(),
                    acknowledged()
                );
            }
            assert!(begin.elapsed() < CATCH_UP_MAX, "the follower does not catch up");
            std::thread::park_timeout(Duration::from_millis(100));
        };
        let took = begin.elapsed();
        let seconds = took.as_secs_f64();
        let cpu = [0, 1].map(|i| (cpu_time(pids[i]).saturating_sub(cpu[i])).as_secs_f64() / seconds);
        let during = (acknowledged() - acknowledged_before) as f64 / seconds;
        let lone_during = lone.take();
        let elections = counter(&leader, "seriatim_elections_total") - elections;
        let after = if load == Load::None { f64::NAN } else { rate(settle) };
        CaughtUp {
            took,
            rate: ((done - start) * VALUE_BYTES as u64) as f64 / 1e6 / seconds,
            producers: [before, during, after],
            lone: [lone_before, lone_during],
            elections,
            cpu,
        }
    }

    fn report(&self, bench: &mut Bench, name: &str, disk: f64, load: Load, caught_up: &CaughtUp) {
        let megabytes = (self.records * VALUE_BYTES) as f64 / 1e6;
        let [before, during, after] = caught_up.producers.map(|rate| rate * megabytes);
        // The leader and the other follower write what producers send.
        let together = caught_up.rate + if load == Load::None { 0.0 } else { 2.0 * during };
        let (target, ceiling) = match self.limit {
            Some(limit) => (Target::AtLeast(0.9), limit as f64 / 1e6),
            None => (Target::AtLeast(0.7), disk),
        };
        let mut row = Row::new(name, "MB/s", target);
        row.ours.push(caught_up.rate);
        row.ceiling.push(ceiling);
        row.ratio.push(caught_up.rate / ceiling);
        let [lone_before, lone_during] = caught_up.lone.each_ref().map(|times| percentiles(times));
        row.note = format!(
            "{:.0} MB in {:.1} s, the three nodes wrote {together:.0} MB/s together; processors: leader {:.2}, follower {:.2}; \
             lone appends to another log before: {lone_before}, meanwhile: {lone_during}; {} elections",
            caught_up.rate * caught_up.took.as_secs_f64(),
            caught_up.took.as_secs_f64(),
            caught_up.cpu[0],
            caught_up.cpu[1],
            caught_up.elections,
        );
        bench.add(row);
        if load != Load::None {
            let mut row = Row::new(&format!("{name}: producers"), "MB/s", Target::AtLeast(0.8));
            row.ours.push(during);
            row.ceiling.push(before);
            row.ratio.push(during / before);
            row.note = format!(
                "before: with the follower away; afterwards, with all three: {after:.1} MB/s, {:.2}",
                during / after
            );
            bench.add(row);
        }
    }
}

impl Producers {
    /// Returns the acknowledged messages per second.
    fn rate(&self, over: Duration) -> f64 {
        let (begin, before) = (Instant::now(), self.acknowledged.load(Ordering::Relaxed));
        std::thread::sleep(over);
        (self.acknowledged.load(Ordering::Relaxed) - before) as f64 / begin.elapsed().as_secs_f64()
    }
}

impl LoneAppends {
    fn start(caller: Caller) -> LoneAppends {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let request = produce_request_to(LONE, 1, 100);
        let thread = std::thread::spawn(move || {
            let mut times = Vec::new();
            while !stopping.load(Ordering::Relaxed) {
                times.push(caller.latency(&request));
                std::thread::sleep(LONE_EVERY);
            }
            times
        });
        LoneAppends { stop, thread }
    }

    fn take(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the appends end")
    }
}

fn percentiles(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |part: f64| times.get(((times.len().max(1) - 1) as f64 * part) as usize).copied().unwrap_or_default();
    let ms = |part: f64| at(part).as_secs_f64() * 1e3;
    format!("p50 {:.1} ms, p99 {:.1} ms, longest {:.0} ms", ms(0.5), ms(0.99), ms(1.0))
}
