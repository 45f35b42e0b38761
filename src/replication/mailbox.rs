//! The inbox of one peer's thread: raft's messages and work to be forwarded, each in order and within a budget.
//!
//! Putting never blocks and never waits for the network. Over the budget what was to be put is given back, and its owner
//! says what that means: a raft message counts as lost, a forward is refused as not appended.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Instant;

use protobuf::Message as _;

use crate::pb::peer::RaftMessage;
use crate::replication::forward::{Forward, NotSent};

/// Raft messages of this many bytes wait for one peer; beyond, they are dropped and the peer reported unreachable.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Forwards of this many bytes wait for one peer; beyond, they are refused.
pub const FORWARD_BYTES_MAX: usize = 16 << 20;
/// This many forwards wait for one peer; beyond, they are refused.
pub const FORWARDS_MAX: usize = 4096;

/// What a queued message costs besides its bytes: a heartbeat must not be free.
const MESSAGE_OVERHEAD_BYTES: usize = 256;

#[derive(Default)]
struct State {
    messages: VecDeque<(usize, RaftMessage)>,
    message_bytes: usize,
    forwards: VecDeque<Forward>,
    forward_bytes: usize,
    poked: bool,
    stopped: bool,
    waker: Option<Waker>,
}

/// What is in a mailbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Raft messages are.
    pub messages: bool,
    /// Forwards are.
    pub forwards: bool,
    /// The peer was heard from since the last look: dial at once.
    pub poked: bool,
    /// The thread is to end.
    pub stopped: bool,
}

/// One peer's inbox, shared by its thread and everybody who sends.
#[derive(Default)]
pub struct Mailbox(Mutex<State>);

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a raft message, or gives it back: over the budget, or stopped.
    ///
    /// # Errors
    /// The message.
    pub fn put_message(&self, message: RaftMessage) -> Result<(), Box<RaftMessage>> {
        let bytes = usize::try_from(message.compute_size()).unwrap_or(usize::MAX) + MESSAGE_OVERHEAD_BYTES;
        let mut state = self.lock();
        if state.stopped || state.message_bytes + bytes > MESSAGE_BYTES_MAX {
            return Err(Box::new(message));
        }
        state.message_bytes += bytes;
        state.messages.push_back((bytes, message));
        wake(state);
        Ok(())
    }

    /// Puts work, or gives it back with whether the thread has stopped (otherwise it is over the budget).
    ///
    /// # Errors
    /// The work, and true for stopped.
    pub fn put_forward(&self, forward: Forward) -> Result<(), (Box<Forward>, bool)> {
        let bytes = forward.bytes();
        let mut state = self.lock();
        let full = state.forward_bytes + bytes > FORWARD_BYTES_MAX || state.forwards.len() >= FORWARDS_MAX;
        if state.stopped || full {
            return Err((Box::new(forward), state.stopped));
        }
        state.forward_bytes += bytes;
        state.forwards.push_back(forward);
        wake(state);
        Ok(())
    }

    /// The peer was heard from.
    pub fn poke(&self) {
        let mut state = self.lock();
        state.poked = true;
        wake(state);
    }

    /// The thread is to end; nothing can be put any more.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        wake(state);
    }

    /// What is there. Whoever puts something from here on wakes `cx`.
    pub fn look(&self, cx: &Context<'_>) -> Waiting {
        let mut state = self.lock();
        if !state.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Waiting {
            messages: !state.messages.is_empty(),
            forwards: !state.forwards.is_empty(),
            poked: std::mem::take(&mut state.poked),
            stopped: state.stopped,
        }
    }

    /// Refuses the work whose deadline has passed.
    pub fn expire(&self, now: Instant) {
        let mut passed = Vec::new();
        {
            let mut state = self.lock();
            if !state.forwards.iter().any(|f| f.deadline().is_some_and(|d| d <= now)) {
                return;
            }
            for forward in std::mem::take(&mut state.forwards) {
                if forward.deadline().is_some_and(|d| d <= now) {
                    state.forward_bytes -= forward.bytes();
                    passed.push(forward);
                } else {
                    state.forwards.push_back(forward);
                }
            }
        }
        passed.into_iter().for_each(|f| f.refuse(NotSent::DeadlinePassed));
    }

    /// Takes messages in order, at least one if there is one, up to `bytes_max`.
    pub fn take_messages(&self, bytes_max: usize) -> Vec<RaftMessage> {
        let mut state = self.lock();
        let (mut taken, mut sum) = (Vec::new(), 0);
        while let Some((bytes, _)) = state.messages.front() {
            if !taken.is_empty() && sum + bytes > bytes_max {
                break;
            }
            if let Some((bytes, message)) = state.messages.pop_front() {
                sum += bytes;
                taken.push(message);
            }
        }
        state.message_bytes -= sum;
        taken
    }

    /// Takes work in order, at least one piece if there is one, up to `count_max` and `bytes_max`.
    pub fn take_forwards(&self, count_max: usize, bytes_max: usize) -> Vec<Forward> {
        let mut state = self.lock();
        let (mut taken, mut sum) = (Vec::new(), 0);
        while let Some(bytes) = state.forwards.front().map(Forward::bytes) {
            if taken.len() >= count_max || (!taken.is_empty() && sum + bytes > bytes_max) {
                break;
            }
            sum += bytes;
            taken.extend(state.forwards.pop_front());
        }
        state.forward_bytes -= sum;
        taken
    }
}

