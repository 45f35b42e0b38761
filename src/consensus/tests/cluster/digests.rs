//! Tests of the digests in leaders' claims, when several messages arrive before one of them is written.

use raft::eraftpb::{Entry as RaftEntry, Message, MessageType};

use super::super::compared::{append, message, snapshot};
use super::*;
use crate::consensus::claim::{Checkpoint, Claim};
use crate::consensus::wire;
use crate::storage::checkpoints::CHECKPOINT_ENTRIES;
use crate::storage::digest::Digest;
use crate::storage::entry::Stamp;
use crate::storage::log::Base;

fn step(world: &mut World, message: Message, claim: Option<Claim>) {
    let mut message = wire::message_to_pb(GROUP, message);
    message.claim = claim.as_ref().map(wire::claim_to_pb).into();
    let process = world.nodes[1].process.as_mut().expect("running");
    process.replica.step(message, FeatureRange::SUPPORTED).expect("a message of a peer");
}

/// Returns the end of a log that consists of these entries after the snapshot with which every test here starts.
fn end_after<'a>(entries: impl IntoIterator<Item = &'a RaftEntry>) -> Base {
    let start = Base { index: LogIndex(1), term: Term(1), ..Base::default() };
    entries.into_iter().fold(start, |at, entry| at.then(&wire::entry_to_storage(entry, at.offset)).expect("an entry"))
}

/// An append truncates entries of an older leader and commits its own. Before it is written, a digest of a truncated
/// index arrives. The log on disk still contained the old entry, and a correct node was reported as damaged.
#[test]
fn a_digest_is_compared_with_what_raft_holds() {
    let mut world = World::new(1, 2);
    // The messages of nodes 1 and 3 are created by the test.
    world.rolls_back = true;
    let last = CHECKPOINT_ENTRIES + 1;
    step(&mut world, snapshot(1, 2, 1, 1), None);
    step(&mut world, append(1, 2, (1, 1), last, 4), None);
    world.perform(1);
    world.sync(1, false);
    world.sync(1, true);
    let new = append(3, 3, (4, 2), last, last);
    let old = append(1, 2, (1, 1), 4, 4);
    let at = end_after(old.entries.iter().chain(&new.entries).filter(|e| e.index <= CHECKPOINT_ENTRIES));
    let claim =
        Claim { last_index: LogIndex(last), checkpoints: vec![Checkpoint::from(&at)], unreadable: None, before: None };
    step(&mut world, new, None);
    step(&mut world, message(MessageType::MsgHeartbeat, 3, 3), Some(claim.clone()));
    world.perform(1);
    let status = |world: &World| world.nodes[1].process.as_ref().expect("running").replica.group.status();
    assert_eq!(status(&world).damage, None);
    world.sync(1, false);
    world.sync(1, true);
    assert_eq!(status(&world).applied_index, LogIndex(last));
    step(&mut world, message(MessageType::MsgHeartbeat, 3, 3), Some(claim.clone()));
    assert_eq!(status(&world).damage, None);
    let other = Checkpoint { digest: Digest(7), ..claim.checkpoints[0] };
    step(&mut world, message(MessageType::MsgHeartbeat, 3, 3), Some(Claim { checkpoints: vec![other], ..claim }));
    assert!(status(&world).damage.is_some(), "written, they are compared");
}

/// Returns an append whose entries have this time, with the claim of its leader: the digest at the entry that the
/// append follows. The leader's log consists of `before` and of this append.
fn claimed(before: &[RaftEntry], last: u64, commit: u64, time_us: u64) -> (Message, Claim) {
    let at = end_after(before);
    let mut append = append(1, 2, (at.index.0, at.term.0), last, commit);
    let stamp = Stamp {
        kind: EntryKind::Trim,
        count: 0,
        base_offset: Offset(0),
        append_time_us: time_us,
        producer_id: 0,
        sequence: 0,
    };
    for entry in append.entries.iter_mut() {
        entry.data = Entry::new(LogIndex(entry.index), Term(entry.term), stamp, &0u64.to_le_bytes()).data;
    }
    let claim = Claim { last_index: LogIndex(9), before: Some(Checkpoint::from(&at)), ..Claim::default() };
    (append, claim)
}

