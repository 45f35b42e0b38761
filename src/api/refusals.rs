//! What is refused is counted: by the limit that was reached, or because of who called.

use super::errors::{ApiError, Invalid};
use crate::metrics::{Limit, Metrics};

/// Counts an error that ends a call.
pub fn count(metrics: &Metrics, error: &ApiError) {
    match error {
        ApiError::NoIdentity(_) | ApiError::NotAllowed { .. } => metrics.access_refused.inc(),
        ApiError::Limit(reached) => metrics.limit_refused(reached.limit).inc(),
        ApiError::QueueFull => metrics.limit_refused(Limit::Queue).inc(),
        ApiError::Invalid(invalid) => {
            if let Some(limit) = limit_of(invalid) {
                metrics.limit_refused(limit).inc();
            }
        }
        // The disk counts for itself.
        ApiError::DiskFull
        | ApiError::Unimplemented(_)
        | ApiError::OffsetPastEnd(..)
        | ApiError::OffsetTrimmed(..)
        | ApiError::NoSuchLog(_)
        | ApiError::NoSuchService
        | ApiError::LogIdMismatch { .. }
        | ApiError::ExpectedOffset { .. }
        | ApiError::NotAppended
        | ApiError::NoLeader
        | ApiError::NotReady { .. }
        | ApiError::Joining(_)
        | ApiError::AnotherCluster(_)
        | ApiError::Stopping
        | ApiError::ReplicaDamaged
        | ApiError::LeaderUnreadable { .. }
        | ApiError::OutcomeUnknown { .. }
        | ApiError::DeadlinePassed
        | ApiError::Damaged { .. }
        | ApiError::Shortage { .. }
        | ApiError::Internal(_) => {}
    }
}

fn limit_of(invalid: &Invalid) -> Option<Limit> {
    match invalid {
        Invalid::MessageTooLarge { .. } => Some(Limit::MessageBytes),
        Invalid::RecordTooLarge { .. } => Some(Limit::RecordBytes),
        Invalid::RequestTooLarge { .. } | Invalid::EntryTooLarge { .. } => Some(Limit::RequestBytes),
        Invalid::Malformed
        | Invalid::LogName(_)
        | Invalid::NoRecord
        | Invalid::RecordAndRecords
        | Invalid::Settings(_)
        | Invalid::LogChanged
        | Invalid::ExpectedOffset(_)
        | Invalid::Start(_)
        | Invalid::Heartbeat { .. } => None,
    }
}
