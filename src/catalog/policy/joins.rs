//! One node joins at a time: decides about a new node while another one has not finished its join. Used by the
//! catalog's leader.
//!
//! A member has finished its join once it votes in every group. The leader derives the unfinished members from the
//! catalog and from the groups' conf states. Both are replicated, so a new leader finds the same members.
//!
//! **An abandoned join** must not block other nodes forever. If the leader has not heard from an unfinished node for
//! five minutes (in ticks), it removes that node when another one asks to join. The removed id is never reused; the
//! host can join again with an empty data directory. A node that already votes in some group is not removed, because
//! a majority may depend on it: the leader only stops waiting for it. A new leader restarts the five minutes.

use std::collections::BTreeMap;

use super::facts::{ReplicaProgress, Replicas};
use crate::catalog::state::Catalog;
use crate::types::{GroupId, NodeId};

/// The voters of the catalog and of each founded log, as far as this node knows. The list is empty for a log of which
/// this node has no replica, or whose replica waits for its first snapshot.
pub struct VotersOfGroups<'a> {
    logs: Vec<&'a [NodeId]>,
    /// The voters in damaged replicas, which may be outdated. They prove only that a node may be a voter.
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

    /// Returns true if the node votes in every log whose voters are known. This is required before it gets a vote in
    /// the catalog, so that a join that is abandoned while the node copies a log leaves no additional voter in the
    /// catalog.
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
