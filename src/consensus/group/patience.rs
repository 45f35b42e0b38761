//! How long a node waits for an election to succeed.
//!
//! A candidate syncs its vote before it requests votes, and a voter syncs its vote before it grants it. If each sync takes
//! longer than the election timeout, the next election begins before the current one can succeed, forever. So:
//!
//! - **The election timer does not run while this node's own term or vote is not synced**: it has not sent anything yet.
//! - **Without a leader, raft receives only each n-th tick.** n is 1 at first; it doubles with each term from the third without
//!   a leader on, and is at least what this node's own sync suggests. Terms that nobody could begin (no majority answers
//!   pre-votes) do not count, so a node that was cut off is not slower afterwards. With a leader, raft receives every tick.
//! - **A leader may stall for n times as long as usual** before it steps down: where all disks are slow, its successor's would be
//!   slow too.

use super::settings::ELECTION_TICKS;

/// The maximum of n: election timeouts of 10 to 20 s, for syncs of two seconds, two of which may be in the way of a vote's.
const FACTOR_MAX: usize = 16;
/// The number of terms without a leader that are not slowed down.
const USUAL_TERMS: u32 = 2;
/// An election takes this many times as long as a candidate's own sync, as far as it can tell.
const SYNCS: usize = 2;

/// The leader of a group, as far as a node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This node, and an entry of its term is committed, or not yet.
    Here {
        committed: bool,
    },
    Elsewhere,
    Vacant,
}

/// The state of one group's elections.
#[derive(Debug)]
pub struct ElectionPatience {
    term: u64,
    /// The terms that began since a leader was last known.
    terms: u32,
    /// The longest time that a term or a vote needed to be synced since then, in ticks.
    sync_ticks: usize,
    /// Ticks since the current term or vote waits to be synced.
    waited: usize,
    ticks: usize,
    /// n as of the last election.
    factor: usize,
}

impl ElectionPatience {
    pub fn new(term: u64) -> ElectionPatience {
        ElectionPatience { term, terms: 0, sync_ticks: 0, waited: 0, ticks: 0, factor: 1 }
    }

    /// One tick, in this term; `unsynced` if the term or the vote is not synced. True if raft should receive it.
    pub fn tick(&mut self, term: u64, leadership: Leadership, unsynced: bool) -> bool {
        match leadership {
            Leadership::Here { committed } => {
                if committed {
                    (self.terms, self.sync_ticks, self.waited) = (0, 0, 0);
                }
                self.term = term;
                return true;
            }
            Leadership::Elsewhere => {
                *self = ElectionPatience::new(term);
                return true;
            }
            Leadership::Vacant => {}
        }
        if term > self.term {
            (self.term, self.terms) = (term, self.terms.saturating_add(1));
        }
        self.waited = if unsynced { self.waited + 1 } else { 0 };
        self.sync_ticks = self.sync_ticks.max(self.waited);
        let doubled = 1 << self.terms.saturating_sub(USUAL_TERMS).min(FACTOR_MAX.ilog2());
        let suggested = 1 + SYNCS * self.sync_ticks / ELECTION_TICKS;
        self.factor = suggested.max(doubled).min(FACTOR_MAX);
        self.ticks += 1;
        !unsynced && self.ticks.is_multiple_of(self.factor)
    }

    /// The number of ticks after which a leader whose disk makes no progress steps down.
    pub fn stalled_max(&self) -> usize {
        2 * ELECTION_TICKS * self.factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(patience: &mut ElectionPatience, term: u64, leadership: Leadership) -> usize {
        (0..160).filter(|_| patience.tick(term, leadership, false)).count()
    }

    #[test]
    fn each_term_without_a_leader_doubles_the_timeouts_from_the_third_on() {
        let mut patience = ElectionPatience::new(7);
        assert_eq!(passed(&mut patience, 7, Leadership::Elsewhere), 160);
        let counts = [7, 8, 9, 10, 11, 12, 13, 14].map(|term| passed(&mut patience, term, Leadership::Vacant));
        assert_eq!(counts, [160, 160, 160, 80, 40, 20, 10, 10]);
        assert_eq!(passed(&mut patience, 15, Leadership::Elsewhere), 160);
        assert_eq!(passed(&mut patience, 15, Leadership::Vacant), 160, "the count begins anew");
    }

    #[test]
    fn the_timer_waits_for_the_own_vote_and_then_as_long_as_that_suggests() {
        let mut patience = ElectionPatience::new(1);
        assert!((0..40).all(|_| !patience.tick(2, Leadership::Vacant, true)));
        assert_eq!(passed(&mut patience, 2, Leadership::Vacant), 23, "each seventh of the ticks 41 to 200");
        // Leadership is the result: the leader may stall for as long, also once its sync is over.
        for committed in [false, true] {
            assert!(patience.tick(2, Leadership::Here { committed }, true));
            assert_eq!(patience.stalled_max(), 7 * 24);
        }
        assert_eq!(passed(&mut patience, 2, Leadership::Vacant), 160, "it has stepped down");
        assert_eq!(patience.stalled_max(), 24);
    }
}
