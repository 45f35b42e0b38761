//! What this node takes from peers: raft messages, and proposals that they forward to it as the leader.
//!
//! A peer is any node with a certificate for the peer listener and an id of its own choice. One faulty or stolen peer must not be
//! able to replace a log or to fill the catalog. Numbers that no cluster comes to are refused by `wire.rs`.

use std::collections::BTreeSet;
use std::time::Instant;

use raft::eraftpb::MessageType;

use super::{Driver, command_proposal};
use crate::catalog::Command;
use crate::consensus::handle::Proposal;
use crate::pb::peer::RaftMessage;
use crate::storage::entry::EntryKind;
use crate::storage::payload;
use crate::types::{GroupId, NodeId};

/// Of at most this many strangers it is logged that they were refused.
const STRANGERS_LOGGED_MAX: usize = 64;

/// The nodes whose messages were refused and logged because they are no members, or no voters.
#[derive(Debug, Default)]
pub(super) struct Strangers(BTreeSet<NodeId>);

impl Driver {
    /// Whether a raft message is taken from a node.
    ///
    /// A node that is neither a member nor in the group's conf state may still be right: this node may lag behind the conf
    /// change that added it, and it may lead by now. So it is heard if this node knows no other leader, and if the group here is
    /// blank.
    ///
    /// A snapshot replaces the log, so it is taken from voters only: of the group, or of the catalog, as far as this node knows it.
    /// The catalog is never trimmed: what this node lacks of it arrives as entries, and only a blank replica needs its snapshot.
    pub(super) fn admits(&mut self, from: NodeId, message: &RaftMessage) -> bool {
        let id = GroupId(message.group);
        let Some(replica) = self.groups.get(&id) else { return true };
        let group = &replica.group;
        if group.is_blank() {
            return true;
        }
        let snapshot = message.type_ == MessageType::MsgSnapshot as u32;
        let admitted = if snapshot {
            let votes_for_catalog = || self.groups.get(&GroupId::CATALOG).is_some_and(|c| c.group.votes(from));
            id != GroupId::CATALOG && (group.votes(from) || votes_for_catalog())
        } else {
            let known = self.catalog.member(from).is_some() || group.conf_contains(from);
            known || group.leader().is_none_or(|leader| leader == from)
        };
        if !admitted && self.strangers.0.len() < STRANGERS_LOGGED_MAX && self.strangers.0.insert(from) {
            let what = if snapshot { "a snapshot" } else { "raft messages" };
            log::warn!("group {id}: node {from}, which is no voter here, sent {what}: not taken");
        }
        admitted
    }

    /// Whether this node as the leader takes a proposal to the catalog, whoever checked it before: a peer may have forwarded it.
    /// (Those to logs are checked by `replication/forward.rs`, on the thread that receives them.)
    pub(super) fn refuses(&self, proposal: &Proposal) -> bool {
        proposal.group == GroupId::CATALOG && !self.takes_command(proposal)
    }

    /// Whether a proposal is one change of how a log is kept that has an effect. Members are added by this node itself, when one
    /// asks to join. An entry without an effect would still be kept by every node forever.
    fn takes_command(&self, proposal: &Proposal) -> bool {
        let bytes = proposal.payload.payload();
        let mut records = payload::records(&bytes);
        let (Some(Ok(record)), None, EntryKind::Records) = (records.next(), records.next(), proposal.kind) else {
            return false;
        };
        Command::of_record(record).is_some_and(|command| {
            // Keys, headers and fields that this version does not know would be kept forever, whatever their size.
            let canonical = command_proposal(&command).payload.payload() == bytes;
            let configures = matches!(command, Command::ConfigureLog(..));
            configures && canonical && self.catalog.would_change(&command) == Ok(true)
        })
    }

    /// A clock counts if its node is a voter: others choose their ids, and so many as they like.
    pub(super) fn clocks_of_voters(&self, now: Instant) -> Vec<(NodeId, u64)> {
        let mut clocks = self.peer_clocks.now(now);
        clocks.retain(|(node, _)| self.groups.get(&GroupId::CATALOG).is_some_and(|catalog| catalog.group.votes(*node)));
        clocks
    }
}
