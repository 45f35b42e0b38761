//! Wakes many waiters in bursts, with a pause after each burst.
//!
//! One record can wake a thousand tailing streams. A gRPC thread polls its connections only when it has no future to
//! run, so without pauses these streams would delay all other requests. The high watermark paces the futures that it
//! wakes (`watermark.rs`). The fair queue paces the bytes that one principal's streams read (`api/limits/queue.rs`).

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Waiters in the order in which they arrived.
#[derive(Default)]
pub struct WaitList(BTreeMap<u64, Waker>);

impl WaitList {
    /// Adds a waiter, or replaces its waker. Tickets grow in the order of arrival.
    pub fn insert(&mut self, ticket: u64, waker: Waker) {
        self.0.insert(ticket, waker);
    }

    /// Removes a waiter; returns false if it was not waiting.
    pub fn remove(&mut self, ticket: u64) -> bool {
        self.0.remove(&ticket).is_some()
    }

    /// Returns the waiter that arrived first.
    pub fn first(&self) -> Option<(u64, &Waker)> {
        self.0.first_key_value().map(|(ticket, waker)| (*ticket, waker))
    }

    /// Removes and returns up to `most` waiters, in the order of arrival.
    pub fn take(&mut self, most: usize) -> Vec<Waker> {
        std::iter::from_fn(|| self.0.pop_first()).take(most).map(|(_, waker)| waker).collect()
    }

    /// Returns the number of waiters.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The remaining work of a burst, and the end of the pause after it. Each user counts work in its own unit.
#[derive(Debug)]
pub struct Pacer {
    pause: Duration,
    /// The work of the burst that is not done yet.
    left: u64,
    paused_until: Option<Instant>,
}

impl Pacer {
    /// Creates a pacer in whose bursts no work has begun. `pause` is the length of each pause.
    pub fn new(pause: Duration) -> Pacer {
        Pacer { pause, left: 0, paused_until: None }
    }

    /// Begins a burst, or adds to the one that runs.
    pub fn begin(&mut self, work: u64) {
        self.left += work;
    }

    /// Subtracts work that was done. Returns true if the burst is complete.
    pub fn done(&mut self, work: u64) -> bool {
        self.left = self.left.saturating_sub(work);
        self.left == 0
    }

    /// True while work of a burst is not done.
    pub fn is_running(&self) -> bool {
        self.left > 0
    }

    /// Begins the pause; returns its end.
    pub fn pause(&mut self, now: Instant) -> Instant {
        *self.paused_until.insert(now + self.pause)
    }

    /// Returns the end of the pause. `None` if no pause has begun or [`Pacer::resume`] has ended it.
    pub fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Ends the pause.
    pub fn resume(&mut self) {
        self.paused_until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_ends_with_its_last_work_and_is_followed_by_a_pause() {
        let mut pacer = Pacer::new(Duration::from_millis(1));
        pacer.begin(2);
        assert!(!pacer.done(1) && pacer.is_running());
        assert!(pacer.done(5), "more work than was left ends it");
        assert_eq!(pacer.paused_until(), None, "the user decides whether a pause is needed");
        let now = Instant::now();
        assert_eq!(pacer.pause(now), now + Duration::from_millis(1));
        assert_eq!(pacer.paused_until(), Some(now + Duration::from_millis(1)));
        pacer.resume();
        assert_eq!(pacer.paused_until(), None);
    }

    #[test]
    fn waiters_leave_in_the_order_of_their_arrival() {
        let mut list = WaitList::default();
        for ticket in [3, 1, 2] {
            list.insert(ticket, Waker::noop().clone());
        }
        assert!(list.remove(1) && !list.remove(1));
        assert_eq!(list.first().map(|(ticket, _)| ticket), Some(2));
        assert_eq!((list.take(5).len(), list.is_empty()), (2, true));
    }
}
