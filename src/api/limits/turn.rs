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
