//! Requests with one response.

use std::time::{Duration, Instant};

use grpcio::{CallOption, RpcStatusCode as Code};

use super::node::{Fate, LOG_ID, ME, Node, OTHER, TIME_US};
use super::*;
use crate::api::messages::{Request, method};
use crate::client::metrics::number;
use crate::consensus::handle::{ProposeError, ReadIndexError};
use crate::pb::health::HealthCheckRequest;
use crate::pb::health::health_check_response::ServingStatus;
use crate::pb::{log, v1};

fn code(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

#[test]
fn a_joining_node_rejects_requests_and_then_serves_until_it_stops() {
    let node = Node::joining(super::node::OPEN_POLICY);
    let health = || node.health.check(&HealthCheckRequest::new()).expect("healthy").status.enum_value_or_default();
    assert_eq!(health(), ServingStatus::NOT_SERVING);
    assert_eq!(reason(node.client.produce(&produce(&["a"]))), code(Code::UNAVAILABLE, "JOINING"));
    assert_eq!(reason(node.client.get_servers(&log::GetServersRequest::new())), code(Code::UNAVAILABLE, "JOINING"));
    // The rejection contains the current reason.
    for reason in ["no answer from a:1", "asked to be admitted by b:1"] {
        node.waiting.set(reason);
        let error = node.client.produce(&produce(&["a"])).expect_err("refused");
        assert!(error.to_string().contains(reason), "{error}");
        let about = node.cluster.get_node(&v1::GetNodeRequest::new()).expect("an answer");
        assert_eq!((about.name.as_str(), about.cluster_id.as_str(), about.waiting_for.as_str()), ("one", "", reason));
    }

    node.serve();
    assert_eq!(health(), ServingStatus::SERVING);
    assert_eq!(node.client.produce(&produce(&["a"])).expect("appended").offset, 0);
    let about = node.cluster.get_node(&v1::GetNodeRequest::new()).expect("an answer");
    assert_eq!((about.cluster_id.as_str(), about.groups.len()), ("0000000000000007", 1));
    assert_eq!(about.waiting_for, "");
    assert_eq!((about.groups[0].leader.as_str(), about.groups[0].next_offset), ("one", 1));

    node.api().leave();
    assert_eq!(health(), ServingStatus::NOT_SERVING);
    assert_eq!(node.client.produce(&produce(&["b"])).expect("appended").offset, 1);
    assert!(node.api().drain(Instant::now() + Duration::from_secs(5)));
    assert_eq!(reason(node.client.produce(&produce(&["a"]))), code(Code::UNAVAILABLE, "STOPPING"));
}

/// Dashboards and alerts contain these names.
#[test]
fn get_node_returns_current_values_under_their_names() {
    let node = Node::joining(super::node::OPEN_POLICY);
    let value = |name: &str| {
        let about = node.cluster.get_node(&v1::GetNodeRequest::new()).expect("an answer");
        about.metrics.iter().find(|metric| metric.name == name).and_then(number)
    };
    assert_eq!(value("seriatim_calls_now"), Some(1), "the request itself");
    assert_eq!(value("seriatim_streams_now"), Some(0));
    assert!(value("seriatim_bytes_in_flight_now").is_some_and(|bytes| bytes > 0));
    assert_eq!(value("seriatim_replicas_damaged_now"), None, "it has no replicas yet");
    node.serve();
    for name in ["replicas_damaged_now", "damaged_ranges_now", "stamp_ahead_seconds", "peer_messages_dropped_total"] {
        assert_eq!(value(&format!("seriatim_{name}")), Some(0), "{name}");
    }
    assert!(value("seriatim_unprotected_bytes_now").is_some());
    node.damaged();
    assert_eq!(value("seriatim_replicas_damaged_now"), Some(1));
}

/// A node without a majority in reach, or with a damaged replica, said SERVING, and load balancers kept sending it
/// requests.
#[test]
fn a_node_without_a_majority_does_not_serve_the_log() {
    let node = Node::serving();
    let health = |name: &str| {
        let request = HealthCheckRequest { service: name.to_owned(), ..HealthCheckRequest::new() };
        node.health.check(&request).expect("an answer").status.enum_value_or_default()
    };
    let log = "seriatim.v1.LogService";
    assert_eq!(health(log), ServingStatus::SERVING);
    node.read_index(Err(ReadIndexError::Unconfirmed));
    let begin = Instant::now();
    while health(log) == ServingStatus::SERVING {
        assert!(begin.elapsed() < Duration::from_secs(2), "a success does not count for long");
        std::thread::yield_now();
    }
    assert!(begin.elapsed() > Duration::from_secs(3), "an election is not a failure");
    assert_eq!((health(""), health("seriatim.v1.ClusterService")), (ServingStatus::SERVING, ServingStatus::SERVING));
    node.read_index(Ok(()));
    assert_eq!(health(log), ServingStatus::SERVING);
    node.damaged();
    assert_eq!((health(log), health("")), (ServingStatus::NOT_SERVING, ServingStatus::SERVING));
}

#[test]
fn one_record_in_one_record_out() {
    let node = Node::serving();
    let mut request = log::ProduceRequest::new();
    request.record = Some(record("foo")).into();
    let answer = node.client.produce(&request).expect("appended");
    assert_eq!((answer.offset, answer.count, answer.term, answer.append_time_us), (0, 1, 1, TIME_US));
    assert_eq!(answer.log_id, LOG_ID.0);

    let answer = node.client.consume(&consume(0, 0)).expect("a record");
    let got = answer.record.clone().unwrap_or_default();
    assert_eq!((&got.value[..], got.offset, got.term, got.append_time_us), (&b"foo"[..], 0, 1, TIME_US));
    let mut alone = log::ConsumeResponse::new();
    alone.record = answer.record.clone();
    assert_eq!(answer, alone, "where max_records is 0, nothing else is set");
}

#[test]
fn batches_both_ways() {
    let node = Node::serving();
    assert_eq!(node.client.produce(&produce(&["a", "", "c"])).expect("appended").count, 3);
    let mut next = produce(&["d"]);
    next.expected_offset = Some(3);
    assert_eq!(node.client.produce(&next).expect("appended").offset, 3);
    assert_eq!(reason(node.client.produce(&next)), code(Code::FAILED_PRECONDITION, "EXPECTED_OFFSET_MISMATCH"));
    let mut other = produce(&["e"]);
    other.log_id = Some(1);
    assert_eq!(reason(node.client.produce(&other)), code(Code::FAILED_PRECONDITION, "LOG_ID_MISMATCH"));

    let all = node.client.consume(&consume(0, 100)).expect("records");
    assert_eq!(values(&all), ["a", "", "c", "d"]);
    assert_eq!((all.first_offset, all.next_offset, all.log_id), (0, 4, LOG_ID.0));
    let two = node.client.consume(&consume(1, 2)).expect("records");
    assert_eq!(values(&two), ["", "c"]);
    let mut small = consume(1, 100);
    small.max_bytes = 1;
    assert_eq!(values(&node.client.consume(&small).expect("records")), [""], "one record, even if larger");
}

#[test]
fn offsets_outside_of_the_log_are_out_of_range() {
    let node = Node::serving();
    node.client.produce(&produce(&["a", "b", "c"])).expect("appended");
    assert_eq!(reason(node.client.consume(&consume(3, 0))), code(Code::OUT_OF_RANGE, "OFFSET_PAST_END"));
    assert_eq!(values(&node.client.consume(&consume(3, 1)).expect("empty")), [""; 0]);
    let (status, info) = refusal(node.client.consume(&consume(4, 1)));
    assert_eq!((status, info.reason.as_str()), (Code::OUT_OF_RANGE, "OFFSET_PAST_END"));
    assert_eq!(info.metadata.get("next_offset").map(String::as_str), Some("3"));

    let mut trim = v1::TrimLogRequest::new();
    trim.first_offset = 4;
    assert_eq!(reason(node.logs.trim_log(&trim)), code(Code::OUT_OF_RANGE, "OFFSET_PAST_END"));
    for (first_offset, trimmed) in [(2, 2), (1, 0)] {
        trim.first_offset = first_offset;
        let answer = node.logs.trim_log(&trim).expect("trimmed");
        assert_eq!((answer.log.position.first_offset, answer.trimmed_records), (2, trimmed), "never lower");
    }
    let (status, info) = refusal(node.client.consume(&consume(1, 1)));
    assert_eq!((status, info.reason.as_str()), (Code::OUT_OF_RANGE, "OFFSET_TRIMMED"));
    assert_eq!(info.metadata.get("first_offset").map(String::as_str), Some("2"));
    let mut earliest = consume(0, 9);
    earliest.start = log::Start::START_EARLIEST.into();
    assert_eq!(values(&node.client.consume(&earliest).expect("records")), ["c"]);
    let about = node.client.get_log(&log::GetLogRequest::new()).expect("an answer");
    assert_eq!((about.first_offset, about.next_offset, about.log.as_str()), (2, 3, "default"));
    assert_eq!((about.first_append_time_us, about.last_append_time_us), (TIME_US, TIME_US));
    assert!(about.stored_bytes > 0);
}

#[test]
fn a_consume_waits_for_a_record_or_ends_empty() {
    let node = Node::serving();
    let mut request = consume(0, 1);
    request.wait_ms = 30;
    assert_eq!(values(&node.client.consume(&request).expect("empty")), [""; 0]);
    request.max_records = 0;
    assert_eq!(reason(node.client.consume(&request)), code(Code::OUT_OF_RANGE, "OFFSET_PAST_END"));
    request.wait_ms = 60_000;
    request.start = log::Start::START_LATEST.into();
    let waits = node.client.consume_async(&request).expect("sent");
    node.until("the consume waits", |node| node.waiters() == 1);
    node.client.produce(&produce(&["late"])).expect("appended");
    let answer = futures::executor::block_on(waits).expect("a record");
    assert_eq!(&answer.record.value[..], b"late");
    let short = CallOption::default().timeout(Duration::from_secs(2));
    request.max_records = 1;
    let empty = node.client.consume_opt(&request, short).expect("an answer before the deadline");
    assert_eq!(values(&empty), [""; 0]);
}

#[test]
fn a_lagging_node_asks_the_leader_before_it_rejects_an_offset() {
    let node = Node::serving();
    node.fate(Fate::CommitElsewhere);
    assert_eq!(node.client.produce(&produce(&["a"])).expect("appended").offset, 0);
    let waits = node.client.consume_async(&consume(0, 0)).expect("sent");
    node.until("the consume waits", |node| node.waiters() >= 1);
    node.catch_up();
    assert_eq!(&futures::executor::block_on(waits).expect("a record").record.value[..], b"a");
    node.read_index(Err(ReadIndexError::Unconfirmed));
    assert_eq!(reason(node.client.consume(&consume(1, 0))), code(Code::UNAVAILABLE, "NO_LEADER"));
    assert_eq!(&node.client.consume(&consume(0, 0)).expect("needs no leader").record.value[..], b"a");
}

#[test]
fn a_follower_forwards_once() {
    let node = Node::serving();
    node.leader_is(Some(OTHER));
    node.fates(&[Fate::Fail(ProposeError::NotLeader { leader: Some(OTHER) })]);
    assert_eq!(node.client.produce(&produce(&["a"])).expect("appended").offset, 0);
    assert_eq!(node.forwarded(), ["anonymous"]);
    let away = Fate::Fail(ProposeError::NotLeader { leader: Some(OTHER) });
    for (fate, expected) in [
        (ProposeError::Dropped, code(Code::UNAVAILABLE, "NOT_APPENDED")),
        (ProposeError::NotLeader { leader: Some(ME) }, code(Code::UNAVAILABLE, "NOT_APPENDED")),
        (ProposeError::OutcomeUnknown, code(Code::UNKNOWN, "OUTCOME_UNKNOWN")),
        (ProposeError::QueueFull, code(Code::RESOURCE_EXHAUSTED, "QUEUE_FULL")),
        (ProposeError::DiskFull, code(Code::RESOURCE_EXHAUSTED, "DISK_FULL")),
    ] {
        node.fates(&[away, Fate::Fail(fate)]);
        assert_eq!(reason(node.client.produce(&produce(&["a"]))), expected);
    }
    assert_eq!(node.forwarded().len(), 6, "one hop each");
    node.fates(&[Fate::Fail(ProposeError::NotLeader { leader: None })]);
    assert_eq!(reason(node.client.produce(&produce(&["a"]))), code(Code::UNAVAILABLE, "NO_LEADER"));
    // It considered itself the leader until just now.
    node.leader_is(Some(ME));
    node.fates(&[away]);
    assert_eq!(reason(node.client.produce(&produce(&["a"]))), code(Code::UNAVAILABLE, "NOT_APPENDED"));
    assert_eq!(node.forwarded().len(), 6);
}

#[test]
fn bad_requests_have_clear_statuses() {
    let node = Node::serving();
    let invalid = code(Code::INVALID_ARGUMENT, "INVALID_REQUEST");
    assert_eq!(reason(node.client.produce(&produce(&[]))), invalid);
    let mut both = produce(&["a"]);
    both.record = Some(record("b")).into();
    assert_eq!(reason(node.client.produce(&both)), invalid);
    let mut named = produce(&["a"]);
    named.log = "no/name".to_owned();
    assert_eq!(reason(node.client.produce(&named)), invalid);
    named.log = "absent".to_owned();
    assert_eq!(reason(node.client.produce(&named)), code(Code::NOT_FOUND, "NO_SUCH_LOG"));
    let mut unbuilt = produce(&["a"]);
    unbuilt.producer_id = 1;
    assert_eq!(reason(node.client.produce(&unbuilt)), code(Code::UNIMPLEMENTED, "UNIMPLEMENTED"));
    let large = "x".repeat((1 << 20) + 1);
    assert_eq!(reason(node.client.produce(&produce(&[&large]))), code(Code::INVALID_ARGUMENT, "RECORD_TOO_LARGE"));
    let half = "x".repeat(1 << 19);
    let batch = produce(&[half.as_str(); 9]);
    assert_eq!(reason(node.client.produce(&batch)), code(Code::INVALID_ARGUMENT, "REQUEST_TOO_LARGE"));
    let batch = produce(&[half.as_str(); 17]);
    assert_eq!(reason(node.client.produce(&batch)), code(Code::INVALID_ARGUMENT, "REQUEST_TOO_LARGE"));
    let batch = produce(&[half.as_str(); 20]);
    let status = rpc_status(node.client.produce(&batch).expect_err("too large a message"));
    assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED, "gRPC rejects the message itself: {status}");

    let raw = |bytes: &[u8]| {
        let client = grpcio::Client::new(node.channel.clone());
        let method = method::<log::ProduceResponse>(grpcio::MethodType::Unary, "/log.v1.Log/Produce");
        let request = Request(bytes.to_vec());
        client.unary_call(&method, &request, CallOption::default())
    };
    assert_eq!(reason(raw(&[0xff])), invalid);
    assert_eq!(reason(raw(&[0x1a, 200, 1])), invalid);
    assert_eq!(reason(raw(&[])), invalid);
    assert_eq!(node.client.produce(&produce(&["a"])).expect("appended").offset, 0, "nothing of it was appended");
}

