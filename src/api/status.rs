//! The classification of all errors: the gRPC status and the `ErrorInfo` of an error, whether a retry helps, and which
//! counter counts it.
//!
//! A status carries `google.rpc.Status` in its details: `ErrorInfo` (domain "seriatim", a reason, metadata),
//! `RetryInfo` where waiting helps, `BadRequest` for a wrong field, and `LocalizedMessage` for offsets out of range.

use std::fmt::Display;
use std::time::Duration;

use grpcio::{RpcStatus, RpcStatusCode as Code};
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::duration::Duration as PbDuration;
use protobuf::{Message, MessageField, MessageFull};

use super::error::{ApiError, Invalid, LogBounds, NeededBy, RelayedFailure};
use super::limits::LimitReached;
use super::package::Package;
use crate::calendar::rfc3339;
use crate::log_state::StateRefusal;
use crate::metrics::Limit;
use crate::pb::{error_details, status};
use crate::reason::{ErrorReason, Retry, key};
use crate::types::{LogName, Offset};

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "seriatim";

/// The maximum size of one text in a status. A status has at most four long ones, and base64 adds a third.
const TEXT_BYTES_MAX: usize = 600;

/// The time after which the same node may answer, by the kind of retry.
fn retry_delay(retry: Retry) -> Option<Duration> {
    match retry {
        Retry::No => None,
        Retry::Same => Some(Duration::from_millis(200)),
        // For a client that knows one node only.
        Retry::Elsewhere => Some(Duration::from_secs(1)),
        Retry::Later => Some(Duration::from_secs(5)),
    }
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
    /// The reason in its `ErrorInfo`, which determines the status, the outcome and the retry.
    pub reason: ErrorReason,
    /// The metadata of its `ErrorInfo`.
    pub metadata: Vec<Metadata>,
    /// The text of the `LocalizedMessage`, which clients of the first server of this API show to users.
    pub localized: Option<String>,
    /// The fields of the request that are wrong: path and description.
    pub bad_field: Option<(String, String)>,
    /// A counter in addition to the counter of the reason.
    pub counted: Option<Counted>,
}

