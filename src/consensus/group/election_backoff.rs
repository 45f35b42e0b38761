//! Longer election timeouts for slow disks.
//!
//! A candidate syncs its vote before it requests votes, and a voter syncs its vote before it grants it. If each sync
//! takes longer than the election timeout, every election is overtaken by the next one, and none succeeds. So:
//!
//! - **The election timer does not run while this node's own term or vote is not synced**, because it has not sent
//!   anything yet.
//! - **Without a leader, raft receives only every n-th tick.** n starts at 1. It doubles with each term without a
//!   leader, from the third one on, and is at least the value that the duration of this node's own sync suggests.
//!   Terms that could not start, because no majority answered the pre-votes, do not count: a node that was
//!   partitioned is not slow afterwards. With a leader, raft receives every tick.
//! - **A leader whose disk makes no progress steps down after n times the usual time.** If all disks are slow, its
//!   successor's disk would be slow too.

use super::settings::ELECTION_TICKS;

/// The maximum of n. It yields election timeouts of 10 to 20 s: enough for syncs of two seconds, two of which may
/// delay the sync of a vote.
const FACTOR_MAX: usize = 16;
/// The number of terms without a leader before n starts to double.
const USUAL_TERMS: u32 = 2;
/// The estimated duration of an election, as a multiple of the candidate's own sync.
const SYNCS: usize = 2;

/// The leader of a group, as far as a node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This node leads. `committed`: an entry of its term is committed.
    Here {
        committed: bool,
    },
    Elsewhere,
    Vacant,
}

/// Decides which ticks one group's raft receives, and when its leader steps down.
#[derive(Debug)]
pub struct ElectionBackoff {
    term: u64,
    /// The terms that began since a leader was last known.
    terms: u32,
    /// The longest sync of a term or a vote since then, in ticks.
    sync_ticks: usize,
    /// The ticks for which the current term or vote has been waiting for its sync.
    waited: usize,
    ticks: usize,
    /// n as of the last election.
    factor: usize,
}

impl ElectionBackoff {
    pub fn new(term: u64) -> ElectionBackoff {
        ElectionBackoff { term, terms: 0, sync_ticks: 0, waited: 0, ticks: 0, factor: 1 }
    }

    /// Called on each tick. `unsynced`: the term or the vote is not synced yet. Returns true if raft should receive
    /// the tick.
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
                *self = ElectionBackoff::new(term);
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

    /// Returns the number of ticks after which a leader whose disk makes no progress steps down.
    pub fn stalled_max(&self) -> usize {
        2 * ELECTION_TICKS * self.factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(backoff: &mut ElectionBackoff, term: u64, leadership: Leadership) -> usize {
        (0..160).filter(|_| backoff.tick(term, leadership, false)).count()
    }

    #[test]
    fn each_term_without_a_leader_doubles_the_timeouts_from_the_third_on() {
        let mut backoff = ElectionBackoff::new(7);
        assert_eq!(passed(&mut backoff, 7, Leadership::Elsewhere), 160);
        let counts = [7, 8, 9, 10, 11, 12, 13, 14].map(|term| passed(&mut backoff, term, Leadership::Vacant));
        assert_eq!(counts, [160, 160, 160, 80, 40, 20, 10, 10]);
        assert_eq!(passed(&mut backoff, 15, Leadership::Elsewhere), 160);
        assert_eq!(passed(&mut backoff, 15, Leadership::Vacant), 160, "the count restarts");
    }

    #[test]
    fn the_timer_stops_until_the_own_vote_is_synced_and_then_runs_slower() {
        let mut backoff = ElectionBackoff::new(1);
        assert!((0..40).all(|_| !backoff.tick(2, Leadership::Vacant, true)));
        assert_eq!(passed(&mut backoff, 2, Leadership::Vacant), 23, "each seventh of the ticks 41 to 200");
        // This node is elected. As the leader it may stall for the same time, even after its sync is done.
        for committed in [false, true] {
            assert!(backoff.tick(2, Leadership::Here { committed }, true));
            assert_eq!(backoff.stalled_max(), 7 * 24);
        }
        assert_eq!(passed(&mut backoff, 2, Leadership::Vacant), 160, "it has stepped down");
        assert_eq!(backoff.stalled_max(), 24);
    }
}
