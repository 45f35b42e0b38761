//! Who waits for bytes to read into has a turn: of one principal, in the order of coming.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::{Held, Limits, Permit};
use crate::security::identity::Principal;

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
    /// In the queue.
    ticket: Option<u64>,
}

impl<'a> Turn<'a> {
    /// Not in the queue yet.
    pub(super) fn new(limits: &'a Limits, principal: &'a Principal, wanted: usize) -> Turn<'a> {
        Turn { limits, principal, wanted, ticket: None }
    }

    /// Leaves the queue; gives whose turn it is now.
    fn leave(&mut self, held: &mut Held) -> Option<Waker> {
        let ticket = self.ticket.take()?;
        let queue = held.queues.get_mut(self.principal)?;
        if let Ok(at) = queue.binary_search_by_key(&ticket, |waiting| waiting.ticket) {
            queue.remove(at);
        }
        if queue.is_empty() {
            held.queues.remove(self.principal);
        }
        held.first(self.principal)
    }
}

impl Future for Turn<'_> {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let limits = self.limits;
        let mut guard = limits.lock();
        let held = &mut *guard;
        let first = held.queues.get(self.principal).and_then(|queue| queue.front()).map(|first| first.ticket);
        if (first.is_none() || first == self.ticket)
            && let Ok(permit) = limits.read_in(held, self.principal, self.wanted)
        {
            let next = self.leave(held);
            drop(guard);
            // There may be room for one more.
            next.into_iter().for_each(Waker::wake);
            return Poll::Ready(permit);
        }
        let waker = cx.waker().clone();
        let queue = held.queues.entry(self.principal.clone()).or_default();
        match self.ticket {
            None => {
                let ticket = held.next_ticket;
                held.next_ticket += 1;
                queue.push_back(Waiting { ticket, waker });
                self.ticket = Some(ticket);
            }
            Some(ticket) => {
                if let Ok(at) = queue.binary_search_by_key(&ticket, |waiting| waiting.ticket) {
                    queue[at].waker = waker;
                }
            }
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

    use super::*;
    use crate::config;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn poll(turn: &mut Turn<'_>, woken: &Arc<Woken>) -> Poll<Permit> {
        Pin::new(turn).poll(&mut Context::from_waker(&Waker::from(woken.clone())))
    }

    /// Whoever gives something back, or leaves the queue, wakes who is first then. (That each asks again after a tenth of a
    /// second hides a wake that is lost.)
    #[test]
    fn each_change_wakes_who_is_first_and_nobody_else() {
        let limits = Limits::new(config::Limits {
            bytes_per_principal_max: 1 << 20,
            bytes_max: 4 << 20,
            ..config::Limits::default()
        });
        let a = Principal::new("a").expect("a name");
        let mut held: Vec<Permit> = std::iter::from_fn(|| limits.read(&a, 1 << 20).ok()).collect();
        let woken: [Arc<Woken>; 4] = Default::default();
        let counts = || woken.each_ref().map(|woken| woken.0.swap(0, Ordering::SeqCst));
        let [mut first, mut second, mut third, mut fourth] = [(); 4].map(|()| Turn::new(&limits, &a, 1 << 20));
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
}
