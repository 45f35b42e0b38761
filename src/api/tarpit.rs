//! Large requests that are refused are answered late. What they cost is done by then: gRPC hands a message over when it is whole,
//! however long it is. So a client that sends requests over its limit again and again, and waits for the answers, as all
//! do but those who mean harm, would take gRPC's thread from everybody for as long as it goes on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::errors::ApiError;
use crate::security::identity::Principal;

/// Requests of more bytes are large: they cost more to receive than to refuse.
const LARGE_BYTES: usize = 1 << 20;

/// So much of one principal's is answered at once,
const FREE: Duration = Duration::from_millis(500);

/// and beyond it so many bytes in a second.
const BYTES_PER_SECOND: u64 = 32 << 20;

/// No answer is later.
const LATE_MAX: Duration = Duration::from_secs(5);

/// How much each principal was refused, as a virtual clock that runs ahead (GCRA, ITU-T I.371); those whose clock does not are
/// forgotten.
#[derive(Default)]
pub struct Tarpit(Mutex<BTreeMap<Principal, Instant>>);

impl Tarpit {
    /// When a refusal is due, of a request of so many bytes; `None`: at once. Half of the caller's time is left to it.
    pub fn due(
        &self,
        caller: &Principal,
        error: &ApiError,
        bytes: usize,
        now: Instant,
        deadline: Option<Instant>,
    ) -> Option<Instant> {
        if bytes <= LARGE_BYTES || !is_lasting(error) {
            return None;
        }
        let cost = Duration::from_micros(bytes as u64 * 1_000_000 / BYTES_PER_SECOND);
        let clock = {
            // Every critical section leaves it whole.
            let mut clocks = self.0.lock();
            clocks.retain(|_, clock| *clock > now);
            let clock = clocks.entry(caller.clone()).or_insert(now);
            *clock = (*clock + cost).min(now + FREE + LATE_MAX);
            *clock
        };
        let due = clock.checked_sub(FREE)?;
        let half = deadline.map(|deadline| now + deadline.saturating_duration_since(now) / 2);
        Some(half.map_or(due, |half| due.min(half))).filter(|due| *due > now)
    }
}

/// Something that is wrong with the request whenever it is sent. A limit of what may be in flight, or an offset that is not the
/// expected one, is met by those, too, who do nothing wrong and try again.
fn is_lasting(error: &ApiError) -> bool {
    matches!(
        error,
        ApiError::NoIdentity(_)
            | ApiError::NotAllowed { .. }
            | ApiError::Invalid(_)
            | ApiError::Unimplemented(_)
            | ApiError::NoSuchLog(_)
            | ApiError::LogIdMismatch { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::super::errors::Invalid;
    use super::*;

    const FIVE: usize = 5 << 20;

    /// When `caller`'s request of five MiB is answered.
    fn due(tarpit: &Tarpit, caller: &str, now: Instant, deadline: Option<Instant>) -> Option<Instant> {
        tarpit.due(&principal(caller), &too_large(), FIVE, now, deadline)
    }

    fn principal(name: &str) -> Principal {
        Principal::new(name).expect("a name")
    }

    fn too_large() -> ApiError {
        Invalid::RequestTooLarge { bytes: FIVE, bytes_max: 4 << 20 }.into()
    }

    #[test]
    fn the_first_are_answered_at_once_and_then_each_later_up_to_five_seconds() {
        let (tarpit, now) = (Tarpit::default(), Instant::now());
        let waits: Vec<Option<Duration>> =
            (0..100).map(|_| due(&tarpit, "loop", now, None).map(|due| due - now)).collect();
        // 5 MiB cost 156 ms.
        assert_eq!(waits[..3], [None; 3]);
        assert_eq!(waits[3], Some(Duration::from_millis(125)));
        assert!(waits[3..].is_sorted());
        assert_eq!(waits[99], Some(LATE_MAX));
        assert_eq!(due(&tarpit, "other", now, None), None, "others are not slowed");
        assert_eq!(due(&tarpit, "loop", now + FREE + LATE_MAX, None), None, "it is paid off");
        assert_eq!(tarpit.0.into_inner().len(), 1, "and forgotten");
    }

    #[test]
    fn half_of_the_callers_time_is_left() {
        let (tarpit, now) = (Tarpit::default(), Instant::now());
        let deadline = Some(now + Duration::from_secs(1));
        let last = (0..100).map(|_| due(&tarpit, "loop", now, deadline)).last().expect("a hundred");
        assert_eq!(last, Some(now + Duration::from_millis(500)));
        assert_eq!(due(&tarpit, "loop", now, Some(now)), None, "it waits no more");
    }

    #[test]
    fn neither_small_ones_nor_what_may_be_tried_again() {
        let (tarpit, now) = (Tarpit::default(), Instant::now());
        for _ in 0..1000 {
            assert_eq!(tarpit.due(&principal("a"), &too_large(), LARGE_BYTES, now, None), None);
            assert_eq!(tarpit.due(&principal("a"), &ApiError::NoLeader, FIVE, now, None), None);
        }
        assert_eq!(due(&tarpit, "a", now, None), None, "they cost nothing");
    }
}
