//! One node joins at a time: what the catalog's leader does with a new node while another one has not finished.
//!
//! A member has finished its join once it votes in every group. The leader finds unfinished members in the catalog and in the groups'
//! conf states. Both are replicated, so a new leader finds the same ones. It admits a new node only when all entries of its log are
//! applied, so it never admits two at a time.
//!
//! **An abandoned join** must not keep others out for good. If the leader has not heard from an unfinished node for five minutes of its
//! ticks, it removes the node when another one asks to join. The removed id is never used again; its host can join again with an empty
//! data directory. A node that votes in some group is not removed, as a majority may depend on it; the leader just stops waiting for it.
//! A new leader counts the five minutes from the beginning.

use std::collections::BTreeMap;

use super::group::TICK_MS;
use crate::types::NodeId;

/// An unfinished node from which the leader received nothing for this many ticks has abandoned its join.
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
