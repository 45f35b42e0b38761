//! Streams: they follow the log, keep the order, and end only with a status.
//!
//! grpcio's client reads one message ahead, and loses it if an error status arrives before the message is polled. So a test that
//! counts the messages before such a status also accepts one fewer.

use std::time::{Duration, Instant};

use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{ClientDuplexReceiver, ClientSStreamReceiver, RpcStatusCode as Code, WriteFlags};

use super::node::{Fate, ME, Node, OPEN_POLICY, OTHER};
use super::*;
use crate::consensus::handle::ProposeError;
use crate::pb::health::HealthCheckRequest;
use crate::pb::health::health_check_response::ServingStatus;

type Answers = ClientSStreamReceiver<log::ConsumeResponse>;

fn next(answers: &mut Answers) -> Option<grpcio::Result<log::ConsumeResponse>> {
    block_on(answers.next())
}

fn next_values(answers: &mut Answers) -> Vec<String> {
    values(&next(answers).expect("a message").expect("no status"))
}

fn end(answers: &mut Answers) -> (Code, String) {
    reason(next(answers).expect("a status"))
}

#[test]
fn a_stream_sends_stored_records_and_then_tails() {
    let node = Node::serving();
    node.client.produce(&produce(&["a", "b"])).expect("appended");
    let mut one_by_one = node.client.consume_stream(&consume(0, 0)).expect("sent");
    let mut batches = node.client.consume_stream(&consume(1, 100)).expect("sent");
    for (offset, value) in [(0, "a"), (1, "b")] {
        let record = next(&mut one_by_one).expect("a message").expect("no status").record.unwrap_or_default();
        assert_eq!((record.offset, &record.value[..]), (offset, value.as_bytes()));
    }
    assert_eq!(next_values(&mut batches), ["b"]);
    node.until("both wait", |node| node.waiters() == 2);
    node.client.produce(&produce(&["c", "d"])).expect("appended");
    assert_eq!(next_values(&mut batches), ["c", "d"]);
    for offset in [2, 3] {
        let record = next(&mut one_by_one).expect("a message").expect("no status").record.unwrap_or_default();
        assert_eq!(record.offset, offset);
    }
    drop((one_by_one, batches));
    node.until("the streams of the client have ended", |node| node.waiters() == 0);
    node.until("they no longer count against the limit", |node| {
        let mut stream = node.client.consume_stream(&consume(0, 1)).expect("sent");
        next(&mut stream).expect("a message").is_ok()
    });
}

#[test]
fn a_stream_stops_at_the_end_sends_heartbeats_and_checks_its_offset() {
    let node = Node::serving();
    node.client.produce(&produce(&["a", "b"])).expect("appended");
    let mut request = consume(0, 1);
    request.stop_at_end = true;
    let mut stream = node.client.consume_stream(&request).expect("sent");
    assert_eq!(next_values(&mut stream), ["a"]);
    assert_eq!(next_values(&mut stream), ["b"]);
    assert!(next(&mut stream).is_none(), "OK");

    let mut past = node.client.consume_stream(&consume(3, 1)).expect("sent");
    assert_eq!(end(&mut past), (Code::OUT_OF_RANGE, "OFFSET_PAST_END".to_owned()));

    let mut request = consume(2, 1);
    request.heartbeat_ms = 1000;
    let started = Instant::now();
    let mut beats = node.client.consume_stream(&request).expect("sent");
    let beat = next(&mut beats).expect("a message").expect("no status");
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!((values(&beat).len(), beat.next_offset), (0, 2));
    request.heartbeat_ms = 1;
    let mut refused = node.client.consume_stream(&request).expect("sent");
    assert_eq!(end(&mut refused), (Code::INVALID_ARGUMENT, "INVALID_REQUEST".to_owned()));
}

/// A trim after the start was determined, and before the first record is read. A start at "earliest" then means the first
/// remaining record. A start at an offset fails and names the first remaining record. No records are skipped silently.
#[test]
fn earliest_moves_with_a_trim_until_the_first_record_is_read() {
    let node = Node::serving();
    node.client.produce(&produce(&["a", "b", "c", "d", "e"])).expect("appended");
    let mut earliest = consume(0, 1);
    earliest.start = log::Start::START_EARLIEST.into();
    earliest.stop_at_end = true;
    node.trim_at_read_index(2);
    let mut stream = node.client.consume_stream(&earliest).expect("sent");
    assert_eq!([next_values(&mut stream), next_values(&mut stream), next_values(&mut stream)], [["c"], ["d"], ["e"]]);
    assert!(next(&mut stream).is_none(), "OK");

    node.trim_at_read_index(3);
    let mut named = consume(2, 1);
    named.stop_at_end = true;
    let (code, info) = refusal(next(&mut node.client.consume_stream(&named).expect("sent")).expect("a status"));
    assert_eq!((code, info.reason.as_str()), (Code::OUT_OF_RANGE, "OFFSET_TRIMMED"));
    assert_eq!(info.metadata.get("first_offset").map(String::as_str), Some("3"));

    // All records are trimmed: an empty log is not an error.
    node.trim_at_read_index(5);
    assert!(next(&mut node.client.consume_stream(&earliest).expect("sent")).is_none(), "OK");
    assert_eq!(node.client.consume(&earliest).expect("an answer").records.len(), 0);
}

