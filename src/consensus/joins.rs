//! One node joins at a time: what the catalog's leader does with a new node while another one has not finished.
//!
//! A member has finished once it votes in every group. Who has not, each leader reads from the catalog and the groups' conf states, which
//! are replicated, and it takes a new node only when all entries of its log are applied: so an election changes nothing, and two
//! unfinished nodes are never taken.
//!
//! **A join that is abandoned** must not keep others out for good. A leader that has not heard from the unfinished node for five minutes of
//! its own ticks removes it when another node asks, if it votes nowhere: nothing can depend on it. Its id never comes back; its host joins
//! again with an empty data directory. One that votes somewhere stays a member, and is not waited for. A new leader counts the five
//! minutes from the beginning.

use std::collections::BTreeMap;

use super::group::TICK_MS;
use crate::types::NodeId;

/// The leader's ticks without a word of it after which an unfinished node is given up.
pub const SILENT_TICKS_MAX: u32 = (5 * 60 * 1000 / TICK_MS) as u32;

/// A member that does not vote in every group yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Which.
    pub node: NodeId,
    /// It votes in some group.
    pub votes: bool,
    /// It was heard of lately.
    pub active: bool,
}

/// What to do with a new node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take it.
    Admit,
    /// Let it wait.
    Wait,
    /// Remove this node first, whose join is abandoned.
    Replace(NodeId),
}

/// How long the unfinished members have been silent, as this leader of the catalog knows.
#[derive(Debug, Default)]
pub struct Joins(BTreeMap<NodeId, u32>);

impl Joins {
    /// Called on every tick of the catalog's leader; without members by any other node.
    pub fn look(&mut self, unfinished: &[Unfinished]) {
        let silent = |u: &Unfinished| if u.active { 0 } else { self.silent(u.node).saturating_add(1) };
        self.0 = unfinished.iter().map(|u| (u.node, silent(u))).collect();
    }

    fn silent(&self, node: NodeId) -> u32 {
        self.0.get(&node).copied().unwrap_or(0)
    }

    /// What to do with a new node while these are unfinished.
    pub fn decide(&self, unfinished: &[Unfinished]) -> Verdict {
        if unfinished.iter().any(|u| self.silent(u.node) < SILENT_TICKS_MAX) {
            return Verdict::Wait;
        }
        unfinished.iter().find(|u| !u.votes).map_or(Verdict::Admit, |u| Verdict::Replace(u.node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unfinished(node: u64, votes: bool, active: bool) -> Unfinished {
        Unfinished { node: NodeId(node), votes, active }
    }

    #[test]
    fn one_that_answers_is_waited_for_however_long_it_takes() {
        let mut joins = Joins::default();
        assert_eq!(joins.decide(&[]), Verdict::Admit);
        let slow = [unfinished(2, false, true)];
        (0..10 * SILENT_TICKS_MAX).for_each(|_| joins.look(&slow));
        assert_eq!(joins.decide(&slow), Verdict::Wait);
    }

    #[test]
    fn one_that_is_silent_gives_way_after_a_while() {
        let mut joins = Joins::default();
        let gone = [unfinished(2, false, false)];
        (1..SILENT_TICKS_MAX).for_each(|_| joins.look(&gone));
        assert_eq!(joins.decide(&gone), Verdict::Wait);
        joins.look(&[unfinished(2, false, true)]);
        (1..SILENT_TICKS_MAX).for_each(|_| joins.look(&gone));
        assert_eq!(joins.decide(&gone), Verdict::Wait, "it was heard meanwhile");
        joins.look(&gone);
        assert_eq!(joins.decide(&gone), Verdict::Replace(NodeId(2)));
        let second = [gone[0], unfinished(3, false, false)];
        assert_eq!(joins.decide(&second), Verdict::Wait, "the other one is not silent for long");
        joins.look(&[]);
        assert_eq!(joins.decide(&gone), Verdict::Wait, "another leader knows nothing of its silence");
    }

    #[test]
    fn one_that_votes_somewhere_is_never_removed() {
        let mut joins = Joins::default();
        let voter = [unfinished(2, true, false)];
        (0..SILENT_TICKS_MAX).for_each(|_| joins.look(&voter));
        assert_eq!(joins.decide(&voter), Verdict::Admit);
        let both = [voter[0], unfinished(3, false, false)];
        (0..SILENT_TICKS_MAX).for_each(|_| joins.look(&both));
        assert_eq!(joins.decide(&both), Verdict::Replace(NodeId(3)));
    }
}
