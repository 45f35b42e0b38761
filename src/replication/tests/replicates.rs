//! Tests of raft's messages between two nodes.

use std::net::TcpListener;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use futures::{SinkExt as _, StreamExt as _};
use grpcio::WriteFlags;

use super::{LONG, Setup, TestNode, message, pair, snapshot};
use crate::clock::wall_us;
use crate::consensus::Outbound as _;
use crate::consensus::handle::ConsensusMsg;
use crate::pb::peer::{RaftMessage, ReplicateRequest};
use crate::types::{GroupId, NodeId};

fn indexes(node: &TestNode, count: usize) -> Vec<u64> {
    node.messages(count).iter().map(|m| m.index).collect()
}

#[test]
fn messages_arrive_in_order_whatever_their_size() {
    let (a, b) = pair();
    let sizes = [10, 3 << 20, 100, 0, 700_000, 700_000, 5, 8 << 20, 1];
    for (index, bytes) in sizes.into_iter().enumerate() {
        a.peers.handle().send(b.id, message(a.id, b.id, index as u64, bytes));
    }
    let arrived = b.messages(sizes.len());
    assert_eq!(arrived.iter().map(|m| m.index).collect::<Vec<_>>(), (0..sizes.len() as u64).collect::<Vec<_>>());
    assert_eq!(arrived.iter().map(|m| m.entries[0].data.len()).collect::<Vec<_>>(), sizes);
    for index in 0..500 {
        a.peers.handle().send(b.id, message(a.id, b.id, index, 100));
    }
    assert_eq!(indexes(&b, 500), (0..500).collect::<Vec<_>>());
    // In the other direction, over a separate stream.
    b.peers.handle().send(a.id, message(b.id, a.id, 1, 1));
    assert_eq!(indexes(&a, 1), [1]);
}

/// A leader with a wrong clock must know the clocks of the others.
#[test]
fn a_peers_clock_arrives_with_its_messages() {
    let (a, b) = pair();
    let begun = wall_us();
    a.peers.handle().send(b.id, message(a.id, b.id, 1, 1));
    assert_eq!(indexes(&b, 1), [1]);
    let clocks = b.peers.handle().node().consensus.get().expect("consensus").peer_clocks().now(Instant::now());
    let [(peer, clock_us)] = clocks[..] else { panic!("one clock: {clocks:?}") };
    assert_eq!(peer, a.id);
    assert!((begun..=wall_us() + 1_000_000).contains(&clock_us), "{begun} {clock_us}");
}

#[test]
fn a_snapshot_that_is_sent_is_reported() {
    let (a, b) = pair();
    a.peers.handle().send(b.id, snapshot(a.id, b.id, 3));
    assert!(matches!(a.next(), ConsensusMsg::SnapshotSent(GroupId(3), NodeId(2), true)));
    assert!(b.messages(1)[0].snapshot.is_some());
}

