//! Tests of learners under a continuous load. A learner that keeps up becomes a voter; one that does not keep up
//! stays a learner.

use std::time::Instant;

use super::sim::World;
use crate::consensus::group::Rules;
use crate::consensus::handle::Proposal;
use crate::reply::reply;
use crate::storage::entry::{EntryKind, Unstamped};
use crate::storage::payload::{RecordFields, encode_record};
use crate::types::GroupId;

/// Simulates two nodes. The second one joins while `per_second` entries are proposed. It syncs every `sync_ticks`
/// ticks; the leader syncs at every tick. Returns the tick at which it becomes a voter, at most `ticks`, and its
/// minimum lag in entries until then.
fn votes_at(per_second: u64, sync_ticks: u64, ticks: u64) -> Option<(u64, u64)> {
    let mut world = World::new(11, 2, Rules::default());
    let (mut proposed, mut behind) = (0, u64::MAX);
    for tick in 0..ticks {
        let raft = &world.nodes[0].group.as_ref().expect("running").node.raft;
        if let Some(matched) = raft.prs().get(2).map(|progress| progress.matched).filter(|matched| *matched > 0) {
            behind = behind.min(raft.raft_log.last_index() - matched);
        }
        (0..2).for_each(|i| world.tick(i));
        while proposed < (tick + 1) * per_second / 20 {
            proposed += 1;
            world.propose(0, proposed);
        }
        (0..world.network.len().min(3000)).for_each(|_| world.deliver());
        world.sync(0);
        if tick % sync_ticks == 0 {
            world.sync(1);
        }
        (0..world.network.len().min(3000)).for_each(|_| world.deliver());
        if world.nodes[0].group.as_ref().expect("running").status().voters.len() == 2 {
            return Some((tick, behind));
        }
    }
    None
}

/// "Caught up" meant a lag of at most 64 entries, whatever the load. With 2,000 entries per second, and 50 ms for a
/// round trip and a sync, a learner always lagged more, and never became a voter.
#[test]
fn a_learner_that_keeps_up_gets_its_vote_at_any_load() {
    for per_second in [0, 10, 200, 1000, 1400, 2000, 8000] {
        let Some((tick, behind)) = votes_at(per_second, 1, 600) else { panic!("{per_second} a second: never") };
        assert!(tick < 60, "{per_second} entries a second: after {tick} ticks");
        assert!(
            per_second < 2000 || behind > 64,
            "{per_second} entries per second, lag {behind}: it had caught up by the old rule"
        );
    }
}

/// As a voter, it would delay the cluster as soon as its vote was needed.
#[test]
fn a_learner_whose_disk_is_slower_than_an_election_stays_one_under_load() {
    assert_eq!(votes_at(2000, 40, 600), None);
    assert!(votes_at(0, 40, 600).is_some(), "without load there is nothing to catch up with");
}

/// A follower with a hung disk kept all received entries in memory. Its leader may send 64 messages of 8 MiB before
/// it waits for an acknowledgement.
#[test]
fn a_follower_that_cannot_sync_accepts_a_bounded_number_of_bytes() {
    let mut world = World::new(5, 2, Rules::default());
    world.reliable = true;
    let round = |world: &mut World, sync: bool| {
        (0..2).for_each(|i| world.tick(i));
        (0..world.network.len().min(500)).for_each(|_| world.deliver());
        world.sync(0);
        if sync {
            world.sync(1);
        }
    };
    let status = |world: &World, i: usize| world.nodes[i].group.as_ref().expect("running").status();
    let is_full = |world: &World| world.nodes[1].group.as_ref().expect("running").is_behind_with_syncs();
    for tick in 0.. {
        assert!(tick < 500, "no learner");
        round(&mut world, true);
        if !status(&world, 0).learners.is_empty() {
            // The leader keeps its leadership.
            world.wanted.truncate(1);
            if status(&world, 1).applied_index == status(&world, 0).last_index {
                break;
            }
        }
    }
    let mut payload = Vec::new();
    let value = vec![7; 2 << 20];
    encode_record(&mut payload, &RecordFields { value: &value, ..RecordFields::default() });
    let payload: Unstamped = payload.as_slice().into();
    let before = status(&world, 1).last_index.0;
    for count in 1.. {
        assert!(count < 60, "the follower accepts everything");
        let proposal = Proposal::new(GroupId(1), EntryKind::Records, 1, payload.clone());
        world.nodes[0].group.as_mut().expect("running").propose(proposal, Instant::now(), 1, reply().0);
        // Beyond the limit of messages in flight, raft sends one each time that it takes one for lost.
        (0..30).for_each(|_| round(&mut world, false));
        let taken = status(&world, 1).last_index.0 - before;
        if is_full(&world) {
            assert!((36..=44).contains(&taken), "8 MiB and 64 MiB, and the rest of the last message: {taken} of 2 MiB");
            break;
        }
        assert!(taken <= 36, "{taken} of 2 MiB");
    }
    (0..20).for_each(|_| round(&mut world, true));
    assert!(!is_full(&world), "its disk answers again");
    assert_eq!(status(&world, 1).applied_index, status(&world, 0).last_index);
}
