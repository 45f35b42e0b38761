//! Tests of refusals before anything reaches consensus, over real connections.

use futures::executor::block_on;
use futures::{SinkExt as _, StreamExt as _};
use grpcio::{RpcStatusCode, WriteFlags};

use super::{CLUSTER, CLUSTER_ID, Setup, TestNode, message, pair};
use crate::catalog::Member;
use crate::consensus::Outbound as _;
use crate::consensus::handle::{ConsensusMsg, ProposeError};
use crate::pb::peer::{ForwardRequest, Hello, Job, JoinRequest, Propose, RaftMessage, ReplicateRequest};
use crate::replication::hello::PROTOCOL_VERSION;
use crate::replication::outcome::read_appended;
use crate::replication::refusal::{Reason, Refusal};
use crate::types::{ClusterId, NodeId, NodeName};

/// Opens a stream with that hello, sends the messages, and returns the reason with which it ended.
fn open(to: &TestNode, from: &TestNode, hello: Hello, messages: Vec<RaftMessage>) -> Reason {
    // Kept until the end, because dropping the channel would end the call.
    let client = to.dial(from);
    let (mut requests, mut responses) = client.replicate().expect("a call");
    block_on(async {
        let hello = ReplicateRequest { hello: Some(hello).into(), ..ReplicateRequest::default() };
        // The refusal may arrive before the request is written.
        let _ = requests.send((hello, WriteFlags::default())).await;
        if messages.is_empty() {
            // Only the refusal arrives.
        } else {
            assert!(responses.next().await.is_some_and(|r| r.is_ok()), "the hello is accepted");
            let request = ReplicateRequest { messages, ..ReplicateRequest::default() };
            let _ = requests.send((request, WriteFlags::default())).await;
        }
        let error = responses.next().await.expect("an end").expect_err("a refusal");
        Refusal::from_error(&error).expect("a reason").reason
    })
}

fn hello(from: u64, to: u64) -> Hello {
    Hello {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: CLUSTER_ID.0,
        from,
        from_addr: "127.0.0.1:9".to_owned(),
        to,
        ..Hello::default()
    }
}

#[test]
fn an_invalid_hello_is_refused_with_its_reason_before_consensus() {
    let (a, b) = pair();
    let gone = Member { id: NodeId(3), name: NodeName::new("gone").expect("a name"), ..a.member() };
    b.knows(std::slice::from_ref(&gone));
    b.removes(gone.id);

    let foreign = Hello { cluster_id: 78, ..hello(1, 2) };
    assert_eq!(open(&b, &a, foreign, vec![]), Reason::ClusterId);
    assert_eq!(open(&b, &a, hello(1, 9), vec![]), Reason::WrongNode);
    assert_eq!(open(&b, &a, hello(3, 2), vec![]), Reason::Removed);
    assert_eq!(open(&b, &a, hello(2, 2), vec![]), Reason::Malformed);
    let newer = Hello { protocol_version: PROTOCOL_VERSION + 1, ..hello(1, 2) };
    assert_eq!(open(&b, &a, newer, vec![]), Reason::ProtocolVersion);
    assert!(b.is_quiet());

    // A message whose sender is another node. In the catalog's group, replicas have the ids of their nodes.
    let of_catalog = |from, to| RaftMessage { group: 0, ..message(from, to, 1, 1) };
    assert_eq!(open(&b, &a, hello(1, 2), vec![of_catalog(NodeId(4), b.id)]), Reason::Malformed);
    assert_eq!(open(&b, &a, hello(1, 2), vec![of_catalog(a.id, NodeId(4))]), Reason::Malformed);
    assert!(b.is_quiet());
}

#[test]
fn a_node_that_the_catalog_does_not_contain_is_accepted_and_answered() {
    let b = Setup::node(2).start();
    let stranger = Setup::node(5).start();
    stranger.knows(&[b.member()]);
    stranger.peers.handle().send(b.id, message(stranger.id, b.id, 7, 1));
    assert_eq!(b.messages(1)[0].index, 7);
    // Its address is only known from its own hello.
    b.peers.handle().send(stranger.id, message(b.id, stranger.id, 8, 1));
    assert_eq!(stranger.messages(1)[0].index, 8);
}

