//! The answer to a request that this node relays to another node.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::Stream;
use grpcio::{CallOption, ClientSStreamReceiver};

use crate::pb::peer::RelayResponse;
use crate::replication::node::LocalNode;
use crate::replication::refusal::{Reason, Refusal, error_text};
use crate::replication::relay::{RelayError, RelayPart, RelayedRequest, part_of};
use crate::replication::relay_channels::RelayChannel;
use crate::types::NodeId;

/// Added to a request's deadline, because the answer of the other node may be in flight.
const GRACE: Duration = Duration::from_secs(1);

/// The answer to a relayed request. Dropping it cancels the request.
pub struct RelayAnswer {
    to: NodeId,
    node: Arc<LocalNode>,
    // Dropped, and so cancelled, before its channel.
    responses: Option<ClientSStreamReceiver<RelayResponse>>,
    channel: Option<Arc<RelayChannel>>,
    /// The error, if the call could not be made.
    failed: Option<RelayError>,
}

impl RelayAnswer {
    /// Sends a request to a node.
    pub(super) fn open(to: NodeId, node: Arc<LocalNode>, request: &RelayedRequest) -> RelayAnswer {
        let now = Instant::now();
        let channel = node.relays.channels.channel(to, &node.dialer, &node.addresses, &node.catalog.get());
        let call = channel.and_then(|channel| {
            let message = request.message(node.me.hello(to), now);
            let left = |deadline: Instant| deadline.saturating_duration_since(now) + GRACE;
            let option = CallOption::default();
            let option = request.deadline.map_or(option.clone(), |deadline| option.timeout(left(deadline)));
            let call = channel.client.relay_opt(&message, option);
            call.map(|responses| (responses, channel)).map_err(|_| "the call can't be made")
        });
        match call {
            Ok((responses, channel)) => {
                RelayAnswer { to, node, responses: Some(responses), channel: Some(channel), failed: None }
            }
            Err(why) => {
                let failed = Some(RelayError::Lost(why.to_owned()));
                RelayAnswer { to, node, responses: None, channel: None, failed }
            }
        }
    }

    /// Returns why this node drops the answer, if it must: the peer is not accepted any more.
    fn refused(&self) -> Option<RelayError> {
        let authorities = self.channel.as_ref().map(|channel| channel.authorities);
        if authorities.is_some_and(|authorities| authorities != self.node.dialer.authorities()) {
            return Some(RelayError::Lost("the authorities of peers have changed".to_owned()));
        }
        let is_denied = self.node.addresses.is_denied(self.to);
        is_denied.then(|| RelayError::Lost("its certificates are refused here (peer_deny_file)".to_owned()))
    }

    fn error_of(&self, error: &grpcio::Error) -> RelayError {
        let refusal = Refusal::from_error(error);
        if refusal.as_ref().is_some_and(|refusal| refusal.reason == Reason::NoReplica) {
            return RelayError::NoReplica;
        }
        // A version that does not know the kind of request is not lost.
        let is_unknown = refusal.as_ref().is_some_and(|refusal| refusal.reason == Reason::Malformed);
        if let Some(channel) = self.channel.as_ref().filter(|_| !is_unknown) {
            self.node.relays.channels.lost(self.to, channel);
        }
        RelayError::Lost(refusal.map_or_else(|| error_text(error), |refusal| refusal.text))
    }
}

impl Stream for RelayAnswer {
    type Item = Result<RelayPart, RelayError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(failed) = self.failed.take() {
            return Poll::Ready(Some(Err(failed)));
        }
        let Some(responses) = &mut self.responses else { return Poll::Ready(None) };
        let Poll::Ready(next) = Pin::new(responses).poll_next(cx) else { return Poll::Pending };
        let part = match next {
            None => {
                self.responses = None;
                return Poll::Ready(None);
            }
            Some(Ok(message)) => self.refused().map_or_else(|| part_of(message), Err),
            Some(Err(error)) => Err(self.error_of(&error)),
        };
        match (&part, &self.channel) {
            (Ok(RelayPart::Accepted), Some(channel)) => self.node.relays.channels.answered(self.to, channel),
            (Ok(_), _) => {}
            (Err(_), _) => self.responses = None,
        }
        Poll::Ready(Some(part))
    }
}
