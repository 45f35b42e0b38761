//! Whether a learner has caught up with its leader: by time, and not by how many entries it is behind, which is little or much
//! depending on the load.
//!
//! In rounds (Ongaro's thesis, 4.2.1): each begins with the leader's last entry of that moment, and ends when the learner is known to
//! hold it. While it took longer than an election timeout, there is another one: what came meanwhile is less each time, or the
//! learner is slower than the load, and as a voter it would hold up a cluster that needs it. A round that took less ends it: then
//! the learner, voting, could be behind by no more than the cluster waits for a leader anyway.

use std::collections::BTreeMap;

use super::reconcile::Replica;
use crate::types::{LogIndex, NodeId};

/// A round of one learner.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// The leader's last entry when it began.
    target: LogIndex,
    /// The leader's tick when it began.
    began: u64,
    /// How many it had before.
    before: u32,
}

/// The rounds of the learners of a group, in the eyes of its leader.
#[derive(Debug, Default)]
pub struct CatchUp {
    term: u64,
    rounds: BTreeMap<NodeId, Round>,
}

impl CatchUp {
    /// For every tick: notes how far each learner is, and marks those that have caught up. `ticks_max` is the longest that their
    /// last round may have taken.
    pub fn look(&mut self, term: u64, tick: u64, last_index: LogIndex, replicas: &mut [Replica], ticks_max: u64) {
        if self.term != term {
            *self = CatchUp { term, ..CatchUp::default() };
        }
        self.rounds.retain(|node, _| replicas.iter().any(|r| r.node == *node && !r.voter && r.active));
        for learner in replicas.iter_mut().filter(|r| !r.voter && r.active) {
            let round = self.rounds.entry(learner.node).or_insert(Round { target: last_index, began: tick, before: 0 });
            // Who has never acknowledged anything may not be there at all: raft takes a new one for active.
            if learner.matched < round.target || learner.matched == LogIndex(0) {
                continue;
            }
            learner.caught_up = tick.saturating_sub(round.began) < ticks_max;
            if !learner.caught_up {
                *round = Round { target: last_index, began: tick, before: round.before + 1 };
                // Told in the log, but less and less often.
                if round.before.is_power_of_two() && round.before > 4 {
                    log::info!(
                        "node {} has not caught up in {} rounds: it is slower than the load",
                        learner.node,
                        round.before
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEARNER: NodeId = NodeId(2);
    const TICKS_MAX: u64 = 12;

    fn look(rounds: &mut CatchUp, term: u64, tick: u64, last: u64, matched: u64, active: bool) -> bool {
        let mut replicas =
            [Replica { node: LEARNER, voter: false, matched: LogIndex(matched), active, caught_up: false }];
        rounds.look(term, tick, LogIndex(last), &mut replicas, TICKS_MAX);
        replicas[0].caught_up
    }

    #[test]
    fn a_round_that_is_shorter_than_an_election_ends_it() {
        let mut rounds = CatchUp::default();
        assert!(!look(&mut rounds, 1, 0, 1000, 10, true));
        assert!(!look(&mut rounds, 1, 40, 1400, 999, true));
        assert!(!look(&mut rounds, 1, 50, 1500, 1000, true), "the first round took 50 ticks");
        assert!(!look(&mut rounds, 1, 61, 1610, 1499, true));
        assert!(!look(&mut rounds, 1, 62, 1620, 1500, true), "the second one took 12");
        assert!(!look(&mut rounds, 1, 64, 1640, 1619, true));
        assert!(look(&mut rounds, 1, 65, 1650, 1620, true), "3 ticks, though 30 entries are missing again");
    }

    #[test]
    fn a_learner_that_is_slower_than_the_load_stays_one() {
        let mut rounds = CatchUp::default();
        for tick in 0..10_000 {
            assert!(!look(&mut rounds, 1, tick, 1000 + tick * 100, 10 + tick * 50, true), "tick {tick}");
        }
    }

    #[test]
    fn a_round_is_of_one_term_and_of_one_that_answers() {
        let mut rounds = CatchUp::default();
        assert!(!look(&mut rounds, 1, 0, 1000, 10, true));
        assert!(!look(&mut rounds, 1, 5, 1001, 10, false));
        assert!(!look(&mut rounds, 1, 100, 1500, 1001, true), "it begins anew");
        assert!(!look(&mut rounds, 2, 101, 2000, 1500, true), "a new leader knows nothing of it");
        assert!(look(&mut rounds, 2, 102, 2000, 2000, true));
        assert!(!look(&mut CatchUp::default(), 1, 0, 0, 0, true), "never heard of");
    }
}
