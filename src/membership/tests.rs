//! Tests of nodes that search for a cluster by join addresses, in one process and over real connections.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use crate::catalog::{Catalog, Member};
use crate::consensus::handle::{Appended, ConsensusMsg};
use crate::feature_level::{FeatureLevel, FeatureRange};
use crate::membership::{AdmissionError, Entrance, Membership, MembershipOptions};
use crate::replication::refusal::Reason;
use crate::replication::tests::{CLUSTER, CLUSTER_ID, LONG, Setup, TestNode, pair};
use crate::replication::wait::block_until;
use crate::reply::{Dropped, ReplyReceiver};
use crate::types::{ClusterId, LogIndex, NodeId, NodeName, Offset, Term};
use crate::waiting::WaitingFor;

/// Simulates a consensus that leads the catalog until it is dropped.
struct Leader(Sender<()>, Option<JoinHandle<()>>);

impl Leader {
    fn of(node: &TestNode) -> Leader {
        let (stop, stopped) = bounded(0);
        let (inbox, catalog) = (node.inbox.clone(), node.catalog.clone());
        let thread = std::thread::spawn(move || {
            loop {
                let message = crossbeam_channel::select! {
                    recv(inbox) -> message => message.expect("a message"),
                    recv(stopped) -> _ => return,
                };
                match message {
                    ConsensusMsg::Command(command, _, reply) => {
                        let mut new = Catalog::clone(&catalog.get());
                        new.apply(&command, 1);
                        catalog.publish(new);
                        let (offset, index) = (Offset(0), LogIndex(2));
                        reply.send(Ok(Appended {
                            offset,
                            count: 1,
                            term: Term(1),
                            index,
                            append_time_us: 1,
                            duplicate: false,
                        }));
                    }
                    ConsensusMsg::ReadIndex(_, _, reply) => reply.send(Ok(LogIndex(0))),
                    _ => {}
                }
            }
        });
        Leader(stop, Some(thread))
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
        self.0 = bounded(0).0;
        if let Some(thread) = self.1.take() {
            thread.join().expect("no panic");
        }
    }
}

fn blank(id: u64) -> TestNode {
    Setup { is_member: false, ..Setup::node(id) }.start()
}

fn options(node: &TestNode, join: &[&str]) -> MembershipOptions {
    MembershipOptions {
        cluster_name: CLUSTER.to_owned(),
        join: join.iter().map(|a| (*a).to_owned()).collect(),
        mdns: None,
        levels: node.peers.handle().me().levels.clone(),
        forming: None,
    }
}

fn refused_for(answer: &Result<Entrance, AdmissionError>, wanted: Reason, words: &str) -> bool {
    matches!(answer, Err(AdmissionError::Refused { reason, text }) if *reason == wanted && text.contains(words))
}

fn membership_as(node: &TestNode, me: Member, join: &[&str]) -> Membership {
    Membership::start(options(node, join), me, node.dialer.clone(), WaitingFor::default(), &node.fatal)
        .expect("a thread")
}

fn membership(node: &TestNode, join: &[&str]) -> Membership {
    membership_as(node, node.member(), join)
}

fn wait<T>(reply: ReplyReceiver<T>) -> Result<T, Dropped> {
    block_until(reply, Instant::now() + LONG).expect("an answer in time")
}

fn soon<T>(reply: ReplyReceiver<T>) -> Option<Result<T, Dropped>> {
    block_until(reply, Instant::now() + Duration::from_millis(1200))
}

