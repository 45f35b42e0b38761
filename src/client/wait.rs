//! Waits of a thread: for a future, for a time, or until its owner stops it.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::future::Shared;
use parking_lot::Mutex;

/// How a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Waited<T> {
    Ready(T),
    TimedOut,
    Stopped,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    /// One for each thread, so that a wait allocates nothing.
    static WAKER: Waker = Waker::from(Arc::new(Unpark(std::thread::current())));
}

/// Runs a future on this thread until it is ready, the moment has come, or the owner stops it.
pub(super) fn wait_for<F: Future>(future: F, until: Option<Instant>, stop: Option<&Stop>) -> Waited<F::Output> {
    let mut future = pin!(future);
    let mut stopped = stop.map(|stop| stop.stopped.clone());
    WAKER.with(|waker| {
        let mut context = Context::from_waker(waker);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Waited::Ready(output);
            }
            if stopped.as_mut().is_some_and(|stopped| stopped.poll_unpin(&mut context).is_ready()) {
                return Waited::Stopped;
            }
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => std::thread::park(),
                Some(left) if left.is_zero() => return Waited::TimedOut,
                Some(left) => std::thread::park_timeout(left),
            }
        }
    })
}

/// Ends the waits of the threads that belong to one owner.
pub(super) struct Stop {
    sender: Mutex<Option<oneshot::Sender<()>>>,
    stopped: Shared<oneshot::Receiver<()>>,
}

impl Stop {
    pub fn new() -> Stop {
        let (sender, receiver) = oneshot::channel();
        Stop { sender: Mutex::new(Some(sender)), stopped: receiver.shared() }
    }

    /// Ends all waits, also later ones.
    pub fn stop(&self) {
        // Dropping it resolves the receivers.
        drop(self.sender.lock().take());
    }

    pub fn is_stopped(&self) -> bool {
        self.sender.lock().is_none()
    }

    /// Waits until a moment. Returns false if the owner stops it before.
    pub fn pause_until(&self, until: Instant) -> bool {
        wait_for(std::future::pending::<()>(), Some(until), Some(self)) == Waited::TimedOut
    }
}

/// The pauses between attempts: each is twice as long as the one before, with a random part.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(min: Duration, max: Duration) -> Backoff {
        Backoff { min, max: max.max(min), next: min }
    }

    /// Returns the next pause, ±50 %.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        let mut random = [0; 1];
        // Without random bytes, the pauses of several clients coincide, which does no harm.
        let _ = openssl::rand::rand_bytes(&mut random);
        pause.mul_f64(0.5 + f64::from(random[0]) / 255.0)
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_begin_anew() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(350));
        for expected in [100, 200, 350, 350] {
            let pause = backoff.pause();
            assert!((ms(expected / 2)..=ms(expected * 3 / 2)).contains(&pause), "{pause:?} instead of {expected}");
        }
        backoff.reset();
        assert!(backoff.pause() <= ms(150));
    }

    #[test]
    fn a_wait_ends_with_the_future_the_time_or_the_owner() {
        let (stop, soon) = (Stop::new(), Some(Instant::now()));
        assert_eq!(wait_for(async { 7 }, None, Some(&stop)), Waited::Ready(7));
        assert_eq!(wait_for(std::future::pending::<()>(), soon, Some(&stop)), Waited::TimedOut);
        std::thread::scope(|scope| {
            scope.spawn(|| stop.stop());
            assert_eq!(wait_for(std::future::pending::<()>(), None, Some(&stop)), Waited::Stopped);
        });
        assert!(stop.is_stopped());
        assert!(!stop.pause_until(Instant::now() + Duration::from_secs(3600)), "later waits end, too");
    }
}
