//! What a leader refuses before raft sees it, and that nothing of it is appended then.

use std::time::{Duration, Instant};

use futures::FutureExt as _;

use super::sim::World;
use crate::consensus::group::Rules;
use crate::consensus::handle::{Appended, Proposal, ProposeError, StreamPosition};
use crate::reply::{ReplyReceiver, reply};
use crate::storage::entry::{EntryKind, Unstamped};
use crate::storage::payload::{RecordFields, encode_record};
use crate::types::{GroupId, NodeId, Offset, StreamId, Term};

/// One node, which leads.
fn alone() -> World {
    let mut world = World::new(3, 1, Rules::default());
    assert!(world.settle(500) && world.leader() == Some(0));
    world
}

fn record() -> Proposal {
    let mut payload = Vec::new();
    encode_record(&mut payload, &RecordFields { value: b"a", ..RecordFields::default() });
    Proposal::new(GroupId(1), EntryKind::Records, 1, Unstamped::from(payload.as_slice()))
}

fn trim(first: u64) -> Proposal {
    Proposal::new(GroupId(1), EntryKind::Trim, 0, first.to_le_bytes().as_slice().into())
}

type Answer = ReplyReceiver<Result<Appended, ProposeError>>;

fn propose(world: &mut World, proposal: Proposal, now: Instant) -> Answer {
    let (sender, answer) = reply();
    world.nodes[0].group.as_mut().expect("running").propose(proposal, now, 1, sender);
    answer
}

fn last_index(world: &World) -> u64 {
    world.nodes[0].group.as_ref().expect("running").status().last_index.0
}

#[track_caller]
fn refused(world: &mut World, proposal: Proposal, now: Instant, why: ProposeError) {
    let before = last_index(world);
    let answer = propose(world, proposal, now);
    world.perform(0);
    // At once: nothing of it is on its way.
    assert_eq!(answer.now_or_never(), Some(Ok(Err(why))));
    assert!(world.settle(500));
    assert_eq!(last_index(world), before, "and it never is");
}

#[test]
fn what_is_late_is_never_appended() {
    let mut world = alone();
    let now = Instant::now();
    let by = |deadline| Proposal { deadline: Some(deadline), ..record() };
    refused(&mut world, by(now), now, ProposeError::DeadlinePassed);
    refused(&mut world, by(now), now + Duration::from_secs(1), ProposeError::DeadlinePassed);
    let answer = propose(&mut world, by(now + Duration::from_secs(1)), now);
    assert!(world.settle(500));
    assert_eq!(answer.wait().map(|answer| answer.map(|a| a.offset)), Ok(Ok(Offset(0))), "in time");
}

#[test]
fn of_two_that_expect_the_same_offset_one_is_appended() {
    let mut world = alone();
    let now = Instant::now();
    let at = |offset| Proposal { expected_offset: Some(Offset(offset)), ..record() };
    refused(&mut world, at(1), now, ProposeError::ExpectedOffset { next_offset: Offset(0) });
    // All within one turn: nothing of them is on the disk yet.
    let answers: Vec<Answer> = [0, 0, 1, 0].map(|offset| propose(&mut world, at(offset), now)).into();
    assert!(world.settle(500));
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.wait().map(|a| a.map(|a| a.offset.0))).collect();
    let not = |next| Ok(Err(ProposeError::ExpectedOffset { next_offset: Offset(next) }));
    assert_eq!(answers, [Ok(Ok(0)), not(1), Ok(Ok(1)), not(2)]);
    // A client that lost its answer asks again, and learns where the log ends.
    refused(&mut world, at(1), now, ProposeError::ExpectedOffset { next_offset: Offset(2) });
}

#[test]
fn a_trim_beyond_the_end_is_none() {
    let mut world = alone();
    let now = Instant::now();
    refused(&mut world, trim(1), now, ProposeError::PastEnd { next_offset: Offset(0) });
    let appended = propose(&mut world, record(), now);
    let trimmed = propose(&mut world, trim(1), now);
    assert!(world.settle(500));
    assert!(matches!((appended.wait(), trimmed.wait()), (Ok(Ok(_)), Ok(Ok(_)))));
    assert_eq!(world.nodes[0].group.as_ref().expect("running").visible().first_offset, Offset(1));
}

/// A leader that was cut off has more entries than the next one. Its clients waited until the next one's log was as long, or 30 s.
#[test]
fn a_replaced_leader_answers_all_at_the_first_entry_of_the_next() {
    let mut world = World::new(7, 3, Rules::default());
    world.reliable = true;
    assert!(world.settle(2000));
    let old = world.leader().expect("a leader");
    for other in (0..3).filter(|other| *other != old) {
        let (a, b) = (old as u64 + 1, other as u64 + 1);
        world.cut.extend([(a, b), (b, a)]);
    }
    let answers: Vec<Answer> = (0..10).map(|_| world.ask(old, record())).collect();
    for _ in 0..60 {
        for i in 0..3 {
            world.tick(i);
            world.sync(i);
        }
        (0..world.network.len()).for_each(|_| world.deliver());
    }
    assert!(world.leader().is_some_and(|leader| leader != old));
    assert!(world.settle(100));
    for answer in answers {
        assert_eq!(answer.now_or_never(), Some(Ok(Err(ProposeError::Dropped))));
    }
    // A proposal for a term that is over is not appended in the next one.
    let leader = world.leader().expect("a leader");
    let late = Proposal { term: Some(Term(1)), ..record() };
    let refused = world.ask(leader, late).now_or_never();
    assert_eq!(refused, Some(Ok(Err(ProposeError::NotLeader { leader: Some(NodeId(leader as u64 + 1)) }))));
}

/// The first run of a stream was answered up to position 1. The first two requests of its second run met a full inbox on the way
/// to the leader. The third one arrived and was once appended, since both runs had the same id.
#[test]
fn nothing_of_a_run_is_appended_without_its_first_request() {
    let mut world = alone();
    let now = Instant::now();
    let at = |stream, sequence| Proposal { in_stream: Some(StreamPosition { stream, sequence }), ..record() };
    let (first, second) = (StreamId(7), StreamId(7).next());
    let answers: Vec<Answer> = [0, 1].map(|position| propose(&mut world, at(first, position), now)).into();
    assert!(world.settle(500));
    for (offset, answer) in (0..).zip(answers) {
        assert_eq!(answer.wait().map(|answer| answer.map(|a| a.offset)), Ok(Ok(Offset(offset))));
    }
    refused(&mut world, at(second, 2), now, ProposeError::Dropped);
    refused(&mut world, at(second, 1), now, ProposeError::Dropped);
    refused(&mut world, at(first, 0), now, ProposeError::Dropped);
    let third = propose(&mut world, at(second.next(), 0), now);
    assert!(world.settle(500));
    assert_eq!(third.wait().map(|answer| answer.map(|a| a.offset)), Ok(Ok(Offset(2))), "and the run after it goes on");
}
