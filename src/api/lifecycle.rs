//! Informs open requests that the node serves, that it stops, or that permissions must be checked again.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard};

/// The phases of a node from start to stop. A node never returns to an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not a member of a cluster yet.
    #[default]
    Joining,
    /// A member: handlers run.
    Serving,
    /// Requests are served, but health checks return NOT_SERVING, so that clients use another node.
    Leaving,
    /// New requests fail with STOPPING.
    Stopping,
}

/// The state that a request has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The phase of the node.
    pub phase: Phase,
    /// Incremented when permissions must be checked again.
    pub rechecks: u64,
}

#[derive(Default)]
struct LifecycleState {
    now: Observed,
    next_waiter: u64,
    waiters: BTreeMap<u64, Waker>,
}

/// The phase, and the requests that wait for a change. Clones share the state. The limits on streams bound the number of waiters.
#[derive(Clone, Default)]
pub struct Lifecycle(Arc<Mutex<LifecycleState>>);

impl Lifecycle {
    /// Returns the current state.
    pub fn now(&self) -> Observed {
        self.lock().now
    }

    /// Advances to a phase. An earlier phase than the current one is ignored.
    pub fn enter(&self, phase: Phase) {
        self.change(|seen| seen.phase = seen.phase.max(phase));
    }

    /// Makes every open stream check its permissions again.
    pub fn recheck(&self) {
        self.change(|seen| seen.rechecks += 1);
    }

    /// Waits until the state differs from `seen`.
    pub fn changed(&self, seen: Observed) -> Changed {
        Changed { lifecycle: self.clone(), seen, id: None }
    }

    fn change(&self, change: impl FnOnce(&mut Observed)) {
        let waiters = {
            let mut inner = self.lock();
            change(&mut inner.now);
            std::mem::take(&mut inner.waiters)
        };
        waiters.into_values().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, LifecycleState> {
        self.0.lock()
    }
}

/// Waits for a change. Dropping it ends the wait.
pub struct Changed {
    lifecycle: Lifecycle,
    seen: Observed,
    id: Option<u64>,
}

impl Future for Changed {
    type Output = Observed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Observed> {
        let this = &mut *self;
        let mut inner = this.lifecycle.lock();
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
            self.lifecycle.lock().waiters.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn a_change_wakes_and_a_dropped_wait_is_removed() {
        let state = Lifecycle::default();
        let seen = state.now();
        let waiting = state.clone();
        let thread = std::thread::spawn(move || block_on(waiting.changed(seen)));
        state.enter(Phase::Stopping);
        assert_eq!(thread.join().expect("no panic").phase, Phase::Stopping);
        state.enter(Phase::Serving);
        assert_eq!(state.now().phase, Phase::Stopping, "it never goes back");

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
