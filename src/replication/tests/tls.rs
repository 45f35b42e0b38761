//! Tests of peers over mutual TLS, and of the requirements for their certificates.

use std::time::Instant;

use futures::executor::block_on;
use futures::{SinkExt as _, StreamExt as _};
use grpcio::{CallOption, WriteFlags};

use super::{Setup, TestNode, certs, files_of, message, share};
use crate::catalog::Member;
use crate::config::TlsFiles;
use crate::consensus::Outbound as _;
use crate::consensus::handle::{ConsensusMsg, ReadIndexError};
use crate::pb::peer::{ForwardRequest, JoinRequest, ReplicateRequest};
use crate::replication::refusal::{Reason, Refusal};
use crate::replication::tests::joins::{consensus_of, request};
use crate::replication::wait::block_until;
use crate::security::certs::Plan;
use crate::security::peer_names::Dialled;
use crate::types::{GroupId, LogIndex, NodeId, NodeName};

fn reaches(from: &TestNode, to: &TestNode) -> bool {
    from.knows(&[to.member()]);
    from.peers.handle().send(to.id, message(from.id, to.id, 1, 100));
    let until = Instant::now() + super::LONG;
    loop {
        match from.inbox.try_recv() {
            Ok(ConsensusMsg::Unreachable(_)) => return false,
            Ok(other) => panic!("unexpected: {other:?}"),
            Err(_) => {}
        }
        if !to.from_peers.is_empty() {
            return to.messages(1).len() == 1;
        }
        assert!(Instant::now() < until, "neither arrived nor lost");
        std::thread::yield_now();
    }
}

#[test]
fn peers_of_one_authority_reach_each_other() {
    let dir = tempfile::tempdir().expect("a directory");
    certs(dir.path(), super::CLUSTER);
    let [a, b] = [1, 2].map(|id| Setup { tls: Some(&files_of(dir.path(), id)), ..Setup::node(id) }.start());
    assert!(reaches(&a, &b) && reaches(&b, &a));
    let index = a.peers.handle().read_index(b.id, GroupId(1), None);
    let ConsensusMsg::ReadIndex(_, _, reply) = b.next() else { panic!("a read index") };
    reply.send(Ok(LogIndex(4)));
    assert_eq!(index.wait(), Ok(Ok(LogIndex(4))));
}

/// An open stream of a peer was served until it ended, and a stream to such a peer was kept, although its authority
/// had been removed.
#[test]
fn open_streams_of_and_to_a_peer_end_when_its_authority_is_removed() {
    let (old, new) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    certs(old.path(), super::CLUSTER);
    let own = tempfile::tempdir().expect("a directory");
    certs(own.path(), super::CLUSTER);
    let copy = |from: &std::path::Path| {
        for name in ["ca.pem", "server.pem", "server-key.pem", "n2/peer.pem", "n2/peer-key.pem"] {
            std::fs::copy(from.join(name), own.path().join(name)).expect("copied");
        }
    };
    copy(old.path());
    let a = Setup { tls: Some(&files_of(old.path(), 1)), ..Setup::node(1) }.start();
    let b = Setup { tls: Some(&files_of(own.path(), 2)), ..Setup::node(2) }.start();
    assert!(reaches(&a, &b) && reaches(&a, &b) && reaches(&b, &a));
    certs(new.path(), super::CLUSTER);
    copy(new.path());
    assert_eq!(b.tls.reload(), Ok(true));
    assert!(!reaches(&a, &b), "its stream");
    assert!(!reaches(&b, &a), "the stream to it");
}

#[test]
fn a_client_certificate_is_not_accepted_from_a_peer() {
    let dir = tempfile::tempdir().expect("a directory");
    certs(dir.path(), super::CLUSTER);
    let b = Setup { tls: Some(&files_of(dir.path(), 2)), ..Setup::node(2) }.start();
    let env = crate::grpc::Env::start("client", 1, &b.fatal);
    let creds = crate::security::tls::client_credentials(
        &dir.path().join("ca.pem"),
        &dir.path().join("client-root.pem"),
        &dir.path().join("client-root-key.pem"),
    )
    .expect("credentials");
    let channel = crate::grpc::peer_channel(env.get(), &b.addr, creds, "member.test.seriatim.internal");
    let client = crate::pb::peer_grpc::PeerClient::new(channel);
    let error = client.join(&JoinRequest::new()).expect_err("a refusal");
    let code = match &error {
        grpcio::Error::RpcFailure(status) => status.code(),
        other => panic!("unexpected: {other}"),
    };
    assert_eq!(code, grpcio::RpcStatusCode::UNAUTHENTICATED, "{error}");
    assert!(b.is_quiet());
}

