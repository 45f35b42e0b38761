//! [`Error`]: why an operation of the library failed, and what became of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use grpcio::RpcStatusCode as Code;

use super::error_kind::ErrorKind;
use super::status::{ClientError, Status};
use crate::reason::{Outcome, Retry, key};

/// What the library does after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// Ask the next node.
    Elsewhere,
    /// Ask the same node, after a pause.
    Again,
    /// Return the error.
    GiveUp,
}

/// Why an operation failed. It covers all attempts of the operation.
#[derive(Clone)]
pub struct Error {
    status: Arc<Status>,
    outcome: Outcome,
    is_closed: bool,
}

/// The result of an operation of the library.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of this process, which no node has sent: a status without ErrorInfo.
    pub(super) fn local(code: Code, message: impl Into<String>, outcome: Outcome) -> Error {
        Error::new(Status::local(code, "", message.into(), BTreeMap::new()), outcome)
    }

    /// An error that the library finds itself, with the reason of a node that would find it. Nothing was done.
    pub(super) fn found(code: Code, reason: &str, message: impl Into<String>, more: &[(&str, String)]) -> Error {
        let mut metadata: BTreeMap<String, String> =
            more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        metadata.insert(key::OUTCOME.to_owned(), Outcome::None.code().to_owned());
        metadata.insert(key::RETRY.to_owned(), Retry::No.code().to_owned());
        Error::new(Status::local(code, reason, message.into(), metadata), Outcome::None)
    }

    /// The error of everything that is not done yet when its owner is closed, and of everything after that.
    pub(super) fn closed(what: &str) -> Error {
        let error = Error::local(Code::CANCELLED, format!("the {what} is closed"), Outcome::None);
        Error { is_closed: true, ..error }
    }

    /// The error of a call. gRPC reports a connection that broke in several ways.
    fn of_status(status: Status) -> Error {
        let outcome = status.outcome();
        let is_broken = status.reason.is_empty()
            && matches!(status.code, Code::UNAVAILABLE | Code::UNKNOWN | Code::INTERNAL | Code::CANCELLED);
        if !is_broken || status.code == Code::UNAVAILABLE {
            return Error::new(status, outcome);
        }
        let text = format!("the connection broke: {status}");
        Error::new(Status::local(Code::UNAVAILABLE, "", text, status.metadata), outcome)
    }

    fn new(status: Status, outcome: Outcome) -> Error {
        Error { status: Arc::new(status), outcome, is_closed: false }
    }

    /// Returns the same error with another outcome.
    pub(super) fn with_outcome(&self, outcome: Outcome) -> Error {
        Error { outcome, ..self.clone() }
    }

    /// Returns what an application distinguishes.
    pub fn kind(&self) -> ErrorKind {
        match self.reason() {
            "NO_SUCH_LOG" | "LOG_DELETED" | "NO_SUCH_PRODUCER" | "NO_SUCH_CURSOR" => return ErrorKind::NotFound,
            "EXPECTED_OFFSET_MISMATCH"
            | "REVISION_MISMATCH"
            | "EPOCH_MISMATCH"
            | "LOG_ID_MISMATCH"
            | "CURSOR_BEHIND"
            | "CLUSTER_CHANGED" => return ErrorKind::Mismatch,
            "PRODUCER_FENCED" | "CURSOR_FENCED" => return ErrorKind::Fenced,
            "RECORD_TOO_LARGE" | "REQUEST_TOO_LARGE" => return ErrorKind::TooLarge,
            "OFFSET_TRIMMED" => return ErrorKind::Trimmed,
            "OFFSET_PAST_END" => return ErrorKind::PastEnd,
            "RECORD_DAMAGED" => return ErrorKind::DataLoss,
            _ => {}
        }
        if self.outcome == Outcome::Unknown {
            return ErrorKind::OutcomeUnknown;
        }
        if self.is_closed {
            return ErrorKind::Closed;
        }
        match self.code() {
            Code::PERMISSION_DENIED | Code::UNAUTHENTICATED => ErrorKind::NotAllowed,
            Code::UNAVAILABLE => ErrorKind::Unavailable,
            Code::RESOURCE_EXHAUSTED => ErrorKind::Exhausted,
            Code::INVALID_ARGUMENT | Code::UNIMPLEMENTED => ErrorKind::Invalid,
            Code::DEADLINE_EXCEEDED => ErrorKind::Timeout,
            Code::CANCELLED => ErrorKind::Cancelled,
            Code::NOT_FOUND => ErrorKind::NotFound,
            Code::OUT_OF_RANGE => ErrorKind::PastEnd,
            Code::DATA_LOSS => ErrorKind::DataLoss,
            _ => ErrorKind::Other,
        }
    }

    /// Returns the gRPC status code.
    pub fn code(&self) -> Code {
        self.status.code
    }

    /// Returns the reason, as `errors.proto` lists them. Empty if no node has sent the error.
    pub fn reason(&self) -> &str {
        &self.status.reason
    }

    /// Returns the text for humans.
    pub fn message(&self) -> &str {
        &self.status.message
    }

    /// Returns the details that a node has sent with the reason.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.status.metadata
    }

    /// Returns what became of the operation, over all its attempts.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Returns whether the same operation can succeed later.
    pub fn retry(&self) -> Retry {
        self.status.retry()
    }

    /// Returns true unless it is certain that nothing was done.
    pub fn may_have_been_done(&self) -> bool {
        self.outcome != Outcome::None
    }

    /// Returns true for [`Error::closed`].
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(super) fn status(&self) -> &Status {
        &self.status
    }

    /// Returns how long the node demands to wait.
    pub(super) fn retry_after(&self) -> Duration {
        self.status.retry_after.unwrap_or_default()
    }

    /// Returns true if the connection broke, or a node has not answered in time.
    pub(super) fn is_broken_connection(&self) -> bool {
        self.reason().is_empty() && matches!(self.code(), Code::UNAVAILABLE | Code::DEADLINE_EXCEEDED)
    }

    /// Returns what the library does, for operations that can be sent again.
    pub(super) fn advice(&self) -> Advice {
        if self.is_broken_connection() {
            return Advice::Elsewhere;
        }
        match self.retry() {
            Retry::Elsewhere => Advice::Elsewhere,
            Retry::Same | Retry::Later => Advice::Again,
            Retry::No => Advice::GiveUp,
        }
    }
}

