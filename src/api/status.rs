//! The one classification of errors: which gRPC status and `ErrorInfo` reason an error is, whether a retry helps, and which
//! counter counts it.
//!
//! A status carries `google.rpc.Status` in its details: `ErrorInfo` (domain "seriatim", a reason, metadata), `RetryInfo`
//! where waiting helps, and `LocalizedMessage` for offsets out of range.

use std::time::Duration;

use grpcio::{RpcStatus, RpcStatusCode as Code};
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::duration::Duration as PbDuration;
use protobuf::{Message, MessageField, MessageFull};

use super::error::{ApiError, Invalid, LogBounds};
use super::limits::LimitReached;
use crate::metrics::Limit;
use crate::pb::{error_details, status};
use crate::reason::ErrorReason;

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "seriatim";

/// How long a client should wait before it retries where something was full.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Whether the same request may succeed when it is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Never, unless an operator changes something: the request itself is wrong, or not allowed.
    Useless,
    /// It depends on the state of the log or of the cluster, which the reason names.
    Depends,
    /// After a moment: something was full. The status carries `RetryInfo`.
    Later,
}

/// What counts an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// A refusal by the access policy.
    Access,
    /// A limit that was reached.
    Limit(Limit),
}

/// The class of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// The code of the status.
    pub code: Code,
    /// The reason in its `ErrorInfo`.
    pub reason: ErrorReason,
    /// Whether a retry helps.
    pub retry: Retry,
    /// The counter besides the one of the reason.
    pub counted: Option<Counted>,
}

/// Where a `ProduceStream` failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAt {
    /// The first request that was not acknowledged, from 0.
    pub failed_request: u64,
    /// The last request that may have been appended; `None` if nothing from the failed one on was.
    pub unknown_through: Option<u64>,
}

/// The classes of all errors.
pub fn classify(error: &ApiError) -> Class {
    use ErrorReason as Reason;
    use Retry::{Depends, Later, Useless};
    let class = |code, reason, retry| Class { code, reason, retry, counted: None };
    let access = |code, reason| Class { code, reason, retry: Useless, counted: Some(Counted::Access) };
    let full = |reason, limit| {
        let counted = Some(Counted::Limit(limit));
        Class { code: Code::RESOURCE_EXHAUSTED, reason, retry: Later, counted }
    };
    match error {
        ApiError::NoIdentity(_) => access(Code::UNAUTHENTICATED, Reason::NoIdentity),
        ApiError::NotAllowed { .. } => access(Code::PERMISSION_DENIED, Reason::NotAllowed),
        ApiError::Invalid(invalid) => classify_invalid(invalid),
        ApiError::Unimplemented(_) | ApiError::NewerVersion { .. } => {
            class(Code::UNIMPLEMENTED, Reason::Unimplemented, Useless)
        }
        ApiError::LevelUnsupported { .. } => class(Code::FAILED_PRECONDITION, Reason::FeatureLevelUnsupported, Depends),
        ApiError::NoSuchLog(_) => class(Code::NOT_FOUND, Reason::NoSuchLog, Useless),
        ApiError::NoSuchService => class(Code::NOT_FOUND, Reason::NoSuchService, Useless),
        ApiError::LogIdMismatch { .. } => class(Code::FAILED_PRECONDITION, Reason::LogIdMismatch, Useless),
        ApiError::ExpectedOffset { .. } => class(Code::FAILED_PRECONDITION, Reason::ExpectedOffsetMismatch, Depends),
        ApiError::OffsetPastEnd(..) => class(Code::OUT_OF_RANGE, Reason::OffsetPastEnd, Depends),
        ApiError::OffsetTrimmed(..) => class(Code::OUT_OF_RANGE, Reason::OffsetTrimmed, Depends),
        ApiError::QueueFull => full(Reason::QueueFull, Limit::Queue),
        ApiError::Limit(LimitReached { limit, .. }) => full(Reason::LimitReached, *limit),
        // The disk has a counter of its own.
        ApiError::DiskFull => class(Code::RESOURCE_EXHAUSTED, Reason::DiskFull, Later),
        ApiError::Shortage { .. } => class(Code::RESOURCE_EXHAUSTED, Reason::Shortage, Later),
        ApiError::NotAppended => class(Code::UNAVAILABLE, Reason::NotAppended, Depends),
        ApiError::NoLeader => class(Code::UNAVAILABLE, Reason::NoLeader, Depends),
        ApiError::NotReady { .. } | ApiError::Joining(_) => class(Code::UNAVAILABLE, Reason::Joining, Depends),
        ApiError::AnotherCluster(_) => class(Code::UNAVAILABLE, Reason::AnotherCluster, Depends),
        ApiError::Stopping => class(Code::UNAVAILABLE, Reason::Stopping, Depends),
        ApiError::ReplicaDamaged => class(Code::UNAVAILABLE, Reason::Damaged, Depends),
        ApiError::LeaderUnreadable { .. } => class(Code::UNAVAILABLE, Reason::LeaderDamaged, Depends),
        ApiError::OutcomeUnknown { retry_is_safe: true } => class(Code::UNAVAILABLE, Reason::OutcomeUnknown, Depends),
        ApiError::OutcomeUnknown { retry_is_safe: false } => class(Code::UNKNOWN, Reason::OutcomeUnknown, Depends),
        ApiError::DeadlinePassed => class(Code::DEADLINE_EXCEEDED, Reason::NotAppended, Depends),
        ApiError::Damaged { .. } => class(Code::DATA_LOSS, Reason::Damaged, Depends),
        ApiError::Internal(_) => class(Code::INTERNAL, Reason::Internal, Depends),
    }
}

