//! Tests of how members answer a node that asks to join.

use std::thread::JoinHandle;

use super::{CLUSTER, CLUSTER_ID, Setup, TestNode, pair};
use crate::catalog::{Catalog, Member};
use crate::consensus::handle::{Appended, ConsensusMsg, GroupStatus, ProposeError, ReadIndexError};
use crate::inbox::Inbox;
use crate::pb::peer::{JoinRequest, JoinResponse};
use crate::replication::hello::PROTOCOL_VERSION;
use crate::replication::refusal::{Reason, Refusal};
use crate::types::{GroupId, LogIndex, NodeId, Offset, Term};

/// Simulates a consensus that leads the catalog, or knows the leader, for this many commands and reads.
pub(crate) fn consensus_of(node: &TestNode, leader: NodeId, commands: usize) -> JoinHandle<()> {
    let (inbox, catalog, own) = (node.inbox.clone(), node.catalog.clone(), node.id);
    std::thread::spawn(move || {
        let mut left = commands;
        while left > 0 {
            match inbox.recv_timeout(super::LONG).expect("a message for consensus") {
                ConsensusMsg::Command(command, _, reply) if leader == own => {
                    let mut new = Catalog::clone(&catalog.get());
                    new.apply(&command, 1);
                    catalog.publish(new);
                    let index = LogIndex(2);
                    let offset = Offset(0);
                    reply.send(Ok(Appended {
                        offset,
                        count: 1,
                        term: Term(1),
                        index,
                        append_time_us: 1,
                        duplicate: false,
                    }));
                    left -= 1;
                }
                ConsensusMsg::Command(_, _, reply) => {
                    reply.send(Err(ProposeError::NotLeader { leader: Some(leader).filter(|l| l.0 != 0) }));
                    left -= 1;
                }
                ConsensusMsg::ReadIndex(GroupId::CATALOG, _, reply) => {
                    let leader = Some(leader).filter(|l| l.0 != 0);
                    let leads = leader == Some(own);
                    reply.send(if leads { Ok(LogIndex(0)) } else { Err(ReadIndexError::NotLeader { leader }) });
                    left -= 1;
                }
                _ => {}
            }
        }
    })
}

pub(crate) fn request(member: &Member) -> JoinRequest {
    JoinRequest {
        protocol_version: PROTOCOL_VERSION,
        cluster_name: CLUSTER.to_owned(),
        node_id: member.id.0,
        node_name: member.name.to_string(),
        bind_addr: member.bind_addr.clone(),
        rpc_addr: member.rpc_addr.clone(),
        ..JoinRequest::default()
    }
}

fn ask(to: &TestNode, from: &TestNode, request: &JoinRequest) -> Result<JoinResponse, Reason> {
    to.dial(from).join(request).map_err(|e| Refusal::from_error(&e).unwrap_or_else(|| panic!("{e}")).reason)
}

/// All members had new addresses. They could not be moved without a leader, and kept dialling the old addresses, so
/// no leader was elected.
#[test]
fn the_new_address_of_a_member_that_asks_to_be_moved_is_dialled() {
    let (a, b) = pair();
    let moved = Member { bind_addr: "127.0.0.1:10".to_owned(), ..a.member() };
    let stranger = Member { id: NodeId(9), ..moved.clone() };
    let addresses = |node| b.peers.handle().node().addresses.of(node);
    // Without the cluster's id it asks for admission, and its address is not recorded.
    let _ = ask(&b, &a, &JoinRequest { probe: true, ..request(&moved) });
    assert_eq!(addresses(a.id), [a.addr.as_str()]);
    for member in [&moved, &stranger] {
        let known = JoinRequest { cluster_id: CLUSTER_ID.0, probe: true, ..request(member) };
        let _ = ask(&b, &a, &known);
    }
    assert_eq!(addresses(a.id), [a.addr.clone(), moved.bind_addr.clone()], "after the addresses from better sources");
    assert_eq!(addresses(stranger.id), [""; 0]);
}

fn leader_said_by(to: &TestNode, from: &TestNode, request: &JoinRequest) -> Option<String> {
    let error = to.dial(from).join(request).expect_err("refused");
    Refusal::from_error(&error).expect("with a reason").leader
}

