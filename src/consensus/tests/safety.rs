//! Regression tests for consensus faults that reviews and external testing found.

use super::sim::{Fate, World, answered};
use super::violations;
use crate::consensus::group::Rules;
use crate::consensus::handle::{Proposal, ProposeError};
use crate::storage::entry::EntryKind;
use crate::storage::payload::{RecordFields, encode_record};
use crate::types::{GroupId, Offset, ReplicaId};

/// One round: every node ticks and syncs, and the network delivers its messages.
fn round(world: &mut World) {
    for i in 0..world.nodes.len() {
        world.tick(i);
        world.sync(i);
    }
    for _ in 0..world.network.len().min(300) {
        world.deliver();
        (0..world.nodes.len()).for_each(|i| world.sync(i));
    }
}

fn voters(world: &World, i: usize) -> usize {
    world.nodes[i].group.as_ref().map_or(0, |g| g.status().voters.len())
}

fn cut(world: &mut World, one: &[usize], other: &[usize]) {
    for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a as u64 + 1, *b as u64 + 1))) {
        world.cut.extend([(a, b), (b, a)]);
    }
}

fn isolate(world: &mut World, i: usize) {
    let others: Vec<usize> = (0..world.nodes.len()).filter(|other| *other != i).collect();
    cut(world, &[i], &others);
}

/// The voters are 1, 2 and 3. Node x is down while 4 and 5 become voters. After its restart it writes both conf
/// changes. A crash leaves some frames of that write, but not the hard state with the commit index. Node x must not
/// fall back to the three old voters: x and one other node would be a majority of those, while the other nodes
/// continue with a majority of the five.
fn two_conf_changes_and_a_torn_commit(seed: u64, rules: Rules) {
    let mut world = World::new(seed, 5, rules);
    world.wanted = (1..=3).map(ReplicaId).collect();
    let grown = |world: &World| world.leader().is_some() && (0..3).all(|i| voters(world, i) == 3);
    while !grown(&world) {
        round(&mut world);
    }
    let leader = world.leader().expect("a leader");
    let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    let (x, y) = (others[0], others[1]);
    isolate(&mut world, x);
    world.wanted = (1..=5).map(ReplicaId).collect();
    for rounds in 0.. {
        round(&mut world);
        if world.leader() == Some(leader) && voters(&world, leader) == 5 && voters(&world, y) == 5 {
            break;
        }
        if rounds == 600 {
            // Another node has become leader meanwhile.
            return;
        }
    }
    world.network.clear();
    world.cut.remove(&(leader as u64 + 1, x as u64 + 1));
    world.cut.remove(&(x as u64 + 1, leader as u64 + 1));
    let before = world.nodes[x].disk.files.last_index();
    for _ in 0..4000 {
        if world.nodes[x].disk.files.last_index() > before {
            break;
        }
        for i in [leader, x] {
            if world.network.is_empty() {
                world.tick(i);
            }
            world.sync(i);
        }
        world.deliver();
    }
    // Some prefix of the write's frames has reached the disk.
    world.crash(x);
    world.network.clear();
    world.cut.clear();
    cut(&mut world, &[x, y], &[leader, 3, 4]);
    world.start(x);
    let mut value = 100;
    for _ in 0..400 {
        for i in [leader, x] {
            if world.nodes[i].group.as_ref().is_some_and(|g| g.leads()) {
                value += 1;
                world.propose(i, value);
            }
        }
        round(&mut world);
    }
    assert!(world.settle(4000), "the nodes do not converge");
    world.check_fates();
}

#[test]
fn entries_recovered_without_their_commit_index_do_not_restore_old_voters() {
    (1..=60).for_each(|seed| two_conf_changes_and_a_torn_commit(seed, Rules::default()));
    let forgotten = Rules { recover_commit_of_conf_changes: false, ..Rules::default() };
    let failed = violations(60, |seed| two_conf_changes_and_a_torn_commit(seed, forgotten));
    assert!(failed > 0, "without the rule acknowledged records are lost");
}

fn proposal(value: u64, expected: Option<u64>) -> Proposal {
    let mut payload = Vec::new();
    encode_record(&mut payload, &RecordFields { value: &value.to_le_bytes(), ..RecordFields::default() });
    let expected_offset = expected.map(Offset);
    Proposal { expected_offset, ..Proposal::new(GroupId(1), EntryKind::Records, 1, payload.as_slice().into()) }
}

