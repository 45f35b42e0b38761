//! The reasons in the `ErrorInfo` of a node's statuses: one list for the server, which sends them, and the client,
//! which reads them. The names are part of the API and never change.

use crate::codes::codes;

codes! {
    /// Why a request failed.
    pub enum ErrorReason: str, "error reason" {
        /// The request carries no usable identity.
        NoIdentity = "NO_IDENTITY",
        /// The access policy does not grant the right.
        NotAllowed = "NOT_ALLOWED",
        /// The request is malformed or contradicts itself.
        InvalidRequest = "INVALID_REQUEST",
        /// A record exceeds the limit of its log.
        RecordTooLarge = "RECORD_TOO_LARGE",
        /// The total size of a request's records exceeds a limit.
        RequestTooLarge = "REQUEST_TOO_LARGE",
        /// This version does not implement the request.
        Unimplemented = "UNIMPLEMENTED",
        /// The offset is above the next offset.
        OffsetPastEnd = "OFFSET_PAST_END",
        /// The offset is below the first offset.
        OffsetTrimmed = "OFFSET_TRIMMED",
        /// The cluster has no such log.
        NoSuchLog = "NO_SUCH_LOG",
        /// The node has no such service.
        NoSuchService = "NO_SUCH_SERVICE",
        /// Not every member supports the feature level.
        FeatureLevelUnsupported = "FEATURE_LEVEL_UNSUPPORTED",
        /// The log of that name has another id.
        LogIdMismatch = "LOG_ID_MISMATCH",
        /// The next offset is not the expected one.
        ExpectedOffsetMismatch = "EXPECTED_OFFSET_MISMATCH",
        /// A queue is full.
        QueueFull = "QUEUE_FULL",
        /// The leader's disk is full.
        DiskFull = "DISK_FULL",
        /// The node has no file descriptor or memory left for a read.
        Shortage = "SHORTAGE",
        /// The principal, or all principals together, have reached a limit.
        LimitReached = "LIMIT_REACHED",
        /// Not appended; a retry may succeed.
        NotAppended = "NOT_APPENDED",
        /// No leader is known, or none is confirmed by a majority.
        NoLeader = "NO_LEADER",
        /// The node does not serve the log yet.
        Joining = "JOINING",
        /// Another cluster of the same name answers.
        AnotherCluster = "ANOTHER_CLUSTER",
        /// The node is stopping.
        Stopping = "STOPPING",
        /// A replica or a record is damaged.
        Damaged = "DAMAGED",
        /// The leader can't read an entry that the node lacks.
        LeaderDamaged = "LEADER_DAMAGED",
        /// It is not known whether the records were appended.
        OutcomeUnknown = "OUTCOME_UNKNOWN",
        /// A bug.
        Internal = "INTERNAL",
    }
}