/// A follower forwarded the request of the joining node, so the leader saw the follower's certificate. Any member
/// could make any node join.
#[test]
fn the_leader_admits_and_a_follower_refuses_with_its_address() {
    let (a, b) = pair();
    let c = Setup { is_member: false, ..Setup::node(3) }.start();
    let following = consensus_of(&b, a.id, 1);
    assert_eq!(leader_said_by(&b, &c, &request(&c.member())), Some(a.addr.clone()));
    following.join().expect("no panic");
    assert!(a.is_quiet(), "the follower does not forward the request");
    let leading = consensus_of(&a, a.id, 1);
    let response = ask(&a, &c, &request(&c.member())).expect("admitted");
    assert_eq!(response.cluster_id, CLUSTER_ID.0);
    assert_eq!(response.members.iter().map(|m| m.node_id).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(a.catalog.get().member(c.id), Some(&c.member()));
    leading.join().expect("no panic");
    // Asking again changes nothing, so the leader's consensus is not asked.
    assert!(ask(&a, &c, &request(&c.member())).is_ok());
    let moved = Member { bind_addr: "127.0.0.1:10".to_owned(), ..c.member() };

    // The new addresses of a member.
    let leading = consensus_of(&a, a.id, 1);
    let with_id = JoinRequest { cluster_id: CLUSTER_ID.0, ..request(&moved) };
    assert!(ask(&a, &c, &with_id).is_ok());
    assert_eq!(a.catalog.get().member(c.id), Some(&moved));
    leading.join().expect("no panic");
}

#[test]
fn refusals_have_their_reason() {
    let (a, b) = pair();
    let c = Setup { is_member: false, ..Setup::node(3) }.start();
    let good = request(&c.member());
    let cases = [
        (JoinRequest { cluster_name: "other".to_owned(), ..good.clone() }, Reason::ClusterName),
        (JoinRequest { cluster_id: 78, ..good.clone() }, Reason::ClusterId),
        (JoinRequest { protocol_version: 9, ..good.clone() }, Reason::ProtocolVersion),
        (JoinRequest { node_name: "a b".to_owned(), ..good.clone() }, Reason::Malformed),
        (JoinRequest { bind_addr: "nowhere".to_owned(), ..good.clone() }, Reason::Malformed),
        (JoinRequest { node_id: 0, ..good.clone() }, Reason::Malformed),
    ];
    for (request, reason) in cases {
        assert_eq!(ask(&a, &c, &request), Err(reason), "{request}");
    }
    assert!(a.is_quiet());

    // The name of another member: the leader decides, and a follower refuses with its address.
    let (leading, following) = (consensus_of(&a, a.id, 1), consensus_of(&b, a.id, 1));
    let taken = JoinRequest { node_name: "n1".to_owned(), ..good.clone() };
    assert_eq!(leader_said_by(&b, &c, &taken), Some(a.addr.clone()));
    assert_eq!(ask(&a, &c, &taken), Err(Reason::NameTaken));
    leading.join().expect("no panic");
    following.join().expect("no panic");

    // A member that takes the name of another is told which member has it, and its own former name.
    let leading = consensus_of(&a, a.id, 1);
    let renamed = JoinRequest { cluster_id: CLUSTER_ID.0, node_name: "n1".to_owned(), ..request(&b.member()) };
    let refusal = a.dial(&b).join(&renamed).map_err(|e| Refusal::from_error(&e)).expect_err("refused");
    let refusal = refusal.expect("with a reason");
    assert_eq!(refusal.reason, Reason::NameTaken);
    for part in [a.id.to_string(), b.id.to_string(), a.addr.clone(), b.addr.clone(), "with the name n2".to_owned()] {
        assert!(refusal.text.contains(&part), "{part}: {}", refusal.text);
    }
    leading.join().expect("no panic");

    let nobody_leads = consensus_of(&a, NodeId(0), 1);
    assert_eq!(ask(&a, &c, &good), Err(Reason::NoLeader));
    nobody_leads.join().expect("no panic");

    a.removes(b.id);
    assert_eq!(ask(&a, &b, &request(&b.member())), Err(Reason::Removed));
    // A probe changes nothing and needs no leader.
    let probe = JoinRequest { probe: true, ..good };
    assert_eq!(ask(&a, &c, &probe).map(|r| r.cluster_id), Ok(CLUSTER_ID.0));
    assert!(a.is_quiet());
}

/// Hundreds of nodes that did not exist were added as learners within seconds.
#[test]
fn a_node_is_told_which_node_joins_before_it() {
    let (a, b) = pair();
    let c = Setup { is_member: false, ..Setup::node(3) }.start();
    let status = |voters: &[u64]| GroupStatus {
        group: GroupId::CATALOG,
        voters: voters.iter().map(|id| NodeId(*id)).collect(),
        ..GroupStatus::default()
    };
    let refuses = |inbox: Inbox<ConsensusMsg>| {
        std::thread::spawn(move || match inbox.recv_timeout(super::LONG).expect("a message for consensus") {
            ConsensusMsg::Command(_, _, reply) => reply.send(Err(ProposeError::Dropped)),
            other => panic!("unexpected: {other:?}"),
        })
    };
    a.statuses.publish(status(&[1]));
    // The same name as the joining node's is accepted, too: it may be the same host with an empty directory.
    let same_name = JoinRequest { node_name: "n2".to_owned(), ..request(&c.member()) };
    for request in [request(&c.member()), same_name] {
        let refusing = refuses(a.inbox.clone());
        let refusal = a.dial(&c).join(&request).map_err(|e| Refusal::from_error(&e)).expect_err("refused");
        let refusal = refusal.expect("with a reason");
        assert_eq!((refusal.reason, refusal.reason.is_final()), (Reason::AnotherJoins, false));
        assert!(refusal.text.contains(&format!("node n2 ({}) at {} is joining", b.id, b.addr)), "{}", refusal.text);
        refusing.join().expect("no panic");
    }
    a.statuses.publish(status(&[1, 2]));
    let refusing = refuses(a.inbox.clone());
    assert_eq!(ask(&a, &c, &request(&c.member())), Err(Reason::NoLeader), "for another reason");
    refusing.join().expect("no panic");
}

/// With a copied configuration, a fourth node advertised the addresses of the first one and became a voter, and calls
/// to it reached the first node. After it was stopped, two of the three real nodes were no longer a majority, and
/// members can't be removed yet.
#[test]
fn the_address_of_a_member_that_answers_is_refused_to_others() {
    let (a, mut b) = pair();
    let c = Setup { is_member: false, ..Setup::node(3) }.start();
    let like_a = JoinRequest { bind_addr: a.addr.clone(), ..request(&c.member()) };
    let like_b = JoinRequest { rpc_addr: b.member().rpc_addr, ..request(&c.member()) };
    for (asked, taken) in [(&a, &like_a), (&b, &like_a), (&a, &like_b), (&b, &like_b)] {
        assert_eq!(ask(asked, &c, taken), Err(Reason::AddressTaken), "{taken}");
    }
    assert!(a.is_quiet() && b.is_quiet());

    // The addresses of a member that does not answer can be taken over.
    b.stop_listening();
    let leading = consensus_of(&a, a.id, 1);
    assert!(ask(&a, &c, &like_b).is_ok());
    leading.join().expect("no panic");
}

/// A data directory was copied (or a machine cloned), and both processes ran as the same node. The later one replaced
/// the other in the catalog, and both acknowledged and voted with the same id.
#[test]
fn a_member_that_still_answers_is_not_moved() {
    let (a, mut b) = pair();
    let c = Setup { is_member: false, ..Setup::node(3) }.start();
    let moved = Member { bind_addr: c.addr.clone(), ..b.member() };
    let copy = JoinRequest { cluster_id: CLUSTER_ID.0, ..request(&moved) };
    assert_eq!(ask(&a, &c, &copy), Err(Reason::IdTaken));
    assert!(a.is_quiet());
    // It can use other host names for the same address.
    let leading = consensus_of(&a, a.id, 1);
    let renamed = JoinRequest { rpc_addr: "127.0.0.1:9".to_owned(), ..request(&b.member()) };
    assert!(ask(&a, &c, &renamed).is_ok());
    leading.join().expect("no panic");

    b.stop_listening();
    let leading = consensus_of(&a, a.id, 1);
    assert!(ask(&a, &c, &copy).is_ok(), "it has moved");
    leading.join().expect("no panic");
}

/// A leader that had moved accepted a copy of itself at a third address, because no node answered at its own old
/// address. The copy then rejected the original.
#[test]
fn a_node_does_not_move_itself_for_its_copy() {
    let (a, _b) = pair();
    let c = Setup { is_member: false, ..Setup::node(3) }.start();
    a.knows(&[Member { bind_addr: "127.0.0.1:1".to_owned(), ..a.member() }]);
    let copy = JoinRequest { cluster_id: CLUSTER_ID.0, ..request(&Member { bind_addr: c.addr.clone(), ..a.member() }) };
    // Consensus must not be asked. It would answer that no node leads.
    let leading = consensus_of(&a, NodeId(0), 1);
    assert_eq!(ask(&a, &c, &copy), Err(Reason::IdTaken));
    assert_eq!(ask(&a, &c, &request(&c.member())), Err(Reason::NoLeader));
    leading.join().expect("no panic");
}

/// A new host name for the same address: at the old address the node itself answers, which is not a copy.
#[test]
fn a_node_can_change_the_host_name_of_its_address() {
    let (a, b) = pair();
    let port = b.addr.rsplit_once(':').expect("host:port").1;
    a.knows(&[Member { bind_addr: format!("localhost:{port}"), ..b.member() }]);
    let leading = consensus_of(&a, a.id, 1);
    assert_eq!(ask(&a, &b, &request(&b.member())).map(|_| ()), Ok(()));
    leading.join().expect("no panic");
    assert_eq!(a.catalog.get().member(b.id), Some(&b.member()));
}
