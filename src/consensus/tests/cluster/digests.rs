//! Digests in the claims of leaders, where several messages come before one of them is written.

use raft::eraftpb::MessageType;

use super::super::compared::{append, marker, message};
use super::*;
use crate::consensus::compare::{Checkpoint, Claim};
use crate::consensus::wire;
use crate::storage::digest::CHECKPOINT_ENTRIES;
use crate::storage::log::Base;

fn step(world: &mut World, message: raft::eraftpb::Message, claim: Option<Claim>) {
    let mut message = wire::message_to_pb(GROUP, message);
    message.claim = claim.as_ref().map(wire::claim_to_pb).into();
    let process = world.nodes[1].process.as_mut().expect("running");
    process.hosted.step(message).expect("a message of a peer");
}

/// An append cuts off what an older leader had left, and commits what it brings. Before that is written, a digest comes of an
/// entry that was cut off by it: the log on the disk still has the old one, and a sound node was taken for damaged.
#[test]
fn a_digest_is_compared_with_what_raft_holds() {
    let mut world = World::new(1, 2);
    // What nodes 1 and 3 say is made up here.
    world.rolls_back = true;
    let last = CHECKPOINT_ENTRIES + 1;
    step(&mut world, marker(1, 2, 1, 1), None);
    step(&mut world, append(1, 2, (1, 1), last, 4), None);
    world.perform(1);
    world.sync(1, false);
    world.sync(1, true);
    let new = append(3, 3, (4, 2), last, last);
    let mut at = Base { index: LogIndex(1), term: Term(1), ..Base::default() };
    for entry in append(1, 2, (1, 1), 4, 4).entries.iter().chain(&new.entries).filter(|e| e.index <= CHECKPOINT_ENTRIES)
    {
        at = at.then(&wire::entry_to_storage(entry, at.offset)).expect("an entry");
    }
    let claim = Claim { last_index: LogIndex(last), checkpoints: vec![Checkpoint::from(&at)], unreadable: None };
    step(&mut world, new, None);
    step(&mut world, message(MessageType::MsgHeartbeat, 3, 3), Some(claim.clone()));
    world.perform(1);
    let status = |world: &World| world.nodes[1].process.as_ref().expect("running").hosted.group.status();
    assert_eq!(status(&world).damage, None);
    world.sync(1, false);
    world.sync(1, true);
    assert_eq!(status(&world).applied_index, LogIndex(last));
    step(&mut world, message(MessageType::MsgHeartbeat, 3, 3), Some(claim.clone()));
    assert_eq!(status(&world).damage, None);
    let other = Checkpoint { digest: crate::storage::digest::Digest(7), ..claim.checkpoints[0] };
    step(&mut world, message(MessageType::MsgHeartbeat, 3, 3), Some(Claim { checkpoints: vec![other], ..claim }));
    assert!(status(&world).damage.is_some(), "written, they are compared");
}
