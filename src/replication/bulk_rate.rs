//! The rate limit of bulk messages, in bytes: it has no timer, and what is not used is not saved up.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::metrics::{Counter, Registry};

/// The rate limit of the bulk messages that this node sends to all peers together, and their number.
pub struct BulkRate {
    /// 0: none.
    bytes_per_second: u64,
    /// When the bytes that were sent are paid for.
    next: Mutex<Option<Instant>>,
    sent: Counter,
}

impl BulkRate {
    /// Creates the limit, and registers the metric.
    pub fn new(bytes_per_second: u64, registry: &Registry) -> BulkRate {
        let sent = registry.counter("catch_up_bytes_sent", "Bytes of entries that were sent to followers far behind");
        BulkRate { bytes_per_second, next: Mutex::default(), sent }
    }

    /// Returns the time at which the next message may be sent, if that is not now.
    pub fn waits_until(&self, now: Instant) -> Option<Instant> {
        self.next.lock().filter(|next| *next > now)
    }

    /// Counts bytes that are sent now.
    pub fn count(&self, bytes: u64, now: Instant) {
        self.sent.inc_by(bytes);
        if self.bytes_per_second > 0 {
            let mut next = self.next.lock();
            let took = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            *next = Some(next.unwrap_or(now).max(now) + took);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_all_messages_together_and_is_not_saved_up() {
        let registry = Registry::default();
        let rate = BulkRate::new(1000, &registry);
        let begin = Instant::now();
        let at = |seconds: f64| begin + Duration::from_secs_f64(seconds);
        assert_eq!(rate.waits_until(begin), None);
        rate.count(500, begin);
        assert_eq!(rate.waits_until(begin), Some(at(0.5)));
        rate.count(500, at(0.1));
        assert_eq!(rate.waits_until(at(0.1)), Some(at(1.0)), "of another peer");
        assert_eq!(rate.waits_until(at(1.0)), None);
        rate.count(100, at(60.0));
        assert_eq!(rate.waits_until(at(60.0)), Some(at(60.1)));
        assert_eq!(rate.sent.get(), 1100);
        let unlimited = BulkRate::new(0, &Registry::default());
        unlimited.count(1 << 40, begin);
        assert_eq!(unlimited.waits_until(begin), None);
    }
}
