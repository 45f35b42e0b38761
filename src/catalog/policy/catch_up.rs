//! Decides whether a learner has caught up with its leader. The measure is time, because the meaning of a lag in
//! entries depends on the load.
//!
//! Replication to a learner is divided into rounds (Ongaro's thesis, 4.2.1). A round ends when the learner has
//! acknowledged the entry that was the leader's last one when the round began. If the round took less than an
//! election timeout, the learner has caught up: as a voter it would lag by no more than the time that the cluster
//! waits for a leader anyway. Otherwise another round follows. If rounds do not become shorter, the learner is slower
//! than the load, and as a voter it would delay a cluster that needs its vote.

use std::collections::BTreeMap;

use super::facts::ReplicaFacts;
use crate::types::{LogIndex, ReplicaId, Term};

/// A round of one learner.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// The leader's last index when the round began.
    target: LogIndex,
    /// The tick at which the round began.
    began: u64,
    /// The number of earlier rounds of this learner.
    before: u32,
}

/// The rounds of a group's learners, as its leader sees them.
#[derive(Debug, Default)]
pub struct CatchUp {
    term: Term,
    rounds: BTreeMap<ReplicaId, Round>,
}

/// The result of a tick.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rounds {
    /// The learners whose last round was short enough.
    pub caught_up: Vec<ReplicaId>,
    /// The learners to report as slow, and the number of their rounds: 8, 16, and so on.
    pub slow: Vec<(ReplicaId, u32)>,
}

impl CatchUp {
    /// Updates each learner's round. Called by the leader on each tick.
    pub fn update(&mut self, replica: &ReplicaFacts, tick: u64, ticks_max: u64) -> Rounds {
        let mut result = Rounds::default();
        if self.term != replica.term {
            *self = CatchUp { term: replica.term, ..CatchUp::default() };
        }
        let learners = || replica.progress.iter().filter(|r| !r.voter && r.active);
        self.rounds.retain(|replica, _| learners().any(|r| r.replica == *replica));
        for learner in learners() {
            let begun = Round { target: replica.last_index, began: tick, before: 0 };
            let round = self.rounds.entry(learner.replica).or_insert(begun);
            // A learner that has never acknowledged anything may not be running: raft treats a new one as active.
            if learner.matched < round.target || learner.matched == LogIndex(0) {
                continue;
            }
            // Without load, the time says nothing: the learner has everything. A quiet group is seen once a second.
            if tick.saturating_sub(round.began) < ticks_max || replica.last_index == round.target {
                result.caught_up.push(learner.replica);
                continue;
            }
            let rounds = round.before + 1;
            *round = Round { before: rounds, ..begun };
            if rounds.is_power_of_two() && rounds > 4 {
                result.slow.push((learner.replica, rounds));
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::ReplicaProgress;
    use super::*;

    const LEARNER: ReplicaId = ReplicaId(2);
    const TICKS_MAX: u64 = 12;

    fn has_caught_up(rounds: &mut CatchUp, term: u64, tick: u64, last: u64, matched: u64, active: bool) -> bool {
        let learner = ReplicaProgress { replica: LEARNER, voter: false, matched: LogIndex(matched), active };
        let replica = ReplicaFacts {
            term: Term(term),
            last_index: LogIndex(last),
            progress: vec![learner],
            ..ReplicaFacts::default()
        };
        rounds.update(&replica, tick, TICKS_MAX).caught_up == [LEARNER]
    }

    #[test]
    fn a_round_shorter_than_an_election_timeout_ends_the_catch_up() {
        let mut rounds = CatchUp::default();
        assert!(!has_caught_up(&mut rounds, 1, 0, 1000, 10, true));
        assert!(!has_caught_up(&mut rounds, 1, 40, 1400, 999, true));
        assert!(!has_caught_up(&mut rounds, 1, 50, 1500, 1000, true), "the first round took 50 ticks");
        assert!(!has_caught_up(&mut rounds, 1, 61, 1610, 1499, true));
        assert!(!has_caught_up(&mut rounds, 1, 62, 1620, 1500, true), "the second one took 12");
        assert!(!has_caught_up(&mut rounds, 1, 64, 1640, 1619, true));
        assert!(
            has_caught_up(&mut rounds, 1, 65, 1650, 1620, true),
            "the third one took 3 ticks, although 30 entries are missing"
        );
    }

    #[test]
    fn a_learner_slower_than_the_load_does_not_catch_up() {
        let mut rounds = CatchUp::default();
        for tick in 0..10_000 {
            assert!(!has_caught_up(&mut rounds, 1, tick, 1000 + tick * 100, 10 + tick * 50, true), "tick {tick}");
        }
    }

    #[test]
    fn a_round_restarts_with_a_new_term_and_after_silence() {
        let mut rounds = CatchUp::default();
        assert!(!has_caught_up(&mut rounds, 1, 0, 1000, 10, true));
        assert!(!has_caught_up(&mut rounds, 1, 5, 1001, 10, false));
        assert!(!has_caught_up(&mut rounds, 1, 100, 1500, 1001, true), "the round restarts");
        assert!(!has_caught_up(&mut rounds, 2, 101, 2000, 1500, true), "a new leader restarts the round");
        assert!(has_caught_up(&mut rounds, 2, 102, 2000, 2000, true));
        assert!(!has_caught_up(&mut CatchUp::default(), 1, 0, 0, 0, true), "it has acknowledged nothing");
    }

    /// A group whose learner could not become a voter before the group was quiet kept the learner until it was woken, and
    /// the node whose replica it should replace was not removed.
    #[test]
    fn a_learner_of_a_quiet_group_has_caught_up() {
        let mut rounds = CatchUp::default();
        assert!(!has_caught_up(&mut rounds, 1, 0, 1000, 10, true));
        assert!(has_caught_up(&mut rounds, 1, 11, 1000, 1000, true));
        for second in 1..10 {
            assert!(has_caught_up(&mut rounds, 1, 20 * second, 1000, 1000, true), "second {second}");
        }
    }
}
