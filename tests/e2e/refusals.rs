//! Authentication and authorization: each refusal over a real connection.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use grpcio::{
    CertificateRequestType, ChannelCredentials, ChannelCredentialsBuilder, RpcContext, RpcStatus,
    RpcStatusCode as Code, ServerCredentialsBuilder, UnarySink,
};
use seriatim::client::{Client, ClientError};
use seriatim::grpc;
use seriatim::pb::peer::{JoinRequest, JoinResponse};
use seriatim::pb::peer_grpc::{Peer, PeerClient, create_peer};
use seriatim::pb::v1::ConsumeRequest;
use seriatim::security::certs::{Ca, Issued, Request, Usage};
use seriatim::security::peer_names::{Dialled, PeerNames};
use seriatim::thread::fatal_channel;

use crate::harness::site::CLUSTER;
use crate::harness::{Cluster, Node, NodeOptions, Site, client_with, eventually, next_records, record};

#[test]
fn rejects_a_common_name_unknown_to_the_policy() {
    let cluster = Cluster::start(1);
    let nobody = cluster.site.client(&cluster.nodes[0].rpc_addr, "nobody");
    assert_eq!(code(nobody.produce("", vec![record("x")])), Code::PERMISSION_DENIED);
    assert_eq!(code(nobody.consume_at("", 0)), Code::PERMISSION_DENIED);
    assert_eq!(code(nobody.get_log("")), Code::PERMISSION_DENIED);
    assert_eq!(code(nobody.get_node()), Code::PERMISSION_DENIED);
    assert_eq!(code(nobody.trim("", 0)), Code::PERMISSION_DENIED);
    assert_eq!(stream_code(&nobody), Code::PERMISSION_DENIED);
    // GetServers requires only an accepted certificate.
    assert_eq!(nobody.get_servers("").expect("servers").servers.len(), 1);
}

#[test]
fn rejects_a_log_or_action_the_policy_does_not_allow() {
    let cluster = Cluster::start(1);
    let client = |user| cluster.site.client(&cluster.nodes[0].rpc_addr, user);
    let (writer, reader, member, root) = (client("writer"), client("reader"), client("member"), client("root"));
    writer.produce("", vec![record("x")]).expect("may produce");
    member.produce("", vec![record("x")]).expect("may produce through its role");
    reader.consume_at("", 0).expect("may consume");
    assert_eq!(code(writer.consume_at("", 0)), Code::PERMISSION_DENIED);
    assert_eq!(code(reader.produce("", vec![record("x")])), Code::PERMISSION_DENIED);
    assert_eq!(code(reader.trim("", 1)), Code::PERMISSION_DENIED);
    // Permissions are checked first: without them, a client does not learn whether the log exists.
    assert_eq!(code(writer.produce("other", vec![record("x")])), Code::PERMISSION_DENIED);
    assert_eq!(code(root.produce("other", vec![record("x")])), Code::NOT_FOUND);
}

#[test]
fn rejects_a_certificate_of_another_authority() {
    let cluster = Cluster::start(1);
    let foreign = Ca::create("another authority").expect("a CA");
    let issued = foreign.issue(&cert_request(&["root"], 3600)).expect("a certificate");
    assert_connection_fails(&cluster, credentials(&cluster.site, Some(issued)));
}

#[test]
fn rejects_an_expired_certificate() {
    let cluster = Cluster::start(1);
    let issued = cluster.site.ca().issue(&cert_request(&["root"], -60)).expect("a certificate");
    assert_connection_fails(&cluster, credentials(&cluster.site, Some(issued)));
}

#[test]
fn rejects_connections_without_a_certificate_or_tls() {
    let cluster = Cluster::start(1);
    assert_connection_fails(&cluster, credentials(&cluster.site, None));
    let plain = client_with(&cluster.nodes[0].rpc_addr, None);
    assert_eq!(code(plain.get_servers("")), Code::UNAVAILABLE);
}