#[test]
fn nodes_of_another_authority_or_cluster_or_without_tls_reach_nothing() {
    let (ours, theirs, named) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    certs(ours.path(), super::CLUSTER);
    certs(theirs.path(), super::CLUSTER);
    let b = Setup { tls: Some(&files_of(ours.path(), 2)), ..Setup::node(2) }.start();
    let impostor = Setup { tls: Some(&files_of(theirs.path(), 3)), ..Setup::node(3) }.start();
    assert!(!reaches(&impostor, &b) && !reaches(&b, &impostor));

    // One authority, two clusters: the cluster's name in the certificate separates them.
    for file in ["ca.pem", "ca-key.pem"] {
        std::fs::copy(ours.path().join(file), named.path().join(file)).expect("copied");
    }
    let plan = Plan::new("other").host("127.0.0.1").peer("n4");
    crate::security::certs::renew(named.path(), &plan).expect("certificates");
    let other_files = files_of(named.path(), 4);
    let other = Setup { tls: Some(&other_files), cluster_name: "other", ..Setup::node(4) }.start();
    assert!(!reaches(&other, &b) && !reaches(&b, &other));

    let plain = Setup::node(5).start();
    assert!(!reaches(&plain, &b) && !reaches(&b, &plain));
    let index = b.peers.handle().read_index(plain.id, GroupId(1), None).wait();
    assert_eq!(index, Ok(Err(ReadIndexError::Unconfirmed)));
}

/// Returns the answer to a hello from `from` with the certificate of `with`. It must be the same on both kinds of
/// streams.
fn hello_as(to: &TestNode, with: &TestNode, from: u64) -> Result<(), Refusal> {
    let client = to.dial(with);
    let identity =
        crate::replication::hello::PeerIdentity { node_id: NodeId(from), ..with.peers.handle().me().clone() };
    let hello = identity.hello(to.id);
    let said = |answer: Option<Result<(), grpcio::Error>>| match answer.expect("an answer") {
        Ok(()) => Ok(()),
        Err(error) => Err(Refusal::from_error(&error).expect("a reason")),
    };
    let replicate = block_on(async {
        let (mut requests, mut responses) = client.replicate().expect("a call");
        let request = ReplicateRequest { hello: Some(hello.clone()).into(), ..ReplicateRequest::default() };
        let _ = requests.send((request, WriteFlags::default())).await;
        said(responses.next().await.map(|r| r.map(|_| ())))
    });
    let forward = block_on(async {
        let (mut requests, mut responses) = client.forward().expect("a call");
        let request = ForwardRequest { hello: Some(hello).into(), ..ForwardRequest::default() };
        let _ = requests.send((request, WriteFlags::default())).await;
        said(responses.next().await.map(|r| r.map(|_| ())))
    });
    assert_eq!(replicate, forward);
    replicate
}

fn refused_by_name(result: Result<(), Refusal>, names: &[&str]) {
    let refusal = result.expect_err("refused");
    assert_eq!(refusal.reason, Reason::PeerName, "{refusal}");
    names.iter().for_each(|name| assert!(refusal.text.contains(name), "{name}: {refusal}"));
}

/// All peers shared one certificate, so any host that had it could send votes, acknowledgements and appends on behalf
/// of any member.
#[test]
fn a_certificate_speaks_for_the_node_that_it_names() {
    let dir = tempfile::tempdir().expect("a directory");
    certs(dir.path(), super::CLUSTER);
    let [a, b, c] = [1, 2, 3].map(|id| Setup { tls: Some(&files_of(dir.path(), id)), ..Setup::node(id) }.start());
    a.knows(&[a.member(), b.member(), c.member()]);
    assert_eq!(hello_as(&a, &c, 3), Ok(()));
    refused_by_name(hello_as(&a, &c, 2), &["is for n3", "n2"]);
    refused_by_name(hello_as(&a, &c, 99), &["is for n3"]);
    assert_eq!(a.metrics.peer_name_refused.get(), 4, "two streams each");
    assert!(a.is_quiet());
    // A node that this node does not know yet may already be the leader.
    let d = Setup { tls: Some(&files_of(dir.path(), 4)), ..Setup::node(4) }.start();
    assert_eq!(hello_as(&a, &d, 4), Ok(()));
    refused_by_name(hello_as(&a, &d, 2), &["is for n4", "n2"]);
    // A blank node uses the list of members from its admission.
    d.peers.handle().set_admission_members(vec![a.member(), b.member(), c.member(), d.member()]);
    assert_eq!(hello_as(&d, &a, 1), Ok(()));
    refused_by_name(hello_as(&d, &c, 1), &["is for n3", "n1"]);
}

