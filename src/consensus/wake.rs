//! How other threads bring work to `consensus`.
//!
//! Waking a sleeping thread costs 50 to 100 µs on a virtual machine, and a lone record passes through `consensus` seven
//! times on three nodes. So a thread that brings a small piece of work while `consensus` is idle runs it itself
//! ([`ConsensusWaker::run_or_wake`]). Larger work, and work that arrives while other work is in progress, wakes the
//! thread: it takes everything that is queued at once, which costs less for each piece.
//!
//! With many callers, small requests gather before they wake the thread ([`requests_to_wake`]). A turn has a cost on all
//! nodes, however many requests it takes: an append to each follower, a write and a sync on each disk, a response.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::doorbell::Doorbell;

/// The most bytes of a request, and of the peers' messages, that run on the thread that brings them.
pub const SMALL_BYTES_MAX: usize = 16 << 10;

/// The longest time that a request waits for others.
pub const GATHER_MAX: Duration = Duration::from_millis(5);
/// Requests do not gather while fewer proposals than this are unanswered.
const GATHER_FROM: usize = 32;
/// This many requests do not wait for others.
const GATHERED_MAX: usize = 256;

/// Returns how many queued requests wake the thread, if this many proposals are unanswered: half as many. So the requests
/// of a turn are a third of all, and two other thirds are on their way.
///
/// This is Nagle's algorithm (RFC 896), with a part of the whole instead of a full packet. With 256 connections the
/// processor time of a record on all nodes is 0.87 of that without it. With a quarter instead of half it is 0.90 to 0.95,
/// with the whole 0.82, but then a request of a slow network waits longer.
pub fn requests_to_wake(unanswered: usize) -> usize {
    if unanswered < GATHER_FROM { 1 } else { GATHERED_MAX.min(unanswered / 2) }
}

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
    gathering: Arc<Gathering>,
}

/// When the thread takes queued requests.
#[derive(Debug, Default)]
struct Gathering {
    /// If there are this many. 0 is like 1.
    requests: AtomicUsize,
    /// If one of them must not wait.
    is_urgent: AtomicBool,
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

    /// Wakes the thread, because it has work other than requests.
    pub fn wake(&self) {
        self.bell.ring();
    }

    /// Wakes the thread, because a request was queued that must not wait for others.
    pub fn wake_for_request(&self) {
        self.gathering.is_urgent.store(true, Ordering::SeqCst);
        self.bell.ring();
    }

    /// Handles a small request that was queued, as [`ConsensusWaker::run_or_wake`] does, unless it waits for others.
    /// `queued` is the number of queued requests.
    pub fn run_or_wake_or_gather(&self, queued: usize) {
        // The number may fall meanwhile: then the thread counts the queued requests after that.
        if queued >= self.gathering.requests.load(Ordering::SeqCst) {
            self.run_or_wake(Work::Request);
        }
    }

    /// Sets how many queued requests wake the thread. The caller counts them afterwards.
    pub fn gather(&self, requests: usize) {
        self.gathering.requests.store(requests, Ordering::SeqCst);
    }

    /// Returns true if requests wait for others.
    pub fn gathers(&self) -> bool {
        self.gathering.requests.load(Ordering::SeqCst) > 1
    }

    /// Returns true if the queued requests need not wait for others.
    pub fn are_gathered(&self, queued: usize) -> bool {
        let enough = || queued >= self.gathering.requests.load(Ordering::SeqCst);
        queued > 0 && (enough() || self.gathering.is_urgent.load(Ordering::SeqCst))
    }

    /// Called before the thread takes the queued requests.
    pub fn take_urgency(&self) {
        self.gathering.is_urgent.store(false, Ordering::SeqCst);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_until_there_are_enough_or_one_is_urgent() {
        let (waker, runs) = (ConsensusWaker::default(), Arc::new(AtomicUsize::new(0)));
        let counted = runs.clone();
        waker.set_run_here(move |_| counted.fetch_add(1, Ordering::SeqCst) < usize::MAX);
        waker.run_or_wake_or_gather(1);
        assert_eq!(runs.load(Ordering::SeqCst), 1, "at the beginning none waits");
        waker.gather(3);
        (1..=2).for_each(|queued| waker.run_or_wake_or_gather(queued));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert!(!waker.are_gathered(2) && waker.are_gathered(3));
        waker.run_or_wake_or_gather(3);
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        waker.wake_for_request();
        assert!(waker.are_gathered(1) && !waker.are_gathered(0));
        waker.take_urgency();
        assert!(!waker.are_gathered(1));
    }

    #[test]
    fn few_callers_do_not_wait_for_each_other() {
        assert!((0..GATHER_FROM).all(|unanswered| requests_to_wake(unanswered) == 1));
        assert_eq!(requests_to_wake(200), 100);
        assert_eq!(requests_to_wake(100_000), GATHERED_MAX, "the inbox holds fewer than half of them");
    }
}