#[test]
fn rejects_missing_multiple_and_reserved_common_names() {
    let cluster = Cluster::start(1);
    for names in [&[][..], &["root", "root2"], &["nobody", "root"], &["role:team"], &["*"], &["a b"]] {
        let issued = cluster.site.ca().issue(&cert_request(names, 3600)).expect("a certificate");
        let client = client_with_credentials(&cluster.nodes[0].rpc_addr, credentials(&cluster.site, Some(issued)));
        assert_eq!(code(client.produce("", vec![record("x")])), Code::UNAUTHENTICATED, "{names:?}");
        // GetServers requires only an accepted certificate.
        client.get_servers("").expect("servers");
        assert_eq!(stream_code(&client), Code::UNAUTHENTICATED, "{names:?}");
    }
}

#[test]
fn ends_a_stream_when_its_certificate_expires() {
    let cluster = Cluster::start(1);
    let issued = cluster.site.ca().issue(&cert_request(&["root"], 4)).expect("a certificate");
    let client = client_with_credentials(&cluster.nodes[0].rpc_addr, credentials(&cluster.site, Some(issued)));
    client.produce("", vec![record("x")]).expect("the certificate is still valid");
    let request = ConsumeRequest { max_records: 10, ..ConsumeRequest::default() };
    let begin = Instant::now();
    let mut tail = client.consume_stream(&request, Some(Duration::from_secs(90))).expect("a stream");
    assert_eq!(next_records(&mut tail).records.len(), 1);
    let end = tail.find_map(Result::err).expect("a status");
    assert_eq!(code(Err::<(), _>(end)), Code::UNAUTHENTICATED);
    assert!(begin.elapsed() < Duration::from_secs(70), "at the latest with the check that runs once a minute");
    assert_eq!(
        code(client.produce("", vec![record("x")])),
        Code::UNAUTHENTICATED,
        "also new calls on the old connection"
    );
}

#[test]
fn rejects_a_client_certificate_on_the_peer_listener() {
    let cluster = Cluster::start(1);
    let join = |issued: Issued| {
        let (fatal, _) = fatal_channel();
        let env = grpc::Env::start("peer-test", 1, &fatal);
        let addr = &cluster.nodes[0].bind_addr;
        let channel = grpc::peer_channel(env.get(), addr, credentials(&cluster.site, Some(issued)), &member_san());
        let client = PeerClient::new(channel);
        let request = JoinRequest { cluster_name: CLUSTER.into(), ..JoinRequest::default() };
        let option = grpcio::CallOption::default().timeout(Duration::from_secs(10));
        let result = client.join_opt(&request, option).map_err(ClientError::from);
        drop(client);
        env.stop().expect("the threads end");
        code(result)
    };
    let ca = cluster.site.ca();
    let root = Request { hosts: vec!["localhost".into()], ..cert_request(&["root"], 3600) };
    assert_eq!(join(ca.issue(&root).expect("a certificate")), Code::UNAUTHENTICATED, "a client certificate");
    let other = Request {
        hosts: vec!["n1.peer.other.seriatim.internal".into()],
        usage: Usage::Peer,
        ..cert_request(&["peer"], 3600)
    };
    assert_eq!(
        join(ca.issue(&other).expect("a certificate")),
        Code::UNAUTHENTICATED,
        "a peer certificate of another cluster"
    );
    let peer_san = format!("n9.peer.{CLUSTER}.seriatim.internal");
    let wildcard = Request { hosts: vec![format!("*.peer.{CLUSTER}.seriatim.internal")], ..other };
    assert_eq!(
        join(ca.issue(&wildcard).expect("a certificate")),
        Code::UNAUTHENTICATED,
        "a wildcard does not name a node"
    );
    let unnamed = Request { hosts: vec![peer_san.clone()], usage: Usage::Peer, ..cert_request(&["nobody"], 3600) };
    assert_eq!(
        join(ca.issue(&unnamed).expect("a certificate")),
        Code::PERMISSION_DENIED,
        "without the permission to replicate"
    );
    let peer = Request { hosts: vec![peer_san], usage: Usage::Peer, ..cert_request(&["peer"], 3600) };
    let good = join(ca.issue(&peer).expect("a certificate"));
    assert!(good != Code::UNAUTHENTICATED && good != Code::PERMISSION_DENIED, "a peer certificate is accepted: {good}");
}

/// A peer that counts join requests and fails them.
#[derive(Clone, Default)]
struct Impostor(Arc<AtomicU32>);

impl Peer for Impostor {
    fn join(&mut self, ctx: RpcContext<'_>, _: JoinRequest, sink: UnarySink<JoinResponse>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        let answer = sink.fail(RpcStatus::new(Code::UNAVAILABLE));
        ctx.spawn(async move { drop(answer.await) });
    }
}

