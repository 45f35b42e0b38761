//! Tests of feature levels between nodes, over real connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use futures::{SinkExt as _, StreamExt as _};
use grpcio::WriteFlags;

use super::joins::request;
use super::{Setup, TestNode, message};
use crate::catalog::Member;
use crate::consensus::Outbound as _;
use crate::feature_level::{FeatureLevel, FeatureRange};
use crate::pb::peer::{FeatureLevels, Hello, JoinRequest, ReplicateRequest};
use crate::replication::hello::PROTOCOL_VERSION;
use crate::replication::refusal::{Reason, Refusal};
use crate::types::{NodeId, NodeName};

fn range(min: u32, max: u32) -> FeatureRange {
    FeatureRange::new(FeatureLevel(min), FeatureLevel(max)).expect("a range")
}

fn node(id: u64, min: u32, max: u32) -> TestNode {
    Setup { levels: range(min, max), ..Setup::node(id) }.start()
}

/// Makes the nodes known to each other.
fn introduce(nodes: &[&TestNode]) {
    let members: Vec<_> = nodes.iter().map(|node| node.member()).collect();
    nodes.iter().for_each(|node| node.knows(&members));
}

fn raise(node: &TestNode, level: u32) {
    node.peers.handle().me().levels.set(FeatureLevel(level));
}

/// Sends messages until one arrives. Returns false if none does.
fn sends(from: &TestNode, to: &TestNode) -> bool {
    static INDEX: AtomicU64 = AtomicU64::new(1);
    let first = INDEX.load(Ordering::Relaxed);
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let index = INDEX.fetch_add(1, Ordering::Relaxed);
        from.peers.handle().send(to.id, message(from.id, to.id, index, 1));
        std::thread::park_timeout(Duration::from_millis(20));
        let mut arrived = to.from_peers.take(usize::MAX).into_iter();
        if arrived.any(|(_, message)| message.from == from.id.0 && message.index >= first) {
            return true;
        }
    }
    false
}

/// Returns the levels in the answer to a hello, or the refusal.
fn answer(to: &TestNode, from: &TestNode, hello: Hello) -> Result<Option<FeatureLevels>, Refusal> {
    let client = to.dial(from);
    let (mut requests, mut responses) = client.replicate().expect("a call");
    block_on(async {
        let request = ReplicateRequest { hello: Some(hello).into(), ..ReplicateRequest::default() };
        let _ = requests.send((request, WriteFlags::default())).await;
        let response = responses.next().await.expect("an answer");
        response.map(|response| response.levels.into_option()).map_err(|e| Refusal::from_error(&e).expect("a reason"))
    })
}

#[test]
fn an_older_and_a_newer_version_talk_until_the_level_is_raised() {
    let (old, new) = (node(1, 1, 1), node(2, 1, 2));
    introduce(&[&old, &new]);
    assert!(sends(&old, &new) && sends(&new, &old));
    assert_eq!(new.peers.handle().levels_of(old.id), Some(range(1, 1)));
    assert_eq!(old.peers.handle().levels_of(new.id), Some(range(1, 2)));
    assert_eq!(new.peers.handle().levels_of(new.id), Some(range(1, 2)));

    let silent = NodeId(9);
    let name = NodeName::new("n9").expect("a name");
    new.knows(&[Member { id: silent, name, ..old.member() }]);
    assert_eq!(new.peers.handle().levels_of(silent), None, "it was never heard from");

    // Open streams end, too.
    raise(&new, 2);
    assert!(!sends(&old, &new) && !sends(&new, &old));
    let refusal = old.peers.handle().excluded().cloned().expect("the old version can't take part any more");
    assert_eq!(refusal.reason, Reason::VersionTooOld);
    assert!(refusal.text.contains("the cluster is at feature level 2, and node n1"), "{refusal}");
    assert!(new.peers.handle().excluded().is_none());
}

