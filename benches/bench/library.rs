//! The client library against unary calls: many callers that share a producer, and a lone one.

use std::time::{Duration, Instant};

use seriatim::client::{Cluster, ClusterOptions, Producer, ProducerOptions, Record};

use super::callers::{CALLERS, future_rate, rate};
use super::calls::produce_request;
use super::figures::{Bench, Pair, median_us};
use super::harness::record;
use super::report::Target;

pub fn run(bench: &mut Bench) {
    let names = [
        "library: 256 threads share a producer, 100 B, against 256 threads with unary calls",
        "library: 256 futures of one thread share a producer, 100 B, against 256 unary calls of one thread",
        "library: one thread, 100 B, one in flight, p50, against a unary call",
        "library: one thread sends without waiting, 100 B, against 256 unary calls of one thread",
    ];
    if !names.iter().any(|name| bench.wants(name)) {
        return;
    }
    let (pair, turn) = (Pair::start(), bench.turn);
    let unary = pair.cluster.client(0);
    let cluster = Cluster::new(ClusterOptions {
        addrs: vec![pair.cluster.nodes[0].rpc_addr.clone()],
        files: Some(pair.cluster.site.client_files("root")),
        ..ClusterOptions::default()
    });
    let producer = cluster.and_then(|cluster| cluster.producer(&ProducerOptions::new(""))).expect("a producer");
    let value = [7; 100];
    let small = produce_request(1, 100);
    let produce = || {
        unary.produce("", vec![record(value)]).expect("appended");
    };
    let append = || {
        producer.append(Record::new(value.to_vec())).expect("appended");
    };
    bench.compare(names[0], "/s", Target::AtLeast(5.0), || rate(turn, &produce), || rate(turn, &append));
    let in_flight = || pair.node.unary_rate(&small, CALLERS, turn);
    bench.compare(names[1], "/s", Target::AtLeast(5.0), in_flight, || future_rate(turn, &producer));
    bench.compare(
        names[2],
        "µs",
        Target::AtMost(1.0),
        || median_us(times(turn, &produce)),
        || median_us(times(turn, &append)),
    );
    bench.compare(names[3], "/s", Target::None, in_flight, || send_rate(turn, &producer));
    producer.close(Duration::from_secs(10)).expect("closed");
}

/// Returns the times of calls that are made one after the other.
fn times(took: Duration, call: &impl Fn()) -> Vec<Duration> {
    let end = Instant::now() + took;
    let mut times = Vec::new();
    while Instant::now() < end {
        let begin = Instant::now();
        call();
        times.push(begin.elapsed());
    }
    times
}

/// Sends without waiting for acknowledgements. Returns records per second.
fn send_rate(took: Duration, producer: &Producer) -> f64 {
    let begin = Instant::now();
    let mut sent = 0u64;
    while begin.elapsed() < took {
        producer.send(Record::new(vec![7; 100])).expect("accepted");
        sent += 1;
    }
    producer.flush(Duration::from_secs(60)).expect("appended");
    sent as f64 / begin.elapsed().as_secs_f64()
}
