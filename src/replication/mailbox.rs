//! The inbox of one peer's thread: queues of raft messages and of forwarded work, each in order and with a budget.
//!
//! - Messages without entries have a separate queue and are sent first. Sending 16 MiB of entries takes 1.3 s at 100
//!   Mbit/s; if a heartbeat waited for that, its leader could lose leadership. `consensus/peer_inbox.rs` defines
//!   which messages keep their order.
//! - Bulk messages (`consensus/group/lanes.rs`) have a third queue, which is sent over another connection
//!   (`bulk.rs`). A fresh entry of one group never waits for what a follower of another group lacks.
//! - Putting never blocks and never waits for the network. A message or a piece of work over the budget is returned
//!   to the caller: a raft message is treated as lost, and work is refused as not appended.

use std::collections::VecDeque;
use std::task::{Context, Waker};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use protobuf::Message as _;

use crate::consensus::is_ordered;
use crate::pb::peer::RaftMessage;
use crate::replication::forward::{Forward, NotSent};

/// The budget of raft messages for one peer. Messages over it are dropped, and the peer is reported as unreachable.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// The budget of the messages that are sent first.
pub const FIRST_BYTES_MAX: usize = 1 << 20;
/// A message up to this size may be sent by the thread that queues it (`direct.rs`).
const SMALL_BYTES_MAX: usize = 16 << 10;
/// The budget of bulk messages for one peer. For those over it, only their own group is reported as unreachable.
pub const BULK_BYTES_MAX: usize = 16 << 20;
/// The byte budget of forwards for one peer. Forwards over it are refused.
pub const FORWARD_BYTES_MAX: usize = 16 << 20;
/// The maximum number of forwards for one peer. Further ones are refused.
pub const FORWARDS_MAX: usize = 4096;

/// The number of newest messages among which a repeated append is searched.
const NEWEST_MESSAGES: usize = 16;
/// The same for bulk. The budget contains 64 messages of full size, perhaps of as many groups.
const NEWEST_BULK_MESSAGES: usize = 128;

/// Counted for each message in addition to its bytes, so that heartbeats use the budget, too.
const MESSAGE_OVERHEAD_BYTES: usize = 256;

/// Raft messages, with their sizes.
#[derive(Default)]
struct RaftQueue {
    messages: VecDeque<(usize, RaftMessage)>,
    bytes: usize,
}

impl RaftQueue {
    fn put(&mut self, message: RaftMessage, bytes_max: usize) -> Result<(), Box<RaftMessage>> {
        let bytes = usize::try_from(message.compute_size()).unwrap_or(usize::MAX) + MESSAGE_OVERHEAD_BYTES;
        if self.bytes + bytes > bytes_max {
            return Err(Box::new(message));
        }
        self.bytes += bytes;
        self.messages.push_back((bytes, message));
        Ok(())
    }

    /// Returns true if the newest message of the group is the same append. Only the newest `messages` of the queue are
    /// compared. While raft does not know the follower's last index, it repeats an append at each heartbeat response. On
    /// a slow network, all these copies would delay later messages.
    fn has_latest(&self, message: &RaftMessage, messages: usize) -> bool {
        let newest = self.messages.iter().rev().take(messages).find(|(_, queued)| queued.group == message.group);
        let same = |a: &RaftMessage, b: &RaftMessage| {
            (a.type_, a.term, a.index, a.log_term, a.entries.len())
                == (b.type_, b.term, b.index, b.log_term, b.entries.len())
        };
        !message.entries.is_empty() && newest.is_some_and(|(_, queued)| same(queued, message))
    }

    /// Removes messages from the front, up to `bytes_max`, but at least one unless the queue is empty.
    fn take(&mut self, bytes_max: usize) -> Vec<RaftMessage> {
        let (mut taken, mut sum) = (Vec::new(), 0);
        while let Some((bytes, _)) = self.messages.front() {
            if !taken.is_empty() && sum + bytes > bytes_max {
                break;
            }
            if let Some((bytes, message)) = self.messages.pop_front() {
                sum += bytes;
                taken.push(message);
            }
        }
        self.bytes -= sum;
        taken
    }
}

#[derive(Default)]
struct MailboxState {
    first: RaftQueue,
    messages: RaftQueue,
    bulk: RaftQueue,
    forwards: VecDeque<Forward>,
    forward_bytes: usize,
    poked: bool,
    stopped: bool,
    waker: Option<Waker>,
}

/// What is queued in a mailbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailboxContents {
    /// Raft messages are queued.
    pub messages: bool,
    /// Bulk messages are queued.
    pub bulk: bool,
    /// Forwards are queued.
    pub forwards: bool,
    /// The peer was heard from since the last call, so it can be dialled at once.
    pub poked: bool,
    /// The thread must end.
    pub stopped: bool,
}

