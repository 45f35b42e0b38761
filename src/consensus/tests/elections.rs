//! A sole voter becomes leader in the very call in which it campaigns.

use raft::eraftpb::{Message, MessageType};

use super::sim::World;
use crate::consensus::group::Rules;
use crate::types::NodeId;

/// Under a load of 30 on two cores, leaders stepped down nine times in ten minutes: the followers' answers waited unread while the
/// leader itself did not run.
#[test]
fn a_leader_whose_ticks_were_late_waits_for_a_whole_new_period() {
    let cut_off = |ticks_late: &dyn Fn(usize) -> bool| {
        let mut world = World::new(5, 3, Rules::default());
        assert!(world.settle(2000));
        let leader = world.leader().expect("a leader");
        world.network.clear();
        (0..200)
            .take_while(|tick| {
                if ticks_late(*tick) {
                    world.nodes[leader].group.as_mut().expect("running").was_late();
                }
                world.tick(leader);
                world.network.clear();
                world.leader() == Some(leader)
            })
            .count()
    };
    let usual = cut_off(&|_| false);
    assert!((12..=24).contains(&usual), "{usual}");
    let late_once = cut_off(&|tick| tick == usual - 1);
    assert_eq!(late_once, usual - 1 + 11);
    let always_late = cut_off(&|_| true);
    assert!((24..100).contains(&always_late), "a machine that is always late leads for ever: {always_late}");
}

/// raft panics when it does so with entries that are not persisted. A sole voter steps down when somebody who was removed,
/// and does not know it, asks for votes in a newer term.
#[test]
fn a_sole_voter_does_not_campaign_with_unsynced_entries() {
    let mut world = World::new(1, 1, Rules::default());
    for _ in 0..40 {
        world.tick(0);
        world.sync(0);
    }
    assert_eq!(world.leader(), Some(0));
    world.propose(0, 1);
    let group = world.nodes[0].group.as_mut().expect("running");
    let term = group.status().term.0 + 1;
    let mut vote = Message { from: 9, to: 1, term, context: "CampaignTransfer".into(), ..Message::default() };
    vote.set_msg_type(MessageType::MsgRequestVote);
    group.step(vote);
    world.perform(0);
    (0..100).for_each(|_| world.tick(0));
    let group = world.nodes[0].group.as_mut().expect("running");
    let mut now = Message { from: 9, to: 1, term, ..Message::default() };
    now.set_msg_type(MessageType::MsgTimeoutNow);
    group.step(now);
    assert_eq!(world.leader(), None);
    world.sync(0);
    (0..40).for_each(|_| world.tick(0));
    world.sync(0);
    assert_eq!(world.leader(), Some(0));
    assert_eq!(world.nodes[0].group.as_ref().expect("running").status().voters, [NodeId(1)]);
    world.check_fates();
}