#[test]
fn a_stream_ends_when_its_right_is_revoked() {
    let node = Node::serving();
    let mut stream = node.client.consume_stream(&consume(0, 1)).expect("sent");
    node.until("it waits", |node| node.waiters() == 1);
    std::fs::write(&node.policy_file, "p, anonymous, *, produce\n").expect("written");
    assert!(node.acl.reload().expect("a policy"));
    node.api().recheck();
    assert_eq!(end(&mut stream), (Code::PERMISSION_DENIED, "NOT_ALLOWED".to_owned()));
}

#[test]
fn a_shutdown_ends_tails_and_waits_for_proposals() {
    let node = Node::serving();
    let mut tail = node.client.consume_stream(&consume(0, 1)).expect("sent");
    let mut watch = node.health.watch(&HealthCheckRequest::new()).expect("sent");
    let status = |answer: Option<grpcio::Result<crate::pb::health::HealthCheckResponse>>| {
        answer.expect("a message").map(|answer| answer.status.enum_value_or_default())
    };
    assert_eq!(status(block_on(watch.next())).expect("no status"), ServingStatus::SERVING);
    node.fate(Fate::Silence);
    let (mut requests, mut answers) = node.client.produce_stream().expect("sent");
    block_on(requests.send((produce(&["a"]), WriteFlags::default()))).expect("sent");
    node.until("it is proposed", |node| node.silent() == 1 && node.waiters() == 1);
    assert!(!node.api().drain(Instant::now() + Duration::from_millis(50)), "a proposal has no answer yet");
    assert_eq!(end(&mut tail), (Code::UNAVAILABLE, "STOPPING".to_owned()));
    let mut last = status(block_on(watch.next()));
    if matches!(last, Ok(ServingStatus::NOT_SERVING)) {
        last = status(block_on(watch.next()));
    }
    assert_eq!(reason(last), (Code::UNAVAILABLE, "STOPPING".to_owned()));
    node.answer_the_silent(ProposeError::OutcomeUnknown);
    let (status, info) = refusal(block_on(answers.next()).expect("a status"));
    assert_eq!((status, info.reason.as_str()), (Code::UNKNOWN, "OUTCOME_UNKNOWN"));
    assert_eq!(info.metadata.get("unknown_through").map(String::as_str), Some("0"));
    drop((requests, answers));
    assert!(node.api().drain(Instant::now() + Duration::from_secs(5)));
}

#[test]
fn pipelined_requests_are_appended_and_answered_in_order() {
    let node = Node::serving();
    let (mut requests, mut answers) = node.client.produce_stream().expect("sent");
    block_on(async {
        for n in 0..500u64 {
            requests.send((produce(&[&n.to_string(), "x"]), WriteFlags::default())).await.expect("sent");
            if n >= 200 {
                let answer = answers.next().await.expect("an answer").expect("appended");
                assert_eq!(answer.offset, 2 * (n - 200));
            }
        }
        requests.close().await.expect("closed");
        for n in 300..500 {
            assert_eq!(answers.next().await.expect("an answer").expect("appended").offset, 2 * n);
        }
        assert!(answers.next().await.is_none(), "OK");
    });
    assert_eq!(values(&node.client.consume(&consume(998, 10)).expect("records")), ["499", "x"]);
}

/// How many requests were acknowledged, and the status after them.
fn acknowledged(mut answers: ClientDuplexReceiver<log::ProduceResponse>) -> (u64, Code, error_details::ErrorInfo) {
    let mut acknowledged = 0;
    loop {
        match block_on(answers.next()).expect("a status") {
            Ok(_) => acknowledged += 1,
            Err(error) => {
                let (code, info) = refusal::<()>(Err(error));
                return (acknowledged, code, info);
            }
        }
    }
}

