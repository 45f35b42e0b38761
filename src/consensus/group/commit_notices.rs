//! Which followers are told at once that the commit index has advanced.
//!
//! A follower needs it to show records to readers that wait there. If there are none, the next append or heartbeat is
//! early enough: for a lone record, the messages that only say "committed" would be a third of all messages. A follower
//! expects readers from the moment when it forwards a request to the leader, so requests at a follower do not wait.

use std::collections::{BTreeMap, BTreeSet};

use raft::eraftpb::{Message, MessageType};

use super::node::RaftNode;
use crate::types::{LogIndex, ReplicaId};

/// The state of a leader.
#[derive(Debug, Default)]
pub struct CommitNotices {
    /// The commit index that each follower was last told.
    told: BTreeMap<ReplicaId, LogIndex>,
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

    /// Sends the commit index to the followers that can't wait and were not told it yet. The caller leads. Must be called
    /// before each Ready is taken.
    pub fn send(&mut self, node: &mut RaftNode) {
        let (commit, me) = (node.commit_index(), node.me());
        let all: Vec<ReplicaId> = node.raft.prs().iter().map(|(id, _)| ReplicaId(*id)).filter(|id| *id != me).collect();
        self.may_wait.retain(|follower| all.contains(follower));
        self.told.retain(|follower, _| all.contains(follower));
        for follower in all {
            let told = self.told.entry(follower).or_default();
            if *told >= commit {
                continue;
            }
            let contains_it = |message: &Message| {
                message.to == follower.0
                    && message.get_msg_type() == MessageType::MsgAppend
                    && message.commit >= commit.0
            };
            if node.raft.msgs.iter().any(contains_it) {
                *told = commit;
            } else if !self.may_wait.contains(&follower) {
                *told = commit;
                node.raft.send_append(follower.0);
            }
        }
    }
}
