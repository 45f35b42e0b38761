//! Forwards work to the leader of a group if that is another node, and relays requests to a node that has a replica.

use std::time::Instant;

use futures::StreamExt as _;
use futures::stream::BoxStream;

use crate::consensus::handle::{Appended, Proposal, ProposeError, ReadIndexError};
use crate::replication::peers::PeersHandle;
use crate::replication::relay::{RelayError, RelayPart, RelayedRequest};
use crate::reply::ReplyReceiver;
use crate::types::{GroupId, LogIndex, NodeId};

/// The answer to a relayed request, part by part. An error is the last part.
pub type RelayAnswers = BoxStream<'static, Result<RelayPart, RelayError>>;

/// Sends work to the node that leads a group. `replication` implements it; tests have a fake.
pub trait Forward: Send + Sync {
    /// Proposes on the node `to`. Never sends a proposal twice. The result is [`ProposeError::Dropped`] if it was not
    /// sent, and [`ProposeError::OutcomeUnknown`] if it was sent and not answered.
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

    /// Relays a request to the node `to`, which has a replica of its log. Dropping the answer cancels the request.
    fn relay(&self, to: NodeId, request: &RelayedRequest) -> RelayAnswers;

    /// Returns true if relayed requests did not reach the node a moment ago: others should be asked first.
    fn is_suspect(&self, _node: NodeId) -> bool {
        false
    }

    /// Records that the node did not answer a relayed request in time.
    fn suspect(&self, _node: NodeId) {}
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

    fn relay(&self, to: NodeId, request: &RelayedRequest) -> RelayAnswers {
        PeersHandle::relay(self, to, request).boxed()
    }

    fn is_suspect(&self, node: NodeId) -> bool {
        PeersHandle::is_suspect(self, node)
    }

    fn suspect(&self, node: NodeId) {
        PeersHandle::suspect(self, node);
    }
}
