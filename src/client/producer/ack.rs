//! The acknowledgement of one record, and the handle that waits for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::client::error::Result;
use crate::client::wait::{Waited, wait_for};

/// A majority has the record on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The position in the log. `None` if the record is in the log, and the answer that contained its offset is lost for
    /// good.
    pub offset: Option<u64>,
    /// An earlier attempt had appended the record, and its answer was lost.
    pub duplicate: bool,
}

/// Where the result of a record is stored until its handle takes it.
#[derive(Debug, Default)]
pub(super) struct AckSlot(Mutex<SlotState>);

#[derive(Debug, Default)]
struct SlotState {
    result: Option<Result<Ack>>,
    /// Of threads and futures that wait, usually one.
    wakers: Vec<Waker>,
}

impl AckSlot {
    pub fn complete(&self, result: Result<Ack>) {
        let mut state = self.0.lock();
        state.result = Some(result);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// The handle of a record that was sent. It can be waited for by a thread, or as a future. Dropping it does not take the
/// record back.
#[derive(Debug)]
pub struct AckHandle(Arc<AckSlot>);

impl AckHandle {
    pub(super) fn new(slot: Arc<AckSlot>) -> AckHandle {
        AckHandle(slot)
    }

    /// Waits until the record is acknowledged or has failed.
    ///
    /// # Errors
    /// Why the record failed. The error says whether it may be in the log nevertheless.
    pub fn wait(self) -> Result<Ack> {
        match wait_for(&self, None, None) {
            Waited::Ready(result) => result,
            Waited::TimedOut | Waited::Stopped => unreachable!("the wait has no end"),
        }
    }

    /// Waits at most this long. Returns `None` if the result does not exist yet; then the handle can be asked again.
    ///
    /// # Errors
    /// As [`AckHandle::wait`].
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<Ack>> {
        match wait_for(self, Some(Instant::now() + timeout), None) {
            Waited::Ready(result) => Some(result),
            Waited::TimedOut | Waited::Stopped => None,
        }
    }

    /// Returns the result if it exists. Does not wait.
    pub fn result(&self) -> Option<Result<Ack>> {
        self.0.0.lock().result.clone()
    }
}

impl Future for &AckHandle {
    type Output = Result<Ack>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Ack>> {
        let mut state = self.0.0.lock();
        if let Some(result) = &state.result {
            return Poll::Ready(result.clone());
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Future for AckHandle {
    type Output = Result<Ack>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Ack>> {
        Pin::new(&mut &*self).poll(context)
    }
}