/// Wakes the thread after the lock is released.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::handle::Proposal;
    use crate::pb::peer::Entry;
    use crate::replication::forward::Work;
    use crate::reply::reply;
    use crate::storage::entry::Kind;
    use crate::types::GroupId;

    fn message(index: u64, bytes: usize) -> RaftMessage {
        let entry = Entry { data: vec![7; bytes].into(), ..Entry::default() };
        RaftMessage { index, entries: vec![entry], ..RaftMessage::default() }
    }

    #[test]
    fn messages_keep_their_order_and_the_budget() {
        let mailbox = Mailbox::default();
        for index in 0..15 {
            mailbox.put_message(message(index, 1 << 20)).expect("within the budget");
        }
        assert_eq!(mailbox.put_message(message(15, 1 << 20)).map_err(|m| m.index), Err(15));
        mailbox.put_message(message(16, 1000)).expect("a small one still fits");
        assert_eq!(mailbox.take_messages(1 << 20).iter().map(|m| m.index).collect::<Vec<_>>(), [0]);
        let rest: Vec<u64> = std::iter::repeat_with(|| mailbox.take_messages(3 << 20))
            .take_while(|taken| !taken.is_empty())
            .flat_map(|taken| taken.into_iter().map(|m| m.index))
            .collect();
        assert_eq!(rest, (1..15).chain([16]).collect::<Vec<_>>());
        assert_eq!(mailbox.lock().message_bytes, 0);
    }

    #[test]
    fn forwards_are_refused_beyond_the_budget_and_after_the_stop() {
        let mailbox = Mailbox::default();
        let forward = |bytes: usize| {
            let proposal = Proposal::new(GroupId(1), Kind::Records, 1, vec![0; bytes].as_slice().into());
            Forward { principal: "root".to_owned(), work: Work::Propose(proposal, reply().0) }
        };
        mailbox.put_forward(forward(8 << 20)).expect("within the budget");
        assert!(mailbox.put_forward(forward(8 << 20)).is_err_and(|(_, stopped)| !stopped));
        assert_eq!(mailbox.take_forwards(10, 1).len(), 1);
        mailbox.stop();
        assert!(mailbox.put_forward(forward(1)).is_err_and(|(_, stopped)| stopped));
        assert!(mailbox.put_message(message(1, 1)).is_err());
    }
}
