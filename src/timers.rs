//! Time for futures: one thread that wakes those whose moment has come. gRPC's core has alarms, but `grpcio` does not show them.

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
struct Inner {
    next_id: u64,
    stopped: bool,
    /// When the thread looks next by itself; `None`: not before it is told.
    next_look: Option<Instant>,
    /// One for each waiting future, so bounded as calls are; and one for each watermark (`wake_at`).
    sleepers: BTreeMap<(Instant, u64), Waker>,
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every critical section leaves the state whole.
        self.inner.lock()
    }
}

/// The timer thread; dropping it ends it. Futures that still sleep then never wake: end the calls first.
pub struct Timers {
    handle: TimersHandle,
    joiner: Option<Joiner>,
}

/// Makes sleeps.
#[derive(Clone)]
pub struct TimersHandle(Arc<Shared>);

impl Timers {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system can't make one.
    pub fn start(fatal: &FatalSender) -> io::Result<Timers> {
        let shared = Arc::new(Shared::default());
        let runs = shared.clone();
        let joiner = spawn("api-timer", fatal, move || {
            run(&runs);
            Ok::<(), Infallible>(())
        })?;
        Ok(Timers { handle: TimersHandle(shared), joiner: Some(joiner) })
    }

    /// For those who sleep.
    pub fn handle(&self) -> TimersHandle {
        self.handle.clone()
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        self.handle.0.lock().stopped = true;
        self.handle.0.changed.notify_one();
        self.joiner.take();
    }
}

fn run(shared: &Shared) {
    let mut inner = shared.lock();
    while !inner.stopped {
        let now = Instant::now();
        let later = inner.sleepers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut inner.sleepers, later);
        if !due.is_empty() {
            drop(inner);
            due.into_values().for_each(Waker::wake);
            inner = shared.lock();
            continue;
        }
        inner.next_look = inner.sleepers.first_key_value().map(|((at, _), _)| *at);
        match inner.next_look {
            Some(at) => {
                let rest = at.saturating_duration_since(now);
                shared.changed.wait_for(&mut inner, rest);
            }
            None => shared.changed.wait(&mut inner),
        }
    }
}

impl TimersHandle {
    /// For tests: time that does not pass, because its thread has ended.
    #[cfg(test)]
    pub fn stopped() -> TimersHandle {
        Timers::start(&crate::thread::fatal_channel().0).expect("a thread").handle()
    }

    /// Resolves at that moment.
    pub fn at(&self, at: Instant) -> Sleep {
        Sleep { timers: self.clone(), at, id: None }
    }

    /// Wakes at that moment. Not to be taken back: for what is rare, or shared.
    pub fn wake_at(&self, at: Instant, waker: Waker) {
        self.insert(at, None, waker);
    }

    /// Resolves at that moment, or never.
    pub async fn at_or_never(&self, at: Option<Instant>) {
        match at {
            Some(at) => self.at(at).await,
            None => futures::future::pending().await,
        }
    }

    /// Gives the sleeper's id, a new one where it has none.
    fn insert(&self, at: Instant, id: Option<u64>, waker: Waker) -> u64 {
        let mut inner = self.0.lock();
        let id = id.unwrap_or_else(|| {
            inner.next_id += 1;
            inner.next_id
        });
        inner.sleepers.insert((at, id), waker);
        // Nearly every call has a sleep that it does not use: the thread is woken for those alone that it would miss.
        let missed = inner.next_look.is_none_or(|look| at < look);
        if missed {
            inner.next_look = Some(at);
        }
        drop(inner);
        if missed {
            self.0.changed.notify_one();
        }
        id
    }
}

/// A wait for a moment; dropping it ends the wait.
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
            self.timers.0.lock().sleepers.remove(&(self.at, id));
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
    fn the_earlier_sleep_wakes_first_and_a_dropped_one_leaves_nothing() {
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
        assert!(handle.0.lock().sleepers.is_empty());
    }
}
