//! The fair queue: the streams of one principal that wait until the budget allows a read, in the order of their arrival.

use std::task::Waker;
use std::time::{Duration, Instant};

use crate::pacer::{Pacer, WaitList};

/// The minimum size of a read's permit, even if less is left of two thirds of the principal's budget.
pub(super) const READ_BYTES_LEAST: u64 = 16 << 10;

/// While streams of a principal wait, they together read this many bytes, then pause. Each read counts as at least
/// [`READ_BYTES_LEAST`].
pub(super) const BURST_BYTES: u64 = 512 << 10;
/// The duration of that pause. Without it, gRPC's thread would not serve its connections: it does so only when no future is ready.
pub(super) const BETWEEN_BURSTS: Duration = Duration::from_millis(1);

/// The waiting streams of one principal. It exists only while a stream waits.
pub(super) struct FairQueue {
    waiting: WaitList,
    /// Counts the bytes that were read.
    pacer: Pacer,
}

impl Default for FairQueue {
    fn default() -> FairQueue {
        let mut pacer = Pacer::new(BETWEEN_BURSTS);
        pacer.begin(BURST_BYTES);
        FairQueue { waiting: WaitList::default(), pacer }
    }
}

impl FairQueue {
    /// Records that a stream that had waited has read this many bytes, possibly far fewer than its permit allowed. If this ends
    /// the burst, the pause begins.
    pub fn has_read(&mut self, bytes: u64, now: Instant) {
        // A small read also costs time.
        if self.pacer.done(bytes.max(READ_BYTES_LEAST)) {
            self.pacer.pause(now);
            self.pacer.begin(BURST_BYTES);
        }
    }

    /// Returns the end of the pause, unless it is over.
    pub fn paused_until(&mut self, now: Instant) -> Option<Instant> {
        let until = self.pacer.paused_until().filter(|until| *until > now);
        if until.is_none() {
            self.pacer.resume();
        }
        until
    }

    /// Adds a stream, or replaces its waker.
    pub fn wait(&mut self, ticket: u64, waker: Waker) {
        self.waiting.insert(ticket, waker);
    }

    /// Removes a stream that has received its permit or stopped waiting.
    pub fn leave(&mut self, ticket: u64) {
        self.waiting.remove(ticket);
    }

    /// Returns the stream that reads next.
    pub fn first(&self) -> Option<(u64, &Waker)> {
        self.waiting.first()
    }

    /// Returns true if no stream waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
