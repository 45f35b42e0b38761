//! A node whose own ticks came late does not blame others.
//!
//! Between two ticks that are far apart (a suspended process, a busy machine) this node has not read what the others sent, so
//! their silence proves nothing. A leader then gives its followers a whole new period before it checks for a quorum, and a
//! follower gives its leader one before it campaigns. Only a few times in a row, or a machine that is always late would lead
//! without a majority.

use super::group::Group;

/// The maximum number of new periods in a row.
const PERIODS_MAX: usize = 4;

/// The new periods that were given since a period has ended, or a leader was heard.
#[derive(Debug, Default)]
pub(super) struct Late {
    given: usize,
    now: bool,
}

impl Late {
    /// Called on each tick with raft's count of ticks since a period began, or a leader was heard.
    pub fn begin_tick(&mut self, election_elapsed: usize) {
        if election_elapsed == 0 && !self.now {
            self.given = 0;
        }
        self.now = false;
    }
}

impl Group {
    /// The next tick comes late.
    pub fn was_late(&mut self) {
        let waits_for_others = self.is_leader() || self.leader().is_some();
        if waits_for_others && self.late.given < PERIODS_MAX {
            self.late.given += 1;
            self.late.now = true;
            self.node.raft.election_elapsed = 0;
        }
    }
}