fn classify_invalid(invalid: &Invalid) -> Class {
    let (reason, limit) = match invalid {
        Invalid::RecordTooLarge { .. } => (ErrorReason::RecordTooLarge, Some(Limit::RecordBytes)),
        Invalid::RequestTooLarge { .. } | Invalid::EntryTooLarge { .. } => {
            (ErrorReason::RequestTooLarge, Some(Limit::RequestBytes))
        }
        Invalid::MessageTooLarge { .. } => (ErrorReason::InvalidRequest, Some(Limit::MessageBytes)),
        Invalid::Malformed
        | Invalid::LogName(_)
        | Invalid::NoRecord
        | Invalid::RecordAndRecords
        | Invalid::UnknownField(_)
        | Invalid::Settings(_)
        | Invalid::FeatureLevel
        | Invalid::LogChanged
        | Invalid::ExpectedOffset(_)
        | Invalid::Start(_)
        | Invalid::Heartbeat { .. } => (ErrorReason::InvalidRequest, None),
    };
    Class { code: Code::INVALID_ARGUMENT, reason, retry: Retry::Useless, counted: limit.map(Counted::Limit) }
}

/// The status of a failed request.
pub fn status_of(error: &ApiError) -> RpcStatus {
    status_with(error, &[])
}

/// The status that ends a `ProduceStream`.
pub fn stream_status_of(error: &ApiError, at: FailedAt) -> RpcStatus {
    let mut more = vec![("failed_request", at.failed_request.to_string())];
    more.extend(at.unknown_through.map(|last| ("unknown_through", last.to_string())));
    status_with(error, &more)
}

fn status_with(error: &ApiError, more: &[Metadata]) -> RpcStatus {
    let Class { code, reason, retry, counted: _ } = classify(error);
    let mut info = error_details::ErrorInfo::new();
    info.reason = reason.code().to_owned();
    info.domain = DOMAIN.to_owned();
    for (key, value) in metadata(error).into_iter().chain(more.iter().cloned()) {
        info.metadata.insert(key.to_owned(), value);
    }
    let mut details = vec![packed(&info)];
    if retry == Retry::Later {
        let mut delay = PbDuration::new();
        delay.nanos = i32::try_from(RETRY_DELAY.as_nanos()).unwrap_or(i32::MAX);
        let mut info = error_details::RetryInfo::new();
        info.retry_delay = MessageField::some(delay);
        details.push(packed(&info));
    }
    if let Some(text) = localized(error) {
        let mut info = error_details::LocalizedMessage::new();
        info.locale = "en-US".to_owned();
        info.message = text;
        details.push(packed(&info));
    }
    let message = error.to_string();
    let mut whole = status::Status::new();
    whole.code = code.into();
    whole.message.clone_from(&message);
    whole.details = details;
    RpcStatus::with_details(code, message, whole.write_to_bytes().unwrap_or_default())
}