/// Combines the outcomes of two attempts. Only an answer to the request itself makes an unknown outcome known.
pub(super) fn combined(one: Outcome, other: Outcome) -> Outcome {
    match (one, other) {
        (Outcome::Done, _) | (_, Outcome::Done) => Outcome::Done,
        (Outcome::Unknown, _) | (_, Outcome::Unknown) => Outcome::Unknown,
        (Outcome::None, Outcome::None) => Outcome::None,
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Error {
        match error {
            ClientError::Status(status) => Error::of_status(status),
            ClientError::Files(text) => Error::local(Code::INVALID_ARGUMENT, text, Outcome::None),
            ClientError::NoRecord(_) => Error::local(Code::NOT_FOUND, error.to_string(), Outcome::None),
            ClientError::Local(text) => Error::local(Code::INTERNAL, text, Outcome::Unknown),
        }
    }
}

impl From<grpcio::Error> for Error {
    fn from(error: grpcio::Error) -> Error {
        ClientError::from(error).into()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [outcome {}, retry {}]", self.status, self.outcome.code(), self.retry().code())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_depends_on_the_reason_then_the_outcome_then_the_code() {
        let fenced = Error::found(Code::FAILED_PRECONDITION, "CURSOR_FENCED", "", &[]);
        assert_eq!(fenced.with_outcome(Outcome::Unknown).kind(), ErrorKind::Fenced);
        let lost = Error::local(Code::UNAVAILABLE, "", Outcome::Unknown);
        assert_eq!(lost.kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(lost.with_outcome(Outcome::None).kind(), ErrorKind::Unavailable);
        assert_eq!(Error::closed("producer").kind(), ErrorKind::Closed);
        assert_eq!(Error::closed("producer").with_outcome(Outcome::Unknown).kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(Error::found(Code::ABORTED, "INVENTED_TOMORROW", "", &[]).kind(), ErrorKind::Other);
    }

    #[test]
    fn a_refusal_proves_nothing_about_an_earlier_attempt() {
        use Outcome::{Done, None, Unknown};
        assert_eq!([combined(Unknown, None), combined(None, Unknown), combined(None, None)], [Unknown, Unknown, None]);
        assert_eq!(combined(Unknown, Done), Done);
    }
}
