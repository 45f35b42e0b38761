//! A follower that was away catches up by bulk appends, and returns to the fresh lane.

use raft::eraftpb::MessageType;

use super::capped::three;
use super::*;
use crate::consensus::group::bulk;

impl World {
    fn produce_bytes(&mut self, leader: usize, bytes: usize) {
        self.values += 1;
        let mut payload = Vec::new();
        encode_record(&mut payload, &RecordFields { value: &vec![7; bytes], ..RecordFields::default() });
        self.propose(leader, EntryKind::Records, payload, 1, None);
        self.perform(leader);
    }

    /// Delivers all messages in order. Those of the bulk lane are slower: at most one of them arrives.
    fn deliver_lanes(&mut self, mut bulk_arrives: bool) {
        let mut slow = Vec::new();
        for message in std::mem::take(&mut self.network) {
            if message.bulk && !std::mem::take(&mut bulk_arrives) {
                slow.push(message);
                continue;
            }
            let to = message.to as usize - 1;
            if let Some(process) = &mut self.nodes[to].process {
                process.replica.step(message, FeatureRange::SUPPORTED).expect("our own message");
                self.perform(to);
            }
        }
        self.network.splice(0..0, slow);
    }

    fn step_lanes(&mut self, nodes: &[usize]) {
        self.step_slow_lanes(nodes, true);
    }

    fn step_slow_lanes(&mut self, nodes: &[usize], bulk_arrives: bool) {
        for i in nodes.iter().copied() {
            self.tick(i);
            self.sync(i, false);
            self.sync(i, true);
            if let Some(process) = &self.nodes[i].process {
                process.readers.run();
            }
        }
        self.deliver_lanes(bulk_arrives);
    }
}

#[test]
fn a_follower_that_was_away_gets_bulk_and_none_of_its_appends_overtakes_another() {
    for seed in 1..=3 {
        let (mut world, leader, other) = three(seed);
        let away = 3 - leader - other;
        world.network.clear();
        for _ in 0..80 {
            world.produce_bytes(leader, 40 << 10);
            (0..3).for_each(|_| world.step_lanes(&[leader, other]));
        }
        assert_eq!(world.leader(), Some(leader));
        world.start(away);
        let (away_id, other_id) = (away as u64 + 1, other as u64 + 1);
        let (mut bulk, mut rejected) = (0, 0);
        for step in 0..3000 {
            let appends = |to: u64| move |m: &&RaftMessage| m.to == to && m.type_ == MessageType::MsgAppend as u32;
            assert!(world.network.iter().filter(appends(other_id)).all(|m| !m.bulk), "a majority needs it");
            let (slow, fresh): (Vec<_>, Vec<_>) = world.network.iter().filter(appends(away_id)).partition(|m| m.bulk);
            assert!(slow.is_empty() || fresh.is_empty(), "seed {seed}, step {step}: appends in both lanes");
            bulk += usize::from(!slow.is_empty());
            rejected += world.network.iter().filter(|m| m.from == away_id && m.reject).count();
            // Producers go on.
            if step % 5 == 0 && step < 500 {
                world.produce_bytes(leader, 100);
            }
            world.step_lanes(&[leader, other, away]);
        }
        assert_eq!(world.leader(), Some(leader), "seed {seed}");
        let last = |i: usize| world.nodes[i].process.as_ref().expect("running").replica.group.status().applied_index;
        assert_eq!(last(away), last(leader), "seed {seed}: it has caught up");
        assert!(bulk > 5, "seed {seed}: bulk was sent in {bulk} steps");
        assert!(rejected <= 2, "seed {seed}: {rejected} appends were rejected, one at the restart is expected");
        // The next entry is fresh.
        world.network.clear();
        world.produce_bytes(leader, 100);
        let next = world.network.iter().find(|m| m.to == away_id && !m.entries.is_empty()).expect("sent");
        assert!(!next.bulk, "seed {seed}");
    }
}

/// Once, each entry of more than 1 MiB was bulk, and so was the commit that waited for it.
#[test]
fn an_entry_that_is_not_committed_is_fresh_whatever_its_size() {
    let (mut world, leader, other) = three(4);
    let away = 3 - leader - other;
    world.start(away);
    world.network.clear();
    for step in 0..40 {
        if step % 10 == 0 {
            world.produce_bytes(leader, 2 << 20);
        }
        assert!(world.network.iter().all(|message| !message.bulk), "step {step}");
        world.step_lanes(&[leader, other, away]);
    }
    let last = |i: usize| world.nodes[i].process.as_ref().expect("running").replica.group.status().applied_index;
    assert_eq!((last(other), last(away)), (last(leader), last(leader)));
}

/// raft takes a message in flight for lost at each heartbeat while the limit is reached. Once, ten more messages a second
/// were added to those that a slow network had not carried yet, until the budget was exceeded and all were sent again.
#[test]
fn heartbeats_add_no_appends_while_a_slow_follower_makes_progress() {
    const STEPS_OF_MESSAGE: usize = 16;
    let (mut world, leader, other) = three(5);
    let away = 3 - leader - other;
    world.network.clear();
    for _ in 0..120 {
        world.produce_bytes(leader, 40 << 10);
        (0..3).for_each(|_| world.step_lanes(&[leader, other]));
    }
    world.start(away);
    let (mut most, mut sent) = (0, BTreeSet::new());
    for step in 0..1000 {
        if let Some(process) = &mut world.nodes[leader].process {
            bulk::share_with(&mut process.replica.group, ReplicaId(away as u64 + 1), 24);
        }
        world.step_slow_lanes(&[leader, other, away], step % STEPS_OF_MESSAGE == 0);
        let bulk: Vec<u64> = world.network.iter().filter(|message| message.bulk).map(|message| message.index).collect();
        most = most.max(bulk.len());
        sent.extend(bulk);
    }
    let last = |i: usize| world.nodes[i].process.as_ref().expect("running").replica.group.status().applied_index;
    assert_eq!(last(away), last(leader), "it has caught up");
    // Some are sent before the follower has its share.
    assert!(sent.len() > 15 && most <= 8, "{most} of {} messages in flight", sent.len());
}
