//! Requests of clients that a node without a replica of their log relays to a node that has one.
//!
//! ```text
//!   api ──Relay call──► node with a replica: hello, "I have a replica", then RelayServer (api of that node)
//!       ◄── empty response: accepted ── responses, one per message ── a failure, if it failed ──
//! ```
//!
//! - The sender has checked the client's rights. The receiver takes the principal only for its limits.
//! - A refusal of the call itself (another cluster, no replica) is the status of the call. A failure of the client's
//!   request is the last message, with the status that the client gets.
//! - A relayed request is never relayed again: a node without a replica refuses it.
//! - Nothing is queued: a response is taken from gRPC only when the receiver has sent the one before it.

use std::time::{Duration, Instant};

use futures::Sink;
use futures::future::BoxFuture;

use crate::codes::{UnknownCode, codes};
use crate::pb::peer::{self, Hello, RelayRequest, RelayResponse, relay_response};
use crate::types::{LogId, LogName};

codes! {
    /// The method of a relayed request.
    pub enum RelayKind: u32, "kind of relayed request" {
        /// Reads once, perhaps after a wait.
        Consume = 1,
        /// Reads, and then follows the log.
        ConsumeStream = 2,
        /// The bounds and the settings of the log.
        GetLog = 3,
        /// Makes the oldest records unreadable.
        TrimLog = 4,
        /// Registers a producer.
        InitProducer = 5,
        /// What a producer has appended, by its name or its id.
        GetProducer = 6,
        /// The same of all producers of a log.
        ListProducers = 7,
        /// Takes a cursor over.
        AcquireCursor = 8,
        /// Stores the position of a reader.
        CommitCursor = 9,
        /// The position of a cursor.
        GetCursor = 10,
        /// The same of all cursors of a log.
        ListCursors = 11,
        /// The reader needs the cursor no longer.
        DeleteCursor = 12,
        /// The hash chain of the log.
        ReadChain = 13,
        /// What the node reports of itself, for the page of another node. It names no log, and no client has sent it.
        GetNode = 14,
    }
}

impl RelayKind {
    /// Returns true for a request that changes the log. Each of them can be sent again without another effect.
    pub fn changes(self) -> bool {
        match self {
            RelayKind::TrimLog
            | RelayKind::InitProducer
            | RelayKind::AcquireCursor
            | RelayKind::CommitCursor
            | RelayKind::DeleteCursor => true,
            RelayKind::Consume
            | RelayKind::ConsumeStream
            | RelayKind::GetLog
            | RelayKind::GetProducer
            | RelayKind::ListProducers
            | RelayKind::GetCursor
            | RelayKind::ListCursors
            | RelayKind::ReadChain
            | RelayKind::GetNode => false,
        }
    }

    /// Returns true for a request that a node can serve only with a replica of its log.
    pub fn needs_replica(self) -> bool {
        self != RelayKind::GetNode
    }
}

codes! {
    /// The package of a relayed request's method.
    pub enum RelayPackage: u32, "package of a relayed request" {
        /// That of the clients of proglog.
        LogV1 = 1,
        /// That of all other clients.
        SeriatimV1 = 2,
    }
}

/// A request that is relayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayedRequest {
    /// The method that the client called.
    pub kind: RelayKind,
    /// The package of its method.
    pub package: RelayPackage,
    /// The log that it names.
    pub log: LogName,
    /// The id of that log, as the sender's catalog has it.
    pub log_id: LogId,
    /// The principal of the client.
    pub principal: String,
    /// The deadline of the client.
    pub deadline: Option<Instant>,
    /// The client's message.
    pub request: Vec<u8>,
}

/// The failure of a relayed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayFailure {
    /// The reason in the status of `seriatim.v1`.
    pub reason: String,
    /// A serialized `google.rpc.Status`.
    pub status: Vec<u8>,
}

/// A part of the answer to a relayed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayPart {
    /// The node has a replica, and serves the request.
    Accepted,
    /// A response, as the client gets it.
    Response(Vec<u8>),
}

/// Why a relayed request ended without success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayError {
    /// The node has no replica of the log.
    NoReplica,
    /// The node can't be reached, refuses this node, or the connection was lost. The text says why, for the log.
    Lost(String),
    /// The node has served the request, and the request failed.
    Failed(RelayFailure),
}

/// How the node that serves a relayed request has ended it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayEnd {
    /// All responses were sent.
    Complete,
    /// The relaying node no longer waits.
    Gone,
    /// The request failed.
    Failed(RelayFailure),
}

/// The relaying node accepts no more responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayGone;

/// Takes the responses of a relayed request. At most one of them is not sent yet. When the relaying node disconnects, a
/// flush fails, and its task is woken.
pub type RelaySink<'a> = dyn Sink<Vec<u8>, Error = RelayGone> + Send + Unpin + 'a;

