//! Every limit has its status and its counter.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use grpcio::RpcStatusCode as Code;

use super::node::{Fate, Node, limits};
use super::*;
use crate::client::metrics::{full_name, number};
use crate::grpc::RECEIVE_BUFFER_BYTES;
use crate::grpc::sockets::receive_buffer_bytes;
use crate::metrics::Limit;
use crate::pb::v1;
use crate::security::identity::Principal;

fn counters(node: &Node) -> Vec<(String, i128)> {
    let about = node.cluster.get_node(&v1::GetNodeRequest::new()).expect("an answer");
    about.metrics.iter().filter_map(|metric| Some((full_name(metric), number(metric)?))).collect()
}

fn refused(node: &Node, limit: Limit) -> i128 {
    let name = format!("seriatim_limit_refused_total{{limit=\"{}\"}}", limit.code());
    counters(node).into_iter().find(|(other, _)| *other == name).expect("a counter").1
}

#[test]
fn the_receive_buffer_of_a_connection_is_limited() {
    let node = Node::serving();
    let client = TcpStream::connect(("127.0.0.1", node.api().port())).expect("connected");
    let (node_end, client_end) = (client.peer_addr().expect("connected"), client.local_addr().expect("connected"));
    let until = Instant::now() + Duration::from_secs(10);
    let bytes = loop {
        match receive_buffer_bytes(node_end, client_end) {
            Some(bytes) => break bytes,
            None => assert!(Instant::now() < until, "gRPC did not accept it"),
        }
        std::thread::yield_now();
    };
    let max = std::fs::read_to_string("/proc/sys/net/core/rmem_max").expect("Linux");
    let max: usize = max.trim().parse().expect("a number");
    // Twice: the system adds as much for its bookkeeping.
    assert_eq!(bytes, 2 * RECEIVE_BUFFER_BYTES.min(max));
}

#[test]
fn rejects_and_counts_what_is_too_large() {
    let node = Node::serving();
    let (fits, large) = ("x".repeat(1_000_000), "x".repeat((1 << 20) + 1));
    let too_large = |reason| (Code::INVALID_ARGUMENT, reason);
    let (code, info) = refusal(node.client.produce(&produce(&[&large])));
    assert_eq!((code, info.reason.as_str()), too_large("RECORD_TOO_LARGE"));
    assert_eq!(refused(&node, Limit::RecordBytes), 1);
    assert_eq!(info.metadata.get("record_bytes_max").map(String::as_str), Some("1048576"));

    let (_, info) = refusal(node.client.produce(&produce(&[fits.as_str(); 5])));
    assert_eq!(info.metadata.get("request_bytes_max").map(String::as_str), Some("4194304"));
    // Limits counted what the format adds: a value of exactly 1 MiB was too large for a limit of 1 MiB.
    let whole = 1 << 20;
    node.client.produce(&produce(&[&"x".repeat(whole)])).expect("exactly the limit");
    node.client.produce(&produce(&["x".repeat(whole).as_str(); 4])).expect("exactly the limit of a request");
    let parts = |value: usize| log::ProduceRequest {
        records: vec![log::Record {
            value: vec![b'v'; value].into(),
            key: Some(vec![b'k'; 1000].into()),
            headers: vec![log::Header { name: "n".repeat(10), value: vec![0; 90].into(), ..log::Header::default() }],
            ..log::Record::default()
        }],
        ..log::ProduceRequest::default()
    };
    node.client.produce(&parts(whole - 1100)).expect("value, key and headers are the limit");
    assert_eq!(reason(node.client.produce(&parts(whole - 1099))).1, "RECORD_TOO_LARGE");
    // Empty headers count nothing, and would make a record that clients reject.
    let tiny = log::ProduceRequest {
        records: vec![log::Record { headers: vec![log::Header::default(); 3 << 20], ..log::Record::default() }],
        ..log::ProduceRequest::default()
    };
    assert_eq!(reason(node.client.produce(&tiny)), (Code::INVALID_ARGUMENT, "REQUEST_TOO_LARGE".to_owned()));
    // More records than any entry can hold: the limit that is named is not the log's.
    let many = log::ProduceRequest { records: vec![record(""); 1 << 20], ..log::ProduceRequest::default() };
    let (code, info) = refusal(node.client.produce(&many));
    assert_eq!((code, info.reason.as_str()), too_large("REQUEST_TOO_LARGE"));
    assert!(info.metadata.contains_key("entry_bytes_max") && !info.metadata.contains_key("request_bytes_max"));
    assert_eq!(refused(&node, Limit::RequestBytes), 3);
    assert_eq!(refused(&node, Limit::RecordBytes), 2);

    let mut request = consume(0, 1);
    request.log = "x".repeat(70 << 10);
    let before = refused(&node, Limit::MessageBytes);
    assert_eq!(reason(node.client.consume(&request)), (Code::INVALID_ARGUMENT, "INVALID_REQUEST".to_owned()));
    assert_eq!(refused(&node, Limit::MessageBytes), before + 1);
}