#[test]
fn a_stream_ends_when_its_node_turns_out_to_be_another() {
    let dir = tempfile::tempdir().expect("a directory");
    certs(dir.path(), super::CLUSTER);
    let [a, c] = [1, 3].map(|id| Setup { tls: Some(&files_of(dir.path(), id)), ..Setup::node(id) }.start());
    // Neither the id 2 nor the name n3 is known yet.
    let client = a.dial(&c);
    let identity = crate::replication::hello::PeerIdentity { node_id: NodeId(2), ..c.peers.handle().me().clone() };
    let (mut requests, mut responses) = client.replicate().expect("a call");
    let ends = async {
        let hello = ReplicateRequest { hello: Some(identity.hello(a.id)).into(), ..ReplicateRequest::default() };
        let _ = requests.send((hello, WriteFlags::default())).await;
        assert!(responses.next().await.is_some_and(|r| r.is_ok()), "the hello is accepted");
        a.knows(&[c.member()]);
        let request =
            ReplicateRequest { messages: vec![message(NodeId(2), a.id, 1, 1)], ..ReplicateRequest::default() };
        let _ = requests.send((request, WriteFlags::default())).await;
        responses.next().await.expect("an end").expect_err("a refusal")
    };
    let ended = block_until(ends, Instant::now() + super::LONG).expect("it ends");
    assert_eq!(Refusal::from_error(&ended).map(|r| r.reason), Some(Reason::PeerName));
    assert!(a.is_quiet());
}

/// Nothing is sent to a node that does not have the certificate of the dialled node, whatever its address and claimed
/// id.
#[test]
fn nothing_is_sent_to_another_node_than_the_dialled_one() {
    let dir = tempfile::tempdir().expect("a directory");
    certs(dir.path(), super::CLUSTER);
    let a = Setup { tls: Some(&files_of(dir.path(), 1)), ..Setup::node(1) }.start();
    let thief = Setup { tls: Some(&files_of(dir.path(), 3)), ..Setup::node(2) }.start();
    assert!(!reaches(&a, &thief), "it answers as node 2, with the certificate of n3");
    assert!(thief.is_quiet());
    let probe = JoinRequest { probe: true, ..request(&thief.member()) };
    let ask = |whom: Dialled| block_on(a.dialer.join(&thief.addr, &[whom], &probe, super::LONG)).map_err(|_| ());
    let node = |name| Dialled::Node(NodeName::new(name).expect("a name"));
    assert!(ask(node("n2")).is_err() && ask(Dialled::Shared).is_err());
    assert!(ask(node("n3")).is_ok() && ask(Dialled::Member).is_ok());
}

#[test]
fn a_node_joins_under_the_name_in_its_certificate_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    certs(dir.path(), super::CLUSTER);
    let [a, b, c] = [1, 2, 3].map(|id| Setup { tls: Some(&files_of(dir.path(), id)), ..Setup::node(id) }.start());
    a.knows(&[a.member(), b.member()]);
    let ask = |member: &Member| {
        let in_time = CallOption::default().timeout(super::LONG);
        let error = a.dial(&c).join_opt(&request(member), in_time).expect_err("refused");
        Err(Refusal::from_error(&error).expect("a reason"))
    };
    let invented = Member { id: NodeId(77), name: NodeName::new("n77").expect("a name"), ..c.member() };
    refused_by_name(ask(&invented), &["is for n3", "n77"]);
    // It can't use another member's id with its own name either: that would rename the other member.
    refused_by_name(ask(&Member { id: b.id, ..c.member() }), &["is for n3", "n2"]);
    refused_by_name(ask(&Member { bind_addr: c.addr.clone(), ..b.member() }), &["is for n3", "n2"]);
    assert_eq!(a.peers.handle().node().addresses.of(b.id), [b.addr.as_str()], "no hint either");
    assert!(a.is_quiet());
    let leading = consensus_of(&a, a.id, 1);
    assert!(a.dial(&c).join(&request(&c.member())).is_ok());
    leading.join().expect("no panic");
}

