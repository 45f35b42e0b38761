//! Peer certificates over real connections: identity, joins, and the migration of a cluster to named certificates.

use std::fs;

use futures::executor::block_on;
use futures::{SinkExt as _, StreamExt as _};
use grpcio::{CallOption, RpcStatusCode as Code, WriteFlags};
use seriatim::client::{Client, ClientError};
use seriatim::feature_level::FeatureRange;
use seriatim::grpc;
use seriatim::pb::peer::{FeatureLevels, Hello, JoinRequest, ReplicateRequest};
use seriatim::pb::peer_grpc::PeerClient;
use seriatim::replication::hello::PROTOCOL_VERSION;
use seriatim::replication::refusal::{Reason, Refusal};
use seriatim::security::peer_names::{Dialled, PeerNames};
use seriatim::thread::fatal_channel;
use seriatim::types::NodeName;

use crate::harness::site::CLUSTER;
use crate::harness::{Cluster, Node, NodeOptions, Site, TIMEOUT, counter, eventually, record, wait_for_voters};

/// A connection to a node's peer listener with the certificate of another node.
struct TestPeer {
    // The channel must be dropped before the threads of its environment.
    client: Option<PeerClient>,
    env: Option<grpc::Env>,
}

impl TestPeer {
    fn new(site: &Site, to: &Node, with: &str, dialled: &Dialled) -> TestPeer {
        let (fatal, _) = fatal_channel();
        let env = grpc::Env::start("peer-test", 1, &fatal);
        let expected = PeerNames::new(CLUSTER).expected(dialled);
        let channel = grpc::peer_channel(env.get(), &to.bind_addr, site.peer_credentials(with), &expected);
        TestPeer { client: Some(PeerClient::new(channel)), env: Some(env) }
    }

    fn client(&self) -> &PeerClient {
        self.client.as_ref().expect("not dropped")
    }

    /// Sends a hello and returns the result of its response.
    fn hello(&self, hello: Hello) -> Result<(), grpcio::Error> {
        let (mut requests, mut responses) = self.client().replicate().expect("a call");
        block_on(async {
            let request = ReplicateRequest { hello: Some(hello).into(), ..ReplicateRequest::default() };
            let _ = requests.send((request, WriteFlags::default())).await;
            responses.next().await.expect("a response").map(|_| ())
        })
    }

    fn join(&self, request: &JoinRequest) -> Result<(), grpcio::Error> {
        self.client().join_opt(request, CallOption::default().timeout(TIMEOUT)).map(|_| ())
    }
}

impl Drop for TestPeer {
    fn drop(&mut self) {
        self.client = None;
        if let Some(env) = self.env.take() {
            let _ = env.stop();
        }
    }
}

fn code(error: grpcio::Error) -> Code {
    ClientError::from(error).status().expect("a status").code
}

fn node_id(client: &Client) -> u64 {
    let id = client.get_node().expect("a response").node_id;
    u64::from_str_radix(&id, 16).expect("hexadecimal digits")
}

/// Returns a join request of a node that does not exist.
/// The levels of this program.
fn levels() -> FeatureLevels {
    let range = FeatureRange::SUPPORTED;
    FeatureLevels { min: range.min().0, max: range.max().0, cluster: 1, ..FeatureLevels::default() }
}

fn invented(n: u64) -> JoinRequest {
    JoinRequest {
        protocol_version: PROTOCOL_VERSION,
        cluster_name: CLUSTER.into(),
        node_id: 1000 + n,
        node_name: format!("invented-{n}"),
        bind_addr: format!("192.0.2.1:{}", 1 + n),
        rpc_addr: format!("192.0.2.2:{}", 1 + n),
        levels: Some(levels()).into(),
        ..JoinRequest::default()
    }
}

