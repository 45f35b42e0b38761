//! The state of a node's log, sent together with raft's messages, so that replicas can be compared.

use crate::storage::digest::Digest;
use crate::storage::log::Base;
use crate::types::{LogIndex, Offset};

/// The offset and the running digest of a leader's log at a committed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The index of the entry.
    pub index: LogIndex,
    /// The next offset after it.
    pub offset: Offset,
    /// The running digest up to and including it.
    pub digest: Digest,
}

impl From<&Base> for Checkpoint {
    fn from(at: &Base) -> Checkpoint {
        Checkpoint { index: at.index, offset: at.offset, digest: at.digest }
    }
}

/// The state of a node's log, sent together with a raft message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The last index of its log when the message was created, or a later one.
    pub last_index: LogIndex,
    /// Checkpoints of committed entries, ascending. Only sent with heartbeats.
    pub checkpoints: Vec<Checkpoint>,
    /// The first entry that the follower lacks and the leader can't read from its disk.
    pub unreadable: Option<LogIndex>,
    /// With an append: the checkpoint of the entry that the append follows, committed or not. With an
    /// acknowledgement: the checkpoint of the last acknowledged entry.
    pub before: Option<Checkpoint>,
}
