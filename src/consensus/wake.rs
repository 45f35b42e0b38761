//! How other threads bring work to `consensus`.
//!
//! Waking a sleeping thread costs 50 to 100 µs on a virtual machine, and a lone record passes through `consensus` seven
//! times on three nodes. So a thread that brings a small piece of work while `consensus` is idle runs it itself
//! ([`ConsensusWaker::run_or_wake`]). Larger work, and work that arrives while other work is in progress, wakes the
//! thread: it takes everything that is queued at once, which costs less for each piece.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::doorbell::Doorbell;

/// The most bytes of a request, and of the peers' messages, that run on the thread that brings them.
pub const SMALL_BYTES_MAX: usize = 16 << 10;

/// A piece of work that was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A proposal, or a request for a read index.
    Request,
    /// Messages of a peer.
    Messages,
    /// A Ready that was synced.
    Persisted,
}

/// Runs queued work on the calling thread. Returns false if the thread of `consensus` has to be woken.
type RunHere = dyn Fn(Work) -> bool + Send + Sync;

/// Wakes `consensus`, or runs it on the calling thread. Clones do so for the same one.
#[derive(Clone, Default)]
pub struct ConsensusWaker {
    bell: Doorbell,
    run_here: Arc<OnceLock<Box<RunHere>>>,
}

impl fmt::Debug for ConsensusWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsensusWaker").field("bell", &self.bell).finish_non_exhaustive()
    }
}

impl ConsensusWaker {
    /// Makes the calling thread the one that is woken.
    pub fn attach_current_thread(&self) {
        self.bell.attach_current_thread();
    }

    /// Sets what [`ConsensusWaker::run_or_wake`] calls. Until then it wakes the thread.
    pub fn set_run_here(&self, run_here: impl Fn(Work) -> bool + Send + Sync + 'static) {
        // Set once, when the thread starts.
        let _ = self.run_here.set(Box::new(run_here));
    }

    /// Wakes the thread, because it has work.
    pub fn wake(&self) {
        self.bell.ring();
    }

    /// Runs small queued work on the calling thread if `consensus` is idle, and wakes the thread otherwise. The caller
    /// must hold no lock that `consensus` or one of its sinks takes. May block as long as a small write to the page
    /// cache.
    pub fn run_or_wake(&self, work: Work) {
        if !self.run_here.get().is_some_and(|run_here| run_here(work)) {
            self.wake();
        }
    }

    /// Waits until it is woken, until `moment` at most; may return early. Only for the thread of
    /// [`ConsensusWaker::attach_current_thread`].
    pub fn wait_until(&self, moment: Instant) {
        self.bell.wait_until(moment);
    }
}
