//! How far a group is applied: what readers may see, and the futures that wait for more.
//!
//! `consensus` advances it, everybody reads it. It only grows. A waiter is a small future and no thread; an advance wakes
//! those whose condition holds and nobody else.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::types::{LogIndex, Offset};

/// A position up to which a group is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The last entry that is applied.
    pub applied: LogIndex,
    /// The first record that is readable; moves with trim.
    pub first_offset: Offset,
    /// The watermark: records below it are visible.
    pub next_offset: Offset,
    /// Unix microseconds of the last visible record; 0 when there is none.
    pub last_append_time_us: u64,
}

/// What a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The entry is applied.
    Applied(LogIndex),
    /// The record at this offset is visible: `next_offset` is above it.
    Visible(Offset),
}

impl Until {
    fn holds(self, mark: &Mark) -> bool {
        match self {
            Until::Applied(index) => mark.applied >= index,
            Until::Visible(offset) => mark.next_offset > offset,
        }
    }
}

/// The group has stopped on this node: nothing more will become visible here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

#[derive(Default)]
struct State {
    mark: Mark,
    closed: bool,
    next_waiter: u64,
    waiters: Vec<(u64, Until, Waker)>,
}

/// One group's mark, shared; a clone is the same mark.
#[derive(Clone, Default)]
pub struct Watermark(Arc<Mutex<State>>);

impl Watermark {
    /// Starts at `mark`.
    pub fn new(mark: Mark) -> Watermark {
        Watermark(Arc::new(Mutex::new(State { mark, ..State::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it is now.
    pub fn get(&self) -> Mark {
        self.lock().mark
    }

    /// Moves on and wakes who waited for it.
    ///
    /// # Panics
    /// If any part of the mark would go back.
    pub fn advance(&self, to: Mark) {
        let mut woken = Vec::new();
        {
            let mut state = self.lock();
            let old = state.mark;
            assert!(
                to.applied >= old.applied && to.first_offset >= old.first_offset && to.next_offset >= old.next_offset,
                "a watermark went back from {old:?} to {to:?}"
            );
            state.mark = to;
            state.waiters.retain(|(_, until, waker)| {
                let done = until.holds(&to);
                if done {
                    woken.push(waker.clone());
                }
                !done
            });
        }
        woken.into_iter().for_each(Waker::wake);
    }

    /// Ends every wait, now and later, with [`Closed`].
    pub fn close(&self) {
        let waiters = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.waiters)
        };
        waiters.into_iter().for_each(|(_, _, waker)| waker.wake());
    }

    /// Waits until the condition holds. The future gives the mark at which it held.
    pub fn wait(&self, until: Until) -> Wait {
        Wait { watermark: self.clone(), until, id: None }
    }

    /// How many futures wait.
    pub fn waiters(&self) -> usize {
        self.lock().waiters.len()
    }
}

/// A wait for a [`Watermark`]; dropping it ends the wait.
pub struct Wait {
    watermark: Watermark,
    until: Until,
    id: Option<u64>,
}

impl Future for Wait {
    type Output = Result<Mark, Closed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.watermark.lock();
        if this.until.holds(&state.mark) {
            return Poll::Ready(Ok(state.mark));
        }
        if state.closed {
            return Poll::Ready(Err(Closed));
        }
        match this.id.and_then(|id| state.waiters.iter_mut().find(|(w, _, _)| *w == id)) {
            Some((_, _, waker)) => waker.clone_from(cx.waker()),
            None => {
                let id = state.next_waiter;
                state.next_waiter += 1;
                state.waiters.push((id, this.until, cx.waker().clone()));
                drop(state);
                this.id = Some(id);
            }
        }
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.watermark.lock().waiters.retain(|(w, _, _)| *w != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    fn mark(applied: u64, next: u64) -> Mark {
        Mark { applied: LogIndex(applied), next_offset: Offset(next), ..Mark::default() }
    }

    #[test]
    fn waits_for_its_own_condition() {
        let w = Watermark::new(mark(1, 0));
        let waiting = w.clone();
        let t = std::thread::spawn(move || block_on(waiting.wait(Until::Visible(Offset(1)))));
        w.advance(mark(2, 1));
        w.advance(mark(3, 2));
        assert_eq!(t.join().expect("no panic"), Ok(mark(3, 2)));
        assert_eq!(block_on(w.wait(Until::Applied(LogIndex(3)))), Ok(mark(3, 2)));
        assert_eq!(w.waiters(), 0);
    }

    #[test]
    fn a_dropped_wait_leaves_nothing() {
        let w = Watermark::default();
        let mut wait = Box::pin(w.wait(Until::Visible(Offset(0))));
        let waker = futures::task::noop_waker();
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(w.waiters(), 1);
        drop(wait);
        assert_eq!(w.waiters(), 0);
    }

    #[test]
    fn closing_ends_every_wait() {
        let w = Watermark::default();
        let waiting = w.clone();
        let t = std::thread::spawn(move || block_on(waiting.wait(Until::Visible(Offset(0)))));
        w.close();
        assert_eq!(t.join().expect("no panic"), Err(Closed));
    }
}