#[test]
fn large_rejected_requests_are_answered_late_and_at_once_by_a_node_that_stops() {
    let mut node = Node::serving();
    // No timer ends, so what is answered late waits until the node stops, however busy the machine is.
    let api = node.api.as_mut().expect("it serves");
    api.stop_timers();
    // So many were rejected that each further one is late, however slowly they arrive.
    let an_hour_ahead = Instant::now() + Duration::from_secs(3600);
    api.limits().refusal_due(&Principal::anonymous(), 5 << 20, an_hour_ahead, None);
    let five = "x".repeat(1_000_000);
    let large: Vec<_> =
        (0..6).map(|_| node.client.produce_async(&produce(&[five.as_str(); 5])).expect("sent")).collect();
    node.until("all are refused", |node| refused(node, Limit::RequestBytes) == large.len() as i128);
    // gRPC sends on a connection in order: their statuses would arrive before this response.
    node.client.produce(&produce(&["a"])).expect("others are served");
    let mut waiting = Vec::new();
    for mut call in large {
        assert!((&mut call).now_or_never().is_none(), "it is answered late");
        waiting.push(call);
    }
    let over = Instant::now() + Duration::from_secs(60);
    let api = node.api.take().expect("it serves");
    assert!(api.drain(over), "it does not wait for them");
    for call in waiting {
        assert_eq!(reason(futures::executor::block_on(call)).0, Code::INVALID_ARGUMENT);
    }
    api.stop();
}

#[test]
fn calls_and_bytes_of_one_principal_are_limited() {
    let node = Node::serving();
    node.fate(Fate::Silence);
    let max = limits().calls_per_principal_max as usize;
    let waiting: Vec<_> = (0..max).map(|_| node.client.produce_async(&produce(&["a"])).expect("sent")).collect();
    node.until("all wait", |node| node.silent() == max);
    let (code, info) = refusal(node.client.produce(&produce(&["a"])));
    assert_eq!((code, info.reason.as_str()), (Code::RESOURCE_EXHAUSTED, "LIMIT_REACHED"));
    assert_eq!(info.metadata.get("limit").map(String::as_str), Some("calls_per_principal_max"));
    node.answer_the_silent(crate::consensus::handle::ProposeError::Dropped);
    for call in waiting {
        futures::executor::block_on(call).expect_err("dropped");
    }
    assert_eq!(refused(&node, Limit::PrincipalCalls), 1);

    // Twelve MiB in flight, in three requests of four.
    let four = "x".repeat(1_000_000);
    let waiting: Vec<_> =
        (0..3).map(|_| node.client.produce_async(&produce(&[four.as_str(); 4])).expect("sent")).collect();
    node.until("three wait", |node| node.silent() == 3);
    let (code, info) = refusal(node.client.produce(&produce(&[four.as_str(); 4])));
    assert_eq!((code, info.reason.as_str()), (Code::RESOURCE_EXHAUSTED, "LIMIT_REACHED"));
    assert_eq!(info.metadata.get("limit").map(String::as_str), Some("bytes_per_principal_max"));
    assert_eq!(refused(&node, Limit::PrincipalBytes), 1);
    drop(waiting);
}
