//! Which failure is which status: the one place that says so.
//!
//! A status carries `google.rpc.Status` in its details, with `ErrorInfo` (domain "seriatim", a reason, metadata), and with
//! `RetryInfo` where waiting helps. "Not appended" is said only where it is certain.

use std::time::Duration;

use grpcio::{RpcStatus, RpcStatusCode};
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::duration::Duration as PbDuration;
use protobuf::{Message, MessageField, MessageFull};

use self::facts::{Facts, verb};
use super::authorize::Which;
use super::limits::LimitReached;
use crate::consensus::handle::{ProposeError, ReadIndexError};
use crate::pb::{error_details, status};
use crate::security::acl::Action;
use crate::security::identity::{NoIdentity, Principal};
use crate::storage::entry::ENTRY_BYTES_MAX;
use crate::storage::reader::ReadError;
use crate::types::{BadName, LogId, LogIndex, LogName, Offset};

mod facts;

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "seriatim";

/// How long a client should wait where something was full.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Which part of a log there is, for those who asked for another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The log.
    pub log: LogName,
    /// Its id.
    pub log_id: LogId,
    /// The first record that is there.
    pub first_offset: Offset,
    /// Behind the last.
    pub next_offset: Offset,
}

/// What is wrong with a request, whoever sends it and whenever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// The bytes are no message of the method.
    Malformed,
    /// The message is larger than any valid one.
    MessageTooLarge {
        /// Bytes it may have.
        bytes_max: usize,
    },
    /// The log's name.
    LogName(BadName),
    /// Neither `record` nor `records`, or an empty batch.
    NoRecord,
    /// Both `record` and `records`.
    RecordAndRecords,
    /// A record is larger than its log takes.
    RecordTooLarge {
        /// Which, from 0.
        position: u32,
        /// Its bytes.
        bytes: usize,
        /// Bytes it may have.
        bytes_max: u32,
    },
    /// All records together are larger than the log takes.
    RequestTooLarge {
        /// Their bytes.
        bytes: usize,
        /// Bytes they may have.
        bytes_max: usize,
    },
    /// All records together are larger than any log takes.
    EntryTooLarge {
        /// Bytes they may have.
        bytes_max: usize,
    },
    /// A log can't be kept like that.
    Settings(String),
    /// A stream names another log than its first message did.
    LogChanged,
    /// `expected_offset` exceeds the largest offset of any log.
    ExpectedOffset(Offset),
    /// `start` has a value that this version does not know.
    Start(i32),
    /// `heartbeat_ms` below its limit, or with `max_records` 0.
    Heartbeat {
        /// Milliseconds it must be at least.
        heartbeat_ms_min: u32,
    },
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// The caller has no usable identity.
    NoIdentity(NoIdentity),
    /// The caller may not do that.
    NotAllowed {
        /// Who.
        principal: Principal,
        /// With which log.
        log: Which,
        /// What.
        action: Action,
    },
    /// The request.
    Invalid(Invalid),
    /// A field that comes with a later version.
    Unimplemented(&'static str),
    /// Nothing is at that offset yet, and it is not the next one.
    OffsetPastEnd(Bounds, Offset),
    /// What was at that offset is trimmed away.
    OffsetTrimmed(Bounds, Offset),
    /// The cluster has no log of that name.
    NoSuchLog(LogName),
    /// A service that is not here, in a health check.
    NoSuchService,
    /// The log of that name is another one.
    LogIdMismatch {
        /// Its name.
        log: LogName,
        /// The id that it has.
        log_id: LogId,
    },
    /// `expected_offset` is not the next one.
    ExpectedOffset {
        /// The log.
        log: LogName,
        /// What was expected.
        expected: Offset,
        /// What is.
        next_offset: Offset,
    },
    /// A queue of this node or of the leader is full.
    QueueFull,
    /// The leader's disk is full: not appended.
    DiskFull,
    /// The principal is at its limit.
    Limit(LimitReached),
    /// Not appended, and a retry may help.
    NotAppended,
    /// No leader is known, or none could confirm itself.
    NoLeader,
    /// The node takes no calls yet.
    NotReady {
        /// What it waits for.
        waiting_for: String,
    },
    /// The node does not carry the log yet, or lags behind what was asked for: which of the two, and why.
    Joining(&'static str),
    /// Another cluster of the same name answers: not appended, as nobody knows which of them is the right one.
    AnotherCluster(String),
    /// The node is stopping.
    Stopping,
    /// The group's replica on this node, or on the leader, is damaged and takes no part; nothing was appended.
    ReplicaDamaged,
    /// This node lacks an entry that was asked for, and the leader can't read it from its disk.
    LeaderUnreadable {
        /// The leader's name; empty: unknown.
        leader: String,
        /// The entry.
        entry: LogIndex,
    },
    /// It may have been appended, or not.
    OutcomeUnknown {
        /// A retry is safe: the request has a producer id.
        retry_is_safe: bool,
    },
    /// The caller's time was over before anything was done.
    DeadlinePassed,
    /// The stored record is damaged here.
    Damaged {
        /// The log.
        log: LogName,
        /// The first damaged record.
        offset: Offset,
        /// The first record after the damage, at which reading can continue, if known.
        resume: Option<Offset>,
        /// What is known.
        what: String,
    },
    /// The node had no descriptor or no memory left to read with.
    Shortage {
        /// What it could not do.
        what: String,
    },
    /// A bug, logged where it was met.
    Internal(&'static str),
}

/// What a proposal asked for, for its errors.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The log as this node sees it.
    pub bounds: &'a Bounds,
    /// `expected_offset`, or the first offset that a trim keeps.
    pub offset: Offset,
    /// The request's; 0: none.
    pub producer_id: u64,
}

/// Where a `ProduceStream` broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The first request that was not acknowledged, from 0.
    pub failed_request: u64,
    /// The last one that may have been appended; none: nothing from the failed one on was.
    pub unknown_through: Option<u64>,
}

