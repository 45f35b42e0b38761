//! Where the effects of all groups go.

use std::sync::Arc;

use super::completions::Completions;
use crate::feature_level::FeatureLevel;
use crate::pb::peer::RaftMessage;
use crate::storage::reader::ReadersHandle;
use crate::types::NodeId;
use crate::writer::WriterHandle;

/// The peers, which live above consensus: `replication` implements it, `agent` injects it.
pub trait Outbound: Send + Sync {
    /// Takes a message for a peer. Never blocks. Over its budget it drops the message and reports
    /// [`super::handle::ConsensusHandle::unreachable`].
    fn send(&self, to: NodeId, message: RaftMessage);

    /// A member that is not known to support a feature level. Never blocks.
    fn member_without(&self, level: FeatureLevel) -> Option<NodeId>;
}

/// What performs the effects that take time.
pub struct Sinks {
    /// The log-writer.
    pub writer: WriterHandle,
    /// The reader threads.
    pub readers: ReadersHandle,
    /// The peers.
    pub outbound: Arc<dyn Outbound>,
    /// Back to the consensus thread.
    pub completions: Completions,
}
