//! Why requests fail: the reasons in `ErrorInfo`, with what each means for a client.
//!
//! `proto/seriatim/v1/errors.proto` repeats the table for users. A test compares the two.

use grpcio::RpcStatusCode as Code;

use crate::codes::codes;

codes! {
    /// What became of a request that failed: the value of `outcome` in the metadata.
    pub enum Outcome: str, "outcome" {
        /// Nothing was done, and nothing will be.
        None = "none",
        /// It was done, although the answer is lost.
        Done = "done",
        /// It may have been done, or may be done later.
        Unknown = "unknown",
    }
}

codes! {
    /// Whether the same request can succeed when it is sent again: the value of `retry` in the metadata.
    pub enum Retry: str, "retry" {
        /// Not without a change of the request, or of what it depends on.
        No = "no",
        /// To the same node, after the time in `RetryInfo`.
        Same = "same",
        /// To another node, at once.
        Elsewhere = "elsewhere",
        /// Only after a person has acted.
        Later = "later",
    }
}

/// The keys of the metadata that every `ErrorInfo` contains.
pub mod key {
    /// See [`super::Outcome`].
    pub const OUTCOME: &str = "outcome";
    /// See [`super::Retry`].
    pub const RETRY: &str = "retry";
    /// The client address of the log's leader.
    pub const LEADER: &str = "leader";
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal $(, log.v1 $old:literal)?: $status:ident, $outcome:ident, $retry:ident;)+) => {
        codes! {
            /// Why a request failed.
            pub enum ErrorReason: str, "error reason" {
                $($(#[$doc])* $name = $code),+
            }
        }

        impl ErrorReason {
            /// Returns the code of the status.
            pub fn status(self) -> Code {
                match self { $(ErrorReason::$name => Code::$status),+ }
            }

            /// Returns what became of the request.
            pub fn outcome(self) -> Outcome {
                match self { $(ErrorReason::$name => Outcome::$outcome),+ }
            }

            /// Returns whether the same request can succeed.
            pub fn retry(self) -> Retry {
                match self { $(ErrorReason::$name => Retry::$retry),+ }
            }

            /// Returns the reason in an error of `log.v1`, whose clients know the names of its time.
            pub fn in_log_v1(self) -> &'static str {
                match self { $(ErrorReason::$name => [$code $(, $old)?].last().copied().unwrap_or($code)),+ }
            }
        }
    };
}

