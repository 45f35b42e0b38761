//! Messages for groups of which this node has no replica yet. The leader of a new log may send its first entries before
//! this node has applied the command that places a replica here. Without them, the first append would wait for the
//! leader's next heartbeat.

use std::collections::VecDeque;

use crate::consensus::peer_inbox::bytes_of;
use crate::pb::peer::RaftMessage;
use crate::types::{GroupId, NodeId};

/// The maximum number of kept messages. A new one replaces the oldest.
const MESSAGES_MAX: usize = 256;
/// The maximum size of a kept message. New logs have few entries.
const BYTES_MAX: usize = 64 << 10;

/// The kept messages, in the order of their arrival.
#[derive(Default)]
pub struct EarlyMessages(VecDeque<(NodeId, RaftMessage)>);

impl EarlyMessages {
    /// Keeps a message of a peer.
    pub fn keep(&mut self, from: NodeId, message: RaftMessage) {
        if bytes_of(&message) > BYTES_MAX || message.snapshot.is_some() {
            return;
        }
        if self.0.len() == MESSAGES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((from, message));
    }

    /// Takes the messages of groups of which this node has a replica by now.
    pub fn take(&mut self, is_hosted: impl Fn(GroupId) -> bool) -> Vec<(NodeId, RaftMessage)> {
        let (taken, kept) = std::mem::take(&mut self.0).into_iter().partition(|(_, m)| is_hosted(GroupId(m.group)));
        self.0 = kept;
        Vec::from(taken as VecDeque<_>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::peer::{Entry, LogSnapshot};

    const PEER: NodeId = NodeId(2);

    fn message(group: u64, bytes: usize) -> RaftMessage {
        let entry = Entry { data: vec![7; bytes].into(), ..Entry::default() };
        RaftMessage { group, entries: vec![entry], ..RaftMessage::default() }
    }

    #[test]
    fn small_messages_are_kept_and_the_oldest_are_dropped() {
        let mut early = EarlyMessages::default();
        let groups = |taken: Vec<(NodeId, RaftMessage)>| taken.into_iter().map(|(_, m)| m.group).collect::<Vec<_>>();
        early.keep(PEER, message(1, BYTES_MAX));
        early.keep(PEER, RaftMessage { snapshot: Some(LogSnapshot::default()).into(), ..message(1, 1) });
        for group in [2, 1, 2] {
            early.keep(PEER, message(group, 1));
        }
        assert_eq!(groups(early.take(|group| group == GroupId(2))), [2, 2]);
        for group in 3..=2 + MESSAGES_MAX as u64 {
            early.keep(PEER, message(group, 1));
        }
        let all = groups(early.take(|_| true));
        assert_eq!((all.len(), all.first(), all.last()), (MESSAGES_MAX, Some(&3), Some(&(2 + MESSAGES_MAX as u64))));
        assert!(early.take(|_| true).is_empty());
    }
}