/// One peer's inbox, shared by its thread and all senders.
#[derive(Default)]
pub struct Mailbox(Mutex<MailboxState>);

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, MailboxState> {
        self.0.lock()
    }

    /// Queues a raft message, and wakes the thread unless `send` sends it.
    ///
    /// # Errors
    /// Returns the message if it exceeds the budget or the mailbox is stopped.
    pub fn put_message(&self, message: RaftMessage, send: impl FnOnce() -> bool) -> Result<(), Box<RaftMessage>> {
        let mut state = self.lock();
        if state.stopped {
            return Err(Box::new(message));
        }
        if state.messages.has_latest(&message, NEWEST_MESSAGES) || state.bulk.has_latest(&message, NEWEST_BULK_MESSAGES)
        {
            return Ok(());
        }
        let is_small = !message.bulk
            && message.snapshot.is_none()
            && state.first.messages.is_empty()
            && state.messages.messages.is_empty();
        if message.bulk {
            state.bulk.put(message, BULK_BYTES_MAX)?;
        } else if is_ordered(&message) {
            state.messages.put(message, MESSAGE_BYTES_MAX)?;
        } else {
            state.first.put(message, FIRST_BYTES_MAX)?;
        }
        if is_small && state.first.bytes + state.messages.bytes <= SMALL_BYTES_MAX {
            drop(state);
            if send() {
                return Ok(());
            }
            state = self.lock();
        }
        wake(state);
        Ok(())
    }

    /// Queues work.
    ///
    /// # Errors
    /// Returns the work if it exceeds the budget (`false`) or the mailbox is stopped (`true`).
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

    /// Tells the thread that the peer was heard from.
    pub fn poke(&self) {
        let mut state = self.lock();
        state.poked = true;
        wake(state);
    }

    /// Tells the thread to end. From now on nothing can be queued.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        wake(state);
    }

    /// Returns what is queued. `cx` is woken when more is queued.
    pub fn contents(&self, cx: &Context<'_>) -> MailboxContents {
        let mut state = self.lock();
        if !state.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        MailboxContents {
            messages: !state.first.messages.is_empty() || !state.messages.messages.is_empty(),
            bulk: !state.bulk.messages.is_empty(),
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

    /// Returns messages up to `bytes_max`, but at least one if any is queued. Messages that are sent first are not
    /// combined with others in one request, because they would have to wait until all of it is sent.
    pub fn take_messages(&self, bytes_max: usize) -> Vec<RaftMessage> {
        let mut state = self.lock();
        let first = state.first.take(bytes_max);
        if first.is_empty() { state.messages.take(bytes_max) } else { first }
    }

    /// Returns bulk messages up to `bytes_max`, but at least one if any is queued.
    pub fn take_bulk(&self, bytes_max: usize) -> Vec<RaftMessage> {
        self.lock().bulk.take(bytes_max)
    }

    /// Returns work in order, up to `count_max` and `bytes_max`, but at least one piece if any is queued.
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

/// Releases the lock and wakes the thread.
fn wake(mut state: MutexGuard<'_, MailboxState>) {
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
    use crate::storage::entry::EntryKind;
    use crate::types::GroupId;

    fn message(index: u64, bytes: usize) -> RaftMessage {
        let entry = Entry { data: vec![7; bytes].into(), ..Entry::default() };
        RaftMessage { index, entries: vec![entry], ..RaftMessage::default() }
    }

    #[test]
    fn messages_keep_their_order_and_the_budget() {
        let mailbox = Mailbox::default();
        for index in 0..15 {
            mailbox.put_message(message(index, 1 << 20), || false).expect("within the budget");
        }
        assert_eq!(mailbox.put_message(message(15, 1 << 20), || false).map_err(|m| m.index), Err(15));
        mailbox.put_message(message(16, 1000), || false).expect("a small one still fits");
        assert_eq!(mailbox.take_messages(1 << 20).iter().map(|m| m.index).collect::<Vec<_>>(), [0]);
        let rest: Vec<u64> = std::iter::repeat_with(|| mailbox.take_messages(3 << 20))
            .take_while(|taken| !taken.is_empty())
            .flat_map(|taken| taken.into_iter().map(|m| m.index))
            .collect();
        assert_eq!(rest, (1..15).chain([16]).collect::<Vec<_>>());
        assert_eq!(mailbox.lock().messages.bytes, 0);
    }

    /// raft repeats an append that is not acknowledged. An entry of 2 MB was sent ten times over a link of 20 Mbit/s.
    #[test]
    fn an_append_that_is_queued_is_not_queued_again() {
        let mailbox = Mailbox::default();
        let append = |index, term, bytes| {
            let entry = crate::pb::peer::Entry { data: vec![0; bytes].into(), ..Default::default() };
            RaftMessage { type_: 3, term, entries: vec![entry], ..message(index, 0) }
        };
        for (index, term, bytes) in [(1, 2, 2 << 20), (1, 2, 2 << 20), (1, 3, 9), (1, 3, 9), (2, 3, 9), (1, 3, 9)] {
            mailbox.put_message(append(index, term, bytes), || false).expect("within the budget");
        }
        mailbox.put_message(RaftMessage { group: 7, ..append(1, 3, 9) }, || false).expect("of another log");
        mailbox.put_message(append(1, 3, 9), || false).expect("already queued, before a message of another log");
        let taken: Vec<_> = mailbox.take_messages(usize::MAX).iter().map(|m| (m.index, m.term, m.group)).collect();
        assert_eq!(taken, [(1, 2, 0), (1, 3, 0), (2, 3, 0), (1, 3, 0), (1, 3, 7)]);
    }

    /// A heartbeat waited for all queued entries, and was dropped together with entries over the budget. A leader on
    /// a slow network lost leadership because it sent entries that its followers needed.
    #[test]
    fn messages_without_entries_are_sent_first_and_have_a_separate_budget() {
        let mailbox = Mailbox::default();
        let heartbeat = |commit| RaftMessage { type_: 8, commit, ..RaftMessage::default() };
        let commit_alone = RaftMessage { type_: 3, index: 100, ..RaftMessage::default() };
        for index in 0..14 {
            mailbox.put_message(message(index, 1 << 20), || false).expect("within the budget");
        }
        mailbox.put_message(commit_alone, || false).expect("a small one still fits");
        assert!(mailbox.put_message(message(15, 2 << 20), || false).is_err());
        mailbox.put_message(heartbeat(1), || false).expect("a separate budget");
        mailbox.put_message(heartbeat(2), || false).expect("a separate budget");
        let taken =
            |bytes_max| -> Vec<u64> { mailbox.take_messages(bytes_max).iter().map(|m| m.index + m.commit).collect() };
        assert_eq!(taken(1 << 20), [1, 2], "and nothing else in that request");
        assert_eq!(taken(3 << 20), [0, 1]);
        mailbox.put_message(heartbeat(3), || false).expect("a separate budget");
        assert_eq!(taken(1 << 20), [3]);
        assert_eq!(taken(usize::MAX), (2..14).chain([100]).collect::<Vec<_>>(), "an append does not overtake another");
        assert!(!mailbox.contents(&Context::from_waker(Waker::noop())).messages);
        let refused = (0..1 << 20).find(|commit| mailbox.put_message(heartbeat(*commit), || false).is_err());
        assert!(refused.is_some_and(|fit| (2000..10_000).contains(&fit)), "{refused:?}");
    }

    /// The appends of more than 16 groups hid each other: each was queued again at each heartbeat.
    #[test]
    fn a_repeated_bulk_append_is_found_among_those_of_many_groups() {
        let mailbox = Mailbox::default();
        let bulk = |group| RaftMessage { group, bulk: true, ..message(1, 200 << 10) };
        for _ in 0..2 {
            assert!((0..70).all(|group| mailbox.put_message(bulk(group), || false).is_ok()), "within the budget");
        }
        assert_eq!(mailbox.take_bulk(usize::MAX).len(), 70);
    }

    #[test]
    fn bulk_messages_have_a_separate_queue_and_budget() {
        let mailbox = Mailbox::default();
        let bulk = |index| RaftMessage { bulk: true, ..message(index, 1 << 20) };
        for index in 0..15 {
            mailbox.put_message(bulk(index), || false).expect("within the budget");
        }
        assert_eq!(mailbox.put_message(bulk(15), || false).map_err(|m| m.index), Err(15));
        mailbox
            .put_message(RaftMessage { group: 7, ..message(99, 1 << 20) }, || false)
            .expect("a fresh entry has another budget");
        let contents = mailbox.contents(&Context::from_waker(Waker::noop()));
        assert!(contents.messages && contents.bulk);
        assert_eq!(mailbox.take_messages(usize::MAX).iter().map(|m| m.index).collect::<Vec<_>>(), [99]);
        let taken = mailbox.take_bulk(3 << 20);
        assert_eq!(taken.iter().map(|m| m.index).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(mailbox.take_bulk(usize::MAX).len(), 13);
        assert!(!mailbox.contents(&Context::from_waker(Waker::noop())).bulk);
    }

    #[test]
    fn forwards_are_refused_beyond_the_budget_and_after_the_stop() {
        let mailbox = Mailbox::default();
        let forward = |bytes: usize| {
            let proposal = Proposal::new(GroupId(1), EntryKind::Records, 1, vec![0; bytes].as_slice().into());
            Forward { principal: "root".to_owned(), work: Work::Propose(proposal, reply().0) }
        };
        mailbox.put_forward(forward(8 << 20)).expect("within the budget");
        assert!(mailbox.put_forward(forward(8 << 20)).is_err_and(|(_, stopped)| !stopped));
        assert_eq!(mailbox.take_forwards(10, 1).len(), 1);
        mailbox.stop();
        assert!(mailbox.put_forward(forward(1)).is_err_and(|(_, stopped)| stopped));
        assert!(mailbox.put_message(message(1, 1), || false).is_err());
    }
}