#[test]
fn rights_are_checked_before_anything_is_looked_up() {
    let node = Node::joining("p, anonymous, team-*, produce\n");
    node.serve();
    let status = rpc_status(node.client.consume(&consume(0, 0)).expect_err("no right at all"));
    assert_eq!(status.code(), Code::PERMISSION_DENIED);
    let mut request = produce(&["a"]);
    assert_eq!(reason(node.client.produce(&request)), code(Code::PERMISSION_DENIED, "NOT_ALLOWED"));
    request.log = "absent".to_owned();
    assert_eq!(reason(node.client.produce(&request)), code(Code::PERMISSION_DENIED, "NOT_ALLOWED"));
    request.log = "team-absent".to_owned();
    assert_eq!(reason(node.client.produce(&request)), code(Code::NOT_FOUND, "NO_SUCH_LOG"));
    let about = || rpc_status(node.cluster.get_node(&v1::GetNodeRequest::new()).expect_err("no right to that"));
    assert_eq!(about().code(), Code::PERMISSION_DENIED);
    assert!(about().message().contains("may not administer any log"), "{}", about().message());
    // A client that may administer one log was told that it may administer none.
    std::fs::write(&node.policy_file, "p, anonymous, team-*, admin\n").expect("written");
    assert!(node.acl.reload().expect("a policy"));
    assert_eq!(about().code(), Code::PERMISSION_DENIED);
    assert!(about().message().contains("may not administer every log (`*` in the policy)"), "{}", about().message());
    assert_eq!(node.client.get_servers(&log::GetServersRequest::new()).expect("for everybody").servers.len(), 2);
}

