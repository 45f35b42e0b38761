//! Which changes of the catalog are proposed: commands requested on this node, and proposals forwarded by peers.
//!
//! A peer is any node with a peer certificate. A faulty or compromised one must not be able to fill the catalog: an
//! entry without an effect would still be synced on every node and kept forever.

use super::facts::ReplicaFacts;
use super::joins::Verdict;
use crate::catalog::command::Command;
use crate::catalog::meta::Member;
use crate::catalog::state::Catalog;
use crate::feature_level::FeatureRange;
use crate::storage::payload;
use crate::types::NodeId;

/// The decision about a requested command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Propose it. If this node does not lead the catalog, the group refuses it.
    Propose,
    /// Do not propose it: it would change nothing, or a new node must wait.
    Drop,
    /// Do not propose it, and propose the removal of this node, which has abandoned its join.
    Replace(NodeId),
}

/// Decides about a requested command. `replica` is this node's replica of the catalog; `join` decides about a new node.
///
/// Only a leader whose entries are all applied knows what a command changes. It adds a node only then: an entry that is not
/// applied yet may add another one.
pub(super) fn decide(
    catalog: &Catalog,
    replica: &ReplicaFacts,
    command: &Command,
    join: impl FnOnce() -> Verdict,
) -> Decision {
    if !replica.leads {
        return Decision::Propose;
    }
    if matches!(command, Command::AddNode(member) if catalog.member(member.id).is_none()) {
        match join() {
            Verdict::Admit if replica.is_idle => {}
            Verdict::Replace(abandoned) if replica.is_idle => return Decision::Replace(abandoned),
            Verdict::Admit | Verdict::Replace(_) | Verdict::Wait => return Decision::Drop,
        }
    }
    if replica.is_idle && catalog.would_change(command) != Ok(true) {
        return Decision::Drop;
    }
    Decision::Propose
}

/// What becomes of a proposal to the catalog that a peer may have forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerDecision {
    /// The leader appends it.
    Accept,
    /// The leader does not append it.
    Drop,
    /// The leader does not append it: this member does not support the feature level.
    LevelUnsupported(NodeId),
    /// The leader does not append it: it does not hear from this member.
    MemberSilent(NodeId),
}

/// Decides about a proposal to the catalog. The leader appends exactly one change of a log's settings that has an effect,
/// or one feature level that every member supports. Other commands are proposed by the leader itself.
///
/// `replica` is the leader's replica of the catalog. `levels_of` returns the levels that a member supported when it last
/// connected. The level is raised only while every member is heard from and all entries are applied: an entry that is not
/// applied yet may add a member.
pub fn decide_for_peer(
    catalog: &Catalog,
    records: &[u8],
    count: u32,
    replica: &ReplicaFacts,
    levels_of: impl Fn(NodeId) -> Option<FeatureRange>,
) -> PeerDecision {
    let mut all = payload::records(records);
    let (Some(Ok(record)), None, 1) = (all.next(), all.next(), count) else {
        return PeerDecision::Drop;
    };
    let Ok(command) = Command::of_record(record) else { return PeerDecision::Drop };
    // A key, headers or unknown fields would be kept forever, whatever their size.
    let is_canonical = command.payload().payload() == records;
    if !is_canonical || catalog.would_change(&command) != Ok(true) {
        return PeerDecision::Drop;
    }
    match command {
        Command::ConfigureLog(..) => PeerDecision::Accept,
        // The cluster is still being founded.
        Command::RaiseFeatureLevel(_) if catalog.members().next().is_none() => PeerDecision::Drop,
        Command::RaiseFeatureLevel(level) => {
            let obstacle = |member: &Member| {
                let is_heard = replica.progress.iter().any(|progress| progress.node == member.id && progress.active);
                match levels_of(member.id) {
                    Some(range) if !range.contains(level) => Some(PeerDecision::LevelUnsupported(member.id)),
                    Some(_) if is_heard => None,
                    Some(_) | None => Some(PeerDecision::MemberSilent(member.id)),
                }
            };
            match catalog.members().find_map(obstacle) {
                Some(obstacle) => obstacle,
                None if replica.is_idle => PeerDecision::Accept,
                None => PeerDecision::Drop,
            }
        }
        Command::AddNode(_) | Command::RemoveNode(_) | Command::CreateLog(_) | Command::Founded(_) => {
            PeerDecision::Drop
        }
    }
}
