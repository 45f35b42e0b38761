//! What peers have sent and `consensus` has not taken: a queue beside its inbox, with a budget of bytes.
//!
//! - **Messages without entries come first** (heartbeats, votes, acknowledgements; [`keeps_its_place`]): a heartbeat that stands
//!   behind megabytes of entries ends its leader's term. Raft takes any order, as the network gives none; appends keep theirs
//!   among each other since one that overtakes is rejected, and its sender begins to probe.
//! - **Entries have a budget of bytes**, and what is over it is dropped, as the network might: a sender may have 64 messages of
//!   8 MiB on their way. It backs off by itself: raft rejects the next append behind the gap, and then sends one at a time until
//!   one is acknowledged. Requests of clients have a queue of their own, so they take no room from what peers say.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use raft::eraftpb::MessageType;

use crate::metrics::Counter;
use crate::pb::peer::RaftMessage;
use crate::types::NodeId;

/// Appends and markers of this many bytes wait; beyond, they are dropped.
pub const APPEND_BYTES_MAX: usize = 32 << 20;
/// Messages without entries of this many bytes wait, some 4,000; beyond, they are dropped.
pub const FIRST_BYTES_MAX: usize = 1 << 20;

/// What an entry costs besides its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 128;
/// What a message costs besides its entries.
const MESSAGE_OVERHEAD_BYTES: usize = 256;

/// True for appends, with or without entries, and markers: they keep their order. All others may go before them.
pub fn keeps_its_place(message: &RaftMessage) -> bool {
    message.type_ == MessageType::MsgAppend as u32 || !message.entries.is_empty() || message.marker.is_some()
}

/// Messages and what they weigh.
#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<(usize, NodeId, RaftMessage)>,
    bytes: usize,
}

impl Queue {
    /// False when it is over the budget, and dropped.
    fn put(&mut self, from: NodeId, message: RaftMessage, bytes_max: usize) -> bool {
        let bytes = bytes_of(&message);
        let fits = self.bytes + bytes <= bytes_max;
        if fits {
            self.bytes += bytes;
            self.messages.push_back((bytes, from, message));
        }
        fits
    }

    /// In order, at least one if there is one, up to `bytes_max`.
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
struct Waiting {
    first: Queue,
    appends: Queue,
}

/// The queue of peers' messages.
#[derive(Debug, Default)]
pub struct PeerInbox {
    waiting: Mutex<Waiting>,
    dropped: Counter,
}

impl PeerInbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every critical section leaves the state whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what a peer sent, and drops what is over the budget.
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

    /// Takes all messages without entries, and behind them appends of up to `bytes_max`, at least one if there is one.
    pub fn take(&self, bytes_max: usize) -> Vec<(NodeId, RaftMessage)> {
        let mut waiting = self.lock();
        let mut taken = Vec::new();
        waiting.first.take(usize::MAX, &mut taken);
        waiting.appends.take(bytes_max, &mut taken);
        taken
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.first.messages.is_empty() && waiting.appends.messages.is_empty()
    }

    /// One more was dropped elsewhere for the same reason.
    pub fn count_dropped(&self) {
        self.dropped.inc();
    }

    /// How many messages were dropped since the process started.
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
    use crate::pb::peer::{Entry, Marker};

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

    /// Messages were counted and not weighed: 4,096 of up to 8 MiB each.
    #[test]
    fn entries_have_a_budget_of_bytes_and_heartbeats_another() {
        let inbox = PeerInbox::default();
        let each = (1 << 20) - MESSAGE_OVERHEAD_BYTES - ENTRY_OVERHEAD_BYTES;
        inbox.put(PEER, (1..=40).map(|index| append(index, each)).collect());
        assert_eq!(inbox.dropped(), 8, "a message over 32 MiB is dropped");
        assert!(inbox.lock().appends.bytes <= APPEND_BYTES_MAX);
        inbox.put(PEER, vec![heartbeat(41), append(42, 0), heartbeat(43)]);
        assert_eq!(inbox.dropped(), 9, "the append, and no heartbeat");
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
        assert!(inbox.is_empty(), "none of them is free");
    }

    /// An append that overtakes another one is rejected, also one that only tells the commit; a marker begins the log anew.
    #[test]
    fn appends_and_markers_keep_their_order() {
        let marker = |index| RaftMessage {
            type_: MessageType::MsgSnapshot as u32,
            index,
            marker: Some(Marker::default()).into(),
            ..RaftMessage::default()
        };
        let inbox = PeerInbox::default();
        inbox.put(PEER, vec![append(1, 10), marker(2), append(3, 0), heartbeat(9), append(4, 10)]);
        assert_eq!(indexes(&inbox.take(usize::MAX)), [9, 1, 2, 3, 4]);
    }
}
