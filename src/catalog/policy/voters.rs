//! Decides the next change of a group's membership, from the nodes that replicate it now to those that should
//! (RELIABILITY L6 and L21).
//!
//! - One change at a time.
//! - A node is added as a learner and becomes a voter once it has caught up.
//! - No change is made after which the active voters would not be a majority.
//! - A leader hands over before it is removed.

use super::catch_up::CatchUp;
use super::facts::{ReplicaFacts, ReplicaProgress};
use crate::types::NodeId;

/// One change of a group's membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// Adds a node as a learner.
    AddLearner(NodeId),
    /// Makes a learner a voter.
    AddVoter(NodeId),
    /// Removes a voter or a learner.
    Remove(NodeId),
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
    /// The nodes that should replicate the group.
    pub members: &'a [NodeId],
    /// Returns true for a removed node, which must not replicate the group. A replica that is neither wanted nor
    /// removed is kept: this node's catalog may lag behind the one that added it.
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
        me: NodeId,
        replica: &ReplicaFacts,
        target: &Target<'_, impl Fn(NodeId) -> bool, impl Fn(NodeId) -> bool>,
        tick: u64,
        round_ticks_max: u64,
    ) -> (Option<Step>, Vec<(NodeId, u32)>) {
        let rounds = self.catch_up.update(replica, tick, round_ticks_max);
        if replica.is_changing {
            return (None, rounds.slow);
        }
        (next_step(me, &replica.progress, &rounds.caught_up, target), rounds.slow)
    }
}

fn next_step(
    me: NodeId,
    replicas: &[ReplicaProgress],
    caught_up: &[NodeId],
    target: &Target<'_, impl Fn(NodeId) -> bool, impl Fn(NodeId) -> bool>,
) -> Option<Step> {
    let extra = |r: &&ReplicaProgress| (target.removed)(r.node);
    if let Some(learner) = replicas.iter().filter(|r| !r.voter).find(extra) {
        return Some(Step::Change(MembershipChange::Remove(learner.node)));
    }
    // The leader itself is removed last.
    let others_first = replicas.iter().filter(|r| r.node != me).chain(replicas.iter().filter(|r| r.node == me));
    for voter in others_first.filter(|r| r.voter).filter(extra) {
        let rest = replicas.iter().filter(|r| r.voter && r.node != voter.node);
        if can_commit(rest) {
            let remove = Step::Change(MembershipChange::Remove(voter.node));
            return Some(if voter.node == me { Step::HandOver } else { remove });
        }
    }
    let ready = |r: &&ReplicaProgress| {
        !r.voter
            && r.active
            && caught_up.contains(&r.node)
            && target.members.contains(&r.node)
            && (target.may_vote)(r.node)
    };
    if let Some(learner) = replicas.iter().find(ready) {
        let with = replicas.iter().filter(|r| r.voter || r.node == learner.node);
        if can_commit(with) {
            return Some(Step::Change(MembershipChange::AddVoter(learner.node)));
        }
    }
    let new = target.members.iter().find(|node| replicas.iter().all(|r| r.node != **node))?;
    Some(Step::Change(MembershipChange::AddLearner(*new)))
}

/// Returns true if a majority of these voters is active.
fn can_commit<'a>(voters: impl Iterator<Item = &'a ReplicaProgress>) -> bool {
    let (all, active) = voters.fold((0, 0), |(all, active), r| (all + 1, active + usize::from(r.active)));
    active > all / 2
}
