//! The figures of one node under load: produce, consume, tails, memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use seriatim::pb::v1::{ConsumeRequest, CreateLogRequest, LogConfig};

use super::calls::{Bytes, Caller, Download, consume_request, produce_request, produce_request_to};
use super::harness::{Cluster, memory_bytes};
use super::process::{MemoryPeak, cpu_fraction, cpu_time};
use super::raw::{RawFile, RawServer};
use super::report::{Row, Target, Values};

const MIB: f64 = (1 << 20) as f64;

/// A run of the benchmarks: its options and results.
pub struct Bench {
    pub only: String,
    /// Measure no ceilings, for a profiler.
    pub ours_alone: bool,
    pub rounds: usize,
    pub turn: Duration,
    pub rows: Vec<Row>,
}

impl Bench {
    pub fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    /// Measures the ceiling and the node alternately.
    pub fn compare(
        &mut self,
        name: &str,
        unit: &'static str,
        target: Target,
        mut ceiling: impl FnMut() -> f64,
        mut ours: impl FnMut() -> f64,
    ) {
        if !self.wants(name) {
            return;
        }
        let mut row = Row::new(name, unit, target);
        // One unrecorded turn of each warms up.
        if !self.ours_alone {
            ceiling();
        }
        ours();
        for _ in 0..self.rounds {
            let ceiling = if self.ours_alone { f64::NAN } else { ceiling() };
            let ours = ours();
            row.ceiling.push(ceiling);
            row.ours.push(ours);
            row.ratio.push(ours / ceiling);
        }
        self.add(row);
    }

    pub fn add(&mut self, row: Row) {
        row.print();
        self.rows.push(row);
    }

    /// Adds a figure without a ceiling.
    pub fn add_single(&mut self, name: &str, unit: &'static str, target: Target, value: f64, note: &str) {
        let mut row = Row::new(name, unit, target);
        row.ours.push(value);
        row.note = note.to_owned();
        self.add(row);
    }
}

impl Row {
    pub fn new(name: &str, unit: &'static str, target: Target) -> Row {
        let values = Values::default;
        Row {
            name: name.to_owned(),
            unit,
            ceiling: values(),
            ours: values(),
            ratio: values(),
            target,
            note: String::new(),
        }
    }
}

/// A node and the raw server, with a client of each.
pub struct Pair {
    pub node: Caller,
    pub raw: Caller,
    pub cluster: Cluster,
    pub server: RawServer,
}

impl Pair {
    pub fn start() -> Pair {
        let cluster = Cluster::start_with(1, &["--streams-per-principal-max=20000"]);
        let files = cluster.site.client_files("root");
        let server = RawServer::start(&cluster.site.certs(), files.clone());
        let node = Caller::connect(&cluster.nodes[0].rpc_addr, &files);
        Pair { node, raw: server.connect(), cluster, server }
    }

    /// Connects again after a restart of the node.
    pub fn reconnect(&mut self) {
        let files = self.cluster.site.client_files("root");
        self.node = Caller::connect(&self.cluster.nodes[0].rpc_addr, &files);
    }

    pub fn file(&self) -> RawFile {
        RawFile::create(self.cluster.site.path(), 1 << 30)
    }
}

pub fn run(bench: &mut Bench) {
    produce(bench);
    many_logs(bench);
    hash_chain(bench);
    consume(bench);
    tails(bench);
    memory(bench);
}

/// Returns the server's CPU time per call of a load, in µs.
fn cpu_per_call(pid: u32, took: Duration, load: impl FnOnce() -> f64) -> f64 {
    let before = cpu_time(pid);
    let rate = load();
    (cpu_time(pid) - before).as_secs_f64() * 1e6 / (rate * took.as_secs_f64())
}

pub fn median_us(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(f64::NAN, |t| t.as_secs_f64() * 1e6)
}

/// Compares 100 producers on 100 logs with 100 producers on one log, both with one call in flight each.
fn many_logs(bench: &mut Bench) {
    const LOGS: usize = 100;
    let (pair, turn) = (Pair::start(), bench.turn);
    let client = pair.cluster.client(0);
    let names: Vec<String> = (0..LOGS).map(|i| format!("log-{i}")).collect();
    for name in &names {
        client.create_log(&CreateLogRequest { log: name.clone(), ..CreateLogRequest::default() }).expect("created");
    }
    let to_each: Vec<Bytes> = names.iter().map(|name| produce_request_to(name, 1, 100)).collect();
    let to_one = vec![produce_request(1, 100); LOGS];
    bench.compare(
        "produce: unary, 100 B, 100 producers on 100 logs",
        "/s",
        Target::AtLeast(0.7),
        || pair.node.rate_of_each(&to_one, turn),
        || pair.node.rate_of_each(&to_each, turn),
    );
}

