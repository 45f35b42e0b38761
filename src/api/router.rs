//! Where a request goes: to `consensus` here, or once to the node that leads.

use std::time::Instant;

use crate::consensus::handle::{Appended, Proposal, ProposeError, ReadIndexError};
use crate::reply::ReplyReceiver;
use crate::types::{GroupId, LogIndex, NodeId};

/// Hands work to the node that leads a group. `replication` implements it; tests have their own.
pub trait Forward: Send + Sync {
    /// Proposes there. Never sends twice: not sent is [`ProposeError::Dropped`], sent and no answer
    /// [`ProposeError::OutcomeUnknown`].
    fn propose(&self, to: NodeId, principal: &str, proposal: Proposal)
    -> ReplyReceiver<Result<Appended, ProposeError>>;

    /// Asks there for a position that covers everything acknowledged before.
    fn read_index(
        &self,
        to: NodeId,
        group: GroupId,
        deadline: Option<Instant>,
    ) -> ReplyReceiver<Result<LogIndex, ReadIndexError>>;
}
