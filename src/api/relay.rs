//! Relays requests for a log of which this node has no replica to a node that has one.
//!
//! The rights of the client are checked here, before the request is relayed and while its stream is open. The other
//! node reads, and sends each response as the client gets it. Its failure is passed on with the same status.
//!
//! Nodes are asked one after the other, until one accepts the request. A stream whose node stops or is lost ends with
//! REPLICA_UNREACHABLE; the client opens it again where it ended, and another node serves it.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures::future::{Either, poll_fn, select};
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use grpcio::{DuplexSink, WriteFlags};
use protobuf::Message;

use super::core::{Core, FoundLog};
use super::error::{ApiError, RelayedFailure};
use super::forward::RelayAnswers;
use super::limits::Permit;
use super::messages::{ConsumeReply, Request};
use super::package::Package;
use super::service::{Call, Service, StreamEnd, poll_gone};
use crate::pb;
use crate::reason::ErrorReason;
use crate::replication::relay::{RelayError, RelayFailure, RelayKind, RelayPackage, RelayPart, RelayedRequest};
use crate::types::{GroupId, NodeId};

/// A node that has not accepted the request after this time counts as unreachable.
const ACCEPT_MAX: Duration = Duration::from_secs(3);

/// Added to the deadline of a request with one response, in which the other node answers that the deadline has passed.
const GRACE: Duration = Duration::from_millis(250);

/// The maximum wait for the one response to a request without a deadline. The other node ends each such request
/// earlier.
const ANSWER_MAX: Duration = Duration::from_secs(75);

/// Responses of at most this size, which are ready at the same time, share a write.
const SMALL_BYTES: usize = 16 << 10;

/// The maximum wait for room in the budget of a principal, and the pause between two attempts.
const ROOM_MAX: Duration = Duration::from_secs(10);
const ROOM_PAUSE: Duration = Duration::from_millis(50);

/// A request for a log that other nodes serve.
#[derive(Clone, Copy)]
pub struct Relay<'a> {
    /// The node's shared parts.
    pub service: &'a Service,
    /// This node as a member.
    pub core: &'a Core,
    /// The client's request, whose rights are checked.
    pub call: &'a Call,
    /// The log, of which this node has no replica.
    pub log: &'a FoundLog,
    /// When the client no longer waits.
    pub deadline: Option<Instant>,
}

