//! The error of a failed request: gRPC's status, with the details that a node adds.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use grpcio::RpcStatusCode;

use crate::pb::error_details::{ErrorInfo, RetryInfo};
use crate::reason::{Outcome, Retry, key};

/// The domain of a node's `ErrorInfo`.
const DOMAIN: &str = "seriatim";

/// Why a request failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The certificate files can't be used, with the reason.
    #[error("{0}")]
    Files(String),
    /// The server answered with a status, or the connection failed.
    #[error("{0}")]
    Status(Status),
    /// The log has no record at this offset yet.
    #[error("the log has no record at offset {0} yet")]
    NoRecord(u64),
    /// gRPC failed in this process, before the request was sent or after it was answered.
    #[error("{0}")]
    Local(String),
}

/// A gRPC status with its details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The gRPC status code.
    pub code: RpcStatusCode,
    /// The message for humans.
    pub message: String,
    /// The reason in a node's `ErrorInfo`; empty if gRPC itself created the status.
    pub reason: String,
    /// The metadata of the `ErrorInfo`.
    pub metadata: BTreeMap<String, String>,
    /// When to retry, if the server says it.
    pub retry_after: Option<Duration>,
}

impl Status {
    /// A status of this process.
    pub(super) fn local(
        code: RpcStatusCode,
        reason: &str,
        message: String,
        metadata: BTreeMap<String, String>,
    ) -> Status {
        Status { code, message, reason: reason.to_owned(), metadata, retry_after: None }
    }

    fn new(status: &grpcio::RpcStatus) -> Status {
        let mut new = Status {
            code: status.code(),
            message: status.message().to_owned(),
            reason: String::new(),
            metadata: BTreeMap::new(),
            retry_after: None,
        };
        let details = crate::pb::parse::<crate::pb::status::Status>(status.details()).unwrap_or_default().details;
        for any in details {
            if let Ok(Some(info)) = any.unpack::<ErrorInfo>() {
                if info.domain == DOMAIN {
                    new.reason = info.reason;
                    new.metadata = info.metadata.into_iter().collect();
                }
            } else if let Ok(Some(retry)) = any.unpack::<RetryInfo>() {
                let delay = retry.retry_delay.get_or_default();
                new.retry_after = Some(Duration::new(delay.seconds.max(0) as u64, delay.nanos.max(0) as u32));
            }
        }
        new
    }

    /// Returns what became of the request. The node says it, whatever the reason is: newer nodes have reasons that this
    /// version does not know. Without its word, the outcome is known only for statuses that gRPC itself does not create
    /// after it has passed the request on: it also returns UNAVAILABLE if a connection breaks after the request has
    /// arrived.
    pub fn outcome(&self) -> Outcome {
        if !self.reason.is_empty() {
            return self.of_metadata(key::OUTCOME).unwrap_or(Outcome::Unknown);
        }
        match self.code {
            RpcStatusCode::INVALID_ARGUMENT
            | RpcStatusCode::NOT_FOUND
            | RpcStatusCode::ALREADY_EXISTS
            | RpcStatusCode::PERMISSION_DENIED
            | RpcStatusCode::UNAUTHENTICATED
            | RpcStatusCode::FAILED_PRECONDITION
            | RpcStatusCode::OUT_OF_RANGE
            | RpcStatusCode::UNIMPLEMENTED => Outcome::None,
            _ => Outcome::Unknown,
        }
    }

    /// Returns whether the same request can succeed when it is sent again. The caller must also consider the outcome: a
    /// request that may have been done is safe to send again only if doing it twice has the effect of doing it once.
    pub fn retry(&self) -> Retry {
        if !self.reason.is_empty() {
            return self.of_metadata(key::RETRY).unwrap_or(Retry::No);
        }
        // A broken connection: another node, or the same one after it was restarted.
        if self.code == RpcStatusCode::UNAVAILABLE { Retry::Elsewhere } else { Retry::No }
    }

    fn of_metadata<T: for<'a> TryFrom<&'a str>>(&self, key: &str) -> Option<T> {
        T::try_from(self.metadata.get(key)?.as_str()).ok()
    }

    /// Returns the client address of the leader, if the node named it.
    pub fn leader(&self) -> Option<&str> {
        self.metadata.get(key::LEADER).map(String::as_str)
    }

