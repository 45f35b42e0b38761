//! Lets a plain thread wait for futures and a deadline at the same time, without an async runtime.
//!
//! A thread that uses gRPC polls its streams with the waker of [`thread_waker`] and, when nothing is ready, parks with
//! [`park_until`]. The waker unparks the thread. A wake between the poll and the park is not lost, because the park
//! token is kept until it parks.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Returns a waker that unparks the calling thread.
pub fn thread_waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

/// Parks the calling thread until it is woken, or until `moment` if it is set. May return early.
pub fn park_until(moment: Option<Instant>) {
    match moment {
        None => thread::park(),
        Some(moment) => {
            let left = moment.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                thread::park_timeout(left);
            }
        }
    }
}

/// Runs a future on the calling thread. Returns `None` if it is not ready by the deadline.
pub fn block_until<F: Future>(future: F, deadline: Instant) -> Option<F::Output> {
    let waker = thread_waker();
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Some(output);
        }
        if Instant::now() >= deadline {
            return None;
        }
        park_until(Some(deadline));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::reply::reply;

    #[test]
    fn returns_at_the_answer_or_at_the_deadline() {
        let (tx, rx) = reply();
        let other = thread::spawn(move || tx.send(7));
        assert_eq!(block_until(rx, Instant::now() + Duration::from_secs(10)), Some(Ok(7)));
        other.join().expect("no panic");
        let (_tx, rx) = reply::<u8>();
        assert_eq!(block_until(rx, Instant::now() + Duration::from_millis(20)), None);
    }
}
