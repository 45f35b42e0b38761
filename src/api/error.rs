//! The errors of the API, with their messages. [`super::status`] maps each one to a gRPC status.
//!
//! A message says "not appended" only if that is certain.

use std::borrow::Cow;

use super::limits::LimitReached;
use crate::consensus::handle::{ProposeError, ReadIndexError};
use crate::feature_level::FeatureLevel;
use crate::security::acl::Action;
use crate::security::identity::{NoIdentity, Principal};
use crate::storage::entry::ENTRY_BYTES_MAX;
use crate::storage::reader::ReadError;
use crate::types::{BadName, LogId, LogIndex, LogName, Offset};

/// The bounds of a log, for the error of a request that asks for an offset outside of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// The name of the log.
    pub log: LogName,
    /// The id of the log.
    pub log_id: LogId,
    /// The offset of the first record.
    pub first_offset: Offset,
    /// The offset after the last record.
    pub next_offset: Offset,
}

/// The logs on which a request needs a permission.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogScope {
    /// At least one log.
    #[error("any log")]
    Any,
    /// Every log, which only a policy line for `*` grants.
    #[error("every log (`*` in the policy)")]
    Every,
    /// The log that the request names.
    #[error("log {0}")]
    One(LogName),
}

/// Why a request is invalid, independent of the state of the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The bytes are not a message of the method.
    #[error("the request is not a message of this method")]
    Malformed,
    /// The message is larger than any valid one.
    #[error("the request exceeds the {bytes_max} bytes that this method allows")]
    MessageTooLarge {
        /// The limit of the method.
        bytes_max: usize,
    },
    /// The name of the log is malformed.
    #[error("{0}")]
    LogName(BadName),
    /// Neither `record` nor `records`, or an empty batch. Of `log.v1`.
    #[error("no record: set `record`, or at least one of `records`")]
    NoRecordOrRecords,
    /// `records` is empty. Of `seriatim.v1`.
    #[error("no record: set at least one of `records`")]
    NoRecords,
    /// Both `record` and `records`.
    #[error("both `record` and `records` are set: set one of them")]
    RecordAndRecords,
    /// A record is larger than its log allows.
    #[error(
        "record {position} has {bytes} bytes of value, key and headers, which exceeds {limit} ({bytes_max}) of its log"
    )]
    RecordTooLarge {
        /// The position in the request, from 0.
        position: u32,
        /// The size of value, key and headers.
        bytes: usize,
        /// The limit of the log.
        bytes_max: u32,
        /// The name of the limit in the package of the method.
        limit: &'static str,
    },
    /// All records together are larger than the log allows.
    #[error(
        "the records have {bytes} bytes of value, key and headers together, which exceeds {limit} ({bytes_max}) of the log"
    )]
    RequestTooLarge {
        /// The size of all values, keys and headers.
        bytes: usize,
        /// The limit of the log.
        bytes_max: usize,
        /// The name of the limit in the package of the method.
        limit: &'static str,
    },
    /// All records together are larger than any log allows.
    #[error("the records would take more than {bytes_max} bytes in the log, the limit of every log")]
    EntryTooLarge {
        /// The limit of the format.
        bytes_max: usize,
    },
    /// The message contains a field that this version does not know.
    #[error("the request contains the field {field}, which this version does not know")]
    UnknownField {
        /// The path of the message, and the number of the field.
        field: String,
    },
    /// A field of the message has another wire type.
    #[error("`{field}` has the wire type of another field")]
    WireType {
        /// The path of the field.
        field: String,
    },
    /// An enum of the message has a value that this version does not know.
    #[error("`{field}` has the value {value}, which this version does not know")]
    EnumValue {
        /// The path of the field.
        field: String,
        /// The number that was sent.
        value: i32,
    },
    /// The method does not use the field.
    #[error("`{field}` does not apply to this method")]
    NotApplicable {
        /// The name of the field.
        field: &'static str,
    },
    /// The settings of a log contradict each other or exceed their bounds.
    #[error("{what}")]
    Settings {
        /// The name of the field.
        field: &'static str,
        /// What is wrong.
        what: String,
    },
    /// A path in `update_mask` is not a setting.
    #[error("`update_mask` contains {0:?}, which is not a setting of a log")]
    UpdateMask(String),
    /// A page size that is negative.
    #[error("`page_size` must not be negative")]
    PageSize,
    /// A page token that this API did not return.
    #[error("`page_token` is not the `next_page_token` of a response")]
    PageToken,
    /// The feature level is 0 or missing.
    #[error("`level` must be at least 1")]
    FeatureLevel,
    /// A stream names another log than its first message did.
    #[error("the request names another log than the first request of the stream")]
    LogChanged,
    /// `expected_offset` exceeds the largest offset of any log.
    #[error("`expected_offset` {0} exceeds the largest offset ({max})", max = Offset::MAX)]
    ExpectedOffset(Offset),
    /// `start` has a value that this version does not know. Of `log.v1`.
    #[error("`start` has the unknown value {0}")]
    Start(i32),
    /// `heartbeat_ms` is below its limit.
    #[error("`heartbeat_ms` must be 0 or at least {heartbeat_ms_min}")]
    Heartbeat {
        /// The shortest interval, milliseconds.
        heartbeat_ms_min: u32,
    },
    /// `heartbeat_ms` is below its limit, or `max_records` is 0. Of `log.v1`.
    #[error("`heartbeat_ms` must be 0 or at least {heartbeat_ms_min}, and needs `max_records`")]
    HeartbeatOfBatches {
        /// The shortest interval, milliseconds.
        heartbeat_ms_min: u32,
    },
}

