//! The queue of received messages from peers. It is separate from the inbox of `consensus`, and its bytes are limited.
//!
//! - **Messages without entries are taken first** (heartbeats, votes, acknowledgements; see [`is_ordered`]). If
//!   a heartbeat had to wait for megabytes of entries, its leader could lose leadership. Raft accepts any order,
//!   because the network guarantees none. Appends keep their order among each other: an append that overtakes another
//!   one is rejected, and its sender falls back to probing.
//! - **Entries have a byte budget.** A sender may have 64 messages of 8 MiB in flight. Messages over the budget are
//!   dropped, as the network might drop them. The sender then backs off by itself: the next append after the gap is
//!   rejected, and raft sends one append at a time until one is acknowledged. Clients' requests have a separate queue
//!   and use none of this budget.
//! - **Bulk messages have a third queue** (`group/lanes.rs`), of which little is taken at a time. It drops nothing: the
//!   stream of bulk messages is not read while the queue is full, so its sender waits.
//! - **A node whose process has ended** is reported after its messages. The report is kept until it is taken.

use std::collections::{BTreeSet, VecDeque};
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard};
use protobuf::Message as _;
use raft::eraftpb::MessageType;

use crate::metrics::Counter;
use crate::pb::peer::RaftMessage;
use crate::types::{GroupId, NodeId};

/// The budget of appends and snapshots. Messages over it are dropped.
pub const APPEND_BYTES_MAX: usize = 32 << 20;
/// The budget of messages without entries, enough for about 4,000. Messages over it are dropped.
pub const FIRST_BYTES_MAX: usize = 1 << 20;

/// While more bulk bytes are queued, the streams of bulk messages are not read. Each stream adds at most one request.
const BULK_BYTES_MAX: usize = 8 << 20;
/// The bulk bytes that are taken at once, after everything else that is queued.
const BULK_TAKE_BYTES: usize = 1 << 20;

/// Counted for each entry in addition to its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 128;
/// Counted for each message in addition to its entries.
const MESSAGE_OVERHEAD_BYTES: usize = 256;

/// Returns true for messages that keep their order: appends, with or without entries, and snapshots. All other
/// messages may overtake them.
pub fn is_ordered(message: &RaftMessage) -> bool {
    message.type_ == MessageType::MsgAppend as u32 || !message.entries.is_empty() || message.snapshot.is_some()
}

/// Messages, with their sizes and senders.
#[derive(Debug, Default)]
struct PeerQueue {
    messages: VecDeque<(usize, NodeId, RaftMessage)>,
    bytes: usize,
}

impl PeerQueue {
    /// Adds a message. Returns false if the message exceeds the budget and was dropped.
    fn put(&mut self, from: NodeId, message: RaftMessage, bytes_max: usize) -> bool {
        let bytes = bytes_of(&message);
        let fits = self.bytes + bytes <= bytes_max;
        if fits {
            self.bytes += bytes;
            self.messages.push_back((bytes, from, message));
        }
        fits
    }

    /// Removes messages from the front, up to `bytes_max`, but at least one unless the queue is empty.
    fn take(&mut self, bytes_max: usize, taken: &mut Vec<(NodeId, RaftMessage)>) {
        let mut sum = 0;
        while let Some((bytes, ..)) = self.messages.front() {
            if sum > 0 && sum + bytes > bytes_max {
                break;
            }
            if let Some((bytes, from, message)) = self.messages.pop_front() {
                sum += bytes;
                taken.push((from, message));
            }
        }
        self.bytes -= sum;
    }
}

#[derive(Debug, Default)]
struct PeerQueues {
    first: PeerQueue,
    appends: PeerQueue,
    bulk: PeerQueue,
    /// The streams that wait for room in `bulk`.
    waiting: Vec<Waker>,
    /// True if something that is queued may take long.
    has_large: bool,
    /// The thread has ended, so nothing is taken any more.
    ended: bool,
    /// The nodes whose processes have ended: at most one entry for each thread of a peer.
    gone: BTreeSet<NodeId>,
}

