//! A node whose own ticks came late does not blame others.
//!
//! Between two ticks that are far apart (a suspended process, a busy machine) this node has not read what the others sent, so
//! their silence proves nothing. A leader then waits for a whole new period before it checks for a quorum, and a
//! follower before it campaigns. Only a few times in a row, or a machine that is always late would lead
//! without a majority.

/// The maximum number of new periods in a row.
const PERIODS_MAX: usize = 4;

/// The new periods that began early since one has ended, or a leader was heard.
#[derive(Debug, Default)]
pub struct LateTicks {
    begun: usize,
    now: bool,
}

impl LateTicks {
    /// Called on each tick with raft's count of ticks since a period began, or a leader was heard.
    pub fn begin_tick(&mut self, election_elapsed: usize) {
        if election_elapsed == 0 && !self.now {
            self.begun = 0;
        }
        self.now = false;
    }

    /// The next tick is late, and this node waits for others. True if a new period begins for them.
    pub fn was_late(&mut self) -> bool {
        let begins = self.begun < PERIODS_MAX;
        if begins {
            self.begun += 1;
            self.now = true;
        }
        begins
    }
}