impl Invalid {
    /// Returns the path of the field that is wrong, if it is one.
    pub fn field(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Invalid::Malformed | Invalid::MessageTooLarge { .. } => return None,
            Invalid::RecordTooLarge { position, .. } => Cow::Owned(format!("records[{position}]")),
            Invalid::UnknownField { field } | Invalid::WireType { field } | Invalid::EnumValue { field, .. } => {
                Cow::Borrowed(field)
            }
            Invalid::NotApplicable { field } | Invalid::Settings { field, .. } => Cow::Borrowed(field),
            Invalid::LogName(_) | Invalid::LogChanged => "log".into(),
            Invalid::NoRecordOrRecords
            | Invalid::NoRecords
            | Invalid::RecordAndRecords
            | Invalid::RequestTooLarge { .. }
            | Invalid::EntryTooLarge { .. } => "records".into(),
            Invalid::UpdateMask(_) => "update_mask".into(),
            Invalid::PageSize => "page_size".into(),
            Invalid::PageToken => "page_token".into(),
            Invalid::FeatureLevel => "level".into(),
            Invalid::ExpectedOffset(_) => "expected_offset".into(),
            Invalid::Start(_) => "start".into(),
            Invalid::Heartbeat { .. } | Invalid::HeartbeatOfBatches { .. } => "heartbeat_ms".into(),
        })
    }
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The request carries no usable identity.
    #[error("{0}")]
    NoIdentity(#[from] NoIdentity),
    /// The access policy does not grant the permission.
    #[error("{principal} may not {} {log}: the access policy does not grant it", verb(*.action))]
    NotAllowed {
        /// The principal of the request.
        principal: Principal,
        /// The logs on which the permission is needed.
        log: LogScope,
        /// The first of the actions that would be enough.
        action: Action,
    },
    /// The request itself is invalid.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// A field that a later version implements.
    #[error("{0} is not implemented yet")]
    Unimplemented(&'static str),
    /// A member does not support the feature level.
    #[error("not raised to feature level {level}: {why}")]
    LevelUnsupported {
        /// The level that was requested.
        level: FeatureLevel,
        /// Which node does not support it.
        why: String,
    },
    /// A newer version has written the stored records.
    #[error("this node can't read {} of log {log}, which a newer version wrote: {what}", range_of_records(*.offset, *.resume))]
    NewerVersion {
        /// The log that was read.
        log: LogName,
        /// The first of these records.
        offset: Offset,
        /// The first record after them, from which reading can continue, if known.
        resume: Option<Offset>,
        /// What this version does not know.
        what: String,
    },
    /// The offset is after the next one.
    #[error("offset {1} is past the end of log {log}: the next offset is {next}", log = .0.log, next = .0.next_offset)]
    OffsetPastEnd(LogBounds, Offset),
    /// The record at that offset has been trimmed.
    #[error("offset {1} of log {log} has been trimmed: the first offset is {first}", log = .0.log, first = .0.first_offset)]
    OffsetTrimmed(LogBounds, Offset),
    /// The cluster has no log with this name.
    #[error("log {0} does not exist")]
    NoSuchLog(LogName),
    /// A health check names a service that the node does not have.
    #[error("this node does not have that service")]
    NoSuchService,
    /// The log with this name has another id.
    #[error("log {log} has another id: {log_id}")]
    LogIdMismatch {
        /// The name of the log.
        log: LogName,
        /// The id of the log.
        log_id: LogId,
    },
    /// `expected_offset` is not the next one.
    #[error("not appended to log {log}: offset {expected} was expected, the next offset is {next_offset}")]
    ExpectedOffset {
        /// The name of the log.
        log: LogName,
        /// The offset that the request expected.
        expected: Offset,
        /// The next offset of the log.
        next_offset: Offset,
    },
    /// A queue of this node or of the leader is full.
    #[error("nothing was done: a queue is full, try again")]
    QueueFull,
    /// The leader's disk is full: not appended.
    #[error("not appended: the disk of the leader is full, until logs are trimmed or space is freed")]
    DiskFull,
    /// A limit of the principal, or of the node, is reached.
    #[error("rejected: {0}")]
    Limit(#[from] LimitReached),
    /// Not appended, and a retry may succeed.
    #[error("not appended: the leader changed, try again")]
    LeaderChanged,
    /// No leader is known, or none could confirm its leadership.
    #[error("nothing was done: no leader is known to have a majority")]
    NoLeader,
    /// The node does not serve requests yet.
    #[error("nothing was done: this node does not serve requests yet: {waiting_for}")]
    NotReady {
        /// What the node waits for.
        waiting_for: String,
    },
    /// The node has no replica of the log yet, or its replica lags. The text says which, and why.
    #[error("nothing was done: {0}")]
    Joining(&'static str),
    /// Another cluster of the same name answers. Not appended, because it is unknown which of the two is the right one.
    #[error("not appended: {0}")]
    AnotherCluster(String),
    /// The node is stopping.
    #[error("this node is stopping: use another one")]
    Stopping,
    /// The replica on this node, or on the leader, is damaged and takes no part: nothing was appended.
    #[error("nothing was done: the log is damaged on the node that had to answer, and waits for repair")]
    ReplicaDamaged,
    /// This node lacks an entry that it needs, and the leader can't read it from its disk.
    #[error(
        "not read: this node lacks entry {entry}, and the leader {leader} can't read it from its disk: read from another node"
    )]
    LeaderUnreadable {
        /// The leader's name; empty if unknown.
        leader: String,
        /// The index of the entry.
        entry: LogIndex,
    },
    /// Whether the request was appended is unknown.
    #[error("it may have been appended or not: the same request again {}", if *.retry_is_safe { "is appended once" } else { "may append it twice" })]
    OutcomeUnknown {
        /// True if the request has a producer id, so that a retry is appended once.
        retry_is_safe: bool,
    },
    /// The change is committed, but this node could not apply it or read its result in time.
    #[error("it was done, but this node did not apply it in time: the same request again returns the result")]
    CommittedNotApplied,
    /// The deadline passed before anything was done.
    #[error("the deadline passed before anything was done, and nothing will be done")]
    DeadlinePassed,
    /// The stored record is damaged on this node.
    #[error("{} of log {log} are damaged on this node, other nodes may have them: {what}", range_of_records(*.offset, *.resume))]
    Damaged {
        /// The name of the log.
        log: LogName,
        /// The first damaged record.
        offset: Offset,
        /// The first record after the damage, from which reading can continue, if known.
        resume: Option<Offset>,
        /// Where the damage is, for an operator.
        what: String,
    },
    /// The node has no file descriptor or no memory left to read with.
    #[error("not read: this node is short of file descriptors or memory: {what}")]
    Shortage {
        /// The system's error.
        what: String,
    },
    /// A bug in this program.
    #[error("{0}")]
    Internal(&'static str),
}

/// The values of a failed proposal, for its error.
#[derive(Clone, Debug)]
pub struct FailedProposal<'a> {
    /// The bounds of the log on this node.
    pub bounds: &'a LogBounds,
    /// `expected_offset`, or the first offset that a trim keeps.
    pub offset: Offset,
    /// The same request again has no second effect.
    pub retry_is_safe: bool,
}

const NO_REPLICA: ApiError = ApiError::Joining("the node that had to answer has no replica of the log yet");

impl From<ReadIndexError> for ApiError {
    fn from(error: ReadIndexError) -> ApiError {
        match error {
            ReadIndexError::NotLeader { .. } | ReadIndexError::Unconfirmed => ApiError::NoLeader,
            ReadIndexError::QueueFull => ApiError::QueueFull,
            ReadIndexError::NoSuchGroup => NO_REPLICA,
            ReadIndexError::Damaged => ApiError::ReplicaDamaged,
            ReadIndexError::Stopping => ApiError::Stopping,
        }
    }
}

impl ApiError {
    /// Returns the error of a failed proposal to a log.
    pub fn from_propose(error: ProposeError, proposed: &FailedProposal<'_>) -> ApiError {
        match error {
            ProposeError::OutcomeUnknown => ApiError::OutcomeUnknown { retry_is_safe: proposed.retry_is_safe },
            ProposeError::ExpectedOffset { next_offset } => {
                let log = proposed.bounds.log.clone();
                ApiError::ExpectedOffset { log, expected: proposed.offset, next_offset }
            }
            ProposeError::PastEnd { next_offset } => {
                ApiError::OffsetPastEnd(LogBounds { next_offset, ..proposed.bounds.clone() }, proposed.offset)
            }
            other => ApiError::from_command(other),
        }
    }

    /// Returns the error of a failed command of the catalog. Sending a command twice has no additional effect.
    pub fn from_command(error: ProposeError) -> ApiError {
        match error {
            ProposeError::NotLeader { leader: None } => ApiError::NoLeader,
            ProposeError::NotLeader { leader: Some(_) } | ProposeError::Dropped => ApiError::LeaderChanged,
            ProposeError::QueueFull => ApiError::QueueFull,
            ProposeError::DiskFull => ApiError::DiskFull,
            ProposeError::TooLarge => Invalid::EntryTooLarge { bytes_max: ENTRY_BYTES_MAX }.into(),
            ProposeError::OutcomeUnknown => ApiError::OutcomeUnknown { retry_is_safe: true },
            ProposeError::DeadlinePassed => ApiError::DeadlinePassed,
            ProposeError::ExpectedOffset { .. } | ProposeError::PastEnd { .. } => {
                ApiError::Internal("a command was refused because of an offset, and commands name none")
            }
            ProposeError::LevelUnsupported { .. } | ProposeError::MemberSilent { .. } => {
                ApiError::Internal("a proposal that does not raise the feature level was refused because of it")
            }
            ProposeError::NoSuchGroup => NO_REPLICA,
            ProposeError::Damaged => ApiError::ReplicaDamaged,
            ProposeError::Stopping => ApiError::Stopping,
        }
    }

    /// Returns the error of a failed read at `offset`. A blocking read never returns `ReadError::NotCached`.
    pub fn from_read(error: ReadError, bounds: LogBounds, offset: Offset) -> ApiError {
        match error {
            ReadError::NotCached => ApiError::Internal("a blocking read returned `NotCached`"),
            ReadError::Trimmed { first_offset } => ApiError::OffsetTrimmed(
                LogBounds { first_offset: bounds.first_offset.max(first_offset), ..bounds },
                offset,
            ),
            ReadError::Shortage(what) => ApiError::Shortage { what },
            ReadError::Damaged(range) => ApiError::Damaged {
                log: bounds.log,
                offset: range.first_offset.max(offset),
                resume: range.next_offset,
                what: range.to_string(),
            },
            ReadError::NewerFrame(newer) => ApiError::NewerVersion {
                log: bounds.log,
                offset: newer.first_offset.max(offset),
                resume: newer.next_offset,
                what: newer.to_string(),
            },
            ReadError::Io(what) => ApiError::Damaged { log: bounds.log, offset, resume: None, what },
        }
    }
}

/// Returns the verb for "may not ... log default".
fn verb(action: Action) -> &'static str {
    match action {
        Action::Produce => "produce to",
        Action::Consume => "consume",
        Action::Admin => "administer",
        Action::Replicate => "replicate",
    }
}

fn range_of_records(offset: Offset, resume: Option<Offset>) -> String {
    match resume {
        Some(resume) if resume.0 > offset.0 + 1 => format!("records {offset} to {}", resume.0 - 1),
        Some(_) => format!("record {offset}"),
        None => format!("records from {offset} on"),
    }
}