/// The name binds an id to a certificate. If a certificate with only the new name were enough, any node could take
/// over any member's id.
#[test]
fn a_member_is_renamed_with_a_certificate_of_both_names() {
    let dir = tempfile::tempdir().expect("a directory");
    certs(dir.path(), super::CLUSTER);
    let start = |names: &str, id| {
        crate::security::certs::renew(dir.path(), &Plan::new(super::CLUSTER).peer(names)).expect("a certificate");
        let name = names.split('+').next().unwrap_or_default();
        Setup { tls: Some(&TlsFiles::in_dir(dir.path(), name)), ..Setup::node(id) }.start()
    };
    let a = start("n1", 1);
    let renamed = |node: &TestNode| Member { name: NodeName::new("n9").expect("a name"), ..node.member() };
    let alone = start("n9", 3);
    a.knows(&[a.member(), alone.member()]);
    let in_time = || CallOption::default().timeout(super::LONG);
    let refused = a.dial(&alone).join_opt(&request(&renamed(&alone)), in_time()).expect_err("refused");
    refused_by_name(Err(Refusal::from_error(&refused).expect("a reason")), &["is for n9", "n3"]);
    let both = start("n9+n3", 3);
    assert_eq!(hello_as(&a, &both, 3), Ok(()), "before");
    let leading = consensus_of(&a, a.id, 1);
    let moved = JoinRequest { bind_addr: both.addr.clone(), ..request(&renamed(&both)) };
    assert!(a.dial(&both).join_opt(&moved, in_time()).is_ok());
    leading.join().expect("no panic");
    assert_eq!(a.catalog.get().member(NodeId(3)), Some(&renamed(&both)));
    assert_eq!(hello_as(&a, &both, 3), Ok(()), "and after");
    assert_eq!(hello_as(&a, &alone, 3), Ok(()), "now its own name is enough");
}

/// Some nodes still share a certificate, and others do not.
#[test]
fn the_shared_certificate_works_until_named_ones_are_required() {
    let dir = tempfile::tempdir().expect("a directory");
    certs(dir.path(), super::CLUSTER);
    share(dir.path(), super::CLUSTER, 2);
    let start = |id, require_named| {
        let files = files_of(dir.path(), id);
        Setup { tls: Some(&files), require_named, ..Setup::node(id) }.start()
    };
    let [a, b] = [1, 2].map(|id| start(id, false));
    a.knows(&[a.member(), b.member()]);
    let sends = |from: &TestNode, to: &TestNode| {
        let until = Instant::now() + super::LONG;
        while to.from_peers.is_empty() {
            assert!(Instant::now() < until, "never arrived");
            // The first attempts may expect the other kind of certificate. The message is then lost, and raft sends
            // it again.
            from.peers.handle().send(to.id, message(from.id, to.id, 1, 100));
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
        assert!(!to.messages(1).is_empty());
    };
    sends(&a, &b);
    b.knows(&[a.member(), b.member()]);
    sends(&b, &a);
    let strict = start(4, true);
    strict.knows(&[a.member(), b.member()]);
    refused_by_name(hello_as_shared(&strict, &b), &["names no node", "require_named_peers"]);
    assert_eq!(hello_as(&strict, &a, 1), Ok(()));
    assert!(!reaches(&strict, &b), "it is not dialled either");
}

fn hello_as_shared(to: &TestNode, with: &TestNode) -> Result<(), Refusal> {
    let client = to.dial(with);
    let error = client.join(&JoinRequest::new()).expect_err("a refusal");
    let grpcio::Error::RpcFailure(status) = error else { panic!("{error}") };
    // The call is refused before a handler runs, so the status has no details.
    assert_eq!(status.code(), grpcio::RpcStatusCode::PERMISSION_DENIED);
    Err(Refusal::new(Reason::PeerName, status.message()))
}
