//! `make bench`: what one client gets through one node and through three, beside the raw disk of the same run.
//!
//! A disk varies by the hour, so the raw numbers stand beside ours: a write and an fdatasync of the same bytes. Client,
//! nodes and disk share this machine. `SERIATIM_BENCH_BYTES` is how much goes in (default 64 MB).

#[path = "../tests/e2e/harness.rs"]
#[allow(dead_code)]
mod harness;

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use seriatim::client::Client;
use seriatim::pb::log::{ConsumeRequest, ProduceRequest, Start};

use harness::{Cluster, record};

const VALUE_BYTES: usize = 100;
const BATCH_RECORDS: usize = 1000;

fn main() {
    // `cargo test --benches` and clippy build this too; `--test` asks for nothing to be measured.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let bytes: usize = std::env::var("SERIATIM_BENCH_BYTES").map_or(64_000_000, |b| b.parse().expect("a number"));
    println!("records of {VALUE_BYTES} bytes, batches of {BATCH_RECORDS}, {} MB\n", bytes / 1_000_000);
    raw_disk(bytes);
    for nodes in [1, 3] {
        let cluster = Cluster::start(nodes);
        let leader = cluster.client(cluster.leader());
        println!("{nodes} node{}, mutual TLS", if nodes == 1 { "" } else { "s" });
        latency(&leader);
        produce(&leader, bytes);
        consume(&leader);
    }
}

fn raw_disk(bytes: usize) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut file: &File = file.as_file();
    let batch = vec![7; VALUE_BYTES * BATCH_RECORDS];
    let begin = Instant::now();
    for _ in 0..bytes / batch.len() {
        file.write_all(&batch).expect("writes");
        file.sync_data().expect("syncs");
    }
    rate("raw disk: write + fdatasync of each batch", bytes, begin.elapsed());
    let mut times: Vec<Duration> = (0..500)
        .map(|_| {
            let begin = Instant::now();
            file.write_all(&batch[..VALUE_BYTES]).expect("writes");
            file.sync_data().expect("syncs");
            begin.elapsed()
        })
        .collect();
    percentiles("raw disk: write + fdatasync of one record", &mut times);
    println!();
}

fn latency(client: &Client) {
    let mut times: Vec<Duration> = (0..500)
        .map(|_| {
            let begin = Instant::now();
            client.produce("", vec![record([7; VALUE_BYTES])]).expect("produces");
            begin.elapsed()
        })
        .collect();
    percentiles("  produce, one record, one in flight", &mut times);
}

fn produce(client: &Client, bytes: usize) {
    let records = vec![record([7; VALUE_BYTES]); BATCH_RECORDS];
    let requests = bytes / (VALUE_BYTES * BATCH_RECORDS);
    let mut stream = client.produce_stream().expect("a stream");
    let mut sent = VecDeque::new();
    let mut times = Vec::with_capacity(requests);
    let begin = Instant::now();
    for number in 0..requests + 32 {
        if number < requests {
            assert!(stream.send(ProduceRequest { records: records.clone(), ..ProduceRequest::default() }), "sends");
            sent.push_back(Instant::now());
        }
        if number >= 32 {
            stream.answer().expect("an answer").expect("appended");
            times.push(sent.pop_front().expect("sent").elapsed());
        }
    }
    rate("  produce, a stream, 32 batches in flight", bytes, begin.elapsed());
    percentiles("  ... of a batch", &mut times);
    stream.close();
}

fn consume(client: &Client) {
    let request = ConsumeRequest {
        start: Start::START_EARLIEST.into(),
        max_records: 10_000,
        stop_at_end: true,
        ..ConsumeRequest::default()
    };
    let begin = Instant::now();
    let mut bytes = 0;
    for answer in client.consume_stream(&request, None).expect("a stream") {
        bytes += answer.expect("records").records.iter().map(|r| r.value.len()).sum::<usize>();
    }
    rate("  consume, a stream, from the first record", bytes, begin.elapsed());
    println!();
}

fn rate(what: &str, bytes: usize, took: Duration) {
    let seconds = took.as_secs_f64();
    let (megabytes, records) = (bytes as f64 / 1e6 / seconds, (bytes / VALUE_BYTES) as f64 / seconds);
    println!("{what:46} {megabytes:9.1} MB/s {records:11.0} records/s");
}

fn percentiles(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_micros();
    println!("{what:46} p50 {:6} µs   p99 {:6} µs", at(50), at(99));
}
