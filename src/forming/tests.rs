//! Tests of forming: single steps here, the simulation in `sim.rs`.

mod sim;
mod world;

use std::time::{Duration, Instant};

use super::machine::{SEEN_FOR, SEEN_MAX};
use super::messages::Candidate;
use super::{BlankNode, FormMessage, Forming, Step, StoredPledge, Word};
use crate::types::{NodeId, NodeName};

fn node(id: u64, expect: u32) -> BlankNode {
    let name = NodeName::new(&format!("n{id}")).expect("a name");
    BlankNode { id: NodeId(id), name, addr: format!("h{id}:1"), expect, incarnation: id * 100 }
}

fn at(candidate: u64, epoch: u64, is_withdrawing: bool) -> StoredPledge {
    let candidate = Candidate { id: NodeId(candidate), addr: format!("h{candidate}:1"), is_withdrawing };
    StoredPledge { epoch, candidate: Some(candidate) }
}

fn shows(id: u64) -> FormMessage {
    FormMessage { from: node(id, 3), word: None }
}

/// Sends the word of one node to another one, and the answer back.
fn exchange(from: &mut Forming, to: &mut Forming, addr: &str, now: Instant) {
    let answer = to.receive(from.message_to(addr), now);
    from.answered(answer, now);
}

fn decides(forming: &mut Forming, now: Instant) -> StoredPledge {
    let Step::Store(pledge) = forming.decide(now) else { panic!("nothing is decided") };
    forming.stored(pledge.clone());
    pledge
}

#[test]
fn three_nodes_pledge_to_the_lowest_one_which_founds_the_cluster() {
    let now = Instant::now();
    let [mut a, mut b, mut c] = [1, 2, 3].map(|id| Forming::new(node(id, 3), StoredPledge::default()));
    exchange(&mut a, &mut b, "h2:1", now);
    assert_eq!(a.decide(now), Step::Wait, "two nodes are not enough");
    exchange(&mut a, &mut c, "h3:1", now);
    exchange(&mut b, &mut c, "h3:1", now);
    for forming in [&mut a, &mut b, &mut c] {
        assert_eq!(decides(forming, now), at(1, 1, false));
    }
    assert_eq!(a.decide(now), Step::Wait, "it has its own pledge only");
    exchange(&mut b, &mut a, "h1:1", now);
    assert_eq!(a.decide(now), Step::Wait, "it has two of three pledges");
    exchange(&mut c, &mut a, "h1:1", now);
    assert_eq!(a.decide(now), Step::Found);
    assert!(a.may_found(now) && !a.may_found(now + SEEN_FOR), "the pledges must be recent");
    assert_eq!((b.decide(now), c.decide(now)), (Step::Wait, Step::Wait));
}

#[test]
fn a_pledge_is_said_only_after_it_is_stored_and_only_to_its_candidate() {
    let now = Instant::now();
    let mut b = Forming::new(node(2, 3), StoredPledge::default());
    b.receive(shows(1), now);
    b.receive(shows(3), now);
    let Step::Store(pledge) = b.decide(now) else { panic!("it must pledge") };
    assert_eq!(b.message_to("h1:1").word, None, "it is not stored yet");
    assert_eq!(b.decide(now), Step::Wait);
    b.stored(pledge);
    assert_eq!(b.message_to("h1:1").word, Some(Word::Pledge { to: NodeId(1), incarnation: 100, epoch: 1 }));
    assert_eq!(b.message_to("h3:1").word, None);
}

#[test]
fn a_pledge_moves_only_after_its_candidate_has_confirmed_it() {
    let now = Instant::now();
    let mut b = Forming::new(node(4, 2), at(3, 5, false));
    let mut c = Forming::new(node(3, 2), at(3, 1, false));
    exchange(&mut c, &mut b, "h4:1", now);
    exchange(&mut b, &mut c, "h3:1", now);
    // Node 1 appears.
    b.receive(FormMessage { from: node(1, 2), word: None }, now);
    assert_eq!(decides(&mut b, now), at(3, 5, true));
    assert_eq!(b.decide(now), Step::Wait, "the candidate has not answered");
    // The candidate decides first.
    assert_eq!(c.decide(now), Step::Found);
    exchange(&mut b, &mut c, "h3:1", now);
    assert_eq!(b.decide(now), Step::Wait, "a founder confirms nothing");
    c.reopen();
    exchange(&mut b, &mut c, "h3:1", now);
    assert_eq!(c.decide(now), Step::Wait, "the pledge is gone");
    assert_eq!(decides(&mut b, now), StoredPledge { epoch: 5, candidate: None });
    assert_eq!(decides(&mut b, now), at(1, 6, false));
    // A late copy of the pledge does not count.
    c.receive(
        FormMessage { from: node(4, 2), word: Some(Word::Pledge { to: NodeId(3), incarnation: 300, epoch: 5 }) },
        now,
    );
    assert_eq!(c.decide(now), Step::Wait);
}

#[test]
fn a_pledge_to_a_dead_node_stays_until_that_node_answers() {
    let now = Instant::now();
    let mut b = Forming::new(node(2, 3), at(1, 1, false));
    b.receive(shows(3), now);
    b.receive(shows(4), now);
    assert_eq!(decides(&mut b, now), at(1, 1, true));
    let later = now + Duration::from_secs(3600);
    b.receive(shows(3), later);
    b.receive(shows(4), later);
    assert_eq!(b.decide(later), Step::Wait);
    let status = b.status(later);
    assert!(!status.candidate_seen && status.others.len() == 2, "{status:?}");
    assert!(b.addresses().contains(&"h1:1".to_owned()), "its address is asked for ever");
}

#[test]
fn nodes_that_expect_another_number_or_have_the_same_address_do_not_count() {
    let now = Instant::now();
    let mut a = Forming::new(node(1, 3), StoredPledge::default());
    a.receive(shows(2), now);
    a.receive(FormMessage { from: node(3, 4), word: None }, now);
    a.receive(FormMessage { from: BlankNode { addr: "h2:1".to_owned(), ..node(4, 3) }, word: None }, now);
    assert_eq!(a.decide(now), Step::Wait);
    let status = a.status(now);
    assert_eq!((status.others.len(), status.mismatch), (1, Some(node(3, 4))));
    // One name counts once, and not at all if it is this node's.
    a.receive(FormMessage { from: BlankNode { name: node(4, 3).name, ..node(5, 3) }, word: None }, now);
    a.receive(FormMessage { from: BlankNode { name: node(1, 3).name, ..node(6, 3) }, word: None }, now);
    assert_eq!(a.decide(now), Step::Wait);
    a.receive(shows(3), now);
    assert!(matches!(a.decide(now), Step::Store(_)));
}

#[test]
fn more_nodes_than_expected_need_a_majority_and_their_number_is_bounded() {
    let now = Instant::now();
    let mut a = Forming::new(node(1, 3), at(1, 1, false));
    for id in 2..=7 {
        a.receive(shows(id), now);
    }
    assert_eq!(a.status(now).needed, 4);
    for id in 8..200 {
        a.receive(shows(id), now);
    }
    assert_eq!(a.status(now).others.len(), SEEN_MAX);
    let later = now + SEEN_FOR;
    a.receive(shows(200), later);
    assert_eq!(a.status(later).others.len(), 1);
}
