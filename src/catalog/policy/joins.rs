//! One node joins at a time: what the catalog's leader does with a new node while another one has not finished its join.
//!
//! A member has finished its join once it votes in every group. The leader finds the unfinished members in the catalog and in
//! the groups' conf states. Both are replicated, so a new leader finds the same ones.
//!
//! **An abandoned join** must not keep others out for good. If the leader has not heard from an unfinished node for five minutes
//! of its ticks, it removes the node when another one asks to join. The removed id is never used again; its host can join again
//! with an empty data directory. A node that votes in some group is not removed, as a majority may depend on it; the leader just
//! stops waiting for it. A new leader counts the five minutes from the beginning.

use std::collections::BTreeMap;

use super::facts::{ReplicaProgress, Replicas};
use crate::catalog::state::Catalog;
use crate::types::{GroupId, NodeId};

/// The voters of the catalog and of each founded log, as far as this node knows them: none for a log that this node does not
/// host, or whose replica waits for its first snapshot.
pub struct VotersOfGroups<'a> {
    logs: Vec<&'a [NodeId]>,
    /// Of damaged replicas: perhaps outdated. They show that a node may vote, and never that it does.
    outdated: Vec<&'a [NodeId]>,
    catalog: Option<&'a [NodeId]>,
    progress: &'a [ReplicaProgress],
}

impl<'a> VotersOfGroups<'a> {
    /// Collects the voters.
    pub fn of(catalog: &Catalog, replicas: &'a Replicas) -> VotersOfGroups<'a> {
        let voters = |group: GroupId| match replicas.get(&group) {
            Some(replica) if replica.is_damaged => None,
            Some(replica) => Some(replica.voters.as_slice()),
            None => Some([].as_slice()),
        };
        let damaged = replicas.values().filter(|replica| replica.is_damaged);
        VotersOfGroups {
            outdated: damaged.map(|replica| replica.voters.as_slice()).collect(),
            logs: catalog.logs().filter(|log| log.founded).filter_map(|log| voters(log.group)).collect(),
            catalog: voters(GroupId::CATALOG),
            progress: replicas.get(&GroupId::CATALOG).map_or(&[], |replica| &replica.progress),
        }
    }

    /// True if the node votes in every log whose voters are known. Only then it may vote in the catalog, so a join that is
    /// abandoned while it copies a log does not leave a voter.
    pub fn votes_in_known_logs(&self, node: NodeId) -> bool {
        self.logs.iter().filter(|voters| !voters.is_empty()).all(|voters| voters.contains(&node))
    }

    /// Returns the members that do not vote in every group yet.
    pub fn unfinished(&self, catalog: &Catalog) -> Vec<Unfinished> {
        let groups = || self.logs.iter().copied().chain(self.catalog);
        let nodes = catalog.members().map(|member| member.id);
        let unfinished = nodes.filter(|node| !groups().all(|voters| voters.contains(node)));
        let active = |node| self.progress.iter().any(|replica| replica.node == node && replica.active);
        let votes = |node| groups().chain(self.outdated.iter().copied()).any(|voters| voters.contains(&node));
        unfinished.map(|node| Unfinished { node, votes: votes(node), active: active(node) }).collect()
    }
}

/// A member that does not vote in every group yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The member.
    pub node: NodeId,
    /// It votes in some group, or may.
    pub votes: bool,
    /// The catalog's leader has heard from it recently.
    pub active: bool,
}

/// What to do with a new node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Add it.
    Admit,
    /// Let it wait.
    Wait,
    /// First remove this node, which has abandoned its join.
    Replace(NodeId),
}

/// For how long the unfinished members have been silent. Known only to the catalog's leader.
#[derive(Debug, Default)]
pub struct Joins(BTreeMap<NodeId, u32>);

impl Joins {
    /// Counts the silent ticks. Called on each tick by the catalog's leader; by other nodes with no members.
    pub fn look(&mut self, unfinished: &[Unfinished]) {
        let silent = |u: &Unfinished| if u.active { 0 } else { self.silent(u.node).saturating_add(1) };
        self.0 = unfinished.iter().map(|u| (u.node, silent(u))).collect();
    }

    fn silent(&self, node: NodeId) -> u32 {
        self.0.get(&node).copied().unwrap_or(0)
    }

    /// Decides about a new node while these members are unfinished. One that is silent for `silent_ticks_max` has abandoned its
    /// join.
    pub fn decide(&self, unfinished: &[Unfinished], silent_ticks_max: u32) -> Verdict {
        if unfinished.iter().any(|u| self.silent(u.node) < silent_ticks_max) {
            return Verdict::Wait;
        }
        unfinished.iter().find(|u| !u.votes).map_or(Verdict::Admit, |u| Verdict::Replace(u.node))
    }
}
