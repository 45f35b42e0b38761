//! The interfaces through which the effects of all groups are performed.

use std::sync::Arc;

use super::completions::Completions;
use super::handle::{Proposal, ReadIndexError};
use crate::feature_level::FeatureRange;
use crate::pb::peer::RaftMessage;
use crate::reply::ReplyReceiver;
use crate::storage::reader::ReadersHandle;
use crate::types::{GroupId, LogIndex, NodeId};
use crate::writer::WriterHandle;

/// Sends messages to peers. Peers belong to a layer above consensus, so `replication` implements this trait and
/// `agent` injects it.
pub trait Outbound: Send + Sync {
    /// Queues a message for a peer. Never blocks. If the queue is full, it drops the message and calls
    /// [`super::handle::ConsensusHandle::unreachable`].
    fn send(&self, to: NodeId, message: RaftMessage);

    /// Sends a proposal to the node that leads its group. Never blocks, and the answer is not awaited.
    fn propose(&self, to: NodeId, proposal: Proposal);

    /// Asks the node that leads a group for a read index. Never blocks. The answer is an error if the node does not lead or
    /// can't be reached.
    fn read_index(&self, to: NodeId, group: GroupId) -> ReplyReceiver<Result<LogIndex, ReadIndexError>>;

    /// The feature levels that a node's binary supported when it last connected to this node. Never blocks.
    fn levels_of(&self, node: NodeId) -> Option<FeatureRange>;
}

/// The components that perform the effects which take time.
pub struct Sinks {
    /// The log-writer.
    pub writer: WriterHandle,
    /// The reader threads.
    pub readers: ReadersHandle,
    /// The peers.
    pub outbound: Arc<dyn Outbound>,
    /// Reports results back to the consensus thread.
    pub completions: Completions,
}
