//! A read of an open stream that waits in the fair queue.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::future::{Either, select};

use super::budget::{Budgets, HeldBudgets, LimitReached, Permit};
use crate::security::identity::Principal;
use crate::timers::{Sleep, TimersHandle};

/// The maximum wait of an open stream. Then the stream fails.
const QUEUED_MAX: Duration = Duration::from_secs(10);
/// The interval in which the first in a queue tries again. It is also woken when its principal releases bytes, but it may wait for
/// the limit of all principals together.
const RETRY_EVERY: Duration = Duration::from_millis(100);

impl Budgets {
    /// Like [`Budgets::read`], but waits some seconds, in the order of arrival, until the budget allows the read. Other streams
    /// of the principal may hold the whole budget for a moment, for example a thousand tails that one record wakes. An open
    /// stream does not fail because of that, and is not overtaken.
    ///
    /// # Errors
    /// [`LimitReached`], of bytes, if the budget does not allow the read in time.
    pub async fn queue_read(
        &self,
        principal: &Principal,
        wanted: usize,
        timers: &TimersHandle,
    ) -> Result<Permit, LimitReached> {
        let read = QueuedRead::new(self, principal, wanted, timers);
        match select(read, timers.at(Instant::now() + QUEUED_MAX)).await {
            Either::Left((permit, _)) => Ok(permit),
            Either::Right(_) => self.read(principal, wanted),
        }
    }
}

/// Waits until the budget allows a read. Dropping it leaves the queue.
struct QueuedRead<'a> {
    limits: &'a Budgets,
    principal: &'a Principal,
    wanted: usize,
    timers: &'a TimersHandle,
    /// Set while it is in the queue.
    ticket: Option<u64>,
    /// Wakes the first in the queue for its next attempt.
    retry: Option<Sleep>,
}

impl<'a> QueuedRead<'a> {
    /// Creates the future. It enters the queue at its first poll, if it has to wait.
    fn new(limits: &'a Budgets, principal: &'a Principal, wanted: usize, timers: &'a TimersHandle) -> QueuedRead<'a> {
        QueuedRead { limits, principal, wanted, timers, ticket: None, retry: None }
    }

    /// Leaves the queue. Returns the waker of the stream that is first now.
    fn leave(&mut self, held: &mut HeldBudgets) -> Option<Waker> {
        let ticket = self.ticket.take()?;
        let queue = held.queues.get_mut(self.principal)?;
        queue.leave(ticket);
        if queue.is_empty() {
            held.queues.remove(self.principal);
        }
        held.first(self.principal)
    }
}

impl Future for QueuedRead<'_> {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let this = &mut *self;
        let limits = this.limits;
        let mut guard = limits.lock();
        let held = &mut *guard;
        let queue = held.queues.get_mut(this.principal);
        let first = queue.as_ref().and_then(|queue| queue.first()).map(|(ticket, _)| ticket);
        let is_first = first.is_none() || first == this.ticket;
        let pause = queue.and_then(|queue| queue.paused_until(Instant::now()));
        if is_first
            && pause.is_none()
            && let Ok(mut permit) = limits.read_in(held, this.principal, this.wanted)
        {
            permit.waited = this.ticket.is_some();
            let next = this.leave(held);
            drop(guard);
            // The budget may allow the next read too.
            next.into_iter().for_each(Waker::wake);
            return Poll::Ready(permit);
        }
        let waker = cx.waker().clone();
        let ticket = this.ticket.unwrap_or(held.next_ticket);
        held.next_ticket += u64::from(this.ticket.is_none());
        held.queues.entry(this.principal.clone()).or_default().wait(ticket, waker);
        this.ticket = Some(ticket);
        drop(guard);
        if is_first {
            let at = pause.unwrap_or_else(|| Instant::now() + RETRY_EVERY);
            let mut retry = this.timers.at(at);
            if Pin::new(&mut retry).poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            this.retry = Some(retry);
        }
        Poll::Pending
    }
}