impl PeerQueues {
    fn is_empty(&self) -> bool {
        [&self.first, &self.appends, &self.bulk].iter().all(|queue| queue.messages.is_empty())
    }
}

/// The queue of peers' messages.
#[derive(Debug, Default)]
pub struct PeerInbox {
    waiting: Mutex<PeerQueues>,
    dropped: Counter,
}

impl PeerInbox {
    fn lock(&self) -> MutexGuard<'_, PeerQueues> {
        // Every critical section leaves the state consistent.
        self.waiting.lock()
    }

    /// Queues messages from a peer. Messages over the budget are dropped.
    pub fn put(&self, from: NodeId, messages: Vec<RaftMessage>) {
        let mut waiting = self.lock();
        // An applied entry of the catalog may create replicas.
        waiting.has_large |= messages.iter().any(|m| m.group == GroupId::CATALOG.0 || m.snapshot.is_some() || m.bulk);
        for message in messages {
            let put = if message.bulk {
                waiting.bulk.put(from, message, usize::MAX)
            } else if is_ordered(&message) {
                waiting.appends.put(from, message, APPEND_BYTES_MAX)
            } else {
                waiting.first.put(from, message, FIRST_BYTES_MAX)
            };
            if !put {
                self.dropped.inc();
                log::debug!("a message from node {from} is dropped: the queue of peers' messages is full");
            }
        }
    }

    /// Waits until there is room for bulk messages.
    pub fn poll_bulk_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut waiting = self.lock();
        if waiting.ended || waiting.bulk.bytes < BULK_BYTES_MAX {
            return Poll::Ready(());
        }
        if !waiting.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Ends all waits for room: the thread takes no more messages.
    pub fn end(&self) {
        let mut waiting = self.lock();
        waiting.ended = true;
        wake(waiting);
    }

    /// Returns all messages without entries, then appends up to `bytes_max`, then fewer bulk messages. If any are queued,
    /// it returns at least one of each.
    pub fn take(&self, bytes_max: usize) -> Vec<(NodeId, RaftMessage)> {
        let mut waiting = self.lock();
        let mut taken = Vec::new();
        waiting.first.take(usize::MAX, &mut taken);
        waiting.appends.take(bytes_max, &mut taken);
        waiting.bulk.take(BULK_TAKE_BYTES.min(bytes_max), &mut taken);
        waiting.has_large &= !waiting.is_empty();
        if waiting.bulk.bytes < BULK_BYTES_MAX {
            wake(waiting);
        }
        taken
    }

    /// Returns all messages if they are at most `bytes_max` and none may take long; `None` otherwise.
    pub fn take_small(&self, bytes_max: usize) -> Option<Vec<(NodeId, RaftMessage)>> {
        let mut waiting = self.lock();
        if waiting.has_large || waiting.first.bytes + waiting.appends.bytes > bytes_max {
            return None;
        }
        let mut taken = Vec::new();
        waiting.first.take(usize::MAX, &mut taken);
        waiting.appends.take(usize::MAX, &mut taken);
        Some(taken)
    }

    /// Records that the process of a node has ended.
    pub fn put_gone(&self, node: NodeId) {
        self.lock().gone.insert(node);
    }

    /// Returns the nodes whose processes have ended, once all of their messages are taken.
    pub fn take_gone(&self) -> BTreeSet<NodeId> {
        let mut waiting = self.lock();
        if waiting.gone.is_empty() {
            return BTreeSet::new();
        }
        let PeerQueues { first, appends, bulk, gone, .. } = &mut *waiting;
        let queued = first.messages.iter().chain(&appends.messages).chain(&bulk.messages);
        let queued: BTreeSet<NodeId> = queued.map(|(_, from, _)| *from).collect();
        let taken = gone.difference(&queued).copied().collect();
        gone.retain(|node| queued.contains(node));
        taken
    }

    /// Returns true if nothing is queued.
    pub fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.is_empty() && waiting.gone.is_empty()
    }

    /// Returns the number of queued messages that are not bulk.
    #[cfg(test)]
    pub fn fresh(&self) -> usize {
        let waiting = self.lock();
        waiting.first.messages.len() + waiting.appends.messages.len()
    }

    /// Counts a message that was dropped elsewhere for the same reason.
    pub fn count_dropped(&self) {
        self.dropped.inc();
    }

    /// Returns the number of messages dropped since the process started.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }
}

