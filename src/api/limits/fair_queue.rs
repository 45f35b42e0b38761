//! Who waits for bytes to read into has a turn: of one principal, in the order of coming.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::{BETWEEN_BURSTS, BURST_BYTES, Held, Limits, Permit, READ_AGAIN, READ_BYTES_LEAST};
use crate::security::identity::Principal;
use crate::timers::{Sleep, TimersHandle};

/// Those of one principal who wait; there is none where nobody does.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Waiting>,
    /// What was read since the last pause.
    burst_bytes: u64,
    /// Nobody gets anything before.
    pause_until: Option<Instant>,
}

impl Queue {
    /// One who had its turn has read so much, which may be far less than the room it got. If it is enough, the pause begins.
    pub(super) fn has_read(&mut self, bytes: u64) {
        // A small read is work, too.
        self.burst_bytes += bytes.max(READ_BYTES_LEAST);
        if self.burst_bytes >= BURST_BYTES {
            self.burst_bytes = 0;
            self.pause_until = Some(Instant::now() + BETWEEN_BURSTS);
        }
    }

    /// The rest of the pause.
    fn pause(&mut self) -> Option<Instant> {
        self.pause_until = self.pause_until.filter(|until| *until > Instant::now());
        self.pause_until
    }
}

/// One who waits; tickets grow along a queue.
pub(super) struct Waiting {
    ticket: u64,
    pub(super) waker: Waker,
}

/// The turn of one who waits for bytes to read into.
pub(super) struct Turn<'a> {
    limits: &'a Limits,
    principal: &'a Principal,
    wanted: usize,
    timers: &'a TimersHandle,
    /// In the queue.
    ticket: Option<u64>,
    /// Of who is first: it asks again.
    again: Option<Sleep>,
}

impl<'a> Turn<'a> {
    /// Not in the queue yet.
    pub(super) fn new(
        limits: &'a Limits,
        principal: &'a Principal,
        wanted: usize,
        timers: &'a TimersHandle,
    ) -> Turn<'a> {
        Turn { limits, principal, wanted, timers, ticket: None, again: None }
    }

    /// Leaves the queue; gives whose turn it is now.
    fn leave(&mut self, held: &mut Held) -> Option<Waker> {
        let ticket = self.ticket.take()?;
        let queue = held.queues.get_mut(self.principal)?;
        if let Ok(at) = queue.waiting.binary_search_by_key(&ticket, |waiting| waiting.ticket) {
            queue.waiting.remove(at);
        }
        if queue.waiting.is_empty() {
            held.queues.remove(self.principal);
        }
        held.first(self.principal)
    }
}

impl Future for Turn<'_> {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let this = &mut *self;
        let limits = this.limits;
        let mut guard = limits.lock();
        let held = &mut *guard;
        let queue = held.queues.get_mut(this.principal);
        let first = queue.as_ref().and_then(|queue| queue.waiting.front()).map(|first| first.ticket);
        let is_first = first.is_none() || first == this.ticket;
        let pause = queue.and_then(Queue::pause);
        if is_first
            && pause.is_none()
            && let Ok(mut permit) = limits.read_in(held, this.principal, this.wanted)
        {
            permit.waited = this.ticket.is_some();
            let next = this.leave(held);
            drop(guard);
            // There may be room for one more.
            next.into_iter().for_each(Waker::wake);
            return Poll::Ready(permit);
        }
        let waker = cx.waker().clone();
        let queue = held.queues.entry(this.principal.clone()).or_default();
        match this.ticket {
            None => {
                let ticket = held.next_ticket;
                held.next_ticket += 1;
                queue.waiting.push_back(Waiting { ticket, waker });
                this.ticket = Some(ticket);
            }
            Some(ticket) => {
                if let Ok(at) = queue.waiting.binary_search_by_key(&ticket, |waiting| waiting.ticket) {
                    queue.waiting[at].waker = waker;
                }
            }
        }
        drop(guard);
        if is_first {
            let at = pause.unwrap_or_else(|| Instant::now() + READ_AGAIN);
            let mut again = this.timers.at(at);
            if Pin::new(&mut again).poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            this.again = Some(again);
        }
        Poll::Pending
    }
}