impl Drop for QueuedRead<'_> {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            let next = self.leave(&mut self.limits.lock());
            next.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use std::pin::pin;

    use futures::FutureExt as _;
    use futures::executor::block_on;

    use super::super::queue::{BETWEEN_BURSTS, BURST_BYTES, READ_BYTES_LEAST};
    use super::*;
    use crate::config;
    use crate::thread::fatal_channel;
    use crate::timers::Timers;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn limits(bytes_per_principal_max: u64, bytes_max: u64) -> Budgets {
        Budgets::new(config::Limits { bytes_per_principal_max, bytes_max, ..config::Limits::default() })
    }

    fn poll(read: &mut QueuedRead<'_>, woken: &Arc<Woken>) -> Poll<Permit> {
        Pin::new(read).poll(&mut Context::from_waker(&Waker::from(woken.clone())))
    }

    /// Each release of bytes, and each stream that leaves the queue, wakes the first in the queue. (The first also tries again
    /// after a tenth of a second, which would hide a lost wake.)
    #[test]
    fn each_release_wakes_the_first_in_the_queue_and_no_other() {
        let limits = limits(1 << 20, 4 << 20);
        let timers = TimersHandle::stopped();
        let a = Principal::new("a").expect("a name");
        let mut held: Vec<Permit> = std::iter::from_fn(|| limits.read(&a, 1 << 20).ok()).collect();
        let woken: [Arc<Woken>; 4] = Default::default();
        let counts = || woken.each_ref().map(|woken| woken.0.swap(0, Ordering::SeqCst));
        let [mut first, mut second, mut third, mut fourth] =
            [(); 4].map(|()| QueuedRead::new(&limits, &a, 1 << 20, &timers));
        for (read, woken) in [&mut first, &mut second, &mut third, &mut fourth].into_iter().zip(&woken) {
            assert!(poll(read, woken).is_pending());
        }
        assert_eq!(counts(), [0; 4]);

        drop(held.pop());
        assert_eq!(counts(), [1, 0, 0, 0], "by a dropped permit");
        assert!(poll(&mut second, &woken[1]).is_pending(), "another one is first");
        let Poll::Ready(got) = poll(&mut first, &woken[0]) else { panic!("it is first") };
        assert_eq!(counts(), [0, 1, 0, 0], "by the one that reads: the budget may allow more");
        drop(first);
        assert_eq!(counts(), [0; 4], "it has left already");
        drop(second);
        assert_eq!(counts(), [0, 0, 1, 0], "by one that leaves the queue");
        held[0].resize(1).expect("fewer");
        assert_eq!(counts(), [0, 0, 1, 0], "by a read of fewer bytes");
        // The waker of the last poll counts.
        assert!(poll(&mut fourth, &woken[0]).is_pending());
        let Poll::Ready(more) = poll(&mut third, &woken[2]) else { panic!("it is first") };
        assert_eq!(counts(), [1, 0, 0, 0]);
        drop((got, more, third, fourth));
        assert!(limits.lock().queues.is_empty());
    }

    /// Otherwise they would occupy gRPC's thread while the budget allows reads and one of them waits.
    #[test]
    fn streams_that_wait_for_each_other_pause_between_bursts() {
        let limits = limits(6 << 20, 64 << 20);
        let time = Timers::start(&fatal_channel().0).expect("a thread");
        let timers = time.handle();
        let a = Principal::new("a").expect("a name");
        let woken: Arc<Woken> = Arc::default();
        let mut held: Vec<Permit> = std::iter::from_fn(|| limits.read(&a, 1 << 20).ok()).collect();
        let [mut first, mut second, mut third] = [(); 3].map(|()| QueuedRead::new(&limits, &a, 1 << 20, &timers));
        for read in [&mut first, &mut second, &mut third] {
            assert!(poll(read, &woken).is_pending());
        }
        held.clear();
        let Poll::Ready(mut got) = poll(&mut first, &woken) else { panic!("it is first") };
        assert!(got.bytes() as u64 >= BURST_BYTES);
        let start = Instant::now();
        got.resize(got.bytes()).expect("all of it");
        // A pause, although the budget allows a read. After it, the next one tries again by itself.
        assert!(block_on(&mut second).bytes() > 0);
        assert!(start.elapsed() >= BETWEEN_BURSTS);
        drop(second);
        assert!(block_on(third).bytes() > 0);
        // No stream waits, so no read has to pause.
        assert!(limits.lock().queues.is_empty());
        let Poll::Ready(mut more) = poll(&mut QueuedRead::new(&limits, &a, 1 << 20, &timers), &woken) else {
            panic!("the budget allows it")
        };
        more.resize(100).expect("fewer");
        assert!(poll(&mut QueuedRead::new(&limits, &a, 1 << 20, &timers), &woken).is_ready());
    }

    /// A tail takes a large permit and finds one small record. If the size of the permit counted, a thousand tails would pause a
    /// thousand times, and the queue would never become empty.
    #[test]
    fn a_pause_depends_on_the_bytes_read_and_not_on_the_permit() {
        let limits = limits(6 << 20, 64 << 20);
        let timers = TimersHandle::stopped();
        let a = Principal::new("a").expect("a name");
        let woken: Arc<Woken> = Arc::default();
        let held: Vec<Permit> = std::iter::from_fn(|| limits.read(&a, 1 << 20).ok()).collect();
        let mut waiting: Vec<_> = (0..100).map(|_| QueuedRead::new(&limits, &a, 1 << 20, &timers)).collect();
        for read in &mut waiting {
            assert!(poll(read, &woken).is_pending());
        }
        drop(held);
        let mut reads = 0;
        for read in &mut waiting {
            let Poll::Ready(mut got) = poll(read, &woken) else { panic!("it is first") };
            got.resize(100).expect("fewer");
            reads += 1;
            if limits.lock().queues.get_mut(&a).expect("a queue").paused_until(Instant::now()).is_some() {
                break;
            }
        }
        assert_eq!(reads, BURST_BYTES / READ_BYTES_LEAST);
    }

    #[test]
    fn an_open_stream_waits_until_the_budget_allows_a_read() {
        let (fatal, _failures) = fatal_channel();
        let timers = Timers::start(&fatal).expect("a thread");
        let (limits, a) = (limits(1 << 20, 4 << 20), Principal::new("a").expect("a name"));
        let held: Vec<_> = std::iter::from_fn(|| limits.read(&a, 1 << 20).ok()).collect();
        let handle = timers.handle();
        let mut room = pin!(limits.queue_read(&a, 1 << 20, &handle));
        assert!(room.as_mut().now_or_never().is_none(), "the budget is used up");
        drop(held);
        assert!(block_on(room).is_ok_and(|permit| permit.bytes() > 0));
    }

    /// Of a thousand tails that lagged, those that only tried again every tenth of a second were overtaken for seconds by those
    /// that had just read.
    #[test]
    fn a_stream_that_waits_for_room_is_not_overtaken() {
        let (fatal, _failures) = fatal_channel();
        let timers = Timers::start(&fatal).expect("a thread");
        let (limits, a, handle) = (limits(1 << 20, 4 << 20), Principal::new("a").expect("a name"), timers.handle());
        let mut held: Vec<_> = std::iter::from_fn(|| limits.read(&a, 1 << 20).ok()).collect();
        let wait = || Box::pin(limits.queue_read(&a, 1 << 20, &handle));
        let mut waiting: Vec<_> = (0..5).map(|_| wait()).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        // The client of the third one is gone.
        drop(waiting.remove(2));
        drop(held.pop());
        let mut late = wait();
        assert!(late.as_mut().now_or_never().is_none(), "the budget allows one read, and others came first");
        for one in waiting.iter_mut().skip(1) {
            assert!(one.as_mut().now_or_never().is_none());
        }
        let mut first = waiting.remove(0);
        let got = first.as_mut().now_or_never().expect("it is first").expect("a permit");
        drop(first);
        drop((got, held));
        for one in waiting {
            assert!(block_on(one).is_ok());
        }
        assert!(block_on(late).is_ok());
        assert!(limits.lock().queues.is_empty());
    }
}
