//! The classification of all errors: the gRPC status and the `ErrorInfo` of an error, whether a retry helps, and which
//! counter counts it.
//!
//! A status carries `google.rpc.Status` in its details: `ErrorInfo` (domain "seriatim", a reason, metadata),
//! `RetryInfo` where waiting helps, and `LocalizedMessage` for offsets out of range.

use std::fmt::Display;
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
use crate::types::{LogName, Offset};

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "seriatim";

/// The time after which a client should retry if something was full.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Whether the same request may succeed when it is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Never, unless an operator changes something: the request itself is invalid or not allowed.
    Useless,
    /// It depends on the state of the log or of the cluster, as the reason says.
    Depends,
    /// After a short wait, because something was full. The status carries `RetryInfo`.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// The code of the status.
    pub code: Code,
    /// The reason in its `ErrorInfo`.
    pub reason: ErrorReason,
    /// The metadata of its `ErrorInfo`.
    pub metadata: Vec<Metadata>,
    /// The text of the `LocalizedMessage`, which clients of the first server of this API show to users.
    pub localized: Option<String>,
    /// Whether a retry helps.
    pub retry: Retry,
    /// A counter in addition to the counter of the reason.
    pub counted: Option<Counted>,
}

/// A key and a value in the metadata of an `ErrorInfo`.
pub type Metadata = (&'static str, String);

impl Class {
    fn new(code: Code, reason: ErrorReason, retry: Retry) -> Class {
        Class { code, reason, metadata: Vec::new(), localized: None, retry, counted: None }
    }

    fn counted(self, counted: Counted) -> Class {
        Class { counted: Some(counted), ..self }
    }

    fn with(mut self, key: &'static str, value: impl Display) -> Class {
        self.metadata.push((key, value.to_string()));
        self
    }

    /// Adds a limit and its value to the metadata.
    fn with_limit(self, limit: &'static str, max: impl Display) -> Class {
        self.with("limit", limit).with("max", max)
    }

    /// Adds to the metadata which records can't be read, and where reading can continue.
    fn of_records(self, log: &LogName, offset: Offset, resume: Option<Offset>) -> Class {
        let class = self.with("log", log).with("offset", offset);
        match resume {
            Some(resume) => class.with("resume_offset", resume),
            None => class,
        }
    }

    /// The class of an offset outside of the log.
    fn out_of_range(reason: ErrorReason, of: &LogBounds, offset: Offset) -> Class {
        let text = format!("The requested offset is outside the log's range: {offset}");
        Class { localized: Some(text), ..Class::new(Code::OUT_OF_RANGE, reason, Retry::Depends) }
            .with("log", &of.log)
            .with("log_id", of.log_id)
            .with("first_offset", of.first_offset)
            .with("next_offset", of.next_offset)
    }
}

/// The position at which a `ProduceStream` failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAt {
    /// The number of the first request that was not acknowledged, from 0.
    pub failed_request: u64,
    /// The number of the last request that may have been appended; `None` if no request from the failed one on was
    /// appended.
    pub unknown_through: Option<u64>,
}

