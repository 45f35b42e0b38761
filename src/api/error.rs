//! The errors of the API, with their messages. [`super::status`] maps each one to a gRPC status.
//!
//! A message says "not appended" only if that is certain.

pub use super::invalid::Invalid;
use super::limits::LimitReached;
use crate::calendar::rfc3339;
use crate::consensus::handle::{ProposeError, ReadIndexError};
use crate::feature_level::FeatureLevel;
use crate::log_state::StateRefusal;
use crate::reason::ErrorReason;
use crate::security::acl::Action;
use crate::security::identity::{NoIdentity, Principal};
use crate::storage::entry::ENTRY_BYTES_MAX;
use crate::storage::reader::ReadError;
use crate::types::{LogId, LogIndex, LogName, NodeId, Offset};

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

/// What could not continue without a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NeededBy {
    /// No other node would stay.
    #[error("it is the last node that stays")]
    Cluster,
    /// The catalog would have no majority.
    #[error("the catalog would have no majority of nodes that answer")]
    Catalog,
    /// The log would have no majority, or no replica.
    #[error("log {0} would have no majority of replicas that answer")]
    Log(LogName),
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
    /// The cluster has no node with this id or name.
    #[error("the cluster has no node {node}")]
    NoSuchNode {
        /// The id or the name.
        node: String,
    },
    /// The node is leaving, or replicas of a node that leaves move to it.
    #[error("node {node} is leaving the cluster, or replicas of a node that leaves move to it")]
    NodeLeaves {
        /// The one that is leaving, or that the replicas move to.
        node: NodeId,
    },
    /// The node can't be removed.
    #[error("the node is needed: {by}")]
    NodeNeeded {
        /// What could not continue without it.
        by: NeededBy,
    },
    /// The node that is to lead has no replica that can.
    #[error("no other node can lead {}", .log.as_ref().map_or_else(|| "the catalog".to_owned(), |log| format!("log {log}")))]
    NoSuccessor {
        /// The log; `None` for the catalog.
        log: Option<LogName>,
    },
    /// The cluster has no log with this name.
    #[error("log {0} does not exist")]
    NoSuchLog(LogName),
    /// The log is deleted, and not purged yet.
    #[error("log {log} is deleted: it can be undeleted until {}", rfc3339(*.purge_us))]
    LogDeleted {
        /// The name of the log.
        log: LogName,
        /// The id of the log.
        log_id: LogId,
        /// When it is purged, Unix microseconds.
        purge_us: u64,
    },
    /// The log is being restored from a backup.
    #[error("log {log} is being restored from a backup, and is not open yet")]
    LogRestoring {
        /// The name of the log.
        log: LogName,
        /// The id of the log.
        log_id: LogId,
    },
    /// The log was created without a hash chain.
    #[error("log {0} has no hash chain")]
    NoHashChain(LogName),
    /// The node runs without TLS, or its peer certificate has expired.
    #[error("this node has no key to sign receipts with: it runs without TLS, or its peer certificate has expired")]
    ReceiptsUnavailable,
    /// A log that should be created exists.
    #[error("log {log} exists: its id is {log_id}")]
    LogExists {
        /// The name of the log.
        log: LogName,
        /// The id of the log.
        log_id: LogId,
    },
    /// The log, or without a name the cluster, does not have the expected revision.
    #[error("{} was changed: its revision is {revision}", log.as_ref().map_or_else(|| "the cluster".to_owned(), |log| format!("log {log}")))]
    RevisionMismatch {
        /// The name of the log; `None` for the cluster.
        log: Option<LogName>,
        /// The present revision.
        revision: u64,
    },
    /// The cluster can have no more logs.
    #[error("the cluster has {max} logs, with those that are deleted and not purged: it can have no more")]
    TooManyLogs {
        /// The maximum number of logs.
        max: usize,
    },
    /// The request needs a higher feature level of the cluster.
    #[error("this needs feature level {0} of the cluster, which `seriatim cluster upgrade` raises")]
    LevelTooLow(FeatureLevel),
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
    /// The request does not fit the producers or the cursors of the log.
    #[error("not done in log {log}: {refusal}")]
    State {
        /// The name of the log.
        log: LogName,
        /// Why.
        refusal: StateRefusal,
    },
    /// The log has no producer of that name or id.
    #[error("log {log} has no such producer")]
    NoSuchProducer {
        /// The name of the log.
        log: LogName,
    },
    /// A queue of this node or of the leader is full.
    #[error("nothing was done: a queue is full, try again")]
    QueueFull,
    /// The leader's disk is full: not appended.
    #[error(
        "not appended: the disk of the leader is full, until logs are trimmed or space is freed{}",
        held_text(*.deleted_bytes)
    )]
    DiskFull {
        /// The size of the files of deleted logs on this node.
        deleted_bytes: u64,
    },
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
    /// This node has no replica of the log, and the node that served the request for it is lost.
    #[error(
        "this node has no replica of the log, and the one that it reads from stopped or can't be reached: try again, or continue where the stream ended"
    )]
    ReplicaLost,
    /// The failure of another node that served the request.
    #[error("another node served the request, and it failed there")]
    Relayed(RelayedFailure),
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

