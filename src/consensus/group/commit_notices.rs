//! Which followers are told at once that the commit index has advanced.
//!
//! A follower needs it to show records to readers that wait there. If there are none, the next append or heartbeat is
//! early enough: for a lone record, the messages that only say "committed" would be a third of all messages. A linearizable
//! read at a follower does not wait either, because its round of heartbeats contains the commit index.

use std::collections::BTreeSet;

use raft::eraftpb::MessageType;

use super::node::RaftNode;
use crate::types::{LogIndex, ReplicaId};

/// The state of a leader.
#[derive(Debug, Default)]
pub struct CommitNotices {
    /// The commit index that the followers were last told.
    told: LogIndex,
    /// The followers that can wait for the next append or heartbeat.
    may_wait: BTreeSet<ReplicaId>,
}

impl CommitNotices {
    /// Records whether a follower can wait, as it said last.
    pub fn set_may_wait(&mut self, follower: ReplicaId, may_wait: bool) {
        if may_wait {
            self.may_wait.insert(follower);
        } else {
            self.may_wait.remove(&follower);
        }
    }

    /// Sends the commit index to the followers that can't wait, if it has advanced. The caller leads.
    pub fn send(&mut self, node: &mut RaftNode) {
        let commit = node.commit_index();
        if commit <= self.told {
            return;
        }
        self.told = commit;
        let me = node.me().0;
        let all: Vec<u64> = node.raft.prs().iter().map(|(id, _)| *id).filter(|id| *id != me).collect();
        self.may_wait.retain(|follower| all.contains(&follower.0));
        for follower in all {
            let is_told = node.raft.msgs.iter().any(|message| {
                message.to == follower && message.get_msg_type() == MessageType::MsgAppend && message.commit >= commit.0
            });
            if !is_told && !self.may_wait.contains(&ReplicaId(follower)) {
                node.raft.send_append(follower);
            }
        }
    }
}
