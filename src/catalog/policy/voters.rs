//! Decides the next change of a group's membership, from its present replicas to those that it should have
//! (RELIABILITY L6 and L21).
//!
//! - One change at a time.
//! - A replica is added as a learner and becomes a voter once it has caught up.
//! - No change is made after which the active voters would not be a majority.
//! - A silent voter is removed at once. One that is heard is removed only once every wanted replica votes, so a log
//!   whose replica moves never has fewer copies than before.
//! - A leader hands over before it is removed.

use super::catch_up::CatchUp;
use super::facts::{ReplicaFacts, ReplicaProgress};
use crate::catalog::faults::{Fault, broken};
use crate::types::ReplicaId;

/// The maximum number of voters in the catalog's group. Further members are its learners: each vote makes a change of
/// the catalog slower, and five voters survive the loss of two.
pub const CATALOG_VOTERS_MAX: usize = 5;

/// One change of a group's membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// Adds a replica as a learner.
    AddLearner(ReplicaId),
    /// Makes a learner a voter.
    AddVoter(ReplicaId),
    /// Removes a voter or a learner.
    Remove(ReplicaId),
}

/// The next step of a leader towards its group's target membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Propose the change.
    Change(MembershipChange),
    /// Hand over leadership first.
    HandOver,
}

/// The target membership of a group.
pub struct Target<'a, R, V> {
    /// The replicas that the group should have.
    pub members: &'a [ReplicaId],
    /// Returns true for a replica that must leave the group. One that is neither wanted nor must leave is kept: this
    /// node's catalog may lag behind the one that placed it.
    pub removed: R,
    /// Returns true for a learner that may become a voter once it has caught up.
    pub may_vote: V,
}

/// Moves the membership of one group while this node leads it.
#[derive(Debug, Default)]
pub struct GroupVoters {
    catch_up: CatchUp,
}

impl GroupVoters {
    /// Returns the next step towards the target, or `None` if there is nothing to do or the step must wait. Called by
    /// the group's leader on each tick. A learner has caught up if a round took less than `round_ticks_max`. Also
    /// returns the learners to report as slower than the load, with the number of their rounds.
    pub fn next_step(
        &mut self,
        me: ReplicaId,
        replica: &ReplicaFacts,
        target: &Target<'_, impl Fn(ReplicaId) -> bool, impl Fn(ReplicaId) -> bool>,
        tick: u64,
        round_ticks_max: u64,
    ) -> (Option<Step>, Vec<(ReplicaId, u32)>) {
        let rounds = self.catch_up.update(replica, tick, round_ticks_max);
        if replica.is_changing {
            return (None, rounds.slow);
        }
        (next_step(me, &replica.progress, &rounds.caught_up, target), rounds.slow)
    }
}

fn next_step(
    me: ReplicaId,
    replicas: &[ReplicaProgress],
    caught_up: &[ReplicaId],
    target: &Target<'_, impl Fn(ReplicaId) -> bool, impl Fn(ReplicaId) -> bool>,
) -> Option<Step> {
    let extra = |r: &&ReplicaProgress| (target.removed)(r.replica);
    if let Some(learner) = replicas.iter().filter(|r| !r.voter).find(extra) {
        return Some(Step::Change(MembershipChange::Remove(learner.replica)));
    }
    let removable =
        |voter: &&ReplicaProgress| can_commit(replicas.iter().filter(|r| r.voter && r.replica != voter.replica));
    let mut extra_voters = replicas.iter().filter(|r| r.voter).filter(extra);
    if let Some(silent) = extra_voters.clone().filter(|r| !r.active).find(removable) {
        return Some(Step::Change(MembershipChange::Remove(silent.replica)));
    }
    let ready = |r: &&ReplicaProgress| {
        !r.voter
            && r.active
            && caught_up.contains(&r.replica)
            && target.members.contains(&r.replica)
            && (target.may_vote)(r.replica)
    };
    if let Some(learner) = replicas.iter().find(ready) {
        let with = replicas.iter().filter(|r| r.voter || r.replica == learner.replica);
        if can_commit(with) {
            return Some(Step::Change(MembershipChange::AddVoter(learner.replica)));
        }
    }
    let new = target.members.iter().find(|node| replicas.iter().all(|r| r.replica != **node));
    if let Some(new) = new {
        return Some(Step::Change(MembershipChange::AddLearner(*new)));
    }
    let waits = |member: &&ReplicaId| {
        let votes = replicas.iter().any(|r| r.replica == **member && r.voter);
        !votes && (target.may_vote)(**member) && !broken(Fault::RemovedBeforeReplaced)
    };
    if target.members.iter().any(|member| waits(&member)) {
        return None;
    }
    // The leader itself is removed last.
    let other = extra_voters.clone().filter(|r| r.replica != me).find(removable);
    if let Some(voter) = other {
        return Some(Step::Change(MembershipChange::Remove(voter.replica)));
    }
    extra_voters.find(|r| r.replica == me).filter(|r| removable(r)).map(|_| Step::HandOver)
}

/// Returns true if a majority of these voters is active.
fn can_commit<'a>(voters: impl Iterator<Item = &'a ReplicaProgress>) -> bool {
    let (all, active) = voters.fold((0, 0), |(all, active), r| (all + 1, active + usize::from(r.active)));
    active > all / 2
}
