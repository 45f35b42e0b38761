//! Consensus: raft over the segmented log, one thread for all groups.

pub mod handle;
pub mod status;

use crate::pb::peer::RaftMessage;
use crate::types::NodeId;

/// The way to the peers, which live above consensus: `replication` implements it, `agent` injects it.
pub trait Outbound: Send + Sync {
    /// Takes a message for a peer. Never blocks; over its budget it drops the message and reports
    /// [`handle::ConsensusHandle::unreachable`].
    fn send(&self, to: NodeId, message: RaftMessage);
}