#[test]
fn a_blank_node_is_admitted_by_any_member() {
    let (a, _b) = pair();
    let _leader = Leader::of(&a);
    let c = blank(3);
    // An unreachable address and the node's own address among the join addresses do not matter.
    let members = membership(&c, &["127.0.0.1:1", &c.addr, &a.addr]);
    let answer = wait(members.handle().admission()).expect("an answer").expect("admitted");
    let Entrance::Admitted(admission) = answer else { panic!("{answer:?}") };
    assert_eq!(admission.cluster_id, CLUSTER_ID);
    assert_eq!(admission.members.iter().map(|m| m.id.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(a.catalog.get().member(c.id), Some(&c.member()));
}

#[test]
fn a_node_waits_until_an_address_belongs_to_a_member() {
    let first = blank(1);
    let c = blank(3);
    let members = membership(&c, &[&first.addr]);
    let waiting = members.handle().admission();
    std::thread::park_timeout(Duration::from_millis(700));
    let _leader = Leader::of(&first);
    assert!(first.late.set(first.peers.handle()).is_ok());
    assert!(wait(waiting).expect("an answer").is_ok());
}

#[test]
fn a_taken_name_and_a_removed_node_are_final() {
    let (a, b) = pair();
    let _leader = Leader::of(&a);
    let c = blank(3);
    let me = Member { name: NodeName::new("n1").expect("a name"), ..c.member() };
    let members = membership_as(&c, me, &[&a.addr]);
    let answer = wait(members.handle().admission()).expect("an answer");
    assert!(refused_for(&answer, Reason::NameTaken, "n1"), "{answer:?}");

    a.removes(b.id);
    let members = membership(&b, &[&a.addr]);
    let answer = wait(members.handle().admission()).expect("an answer");
    assert!(refused_for(&answer, Reason::Removed, "data directory"), "{answer:?}");
}

/// A member was restarted with the name of another member. It kept running although the cluster had rejected it.
#[test]
fn a_member_with_the_name_of_another_is_excluded() {
    let (a, b) = pair();
    let _leader = Leader::of(&a);
    let before = a.catalog.get();
    let me = Member { name: NodeName::new("n1").expect("a name"), ..b.member() };
    // It asks its own address first, where no node answers.
    let c = blank(3);
    let me = Member { bind_addr: c.addr.clone(), ..me };
    let mut b = b;
    b.stop_listening();
    let members = membership_as(&b, me, &[&a.addr]);
    members.handle().admitted(b.peers.handle());
    let until = Instant::now() + LONG;
    let refusal = loop {
        if let Some(refusal) = b.peers.handle().excluded() {
            break refusal.clone();
        }
        assert!(Instant::now() < until, "no member has refused it");
        std::thread::park_timeout(Duration::from_millis(20));
    };
    assert_eq!(refusal.reason, Reason::NameTaken);
    assert!(refusal.text.contains("with the name n2, can't be called n1"), "{}", refusal.text);
    assert_eq!(a.catalog.get(), before, "nothing was proposed");
}

#[test]
fn clusters_of_different_names_do_not_mix_and_no_choice_is_made_between_two_of_one_name() {
    let other = Setup { cluster_name: "other", ..Setup::node(1) }.start();
    let c = blank(3);
    let members = membership(&c, &[&other.addr]);
    assert_eq!(wait(members.handle().probe(Instant::now())).expect("an answer").found, None);
    assert!(soon(members.handle().admission()).is_none());

    let (one, two) = (Setup::node(4).start(), Setup { cluster_id: ClusterId(78), ..Setup::node(5) }.start());
    let (_leading, _also) = (Leader::of(&one), Leader::of(&two));
    let members = membership(&c, &[&one.addr, &two.addr]);
    assert!(soon(members.handle().admission()).is_none());
    assert!(one.catalog.get().member(c.id).is_none() && two.catalog.get().member(c.id).is_none());
    assert!(
        wait(members.handle().probe(Instant::now())).expect("an answer").found.is_some(),
        "a third one must not be founded"
    );
}

#[test]
fn a_probe_finds_a_cluster_without_a_leader() {
    let (a, _b) = pair();
    let c = blank(3);
    let members = membership(&c, &["127.0.0.1:1", &a.addr]);
    let found = wait(members.handle().probe(Instant::now())).expect("an answer").found.expect("a cluster");
    assert_eq!((found.cluster_id, found.addr, found.members.len()), (CLUSTER_ID, a.addr.clone(), 2));
    assert!(a.is_quiet());
    let alone = membership(&c, &["127.0.0.1:1", &c.addr]);
    assert_eq!(
        wait(alone.handle().probe(Instant::now())).expect("an answer").found,
        None,
        "a node that waits for admission is not a cluster"
    );
}

/// The feature level of the cluster was raised, and an older binary asks to join.
#[test]
fn a_version_that_is_too_old_for_the_cluster_is_refused_permanently() {
    let range = FeatureRange::new(FeatureLevel(1), FeatureLevel(2)).expect("a range");
    let a = Setup { levels: range, ..Setup::node(1) }.start();
    a.knows(&[a.member()]);
    let _leader = Leader::of(&a);
    a.peers.handle().me().levels.set(FeatureLevel(2));
    let c = Setup { levels: FeatureRange::FIRST, is_member: false, ..Setup::node(3) }.start();
    let members = membership(&c, &[&a.addr]);
    let answer = wait(members.handle().admission()).expect("an answer");
    assert!(refused_for(&answer, Reason::VersionTooOld, "supports feature level 1"), "{answer:?}");
    assert!(a.catalog.get().member(c.id).is_none());
    // A newer binary is admitted.
    let d = Setup { levels: range, is_member: false, ..Setup::node(4) }.start();
    let members = membership(&d, &[&a.addr]);
    assert!(wait(members.handle().admission()).expect("an answer").is_ok());
}

#[test]
fn stopping_ends_the_wait() {
    let c = blank(3);
    let members = membership(&c, &["127.0.0.1:1"]);
    let waiting = members.handle().admission();
    members.handle().stop();
    assert_eq!(wait(waiting), Ok(Err(AdmissionError::Stopped)));
    drop(members);
}

/// A founder slept between its probes, and a stop waited until the sleep was over.
#[test]
fn stopping_ends_a_probe_that_has_not_begun() {
    let c = blank(3);
    let members = membership(&c, &["127.0.0.1:1"]);
    let hour = Duration::from_secs(3600);
    let probe = members.handle().probe(Instant::now() + hour);
    assert_eq!(block_until(probe, Instant::now() + Duration::from_millis(200)), None, "its time has not come");
    let probe = members.handle().probe(Instant::now() + hour);
    members.handle().stop();
    assert_eq!(wait(probe), Err(Dropped));
}

#[test]
fn clients_get_the_result_of_the_last_round() {
    let (a, b) = pair();
    let c = blank(3);
    let waiting = WaitingFor::default();
    let becomes = |wanted: &str| {
        let until = Instant::now() + LONG;
        while !waiting.get().contains(wanted) {
            assert!(Instant::now() < until, "{wanted:?} is not in {:?}", waiting.get());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    };
    let start = |join: &[&str]| {
        Membership::start(options(&c, join), c.member(), c.dialer.clone(), waiting.clone(), &c.fatal).expect("a thread")
    };
    let alone = start(&[]);
    let _waits = alone.handle().admission();
    becomes("yet: no join address is configured, and mDNS is off");
    drop(alone);
    let first = blank(4);
    let mut b = b;
    b.stop_listening();
    let members = start(&[&first.addr, &b.addr, &c.addr]);
    let _waits = members.handle().admission();
    becomes(&format!("{}: this node is not a member", first.addr));
    becomes(&format!("{}: ", b.addr));
    assert!(!waiting.get().contains(&format!("{}: ", c.addr)), "its own address is left out: {}", waiting.get());
    drop(members);
    // A member answers, but the leader does not.
    let members = start(&[&a.addr]);
    let _waits = members.handle().admission();
    becomes(&format!("yet: asked to be admitted by {}", a.addr));
}

#[test]
fn a_member_reports_its_changed_address_to_the_leader() {
    let (a, b) = pair();
    let _leader = Leader::of(&a);
    let me = Member { rpc_addr: "127.0.0.1:4711".to_owned(), ..b.member() };
    let members = membership_as(&b, me.clone(), &[]);
    // The member's own consensus does not know a leader.
    let nobody = std::thread::spawn({
        let inbox = b.inbox.clone();
        move || match inbox.recv_timeout(LONG) {
            Ok(ConsensusMsg::Command(_, _, reply)) => {
                reply.send(Err(crate::consensus::handle::ProposeError::NotLeader { leader: None }));
            }
            other => panic!("unexpected: {other:?}"),
        }
    });
    members.handle().admitted(b.peers.handle());
    nobody.join().expect("no panic");
    let until = Instant::now() + LONG;
    while a.catalog.get().member(NodeId(2)) != Some(&me) {
        assert!(Instant::now() < until, "the leader did not receive it");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    // Once the member's own catalog contains the new address, it stops asking.
    b.catalog.publish(Catalog::clone(&a.catalog.get()));
    assert!(b.inbox.recv_timeout(Duration::from_millis(900)).is_err());
}