/// Compares a log with a hash chain with one without, on the same nodes.
fn hash_chain(bench: &mut Bench) {
    for (nodes, title) in [(1, "hash chain: "), (3, "hash chain: three nodes, ")] {
        let name = |what: &str| format!("{title}{what}, of a log without");
        let streams = [("stream, 1,000 × 100 B a message", 1000, 100), ("stream, 100 × 1 KiB a message", 100, 1024)];
        let streams: Vec<_> = streams.into_iter().chain([("stream, 1 MiB a message", 1024, 1000)]).collect();
        let unary = name("unary, 100 B, 256 in flight");
        if !bench.wants(&unary) && !streams.iter().any(|(what, ..)| bench.wants(&name(what))) {
            continue;
        }
        let (cluster, turn) = (Cluster::start_with(nodes, &[]), bench.turn);
        let create = |log: &str, hash_chain| {
            let config = LogConfig { hash_chain, ..LogConfig::default() };
            let request =
                CreateLogRequest { log: log.into(), config: Some(config).into(), ..CreateLogRequest::default() };
            cluster.client(0).create_log(&request).expect("created");
            let leader = &cluster.nodes[cluster.leader_of(log)];
            Caller::connect(&leader.rpc_addr, &cluster.site.client_files("root"))
        };
        let (plain, chained) = (create("plain", None), create("chained", Some(true)));
        for (what, records, bytes) in streams {
            let rate = |caller: &Caller, log| {
                caller.upload_rate(produce_request_to(log, records, bytes), 32, turn) * records as f64
            };
            let target = Target::AtLeast(0.95);
            bench.compare(&name(what), "records/s", target, || rate(&plain, "plain"), || rate(&chained, "chained"));
        }
        bench.compare(
            &unary,
            "/s",
            Target::AtLeast(0.95),
            || plain.unary_rate(&produce_request_to("plain", 1, 100), 256, turn),
            || chained.unary_rate(&produce_request_to("chained", 1, 100), 256, turn),
        );
    }
}

fn produce(bench: &mut Bench) {
    let turn = bench.turn;
    let block = vec![7; 1 << 20];
    {
        let pair = Pair::start();
        let mut file = pair.file();
        let small = produce_request(1, 100);
        bench.compare(
            "produce: unary, 100 B, one in flight, p50",
            "µs",
            Target::AtMost(1.3),
            || {
                let echo = median_us(pair.raw.latencies(small.clone(), turn / 2));
                echo + median_us(file.latencies(&block[..200], turn / 2))
            },
            || median_us(pair.node.latencies(small.clone(), turn)),
        );
        bench.compare(
            "produce: unary, 100 B, 256 in flight",
            "/s",
            Target::AtLeast(0.7),
            || pair.raw.unary_rate(&small, 256, turn),
            || pair.node.unary_rate(&small, 256, turn),
        );
        let (raw, node) = (pair.server.pid(), pair.cluster.nodes[0].pid());
        bench.compare(
            "produce: unary, 100 B, 256 in flight, CPU of the server",
            "µs a call",
            Target::None,
            || cpu_per_call(raw, turn, || pair.raw.unary_rate(&small, 256, turn)),
            || cpu_per_call(node, turn, || pair.node.unary_rate(&small, 256, turn)),
        );
    }
    {
        let pair = Pair::start();
        // The node accepts this many messages without a response.
        let (one, window) = (produce_request(1, 1024), 256);
        bench.compare(
            "produce: stream, 1 KiB a message",
            "/s",
            Target::AtLeast(0.5),
            || pair.raw.upload_rate(one.clone(), window, turn),
            || pair.node.upload_rate(one.clone(), window, turn),
        );
    }
    {
        let (pair, hundred) = (Pair::start(), produce_request(100, 1024));
        upload(bench, "produce: stream, 100 × 1 KiB a message", 0.7, &pair, &hundred, 32);
    }
    {
        let pair = Pair::start();
        let batch = produce_request(1024, 1000);
        let megabytes = batch.len() as f64 / 1e6;
        upload(bench, "produce: 1 MiB batches, 4 in flight", 0.8, &pair, &batch, 4);
        bench.compare(
            "produce: 1 MiB batches, one in flight",
            "MB/s",
            Target::None,
            || pair.raw.upload_rate(batch.clone(), 1, turn) * megabytes,
            || pair.node.upload_rate(batch.clone(), 1, turn) * megabytes,
        );
    }
}

