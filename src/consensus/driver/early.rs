//! Messages for groups of which this node has no replica yet. The leader of a new log may send its first entries before
//! this node has applied the command that places a replica here. Without them, the first append would wait for the
//! leader's next heartbeat.

use std::collections::VecDeque;

use crate::pb::peer::RaftMessage;
use crate::types::{GroupId, NodeId};

/// The maximum number of kept messages. A new one replaces the oldest.
const MESSAGES_MAX: usize = 256;
/// The maximum size of the entries in a kept message. New logs have few entries.
const ENTRY_BYTES_MAX: usize = 64 << 10;

/// The kept messages, in the order of their arrival.
#[derive(Default)]
pub struct EarlyMessages(VecDeque<(NodeId, RaftMessage)>);

impl EarlyMessages {
    /// Keeps a message of a peer.
    pub fn keep(&mut self, from: NodeId, message: RaftMessage) {
        let entries = message.entries.iter().map(|entry| entry.data.len() + size_of_val(entry));
        let bytes = entries.sum::<usize>() + message.context.len();
        if bytes > ENTRY_BYTES_MAX || message.snapshot.is_some() {
            return;
        }
        if self.0.len() == MESSAGES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((from, message));
    }

    /// Takes the messages of the groups that are hosted now.
    pub fn take(&mut self, is_hosted: impl Fn(GroupId) -> bool) -> Vec<(NodeId, RaftMessage)> {
        let (taken, kept) = std::mem::take(&mut self.0).into_iter().partition(|(_, m)| is_hosted(GroupId(m.group)));
        self.0 = kept;
        Vec::from(taken as VecDeque<_>)
    }
}
