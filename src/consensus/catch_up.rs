//! Whether a learner has caught up with its leader: measured by time, not by its lag in entries, whose meaning depends on the
//! load.
//!
//! Replication to a learner is divided into rounds (Ongaro's thesis, 4.2.1). A round ends when the learner is known to hold the
//! entry that was the leader's last one when the round began. If it took longer than an election timeout, another round follows.
//! Either each round has fewer entries than the one before, or the learner is slower than the load, and as a voter it would delay
//! a cluster that needs its vote. A shorter round means that the learner has caught up: as a voter it would lag by no more than
//! the time that the cluster waits for a leader anyway.

use std::collections::BTreeMap;

use super::reconcile::Replica;
use crate::types::{LogIndex, NodeId};

/// A round of one learner.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// The leader's last index when it began.
    target: LogIndex,
    /// The leader's tick when it began.
    began: u64,
    /// The number of earlier rounds of this learner.
    before: u32,
}

/// The rounds of a group's learners, as its leader sees them.
#[derive(Debug, Default)]
pub struct CatchUp {
    term: u64,
    rounds: BTreeMap<NodeId, Round>,
}

impl CatchUp {
    /// Called on every tick: updates each learner's round, and marks the learners that have caught up: those whose last round
    /// took less than `ticks_max`.
    pub fn look(&mut self, term: u64, tick: u64, last_index: LogIndex, replicas: &mut [Replica], ticks_max: u64) {
        if self.term != term {
            *self = CatchUp { term, ..CatchUp::default() };
        }
        self.rounds.retain(|node, _| replicas.iter().any(|r| r.node == *node && !r.voter && r.active));
        for learner in replicas.iter_mut().filter(|r| !r.voter && r.active) {
            let round = self.rounds.entry(learner.node).or_insert(Round { target: last_index, began: tick, before: 0 });
            // A learner that has never acknowledged anything may not be running: raft treats a new one as active.
            if learner.matched < round.target || learner.matched == LogIndex(0) {
                continue;
            }
            learner.caught_up = tick.saturating_sub(round.began) < ticks_max;
            if !learner.caught_up {
                *round = Round { target: last_index, began: tick, before: round.before + 1 };
                // Logged, but less and less often.
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
        assert!(!look(&mut rounds, 1, 100, 1500, 1001, true), "the round begins anew");
        assert!(!look(&mut rounds, 2, 101, 2000, 1500, true), "a new leader knows nothing of it");
        assert!(look(&mut rounds, 2, 102, 2000, 2000, true));
        assert!(!look(&mut CatchUp::default(), 1, 0, 0, 0, true), "never heard of");
    }
}