/// All hosts had the same key, so that a stolen one could vote and acknowledge as any member.
#[test]
fn a_stolen_certificate_speaks_only_for_its_own_node() {
    let cluster = Cluster::start(3);
    let ids: Vec<u64> = cluster.clients().iter().map(node_id).collect();
    let cluster_id = cluster.client(0).get_servers("default").expect("servers").cluster_id;
    let hello = |from: u64| Hello {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: u64::from_str_radix(&cluster_id, 16).expect("an id"),
        from,
        from_addr: "192.0.2.1:1".into(),
        to: ids[0],
        levels: Some(levels()).into(),
        ..Hello::default()
    };
    let stolen = TestPeer::new(&cluster.site, &cluster.nodes[0], "n3", &Dialled::Member);
    assert_eq!(code(stolen.hello(hello(ids[1])).expect_err("as n2")), Code::PERMISSION_DENIED);
    assert_eq!(code(stolen.hello(hello(4242)).expect_err("as an unknown node")), Code::PERMISSION_DENIED);
    assert_eq!(code(stolen.join(&invented(1)).expect_err("as another node")), Code::PERMISSION_DENIED);
    eventually("the log names both nodes", || {
        let log = cluster.nodes[0].log();
        let named = log.contains("the certificate is for n3, and does not speak for n2");
        named.then_some(()).ok_or(log)
    });
    assert_eq!(counter(&cluster.client(0), "seriatim_peer_name_refused_total"), 3);
    // In the other direction: a node that dials n2 does not accept n3.
    let n2 = Dialled::Node(NodeName::new("n2").expect("a name"));
    let wrong = TestPeer::new(&cluster.site, &cluster.nodes[2], "n1", &n2);
    assert_eq!(code(wrong.join(&JoinRequest::new()).expect_err("n3 is not n2")), Code::UNAVAILABLE);
    let offset = cluster.client(0).produce("", vec![record("x")]).expect("produces").offset;
    assert_eq!(cluster.client(2).consume_at("", offset).expect("consumes").value, "x", "the real n3 still works");
}

/// A stolen host could be excluded only by replacing the CA, and with it the certificates of all hosts.
#[test]
fn a_denied_node_is_cut_off_in_both_directions() {
    let site = Site::new();
    let file = site.path().join("denied");
    fs::write(&file, "").expect("written");
    let option = format!("--peer-deny-file={}", file.display());
    let cluster = Cluster::start_at(site, 3, &[&option], |_| Vec::new());
    let deny = |names: &str| {
        fs::write(&file, names).expect("written");
        cluster.nodes.iter().for_each(Node::reload);
    };
    deny("n3\n");
    for node in &cluster.nodes[..2] {
        eventually("n3 is refused", || {
            let log = node.log();
            log.contains("the certificates of node n3 are refused here").then_some(()).ok_or(log)
        });
    }
    let offset = eventually("the other two append", || {
        cluster.client(0).produce("", vec![record("secret")]).map(|r| r.offset).map_err(|e| e.to_string())
    });
    assert_eq!(cluster.client(1).consume_at("", offset).expect("consumes").value, "secret");
    assert!(cluster.client(2).consume_at("", offset).is_err(), "n3 receives no record");
    let stolen = TestPeer::new(&cluster.site, &cluster.nodes[0], "n3", &Dialled::Member);
    assert_eq!(code(stolen.join(&invented(1)).expect_err("denied")), Code::PERMISSION_DENIED);
    assert!(counter(&cluster.client(0), "seriatim_peer_name_refused_total") > 0);
    deny("# none\n");
    eventually("n3 receives records again", || cluster.client(2).consume_at("", offset).map_err(|e| e.to_string()));
}