/// A leader's disk is restored to a copy from before its term. A node that voted for it and has no entry of that term
/// votes for it again. So it leads twice in one term, and reuses indexes of entries that this node already has. raft
/// compares terms only, and acknowledged these entries. The leader counted the acknowledgements, and reported records
/// as committed that were on its own disk only.
#[test]
fn a_term_that_is_led_twice_is_a_difference() {
    for (performs, commit) in [(false, 1), (false, 9), (true, 1), (true, 9)] {
        let begin = |first_written: bool| {
            let mut world = World::new(1, 2);
            world.rolls_back = true;
            step(&mut world, snapshot(1, 2, 1, 1), None);
            world.perform(1);
            let (all, claim) = claimed(&[], 9, commit, 7);
            let entries = all.entries.to_vec();
            step(&mut world, all, Some(claim));
            if first_written {
                world.perform(1);
            }
            (world, entries)
        };
        let damage = |world: &World| world.nodes[1].process.as_ref().expect("running").replica.group.status().damage;
        let (mut world, entries) = begin(performs);
        let (again, claim) = claimed(&entries[..3], 6, commit, 7);
        step(&mut world, again, Some(claim));
        world.perform(1);
        assert_eq!(damage(&world), None, "the same entries again");
        // The entry before the append is the same, but the appended entries differ.
        let (other, claim) = claimed(&entries[..3], 6, 2, 8);
        step(&mut world, other, Some(claim));
        world.perform(1);
        assert!(damage(&world).is_some_and(|damage| damage.ends_with(" to 6)")), "{:?}", damage(&world));
        // The entry before the append differs.
        let (mut world, _) = begin(performs);
        let (others, _) = claimed(&[], 9, 2, 8);
        let (empty, claim) = claimed(&others.entries, 9, 2, 8);
        step(&mut world, empty, Some(claim));
        world.perform(1);
        assert!(damage(&world).is_some_and(|damage| damage.ends_with(" to 9)")), "{:?}", damage(&world));
    }
}

/// After a restart, a replica that differed served its records until it was compared again, however long that took.
#[test]
fn a_replica_that_differed_serves_nothing_until_it_is_compared_again() {
    let mut world = World::new(1, 2);
    world.rolls_back = true;
    step(&mut world, snapshot(1, 2, 1, 1), None);
    let (all, claim) = claimed(&[], 9, 9, 7);
    let end = end_after(&all.entries);
    step(&mut world, all, Some(claim));
    world.perform(1);
    let heartbeat = |digest| {
        let checkpoints = vec![Checkpoint { digest, ..Checkpoint::from(&end) }];
        (
            message(MessageType::MsgHeartbeat, 1, 2),
            Some(Claim { last_index: end.index, checkpoints, ..Claim::default() }),
        )
    };
    let sync = |world: &mut World| {
        world.perform(1);
        world.sync(1, false);
        world.sync(1, true);
    };
    let hidden = |world: &World| world.nodes[1].process.as_ref().expect("running").replica.watermark.is_withdrawn();
    sync(&mut world);
    assert!(!hidden(&world));
    let (message, claim) = heartbeat(Digest(7));
    step(&mut world, message, claim);
    sync(&mut world);
    assert!(hidden(&world));
    for _ in 0..2 {
        world.kill(1, true);
        world.start(1);
        assert!(hidden(&world), "not compared yet");
        let damage = world.nodes[1].process.as_ref().expect("running").replica.group.status().damage;
        assert!(damage.is_some_and(|damage| damage.contains("until it is compared again")));
    }
    let (message, claim) = heartbeat(end.digest);
    step(&mut world, message, claim);
    sync(&mut world);
    assert!(!hidden(&world), "equal");
    world.kill(1, true);
    world.start(1);
    assert!(!hidden(&world), "and stored");
}
