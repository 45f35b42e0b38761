//! One node joins at a time: decides about a new node while another one has not finished its join. Used by the
//! catalog's leader.
//!
//! A member has finished its join once it votes in the catalog's group (or is a learner of it, if the group has all the
//! voters that it may have), and each of its replicas of logs votes, as far as the leader knows. The leader
//! derives the unfinished members from the catalog and from the groups' conf states. Both are replicated, so a new
//! leader finds nearly the same members.
//!
//! **An abandoned join** must not block other nodes forever. If the leader has not heard from an unfinished node for
//! five minutes (in ticks), it removes that node when another one asks to join. The removed id is never reused; the
//! host can join again with an empty data directory. A node that already votes in some group is not removed, because
//! a majority may depend on it: the leader only stops waiting for it. A new leader restarts the five minutes.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{ReplicaFacts, Replicas};
use super::voters::CATALOG_VOTERS_MAX;
use crate::catalog::state::Catalog;
use crate::types::{GroupId, NodeId, ReplicaId};

/// What a node knows about the votes of the members in logs.
#[derive(Clone, Debug, Default)]
pub struct VotesInLogs {
    /// The members with a replica of a log that does not vote, as far as this node knows.
    without_vote: BTreeSet<NodeId>,
    /// The members that vote in some log, or may do so: this node does not know the voters of every log, and those in a
    /// damaged replica may be outdated.
    perhaps_voters: BTreeSet<NodeId>,
}

impl VotesInLogs {
    /// Collects the votes.
    pub fn of(catalog: &Catalog, replicas: &Replicas) -> VotesInLogs {
        let (mut without_vote, mut perhaps_voters) = (BTreeSet::new(), BTreeSet::new());
        for log in catalog.logs() {
            let known = replicas.get(&log.group).filter(|replica| !replica.voters.is_empty());
            for placement in log.placements() {
                let votes = known.map(|replica| replica.voters.contains(&placement.replica));
                let is_damaged = known.is_some_and(|replica| replica.is_damaged);
                if votes == Some(false) && !is_damaged {
                    without_vote.insert(placement.node);
                }
                if votes.unwrap_or(true) {
                    perhaps_voters.insert(placement.node);
                }
            }
        }
        VotesInLogs { without_vote, perhaps_voters }
    }
}

/// What the catalog's leader knows about the votes of the members.
pub struct VotersOfGroups<'a> {
    of_catalog: Option<&'a ReplicaFacts>,
    in_logs: &'a VotesInLogs,
}

impl<'a> VotersOfGroups<'a> {
    /// Adds the votes in the catalog.
    pub fn of(replicas: &'a Replicas, in_logs: &'a VotesInLogs) -> VotersOfGroups<'a> {
        VotersOfGroups { of_catalog: replicas.get(&GroupId::CATALOG), in_logs }
    }

    /// Returns true if each replica of the node votes, as far as this node knows. This is required before the node gets
    /// a vote in the catalog, so that a join that is abandoned while the node copies a log leaves no additional voter
    /// in the catalog.
    pub fn votes_in_known_logs(&self, node: NodeId) -> bool {
        !self.in_logs.without_vote.contains(&node)
    }

    fn votes_for_catalog(&self, node: NodeId) -> bool {
        self.of_catalog.is_some_and(|replica| replica.voters.contains(&ReplicaId::of_node(node)))
    }

    fn is_in_catalog(&self, node: NodeId) -> bool {
        let Some(replica) = self.of_catalog else { return true };
        if replica.is_damaged {
            return true;
        }
        let is_learner = || replica.progress.iter().any(|r| r.replica == ReplicaId::of_node(node));
        self.votes_for_catalog(node) || (replica.voters.len() >= CATALOG_VOTERS_MAX && is_learner())
    }

    /// Returns true once the member has finished its join.
    pub fn has_joined(&self, node: NodeId) -> bool {
        self.is_in_catalog(node) && self.votes_in_known_logs(node)
    }

    /// Returns the members that have not finished their join.
    pub fn unfinished(&self, catalog: &Catalog) -> Vec<Unfinished> {
        let progress = self.of_catalog.map_or(&[][..], |replica| replica.progress.as_slice());
        let active = |node| progress.iter().any(|r| r.replica == ReplicaId::of_node(node) && r.active);
        let votes = |node| self.votes_for_catalog(node) || self.in_logs.perhaps_voters.contains(&node);
        let nodes = catalog.members().map(|member| member.id);
        let unfinished = nodes.filter(|node| !self.has_joined(*node));
        unfinished.map(|node| Unfinished { node, votes: votes(node), active: active(node) }).collect()
    }
}

/// A member that has not finished its join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The member.
    pub node: NodeId,
    /// True if it votes in some group, or may do so.
    pub votes: bool,
    /// True if the catalog's leader has heard from it recently.
    pub active: bool,
}

/// The decision about a new node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Add it.
    Admit,
    /// Let it wait.
    Wait,
    /// First remove this node, which has abandoned its join.
    Replace(NodeId),
}

/// How long each unfinished member has been silent, in ticks. Only the catalog's leader counts.
#[derive(Debug, Default)]
pub struct Joins(BTreeMap<NodeId, u32>);

impl Joins {
    /// Counts the silent ticks. Called on each tick. On nodes that do not lead the catalog, `unfinished` is empty,
    /// which resets the counts.
    pub fn update(&mut self, unfinished: &[Unfinished]) {
        let silent = |u: &Unfinished| if u.active { 0 } else { self.silent(u.node).saturating_add(1) };
        self.0 = unfinished.iter().map(|u| (u.node, silent(u))).collect();
    }

    fn silent(&self, node: NodeId) -> u32 {
        self.0.get(&node).copied().unwrap_or(0)
    }

    /// Decides about a new node while these members are unfinished. A member that was silent for `silent_ticks_max`
    /// has abandoned its join.
    pub fn decide(&self, unfinished: &[Unfinished], silent_ticks_max: u32) -> Verdict {
        if unfinished.iter().any(|u| self.silent(u.node) < silent_ticks_max) {
            return Verdict::Wait;
        }
        unfinished.iter().find(|u| !u.votes).map_or(Verdict::Admit, |u| Verdict::Replace(u.node))
    }
}
