//! What every open call must hear of: that the node serves, that it stops, that rights are to be checked again.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard};

/// How far the node is in its life. It only goes forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not a member of a cluster yet.
    #[default]
    Joining,
    /// Takes calls.
    Serving,
    /// Still takes calls, but health says no: clients should go elsewhere.
    Leaving,
    /// Takes no new calls.
    Stopping,
}

/// What a call has heard so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The phase.
    pub phase: Phase,
    /// How often rights were to be checked again.
    pub rechecks: u64,
}

#[derive(Default)]
struct Inner {
    now: Seen,
    next_waiter: u64,
    waiters: BTreeMap<u64, Waker>,
}

/// The state, shared; a clone is the same. Its waiters are bounded by the limits on streams.
#[derive(Clone, Default)]
pub struct State(Arc<Mutex<Inner>>);

impl State {
    /// As it is now.
    pub fn now(&self) -> Seen {
        self.lock().now
    }

    /// Goes on to a later phase; never back.
    pub fn enter(&self, phase: Phase) {
        self.change(|seen| seen.phase = seen.phase.max(phase));
    }

    /// Has every open call check its rights again.
    pub fn recheck(&self) {
        self.change(|seen| seen.rechecks += 1);
    }

    /// Waits until the state differs from what was seen.
    pub fn changed(&self, seen: Seen) -> Changed {
        Changed { state: self.clone(), seen, id: None }
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        let waiters = {
            let mut inner = self.lock();
            change(&mut inner.now);
            std::mem::take(&mut inner.waiters)
        };
        waiters.into_values().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every critical section leaves the state whole.
        self.0.lock()
    }
}

/// A wait for a change; dropping it ends the wait.
pub struct Changed {
    state: State,
    seen: Seen,
    id: Option<u64>,
}

impl Future for Changed {
    type Output = Seen;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Seen> {
        let this = &mut *self;
        let mut inner = this.state.lock();
        if inner.now != this.seen {
            return Poll::Ready(inner.now);
        }
        let id = match this.id {
            Some(id) => id,
            None => {
                inner.next_waiter += 1;
                inner.next_waiter
            }
        };
        inner.waiters.insert(id, cx.waker().clone());
        drop(inner);
        this.id = Some(id);
        Poll::Pending
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.state.lock().waiters.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn a_change_wakes_and_a_dropped_wait_leaves_nothing() {
        let state = State::default();
        let seen = state.now();
        let waiting = state.clone();
        let thread = std::thread::spawn(move || block_on(waiting.changed(seen)));
        state.enter(Phase::Stopping);
        assert_eq!(thread.join().expect("no panic").phase, Phase::Stopping);
        state.enter(Phase::Serving);
        assert_eq!(state.now().phase, Phase::Stopping, "never back");

        let mut wait = Box::pin(state.changed(state.now()));
        let waker = futures::task::noop_waker();
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(state.lock().waiters.len(), 1);
        drop(wait);
        assert_eq!(state.lock().waiters.len(), 0);
        let seen = state.now();
        state.recheck();
        assert_eq!(block_on(state.changed(seen)).rechecks, seen.rechecks + 1);
    }
}