/// A partitioned leader appends at offset 0 and can't commit the entry. A retry that expects offset 0 was rejected at
/// once, with next offset 1, which a client takes as "the first attempt succeeded". Then another leader assigned
/// offset 0 to another record.
#[test]
fn a_rejection_does_not_reveal_uncommitted_records() {
    for (rules, held) in
        [(Rules::default(), true), (Rules { hold_uncommitted_refusals: false, ..Rules::default() }, false)]
    {
        let mut world = World::new(5, 3, rules);
        assert!(world.settle(2000));
        let leader = world.leader().expect("a leader");
        isolate(&mut world, leader);
        let mut first = world.ask(leader, proposal(1, Some(0)));
        let mut retry = world.ask(leader, proposal(1, Some(0)));
        assert_eq!(answered(&mut first), None);
        let at_once = answered(&mut retry);
        assert_eq!(at_once.is_none(), held, "{at_once:?}");
        (0..100).for_each(|_| round(&mut world));
        let new = world.leader().expect("another leader");
        assert_ne!(new, leader);
        if held {
            let refused = answered(&mut retry).expect("answered when leadership was lost");
            assert!(matches!(refused, Err(ProposeError::NotLeader { .. })), "{refused:?}");
        }
        world.propose(new, 77);
        assert!(world.settle(4000));
        assert_eq!(world.fates[&77], Fate::Appended(Offset(0)));
    }
}

/// The rejection is sent once the end of the log is committed, which is soon if the leader has a majority.
#[test]
fn a_rejection_is_sent_once_its_next_offset_is_committed() {
    let mut world = World::new(5, 3, Rules::default());
    assert!(world.settle(2000));
    let leader = world.leader().expect("a leader");
    let mut first = world.ask(leader, proposal(1, Some(0)));
    let mut retry = world.ask(leader, proposal(1, Some(0)));
    assert_eq!(answered(&mut retry), None, "nothing is committed yet");
    for _ in 0..20 {
        round(&mut world);
    }
    assert_eq!(answered(&mut first).expect("answered").map(|a| a.offset), Ok(Offset(0)));
    assert_eq!(answered(&mut retry).expect("answered"), Err(ProposeError::ExpectedOffset { next_offset: Offset(1) }));
    let mut again = world.ask(leader, proposal(1, Some(0)));
    let refused = Err(ProposeError::ExpectedOffset { next_offset: Offset(1) });
    assert_eq!(answered(&mut again), Some(refused), "already committed, so it is sent at once");
}

/// The log of a partitioned leader may end long before the committed end. A request that expects a later end may be
/// valid, so only a leader that a majority confirms may reject it. The same holds for a trim past the end.
#[test]
fn only_a_confirmed_leader_rejects_a_request_that_expects_a_later_end() {
    let trim = |first: u64| Proposal::new(GroupId(1), EntryKind::Trim, 0, first.to_le_bytes().as_slice().into());
    let mut world = World::new(5, 3, Rules::default());
    assert!(world.settle(2000));
    let leader = world.leader().expect("a leader");
    let mut beyond = world.ask(leader, proposal(1, Some(7)));
    let mut past = world.ask(leader, trim(7));
    (0..20).for_each(|_| round(&mut world));
    let at_end = Offset(0);
    assert_eq!(answered(&mut beyond), Some(Err(ProposeError::ExpectedOffset { next_offset: at_end })));
    assert_eq!(answered(&mut past), Some(Err(ProposeError::PastEnd { next_offset: at_end })));

    isolate(&mut world, leader);
    let mut beyond = world.ask(leader, proposal(1, Some(7)));
    let mut past = world.ask(leader, trim(7));
    assert_eq!((answered(&mut beyond), answered(&mut past)), (None, None));
    (0..100).for_each(|_| round(&mut world));
    for answer in [&mut beyond, &mut past] {
        let refused = answered(answer).expect("answered when leadership was lost");
        assert!(matches!(refused, Err(ProposeError::NotLeader { .. })), "{refused:?}");
    }
}

