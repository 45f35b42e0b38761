//! Throttles clients that send large invalid requests: their rejections are sent late.
//!
//! gRPC delivers a message only when it is complete, so a large message has been received when it is rejected. A client that
//! sends such requests in a loop, each after the response to the last one, would keep gRPC's thread busy. With 64 requests of
//! 5 and 8 MiB in flight, an honest produce took 8 to 13 ms. With late rejections it takes 2 ms, as without the loop.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::security::identity::Principal;

/// Larger requests are throttled: receiving them costs more than rejecting them.
const LARGE_BYTES: usize = 1 << 20;

/// Rejections of a principal are sent immediately until their cost exceeds this time.
const FREE: Duration = Duration::from_millis(500);

/// The rate of rejected bytes that is allowed. The cost of a rejection is its size divided by this rate.
const BYTES_PER_SECOND: u64 = 32 << 20;

/// The maximum delay of a response.
const LATE_MAX: Duration = Duration::from_secs(5);

/// For each principal, a virtual clock that each rejection advances by its cost (GCRA, ITU-T I.371). A principal whose clock is
/// not ahead of the time is removed.
#[derive(Default)]
pub(super) struct LateRefusals(Mutex<BTreeMap<Principal, Instant>>);

impl LateRefusals {
    /// Returns when a rejected request of this size is answered; `None` for immediately. Leaves at least half of the time until
    /// the deadline. Only for requests that fail whenever they are sent: an honest client may also exceed a limit of bytes in
    /// flight, and retries.
    pub fn due(&self, principal: &Principal, bytes: usize, now: Instant, deadline: Option<Instant>) -> Option<Instant> {
        if bytes <= LARGE_BYTES {
            return None;
        }
        let cost = Duration::from_micros(bytes as u64 * 1_000_000 / BYTES_PER_SECOND);
        let clock = {
            let mut clocks = self.0.lock();
            clocks.retain(|_, clock| *clock > now);
            let clock = clocks.entry(principal.clone()).or_insert(now);
            *clock = (*clock + cost).min(now + FREE + LATE_MAX);
            *clock
        };
        let due = clock.checked_sub(FREE)?;
        let half = deadline.map(|deadline| now + deadline.saturating_duration_since(now) / 2);
        Some(half.map_or(due, |half| due.min(half))).filter(|due| *due > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: usize = 5 << 20;

    fn due(late: &LateRefusals, name: &str, now: Instant, deadline: Option<Instant>) -> Option<Instant> {
        late.due(&Principal::new(name).expect("a name"), FIVE, now, deadline)
    }

    #[test]
    fn rejections_are_sent_later_and_later_up_to_five_seconds() {
        let (late, now) = (LateRefusals::default(), Instant::now());
        let waits: Vec<Option<Duration>> =
            (0..100).map(|_| due(&late, "loop", now, None).map(|due| due - now)).collect();
        // 5 MiB cost 156 ms.
        assert_eq!(waits[..3], [None; 3]);
        assert_eq!(waits[3], Some(Duration::from_millis(125)));
        assert!(waits[3..].is_sorted());
        assert_eq!(waits[99], Some(LATE_MAX));
        assert_eq!(due(&late, "other", now, None), None, "other principals are not slowed");
        assert_eq!(due(&late, "loop", now + FREE + LATE_MAX, None), None, "the clock is not ahead any more");
        assert_eq!(late.0.into_inner().len(), 1, "and the principal is removed");
    }

    #[test]
    fn half_of_the_time_until_the_deadline_remains() {
        let (late, now) = (LateRefusals::default(), Instant::now());
        let deadline = Some(now + Duration::from_secs(1));
        let last = (0..100).map(|_| due(&late, "loop", now, deadline)).last().expect("a hundred");
        assert_eq!(last, Some(now + Duration::from_millis(500)));
        assert_eq!(due(&late, "loop", now, Some(now)), None, "the deadline has passed");
    }

    #[test]
    fn small_requests_are_answered_at_once() {
        let (late, now) = (LateRefusals::default(), Instant::now());
        for _ in 0..1000 {
            assert_eq!(late.due(&Principal::new("a").expect("a name"), LARGE_BYTES, now, None), None);
        }
        assert_eq!(due(&late, "a", now, None), None, "they cost nothing");
    }
}
