//! Limits, reached in a node that has small ones: the status that tells which, and that there is room again afterwards.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use grpcio::{CallOption, ClientUnaryReceiver, RpcStatusCode as Code};
use openssl::ssl::{SslConnector, SslFiletype, SslMethod};
use seriatim::client::{Client, ClientError};
use seriatim::pb::log::{ConsumeRequest, ConsumeResponse};
use seriatim::pb::log_grpc::LogClient;

use crate::harness::{Cluster, TIMEOUT, eventually, record};

/// The status says which limit, how much it is, and when to try again.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>, limit: &str, max: u64) {
    let error = result.expect_err("refused");
    let status = error.status().expect("a status");
    assert_eq!((status.code, status.reason.as_str()), (Code::RESOURCE_EXHAUSTED, "LIMIT_REACHED"), "{status}");
    assert_eq!(status.metadata.get("limit").map(String::as_str), Some(limit), "{status}");
    assert_eq!(status.number("max"), Some(max), "{status}");
    assert!(status.retry_after.is_some(), "{status}");
}

/// A `Consume` at the end of an empty log, which waits for a minute.
fn long_poll(client: &Client) -> ClientUnaryReceiver<ConsumeResponse> {
    let request = ConsumeRequest { max_records: 1, wait_ms: 60_000, ..ConsumeRequest::default() };
    LogClient::new(client.channel().clone()).consume_async_opt(&request, CallOption::default()).expect("a call")
}

fn counter(client: &Client, name: &str) -> u64 {
    let node = client.get_node().expect("a response");
    node.counters.iter().find(|c| c.name == name).map_or(0, |c| c.value)
}

#[track_caller]
fn wait_for(client: &Client, name: &str, wanted: u64) {
    eventually(name, || match counter(client, name) {
        now if now == wanted => Ok(()),
        now => Err(format!("{now}, not {wanted}")),
    });
}

/// Two callers, each far from its own limit, use up what all have together.
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
        refused(tail(client).next().expect("a status"), "streams_max", 2);
    }
    assert_eq!(counter(&root, "seriatim_limit_refused_total{limit=\"streams_max\"}"), 2);
    // Other calls go on, and so do the streams that are open.
    root.produce("", vec![record("x")]).expect("appended");
    assert_eq!(first.next().expect("a response").expect("records").records.len(), 1);

    drop(second);
    wait_for(&root, "seriatim_streams_now", 1);
    let mut again = tail(&reader);
    assert_eq!(again.next().expect("a response").expect("there is room again").records.len(), 1);
}

/// Two callers wait for records: then there is no room for a third one's call, whoever it is.
#[test]
fn calls_max_limits_all_clients_together() {
    let cluster = Cluster::start_with(1, &["--calls-max=3"]);
    let client = |user| cluster.site.client(&cluster.nodes[0].rpc_addr, user);
    let (root, reader, writer) = (client("root"), client("reader"), client("writer"));
    let waiting = [long_poll(&root), long_poll(&reader)];
    // Both, and the call that asks.
    wait_for(&root, "seriatim_calls_now", 3);
    let third = long_poll(&reader);
    // It may have come or not: then the one that looks is refused, or not.
    eventually("a call too many", || match writer.get_log("") {
        Ok(_) => Err("there is room".to_owned()),
        Err(error) => {
            refused::<()>(Err(error), "calls_max", 3);
            Ok(())
        }
    });
    refused(writer.produce("", vec![record("x")]), "calls_max", 3);

    drop((waiting, third));
    eventually("room again", || writer.produce("", vec![record("x")]).map_err(|e| e.to_string()));
    wait_for(&root, "seriatim_calls_now", 1);
    assert!(counter(&root, "seriatim_limit_refused_total{limit=\"calls_max\"}") >= 2);
    assert_eq!(root.get_log("").expect("a log").next_offset, 1, "what was refused was not appended");
}

/// A `Consume` that waits kept its place for the whole of its `wait_ms`, up to a minute, although nobody waited for its answer
/// any more: who cancelled its calls, or came back with a new connection, was soon refused with LIMIT_REACHED.
#[test]
fn an_abandoned_long_poll_ends() {
    let cluster = Cluster::start_with(1, &["--calls-per-principal-max=8"]);
    let (watch, reader) = (cluster.client(0), || cluster.site.client(&cluster.nodes[0].rpc_addr, "reader"));
    let staying = reader();
    let begin = Instant::now();
    let calls: Vec<_> = (0..8).map(|_| long_poll(&staying)).collect();
    wait_for(&watch, "seriatim_calls_now", 9);
    refused(staying.consume_at("", 0), "calls_per_principal_max", 8);
    calls.into_iter().for_each(|mut call| call.cancel());
    wait_for(&watch, "seriatim_calls_now", 1);
    wait_for(&watch, "seriatim_streams_now", 0);

    // The whole connection goes.
    let (waiting, leaving) = (long_poll(&staying), reader());
    let calls: Vec<_> = (0..7).map(|_| long_poll(&leaving)).collect();
    wait_for(&watch, "seriatim_calls_now", 9);
    drop((calls, leaving));
    wait_for(&watch, "seriatim_calls_now", 2);
    assert!(begin.elapsed() < Duration::from_secs(40), "they ended because their client went: {:?}", begin.elapsed());

    // And one that is waited for gets its record: it was looked at as often as those that went.
    watch.produce("", vec![record("x")]).expect("appended");
    let answer = futures::executor::block_on(waiting).expect("a response");
    assert_eq!(answer.records.len(), 1);
}

/// Who connects and never ends its handshake is closed after ten seconds: one that says nothing, one that stops in the middle
/// of its first message, one whose TLS is done but for its own last words. On both listeners, and nobody else waits for them.
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
        // A record of 512 bytes is announced, a ClientHello, and four of its bytes come.
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
        // What the node said of its own handshake stands before the end.
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
    client.produce("", vec![record("y")]).expect("the node goes on");
}

/// Sends the first message of a real handshake, and nothing after it.
fn hello_alone(mut tcp: TcpStream, cluster: &Cluster) -> TcpStream {
    /// Keeps what is written, and has nothing to read.
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
    let stopped = connector.build().connect("localhost", Kept(Vec::new())).expect_err("nobody answers");
    let openssl::ssl::HandshakeError::WouldBlock(stopped) = stopped else { panic!("{stopped:?}") };
    let hello = &stopped.get_ref().0;
    assert!(hello.len() > 100, "{} bytes", hello.len());
    tcp.write_all(hello).expect("sent");
    // The node's answer shows that it took it.
    tcp.read_exact(&mut [0; 5]).expect("a response");
    tcp
}