/// The classes of all errors.
pub fn classify(error: &ApiError) -> Class {
    use ErrorReason as Reason;
    use Retry::{Depends, Later, Useless};
    let class = Class::new;
    let access = |code, reason| class(code, reason, Useless).counted(Counted::Access);
    let full = |reason, limit| class(Code::RESOURCE_EXHAUSTED, reason, Later).counted(Counted::Limit(limit));
    match error {
        ApiError::NoIdentity(_) => access(Code::UNAUTHENTICATED, Reason::NoIdentity),
        ApiError::NotAllowed { .. } => access(Code::PERMISSION_DENIED, Reason::NotAllowed),
        ApiError::Invalid(invalid) => classify_invalid(invalid),
        ApiError::Unimplemented(_) => class(Code::UNIMPLEMENTED, Reason::Unimplemented, Useless),
        ApiError::NewerVersion { log, offset, resume, what: _ } => {
            class(Code::UNIMPLEMENTED, Reason::Unimplemented, Useless).of_records(log, *offset, *resume)
        }
        ApiError::LevelUnsupported { .. } => class(Code::FAILED_PRECONDITION, Reason::FeatureLevelUnsupported, Depends),
        ApiError::NoSuchLog(log) => class(Code::NOT_FOUND, Reason::NoSuchLog, Useless).with("log", log),
        ApiError::NoSuchService => class(Code::NOT_FOUND, Reason::NoSuchService, Useless),
        ApiError::LogIdMismatch { log, log_id } => {
            class(Code::FAILED_PRECONDITION, Reason::LogIdMismatch, Useless).with("log", log).with("log_id", log_id)
        }
        ApiError::ExpectedOffset { log, expected: _, next_offset } => {
            class(Code::FAILED_PRECONDITION, Reason::ExpectedOffsetMismatch, Depends)
                .with("log", log)
                .with("next_offset", next_offset)
        }
        ApiError::OffsetPastEnd(of, offset) => Class::out_of_range(Reason::OffsetPastEnd, of, *offset),
        ApiError::OffsetTrimmed(of, offset) => Class::out_of_range(Reason::OffsetTrimmed, of, *offset),
        ApiError::QueueFull => full(Reason::QueueFull, Limit::Queue),
        ApiError::Limit(LimitReached { limit, max }) => {
            full(Reason::LimitReached, *limit).with_limit(limit.code(), max)
        }
        // A full disk has a counter of its own.
        ApiError::DiskFull => class(Code::RESOURCE_EXHAUSTED, Reason::DiskFull, Later),
        ApiError::Shortage { .. } => class(Code::RESOURCE_EXHAUSTED, Reason::Shortage, Later),
        ApiError::NotAppended => class(Code::UNAVAILABLE, Reason::NotAppended, Depends),
        ApiError::NoLeader => class(Code::UNAVAILABLE, Reason::NoLeader, Depends),
        ApiError::NotReady { waiting_for } => {
            class(Code::UNAVAILABLE, Reason::Joining, Depends).with("waiting_for", waiting_for)
        }
        ApiError::Joining(_) => class(Code::UNAVAILABLE, Reason::Joining, Depends),
        ApiError::AnotherCluster(_) => class(Code::UNAVAILABLE, Reason::AnotherCluster, Depends),
        ApiError::Stopping => class(Code::UNAVAILABLE, Reason::Stopping, Depends),
        ApiError::ReplicaDamaged => class(Code::UNAVAILABLE, Reason::Damaged, Depends),
        ApiError::LeaderUnreadable { .. } => class(Code::UNAVAILABLE, Reason::LeaderDamaged, Depends),
        ApiError::OutcomeUnknown { retry_is_safe: true } => class(Code::UNAVAILABLE, Reason::OutcomeUnknown, Depends),
        ApiError::OutcomeUnknown { retry_is_safe: false } => class(Code::UNKNOWN, Reason::OutcomeUnknown, Depends),
        ApiError::DeadlinePassed => class(Code::DEADLINE_EXCEEDED, Reason::NotAppended, Depends),
        ApiError::Damaged { log, offset, resume, what: _ } => {
            class(Code::DATA_LOSS, Reason::Damaged, Depends).of_records(log, *offset, *resume)
        }
        ApiError::Internal(_) => class(Code::INTERNAL, Reason::Internal, Depends),
    }
}

fn classify_invalid(invalid: &Invalid) -> Class {
    use ErrorReason as Reason;
    let class = |reason| Class::new(Code::INVALID_ARGUMENT, reason, Retry::Useless);
    // The metadata contains the value twice: some clients read it by the name of the limit, and others read any limit.
    let too_large = |reason, counted, limit, max: &dyn Display| {
        class(reason).counted(Counted::Limit(counted)).with(limit, max).with_limit(limit, max)
    };
    match invalid {
        Invalid::RecordTooLarge { position, bytes: _, bytes_max } => {
            too_large(Reason::RecordTooLarge, Limit::RecordBytes, "record_bytes_max", bytes_max)
                .with("position", position)
        }
        Invalid::RequestTooLarge { bytes: _, bytes_max } => {
            too_large(Reason::RequestTooLarge, Limit::RequestBytes, "request_bytes_max", bytes_max)
        }
        Invalid::EntryTooLarge { bytes_max } => {
            too_large(Reason::RequestTooLarge, Limit::RequestBytes, "entry_bytes_max", bytes_max)
        }
        Invalid::MessageTooLarge { .. } => class(Reason::InvalidRequest).counted(Counted::Limit(Limit::MessageBytes)),
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
        | Invalid::Heartbeat { .. } => class(Reason::InvalidRequest),
    }
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
    let Class { code, reason, metadata, localized, retry, counted: _ } = classify(error);
    let mut info = error_details::ErrorInfo::new();
    info.reason = reason.code().to_owned();
    info.domain = DOMAIN.to_owned();
    for (key, value) in metadata.into_iter().chain(more.iter().cloned()) {
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
    if let Some(text) = localized {
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

fn packed<M: MessageFull>(message: &M) -> Any {
    Any::pack(message).unwrap_or_default()
}

#[cfg(test)]
mod tests;
