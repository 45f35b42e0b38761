//! What an application distinguishes about errors.

use crate::codes::codes;

codes! {
    /// What an application distinguishes.
    pub enum ErrorKind: str, "kind of error" {
        /// The log, the producer or the cursor does not exist.
        NotFound = "not_found",
        /// A condition does not hold: an expected offset, a revision, an epoch, the id of the log or of the cluster.
        Mismatch = "mismatch",
        /// Another process has taken over the producer or the cursor.
        Fenced = "fenced",
        /// A record or a request exceeds a limit of the log.
        TooLarge = "too_large",
        /// The record at the offset was trimmed; the metadata contains `first_offset`.
        Trimmed = "trimmed",
        /// The offset is above the end of the log.
        PastEnd = "past_end",
        /// The certificate is not accepted, or the access policy does not allow it.
        NotAllowed = "not_allowed",
        /// No node could do it.
        Unavailable = "unavailable",
        /// A limit is reached, a queue or a disk is full.
        Exhausted = "exhausted",
        /// Every node has lost the record.
        DataLoss = "data_loss",
        /// It may have been done.
        OutcomeUnknown = "outcome_unknown",
        /// The request is malformed, or the cluster does not support it.
        Invalid = "invalid",
        /// The time was over, and nothing was done.
        Timeout = "timeout",
        /// The request was cancelled, and nothing was done.
        Cancelled = "cancelled",
        /// The producer or the consumer was closed before, and nothing was done.
        Closed = "closed",
        /// Anything else.
        Other = "other",
    }
}