impl Drop for Turn<'_> {
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

    use futures::executor::block_on;

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

    fn limits(bytes_per_principal_max: u64, bytes_max: u64) -> Limits {
        Limits::new(config::Limits { bytes_per_principal_max, bytes_max, ..config::Limits::default() })
    }

    fn poll(turn: &mut Turn<'_>, woken: &Arc<Woken>) -> Poll<Permit> {
        Pin::new(turn).poll(&mut Context::from_waker(&Waker::from(woken.clone())))
    }

    /// Whoever gives something back, or leaves the queue, wakes who is first then. (That who is first asks again after a
    /// tenth of a second hides a wake that is lost.)
    #[test]
    fn each_change_wakes_who_is_first_and_nobody_else() {
        let limits = limits(1 << 20, 4 << 20);
        let timers = TimersHandle::stopped();
        let a = Principal::new("a").expect("a name");
        let mut held: Vec<Permit> = std::iter::from_fn(|| limits.read(&a, 1 << 20).ok()).collect();
        let woken: [Arc<Woken>; 4] = Default::default();
        let counts = || woken.each_ref().map(|woken| woken.0.swap(0, Ordering::SeqCst));
        let [mut first, mut second, mut third, mut fourth] = [(); 4].map(|()| Turn::new(&limits, &a, 1 << 20, &timers));
        for (turn, woken) in [&mut first, &mut second, &mut third, &mut fourth].into_iter().zip(&woken) {
            assert!(poll(turn, woken).is_pending());
        }
        assert_eq!(counts(), [0; 4]);

        drop(held.pop());
        assert_eq!(counts(), [1, 0, 0, 0], "by a permit that is dropped");
        assert!(poll(&mut second, &woken[1]).is_pending(), "not its turn");
        let Poll::Ready(got) = poll(&mut first, &woken[0]) else { panic!("its turn") };
        assert_eq!(counts(), [0, 1, 0, 0], "by who was first: there may be room for more");
        drop(first);
        assert_eq!(counts(), [0; 4], "it has left already");
        drop(second);
        assert_eq!(counts(), [0, 0, 1, 0], "by who goes away");
        held[0].fits(1).expect("fewer");
        assert_eq!(counts(), [0, 0, 1, 0], "by a read that brought fewer");
        // Who waits now is who polled last.
        assert!(poll(&mut fourth, &woken[0]).is_pending());
        let Poll::Ready(more) = poll(&mut third, &woken[2]) else { panic!("its turn") };
        assert_eq!(counts(), [1, 0, 0, 0]);
        drop((got, more, third, fourth));
        assert!(limits.lock().queues.is_empty());
    }

    /// Else gRPC's thread would be theirs alone for as long as there is room and somebody waits for it.
    #[test]
    fn who_waits_for_each_other_makes_a_pause_between_bursts() {
        let limits = limits(6 << 20, 64 << 20);
        let time = Timers::start(&fatal_channel().0).expect("a thread");
        let timers = time.handle();
        let a = Principal::new("a").expect("a name");
        let woken: Arc<Woken> = Arc::default();
        let mut held: Vec<Permit> = std::iter::from_fn(|| limits.read(&a, 1 << 20).ok()).collect();
        let [mut first, mut second, mut third] = [(); 3].map(|()| Turn::new(&limits, &a, 1 << 20, &timers));
        for turn in [&mut first, &mut second, &mut third] {
            assert!(poll(turn, &woken).is_pending());
        }
        held.clear();
        let Poll::Ready(mut got) = poll(&mut first, &woken) else { panic!("its turn") };
        assert!(got.bytes() as u64 >= BURST_BYTES);
        let start = Instant::now();
        got.fits(got.bytes()).expect("all of it");
        // A pause, although there is room. It asks again by itself behind it.
        assert!(block_on(&mut second).bytes() > 0);
        assert!(start.elapsed() >= BETWEEN_BURSTS);
        drop(second);
        assert!(block_on(third).bytes() > 0);
        // Nobody waits, so nobody makes a pause.
        assert!(limits.lock().queues.is_empty());
        let Poll::Ready(mut more) = poll(&mut Turn::new(&limits, &a, 1 << 20, &timers), &woken) else { panic!("room") };
        more.fits(100).expect("fewer");
        assert!(poll(&mut Turn::new(&limits, &a, 1 << 20, &timers), &woken).is_ready());
    }

    /// A tail takes room for much and finds one small record. A thousand such would else make a thousand pauses, and a queue
    /// that was there once would not end.
    #[test]
    fn a_pause_is_for_what_was_read_and_not_for_the_room() {
        let limits = limits(6 << 20, 64 << 20);
        let timers = TimersHandle::stopped();
        let a = Principal::new("a").expect("a name");
        let woken: Arc<Woken> = Arc::default();
        let held: Vec<Permit> = std::iter::from_fn(|| limits.read(&a, 1 << 20).ok()).collect();
        let mut waiting: Vec<_> = (0..100).map(|_| Turn::new(&limits, &a, 1 << 20, &timers)).collect();
        for turn in &mut waiting {
            assert!(poll(turn, &woken).is_pending());
        }
        drop(held);
        let mut reads = 0;
        for turn in &mut waiting {
            let Poll::Ready(mut got) = poll(turn, &woken) else { panic!("its turn") };
            got.fits(100).expect("fewer");
            reads += 1;
            if limits.lock().queues[&a].pause_until.is_some() {
                break;
            }
        }
        assert_eq!(reads, BURST_BYTES / READ_BYTES_LEAST);
    }
}