#[test]
fn beyond_the_budget_messages_are_dropped_and_the_peer_is_unreachable() {
    let a = Setup::node(1).start();
    // The peer accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let b = NodeId(2);
    a.peers.handle().suggest(b, &silent.local_addr().expect("an address").to_string());
    for index in 0..2 {
        a.peers.handle().send(b, message(a.id, b, index, 8 << 20));
    }
    assert!(matches!(a.inbox.recv_timeout(LONG), Ok(ConsensusMsg::Unreachable(NodeId(2)))));
    a.peers.handle().send(b, message(a.id, b, 2, (8 << 20) - 2000));
    a.peers.handle().send(b, snapshot(a.id, b, 3));
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match a.next() {
            ConsensusMsg::SnapshotSent(GroupId(3), NodeId(2), sent) => seen.push(sent),
            ConsensusMsg::Unreachable(NodeId(2)) => seen.push(true),
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert!(seen.contains(&false), "the snapshot is reported as lost");
}

#[test]
fn a_peer_that_is_down_is_unreachable_until_it_is_back() {
    let (a, mut b) = pair();
    a.peers.handle().send(b.id, message(a.id, b.id, 1, 1));
    assert_eq!(indexes(&b, 1), [1]);
    let addr = b.addr.clone();
    b.stop_listening();
    assert!(matches!(a.next(), ConsensusMsg::Unreachable(NodeId(2))));
    a.peers.handle().send(b.id, message(a.id, b.id, 2, 1));
    assert!(matches!(a.next(), ConsensusMsg::Unreachable(NodeId(2))));
    b.listen_again(&addr);
    // Repeat until a message arrives, as raft does.
    let mut index = 3;
    while b.from_peers.is_empty() {
        a.peers.handle().send(b.id, message(a.id, b.id, index, 1));
        index += 1;
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let arrived = indexes(&b, 1);
    assert!(arrived[0] >= 2);
}

#[test]
fn a_node_is_answered_at_the_address_in_its_hello() {
    let (a, mut b) = pair();
    b.listen_again("127.0.0.1:0");
    // The catalog of `a` contains the old address. The address in a hello of `b` is newer.
    let mut me = b.peers.handle().me().clone();
    me.bind_addr = b.addr.clone();
    let client = a.dial(&b);
    let (mut requests, mut responses) = client.replicate().expect("a call");
    let hello = ReplicateRequest { hello: Some(me.hello(a.id)).into(), ..Default::default() };
    block_on(async {
        requests.send((hello, WriteFlags::default())).await.expect("sent");
        assert!(responses.next().await.expect("a welcome").is_ok());
    });
    a.peers.handle().send(b.id, message(a.id, b.id, 5, 1));
    assert_eq!(indexes(&b, 1), [5]);
}

#[test]
fn an_open_stream_of_a_removed_peer_is_closed() {
    let (a, b) = pair();
    a.peers.handle().send(b.id, message(a.id, b.id, 1, 1));
    assert_eq!(indexes(&b, 1), [1]);
    b.removes(a.id);
    a.peers.handle().send(b.id, message(a.id, b.id, 2, 1));
    assert!(matches!(a.next(), ConsensusMsg::Unreachable(NodeId(2))));
    assert!(b.is_quiet(), "nothing reaches consensus");
    assert!(a.peers.handle().excluded().is_some_and(|refusal| refusal.text.contains("removed")));
}

#[test]
fn stopping_ends_every_thread() {
    let (a, b) = pair();
    a.peers.handle().send(b.id, message(a.id, b.id, 1, 1));
    assert_eq!(indexes(&b, 1), [1]);
    a.peers.stop();
    a.peers.handle().send(b.id, message(a.id, b.id, 2, 1));
    assert!(matches!(a.next(), ConsensusMsg::Unreachable(NodeId(2))));
    let TestNode { env, listener, peers, late, dialer, .. } = a;
    drop((listener, peers, late));
    assert_eq!(env.stop(), Ok(()));
    assert!(dialer.channel("127.0.0.1:1", &super::Dialled::Member).is_none(), "a dialer keeps no thread alive");
}

/// A peer that listens no longer and has no stream to this node has ended.
#[test]
fn a_peer_whose_process_has_ended_is_reported() {
    let (a, mut b) = pair();
    a.peers.handle().send(b.id, message(a.id, b.id, 1, 10));
    b.peers.handle().send(a.id, message(b.id, a.id, 1, 10));
    b.messages(1);
    a.messages(1);
    assert!(a.peers.handle().node().heard.is_open(b.id));
    assert!(a.from_peers.take_gone().is_empty());
    b.peers.stop();
    b.stop_listening();
    let until = Instant::now() + LONG;
    while !a.from_peers.take_gone().contains(&b.id) {
        assert!(Instant::now() < until, "not reported");
        std::thread::yield_now();
    }
    assert!(!a.peers.handle().node().heard.is_open(b.id));
}

/// What a follower of one group lacks filled the queue to its node, the connection, and the receiver's queue. The
/// heartbeats of all groups, and the entries that producers waited for, came after it or were dropped.
#[test]
fn heartbeats_and_fresh_entries_do_not_wait_for_bulk_that_the_peer_does_not_take() {
    const BULK_BYTES: usize = 1 << 20;
    let (a, b) = pair();
    let peers = a.peers.handle();
    let bulk = |index| RaftMessage { bulk: true, ..message(a.id, b.id, index, BULK_BYTES - 1000) };
    let mut sent = 0;
    // The peer takes nothing, so it reads its stream of bulk until its queue is full, and the connection fills up.
    let until = Instant::now() + LONG;
    let is_full = || b.from_peers.poll_bulk_room(&Context::from_waker(Waker::noop())).is_pending();
    while !is_full() {
        assert!(Instant::now() < until, "the queue becomes full");
        peers.send(b.id, bulk(sent));
        sent += 1;
        std::thread::park_timeout(Duration::from_millis(5));
    }
    // One queue of this node is full as well: an append too many is reported, for its group only.
    loop {
        peers.send(b.id, bulk(sent));
        match a.inbox.try_recv() {
            Ok(ConsensusMsg::AppendDropped(group, node)) => break assert_eq!((group, node), (GroupId(1), b.id)),
            Ok(other) => panic!("only that group is affected: {other:?}"),
            Err(_) => sent += 1,
        }
        assert!(Instant::now() < until, "the queue becomes full");
    }
    let heartbeat = RaftMessage { type_: 8, entries: Vec::new(), ..message(a.id, b.id, 0, 0) };
    let fresh = RaftMessage { group: 2, ..message(a.id, b.id, 7, 2 << 20) };
    peers.send(b.id, fresh);
    peers.send(b.id, heartbeat);
    while b.from_peers.fresh() < 2 {
        assert!(Instant::now() < until, "{} of 2 messages", b.from_peers.fresh());
        std::thread::yield_now();
    }
    assert!(is_full(), "no bulk message was taken meanwhile");
    let first: Vec<_> = b.from_peers.take(usize::MAX).into_iter().map(|(_, m)| (m.group, m.type_, m.bulk)).collect();
    assert_eq!(first[..3], [(1, 8, false), (2, 0, false), (1, 0, true)]);
    // All of it arrives, in order, once the peer takes it.
    let rest = b.messages(sent as usize - (first.len() - 2));
    let indexes = rest.iter().map(|m| m.index).collect::<Vec<_>>();
    assert_eq!(indexes, (first.len() as u64 - 2..sent).collect::<Vec<_>>());
}