    /// Returns the value of a metadata key as a number.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.metadata.get(key)?.parse().ok()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // grpcio formats a code as "5-NOT_FOUND".
        let code = self.code.to_string();
        write!(f, "{}", code.split_once('-').map_or(code.as_str(), |(_, name)| name))?;
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl From<grpcio::Error> for ClientError {
    fn from(error: grpcio::Error) -> ClientError {
        match error {
            grpcio::Error::RpcFailure(status) | grpcio::Error::RpcFinished(Some(status)) => {
                ClientError::Status(Status::new(&status))
            }
            // The call ended without a status that arrived.
            grpcio::Error::RemoteStopped | grpcio::Error::RpcFinished(None) => {
                let text = "the connection broke".to_owned();
                ClientError::Status(Status::local(RpcStatusCode::UNAVAILABLE, "", text, BTreeMap::new()))
            }
            other => ClientError::Local(other.to_string()),
        }
    }
}

impl ClientError {
    /// Returns the status; `None` if the error has none.
    pub fn status(&self) -> Option<&Status> {
        match self {
            ClientError::Status(status) => Some(status),
            ClientError::Files(_) | ClientError::NoRecord(_) | ClientError::Local(_) => None,
        }
    }

    /// Returns true if the node answered, and false if it may be unreachable.
    pub fn is_answer(&self) -> bool {
        matches!(self, ClientError::NoRecord(_))
            || self.status().is_some_and(|status| {
                let grpcs_own = matches!(status.code, RpcStatusCode::UNAVAILABLE | RpcStatusCode::DEADLINE_EXCEEDED);
                !status.reason.is_empty() || !grpcs_own
            })
    }

    /// Returns [`Status::outcome`]. Without a status, the outcome is unknown.
    pub fn outcome(&self) -> Outcome {
        self.status().map_or(Outcome::Unknown, Status::outcome)
    }

    /// Returns [`Status::retry`]. Without a status, a retry is useless.
    pub fn retry(&self) -> Retry {
        self.status().map_or(Retry::No, Status::retry)
    }
}

#[cfg(test)]
mod tests {
    use protobuf::Message as _;

    use super::*;
    use protobuf::well_known_types::any::Any;

    fn status_with(reason: &str, metadata: &[(&str, &str)], code: RpcStatusCode) -> Status {
        let mut details = crate::pb::status::Status::new();
        if !reason.is_empty() {
            let mut info = ErrorInfo { domain: DOMAIN.into(), reason: reason.into(), ..ErrorInfo::default() };
            info.metadata.insert("next_offset".into(), "7".into());
            info.metadata.extend(metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
            details.details.push(Any::pack(&info).expect("packs"));
        }
        let bytes = details.write_to_bytes().expect("encodes");
        Status::new(&grpcio::RpcStatus::with_details(code, "text".into(), bytes))
    }

    #[test]
    fn an_invented_reason_is_understood_by_its_two_keys() {
        let of = |outcome, retry| {
            let metadata = [("outcome", outcome), ("retry", retry)];
            let status = status_with("INVENTED_TOMORROW", &metadata, RpcStatusCode::ABORTED);
            (status.outcome(), status.retry())
        };
        for outcome in Outcome::ALL {
            for retry in Retry::ALL {
                assert_eq!(of(outcome.code(), retry.code()), (*outcome, *retry));
            }
        }
        assert_eq!(of("maybe", "sometimes"), (Outcome::Unknown, Retry::No), "values of a newer version");
        let bare = status_with("INVENTED_TOMORROW", &[], RpcStatusCode::UNAVAILABLE);
        assert_eq!((bare.outcome(), bare.retry()), (Outcome::Unknown, Retry::No));
    }

    #[test]
    fn nothing_is_certain_unless_a_node_says_so() {
        let of = |code| {
            let status = status_with("", &[], code);
            (status.outcome(), status.retry())
        };
        assert_eq!(of(RpcStatusCode::UNAVAILABLE), (Outcome::Unknown, Retry::Elsewhere));
        assert_eq!(of(RpcStatusCode::DEADLINE_EXCEEDED), (Outcome::Unknown, Retry::No));
        assert_eq!(of(RpcStatusCode::PERMISSION_DENIED), (Outcome::None, Retry::No));
    }

    #[test]
    fn reads_the_details_of_a_status() {
        let status = status_with("OFFSET_PAST_END", &[], RpcStatusCode::OUT_OF_RANGE);
        assert_eq!(status.number("next_offset"), Some(7));
        assert_eq!(status.to_string(), "OUT_OF_RANGE (OFFSET_PAST_END): text");
    }
}
