//! Limits: a node with small ones refuses requests with a status that names the limit, and accepts them again afterwards.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use grpcio::{CallOption, RpcStatusCode as Code};
use openssl::ssl::{SslConnector, SslFiletype, SslMethod};
use seriatim::client::{Client, ClientError};
use seriatim::pb::log_service_grpc::LogServiceClient;
use seriatim::pb::unary::Response;
use seriatim::pb::v1::{ConsumeRequest, ConsumeResponse};

use crate::harness::{Cluster, TIMEOUT, counter, eventually, next_records, record};

/// Asserts that the status names the limit, its value, and when to retry.
#[track_caller]
fn assert_limit_reached<T: std::fmt::Debug>(result: Result<T, ClientError>, limit: &str, max: u64) {
    let error = result.expect_err("refused");
    let status = error.status().expect("a status");
    assert_eq!((status.code, status.reason.as_str()), (Code::RESOURCE_EXHAUSTED, "LIMIT_REACHED"), "{status}");
    assert_eq!(status.metadata.get("limit").map(String::as_str), Some(limit), "{status}");
    assert_eq!(status.number("max"), Some(max), "{status}");
    assert!(status.retry_after.is_some(), "{status}");
}

/// Calls `Consume` at the end of an empty log, where it waits for up to a minute.
fn long_poll(client: &Client) -> Response<ConsumeResponse> {
    let request = ConsumeRequest { max_records: 1, wait_ms: 60_000, ..ConsumeRequest::default() };
    LogServiceClient::new(client.channel().clone()).consume_async_opt(&request, CallOption::default()).expect("a call")
}

#[track_caller]
fn wait_for(client: &Client, name: &str, wanted: u64) {
    eventually(name, || match counter(client, name) {
        now if now == wanted => Ok(()),
        now => Err(format!("{now}, not {wanted}")),
    });
}

/// Two clients, each below its own limit, reach the limit of all clients together.
#[test]
fn streams_max_limits_all_clients_together() {
    let cluster = Cluster::start_with(1, &["--streams-max=2"]);
    let client = |user| cluster.site.client(&cluster.nodes[0].rpc_addr, user);
    let (root, reader) = (client("root"), client("reader"));
    let tail = |client: &Client| {
        let request = ConsumeRequest { max_records: 1, ..ConsumeRequest::default() };
        client.consume_stream(&request, Some(TIMEOUT)).expect("a stream")
    };
    let (mut first, second) = (tail(&root), tail(&reader));
    wait_for(&root, "seriatim_streams_now", 2);
    for client in [&root, &reader] {
        assert_limit_reached(tail(client).next().expect("a status"), "streams_max", 2);
    }
    assert_eq!(counter(&root, "seriatim_limit_refused_total{limit=\"streams_max\"}"), 2);
    // Other calls and the open streams continue.
    root.produce("", vec![record("x")]).expect("appended");
    assert_eq!(next_records(&mut first).records.len(), 1);

    drop(second);
    wait_for(&root, "seriatim_streams_now", 1);
    let mut again = tail(&reader);
    assert_eq!(next_records(&mut again).records.len(), 1);
}

/// While two clients wait for records, a third one's call is refused.
#[test]
fn calls_max_limits_all_clients_together() {
    let cluster = Cluster::start_with(1, &["--calls-max=3"]);
    let client = |user| cluster.site.client(&cluster.nodes[0].rpc_addr, user);
    let (root, reader, writer) = (client("root"), client("reader"), client("writer"));
    let waiting = [long_poll(&root), long_poll(&reader)];
    // Both long polls, and the call that reads the counter.
    wait_for(&root, "seriatim_calls_now", 3);
    let third = long_poll(&reader);
    // The third long poll may not have arrived yet: then this call is accepted.
    eventually("a call above the limit is refused", || match writer.get_log("") {
        Ok(_) => Err("accepted".to_owned()),
        Err(error) => {
            assert_limit_reached::<()>(Err(error), "calls_max", 3);
            Ok(())
        }
    });
    assert_limit_reached(writer.produce("", vec![record("x")]), "calls_max", 3);

    drop((waiting, third));
    eventually("a call is accepted again", || writer.produce("", vec![record("x")]).map_err(|e| e.to_string()));
    wait_for(&root, "seriatim_calls_now", 1);
    assert!(counter(&root, "seriatim_limit_refused_total{limit=\"calls_max\"}") >= 2);
    assert_eq!(root.get_log("").expect("a log").position.next_offset, 1, "refused records are not appended");
}