/// A key and a value in the metadata of an `ErrorInfo`.
pub type Metadata = (&'static str, String);

impl Class {
    fn new(reason: ErrorReason) -> Class {
        Class { reason, metadata: Vec::new(), localized: None, bad_field: None, counted: None }
    }

    /// Returns whether the same request fails whenever it is sent, because it is wrong or not allowed.
    pub fn always_fails(&self) -> bool {
        match self.reason.status() {
            Code::UNAUTHENTICATED
            | Code::PERMISSION_DENIED
            | Code::INVALID_ARGUMENT
            | Code::NOT_FOUND
            | Code::ALREADY_EXISTS => true,
            Code::UNIMPLEMENTED => self.reason.retry() == Retry::No,
            _ => self.reason == ErrorReason::LogIdMismatch,
        }
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
        Class { localized: Some(text), ..Class::new(reason) }
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
    let class = Class::new;
    let access = |reason| class(reason).counted(Counted::Access);
    let full = |reason, limit| class(reason).counted(Counted::Limit(limit));
    match error {
        ApiError::NoIdentity(_) => access(Reason::NoIdentity),
        ApiError::NotAllowed { .. } => access(Reason::NotAllowed),
        ApiError::Invalid(invalid) => classify_invalid(invalid),
        ApiError::Unimplemented(_) => class(Reason::NotImplemented),
        ApiError::NewerVersion { log, offset, resume, what: _ } => {
            class(Reason::RecordUnsupported).of_records(log, *offset, *resume)
        }
        ApiError::LevelUnsupported { .. } => class(Reason::FeatureLevelUnsupported),
        ApiError::NoSuchNode { node } => class(Reason::NoSuchNode).with("node", node),
        ApiError::NodeLeaves { node } => class(Reason::NodeLeaving).with("node_id", node),
        ApiError::NodeNeeded { by: NeededBy::Log(log) } => class(Reason::NodeNeeded).with("log", log),
        ApiError::NodeNeeded { by: NeededBy::Cluster | NeededBy::Catalog } => class(Reason::NodeNeeded),
        ApiError::NoSuccessor { log } => {
            log.iter().fold(class(Reason::NoSuccessor), |class, log| class.with("log", log))
        }
        ApiError::NoSuchLog(log) => class(Reason::NoSuchLog).with("log", log),
        ApiError::LogDeleted { log, log_id, purge_us } => {
            let purge_time = rfc3339(*purge_us);
            class(Reason::LogDeleted).with("log", log).with("log_id", log_id).with("purge_time", purge_time)
        }
        ApiError::LogRestoring { log, log_id } => class(Reason::LogRestoring).with("log", log).with("log_id", log_id),
        ApiError::NoHashChain(log) => class(Reason::NoHashChain).with("log", log),
        ApiError::ReceiptsUnavailable => class(Reason::ReceiptsUnavailable),
        ApiError::LogExists { log, log_id } => class(Reason::LogExists).with("log", log).with("log_id", log_id),
        ApiError::RevisionMismatch { log, revision } => {
            let class = class(Reason::RevisionMismatch).with("revision", revision);
            log.as_ref().into_iter().fold(class, |class, log| class.with("log", log))
        }
        ApiError::TooManyLogs { max } => class(Reason::TooManyLogs).with("max", max),
        ApiError::LevelTooLow(level) => class(Reason::FeatureLevelTooLow).with("feature_level", level),
        ApiError::NoSuchService => class(Reason::NoSuchService),
        ApiError::LogIdMismatch { log, log_id } => class(Reason::LogIdMismatch).with("log", log).with("log_id", log_id),
        ApiError::ExpectedOffset { log, expected: _, next_offset } => {
            class(Reason::ExpectedOffsetMismatch).with("log", log).with("next_offset", next_offset)
        }
        ApiError::State { log, refusal } => classify_refusal(*refusal).with("log", log),
        ApiError::NoSuchProducer { log } => class(Reason::NoSuchProducer).with("log", log),
        ApiError::OffsetPastEnd(of, offset) => Class::out_of_range(Reason::OffsetPastEnd, of, *offset),
        ApiError::OffsetTrimmed(of, offset) => Class::out_of_range(Reason::OffsetTrimmed, of, *offset),
        ApiError::QueueFull => full(Reason::QueueFull, Limit::Queue),
        ApiError::Limit(LimitReached { limit, max }) => {
            full(Reason::LimitReached, *limit).with_limit(limit.code(), max)
        }
        // A full disk has a counter of its own.
        ApiError::DiskFull { deleted_bytes: 0 } => class(Reason::DiskFull),
        ApiError::DiskFull { deleted_bytes } => class(Reason::DiskFull).with("deleted_bytes", deleted_bytes),
        ApiError::Shortage { .. } => class(Reason::Shortage),
        ApiError::LeaderChanged => class(Reason::LeaderChanged),
        ApiError::NoLeader => class(Reason::NoLeader),
        ApiError::NotReady { waiting_for } => class(Reason::Joining).with("waiting_for", waiting_for),
        ApiError::Joining(_) => class(Reason::Joining),
        ApiError::AnotherCluster(_) => class(Reason::AnotherCluster),
        ApiError::ReplicaLost => class(Reason::ReplicaUnreachable),
        // A reason that only a newer version knows is counted as a failure of the other node.
        ApiError::Relayed(failure) => class(failure.reason.unwrap_or(Reason::ReplicaUnreachable)),
        ApiError::Stopping => class(Reason::Stopping),
        ApiError::ReplicaDamaged => class(Reason::ReplicaDamaged),
        ApiError::LeaderUnreadable { .. } => class(Reason::LeaderDamaged),
        ApiError::OutcomeUnknown { retry_is_safe: true } => class(Reason::AnswerLost),
        ApiError::OutcomeUnknown { retry_is_safe: false } => class(Reason::OutcomeUnknown),
        ApiError::DeadlinePassed => class(Reason::DeadlinePassed),
        ApiError::Damaged { log, offset, resume, what: _ } => {
            class(Reason::RecordDamaged).of_records(log, *offset, *resume)
        }
        ApiError::CommittedNotApplied => class(Reason::CommittedNotApplied),
        ApiError::Internal(_) => class(Reason::InternalError),
    }
}

fn classify_refusal(refusal: StateRefusal) -> Class {
    use ErrorReason as Reason;
    let class = Class::new;
    match refusal {
        StateRefusal::ProducerUnknown(_) => class(Reason::ProducerUnknown),
        StateRefusal::ProducerFenced(epoch) => class(Reason::ProducerFenced).with("epoch", epoch),
        StateRefusal::SequenceGap(last) => class(Reason::SequenceGap).with("last_sequence", last),
        StateRefusal::SequenceTooOld(last) => class(Reason::SequenceTooOld).with("last_sequence", last),
        StateRefusal::SequenceReused(_) => class(Reason::SequenceReused),
        StateRefusal::ProducerEpoch(epoch) | StateRefusal::CursorEpoch(epoch) => {
            class(Reason::EpochMismatch).with("epoch", epoch)
        }
        StateRefusal::ProducersFull(max) => class(Reason::TooManyProducers).with("max", max),
        StateRefusal::NoSuchCursor(_) => class(Reason::NoSuchCursor),
        StateRefusal::CursorFenced(epoch) => class(Reason::CursorFenced).with("epoch", epoch),
        StateRefusal::CursorRevision(revision) => class(Reason::RevisionMismatch).with("revision", revision),
        StateRefusal::CursorBehind(next_offset) => class(Reason::CursorBehind).with("next_offset", next_offset),
        StateRefusal::CursorsFull(max) => class(Reason::TooManyCursors).with("max", max),
        // The caller chooses another id, or treats it as done.
        StateRefusal::ProducerIdTaken(_) | StateRefusal::Unchanged(_) => class(Reason::InternalError),
    }
}

fn classify_invalid(invalid: &Invalid) -> Class {
    use ErrorReason as Reason;
    let class = |reason| {
        let bad_field = invalid.field().map(|field| (field.into_owned(), invalid.to_string()));
        Class { bad_field, ..Class::new(reason) }
    };
    // The metadata contains the value twice: some clients read it by the name of the limit, and others read any limit.
    let too_large = |reason, counted, limit: &'static str, max: &dyn Display| {
        class(reason).counted(Counted::Limit(counted)).with(limit, max).with_limit(limit, max)
    };
    match invalid {
        Invalid::RecordTooLarge { position, bytes: _, bytes_max, limit } => {
            too_large(Reason::RecordTooLarge, Limit::RecordBytes, limit, bytes_max).with("position", position)
        }
        Invalid::RequestTooLarge { bytes: _, bytes_max, limit } => {
            too_large(Reason::RequestTooLarge, Limit::RequestBytes, limit, bytes_max)
        }
        Invalid::EntryTooLarge { bytes_max } => {
            too_large(Reason::RequestTooLarge, Limit::RequestBytes, "entry_bytes_max", bytes_max)
        }
        Invalid::MessageTooLarge { .. } => class(Reason::InvalidRequest).counted(Counted::Limit(Limit::MessageBytes)),
        Invalid::UnknownField { field } | Invalid::EnumValue { field, value: _ } => {
            class(Reason::UnknownField).with("field", field)
        }
        Invalid::Malformed
        | Invalid::LogName(_)
        | Invalid::Name { .. }
        | Invalid::PartOfProducer
        | Invalid::NotRestoring
        | Invalid::PastBackup(_)
        | Invalid::RestoredWhere
        | Invalid::Restore
        | Invalid::NeverRestored
        | Invalid::NoInstance
        | Invalid::Owner
        | Invalid::NoProducer
        | Invalid::NoCursor
        | Invalid::CursorStart
        | Invalid::Metadata
        | Invalid::NextOffset(_)
        | Invalid::NoRecordOrRecords
        | Invalid::NoRecords
        | Invalid::RecordAndRecords
        | Invalid::WireType { .. }
        | Invalid::NotApplicable { .. }
        | Invalid::Settings { .. }
        | Invalid::UpdateMask(_)
        | Invalid::LogId
        | Invalid::LogIdUsed
        | Invalid::NoLogId
        | Invalid::PageSize
        | Invalid::PageToken
        | Invalid::FeatureLevel
        | Invalid::LogChanged
        | Invalid::ExpectedOffset(_)
        | Invalid::Start(_)
        | Invalid::Heartbeat { .. }
        | Invalid::HeartbeatOfBatches { .. } => class(Reason::InvalidRequest),
    }
}

/// What a status contains besides the error itself.
#[derive(Clone, Debug)]
pub struct StatusContext {
    /// The package of the method. Clients of `log.v1` get the reasons of its time.
    pub package: Package,
    /// The client address of the leader of the request's log, if it is known.
    pub leader: Option<String>,
    /// Which request of a `ProduceStream` failed.
    pub at: Option<FailedAt>,
}

/// The status of a failed request.
pub fn status_of(error: &ApiError, context: &StatusContext) -> RpcStatus {
    // Deleted logs are not in the API of `log.v1`.
    if let (ApiError::LogDeleted { log, .. }, Package::LogV1) = (error, context.package) {
        return status_of(&ApiError::NoSuchLog(log.clone()), context);
    }
    if let ApiError::Relayed(failure) = error {
        return relayed_status(failure);
    }
    let Class { reason, metadata, localized, bad_field, counted: _ } = classify(error);
    let mut info = error_details::ErrorInfo::new();
    info.reason = match context.package {
        Package::LogV1 => reason.in_log_v1(),
        Package::SeriatimV1 => reason.code(),
    }
    .to_owned();
    info.domain = DOMAIN.to_owned();
    let retry = reason.retry();
    let mut put = |key: &str, value: String| info.metadata.insert(key.to_owned(), limited(value));
    put(key::OUTCOME, reason.outcome().code().to_owned());
    put(key::RETRY, retry.code().to_owned());
    for (key, value) in metadata {
        put(key, value);
    }
    if let Some(at) = context.at {
        put("failed_request", at.failed_request.to_string());
        at.unknown_through.map(|last| put("unknown_through", last.to_string()));
    }
    if let Some(leader) = context.leader.clone().filter(|_| retry != Retry::No) {
        put(key::LEADER, leader);
    }
    if reason == ErrorReason::InternalError {
        let incident = incident();
        log::error!("a bug ended a request: error={error:?} incident={incident}");
        put("incident", incident);
    }
    let mut details = vec![packed(&info)];
    if let Some(after) = retry_delay(retry) {
        let mut delay = PbDuration::new();
        delay.seconds = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
        delay.nanos = i32::try_from(after.subsec_nanos()).unwrap_or(i32::MAX);
        let mut info = error_details::RetryInfo::new();
        info.retry_delay = MessageField::some(delay);
        details.push(packed(&info));
    }
    if let Some((field, description)) = bad_field {
        let mut violation = error_details::bad_request::FieldViolation::new();
        (violation.field, violation.description) = (limited(field), limited(description));
        let mut info = error_details::BadRequest::new();
        info.field_violations.push(violation);
        details.push(packed(&info));
    }
    if let Some(text) = localized {
        let mut info = error_details::LocalizedMessage::new();
        info.locale = "en-US".to_owned();
        info.message = text;
        details.push(packed(&info));
    }
    let code = reason.status();
    let message = limited(error.to_string());
    let mut whole = status::Status::new();
    whole.code = code.into();
    whole.message.clone_from(&message);
    whole.details = details;
    RpcStatus::with_details(code, message, whole.write_to_bytes().unwrap_or_default())
}

/// The status of another node, unchanged.
fn relayed_status(failure: &RelayedFailure) -> RpcStatus {
    match status::Status::parse_from_bytes(&failure.status) {
        Ok(whole) => RpcStatus::with_details(whole.code, whole.message, failure.status.clone()),
        Err(_) => RpcStatus::with_message(Code::INTERNAL, "another node has sent a malformed status".to_owned()),
    }
}

/// Shortens a text that may contain a part of the request. gRPC replaces a status that exceeds the limit of trailers (8
/// KiB by default) by one of its own, which says neither what is wrong nor what became of the request.
fn limited(text: String) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    format!("{}...", &text[..end])
}

/// Returns a number that is in the status and in the log of the node.
fn incident() -> String {
    let mut bytes = [0; 8];
    // Without random bytes, the time of the log line has to be enough.
    let _ = openssl::rand::rand_bytes(&mut bytes);
    format!("{:016x}", u64::from_le_bytes(bytes))
}

fn packed<M: MessageFull>(message: &M) -> Any {
    Any::pack(message).unwrap_or_default()
}

#[cfg(test)]
mod tests;
