//! Decides which raft messages of peers this node accepts.
//!
//! A peer is any node with a certificate for the peer listener. It chooses its own id. One faulty or compromised peer
//! must not be able to replace a log. `wire.rs` rejects numbers that no cluster reaches, and
//! `catalog/policy/requests.rs` checks changes of the catalog.

use std::collections::BTreeSet;

use raft::eraftpb::MessageType;

use crate::catalog::faults::{Fault, broken};
use crate::catalog::{Catalog, LogMeta};
use crate::clock;
use crate::consensus::group::Group;
use crate::consensus::groups::Groups;
use crate::line_limit::LineLimit;
use crate::pb::peer::RaftMessage;
use crate::types::{GroupId, NodeId, ReplicaId};

/// At most this many unknown nodes are logged.
const STRANGERS_LOGGED_MAX: usize = 64;

/// Decides about peers' messages, and logs those that were dropped.
#[derive(Debug, Default)]
pub struct Admission {
    /// The nodes that were logged because they are neither members nor voters.
    strangers: BTreeSet<NodeId>,
    dropped: LineLimit<NodeId>,
}

impl Admission {
    /// Returns true if this node accepts a raft message from the peer.
    ///
    /// A node that is neither a member nor in the group's conf state may still be legitimate: this node may lag
    /// behind the conf change that added it, and the node may even be the leader by now. So its messages are accepted
    /// if this node knows no other leader, or if this replica is blank.
    ///
    /// A snapshot replaces the log, so it is accepted only from known voters of the group or of the catalog, and from
    /// the replicas that the catalog lists. Without the last rule, a replica that was down while its group moved to
    /// other nodes could never catch up from a leader that does not vote for the catalog.
    pub fn admits(&mut self, from: NodeId, message: &RaftMessage, groups: &Groups, catalog: &Catalog) -> bool {
        let id = GroupId(message.group);
        let Some(replica) = groups.get(&id) else { return true };
        let (group, sender) = (&replica.group, ReplicaId(message.from));
        if group.is_blank() {
            return true;
        }
        let snapshot = message.type_ == MessageType::MsgSnapshot as u32;
        let admitted = if snapshot {
            let on_node = ReplicaId::of_node(from);
            let votes_for_catalog = || groups.get(&GroupId::CATALOG).is_some_and(|c| c.group.votes(on_node));
            let is_placed = || {
                let placements = catalog.log(id).into_iter().flat_map(LogMeta::placements);
                placements.into_iter().any(|placement| placement.replica == sender && placement.node == from)
            };
            group.votes(sender) || votes_for_catalog() || is_placed()
        } else {
            let known = catalog.member(from).is_some() || group.conf_contains(sender);
            known || group.leader().is_none_or(|leader| leader == sender)
        };
        if !admitted && self.strangers.len() < STRANGERS_LOGGED_MAX && self.strangers.insert(from) {
            let what = if snapshot { "a snapshot" } else { "raft messages" };
            log::warn!("group {id}: dropped {what} of node {from}, which is not a voter here");
        }
        admitted
    }

    /// Logs that a message of a peer was dropped. The lines are rate-limited: a faulty peer may send thousands of
    /// messages per second.
    pub fn log_dropped(&mut self, from: NodeId, what: &str) {
        match self.dropped.admit(from, clock::now()) {
            Some(0) => log::warn!("node {from} sent {what}: dropped"),
            Some(hidden) => log::warn!("node {from} sent {what}: dropped (and {hidden} more messages before it)"),
            None => {}
        }
    }

    /// The number of lines about dropped messages of a peer in the current window.
    #[cfg(test)]
    pub fn dropped_lines(&self, from: NodeId) -> u64 {
        self.dropped.lines(&from)
    }
}

/// Returns true if a message is from a replica on the node `from` and to this node's `replica`, as far as this node
/// knows. Returns false for a late message: its sender or its receiver has left the group.
///
/// # Errors
/// What the message is. No correct node sends it.
pub fn check_replicas(
    from: NodeId,
    message: &RaftMessage,
    replica: Option<&Group>,
    catalog: &Catalog,
    me: NodeId,
) -> Result<bool, String> {
    let (group, sender, receiver) = (GroupId(message.group), ReplicaId(message.from), ReplicaId(message.to));
    if group == GroupId::CATALOG {
        let is_ours = sender == ReplicaId::of_node(from) && receiver == ReplicaId::of_node(me);
        return if is_ours { Ok(true) } else { Err(format!("a message of {sender} to {receiver}")) };
    }
    if broken(Fault::LateMessagesAccepted) {
        return Ok(true);
    }
    if catalog.is_purged_group(group) {
        return Ok(false);
    }
    let log = catalog.log(group);
    let has_left = |replica| log.is_some_and(|log| catalog.has_left(log, replica));
    if has_left(sender) || has_left(receiver) {
        return Ok(false);
    }
    if let Some(replica) = replica {
        if replica.me() != receiver {
            return Ok(false);
        }
        if replica.nodes().node_of(sender).is_some_and(|node| node != from) {
            return Err(format!("group {group}: a message of replica {sender}, which is on another node"));
        }
    }
    Ok(true)
}