/// The followers' disks take 50 ms to 1.5 s for a sync, the leader's disk is fast, and there is a steady load.
/// Heartbeat responses waited for a sync, and raft's quorum check considered the followers dead: there was no leader
/// in 584 of 600 ticks.
#[test]
fn followers_with_slow_disks_do_not_depose_the_leader() {
    for ticks_to_sync in [1u64, 6, 14, 20, 30] {
        let mut world = World::new(9, 3, Rules::default());
        assert!(world.settle(2000));
        let mut without_leader = 0;
        let mut terms = std::collections::BTreeSet::new();
        for t in 0..600u64 {
            let leader = world.leader();
            if let Some(leader) = leader {
                world.propose(leader, t);
                terms.insert(world.nodes[leader].group.as_ref().expect("up").status().term);
            } else {
                without_leader += 1;
            }
            (0..3).for_each(|i| world.tick(i));
            for i in (0..3).filter(|i| Some(*i) == leader || t % ticks_to_sync == 0) {
                world.sync(i);
            }
            for _ in 0..world.network.len().min(300) {
                world.deliver();
                leader.into_iter().for_each(|leader| world.sync(leader));
            }
        }
        let appended = world.fates.values().filter(|f| matches!(f, Fate::Appended(_))).count();
        let millis = ticks_to_sync * 50;
        assert_eq!((without_leader, terms.len()), (0, 1), "a sync takes {millis} ms");
        assert!(appended > 500, "a sync takes {millis} ms: {appended} acknowledged");
    }
}

/// When an entry could not be applied, the high watermark was not advanced, but the answers to the entries before it
/// in the same batch were sent. These were acknowledged and not visible.
#[test]
fn entries_acknowledged_before_a_bad_entry_are_visible() {
    let mut world = World::new(3, 1, Rules::default());
    for _ in 0..20 {
        round(&mut world);
    }
    let group = world.nodes[0].group.as_mut().expect("running");
    let (sender, mut good) = crate::reply::reply();
    group.propose(proposal(1, None), std::time::Instant::now(), 1, sender);
    // The payload of a trim has eight bytes.
    let bad = Proposal::new(GroupId(1), EntryKind::Trim, 0, [0u8; 9].as_slice().into());
    let (sender, mut refused) = crate::reply::reply();
    group.propose(bad, std::time::Instant::now(), 1, sender);
    let (mut ready, mut visible, mut answers) = (0, Offset(0), Vec::new());
    for synced in [false, true] {
        if synced {
            group.persisted(ready);
        }
        while let Some(effects) = group.ready() {
            ready = effects.sync.unwrap_or(ready).max(ready);
            visible = effects.visible.map_or(visible, |visible| visible.next_offset);
            answers.extend(effects.answers);
        }
    }
    assert!(group.is_damaged());
    answers.into_iter().for_each(crate::consensus::group::Answer::send);
    assert_eq!(answered(&mut good).expect("answered").map(|a| a.offset), Ok(Offset(0)));
    assert_eq!(visible, Offset(1), "the acknowledged entries are visible");
    assert_eq!(answered(&mut refused), Some(Err(ProposeError::OutcomeUnknown)));
}

/// A leader can't read an entry that a follower lacks, and the only other node with the entry is unreachable. The
/// wait before the next handover doubled although there was no node to hand over to. After that node returned, up to
/// a minute passed.
#[test]
fn a_leader_that_cannot_serve_a_follower_hands_over_as_soon_as_another_node_can() {
    let mut world = World::new(5, 3, Rules::default());
    world.reliable = true;
    assert!(world.settle(2000));
    let leader = world.leader().expect("a leader");
    let (able, lacks) = ((leader + 1) % 3, (leader + 2) % 3);
    let group = world.nodes[leader].group.as_mut().expect("running");
    let index = group.status().last_index.next();
    assert!(group.set_unreadable(index));
    isolate(&mut world, able);
    world.propose(leader, 1);
    let round_without_entries = |world: &mut World| {
        for i in 0..3 {
            world.tick(i);
            world.sync(i);
        }
        for _ in 0..world.network.len() {
            // The leader can't read them.
            world.network.retain(|m| m.to != lacks as u64 + 1 || m.entries.is_empty());
            world.deliver();
        }
    };
    (0..400).for_each(|_| round_without_entries(&mut world));
    assert_eq!(world.leader(), Some(leader), "there is no node to hand over to");
    world.cut.clear();
    for _ in 0..60 {
        round_without_entries(&mut world);
        if world.leader() == Some(able) {
            break;
        }
    }
    assert_eq!(world.leader(), Some(able), "within three seconds of its return");
    assert!(world.settle(4000));
}
