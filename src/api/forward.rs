//! Forwards work to the leader of a group if that is another node.

use std::time::Instant;

use crate::consensus::handle::{Appended, Proposal, ProposeError, ReadIndexError};
use crate::replication::peers::PeersHandle;
use crate::reply::ReplyReceiver;
use crate::types::{GroupId, LogIndex, NodeId};

/// Sends work to the node that leads a group. `replication` implements it; tests have a fake.
pub trait Forward: Send + Sync {
    /// Proposes on the node `to`. Never sends a proposal twice. The result is [`ProposeError::Dropped`] if it was not sent, and
    /// [`ProposeError::OutcomeUnknown`] if it was sent and not answered.
    fn propose(&self, to: NodeId, principal: &str, proposal: Proposal)
    -> ReplyReceiver<Result<Appended, ProposeError>>;

    /// Returns a description of another cluster with the same name, if one has answered.
    fn rival(&self) -> Option<String> {
        None
    }

    /// Requests from the node `to` an index that covers everything acknowledged before this call.
    fn read_index(
        &self,
        to: NodeId,
        group: GroupId,
        deadline: Option<Instant>,
    ) -> ReplyReceiver<Result<LogIndex, ReadIndexError>>;
}

impl Forward for PeersHandle {
    fn propose(
        &self,
        to: NodeId,
        principal: &str,
        proposal: Proposal,
    ) -> ReplyReceiver<Result<Appended, ProposeError>> {
        PeersHandle::propose(self, to, principal, proposal)
    }

    fn rival(&self) -> Option<String> {
        PeersHandle::rival(self)
    }

    fn read_index(
        &self,
        to: NodeId,
        group: GroupId,
        deadline: Option<Instant>,
    ) -> ReplyReceiver<Result<LogIndex, ReadIndexError>> {
        PeersHandle::read_index(self, to, group, deadline)
    }
}