#[test]
fn before_admission_every_call_is_unavailable() {
    let a = Setup::node(1).start();
    let blank = Setup { is_member: false, ..Setup::node(2) }.start();
    assert_eq!(open(&blank, &a, hello(1, 2), vec![]), Reason::NotReady);
    let client = blank.dial(&a);
    let (mut requests, mut responses) = client.forward().expect("a call");
    let join = JoinRequest {
        protocol_version: PROTOCOL_VERSION,
        cluster_name: CLUSTER.to_owned(),
        node_id: 9,
        ..JoinRequest::default()
    };
    block_on(async {
        let hello = ForwardRequest { hello: Some(hello(1, 2)).into(), ..ForwardRequest::default() };
        let _ = requests.send((hello, WriteFlags::default())).await;
        let error = responses.next().await.expect("an end").expect_err("a refusal");
        assert!(matches!(&error, grpcio::Error::RpcFailure(s) if s.code() == RpcStatusCode::UNAVAILABLE), "{error}");
    });
    let error = client.join(&join).expect_err("a refusal");
    assert!(matches!(&error, grpcio::Error::RpcFailure(s) if s.code() == RpcStatusCode::UNAVAILABLE), "{error}");
}

#[test]
fn a_caller_without_the_right_to_replicate_is_not_a_peer() {
    let a = Setup::node(1).start();
    let strict = Setup { policy: "p, anonymous, *, produce", ..Setup::node(2) }.start();
    assert_eq!(open(&strict, &a, hello(1, 2), vec![]), Reason::NotAllowed);
    let error = strict.dial(&a).join(&JoinRequest::new()).expect_err("a refusal");
    assert_eq!(Refusal::from_error(&error).map(|r| r.reason), Some(Reason::NotAllowed));
}

#[test]
fn a_node_of_another_cluster_reaches_nothing() {
    let a = Setup { cluster_id: ClusterId(78), ..Setup::node(1) }.start();
    let b = Setup::node(2).start();
    a.knows(&[b.member()]);
    a.peers.handle().send(b.id, message(a.id, b.id, 1, 1));
    assert!(matches!(a.next(), ConsensusMsg::Unreachable(NodeId(2))));
    assert!(b.is_quiet());
}

#[test]
fn work_that_only_a_newer_version_knows_is_refused_and_not_appended() {
    let (a, b) = pair();
    let client = b.dial(&a);
    let (mut requests, mut responses) = client.forward().expect("a call");
    let newer_work = Job { id: 1, group: 1, ..Job::default() };
    let mut newer_kind = Job { id: 2, group: 1, ..Job::default() };
    newer_kind.set_propose(Propose { kind: 99, count: 1, payload: vec![7].into(), ..Propose::default() });
    let mut outcomes = block_on(async {
        let hello = ForwardRequest { hello: Some(hello(1, 2)).into(), ..ForwardRequest::default() };
        requests.send((hello, WriteFlags::default())).await.expect("sent");
        assert!(responses.next().await.is_some_and(|r| r.is_ok()), "the hello is accepted");
        let jobs = vec![newer_work, newer_kind];
        let request = ForwardRequest { jobs, ..ForwardRequest::default() };
        requests.send((request, WriteFlags::default())).await.expect("sent");
        let mut outcomes = Vec::new();
        while outcomes.len() < 2 {
            outcomes.extend(responses.next().await.expect("outcomes").expect("no refusal").outcomes);
        }
        outcomes
    });
    outcomes.sort_by_key(|outcome| outcome.id);
    let answers: Vec<_> = outcomes.into_iter().map(read_appended).collect();
    assert_eq!(answers, [Err(ProposeError::Dropped), Err(ProposeError::Dropped)]);
    assert!(b.is_quiet());
}
