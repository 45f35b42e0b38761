//! The next step of a group's membership: from who replicates it to who should. A pure function, asked by the leader.
//!
//! One change at a time; a node joins as a learner and gets its vote when it has caught up; a change that the remaining
//! voters could not commit is not made; a leader hands over before it is removed (RELIABILITY L6 and L21).

use super::conf_change::{ConfChange, ConfChangeKind};
use crate::types::{LogIndex, NodeId};

/// What the leader knows of one replica.
#[derive(Clone, Copy, Debug)]
pub struct Replica {
    /// Whose.
    pub node: NodeId,
    /// True when it votes.
    pub voter: bool,
    /// The last entry that it is known to hold.
    pub matched: LogIndex,
    /// It was heard of lately. The leader itself always is.
    pub active: bool,
    /// A learner that could vote now (`catch_up.rs`).
    pub caught_up: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Propose this change.
    Change(ConfChange),
    /// Give leadership away first.
    HandOver,
}

/// The next step towards having all of `wanted` and none that is `removed`, or nothing when that is so or must wait. A
/// replica that is neither stays: this node's catalog may lag behind the one that brought it. A learner gets its vote only if it
/// `may_vote`.
pub fn next_step(
    me: NodeId,
    replicas: &[Replica],
    wanted: &[NodeId],
    removed: impl Fn(NodeId) -> bool,
    may_vote: impl Fn(NodeId) -> bool,
) -> Option<Step> {
    let change = |kind, node| Some(Step::Change(ConfChange { kind, node }));
    let extra = |r: &&Replica| removed(r.node);
    if let Some(learner) = replicas.iter().filter(|r| !r.voter).find(extra) {
        return change(ConfChangeKind::Remove, learner.node);
    }
    // The leader itself goes last.
    let others_first = replicas.iter().filter(|r| r.node != me).chain(replicas.iter().filter(|r| r.node == me));
    for voter in others_first.filter(|r| r.voter).filter(extra) {
        let rest = replicas.iter().filter(|r| r.voter && r.node != voter.node);
        if can_commit(rest.clone()) {
            return if voter.node == me { Some(Step::HandOver) } else { change(ConfChangeKind::Remove, voter.node) };
        }
    }
    let ready = |r: &&Replica| !r.voter && r.active && r.caught_up && wanted.contains(&r.node) && may_vote(r.node);
    if let Some(learner) = replicas.iter().find(ready) {
        let with = replicas.iter().filter(|r| r.voter || r.node == learner.node);
        if can_commit(with) {
            return change(ConfChangeKind::AddVoter, learner.node);
        }
    }
    let new = wanted.iter().find(|node| replicas.iter().all(|r| r.node != **node))?;
    change(ConfChangeKind::AddLearner, *new)
}

/// True when a majority of these would answer now.
fn can_commit<'a>(voters: impl Iterator<Item = &'a Replica>) -> bool {
    let (all, active) = voters.fold((0, 0), |(all, active), r| (all + 1, active + usize::from(r.active)));
    active > all / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(node: u64, voter: bool, active: bool) -> Replica {
        Replica { node: NodeId(node), voter, matched: LogIndex(1000), active, caught_up: false }
    }

    fn step(replicas: &[Replica], desired: &[u64]) -> Option<Step> {
        let wanted: Vec<NodeId> = desired.iter().map(|n| NodeId(*n)).collect();
        next_step(NodeId(1), replicas, &wanted, |node| !wanted.contains(&node), |node| node != NodeId(9))
    }

    fn change(kind: ConfChangeKind, node: u64) -> Option<Step> {
        Some(Step::Change(ConfChange { kind, node: NodeId(node) }))
    }

    #[test]
    fn a_node_learns_before_it_votes() {
        let me = replica(1, true, true);
        let caught_up = |active| Replica { caught_up: true, ..replica(2, false, active) };
        assert_eq!(step(&[me], &[1, 2]), change(ConfChangeKind::AddLearner, 2));
        assert_eq!(step(&[me, replica(2, false, true)], &[1, 2]), None);
        assert_eq!(step(&[me, caught_up(true)], &[1, 2]), change(ConfChangeKind::AddVoter, 2));
        assert_eq!(step(&[me, caught_up(false)], &[1, 2]), None);
        assert_eq!(step(&[me, replica(2, true, true)], &[1, 2]), None);
        let waits = Replica { caught_up: true, ..replica(9, false, true) };
        assert_eq!(step(&[me, waits], &[1, 9]), None, "it votes elsewhere first");
    }

    #[test]
    fn never_a_change_that_the_rest_could_not_commit() {
        let me = replica(1, true, true);
        let (up, down) = (replica(2, true, true), replica(3, true, false));
        assert_eq!(step(&[me, up, down], &[1, 2]), change(ConfChangeKind::Remove, 3));
        // Without 2 the voters would be 1 and 3, and 3 is away.
        assert_eq!(step(&[me, up, down], &[1, 3]), None);
        assert_eq!(step(&[me, up, down], &[2, 3]), None);
    }

    #[test]
    fn a_leader_hands_over_before_it_goes() {
        let (me, other) = (replica(1, true, true), replica(2, true, true));
        assert_eq!(step(&[me, other], &[2]), Some(Step::HandOver));
    }
}
