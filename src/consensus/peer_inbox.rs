//! The queue of messages from peers that `consensus` has not taken yet, separate from its inbox, with a budget of bytes.
//!
//! - **Messages without entries are taken first** (heartbeats, votes, acknowledgements; [`keeps_its_place`]): a heartbeat that waits
//!   for megabytes of entries costs its leader the leadership. Raft accepts any order, as the network guarantees none. Appends
//!   keep their order among each other, because an append that overtakes another is rejected, and its sender begins to probe.
//! - **Entries have a budget of bytes**, and messages over it are dropped, as the network might drop them: a sender may have 64
//!   messages of 8 MiB in flight. The sender backs off by itself: the next append after the gap is rejected, and raft then sends
//!   one at a time until one is acknowledged. Clients' requests have a separate queue, so they use none of this budget.

use std::collections::VecDeque;

use parking_lot::{Mutex, MutexGuard};
use raft::eraftpb::MessageType;

use crate::metrics::Counter;
use crate::pb::peer::RaftMessage;
use crate::types::NodeId;

/// Appends and snapshots of at most this many bytes wait; more are dropped.
pub const APPEND_BYTES_MAX: usize = 32 << 20;
/// Messages without entries of at most this many bytes wait, about 4,000; more are dropped.
pub const FIRST_BYTES_MAX: usize = 1 << 20;

/// The size that is counted for an entry in addition to its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 128;
/// The size that is counted for a message in addition to its entries.
const MESSAGE_OVERHEAD_BYTES: usize = 256;

/// True for appends, with or without entries, and snapshots: they keep their order. All others may overtake them.
pub fn keeps_its_place(message: &RaftMessage) -> bool {
    message.type_ == MessageType::MsgAppend as u32 || !message.entries.is_empty() || message.snapshot.is_some()
}

/// Messages and their sizes.
#[derive(Debug, Default)]
struct PeerQueue {
    messages: VecDeque<(usize, NodeId, RaftMessage)>,
    bytes: usize,
}

impl PeerQueue {
    /// Appends a message. False if it exceeds the budget and is dropped.
    fn put(&mut self, from: NodeId, message: RaftMessage, bytes_max: usize) -> bool {
        let bytes = bytes_of(&message);
        let fits = self.bytes + bytes <= bytes_max;
        if fits {
            self.bytes += bytes;
            self.messages.push_back((bytes, from, message));
        }
        fits
    }

    /// Takes messages in order, up to `bytes_max`, but at least one unless the queue is empty.
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
}

/// The queue of peers' messages.
#[derive(Debug, Default)]
pub struct PeerInbox {
    waiting: Mutex<PeerQueues>,
    dropped: Counter,
}

impl PeerInbox {
    fn lock(&self) -> MutexGuard<'_, PeerQueues> {
        // Every critical section leaves the state whole.
        self.waiting.lock()
    }

    /// Queues messages from a peer, and drops those over the budget.
    pub fn put(&self, from: NodeId, messages: Vec<RaftMessage>) {
        let mut waiting = self.lock();
        for message in messages {
            let put = if keeps_its_place(&message) {
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

    /// Takes all messages without entries, then appends of up to `bytes_max`, but at least one if any waits.
    pub fn take(&self, bytes_max: usize) -> Vec<(NodeId, RaftMessage)> {
        let mut waiting = self.lock();
        let mut taken = Vec::new();
        waiting.first.take(usize::MAX, &mut taken);
        waiting.appends.take(bytes_max, &mut taken);
        taken
    }

    /// True if no message waits.
    pub fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.first.messages.is_empty() && waiting.appends.messages.is_empty()
    }

    /// Counts a message that was dropped elsewhere for the same reason.
    pub fn count_dropped(&self) {
        self.dropped.inc();
    }

    /// The number of messages dropped since the process started.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }
}

fn bytes_of(message: &RaftMessage) -> usize {
    let entries: usize = message.entries.iter().map(|entry| entry.data.len() + ENTRY_OVERHEAD_BYTES).sum();
    entries + message.context.len() + MESSAGE_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::peer::{Entry, LogSnapshot};

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

    /// Messages were limited by number and not by size: 4,096 of up to 8 MiB each.
    #[test]
    fn entries_have_a_budget_of_bytes_and_heartbeats_another() {
        let inbox = PeerInbox::default();
        let each = (1 << 20) - MESSAGE_OVERHEAD_BYTES - ENTRY_OVERHEAD_BYTES;
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
        let many = FIRST_BYTES_MAX / MESSAGE_OVERHEAD_BYTES;
        inbox.put(PEER, (0..2 * many as u64).map(heartbeat).collect());
        assert_eq!((inbox.take(0).len(), inbox.dropped()), (many, 9 + many as u64));
        let large = RaftMessage { context: vec![7; 2 << 20].into(), ..heartbeat(1) };
        inbox.put(PEER, vec![large]);
        assert!(inbox.is_empty(), "messages without entries count too");
    }

    /// An append that overtakes another is rejected, even one that only carries the commit index; a snapshot restarts the log.
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