/// A waiting `Consume` counted against the limits for its whole `wait_ms`, up to a minute, although its client had cancelled it.
/// A client that cancelled calls or reconnected was soon refused with LIMIT_REACHED.
#[test]
fn an_abandoned_long_poll_ends() {
    let cluster = Cluster::start_with(1, &["--calls-per-principal-max=8"]);
    let (watch, reader) = (cluster.client(0), || cluster.site.client(&cluster.nodes[0].rpc_addr, "reader"));
    let staying = reader();
    let begin = Instant::now();
    let calls: Vec<_> = (0..8).map(|_| long_poll(&staying)).collect();
    wait_for(&watch, "seriatim_calls_now", 9);
    assert_limit_reached(staying.consume_at("", 0), "calls_per_principal_max", 8);
    calls.into_iter().for_each(|mut call| call.cancel());
    wait_for(&watch, "seriatim_calls_now", 1);
    wait_for(&watch, "seriatim_streams_now", 0);

    // The connection of one client closes.
    let (waiting, leaving) = (long_poll(&staying), reader());
    let calls: Vec<_> = (0..7).map(|_| long_poll(&leaving)).collect();
    wait_for(&watch, "seriatim_calls_now", 9);
    drop((calls, leaving));
    wait_for(&watch, "seriatim_calls_now", 2);
    assert!(begin.elapsed() < Duration::from_secs(40), "they ended before their wait_ms: {:?}", begin.elapsed());

    // A long poll that was not abandoned returns its record.
    watch.produce("", vec![record("x")]).expect("appended");
    let answer = futures::executor::block_on(waiting).expect("a response");
    assert_eq!(answer.records.len(), 1);
}

/// A connection with an unfinished handshake is closed after ten seconds, on both listeners, and does not delay others: a silent
/// one, one that stops within its first message, and one that sends a complete ClientHello but does not finish the handshake.
#[test]
fn an_unfinished_handshake_is_closed() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let tcp = |addr: &str| {
        let tcp = TcpStream::connect(addr).expect("a connection");
        tcp.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        tcp
    };
    let begin = Instant::now();
    let mut stuck = Vec::new();
    for addr in [&node.rpc_addr, &node.bind_addr] {
        stuck.push(tcp(addr));
        // Announces a record of 512 bytes with a ClientHello, and sends four of its bytes.
        let mut half = tcp(addr);
        half.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]).expect("sent");
        stuck.push(half);
        stuck.push(hello_alone(tcp(addr), &cluster));
    }
    let client = cluster.client(0);
    client.produce("", vec![record("x")]).expect("appended");
    assert!(begin.elapsed() < Duration::from_secs(5), "an honest client does not wait: {:?}", begin.elapsed());
    for (number, mut tcp) in stuck.into_iter().enumerate() {
        let mut buffer = [0; 4096];
        // The node's own handshake messages come before the end of the stream.
        let end = loop {
            match tcp.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break Err(error),
                // A reset ends it as well.
                Err(_) => break Ok(()),
            }
        };
        let after = begin.elapsed();
        assert!(end.is_ok(), "connection {number} is still open after {after:?}");
        assert!((5..25).contains(&after.as_secs()), "connection {number} was closed after {after:?}");
    }
    client.produce("", vec![record("y")]).expect("the node serves requests");
}

/// Sends the first message of a real handshake, and nothing more.
fn hello_alone(mut tcp: TcpStream, cluster: &Cluster) -> TcpStream {
    /// Keeps what is written, and returns `WouldBlock` to reads.
    #[derive(Debug)]
    struct Kept(Vec<u8>);
    impl std::io::Read for Kept {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(ErrorKind::WouldBlock.into())
        }
    }
    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let files = cluster.site.client_files("root");
    let mut connector = SslConnector::builder(SslMethod::tls_client()).expect("a connector");
    connector.set_ca_file(&files.ca_file).expect("a CA");
    connector.set_certificate_chain_file(&files.cert_file).expect("a certificate");
    connector.set_private_key_file(&files.key_file, SslFiletype::PEM).expect("a key");
    connector.set_alpn_protos(b"\x02h2").expect("a protocol");
    let stopped = connector.build().connect("localhost", Kept(Vec::new())).expect_err("there is no response");
    let openssl::ssl::HandshakeError::WouldBlock(stopped) = stopped else { panic!("{stopped:?}") };
    let hello = &stopped.get_ref().0;
    assert!(hello.len() > 100, "{} bytes", hello.len());
    tcp.write_all(hello).expect("sent");
    // The node's response shows that it has read the ClientHello.
    tcp.read_exact(&mut [0; 5]).expect("a response");
    tcp
}
