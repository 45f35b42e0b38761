//! Decides which raft messages of peers this node accepts.
//!
//! A peer is any node with a certificate for the peer listener. It chooses its own id. One faulty or compromised peer
//! must not be able to replace a log. `wire.rs` rejects numbers that no cluster reaches, and
//! `catalog/policy/requests.rs` checks changes of the catalog.

use std::collections::BTreeSet;
use std::time::Instant;

use raft::eraftpb::MessageType;

use crate::catalog::Catalog;
use crate::consensus::replica::Groups;
use crate::line_limit::LineLimit;
use crate::pb::peer::RaftMessage;
use crate::types::{GroupId, NodeId};

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
    /// A snapshot replaces the log, so it is accepted only from known voters of the group or of the catalog. For the
    /// catalog itself, only a blank replica accepts a snapshot: the catalog is never trimmed, so any other replica
    /// receives what it lacks as entries.
    pub fn admits(&mut self, from: NodeId, message: &RaftMessage, groups: &Groups, catalog: &Catalog) -> bool {
        let id = GroupId(message.group);
        let Some(replica) = groups.get(&id) else { return true };
        let group = &replica.group;
        if group.is_blank() {
            return true;
        }
        let snapshot = message.type_ == MessageType::MsgSnapshot as u32;
        let admitted = if snapshot {
            let votes_for_catalog = || groups.get(&GroupId::CATALOG).is_some_and(|c| c.group.votes(from));
            id != GroupId::CATALOG && (group.votes(from) || votes_for_catalog())
        } else {
            let known = catalog.member(from).is_some() || group.conf_contains(from);
            known || group.leader().is_none_or(|leader| leader == from)
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
        match self.dropped.admit(from, Instant::now()) {
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
