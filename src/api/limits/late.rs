//! Large requests that are rejected are answered late.
//!
//! gRPC delivers a message only when it is complete, so by the time of the rejection the work is done. A client that sends
//! requests above its limit in a loop, and waits for each response, would keep gRPC's thread busy as long as it goes on: 64
//! requests of 5 and 8 MiB at a time made an honest produce take 8 to 13 ms, and 2 ms with late answers, as without the loop.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::security::identity::Principal;

/// Requests of more bytes are large: they cost more to receive than to refuse.
const LARGE_BYTES: usize = 1 << 20;

/// Rejections worth this much of a principal's time are answered at once,
const FREE: Duration = Duration::from_millis(500);

/// and above that this many bytes a second.
const BYTES_PER_SECOND: u64 = 32 << 20;

/// No response is later than this.
const LATE_MAX: Duration = Duration::from_secs(5);

/// How many bytes of each principal were rejected, as a virtual clock that runs ahead (GCRA, ITU-T I.371). A principal whose
/// clock is not ahead is removed.
#[derive(Default)]
pub(super) struct LateRefusals(Mutex<BTreeMap<Principal, Instant>>);

impl LateRefusals {
    /// When a rejected request of that many bytes is answered; `None`: at once. Half of the time to its deadline is left.
    /// Only for requests that fail whenever they are sent: honest clients, too, meet a limit of what is in flight and retry.
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
    fn the_first_are_answered_at_once_and_each_further_one_later_up_to_five_seconds() {
        let (late, now) = (LateRefusals::default(), Instant::now());
        let waits: Vec<Option<Duration>> =
            (0..100).map(|_| due(&late, "loop", now, None).map(|due| due - now)).collect();
        // 5 MiB cost 156 ms.
        assert_eq!(waits[..3], [None; 3]);
        assert_eq!(waits[3], Some(Duration::from_millis(125)));
        assert!(waits[3..].is_sorted());
        assert_eq!(waits[99], Some(LATE_MAX));
        assert_eq!(due(&late, "other", now, None), None, "other principals are not slowed");
        assert_eq!(due(&late, "loop", now + FREE + LATE_MAX, None), None, "it is paid off");
        assert_eq!(late.0.into_inner().len(), 1, "and removed");
    }

    #[test]
    fn half_of_the_time_to_the_deadline_is_left() {
        let (late, now) = (LateRefusals::default(), Instant::now());
        let deadline = Some(now + Duration::from_secs(1));
        let last = (0..100).map(|_| due(&late, "loop", now, deadline)).last().expect("a hundred");
        assert_eq!(last, Some(now + Duration::from_millis(500)));
        assert_eq!(due(&late, "loop", now, Some(now)), None, "no time is left");
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
