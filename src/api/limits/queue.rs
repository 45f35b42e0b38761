//! The fair queue: the streams of one principal that wait for bytes to read into, in the order of their arrival.

use std::task::Waker;
use std::time::{Duration, Instant};

use crate::pacer::{Pacer, WaitList};

/// A read gets at least this much, however little is left of two thirds of its principal's budget.
pub(super) const READ_BYTES_LEAST: u64 = 16 << 10;

/// While a principal's streams wait for each other, they read this much, each read counting at least [`READ_BYTES_LEAST`],
pub(super) const BURST_BYTES: u64 = 512 << 10;
/// and then pause for this long: gRPC's thread looks at its connections only when it has nothing to run.
pub(super) const BETWEEN_BURSTS: Duration = Duration::from_millis(1);

/// The waiting streams of one principal. It exists only while there are any.
pub(super) struct FairQueue {
    waiting: WaitList,
    /// Its unit is a byte read.
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
    /// A stream that had its turn has read this much, which may be far less than the room that it got. The pause begins if
    /// it ends the burst.
    pub fn has_read(&mut self, bytes: u64, now: Instant) {
        // A small read costs time, too.
        if self.pacer.done(bytes.max(READ_BYTES_LEAST)) {
            self.pacer.pause(now);
            self.pacer.begin(BURST_BYTES);
        }
    }

    /// The end of the pause, if it is not over.
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

    /// Removes a stream that got its permit, or gave up.
    pub fn leave(&mut self, ticket: u64) {
        self.waiting.remove(ticket);
    }

    /// The stream whose turn it is.
    pub fn first(&self) -> Option<(u64, &Waker)> {
        self.waiting.first()
    }

    /// True if no stream waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