impl<'a> Relay<'a> {
    /// Relays the request of a call, until the call's own deadline.
    pub fn of(service: &'a Service, core: &'a Core, call: &'a Call, log: &'a FoundLog) -> Relay<'a> {
        Relay { service, core, call, log, deadline: call.deadline }
    }

    /// Relays a request with one response, which is returned as the client gets it.
    ///
    /// # Errors
    /// That of the other node, or [`ApiError::ReplicaLost`]. If it is unknown whether a trim was done:
    /// [`ApiError::OutcomeUnknown`].
    pub async fn unary(self, kind: RelayKind, request: &Request) -> Result<Vec<u8>, ApiError> {
        let lost = match kind {
            _ if kind.changes() => ApiError::OutcomeUnknown { retry_is_safe: true },
            _ => ApiError::ReplicaLost,
        };
        let (mut answers, sent) = self.open(kind, request).await?;
        let until = self.deadline.map_or_else(|| Instant::now() + ANSWER_MAX, |deadline| deadline + GRACE);
        let over = async {
            let end = self.service.timers.at(until);
            // A stopping node waits for the answer to a change.
            if kind.changes() {
                end.await;
                return None;
            }
            match select(end, self.service.stopping()).await {
                Either::Left(_) => None,
                Either::Right(_) => Some(ApiError::Stopping),
            }
        };
        match select(answers.next(), pin!(over)).await {
            Either::Left((Some(Ok(RelayPart::Response(bytes))), _)) => Ok(bytes),
            Either::Left((Some(Err(RelayError::Failed(failure))), _)) => Err(sent.error(failed(failure))),
            Either::Left((
                Some(Ok(RelayPart::Accepted) | Err(RelayError::NoReplica | RelayError::Lost(_))) | None,
                _,
            )) => Err(lost),
            Either::Right((error, _)) => Err(error.unwrap_or(lost)),
        }
    }

    /// The same, and decodes the response.
    ///
    /// # Errors
    /// Those of [`Relay::unary`].
    pub async fn message<M: Message>(self, kind: RelayKind, request: &Request) -> Result<M, ApiError> {
        let bytes = self.unary(kind, request).await?;
        pb::parse(&bytes).map_err(|_| ApiError::Internal("another node has sent a response that is not a message"))
    }

    /// Relays a request whose responses are a stream.
    ///
    /// # Errors
    /// That of the other node, or [`ApiError::ReplicaLost`].
    pub async fn stream(
        self,
        kind: RelayKind,
        request: &Request,
        sink: &mut DuplexSink<ConsumeReply>,
    ) -> Result<(), StreamEnd> {
        let opened = {
            // Boxed, because otherwise each open stream would reserve memory for it.
            let open = Box::pin(self.open(kind, request));
            match select(open, poll_fn(|cx| poll_gone(sink, cx))).await {
                Either::Left((opened, _)) => opened,
                Either::Right(_) => return Err(StreamEnd::Gone),
            }
        };
        let (mut answers, _) = opened?;
        // Small messages that are ready at the same time share a write.
        sink.enhance_batch(true);
        loop {
            let next = match answers.next().now_or_never() {
                Some(next) => next,
                None => {
                    sink.flush().await.map_err(|_| StreamEnd::Gone)?;
                    match select(answers.next(), poll_fn(|cx| poll_gone(sink, cx))).await {
                        Either::Left((next, _)) => next,
                        Either::Right(_) => return Err(StreamEnd::Gone),
                    }
                }
            };
            match next {
                Some(Ok(RelayPart::Accepted)) => {}
                Some(Ok(RelayPart::Response(bytes))) => {
                    let _permit = Box::pin(self.permit(bytes.len(), sink)).await?;
                    let is_small = bytes.len() <= SMALL_BYTES;
                    let reply = ConsumeReply::of_bytes(bytes);
                    sink.feed((reply, WriteFlags::default())).await.map_err(|_| StreamEnd::Gone)?;
                    if !is_small {
                        sink.flush().await.map_err(|_| StreamEnd::Gone)?;
                    }
                }
                Some(Err(RelayError::Failed(failure))) => return Err(failed(failure).into()),
                Some(Err(RelayError::NoReplica | RelayError::Lost(_))) => return Err(ApiError::ReplicaLost.into()),
                None => {
                    sink.flush().await.map_err(|_| StreamEnd::Gone)?;
                    return Ok(());
                }
            }
        }
    }

    /// Waits until the budget of the principal has room for a response of this size. Unlike a read on this node, a
    /// relayed response can't be made smaller.
    async fn permit(self, bytes: usize, sink: &mut DuplexSink<ConsumeReply>) -> Result<Permit, StreamEnd> {
        let principal = self.call.principal();
        let (limits, timers) = (&self.service.limits, &self.service.timers);
        let until = Instant::now() + ROOM_MAX;
        let permit = async {
            loop {
                let mut permit = limits.queue_read(&principal, bytes, timers).await?;
                match permit.resize(bytes) {
                    Ok(()) => return Ok::<_, ApiError>(permit),
                    Err(limit) if Instant::now() >= until => return Err(limit.into()),
                    Err(_) => drop(permit),
                }
                timers.at(Instant::now() + ROOM_PAUSE).await;
            }
        };
        match select(pin!(permit), poll_fn(|cx| poll_gone(sink, cx))).await {
            Either::Left((permit, _)) => Ok(permit?),
            Either::Right(_) => Err(StreamEnd::Gone),
        }
    }

    /// Sends the request to one node after the other, until one accepts it.
    async fn open(self, kind: RelayKind, request: &Request) -> Result<(RelayAnswers, SentBefore), ApiError> {
        let Relay { service, core, call, log, deadline } = self;
        if call.is_relayed() {
            // A node asked this one because it had a replica a moment ago.
            return Err(ApiError::ReplicaLost);
        }
        let request = RelayedRequest {
            kind,
            package: package_of(call.package),
            log: log.name.clone(),
            log_id: log.log_id,
            principal: call.principal().to_string(),
            deadline,
            request: request.0.clone(),
        };
        let mut sent = SentBefore(false);
        if let Some(answers) = self.ask_each(core.nodes_of(log.group), &request, &mut sent).await? {
            return Ok((answers, sent));
        }
        // None of them answers or has a replica. Perhaps the log was deleted, or has moved.
        let found = async {
            core.catch_up(GroupId::CATALOG, &core.catalog_watermark, &service.timers, deadline).await?;
            core.find_any(&log.name, &service.timers, deadline).await
        };
        let now = found.await.map_err(|error| sent.error(error))?;
        if now.replica.is_none() && now.log_id == log.log_id {
            let nodes = core.nodes_of(log.group).into_iter().filter(|node| !core.forward.is_suspect(*node));
            if let Some(answers) = self.ask_each(nodes.collect(), &request, &mut sent).await? {
                return Ok((answers, sent));
            }
        }
        Err(sent.error(ApiError::ReplicaLost))
    }

    /// Asks one node after the other, until one accepts the request.
    async fn ask_each(
        self,
        nodes: Vec<NodeId>,
        request: &RelayedRequest,
        sent: &mut SentBefore,
    ) -> Result<Option<RelayAnswers>, ApiError> {
        for node in nodes {
            match self.ask(node, request).await {
                Ok(Asked::Accepted(answers)) => return Ok(Some(answers)),
                Ok(asked) => sent.record(request.kind, &asked),
                Err(error) => return Err(sent.error(error)),
            }
            if self.is_late() {
                return Err(sent.error(ApiError::DeadlinePassed));
            }
        }
        Ok(None)
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Asks one node.
    async fn ask(self, node: NodeId, request: &RelayedRequest) -> Result<Asked, ApiError> {
        let mut answers = self.core.forward.relay(node, request);
        let until = Instant::now() + ACCEPT_MAX;
        let until = self.deadline.map_or(until, |deadline| until.min(deadline));
        match select(answers.next(), self.service.timers.at(until)).await {
            Either::Left((Some(Ok(RelayPart::Accepted)), _)) => {
                self.service.metrics.relayed();
                Ok(Asked::Accepted(answers))
            }
            Either::Left((Some(Err(RelayError::Failed(failure))), _)) => Err(failed(failure)),
            Either::Left((Some(Err(RelayError::Lost(why))), _)) => {
                log::debug!("node {node} does not serve a request for log {}: {why}", request.log);
                Ok(Asked::Unknown)
            }
            Either::Left((Some(Err(RelayError::NoReplica)), _)) => Ok(Asked::Refused),
            Either::Left((Some(Ok(RelayPart::Response(_))) | None, _)) => Ok(Asked::Unknown),
            Either::Right(_) => {
                if !self.is_late() {
                    self.core.forward.suspect(node);
                }
                Ok(Asked::Unknown)
            }
        }
    }
}