/// Serves relayed requests. The API belongs to a layer above replication, so `api` implements this trait and `agent`
/// injects it.
pub trait RelayServer: Send + Sync {
    /// Returns true if this node has a replica of the log, and serves it.
    fn has_replica(&self, log: &LogName, log_id: LogId) -> bool;

    /// Serves a request.
    fn serve<'a>(&'a self, request: RelayedRequest, responses: &'a mut RelaySink<'_>) -> BoxFuture<'a, RelayEnd>;
}

/// Why a relayed request can't be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRelay {
    /// Only a newer version knows the method or the package.
    #[error("{0}")]
    Unknown(#[from] UnknownCode<u32>),
    /// The name of the log is malformed.
    #[error("a relayed request for a log without a valid name")]
    LogName,
}

impl RelayedRequest {
    /// Encodes the request.
    pub fn message(&self, hello: Hello, now: Instant) -> RelayRequest {
        let left = |deadline: Instant| deadline.saturating_duration_since(now).as_millis();
        let deadline_ms = self.deadline.map_or(0, |deadline| left(deadline).clamp(1, u128::from(u32::MAX)));
        RelayRequest {
            hello: Some(hello).into(),
            kind: self.kind.code(),
            package: self.package.code(),
            log: self.log.to_string(),
            log_id: self.log_id.0,
            principal: self.principal.clone(),
            deadline_ms: u32::try_from(deadline_ms).unwrap_or(u32::MAX),
            request: self.request.clone().into(),
            ..RelayRequest::default()
        }
    }

    /// Decodes a request.
    ///
    /// # Errors
    /// [`BadRelay`].
    pub fn of_message(message: RelayRequest, now: Instant) -> Result<RelayedRequest, BadRelay> {
        let left = Duration::from_millis(message.deadline_ms.into());
        Ok(RelayedRequest {
            kind: RelayKind::try_from(message.kind)?,
            package: RelayPackage::try_from(message.package)?,
            log: LogName::new(&message.log).map_err(|_| BadRelay::LogName)?,
            log_id: LogId(message.log_id),
            principal: message.principal,
            deadline: (message.deadline_ms > 0).then(|| now + left),
            request: message.request.into(),
        })
    }
}

/// Encodes a response.
pub(super) fn response(bytes: Vec<u8>) -> RelayResponse {
    let result = Some(relay_response::Result::Response(bytes.into()));
    RelayResponse { result, ..RelayResponse::default() }
}

/// Encodes a failure.
pub(super) fn failure(failure: RelayFailure) -> RelayResponse {
    let RelayFailure { reason, status } = failure;
    let failure = peer::RelayFailure { reason, status: status.into(), ..peer::RelayFailure::default() };
    RelayResponse { result: Some(relay_response::Result::Failure(failure)), ..RelayResponse::default() }
}

/// Decodes a message of the answer.
pub(super) fn part_of(message: RelayResponse) -> Result<RelayPart, RelayError> {
    match message.result {
        None => Ok(RelayPart::Accepted),
        Some(relay_response::Result::Response(bytes)) => Ok(RelayPart::Response(bytes.into())),
        Some(relay_response::Result::Failure(failure)) => {
            let peer::RelayFailure { reason, status, .. } = failure;
            Err(RelayError::Failed(RelayFailure { reason, status: status.into() }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_decode_as_encoded() {
        let now = Instant::now();
        for (kind, package) in RelayKind::ALL.iter().flat_map(|k| RelayPackage::ALL.iter().map(move |p| (*k, *p))) {
            let request = RelayedRequest {
                kind,
                package,
                log: LogName::new("a").expect("a name"),
                log_id: LogId(7),
                principal: "root".to_owned(),
                deadline: Some(now + Duration::from_millis(1500)),
                request: vec![1, 2, 3],
            };
            let message = request.message(Hello::default(), now);
            assert_eq!(RelayedRequest::of_message(message.clone(), now), Ok(request));
            let newer = RelayRequest { kind: 99, ..message.clone() };
            let refused = RelayedRequest::of_message(newer, now).expect_err("unknown");
            assert!(refused.to_string().contains("kind of relayed request 99"), "{refused}");
            let nameless = RelayRequest { log: "/".to_owned(), ..message };
            assert_eq!(RelayedRequest::of_message(nameless, now), Err(BadRelay::LogName));
        }
        assert_eq!(part_of(RelayResponse::default()), Ok(RelayPart::Accepted));
        assert_eq!(part_of(response(Vec::new())), Ok(RelayPart::Response(Vec::new())), "an empty response is one");
        let failed = RelayFailure { reason: "NO_LEADER".to_owned(), status: vec![1] };
        assert_eq!(part_of(failure(failed.clone())), Err(RelayError::Failed(failed)));
    }
}
