//! Large requests that are refused are answered late. What they cost is done by then: gRPC hands a message over when it is whole,
//! however long it is. So a client that sends requests over its limit again and again, and waits for the answers, as all
//! do but those who mean harm, would take gRPC's thread from everybody for as long as it goes on. Kafka's brokers slow clients over
//! their quota in the same way.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::errors::ApiError;

/// Requests of more bytes are large. No record is larger by default, and no small mistake is answered late.
const LARGE_BYTES: usize = 1 << 20;

/// So much is answered at once,
const FREE: Duration = Duration::from_millis(500);

/// and beyond it so many bytes in a second, over all callers.
const BYTES_PER_SECOND: u64 = 32 << 20;

/// No answer is later.
const LATE_MAX: Duration = Duration::from_secs(5);

/// How much was refused, as a virtual clock that runs ahead (GCRA, ITU-T I.371).
pub struct Tarpit(Mutex<Instant>);

impl Default for Tarpit {
    fn default() -> Tarpit {
        Tarpit(Mutex::new(Instant::now()))
    }
}

impl Tarpit {
    /// When a refusal is due, of a request of so many bytes; `None`: at once. Half of the caller's time is left to it.
    pub fn due(&self, error: &ApiError, bytes: usize, now: Instant, deadline: Option<Instant>) -> Option<Instant> {
        if bytes <= LARGE_BYTES || !is_callers_own(error) {
            return None;
        }
        let cost = Duration::from_micros(bytes as u64 * 1_000_000 / BYTES_PER_SECOND);
        // A moment is always whole.
        let mut clock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *clock = ((*clock).max(now) + cost).min(now + FREE + LATE_MAX);
        let due = clock.checked_sub(FREE)?;
        let half = deadline.map(|deadline| now + deadline.saturating_duration_since(now) / 2);
        Some(half.map_or(due, |half| due.min(half))).filter(|due| *due > now)
    }
}

/// Something that the caller did, and not what the node or the cluster can't do now.
fn is_callers_own(error: &ApiError) -> bool {
    match error {
        ApiError::NoIdentity(_) | ApiError::NotAllowed { .. } | ApiError::Invalid(_) | ApiError::Limit(_) => true,
        ApiError::Unimplemented(_)
        | ApiError::OffsetPastEnd(..)
        | ApiError::OffsetTrimmed(..)
        | ApiError::NoSuchLog(_)
        | ApiError::NoSuchService
        | ApiError::LogIdMismatch { .. }
        | ApiError::ExpectedOffset { .. }
        | ApiError::QueueFull
        | ApiError::DiskFull
        | ApiError::NotAppended
        | ApiError::NoLeader
        | ApiError::Joining
        | ApiError::Stopping
        | ApiError::ReplicaDamaged
        | ApiError::OutcomeUnknown { .. }
        | ApiError::DeadlinePassed
        | ApiError::Damaged { .. }
        | ApiError::Shortage { .. }
        | ApiError::Internal(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::errors::Invalid;
    use super::*;

    const FIVE: usize = 5 << 20;

    fn too_large() -> ApiError {
        Invalid::RequestTooLarge { bytes: FIVE, bytes_max: 4 << 20 }.into()
    }

    #[test]
    fn the_first_are_answered_at_once_and_then_each_later_up_to_five_seconds() {
        let tarpit = Tarpit::default();
        let now = Instant::now() + Duration::from_secs(1);
        let waits: Vec<Option<Duration>> =
            (0..100).map(|_| tarpit.due(&too_large(), FIVE, now, None).map(|due| due - now)).collect();
        // 5 MiB cost 156 ms.
        assert_eq!(waits[..3], [None; 3]);
        assert_eq!(waits[3], Some(Duration::from_millis(125)));
        assert!(waits[3..].is_sorted());
        assert_eq!(waits[99], Some(LATE_MAX));
        // It is paid off.
        assert_eq!(tarpit.due(&too_large(), FIVE, now + FREE + LATE_MAX, None), None);
    }

    #[test]
    fn half_of_the_callers_time_is_left() {
        let tarpit = Tarpit::default();
        let now = Instant::now() + Duration::from_secs(1);
        let deadline = Some(now + Duration::from_secs(1));
        let last = (0..100).map(|_| tarpit.due(&too_large(), FIVE, now, deadline)).last().expect("a hundred");
        assert_eq!(last, Some(now + Duration::from_millis(500)));
        assert_eq!(tarpit.due(&too_large(), FIVE, now, Some(now)), None, "it waits no more");
    }

    #[test]
    fn neither_small_ones_nor_what_the_node_can_not_do() {
        let tarpit = Tarpit::default();
        let now = Instant::now();
        for _ in 0..1000 {
            assert_eq!(tarpit.due(&too_large(), LARGE_BYTES, now, None), None);
            assert_eq!(tarpit.due(&ApiError::NoLeader, FIVE, now, None), None);
        }
        assert_eq!(tarpit.due(&too_large(), FIVE, now, None), None, "they cost nothing");
    }
}