type Metadata = (&'static str, String);

/// The metadata of the `ErrorInfo`.
fn metadata(error: &ApiError) -> Vec<Metadata> {
    let bounds = |bounds: &LogBounds| {
        vec![
            ("log", bounds.log.to_string()),
            ("log_id", bounds.log_id.to_string()),
            ("first_offset", bounds.first_offset.to_string()),
            ("next_offset", bounds.next_offset.to_string()),
        ]
    };
    let limit = |name: &'static str, max: String| vec![(name, max.clone()), ("limit", name.to_owned()), ("max", max)];
    match error {
        ApiError::OffsetPastEnd(of, _) | ApiError::OffsetTrimmed(of, _) => bounds(of),
        ApiError::NoSuchLog(log) => vec![("log", log.to_string())],
        ApiError::LogIdMismatch { log, log_id } => vec![("log", log.to_string()), ("log_id", log_id.to_string())],
        ApiError::ExpectedOffset { log, expected: _, next_offset } => {
            vec![("log", log.to_string()), ("next_offset", next_offset.to_string())]
        }
        ApiError::Limit(LimitReached { limit, max }) => {
            vec![("limit", limit.code().to_owned()), ("max", max.to_string())]
        }
        ApiError::NotReady { waiting_for } => vec![("waiting_for", waiting_for.clone())],
        ApiError::Damaged { log, offset, resume, what: _ }
        | ApiError::NewerVersion { log, offset, resume, what: _ } => {
            let resume = resume.map(|resume| ("resume_offset", resume.to_string()));
            [("log", log.to_string()), ("offset", offset.to_string())].into_iter().chain(resume).collect()
        }
        ApiError::Invalid(invalid) => match invalid {
            Invalid::RecordTooLarge { position, bytes: _, bytes_max } => {
                let mut metadata = limit("record_bytes_max", bytes_max.to_string());
                metadata.push(("position", position.to_string()));
                metadata
            }
            Invalid::RequestTooLarge { bytes: _, bytes_max } => limit("request_bytes_max", bytes_max.to_string()),
            Invalid::EntryTooLarge { bytes_max } => limit("entry_bytes_max", bytes_max.to_string()),
            Invalid::Malformed
            | Invalid::MessageTooLarge { .. }
            | Invalid::LogName(_)
            | Invalid::NoRecord
            | Invalid::RecordAndRecords
            | Invalid::UnknownField(_)
            | Invalid::Settings(_)
            | Invalid::FeatureLevel
            | Invalid::LogChanged
            | Invalid::ExpectedOffset(_)
            | Invalid::Start(_)
            | Invalid::Heartbeat { .. } => Vec::new(),
        },
        ApiError::NoIdentity(_)
        | ApiError::NotAllowed { .. }
        | ApiError::Unimplemented(_)
        | ApiError::LevelUnsupported { .. }
        | ApiError::NoSuchService
        | ApiError::QueueFull
        | ApiError::DiskFull
        | ApiError::Shortage { .. }
        | ApiError::NotAppended
        | ApiError::NoLeader
        | ApiError::Joining(_)
        | ApiError::AnotherCluster(_)
        | ApiError::Stopping
        | ApiError::ReplicaDamaged
        | ApiError::LeaderUnreadable { .. }
        | ApiError::OutcomeUnknown { .. }
        | ApiError::DeadlinePassed
        | ApiError::Internal(_) => Vec::new(),
    }
}

/// The `LocalizedMessage`, which clients of the first server of this API show to people.
fn localized(error: &ApiError) -> Option<String> {
    let (ApiError::OffsetPastEnd(_, offset) | ApiError::OffsetTrimmed(_, offset)) = error else { return None };
    Some(format!("The requested offset is outside the log's range: {offset}"))
}

fn packed<M: MessageFull>(message: &M) -> Any {
    Any::pack(message).unwrap_or_default()
}

#[cfg(test)]
mod tests;
