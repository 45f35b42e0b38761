//! Revocation for clients that are already connected: a CA is removed, a certificate expires.

use std::fs;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use futures::executor::block_on;
use grpcio::{CallOption, ChannelCredentialsBuilder, RpcStatusCode as Code};
use seriatim::client::{Client, ClientError, ClientFiles};
use seriatim::pb::health::HealthCheckRequest;
use seriatim::pb::health_grpc::HealthClient;
use seriatim::pb::log_service_grpc::LogServiceClient;
use seriatim::pb::v1::{ConsumeRequest, ProduceRequest, Start};
use seriatim::security::certs::{Plan, Request, Usage, make};

use crate::harness::site::CLUSTER;
use crate::harness::{Node, NodeOptions, Site, TIMEOUT, client_with, counter, eventually, next_records, record};

fn start(site: &Site, client_ca: &Path) -> Node {
    let more = vec![format!("--client-ca-file={}", client_ca.display())];
    Node::start(site, NodeOptions { name: "n1".into(), bootstrap: true, more, ..NodeOptions::default() })
}

#[track_caller]
fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Code {
    result.expect_err("refused").status().expect("a status").code
}

#[track_caller]
fn raw_code<T: std::fmt::Debug>(result: grpcio::Result<T>) -> Code {
    match result {
        Err(grpcio::Error::RpcFailure(status)) => status.code(),
        other => panic!("no status, but {other:?}"),
    }
}

/// A tail continued forever after the CA of its certificate was removed, and new calls on its connection succeeded: gRPC verifies
/// a certificate only in the handshake.
#[test]
fn connections_end_when_their_authority_is_removed() {
    let site = Site::new();
    let client_ca = site.path().join("clients.pem");
    fs::copy(site.certs().join("ca.pem"), &client_ca).expect("copied");
    let node = start(&site, &client_ca);
    let other_dir = site.path().join("other");
    make(&other_dir, &Plan::new(CLUSTER).host("localhost").client("root")).expect("certificates");
    let of_other = ClientFiles {
        ca_file: site.certs().join("ca.pem"),
        cert_file: other_dir.join("client-root.pem"),
        key_file: other_dir.join("client-root-key.pem"),
    };
    assert_eq!(code(client_with(&node.rpc_addr, Some(of_other.clone())).get_servers("")), Code::UNAVAILABLE);

    let (root, nobody) = (site.client(&node.rpc_addr, "root"), site.client(&node.rpc_addr, "nobody"));
    root.produce("", vec![record("a")]).expect("appended");
    let request = ConsumeRequest { max_records: 1, ..ConsumeRequest::default() };
    let mut tail = root.consume_stream(&request, Some(TIMEOUT)).expect("a stream");
    assert_eq!(next_records(&mut tail).records.len(), 1);
    let mut appends = root.produce_stream().expect("a stream");
    appends.send(ProduceRequest { records: vec![record("b")], ..ProduceRequest::default() });
    appends.answer().expect("a response").expect("appended");
    assert_eq!(next_records(&mut tail).records.len(), 1);
    let option = || CallOption::default().timeout(TIMEOUT);
    let health = HealthClient::new(nobody.channel().clone());
    let mut watch = health.watch_opt(&HealthCheckRequest::new(), option()).expect("a stream");
    block_on(watch.next()).expect("a response").expect("a status");
    let waits =
        ConsumeRequest { start: Start::START_LATEST.into(), max_records: 1, wait_ms: 50_000, ..request.clone() };
    let polls = LogServiceClient::new(root.channel().clone());
    let poll = polls.consume_async_opt(&waits, option()).expect("a call");
    eventually("the long poll waits", || {
        let streams = counter(&root, "seriatim_streams_now");
        (streams == 4).then_some(()).ok_or(format!("{streams} streams"))
    });

    fs::copy(other_dir.join("ca.pem"), &client_ca).expect("copied");
    node.reload();
    let error = tail.find_map(Result::err).expect("a status");
    let status = error.status().expect("a status");
    assert_eq!((status.code, status.reason.as_str()), (Code::UNAUTHENTICATED, "NO_IDENTITY"), "{status}");
    assert!(status.message.contains("no longer accepted"), "{status}");
    assert_eq!(code(appends.answer().expect("a status")), Code::UNAUTHENTICATED);
    assert_eq!(raw_code(block_on(watch.next()).expect("a status")), Code::UNAUTHENTICATED);
    // A failed connection would return UNAVAILABLE: these are new calls on the open connections.
    for client in [&root, &nobody] {
        assert_eq!(code(client.get_servers("")), Code::UNAUTHENTICATED);
        let health = HealthClient::new(client.channel().clone());
        assert_eq!(raw_code(health.check_opt(&HealthCheckRequest::new(), option())), Code::UNAUTHENTICATED);
    }
    assert_eq!(code(root.produce("", vec![record("x")])), Code::UNAUTHENTICATED);
    assert_eq!(code(root.get_node()), Code::UNAUTHENTICATED);

    let other = client_with(&node.rpc_addr, Some(of_other));
    assert_eq!(other.produce("", vec![record("c")]).expect("appended").offset, 2);
    assert_eq!(
        raw_code(block_on(poll)),
        Code::UNAUTHENTICATED,
        "a long poll of a revoked client does not receive the record"
    );
    assert_eq!(other.consume_at("", 2).expect("a record").value, record("c").value);
}

/// GetServers and the health service did not check certificates: a client with an expired certificate could call them as long as
/// its connection was open.
#[test]
fn an_expired_certificate_gets_no_response_on_an_open_connection() {
    let site = Site::new();
    let node = start(&site, &site.certs().join("ca.pem"));
    let request =
        Request { common_names: vec!["nobody".to_owned()], hosts: vec![], usage: Usage::Client, lifetime_seconds: 5 };
    let issued = site.ca().issue(&request).expect("a certificate");
    let ca = fs::read(site.certs().join("ca.pem")).expect("the CA");
    let credentials = ChannelCredentialsBuilder::new().root_cert(ca).cert(issued.cert_pem, issued.key_pem).build();
    let client = Client::with_credentials(&node.rpc_addr, credentials, Duration::from_secs(10));
    client.get_servers("").expect("servers");
    let health = HealthClient::new(client.channel().clone());
    let option = || CallOption::default().timeout(TIMEOUT);
    let mut watch = health.watch_opt(&HealthCheckRequest::new(), option()).expect("a stream");
    block_on(watch.next()).expect("a response").expect("a status");
    assert_eq!(raw_code(block_on(watch.next()).expect("a status")), Code::UNAUTHENTICATED);
    assert_eq!(code(client.get_servers("")), Code::UNAUTHENTICATED);
    assert_eq!(raw_code(health.check_opt(&HealthCheckRequest::new(), option())), Code::UNAUTHENTICATED);
}
