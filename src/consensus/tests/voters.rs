//! Moves the voters of a group without the driver.

use crate::catalog::policy::voters::{GroupVoters, Step, Target};
use crate::consensus::group::{ELECTION_TICKS, Group, Successor};
use crate::types::ReplicaId;

/// Does what the driver does on each tick for a group that is not the catalog.
#[derive(Default)]
pub struct VoterMover {
    voters: GroupVoters,
    ticks: u64,
}

impl VoterMover {
    pub fn tick(&mut self, group: &mut Group, wanted: &[ReplicaId], removed: impl Fn(ReplicaId) -> bool) {
        self.ticks += 1;
        let facts = group.facts();
        if !facts.leads {
            self.voters = GroupVoters::default();
            return;
        }
        let target = Target { members: wanted, removed, may_vote: |_| true };
        match self.voters.next_step(group.node.me(), &facts, &target, self.ticks, ELECTION_TICKS as u64).0 {
            Some(Step::Change(change)) => group.change_membership(change),
            Some(Step::HandOver) => {
                group.hand_over(Successor::Any);
            }
            None => {}
        }
    }
}