const NO_REPLICA: ApiError = ApiError::Joining("the node that had to answer does not carry the log yet");

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> ApiError {
        ApiError::Invalid(invalid)
    }
}

impl From<LimitReached> for ApiError {
    fn from(limit: LimitReached) -> ApiError {
        ApiError::Limit(limit)
    }
}

impl From<NoIdentity> for ApiError {
    fn from(error: NoIdentity) -> ApiError {
        ApiError::NoIdentity(error)
    }
}

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
    /// Of a proposal.
    pub fn from_propose(error: ProposeError, asked: &Asked<'_>) -> ApiError {
        match error {
            ProposeError::NotLeader { leader: None } => ApiError::NoLeader,
            ProposeError::NotLeader { leader: Some(_) } | ProposeError::Dropped => ApiError::NotAppended,
            ProposeError::QueueFull => ApiError::QueueFull,
            ProposeError::DiskFull => ApiError::DiskFull,
            ProposeError::TooLarge => Invalid::EntryTooLarge { bytes_max: ENTRY_BYTES_MAX }.into(),
            ProposeError::OutcomeUnknown => ApiError::OutcomeUnknown { retry_is_safe: asked.producer_id != 0 },
            ProposeError::DeadlinePassed => ApiError::DeadlinePassed,
            ProposeError::ExpectedOffset { next_offset } => {
                ApiError::ExpectedOffset { log: asked.bounds.log.clone(), expected: asked.offset, next_offset }
            }
            ProposeError::PastEnd { next_offset } => {
                ApiError::OffsetPastEnd(Bounds { next_offset, ..asked.bounds.clone() }, asked.offset)
            }
            ProposeError::NoSuchGroup => NO_REPLICA,
            ProposeError::Damaged => ApiError::ReplicaDamaged,
            ProposeError::Stopping => ApiError::Stopping,
        }
    }

    /// Of a read at `offset`. [`ReadError::NotCached`] never comes from a reader that may block.
    pub fn from_read(error: ReadError, bounds: Bounds, offset: Offset) -> ApiError {
        match error {
            ReadError::NotCached => ApiError::Internal("a blocking read says: not cached"),
            ReadError::Trimmed { first_offset } => ApiError::OffsetTrimmed(
                Bounds { first_offset: bounds.first_offset.max(first_offset), ..bounds },
                offset,
            ),
            ReadError::Shortage(what) => ApiError::Shortage { what },
            ReadError::Damaged(range) => ApiError::Damaged {
                log: bounds.log,
                offset: range.first_offset.max(offset),
                resume: range.next_offset,
                what: range.to_string(),
            },
            ReadError::NewerFrame(newer) => {
                ApiError::Damaged { log: bounds.log, offset, resume: None, what: newer.to_string() }
            }
            ReadError::Io(what) => ApiError::Damaged { log: bounds.log, offset, resume: None, what },
        }
    }

    /// The status that the caller gets.
    pub fn status(&self) -> RpcStatus {
        self.status_with(&[])
    }

    /// The status that ends a `ProduceStream`.
    pub fn stream_status(&self, broken: Broken) -> RpcStatus {
        let mut more = vec![("failed_request", broken.failed_request.to_string())];
        more.extend(broken.unknown_through.map(|last| ("unknown_through", last.to_string())));
        self.status_with(&more)
    }

    fn status_with(&self, more: &[(&'static str, String)]) -> RpcStatus {
        let Facts { code, reason, message, metadata, retry, localized } = self.facts();
        let mut details = Vec::new();
        let mut info = error_details::ErrorInfo::new();
        info.reason = reason.to_owned();
        info.domain = DOMAIN.to_owned();
        for (key, value) in metadata.into_iter().chain(more.iter().cloned()) {
            info.metadata.insert(key.to_owned(), value);
        }
        details.push(packed(&info));
        if retry {
            let mut info = error_details::RetryInfo::new();
            let mut delay = PbDuration::new();
            delay.nanos = i32::try_from(RETRY_DELAY.as_nanos()).unwrap_or(i32::MAX);
            info.retry_delay = MessageField::some(delay);
            details.push(packed(&info));
        }
        if let Some(text) = localized {
            let mut info = error_details::LocalizedMessage::new();
            info.locale = "en-US".to_owned();
            info.message = text;
            details.push(packed(&info));
        }
        let mut whole = status::Status::new();
        whole.code = code.into();
        whole.message.clone_from(&message);
        whole.details = details;
        RpcStatus::with_details(code, message, whole.write_to_bytes().unwrap_or_default())
    }
}

impl ApiError {
    fn facts(&self) -> Facts {
        use RpcStatusCode as Code;
        match self {
            ApiError::NoIdentity(error) => Facts::new(Code::UNAUTHENTICATED, "NO_IDENTITY", error.to_string()),
            ApiError::NotAllowed { principal, log, action } => {
                let message =
                    format!("{principal} may not {} {log}: the access policy gives it no such right", verb(*action));
                Facts::new(Code::PERMISSION_DENIED, "NOT_ALLOWED", message)
            }
            ApiError::Invalid(invalid) => invalid.facts(),
            ApiError::Unimplemented(what) => {
                Facts::new(Code::UNIMPLEMENTED, "UNIMPLEMENTED", format!("{what} is not built yet"))
            }
            ApiError::OffsetPastEnd(bounds, offset) => {
                let message =
                    format!("offset {offset} is past the end of {}: the next is {}", bounds.log, bounds.next_offset);
                Facts::new(Code::OUT_OF_RANGE, "OFFSET_PAST_END", message).bounds(bounds, *offset)
            }
            ApiError::OffsetTrimmed(bounds, offset) => {
                let message =
                    format!("offset {offset} of {} is trimmed away: the first is {}", bounds.log, bounds.first_offset);
                Facts::new(Code::OUT_OF_RANGE, "OFFSET_TRIMMED", message).bounds(bounds, *offset)
            }
            ApiError::NoSuchLog(log) => {
                Facts::new(Code::NOT_FOUND, "NO_SUCH_LOG", format!("there is no log {log}")).with("log", log)
            }
            ApiError::NoSuchService => {
                Facts::new(Code::NOT_FOUND, "NO_SUCH_SERVICE", "no service of that name is here")
            }
            ApiError::LogIdMismatch { log, log_id } => {
                let message = format!("the log {log} is another one: its id is {log_id}");
                Facts::new(Code::FAILED_PRECONDITION, "LOG_ID_MISMATCH", message)
                    .with("log", log)
                    .with("log_id", log_id)
            }
            ApiError::ExpectedOffset { log, expected, next_offset } => {
                let message =
                    format!("not appended to {log}: {expected} was expected as the next offset, it is {next_offset}");
                Facts::new(Code::FAILED_PRECONDITION, "EXPECTED_OFFSET_MISMATCH", message)
                    .with("log", log)
                    .with("next_offset", next_offset)
            }
            ApiError::QueueFull => {
                Facts::new(Code::RESOURCE_EXHAUSTED, "QUEUE_FULL", "not done: a queue is full, try again").retry()
            }
            ApiError::DiskFull => {
                let message = "not appended: the leader's disk is full, until it is trimmed or somebody makes room";
                Facts::new(Code::RESOURCE_EXHAUSTED, "DISK_FULL", message).retry()
            }
            ApiError::Shortage { what } => {
                let message = format!("not read: this node is short of descriptors or memory for now: {what}");
                Facts::new(Code::RESOURCE_EXHAUSTED, "SHORTAGE", message).retry()
            }
            ApiError::Limit(LimitReached { limit, max }) => {
                let message = format!("refused: {} is {max} on this node, and would be exceeded", limit.name());
                Facts::new(Code::RESOURCE_EXHAUSTED, "LIMIT_REACHED", message).limit(limit.name(), max).retry()
            }
            ApiError::NotAppended => {
                Facts::new(Code::UNAVAILABLE, "NOT_APPENDED", "not appended: the leader changed, try again")
            }
            ApiError::NoLeader => {
                Facts::new(Code::UNAVAILABLE, "NO_LEADER", "nothing was done: no leader is known to have a majority")
            }
            ApiError::NotReady { waiting_for } => {
                let message = format!("nothing was done: this node takes no calls yet: {waiting_for}");
                Facts::new(Code::UNAVAILABLE, "JOINING", message).with("waiting_for", waiting_for)
            }
            ApiError::Joining(why) => Facts::new(Code::UNAVAILABLE, "JOINING", format!("nothing was done: {why}")),
            ApiError::AnotherCluster(what) => {
                Facts::new(Code::UNAVAILABLE, "ANOTHER_CLUSTER", format!("not appended: {what}"))
            }
            ApiError::Stopping => Facts::new(Code::UNAVAILABLE, "STOPPING", "this node is stopping: go to another one"),
            ApiError::ReplicaDamaged => {
                let message =
                    "nothing was done: the log is damaged on the node that had to answer, and waits for repair";
                Facts::new(Code::UNAVAILABLE, "DAMAGED", message)
            }
            ApiError::LeaderUnreadable { leader, entry } => {
                let message = format!(
                    "not read: this node lacks entry {entry}, and the leader {leader} can't read it from its disk: read from another node"
                );
                Facts::new(Code::UNAVAILABLE, "LEADER_DAMAGED", message)
            }
            ApiError::OutcomeUnknown { retry_is_safe: true } => {
                let message = "it may have been appended or not: the same request again is appended once";
                Facts::new(Code::UNAVAILABLE, "OUTCOME_UNKNOWN", message)
            }
            ApiError::OutcomeUnknown { retry_is_safe: false } => {
                let message = "it may have been appended or not: the same request again may append it twice";
                Facts::new(Code::UNKNOWN, "OUTCOME_UNKNOWN", message)
            }
            ApiError::DeadlinePassed => {
                let message = "the deadline passed before anything was done, and nothing will be";
                Facts::new(Code::DEADLINE_EXCEEDED, "NOT_APPENDED", message)
            }
            ApiError::Damaged { log, offset, resume, what } => {
                let records = match resume {
                    Some(resume) if resume.0 > offset.0 + 1 => format!("records {offset} to {}", resume.0 - 1),
                    Some(_) => format!("record {offset}"),
                    None => format!("records from {offset} on"),
                };
                let message =
                    format!("{records} of log {log} are damaged on this node, other nodes may have them: {what}");
                let facts = Facts::new(Code::DATA_LOSS, "DAMAGED", message).with("log", log).with("offset", offset);
                match resume {
                    Some(resume) => facts.with("resume_offset", resume),
                    None => facts,
                }
            }
            ApiError::Internal(what) => Facts::new(Code::INTERNAL, "INTERNAL", *what),
        }
    }
}

impl Invalid {
    fn facts(&self) -> Facts {
        let invalid = |message: String| Facts::new(RpcStatusCode::INVALID_ARGUMENT, "INVALID_REQUEST", message);
        match self {
            Invalid::Malformed => invalid("the bytes are no message of this method".to_owned()),
            Invalid::MessageTooLarge { bytes_max } => {
                invalid(format!("the message is larger than the {bytes_max} bytes that this method takes"))
            }
            Invalid::LogName(error) => invalid(error.to_string()),
            Invalid::NoRecord => invalid("no record: set `record`, or at least one of `records`".to_owned()),
            Invalid::RecordAndRecords => invalid("both `record` and `records` are set: one of them".to_owned()),
            Invalid::RecordTooLarge { position, bytes, bytes_max } => {
                let message =
                    format!("record {position} has {bytes} bytes of value, key and headers, its log takes {bytes_max}");
                Facts::new(RpcStatusCode::INVALID_ARGUMENT, "RECORD_TOO_LARGE", message)
                    .with("position", position)
                    .with("record_bytes_max", bytes_max)
                    .limit("record_bytes_max", bytes_max)
            }
            Invalid::RequestTooLarge { bytes, bytes_max } => {
                let message = format!(
                    "the records have {bytes} bytes of value, key and headers together, one request takes {bytes_max}"
                );
                Facts::new(RpcStatusCode::INVALID_ARGUMENT, "REQUEST_TOO_LARGE", message)
                    .with("request_bytes_max", bytes_max)
                    .limit("request_bytes_max", bytes_max)
            }
            Invalid::EntryTooLarge { bytes_max } => {
                let message =
                    format!("the records take more than {bytes_max} bytes in the log, which no log takes at once");
                Facts::new(RpcStatusCode::INVALID_ARGUMENT, "REQUEST_TOO_LARGE", message)
                    .with("entry_bytes_max", bytes_max)
                    .limit("entry_bytes_max", bytes_max)
            }
            Invalid::Settings(what) => invalid(what.clone()),
            Invalid::LogChanged => invalid("a stream stays with the log of its first message".to_owned()),
            Invalid::ExpectedOffset(offset) => {
                invalid(format!("`expected_offset` {offset} exceeds the largest offset ({})", Offset::MAX))
            }
            Invalid::Start(value) => invalid(format!("{value} is no value of `start`")),
            Invalid::Heartbeat { heartbeat_ms_min } => {
                invalid(format!("`heartbeat_ms` is 0 or at least {heartbeat_ms_min}, and needs `max_records`"))
            }
        }
    }
}

fn packed<M: MessageFull>(message: &M) -> Any {
    Any::pack(message).unwrap_or_default()
}

#[cfg(test)]
mod tests;