#[test]
fn the_first_failure_ends_a_produce_stream_and_names_the_request() {
    let node = Node::serving();
    let fail = |fates: &[Fate], requests_sent: usize| {
        node.fates(fates);
        let (mut requests, answers) = node.client.produce_stream().expect("sent");
        for _ in 0..requests_sent {
            // The stream may have failed already.
            let _ = block_on(requests.send((produce(&["a"]), WriteFlags::default())));
        }
        let (acknowledged, code, info) = acknowledged(answers);
        let get = |key: &str| info.metadata.get(key).and_then(|value| value.parse::<u64>().ok());
        let failed = get("failed_request").expect("where");
        assert!(acknowledged == failed || acknowledged + 1 == failed, "{acknowledged} {failed}");
        (code, info.reason.clone(), failed, get("unknown_through"))
    };
    let full = Fate::Fail(ProposeError::QueueFull);
    let (code, reason, failed, unknown) = fail(&[Fate::Commit, Fate::Commit, full], 3);
    assert_eq!((failed, unknown), (2, None));
    assert_eq!((code, reason.as_str()), (Code::RESOURCE_EXHAUSTED, "QUEUE_FULL"));
    let lost = Fate::Fail(ProposeError::OutcomeUnknown);
    let (code, _, failed, unknown) = fail(&[Fate::Commit, lost], 2);
    assert_eq!((code, failed, unknown), (Code::UNKNOWN, 1, Some(1)));

    // Three requests are unanswered when the first one fails. The leader rejects the later ones. But if the first one may be in
    // the log, they may be too.
    use ProposeError::{Dropped, OutcomeUnknown};
    for (fates, code, unknown) in [
        ([Dropped, Dropped, Dropped], (Code::UNAVAILABLE, "NOT_APPENDED"), None),
        ([OutcomeUnknown, OutcomeUnknown, Dropped], (Code::UNKNOWN, "OUTCOME_UNKNOWN"), Some("1")),
    ] {
        node.fate(Fate::Silence);
        let (mut requests, mut answers) = node.client.produce_stream().expect("sent");
        block_on(async {
            for _ in 0..3 {
                requests.send((produce(&["a"]), WriteFlags::default())).await.expect("sent");
            }
        });
        node.until("all are proposed", |node| node.silent() == 3);
        node.answer_each(fates);
        let (got, info) = refusal(block_on(answers.next()).expect("a status"));
        assert_eq!((got, info.reason.as_str()), code);
        assert_eq!(info.metadata.get("failed_request").map(String::as_str), Some("0"));
        assert_eq!(info.metadata.get("unknown_through").map(String::as_str), unknown);
    }
    node.fate(Fate::Commit);
}

/// The first request of a stream was answered. The second one was dropped because an inbox was full, and the third one reached
/// the leader, which mistook it for the second request of the first run, and appended it. The client was told that no request
/// after the failed one was in the log, and sent both again. One record was in the log twice, and out of order.
#[test]
fn nothing_after_a_rejected_request_is_appended_in_a_later_run() {
    for leader in [ME, OTHER] {
        let node = Node::serving();
        node.leader_is(Some(leader));
        let (mut requests, mut answers) = node.client.produce_stream().expect("sent");
        let mut send = |value: &str| {
            block_on(requests.send((produce(&[value]), WriteFlags::default()))).expect("sent");
        };
        send("a");
        assert_eq!(block_on(answers.next()).expect("an answer").expect("appended").offset, 0);
        node.fates(&[Fate::Silence, Fate::Commit]);
        send("b");
        send("c");
        node.until("both are proposed", |node| node.silent() == 1 && node.proposed() == 3);
        node.answer_the_silent(ProposeError::QueueFull);
        let (acknowledged, code, info) = acknowledged(answers);
        assert_eq!((acknowledged, code), (0, Code::RESOURCE_EXHAUSTED));
        assert_eq!(info.metadata.get("failed_request").map(String::as_str), Some("1"));
        assert_eq!(info.metadata.get("unknown_through"), None);
        assert_eq!(node.out_of_sequence(), 1, "the leader rejected the request after it");
        assert_eq!(values(&node.client.consume(&consume(0, 10)).expect("records")), ["a"]);
    }
}

#[test]
fn a_produce_stream_keeps_its_log_and_is_forwarded_to_the_leader() {
    let node = Node::serving();
    node.leader_is(Some(OTHER));
    let (mut requests, answers) = node.client.produce_stream().expect("sent");
    let mut other = produce(&["b"]);
    other.log = "other".to_owned();
    block_on(async {
        requests.send((produce(&["a"]), WriteFlags::default())).await.expect("sent");
        requests.send((other, WriteFlags::default())).await.expect("sent");
    });
    let (_, code, info) = acknowledged(answers);
    assert_eq!((code, info.reason.as_str()), (Code::INVALID_ARGUMENT, "INVALID_REQUEST"));
    assert_eq!(info.metadata.get("failed_request").map(String::as_str), Some("1"));
    assert_eq!(node.forwarded().len(), 1);
}

#[test]
fn streams_are_limited_for_each_principal() {
    let node = Node::joining(OPEN_POLICY);
    node.serve();
    let max = super::node::limits().streams_per_principal_max;
    let open: Vec<Answers> = (0..max).map(|_| node.client.consume_stream(&consume(0, 1)).expect("sent")).collect();
    node.until("all are open", |node| node.waiters() == max as usize);
    let mut refused = node.client.consume_stream(&consume(0, 1)).expect("sent");
    assert_eq!(end(&mut refused), (Code::RESOURCE_EXHAUSTED, "LIMIT_REACHED".to_owned()));
    drop(open);
}