/// The failure of a request that another node has served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayedFailure {
    /// The reason; `None` for one that only a newer version knows.
    pub reason: Option<ErrorReason>,
    /// The status for the client, a serialized `google.rpc.Status`.
    pub status: Vec<u8>,
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
            ProposeError::State(refusal) => ApiError::State { log: proposed.bounds.log.clone(), refusal },
            other => ApiError::from_command(other),
        }
    }

    /// Returns the error of a failed command of the catalog. Sending a command twice has no additional effect.
    pub fn from_command(error: ProposeError) -> ApiError {
        match error {
            ProposeError::NotLeader { leader: None } => ApiError::NoLeader,
            ProposeError::NotLeader { leader: Some(_) } | ProposeError::Dropped => ApiError::LeaderChanged,
            ProposeError::QueueFull => ApiError::QueueFull,
            ProposeError::DiskFull => ApiError::DiskFull { deleted_bytes: 0 },
            ProposeError::TooLarge => Invalid::EntryTooLarge { bytes_max: ENTRY_BYTES_MAX }.into(),
            ProposeError::OutcomeUnknown => ApiError::OutcomeUnknown { retry_is_safe: true },
            ProposeError::DeadlinePassed => ApiError::DeadlinePassed,
            ProposeError::ExpectedOffset { .. } | ProposeError::PastEnd { .. } => {
                ApiError::Internal("a command was refused because of an offset, and commands name none")
            }
            ProposeError::State(_) => {
                ApiError::Internal("a command of the catalog was refused because of a log's state")
            }
            ProposeError::LevelUnsupported { .. } | ProposeError::MemberSilent { .. } => {
                ApiError::Internal("a proposal that does not raise the feature level was refused because of it")
            }
            ProposeError::NodeNeeded { .. } => {
                ApiError::Internal("a proposal that does not remove a node was refused because of one")
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
            ReadError::Gone => ApiError::ReplicaLost,
        }
    }
}

/// Returns the verb for "may not ... log default".
fn verb(action: Action) -> &'static str {
    match action {
        Action::Produce => "produce to",
        Action::Consume => "consume",
        Action::Commit => "move cursors of",
        Action::Admin => "administer",
        Action::Replicate => "replicate",
    }
}

fn held_text(deleted_bytes: u64) -> String {
    match deleted_bytes {
        0 => String::new(),
        bytes => format!("; on this node, deleted logs hold {bytes} bytes until they are purged"),
    }
}

fn range_of_records(offset: Offset, resume: Option<Offset>) -> String {
    match resume {
        Some(resume) if resume.0 > offset.0 + 1 => format!("records {offset} to {}", resume.0 - 1),
        Some(_) => format!("record {offset}"),
        None => format!("records from {offset} on"),
    }
}