#[test]
fn lists_servers_with_at_most_one_leader() {
    let node = Node::serving();
    let servers = || node.client.get_servers(&log::GetServersRequest::new()).expect("an answer");
    let answer = servers();
    let flags = answer.servers.iter().map(|s| (s.id.as_str(), s.rpc_addr.as_str(), s.is_leader, s.is_voter));
    assert_eq!(flags.collect::<Vec<_>>(), [("one", "one:2", true, true), ("two", "two:2", false, false)]);
    assert_eq!((answer.term, answer.cluster_id.as_str()), (1, "0000000000000007"));
    node.leader_is(None);
    assert!(servers().servers.iter().all(|server| !server.is_leader));
    let mut absent = log::GetServersRequest::new();
    absent.log = "absent".to_owned();
    assert_eq!(reason(node.client.get_servers(&absent)), code(Code::NOT_FOUND, "NO_SUCH_LOG"));
}

#[test]
fn a_shutdown_does_not_wait_for_unanswered_requests() {
    let mut node = Node::serving();
    node.fate(Fate::Silence);
    let unanswered = node.client.produce_async(&produce(&["a"])).expect("sent");
    node.until("it is proposed", |node| node.silent() == 1);
    let started = Instant::now();
    node.api.take().expect("running").stop();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(futures::executor::block_on(unanswered).is_err());
}
