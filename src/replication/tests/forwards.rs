//! Work that one node does for another.

use std::time::{Duration, Instant};

use super::{LONG, Setup, TestNode, pair};
use crate::consensus::handle::{Appended, ConsensusMsg, Place, Proposal, ProposeError, ReadIndexError};
use crate::replication::wait::block_until;
use crate::reply::{ReplyReceiver, ReplySender};
use crate::storage::entry::Kind;
use crate::types::{GroupId, LogIndex, NodeId, Offset, RowId, Term};

const PLACE: Place = Place { row: RowId(6), position: 7 };

fn proposal(text: &str) -> Proposal {
    Proposal {
        group: GroupId(1),
        kind: Kind::Records,
        count: 1,
        payload: text.as_bytes().into(),
        expected_offset: Some(Offset(0)),
        producer_id: 4,
        sequence: 5,
        place: Some(PLACE),
        deadline: Some(Instant::now() + LONG),
    }
}

fn appended(offset: u64) -> Appended {
    Appended { offset: Offset(offset), count: 1, term: Term(2), index: LogIndex(offset + 2), append_time_us: 9 }
}

fn wait<T>(reply: ReplyReceiver<T>) -> T {
    block_until(reply, Instant::now() + LONG).expect("an answer in time").expect("an answer")
}

fn proposed(node: &TestNode) -> (Proposal, ReplySender<Result<Appended, ProposeError>>) {
    loop {
        match node.next() {
            ConsensusMsg::Propose(proposal, reply) => return (proposal, reply),
            ConsensusMsg::Unreachable(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[test]
fn answers_find_their_callers_in_any_order() {
    let (a, b) = pair();
    let replies: Vec<_> =
        ["x", "y", "z"].map(|text| a.peers.handle().propose(b.id, "root", proposal(text))).into_iter().collect();
    let index = a.peers.handle().read_index(b.id, GroupId(0), None);
    let mut waiting = Vec::new();
    for text in ["x", "y", "z"] {
        let (proposal, reply) = proposed(&b);
        assert_eq!(&proposal.payload[..], text.as_bytes(), "in the order in which they were forwarded");
        assert_eq!((proposal.producer_id, proposal.sequence, proposal.expected_offset), (4, 5, Some(Offset(0))));
        assert_eq!(proposal.place, Some(PLACE));
        assert!(proposal.deadline.is_some_and(|d| d > Instant::now()));
        waiting.push(reply);
    }
    let ConsensusMsg::ReadIndex(GroupId(0), None, reply) = b.next() else { panic!("a read index") };
    reply.send(Ok(LogIndex(8)));
    assert_eq!(wait(index), Ok(LogIndex(8)));
    for (offset, reply) in waiting.into_iter().enumerate().rev() {
        reply.send(Ok(appended(offset as u64)));
    }
    let answers: Vec<_> = replies.into_iter().map(wait).collect();
    assert_eq!(answers, [Ok(appended(0)), Ok(appended(1)), Ok(appended(2))]);
}

#[test]
fn a_thousand_at_once_are_batched_and_all_answered() {
    let (a, b) = pair();
    let replies: Vec<_> = (0..3000).map(|_| a.peers.handle().propose(b.id, "root", proposal("x"))).collect();
    let answering = std::thread::spawn(move || {
        for offset in 0..3000 {
            proposed(&b).1.send(Ok(appended(offset)));
        }
        b
    });
    for (offset, reply) in replies.into_iter().enumerate() {
        assert_eq!(wait(reply), Ok(appended(offset as u64)));
    }
    answering.join().expect("no panic");
}

#[test]
fn what_the_leader_refuses_was_not_appended() {
    let (a, b) = pair();
    for (theirs, ours) in [
        (ProposeError::NotLeader { leader: Some(NodeId(9)) }, ProposeError::Dropped),
        (ProposeError::Stopping, ProposeError::Dropped),
        (ProposeError::QueueFull, ProposeError::QueueFull),
        (
            ProposeError::ExpectedOffset { next_offset: Offset(6) },
            ProposeError::ExpectedOffset { next_offset: Offset(6) },
        ),
        (ProposeError::OutcomeUnknown, ProposeError::OutcomeUnknown),
    ] {
        let reply = a.peers.handle().propose(b.id, "root", proposal("x"));
        proposed(&b).1.send(Err(theirs));
        assert_eq!(wait(reply), Err(ours));
    }
    let reply = a.peers.handle().propose(b.id, "root", proposal("x"));
    drop(proposed(&b));
    assert_eq!(wait(reply), Err(ProposeError::OutcomeUnknown), "a reply that was dropped says nothing");
    let reply = a.peers.handle().read_index(b.id, GroupId(1), None);
    let ConsensusMsg::ReadIndex(_, _, theirs) = b.next() else { panic!("a read index") };
    theirs.send(Err(ReadIndexError::NotLeader { leader: Some(NodeId(9)) }));
    assert_eq!(wait(reply), Err(ReadIndexError::NotLeader { leader: None }));
}

#[test]
fn a_link_that_is_lost_after_sending_leaves_the_outcome_unknown() {
    let (a, mut b) = pair();
    let reply = a.peers.handle().propose(b.id, "root", proposal("x"));
    let index = a.peers.handle().read_index(b.id, GroupId(1), None);
    let _unanswered = proposed(&b);
    b.stop_listening();
    assert_eq!(wait(reply), Err(ProposeError::OutcomeUnknown));
    assert_eq!(wait(index), Err(ReadIndexError::Unconfirmed));
}

#[test]
fn what_never_left_was_surely_not_appended() {
    let (a, mut b) = pair();
    b.stop_listening();
    assert_eq!(wait(a.peers.handle().propose(b.id, "root", proposal("x"))), Err(ProposeError::Dropped));
    assert_eq!(wait(a.peers.handle().propose(NodeId(9), "root", proposal("x"))), Err(ProposeError::Dropped));
    // A node that is not admitted yet takes nothing.
    let c = Setup { is_member: false, ..Setup::node(3) }.start();
    a.knows(&[c.member()]);
    assert_eq!(wait(a.peers.handle().propose(c.id, "root", proposal("x"))), Err(ProposeError::Dropped));
    assert_eq!(wait(a.peers.handle().read_index(c.id, GroupId(1), None)), Err(ReadIndexError::Unconfirmed));
    assert!(c.is_quiet());
}

#[test]
fn a_deadline_ends_the_wait() {
    let (a, b) = pair();
    let late = Proposal { deadline: Some(Instant::now()), ..proposal("late") };
    assert_eq!(wait(a.peers.handle().propose(b.id, "root", late)), Err(ProposeError::DeadlinePassed));
    let soon = Proposal { deadline: Some(Instant::now() + Duration::from_millis(300)), ..proposal("soon") };
    let reply = a.peers.handle().propose(b.id, "root", soon);
    let _unanswered = proposed(&b);
    assert_eq!(wait(reply), Err(ProposeError::OutcomeUnknown));
}

#[test]
fn stopping_answers_everybody() {
    let (a, b) = pair();
    let sent = a.peers.handle().propose(b.id, "root", proposal("x"));
    let _unanswered = proposed(&b);
    a.peers.stop();
    assert_eq!(wait(sent), Err(ProposeError::OutcomeUnknown));
    assert_eq!(wait(a.peers.handle().propose(b.id, "root", proposal("x"))), Err(ProposeError::Stopping));
}