/// What one node has answered.
enum Asked {
    /// It serves the request.
    Accepted(RelayAnswers),
    /// It has no replica, and has done nothing.
    Refused,
    /// It has not answered. Perhaps it has received the request.
    Unknown,
}

/// Whether a request that changes something was sent to a node that has not answered, so that it may have been done there.
#[derive(Clone, Copy, Debug)]
struct SentBefore(bool);

impl SentBefore {
    fn record(&mut self, kind: RelayKind, asked: &Asked) {
        self.0 |= kind.changes() && matches!(asked, Asked::Unknown);
    }

    /// Returns the error of the request, if a later node failed with `error`: that says nothing about the earlier one.
    fn error(self, error: ApiError) -> ApiError {
        if self.0 { ApiError::OutcomeUnknown { retry_is_safe: true } } else { error }
    }
}

fn package_of(package: Package) -> RelayPackage {
    match package {
        Package::LogV1 => RelayPackage::LogV1,
        Package::SeriatimV1 => RelayPackage::SeriatimV1,
    }
}

/// Returns the error of a request that another node has served. If that node stops, this one does not: the client may
/// send the request here again.
fn failed(failure: RelayFailure) -> ApiError {
    let RelayFailure { reason, status } = failure;
    let reason = ErrorReason::try_from(reason.as_str()).ok();
    match reason {
        Some(ErrorReason::Stopping) => ApiError::ReplicaLost,
        reason => ApiError::Relayed(RelayedFailure { reason, status }),
    }
}
