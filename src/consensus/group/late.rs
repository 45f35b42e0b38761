//! Late ticks: a node that was suspended must not conclude that its peers are silent.
//!
//! If two ticks are far apart (a suspended process, an overloaded machine), this node has not read the peers'
//! messages in between. So it restarts its election timeout: a leader waits for a whole new timeout before it checks
//! for a quorum, and a follower before it campaigns. It does so only a few times in a row. Otherwise a leader on a
//! machine that is always late would keep leading without a majority.

/// The maximum number of restarted timeouts in a row.
const PERIODS_MAX: usize = 4;

/// Counts the restarted timeouts since a timeout last elapsed, or a leader was last heard.
#[derive(Debug, Default)]
pub struct LateTicks {
    begun: usize,
    now: bool,
}

impl LateTicks {
    /// Called on each tick with raft's count of ticks since the timeout was started, or a leader was heard.
    pub fn begin_tick(&mut self, election_elapsed: usize) {
        if election_elapsed == 0 && !self.now {
            self.begun = 0;
        }
        self.now = false;
    }

    /// Called when the next tick is late while this node waits for others. Returns true, and counts a restart, if the
    /// timeout should be restarted.
    pub fn try_restart(&mut self) -> bool {
        let begins = self.begun < PERIODS_MAX;
        if begins {
            self.begun += 1;
            self.now = true;
        }
        begins
    }
}
