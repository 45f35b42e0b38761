//! Timers for futures: one thread wakes the futures that are due. gRPC's core has alarms, but `grpcio` does not
//! expose them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::thread::{FatalSender, Joiner, spawn};

#[derive(Default)]
struct Sleepers {
    next_id: u64,
    stopped: bool,
    /// When the thread wakes next without being notified. `None` if it waits for a notification only.
    next_wake: Option<Instant>,
    /// One per waiting future, so bounded by the limits of requests, and one per watermark (`wake_at`).
    wakers: BTreeMap<(Instant, u64), Waker>,
}

#[derive(Default)]
struct TimerState {
    sleepers: Mutex<Sleepers>,
    changed: Condvar,
}

impl TimerState {
    fn lock(&self) -> MutexGuard<'_, Sleepers> {
        self.sleepers.lock()
    }
}

/// The timer thread. Dropping this stops the thread. Futures that still sleep then never wake, so finish all requests
/// first.
pub struct Timers {
    handle: TimersHandle,
    joiner: Option<Joiner>,
}

/// Creates sleeps and wakes wakers. Clones use the same thread.
#[derive(Clone)]
pub struct TimersHandle(Arc<TimerState>);

impl Timers {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system can't create a thread.
    pub fn start(fatal: &FatalSender) -> io::Result<Timers> {
        let shared = Arc::new(TimerState::default());
        let runs = shared.clone();
        let joiner = spawn("api-timer", fatal, move || {
            run(&runs);
            Ok::<(), Infallible>(())
        })?;
        Ok(Timers { handle: TimersHandle(shared), joiner: Some(joiner) })
    }

    /// Returns a handle for futures that sleep.
    pub fn handle(&self) -> TimersHandle {
        self.handle.clone()
    }

    /// Ends the thread.
    fn end(&mut self) {
        self.handle.0.lock().stopped = true;
        self.handle.0.changed.notify_one();
        self.joiner.take();
    }

    /// For tests that must not depend on time: no sleep ends after this, unless something else wakes its future.
    #[cfg(test)]
    pub fn stop(&mut self) {
        self.end();
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(shared: &TimerState) {
    let mut inner = shared.lock();
    while !inner.stopped {
        let now = Instant::now();
        let later = inner.wakers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut inner.wakers, later);
        if !due.is_empty() {
            drop(inner);
            due.into_values().for_each(Waker::wake);
            inner = shared.lock();
            continue;
        }
        inner.next_wake = inner.wakers.first_key_value().map(|((at, _), _)| *at);
        match inner.next_wake {
            Some(at) => {
                let rest = at.saturating_duration_since(now);
                shared.changed.wait_for(&mut inner, rest);
            }
            None => shared.changed.wait(&mut inner),
        }
    }
}

impl TimersHandle {
    /// For tests: a handle whose thread has ended, so that no sleep ever ends.
    #[cfg(test)]
    pub fn stopped() -> TimersHandle {
        Timers::start(&crate::thread::fatal_channel().0).expect("a thread").handle()
    }

    /// Returns a future that resolves at a time.
    pub fn at(&self, at: Instant) -> Sleep {
        Sleep { timers: self.clone(), at, id: None }
    }

    /// Wakes `waker` at a time. It can't be cancelled, so use it only for few wakers, or for shared ones.
    pub fn wake_at(&self, at: Instant, waker: Waker) {
        self.insert(at, None, waker);
    }

    /// Waits until a time, or forever if it is `None`.
    pub async fn at_or_never(&self, at: Option<Instant>) {
        match at {
            Some(at) => self.at(at).await,
            None => futures::future::pending().await,
        }
    }

    /// Adds or replaces a waker, and returns its id.
    fn insert(&self, at: Instant, id: Option<u64>, waker: Waker) -> u64 {
        let mut inner = self.0.lock();
        let id = id.unwrap_or_else(|| {
            inner.next_id += 1;
            inner.next_id
        });
        inner.wakers.insert((at, id), waker);
        // Nearly every request has a deadline that never passes. The thread is only woken if it would wake too late.
        let missed = inner.next_wake.is_none_or(|wake| at < wake);
        if missed {
            inner.next_wake = Some(at);
        }
        drop(inner);
        if missed {
            self.0.changed.notify_one();
        }
        id
    }
}

/// A future that resolves at a time. Dropping it removes its timer.
pub struct Sleep {
    timers: TimersHandle,
    at: Instant,
    id: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if Instant::now() >= this.at {
            return Poll::Ready(());
        }
        this.id = Some(this.timers.insert(this.at, this.id, cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.timers.0.lock().wakers.remove(&(self.at, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::future::{Either, select};
    use std::time::Duration;

    #[test]
    fn wakes_the_earlier_sleep_first_and_removes_dropped_ones() {
        let (fatal, _failures) = crate::thread::fatal_channel();
        let timers = Timers::start(&fatal).expect("a thread");
        let handle = timers.handle();
        let start = Instant::now();
        let long = handle.at(start + Duration::from_secs(3600));
        let short = handle.at(start + Duration::from_millis(20));
        match block_on(select(long, short)) {
            Either::Right(((), long)) => drop(long),
            Either::Left(_) => panic!("the long one came first"),
        }
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert!(handle.0.lock().wakers.is_empty());
    }
}