#[test]
fn a_cluster_migrates_to_named_certificates_node_by_node() {
    let mut cluster = Cluster::start_at(Site::with_shared_peers(), 3, &[], |_| Vec::new());
    eventually("the shared certificate is logged", || {
        let log = cluster.nodes[0].log();
        log.contains("has the shared peer certificate").then_some(()).ok_or(log)
    });
    let assert_works = |cluster: &Cluster| {
        for (n, client) in cluster.clients().iter().enumerate() {
            let value = format!("by n{}", n + 1);
            let produce = || client.produce("", vec![record(&value)]).map_err(|e| e.to_string());
            let offset = eventually("a record is appended", produce).offset;
            for reader in cluster.clients() {
                let read = || reader.consume_at("", offset).map_err(|e| e.to_string());
                assert_eq!(eventually("every node has the record", read).value, value);
            }
        }
    };
    assert_works(&cluster);
    for n in 0..3 {
        cluster.site.name_peer(&format!("n{}", n + 1));
        cluster.nodes[n].reload();
        eventually("the certificates are loaded", || {
            let log = cluster.nodes[n].log();
            log.contains("certificates reloaded").then_some(()).ok_or(log)
        });
        assert_works(&cluster);
        // A restart: all its connections are new, to nodes with both kinds of certificates.
        cluster.nodes[n].kill();
        cluster.nodes[n].start_again();
        wait_for_voters(&cluster.clients());
        assert_works(&cluster);
    }
    let probe_with_shared = |cluster: &Cluster| {
        cluster.site.share_peer("old");
        let peer = TestPeer::new(&cluster.site, &cluster.nodes[0], "old", &Dialled::Member);
        peer.join(&JoinRequest { probe: true, ..invented(1) }).map_err(code)
    };
    assert_eq!(probe_with_shared(&cluster), Ok(()), "accepted without --require-named-peers");
    for n in 0..3 {
        cluster.nodes[n].set_more(vec!["--require-named-peers".into()]);
        assert!(cluster.nodes[n].stop().success());
        cluster.nodes[n].start_again();
        wait_for_voters(&cluster.clients());
        assert_works(&cluster);
    }
    assert_eq!(probe_with_shared(&cluster), Err(Code::PERMISSION_DENIED));
}

#[test]
fn refuses_to_start_with_the_certificate_of_another_node() {
    let mut cluster = Cluster::start(1);
    assert!(cluster.nodes[0].stop().success());
    cluster.nodes[0].set_more(vec!["--node-name=other".into()]);
    let status = cluster.nodes[0].try_start_again().expect_err("refused");
    let log = cluster.nodes[0].log();
    assert_eq!(status.code(), Some(78), "{log}");
    assert!(log.contains("lacks the subject alternative name other.peer.seriatim.seriatim.internal"), "{log}");
}

/// 400 invented nodes were all learners within eight seconds, and each of them was sent every record.
#[test]
fn only_one_of_many_invented_nodes_is_joining() {
    let cluster = Cluster::start_at(Site::with_shared_peers(), 1, &[], |_| Vec::new());
    let thief = TestPeer::new(&cluster.site, &cluster.nodes[0], "thief", &Dialled::Shared);
    let results: Vec<Result<(), Refusal>> =
        (0..400).map(|n| thief.join(&invented(n)).map_err(|e| Refusal::from_error(&e).expect("a reason"))).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let last = results.into_iter().last().expect("400").expect_err("refused");
    assert_eq!(last.reason, Reason::AnotherJoins, "{last}");
    assert!(last.text.contains("node invented-0 (") && last.text.contains("one node joins at a time"), "{last}");
    let client = cluster.client(0);
    let servers = client.get_servers("default").expect("servers").servers;
    assert_eq!((servers.len(), servers.iter().filter(|s| s.is_voter).count()), (2, 1));
    client.produce("", vec![record("x")]).expect("the cluster works");
}

/// With named certificates, a thief can join only under the stolen name, and invented nodes do not delay an honest one.
#[test]
fn invented_nodes_do_not_block_an_honest_join() {
    let mut cluster = Cluster::start(2);
    let thief = TestPeer::new(&cluster.site, &cluster.nodes[0], "thief", &Dialled::Member);
    for n in 0..400 {
        let refused = thief.join(&invented(n)).expect_err("refused");
        assert_eq!(Refusal::from_error(&refused).map(|r| r.reason), Some(Reason::PeerName));
    }
    let join = vec![cluster.nodes[1].bind_addr.clone()];
    let honest = NodeOptions { name: "n3".into(), join, ..NodeOptions::default() };
    cluster.nodes.push(Node::start(&cluster.site, honest));
    wait_for_voters(&cluster.clients());
}

#[test]
fn nodes_started_at_once_join_one_after_the_other() {
    let mut cluster = Cluster::start(1);
    let join = vec![cluster.nodes[0].bind_addr.clone()];
    for n in 2..=4 {
        let options =
            NodeOptions { name: format!("n{n}"), join: join.clone(), joins_later: true, ..NodeOptions::default() };
        cluster.nodes.push(Node::start(&cluster.site, options));
    }
    wait_for_voters(&cluster.clients());
}
