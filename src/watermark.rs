//! The high watermark of a log: what readers may see, and the futures that wait for it to advance.
//!
//! `consensus` advances it, all others read it. It never decreases. A waiter is a small future, not a thread. An
//! advance wakes only the waiters whose condition holds, in rounds.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

pub use crate::log_state::Visible;
use crate::pacer::{Pacer, WaitList};
use crate::timers::TimersHandle;
use crate::types::{LogIndex, Offset};

/// The condition of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The entry is applied.
    Applied(LogIndex),
    /// The record at this offset is visible: `next_offset` is above it.
    Visible(Offset),
}

impl Until {
    fn holds(self, visible: &Visible) -> bool {
        match self {
            Until::Applied(index) => visible.applied >= index,
            Until::Visible(offset) => visible.next_offset > offset,
        }
    }
}

/// The group has stopped on this node: nothing more will become visible here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// The size of the first round, which the thread that advances the watermark wakes. A timer wakes the next round
/// after all waiters of this one have run. So `consensus` does not wake ten thousand tails, and the tails do not keep
/// gRPC's threads busy without a pause.
const FIRST_ROUND: usize = 8;

/// The size of each later round.
const ROUND: usize = 16;

/// The pause between two rounds. A gRPC thread polls its connections only when it has no future to run.
const BETWEEN_ROUNDS: Duration = Duration::from_micros(300);

/// For this many ticks after a reader has waited for a record, or was announced, another one is expected.
const READER_TICKS: u8 = 20;

/// Waiting calls are woken before tails, but one in this many waiters of a round is a tail. Otherwise clients that
/// keep more calls waiting than a round holds would block all tails.
const TAILS_PART: usize = 8;

struct Waits {
    visible: Visible,
    closed: bool,
    withdrawn: bool,
    next_waiter: u64,
    /// The number of ticks for which a reader is expected.
    reader_ticks: u8,
    /// Waiters, ordered by their condition, then by arrival.
    by_offset: BTreeMap<(Offset, u64), Waker>,
    by_index: BTreeMap<(LogIndex, u64), Waker>,
    /// Waiters whose condition holds. They are woken round by round.
    due_calls: WaitList,
    due_tails: WaitList,
    /// Each round is a burst, and each waiter counts as one unit of work.
    pacer: Pacer,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits {
            visible: Visible::default(),
            closed: false,
            withdrawn: false,
            next_waiter: 0,
            reader_ticks: 0,
            by_offset: BTreeMap::new(),
            by_index: BTreeMap::new(),
            due_calls: WaitList::default(),
            due_tails: WaitList::default(),
            pacer: Pacer::new(BETWEEN_ROUNDS),
        }
    }
}

impl Waits {
    /// Moves the waiters whose condition holds to the due ones; all of them if the watermark is closed.
    fn collect_due(&mut self) {
        let Visible { applied, next_offset, .. } = self.visible;
        let waits = |key: &(Offset, u64)| !self.closed && key.0 >= next_offset;
        while let Some(first) = self.by_offset.first_entry().filter(|e| !waits(e.key())) {
            let ((_, id), waker) = first.remove_entry();
            self.due_tails.insert(id, waker);
        }
        let waits = |key: &(LogIndex, u64)| !self.closed && key.0 > applied;
        while let Some(first) = self.by_index.first_entry().filter(|e| !waits(e.key())) {
            let ((_, id), waker) = first.remove_entry();
            self.due_calls.insert(id, waker);
        }
    }

    fn insert(&mut self, until: Until, id: u64, waker: Waker) {
        match until {
            Until::Visible(offset) => {
                self.reader_ticks = READER_TICKS;
                self.by_offset.insert((offset, id), waker)
            }
            Until::Applied(index) => self.by_index.insert((index, id), waker),
        };
    }

    /// Removes a waiter. Returns false if it has been woken already.
    fn remove(&mut self, until: Until, id: u64) -> bool {
        let (waited, due) = match until {
            Until::Visible(offset) => (self.by_offset.remove(&(offset, id)), &mut self.due_tails),
            Until::Applied(index) => (self.by_index.remove(&(index, id)), &mut self.due_calls),
        };
        waited.is_some() || due.remove(id)
    }

    fn due(&self) -> usize {
        self.due_calls.len() + self.due_tails.len()
    }

    /// Removes and returns the waiters of the next round. Empty while a round runs, or while the timer of the next
    /// one is set.
    fn round(&mut self, waiters: usize) -> Vec<Waker> {
        if self.pacer.is_running() || self.pacer.paused_until().is_some() {
            return Vec::new();
        }
        let tails_least = self.due_tails.len().min(waiters / TAILS_PART);
        let mut round = self.due_calls.take(waiters - tails_least);
        round.extend(self.due_tails.take(waiters - round.len()));
        self.pacer.begin(round.len() as u64);
        round
    }
}

#[derive(Default)]
struct SharedWaits(Mutex<Waits>);

impl SharedWaits {
    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.0.lock()
    }
}

