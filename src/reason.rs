//! The reasons in the `ErrorInfo` of a node's statuses: one list for the server, which sends them, and the client,
//! which reads them. The names are part of the API and never change.

use crate::codes::codes;

/// Whether the records of a failed produce were appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The records are not in the log, and never will be.
    NotAppended,
    /// The records may be in the log, or be appended later. A retry may append them twice.
    Unknown,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $fate:ident;)+) => {
        codes! {
            /// Why a request failed.
            pub enum ErrorReason: str, "error reason" {
                $($(#[$doc])* $name = $code),+
            }
        }

        impl ErrorReason {
            /// Returns whether the records of a produce that failed for this reason were appended.
            pub fn fate(self) -> Fate {
                match self { $(ErrorReason::$name => Fate::$fate),+ }
            }
        }
    };
}

// Only OUTCOME_UNKNOWN and INTERNAL leave the fate open. Reasons that newer versions add must not, so unknown reasons
// count as "not appended".
reasons! {
    /// The request carries no usable identity.
    NoIdentity = "NO_IDENTITY", NotAppended;
    /// The access policy does not grant the right.
    NotAllowed = "NOT_ALLOWED", NotAppended;
    /// The request is malformed or contradicts itself.
    InvalidRequest = "INVALID_REQUEST", NotAppended;
    /// A record exceeds the limit of its log.
    RecordTooLarge = "RECORD_TOO_LARGE", NotAppended;
    /// The total size of a request's records exceeds a limit.
    RequestTooLarge = "REQUEST_TOO_LARGE", NotAppended;
    /// This version does not implement the request.
    Unimplemented = "UNIMPLEMENTED", NotAppended;
    /// The offset is above the next offset.
    OffsetPastEnd = "OFFSET_PAST_END", NotAppended;
    /// The offset is below the first offset.
    OffsetTrimmed = "OFFSET_TRIMMED", NotAppended;
    /// The cluster has no such log.
    NoSuchLog = "NO_SUCH_LOG", NotAppended;
    /// The node has no such service.
    NoSuchService = "NO_SUCH_SERVICE", NotAppended;
    /// Not every member supports the feature level.
    FeatureLevelUnsupported = "FEATURE_LEVEL_UNSUPPORTED", NotAppended;
    /// The log of that name has another id.
    LogIdMismatch = "LOG_ID_MISMATCH", NotAppended;
    /// The next offset is not the expected one.
    ExpectedOffsetMismatch = "EXPECTED_OFFSET_MISMATCH", NotAppended;
    /// A queue is full.
    QueueFull = "QUEUE_FULL", NotAppended;
    /// The leader's disk is full.
    DiskFull = "DISK_FULL", NotAppended;
    /// The node has no file descriptor or memory left for a read.
    Shortage = "SHORTAGE", NotAppended;
    /// The principal, or all principals together, have reached a limit.
    LimitReached = "LIMIT_REACHED", NotAppended;
    /// Not appended; a retry may succeed.
    NotAppended = "NOT_APPENDED", NotAppended;
    /// No leader is known, or none is confirmed by a majority.
    NoLeader = "NO_LEADER", NotAppended;
    /// The node does not serve the log yet.
    Joining = "JOINING", NotAppended;
    /// Another cluster of the same name answers.
    AnotherCluster = "ANOTHER_CLUSTER", NotAppended;
    /// The node is stopping.
    Stopping = "STOPPING", NotAppended;
    /// A replica or a record is damaged.
    Damaged = "DAMAGED", NotAppended;
    /// The leader can't read an entry that the node lacks.
    LeaderDamaged = "LEADER_DAMAGED", NotAppended;
    /// It is not known whether the records were appended.
    OutcomeUnknown = "OUTCOME_UNKNOWN", Unknown;
    /// A bug.
    Internal = "INTERNAL", Unknown;
}