#[test]
fn nodes_that_do_not_know_the_raised_level_yet_stay_connected() {
    let (ahead, lags, newest) = (node(1, 1, 2), node(2, 1, 2), node(3, 2, 3));
    introduce(&[&ahead, &lags, &newest]);
    raise(&ahead, 2);
    raise(&newest, 2);
    assert!(sends(&ahead, &lags) && sends(&lags, &ahead));
    assert!(sends(&newest, &lags) && sends(&lags, &newest), "the leader may be of a version without level 1");
}

/// A binary from before feature levels sends protocol version 2 alone, and requires it.
#[test]
fn a_node_from_before_feature_levels_is_accepted_at_level_1_alone() {
    let (a, b) = (node(1, 1, 2), node(2, 1, 2));
    introduce(&[&a, &b]);
    let hello = |from: &TestNode| from.peers.handle().me().hello(a.id);
    let before_levels = |from: &TestNode| Hello { levels: None.into(), ..hello(from) };
    assert_eq!(hello(&b).protocol_version, PROTOCOL_VERSION);
    let levels = answer(&a, &b, before_levels(&b)).expect("accepted").expect("levels");
    assert_eq!((levels.min, levels.max, levels.cluster), (1, 2, 1));
    assert_eq!(a.peers.handle().levels_of(b.id), Some(range(1, 1)));
    raise(&a, 2);
    let refusal = answer(&a, &b, before_levels(&b)).expect_err("too old");
    assert_eq!(refusal.reason, Reason::ProtocolVersion, "a reason that it knows");
    let levels = answer(&a, &b, hello(&b)).expect("accepted").expect("levels");
    assert_eq!(levels.cluster, 2);
    let from_a = a.peers.handle().me().hello(b.id);
    assert_eq!(from_a.protocol_version, PROTOCOL_VERSION + 1, "which the older node refuses");
}

/// A probe is always answered: a founder with another version must learn that the cluster exists.
#[test]
fn a_join_is_refused_by_feature_level_and_a_probe_is_not() {
    let a = node(1, 1, 2);
    let c = Setup { is_member: false, ..Setup::node(3) }.start();
    // The catalog already contains the node, so no leader is needed.
    introduce(&[&a, &c]);
    let ask = |request: &JoinRequest| {
        let answer = a.dial(&c).join(request).map_err(|e| Refusal::from_error(&e).expect("a reason").reason);
        answer.map(|response| response.levels.as_ref().map_or(0, |levels| levels.cluster))
    };
    let of = |min, max| {
        let levels = FeatureLevels { min, max, cluster: 1, ..FeatureLevels::default() };
        JoinRequest { levels: Some(levels).into(), ..request(&c.member()) }
    };
    let before_levels = request(&c.member());
    let probe = |request: &JoinRequest| ask(&JoinRequest { probe: true, ..request.clone() });
    assert_eq!([ask(&of(1, 1)), ask(&of(1, 3)), ask(&before_levels)], [Ok(1), Ok(1), Ok(1)]);
    assert_eq!(ask(&of(2, 3)), Err(Reason::VersionTooNew));
    raise(&a, 2);
    assert_eq!([ask(&of(1, 2)), ask(&of(2, 3))], [Ok(2), Ok(2)]);
    assert_eq!(ask(&of(1, 1)), Err(Reason::VersionTooOld));
    assert_eq!(ask(&before_levels), Err(Reason::ProtocolVersion));
    let unknown = JoinRequest { protocol_version: 9, ..before_levels.clone() };
    assert_eq!([probe(&of(1, 1)), probe(&before_levels), probe(&unknown)], [Ok(2), Ok(2), Ok(2)]);
    // A node of another cluster is refused for that reason, and does not exit because of this cluster's level.
    let other = JoinRequest { cluster_name: "other".to_owned(), ..of(1, 1) };
    assert_eq!(ask(&other), Err(Reason::ClusterName));
}