/// Compares a stream of large messages with the slower of the raw stream and the raw disk.
fn upload(bench: &mut Bench, name: &str, at_least: f64, pair: &Pair, message: &Bytes, window: usize) {
    let (turn, megabytes) = (bench.turn, message.len() as f64 / 1e6);
    let block = vec![7; 1 << 20];
    bench.compare(
        name,
        "MB/s",
        Target::AtLeast(at_least),
        || {
            let raw = pair.raw.upload_rate(message.clone(), window, turn / 2) * megabytes;
            raw.min(pair.file().rate(&block, turn / 2))
        },
        || pair.node.upload_rate(message.clone(), window, turn) * megabytes,
    );
}

/// Appends this many MiB of 1 KiB records to the log.
pub fn fill(pair: &Pair, mib: usize) {
    let batch = produce_request(512, 1024);
    let wanted = (mib << 20).div_ceil(batch.len()) as u64;
    pair.node.upload(batch, 16, wanted);
}

pub fn consume_all(max_bytes: u32) -> Bytes {
    let request = ConsumeRequest { max_records: 100_000, max_bytes, stop_at_end: true, ..ConsumeRequest::default() };
    consume_request(&request)
}

/// Returns the request for which the raw server sends as many messages of the same average size as in `like`.
pub fn matching_raw_request(like: &Download) -> Bytes {
    let (max_records, max_bytes) = (like.messages as u32, (like.bytes / like.messages.max(1)) as u32);
    consume_request(&ConsumeRequest { max_records, max_bytes, ..ConsumeRequest::default() })
}

fn consume(bench: &mut Bench) {
    let figures = [
        ("consume: catching up, page cache, default batches", 0),
        ("consume: catching up, page cache, 1 MiB batches", 1 << 20),
    ];
    if !figures.iter().any(|(name, _)| bench.wants(name)) {
        return;
    }
    let pair = Pair::start();
    fill(&pair, 256);
    for (name, max_bytes) in figures {
        let request = consume_all(max_bytes);
        let first = pair.node.download(request.clone());
        let raw_request = matching_raw_request(&first);
        bench.compare(
            name,
            "MB/s",
            Target::AtLeast(0.8),
            || pair.raw.download(raw_request.clone()).rate(),
            || pair.node.download(request.clone()).rate(),
        );
    }
}

/// Measures the delivery latency, from the send to the arrival at each of a thousand tails, at a thousand records per second.
fn tails(bench: &mut Bench) {
    let name = "tails: 1,000 on one log, 1,000 records/s, delivery p99";
    if !bench.wants(name) {
        return;
    }
    const TAILS: usize = 1000;
    let pair = Pair::start();
    let begin = Instant::now();
    let now_us = move || begin.elapsed().as_micros() as u64;
    let request = consume_request(&ConsumeRequest { max_records: 1000, ..ConsumeRequest::default() });
    let results = Arc::new(std::sync::Mutex::new(Vec::new()));
    pair.node.upload(stamped(0), 1, 1);
    let records = (bench.turn.as_secs_f64() * 5.0 * 1000.0) as u64;
    let (all_open, opened) = crossbeam_channel::bounded(TAILS);
    let (done, ended) = crossbeam_channel::bounded(TAILS);
    for tail in pair.node.tails(&request, TAILS).0 {
        let (results, all_open, done) = (results.clone(), all_open.clone(), done.clone());
        pair.node.spawn(async move {
            let mut tail = tail;
            let mut latencies = Vec::new();
            let mut next = 0;
            while latencies.len() < records as usize {
                let message = tail.next().await.expect("open").expect("records");
                let now = now_us();
                for (offset, sent) in stamps(&message) {
                    assert_eq!(offset, next, "each record once, in order");
                    next += 1;
                    // Records from before the measurement have the stamp 0.
                    match sent {
                        0 if offset == 0 => drop(all_open.send(())),
                        0 => {}
                        sent => latencies.push((now - sent) as f64),
                    }
                }
            }
            results.lock().expect("whole").extend(latencies);
            let _ = done.send(());
        });
    }
    (0..TAILS).for_each(|_| opened.recv().expect("a tail opens"));
    let feeder = Caller::connect(&pair.cluster.nodes[0].rpc_addr, &pair.cluster.site.client_files("root"));
    feeder.feed(records, Duration::from_millis(1), move || stamped(now_us()));
    (0..TAILS).for_each(|_| ended.recv_timeout(Duration::from_secs(60)).expect("every tail receives every record"));
    let mut latencies = std::mem::take(&mut *results.lock().expect("whole"));
    assert_eq!(latencies.len(), TAILS * records as usize, "every tail receives every record");
    latencies.sort_by(f64::total_cmp);
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize] / 1000.0;
    let note = format!("p50 {:.1} ms, longest {:.1} ms; every tail got all {records}", at(0.5), at(1.0));
    bench.add_single(name, "ms", Target::None, at(0.99), &note);
}