#[test]
fn does_not_talk_to_a_peer_without_a_peer_certificate() {
    let site = Site::new();
    let (fatal, _) = fatal_channel();
    let env = grpc::Env::start("impostor", 1, &fatal);
    // The same CA has signed both certificates: only the names differ.
    site.name_peer("n9");
    let serve = |stem: &str| {
        let read = |name: String| fs::read(site.certs().join(name)).expect("a file");
        let credentials = ServerCredentialsBuilder::new()
            .root_cert(read("ca.pem".into()), CertificateRequestType::RequestAndRequireClientCertificateAndVerify)
            .add_cert(read(format!("{stem}.pem")), read(format!("{stem}-key.pem")))
            .build();
        let impostor = Impostor::default();
        let builder = grpc::peer_listener(&env, 256 << 20).register_service(create_peer(impostor.clone()));
        let mut server = builder.build().expect("a server");
        let port = server.add_listening_port("127.0.0.1:0", credentials).expect("a port");
        server.start();
        (server, format!("127.0.0.1:{port}"), impostor)
    };
    let (mut false_peer, false_addr, false_requests) = serve("server");
    let (mut true_peer, true_addr, true_requests) = serve("n9/peer");
    let node = Node::start(
        &site,
        NodeOptions {
            name: "n1".into(),
            join: vec![false_addr, true_addr],
            joins_later: true,
            ..NodeOptions::default()
        },
    );
    eventually("the node sends requests to the peer with a peer certificate", || {
        let asked = true_requests.0.load(Ordering::SeqCst);
        if asked >= 3 { Ok(()) } else { Err(format!("{asked} requests, {}", node.log())) }
    });
    assert_eq!(false_requests.0.load(Ordering::SeqCst), 0, "no request reaches a peer without a peer certificate");
    drop(node);
    for server in [&mut false_peer, &mut true_peer] {
        futures::executor::block_on(server.shutdown()).expect("stops");
    }
    drop((false_peer, true_peer));
    env.stop().expect("the threads end");
}

/// Returns the name that a node expects when it dials a member that it does not know yet.
fn member_san() -> String {
    PeerNames::new(CLUSTER).expected(&Dialled::Member)
}

fn cert_request(common_names: &[&str], lifetime_seconds: i64) -> Request {
    let common_names = common_names.iter().map(|name| (*name).to_owned()).collect();
    Request { common_names, hosts: vec![], usage: Usage::Client, lifetime_seconds }
}

fn credentials(site: &Site, issued: Option<Issued>) -> ChannelCredentials {
    let ca = fs::read(site.certs().join("ca.pem")).expect("the CA");
    let builder = ChannelCredentialsBuilder::new().root_cert(ca);
    match issued {
        Some(issued) => builder.cert(issued.cert_pem, issued.key_pem).build(),
        None => builder.build(),
    }
}

fn client_with_credentials(addr: &str, credentials: ChannelCredentials) -> Client {
    Client::with_credentials(addr, credentials, Duration::from_secs(10))
}

#[track_caller]
fn code<T>(result: Result<T, ClientError>) -> Code {
    result.err().expect("refused").status().expect("a status").code
}

#[track_caller]
fn stream_code(client: &Client) -> Code {
    let request = ConsumeRequest { max_records: 10, ..ConsumeRequest::default() };
    let mut stream = client.consume_stream(&request, Some(Duration::from_secs(10))).expect("a stream");
    code(stream.next().expect("a status"))
}

/// Asserts that the connection fails, and that the server's log contains the reason.
#[track_caller]
fn assert_connection_fails(cluster: &Cluster, credentials: ChannelCredentials) {
    let before = cluster.nodes[0].log().len();
    let client = client_with_credentials(&cluster.nodes[0].rpc_addr, credentials);
    assert_eq!(code(client.get_servers("")), Code::UNAVAILABLE);
    eventually("the reason is in the server's log", || {
        let log = cluster.nodes[0].log().split_off(before).to_lowercase();
        let good = log.contains("handshake") && (log.contains("certificate") || log.contains("cert"));
        good.then_some(()).ok_or(log)
    });
    // Other clients are served.
    cluster.client(0).get_servers("").expect("servers");
}
