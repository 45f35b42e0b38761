//! A sole voter becomes leader in the very call in which it campaigns.

use raft::eraftpb::{Message, MessageType};

use super::sim::World;
use crate::consensus::group::Rules;
use crate::types::NodeId;

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