/// Returns a request with one record whose value begins with this number.
fn stamped(number: u64) -> Bytes {
    let mut request = produce_request(1, 100);
    // The value is the end of the message.
    let at = request.len() - 100;
    request[at..at + 8].copy_from_slice(&number.to_le_bytes());
    request
}

/// Returns the records' offsets and the numbers from `stamped`.
fn stamps(message: &[u8]) -> Vec<(u64, u64)> {
    use protobuf::Message as _;
    let message = seriatim::pb::v1::ConsumeResponse::parse_from_bytes(message).expect("a response");
    let first = |value: &[u8]| value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    message.records.iter().map(|record| (record.offset, first(&record.value))).collect()
}

fn memory(bench: &mut Bench) {
    if !bench.wants("memory") {
        return;
    }
    let pair = Pair::start();
    let pid = pair.cluster.nodes[0].pid();
    bench.add_single("memory: idle", "MiB", Target::Under(25.0), memory_bytes(pid) as f64 / MIB, "RssAnon");
    let percent = cpu_fraction(pid, bench.turn * 10) * 100.0;
    bench.add_single("memory: CPU of an idle node", "% of a core", Target::Under(0.2), percent, "");

    pair.node.upload(produce_request(1, 100), 1, 1);
    let waiting = consume_request(&ConsumeRequest { max_records: 1, ..ConsumeRequest::default() });
    let idle = consume_request(&ConsumeRequest { max_bytes: 100, ..ConsumeRequest::default() });
    let kib_per_tail = |pid: u32, connect: &dyn Fn() -> Caller, request: &Bytes| {
        let before = memory_bytes(pid);
        let callers: Vec<Caller> = (0..10).map(|_| connect()).collect();
        let mut tails: Vec<_> = callers.iter().map(|caller| caller.tails(request, 1000)).collect();
        tails.iter_mut().for_each(super::calls::Tails::wait_for_first);
        (memory_bytes(pid).saturating_sub(before)) as f64 / 10_000.0 / 1024.0
    };
    let files = pair.cluster.site.client_files("root");
    let addr = pair.cluster.nodes[0].rpc_addr.clone();
    let raw = kib_per_tail(pair.server.pid(), &|| pair.server.connect(), &idle);
    let ours = kib_per_tail(pid, &|| Caller::connect(&addr, &files), &waiting);
    let note = format!("{ours:.1} KiB, of which raw gRPC takes {raw:.1}");
    bench.add_single("memory: an idle tail, of 10,000, above raw gRPC", "KiB", Target::Under(8.0), ours - raw, &note);
    drop(pair);

    let pair = Pair::start();
    let peak = MemoryPeak::of(pair.cluster.nodes[0].pid());
    let small = produce_request(1, 100);
    let batch = produce_request(1024, 1000);
    pair.node.unary_rate(&small, 256, bench.turn * 3);
    pair.node.upload_rate(batch, 32, bench.turn * 3);
    for _ in 0..3 {
        pair.node.download(consume_all(1 << 20));
    }
    let note = "RssAnon over 256 unary calls in flight, 1 MiB batches and catching up";
    bench.add_single("memory: highest under load", "MiB", Target::Under(256.0), peak.get() as f64 / MIB, note);
}
