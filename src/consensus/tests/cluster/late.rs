//! Tests of acknowledgements that arrive after the leader's disk was restored.

use raft::eraftpb::MessageType;

use super::*;
use crate::consensus::group::Successor;

impl World {
    fn running(&mut self, i: usize) -> &mut Process {
        self.nodes[i].process.as_mut().expect("running")
    }

    /// Lets these nodes sync and exchange messages until `done`. All other messages are lost.
    fn exchange(&mut self, nodes: [usize; 2], done: impl Fn(&World) -> bool) {
        for _ in 0..10 {
            for i in nodes {
                self.sync(i, false);
                self.sync(i, true);
            }
            if done(self) {
                return;
            }
            for message in std::mem::take(&mut self.network) {
                let (from, to) = (message.from as usize - 1, message.to as usize - 1);
                if nodes.contains(&from) && nodes.contains(&to) && !done(self) {
                    self.running(to).replica.step(message, FeatureRange::SUPPORTED).expect("a message of a peer");
                    self.perform(to);
                }
            }
        }
    }

    fn end(&mut self, i: usize) -> (LogIndex, Term) {
        let status = self.running(i).replica.group.status();
        (status.last_index, status.term)
    }

    /// Appends a record at the leader, on its own disk.
    fn append(&mut self, leader: usize) -> LogIndex {
        self.produce(leader);
        self.perform(leader);
        self.sync(leader, false);
        self.sync(leader, true);
        self.end(leader).0
    }
}

/// A leader's disk is restored to a copy from before its term. The only other voter that it needs has no entry of the
/// term, so it leads that term again. Meanwhile an acknowledgement of its first entries is in flight. The leader
/// counted it for a different entry with the same index, which was then committed although it was on no other disk.
#[test]
fn an_acknowledgement_of_other_entries_is_not_counted() {
    for counts_others in [false, true] {
        let mut world = World::new(1, 3);
        world.rules.count_compared_only = !counts_others;
        world.rolls_back = true;
        for i in 0..3 {
            world.kill(i, true);
            world.start(i);
            world.nodes[i].wanted = world.wanted.clone();
        }
        assert!(world.settle(4000));
        let old = world.leader().expect("a leader");
        let copies: Vec<Sim> = world.nodes.iter().map(|node| node.sim.copy()).collect();
        world.network.clear();
        world.running(old).replica.group.hand_over(Successor::Any);
        world.perform(old);
        let timeout =
            world.network.iter().find(|m| m.type_ == MessageType::MsgTimeoutNow as u32).expect("it hands over");
        let again = timeout.to as usize - 1;
        let other = 3 - old - again;
        let leads = move |world: &World| world.leader() == Some(again);
        world.exchange([old, again], leads);
        assert!(leads(&world));
        for _ in 0..100 {
            world.tick(again);
            world.exchange([again, other], |_| false);
            if world.end(again) == world.end(other) {
                break;
            }
        }
        // The other node has the new entry, and its acknowledgement is delayed.
        world.network.clear();
        let last = world.append(again);
        world.exchange([again, other], |world| {
            let acknowledges = |m: &&RaftMessage| m.type_ == MessageType::MsgAppendResponse as u32 && m.index == last.0;
            world.network.iter().any(|m| acknowledges(&m))
        });
        for _ in 0..3 {
            world.sync(other, false);
            world.sync(other, true);
        }
        let late: Vec<RaftMessage> = world.network.drain(..).filter(|m| m.to == again as u64 + 1).collect();
        assert!(late.iter().any(|m| m.index == last.0 && !m.reject), "{late:?}");
        let term = world.end(again).1;
        world.kill(again, true);
        world.nodes[again].sim = copies[again].copy();
        world.start(again);
        world.network.clear();
        for _ in 0..100 {
            world.tick(again);
            world.exchange([again, old], leads);
            if leads(&world) {
                break;
            }
        }
        assert!(leads(&world) && world.end(again).1 == term, "it leads the same term");
        assert_eq!(world.append(again), last);
        for message in late {
            // An acknowledgement that is not counted is rejected.
            let _ = world.running(again).replica.step(message, FeatureRange::SUPPORTED);
            world.perform(again);
        }
        let commit = world.running(again).replica.group.status().commit_index;
        assert_eq!(commit >= last, counts_others, "entry {last}, commit {commit}");
    }
}