/// Releases the lock and wakes the streams of bulk messages.
fn wake(mut waiting: MutexGuard<'_, PeerQueues>) {
    let wakers = std::mem::take(&mut waiting.waiting);
    drop(waiting);
    wakers.into_iter().for_each(Waker::wake);
}

/// Returns about how much memory a message needs.
pub fn bytes_of(message: &RaftMessage) -> usize {
    let encoded = usize::try_from(message.compute_size()).unwrap_or(usize::MAX);
    encoded.saturating_add(message.entries.len() * ENTRY_OVERHEAD_BYTES + MESSAGE_OVERHEAD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::peer::{Checkpoint, Entry, LogClaim, LogSnapshot};

    const PEER: NodeId = NodeId(2);

    fn append(index: u64, bytes: usize) -> RaftMessage {
        let entries = if bytes == 0 { vec![] } else { vec![Entry { data: vec![7; bytes].into(), ..Entry::default() }] };
        RaftMessage { type_: MessageType::MsgAppend as u32, index, entries, ..RaftMessage::default() }
    }

    fn heartbeat(commit: u64) -> RaftMessage {
        RaftMessage { type_: MessageType::MsgHeartbeat as u32, commit, ..RaftMessage::default() }
    }

    fn indexes(taken: &[(NodeId, RaftMessage)]) -> Vec<u64> {
        taken.iter().map(|(_, message)| message.index + message.commit).collect()
    }

    /// The queue was limited by the number of messages and not by their size: it could hold 4,096 messages of 8 MiB
    /// each.
    #[test]
    fn entries_have_a_budget_of_bytes_and_heartbeats_another() {
        let inbox = PeerInbox::default();
        let overhead = bytes_of(&append(1, 1 << 20)) - (1 << 20);
        let each = (1 << 20) - overhead;
        inbox.put(PEER, (1..=40).map(|index| append(index, each)).collect());
        assert_eq!(inbox.dropped(), 8, "a message over 32 MiB is dropped");
        assert!(inbox.lock().appends.bytes <= APPEND_BYTES_MAX);
        inbox.put(PEER, vec![heartbeat(41), append(42, 0), heartbeat(43)]);
        assert_eq!(inbox.dropped(), 9, "the append, but no heartbeat");
        assert_eq!(indexes(&inbox.take(3 << 20)), [41, 43, 1, 2, 3]);
        inbox.put(PEER, vec![append(44, each), heartbeat(45)]);
        assert_eq!(indexes(&inbox.take(1)), [45, 4]);
        let rest: Vec<u64> = std::iter::repeat_with(|| indexes(&inbox.take(8 << 20)))
            .take_while(|taken| !taken.is_empty())
            .flatten()
            .collect();
        assert_eq!(rest, (5..=32).chain([44]).collect::<Vec<_>>());
        assert!(inbox.is_empty() && inbox.lock().appends.bytes == 0);
        let many = FIRST_BYTES_MAX / bytes_of(&heartbeat(9));
        inbox.put(PEER, vec![heartbeat(9); 2 * many]);
        assert_eq!((inbox.take(0).len(), inbox.dropped()), (many, 9 + many as u64));
        let large = RaftMessage { context: vec![7; 2 << 20].into(), ..heartbeat(1) };
        let claim = LogClaim { checkpoints: vec![Checkpoint::default(); 2 << 20], ..LogClaim::default() };
        let compared = RaftMessage { claim: Some(claim).into(), ..heartbeat(1) };
        inbox.put(PEER, vec![large, compared]);
        assert!(inbox.is_empty(), "all of a message counts, not only its entries");
    }

    /// A follower that lacked 12 MiB of one group was sent what it lacks in one piece: the entries of all other groups
    /// waited for 8 MiB of writes.
    #[test]
    fn fresh_entries_are_taken_before_bulk_ones_and_streams_of_bulk_wait_for_room() {
        let inbox = PeerInbox::default();
        let cx = Context::from_waker(Waker::noop());
        let bulk = |index| RaftMessage { bulk: true, ..append(index, 900 << 10) };
        let mut index = 0;
        while inbox.poll_bulk_room(&cx).is_ready() {
            index += 1;
            inbox.put(PEER, vec![bulk(index)]);
        }
        assert_eq!(index, 10, "8 MiB and what exceeds them");
        inbox.put(PEER, vec![append(99, 10), heartbeat(50)]);
        assert_eq!(indexes(&inbox.take(8 << 20)), [50, 99, 1], "all else first, and little of it");
        assert!(inbox.poll_bulk_room(&cx).is_ready());
        assert_eq!(inbox.dropped(), 0);
        inbox.put(PEER, vec![bulk(11)]);
        assert!(inbox.poll_bulk_room(&cx).is_pending());
        inbox.end();
        assert!(inbox.poll_bulk_room(&cx).is_ready(), "a stopping node is not waited for");
    }

    /// A thread that brought a small message of a log also took an append of the catalog, which another thread had brought
    /// before it, and created the replicas that its entries place here.
    #[test]
    fn only_small_messages_are_taken_by_the_threads_that_bring_them() {
        let inbox = PeerInbox::default();
        let of_log = |message| RaftMessage { group: 7, ..message };
        assert_eq!(inbox.take_small(1000), Some(Vec::new()));
        inbox.put(PEER, vec![of_log(append(1, 100)), of_log(heartbeat(2))]);
        assert_eq!(indexes(&inbox.take_small(2000).expect("small")), [2, 1]);
        let snapshot = RaftMessage { snapshot: Some(LogSnapshot::default()).into(), ..of_log(append(4, 1)) };
        let bulk = RaftMessage { bulk: true, ..of_log(append(5, 1)) };
        for large in [append(3, 1), snapshot, bulk, of_log(append(6, 5000))] {
            inbox.put(PEER, vec![large]);
            inbox.put(PEER, vec![of_log(heartbeat(7))]);
            assert_eq!(inbox.take_small(2000), None);
            assert_eq!(inbox.take(usize::MAX).len(), 2);
            inbox.put(PEER, vec![of_log(heartbeat(8))]);
            assert_eq!(inbox.take_small(2000).map(|taken| taken.len()), Some(1));
        }
    }

    /// A message that is taken after the report would make its dead sender the leader again.
    #[test]
    fn a_node_is_reported_as_gone_after_its_messages() {
        let inbox = PeerInbox::default();
        let other = NodeId(3);
        inbox.put(PEER, vec![append(1, 1 << 20), append(2, 1 << 20)]);
        inbox.put_gone(PEER);
        inbox.put_gone(other);
        assert_eq!(inbox.take_gone(), [other].into());
        assert_eq!(indexes(&inbox.take(1)), [1]);
        assert!(inbox.take_gone().is_empty());
        assert_eq!(indexes(&inbox.take(1)), [2]);
        assert!(!inbox.is_empty());
        assert_eq!(inbox.take_gone(), [PEER].into());
        assert!(inbox.is_empty() && inbox.take_gone().is_empty());
    }

    /// An append that overtakes another one is rejected, even if it only carries the commit index. A snapshot
    /// restarts the log.
    #[test]
    fn appends_and_snapshots_keep_their_order() {
        let snapshot = |index| RaftMessage {
            type_: MessageType::MsgSnapshot as u32,
            index,
            snapshot: Some(LogSnapshot::default()).into(),
            ..RaftMessage::default()
        };
        let inbox = PeerInbox::default();
        inbox.put(PEER, vec![append(1, 10), snapshot(2), append(3, 0), heartbeat(9), append(4, 10)]);
        assert_eq!(indexes(&inbox.take(usize::MAX)), [9, 1, 2, 3, 4]);
    }
}