reasons! {
    /// The request carries no usable identity.
    NoIdentity = "NO_IDENTITY": UNAUTHENTICATED, None, No;
    /// The access policy does not grant the right.
    NotAllowed = "NOT_ALLOWED": PERMISSION_DENIED, None, No;
    /// The request is malformed or contradicts itself.
    InvalidRequest = "INVALID_REQUEST": INVALID_ARGUMENT, None, No;
    /// The request contains a field or an enum value that this version does not know.
    UnknownField = "UNKNOWN_FIELD": UNIMPLEMENTED, None, No;
    /// This version does not implement the request.
    NotImplemented = "NOT_IMPLEMENTED", log.v1 "UNIMPLEMENTED": UNIMPLEMENTED, None, No;
    /// A record exceeds the limit of its log.
    RecordTooLarge = "RECORD_TOO_LARGE": INVALID_ARGUMENT, None, No;
    /// The total size of a request's records exceeds a limit.
    RequestTooLarge = "REQUEST_TOO_LARGE": INVALID_ARGUMENT, None, No;
    /// The cluster has no such log.
    NoSuchLog = "NO_SUCH_LOG": NOT_FOUND, None, No;
    /// The node has no such service.
    NoSuchService = "NO_SUCH_SERVICE": NOT_FOUND, None, No;
    /// The log of that name has another id.
    LogIdMismatch = "LOG_ID_MISMATCH": FAILED_PRECONDITION, None, No;
    /// The next offset is not the expected one.
    ExpectedOffsetMismatch = "EXPECTED_OFFSET_MISMATCH": FAILED_PRECONDITION, None, No;
    /// Not every member supports the feature level.
    FeatureLevelUnsupported = "FEATURE_LEVEL_UNSUPPORTED": FAILED_PRECONDITION, None, Later;
    /// The offset is above the next offset.
    OffsetPastEnd = "OFFSET_PAST_END": OUT_OF_RANGE, None, No;
    /// The offset is below the first offset.
    OffsetTrimmed = "OFFSET_TRIMMED": OUT_OF_RANGE, None, No;
    /// A queue is full.
    QueueFull = "QUEUE_FULL": RESOURCE_EXHAUSTED, None, Same;
    /// The principal, or all principals together, have reached a limit.
    LimitReached = "LIMIT_REACHED": RESOURCE_EXHAUSTED, None, Same;
    /// The leader's disk is full.
    DiskFull = "DISK_FULL": RESOURCE_EXHAUSTED, None, Later;
    /// The node has no file descriptor or memory left for a read.
    Shortage = "SHORTAGE": RESOURCE_EXHAUSTED, None, Elsewhere;
    /// The leader changed before the request was appended.
    LeaderChanged = "LEADER_CHANGED", log.v1 "NOT_APPENDED": UNAVAILABLE, None, Same;
    /// No leader is known, or none is confirmed by a majority.
    NoLeader = "NO_LEADER": UNAVAILABLE, None, Elsewhere;
    /// The node does not serve the log yet.
    Joining = "JOINING": UNAVAILABLE, None, Elsewhere;
    /// The node is stopping.
    Stopping = "STOPPING": UNAVAILABLE, None, Elsewhere;
    /// Another cluster of the same name answers.
    AnotherCluster = "ANOTHER_CLUSTER": UNAVAILABLE, None, Later;
    /// The replica that had to answer is damaged.
    ReplicaDamaged = "REPLICA_DAMAGED", log.v1 "DAMAGED": UNAVAILABLE, None, Elsewhere;
    /// The leader can't read an entry that the node lacks.
    LeaderDamaged = "LEADER_DAMAGED": UNAVAILABLE, None, Elsewhere;
    /// Stored records are damaged.
    RecordDamaged = "RECORD_DAMAGED", log.v1 "DAMAGED": DATA_LOSS, None, Elsewhere;
    /// A newer version wrote stored records.
    RecordUnsupported = "RECORD_UNSUPPORTED", log.v1 "UNIMPLEMENTED": UNIMPLEMENTED, None, Elsewhere;
    /// The deadline passed before anything was done.
    DeadlinePassed = "DEADLINE_PASSED", log.v1 "NOT_APPENDED": DEADLINE_EXCEEDED, None, Same;
    /// It is not known whether the records were appended, and a retry may append them twice.
    OutcomeUnknown = "OUTCOME_UNKNOWN": UNKNOWN, Unknown, No;
    /// The answer of the leader is lost, and a retry is done once.
    AnswerLost = "ANSWER_LOST", log.v1 "OUTCOME_UNKNOWN": UNAVAILABLE, Unknown, Same;
    /// A bug.
    InternalError = "INTERNAL_ERROR", log.v1 "INTERNAL": INTERNAL, Unknown, No;
    /// The change is committed, but this node could not apply it in time.
    CommittedNotApplied = "COMMITTED_NOT_APPLIED": UNAVAILABLE, Done, Same;
    /// The cluster has a log of that name.
    LogExists = "LOG_EXISTS": ALREADY_EXISTS, None, No;
    /// The log is deleted, and not purged yet.
    LogDeleted = "LOG_DELETED": NOT_FOUND, None, No;
    /// The log or the cluster does not have the expected revision.
    RevisionMismatch = "REVISION_MISMATCH": FAILED_PRECONDITION, None, No;
    /// The cluster has as many logs as it can have.
    TooManyLogs = "TOO_MANY_LOGS": RESOURCE_EXHAUSTED, None, Later;
    /// The request needs a higher feature level of the cluster.
    FeatureLevelTooLow = "FEATURE_LEVEL_TOO_LOW": FAILED_PRECONDITION, None, Later;
    /// The node has no replica of the log, and the one that served the request for it is lost.
    ReplicaUnreachable = "REPLICA_UNREACHABLE", log.v1 "JOINING": UNAVAILABLE, None, Same;
    /// The log has no producer with that id, or not any more.
    ProducerUnknown = "PRODUCER_UNKNOWN": FAILED_PRECONDITION, Unknown, No;
    /// Another process has taken the producer over.
    ProducerFenced = "PRODUCER_FENCED": FAILED_PRECONDITION, Unknown, No;
    /// Earlier requests of the producer are missing.
    SequenceGap = "SEQUENCE_GAP": FAILED_PRECONDITION, None, No;
    /// The request was appended, and its answer is not kept any more.
    SequenceTooOld = "SEQUENCE_TOO_OLD": FAILED_PRECONDITION, Done, No;
    /// Another request with that sequence was appended.
    SequenceReused = "SEQUENCE_REUSED": INVALID_ARGUMENT, None, No;
    /// The producer or the cursor does not have the expected epoch.
    EpochMismatch = "EPOCH_MISMATCH": FAILED_PRECONDITION, None, No;
    /// The log has as many named producers as it can have.
    TooManyProducers = "TOO_MANY_PRODUCERS": RESOURCE_EXHAUSTED, None, Later;
    /// The log has no such producer.
    NoSuchProducer = "NO_SUCH_PRODUCER": NOT_FOUND, None, No;
    /// The log has no such cursor.
    NoSuchCursor = "NO_SUCH_CURSOR": NOT_FOUND, None, No;
    /// Another reader has acquired the cursor.
    CursorFenced = "CURSOR_FENCED": FAILED_PRECONDITION, None, No;
    /// The cursor would move back.
    CursorBehind = "CURSOR_BEHIND": FAILED_PRECONDITION, None, No;
    /// The log has as many cursors as it can have.
    TooManyCursors = "TOO_MANY_CURSORS": RESOURCE_EXHAUSTED, None, Later;
    /// The cluster has no such node.
    NoSuchNode = "NO_SUCH_NODE": NOT_FOUND, None, No;
    /// The node is leaving, or replicas of a node that leaves move to it.
    NodeLeaving = "NODE_LEAVING": FAILED_PRECONDITION, None, No;
    /// A log or the catalog could not continue without the node.
    NodeNeeded = "NODE_NEEDED": FAILED_PRECONDITION, None, Later;
    /// The node that is to lead has no replica that can.
    NoSuccessor = "NO_SUCCESSOR": FAILED_PRECONDITION, None, Later;
    /// The log is being restored from a backup.
    LogRestoring = "LOG_RESTORING": FAILED_PRECONDITION, None, Later;
    /// The log has no hash chain.
    NoHashChain = "NO_HASH_CHAIN": FAILED_PRECONDITION, None, No;
    /// The node has no key with which it could sign a receipt.
    ReceiptsUnavailable = "RECEIPTS_UNAVAILABLE": FAILED_PRECONDITION, None, No;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use protobuf::Enum;

    use super::*;
    use crate::pb::v1::Reason;

    /// Returns the comment above each value of the enum in errors.proto, as one line.
    fn documented() -> BTreeMap<String, String> {
        let (mut comment, mut documented) = (String::new(), BTreeMap::new());
        for line in include_str!("../proto/seriatim/v1/errors.proto").lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("//") {
                comment += text;
            } else if let Some((name, _)) = line.split_once(" = ").filter(|_| line.ends_with(';')) {
                documented.insert(name.to_owned(), comment.trim().to_owned());
            }
            if !line.starts_with("//") {
                comment.clear();
            }
        }
        documented
    }

    #[test]
    fn every_reason_has_one_status_an_outcome_and_a_retry_as_errors_proto_says() {
        let documented = documented();
        for reason in ErrorReason::ALL {
            let (outcome, retry) = (reason.outcome().code(), reason.retry().code());
            let status = reason.status().to_string();
            let (_, status) = status.split_once('-').expect("a number and a name");
            let meant = format!("{status}; outcome {outcome}, retry {retry}. ");
            let comment = documented.get(reason.code()).unwrap_or_else(|| panic!("{} is missing", reason.code()));
            assert!(comment.starts_with(&meant), "{}: {comment:?} does not begin with {meant:?}", reason.code());
        }
        let in_proto: Vec<String> = Reason::VALUES.iter().skip(1).map(|reason| format!("{reason:?}")).collect();
        let in_code: Vec<&str> = ErrorReason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(in_proto, in_code);
    }

    #[test]
    fn clients_of_log_v1_get_the_reasons_of_its_time() {
        let renamed: Vec<_> = ErrorReason::ALL
            .iter()
            .filter(|reason| reason.in_log_v1() != reason.code())
            .map(|reason| (reason.code(), reason.in_log_v1()))
            .collect();
        assert_eq!(
            renamed,
            [
                ("NOT_IMPLEMENTED", "UNIMPLEMENTED"),
                ("LEADER_CHANGED", "NOT_APPENDED"),
                ("REPLICA_DAMAGED", "DAMAGED"),
                ("RECORD_DAMAGED", "DAMAGED"),
                ("RECORD_UNSUPPORTED", "UNIMPLEMENTED"),
                ("DEADLINE_PASSED", "NOT_APPENDED"),
                ("ANSWER_LOST", "OUTCOME_UNKNOWN"),
                ("INTERNAL_ERROR", "INTERNAL"),
                ("REPLICA_UNREACHABLE", "JOINING"),
            ]
        );
    }
}
