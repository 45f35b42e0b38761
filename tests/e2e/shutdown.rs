//! SIGTERM under load: every call ends with a response or a status, and the process exits with code 0 within five seconds,
//! after a clean shutdown.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use seriatim::client::Outcome as ErrorOutcome;
use seriatim::pb::v1::{ConsumeRequest, ProduceRequest};

use crate::harness::{Cluster, TIMEOUT, eventually, read_all, record, wait_for_voters};

#[test]
fn three_nodes_shut_down_cleanly_under_load() {
    let mut cluster = Cluster::start(3);
    // The leader has the most to hand over.
    let leader = cluster.leader();
    under_load(&mut cluster, leader);
}

#[test]
fn one_node_shuts_down_cleanly_under_load() {
    under_load(&mut Cluster::start(1), 0);
}

/// Stops the node `victim` while calls to it are in progress. Each call must end with a response or a status: one that does
/// not end fails the test at its deadline.
fn under_load(cluster: &mut Cluster, victim: usize) {
    let (acknowledged, statuses, tails) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (acknowledged, statuses, tails) = (&acknowledged, &statuses, &tails);
    std::thread::scope(|scope| {
        let mut calls = Vec::new();
        for _ in 0..2 {
            let client = cluster.client(victim);
            // One request at a time, until one is refused.
            calls.push(scope.spawn(move || {
                while let Ok(answer) = client.produce("", vec![record("unary")]) {
                    acknowledged.fetch_add(u64::from(answer.count), Ordering::Relaxed);
                }
                statuses.fetch_add(1, Ordering::Relaxed);
            }));
            let client = cluster.client(victim);
            // A pipelined stream: each request has a response, or the status says that it was not appended.
            calls.push(scope.spawn(move || {
                let mut stream = client.produce_stream().expect("a stream");
                let request = ProduceRequest { records: vec![record("streamed"); 10], ..ProduceRequest::default() };
                let mut unanswered = 0_u32;
                let error = loop {
                    if stream.send(request.clone()) && unanswered < 50 {
                        unanswered += 1;
                        continue;
                    }
                    match stream.answer().expect("a response or a status") {
                        Ok(answer) => {
                            acknowledged.fetch_add(u64::from(answer.count), Ordering::Relaxed);
                            unanswered = unanswered.saturating_sub(1);
                        }
                        Err(error) => break error,
                    }
                };
                let status = error.status().expect("a status").clone();
                assert!(!status.reason.is_empty(), "the node's own status, not a broken connection: {status}");
                assert!(status.outcome() == ErrorOutcome::None || status.reason == "OUTCOME_UNKNOWN", "{status}");
                statuses.fetch_add(1, Ordering::Relaxed);
            }));
            let client = cluster.client(victim);
            // A stream that waits at the end of the log.
            calls.push(scope.spawn(move || {
                let request = ConsumeRequest { max_records: 1000, ..ConsumeRequest::default() };
                let mut tail = client.consume_stream(&request, Some(TIMEOUT)).expect("a stream");
                tail.next().expect("a message at once").expect("no status");
                tails.fetch_add(1, Ordering::Relaxed);
                let error = tail.filter_map(Result::err).next().expect("a status");
                let status = error.status().expect("a status").clone();
                assert_eq!(status.reason, "STOPPING", "{status}");
                statuses.fetch_add(1, Ordering::Relaxed);
            }));
        }
        eventually("there is load", || {
            let (count, tails) = (acknowledged.load(Ordering::Relaxed), tails.load(Ordering::Relaxed));
            if count > 1000 && tails == 2 { Ok(()) } else { Err(format!("{count} records, {tails} tails")) }
        });
        let begin = Instant::now();
        let status = cluster.nodes[victim].stop();
        let took = begin.elapsed();
        assert_eq!(status.code(), Some(0), "{}", cluster.nodes[victim].log());
        assert!(took < Duration::from_secs(5), "it took {took:?}");
        for call in calls {
            call.join().expect("every call ends");
        }
    });
    assert_eq!(statuses.load(Ordering::Relaxed), 6);

    let log_before = cluster.nodes[victim].log().len();
    cluster.nodes[victim].start_again();
    wait_for_voters(&cluster.clients());
    let log = cluster.nodes[victim].log().split_off(log_before);
    assert!(!log.contains("torn"), "no torn write after a clean shutdown: {log}");
    let found = read_all(&cluster.client(victim)).len() as u64;
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    assert!(found >= acknowledged, "{acknowledged} records were acknowledged, {found} found");
}