/// Called by the timer: wakes the next round.
impl Wake for SharedWaits {
    fn wake(self: Arc<Self>) {
        let round = {
            let mut state = self.lock();
            state.pacer.resume();
            state.round(ROUND)
        };
        round.into_iter().for_each(Waker::wake);
    }
}

/// The high watermark of one log. Clones share it.
#[derive(Clone, Default)]
pub struct HighWatermark(Arc<SharedWaits>);

impl HighWatermark {
    /// Creates a high watermark that starts at `visible`.
    pub fn new(visible: Visible) -> HighWatermark {
        HighWatermark(Arc::new(SharedWaits(Mutex::new(Waits { visible, ..Waits::default() }))))
    }

    /// Returns what is visible now.
    pub fn get(&self) -> Visible {
        self.0.lock().visible
    }

    /// Advances to `to`, and wakes the waiters whose condition holds now.
    ///
    /// # Panics
    /// If any field of [`Visible`] would decrease.
    pub fn advance(&self, to: Visible) {
        let round = {
            let mut state = self.0.lock();
            let old = state.visible;
            assert!(
                to.applied >= old.applied && to.first_offset >= old.first_offset && to.next_offset >= old.next_offset,
                "the high watermark went back from {old:?} to {to:?}"
            );
            state.visible = to;
            state.collect_due();
            state.round(FIRST_ROUND)
        };
        round.into_iter().for_each(Waker::wake);
    }

    /// Ends all present and future waits with [`Closed`]. Wakes all waiters at once, not in rounds.
    pub fn close(&self) {
        let all = {
            let mut state = self.0.lock();
            state.closed = true;
            state.collect_due();
            let mut all = state.due_calls.take(usize::MAX);
            all.extend(state.due_tails.take(usize::MAX));
            state.pacer.begin(all.len() as u64);
            all
        };
        all.into_iter().for_each(Waker::wake);
    }

    /// Called when this replica differs from the others: its records must no longer be served. Also ends every wait.
    pub fn withdraw(&self) {
        self.0.lock().withdrawn = true;
        self.close();
    }

    /// Reverts [`HighWatermark::withdraw`], once this replica equals the others again.
    pub fn restore(&self) {
        let mut state = self.0.lock();
        (state.withdrawn, state.closed) = (false, false);
    }

    /// Returns true between [`HighWatermark::withdraw`] and [`HighWatermark::restore`].
    pub fn is_withdrawn(&self) -> bool {
        self.0.lock().withdrawn
    }

    /// Returns a future that waits for the condition, and returns what is visible then.
    pub fn wait(&self, until: Until, timers: &TimersHandle) -> Wait {
        Wait { watermark: self.clone(), until, id: None, timers: timers.clone() }
    }

    /// Returns true if a reader waits for a record, or did so less than a second ago.
    pub fn has_readers(&self) -> bool {
        let state = self.0.lock();
        state.reader_ticks > 0 || !state.by_offset.is_empty()
    }

    /// Expects a reader for some time.
    pub fn expect_reader(&self) {
        self.0.lock().reader_ticks = READER_TICKS;
    }

    /// Advances the time by one tick of `consensus`.
    pub fn tick(&self) {
        let mut state = self.0.lock();
        state.reader_ticks = state.reader_ticks.saturating_sub(1);
    }

    /// Returns the number of futures that wait. Those that are due but have not run are not counted.
    pub fn waiters(&self) -> usize {
        let state = self.0.lock();
        state.by_offset.len() + state.by_index.len()
    }
}

/// A future that waits for a [`HighWatermark`]. Dropping it ends the wait.
pub struct Wait {
    watermark: HighWatermark,
    until: Until,
    /// Set while the future is registered, that is, until it has run after being woken.
    id: Option<u64>,
    /// For the timer of the next round.
    timers: TimersHandle,
}

impl Future for Wait {
    type Output = Result<Visible, Closed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.watermark.0.lock();
        let outcome = match (this.until.holds(&state.visible), state.closed) {
            (true, _) => Ok(state.visible),
            (false, true) => Err(Closed),
            (false, false) => {
                let id = this.id.unwrap_or(state.next_waiter);
                state.next_waiter += u64::from(this.id.is_none());
                state.insert(this.until, id, cx.waker().clone());
                this.id = Some(id);
                return Poll::Pending;
            }
        };
        drop(state);
        this.end();
        Poll::Ready(outcome)
    }
}

impl Wait {
    /// Ends the wait. The last waiter of a round to run, or to be dropped, sets the timer of the next round.
    fn end(&mut self) {
        let Some(id) = self.id.take() else { return };
        let shared = &self.watermark.0;
        let mut state = shared.lock();
        if state.remove(self.until, id) {
            return;
        }
        if state.pacer.done(1) && state.pacer.paused_until().is_none() && state.due() > 0 {
            let next_round = state.pacer.pause(Instant::now());
            drop(state);
            self.timers.wake_at(next_round, Waker::from(shared.clone()));
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests;
