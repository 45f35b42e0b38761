//! Work for the node that leads a group, where that is another one.

use std::time::Instant;

use crate::consensus::handle::{Appended, Proposal, ProposeError, ReadIndexError};
use crate::replication::peers::PeersHandle;
use crate::reply::ReplyReceiver;
use crate::types::{GroupId, LogIndex, NodeId};

/// Hands work to the node that leads a group. `replication` implements it; tests have a fake.
pub trait Forward: Send + Sync {
    /// Proposes there. Never sends twice: [`ProposeError::Dropped`] if it was not sent, [`ProposeError::OutcomeUnknown`] if it
    /// was sent and not answered.
    fn propose(&self, to: NodeId, principal: &str, proposal: Proposal)
    -> ReplyReceiver<Result<Appended, ProposeError>>;

    /// Describes another cluster of the same name, once one has answered.
    fn rival(&self) -> Option<String> {
        None
    }

    /// Asks there for an index that covers everything acknowledged before.
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
