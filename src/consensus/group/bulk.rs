//! Which appends of a group are bulk, and how many of them are in flight. `lanes.rs` has the rules.

use raft::eraftpb::{Message, MessageType};

use super::Group;
use super::lanes::{Lanes, NextAppend};
use crate::types::{LogIndex, ReplicaId};

/// Returns true if a message is a bulk append. Called for each message of the group, in the order in which they are sent.
pub fn is_bulk(group: &mut Group, message: &Message) -> bool {
    if message.get_msg_type() != MessageType::MsgAppend {
        return false;
    }
    let Some(matched) = group.node.raft.prs().get(message.to).map(|progress| LogIndex(progress.matched)) else {
        return false;
    };
    let (before, follower, commit) = (LogIndex(message.index), ReplicaId(message.to), group.node.commit_index());
    let is_last = before >= commit || message.entries.last().is_some_and(|last| LogIndex(last.index) >= commit);
    if let Some(last) = message.entries.last() {
        group.lanes.record_sent(follower, before, LogIndex(last.index));
    }
    // All that is committed and missing, also if the cache does not contain it.
    let committed = || message.entries.iter().filter(|entry| LogIndex(entry.index) <= commit);
    let own_bytes = || committed().map(|entry| entry.data.len() as u64).sum();
    let committed_bytes = if is_last { Some(own_bytes()) } else { group.node.store().bytes_between(before, commit) };
    change(group, follower, |lanes| lanes.is_bulk(follower, NextAppend { before, matched, committed_bytes }))
}

/// Sets the number of bulk followers on the node of this one, which share the node's budget.
pub fn share_with(group: &mut Group, follower: ReplicaId, bulk_followers: usize) {
    change(group, follower, |lanes| lanes.share_with(follower, bulk_followers));
}

/// Changes what is known of a follower, and adjusts its limit of messages in flight in raft if that has changed.
fn change<T>(group: &mut Group, follower: ReplicaId, change: impl FnOnce(&mut Lanes) -> T) -> T {
    let most = group.in_flight.messages();
    let before = group.lanes.messages_max(follower, most);
    let result = change(&mut group.lanes);
    let limit = group.lanes.messages_max(follower, most);
    if limit != before {
        group.node.raft.adjust_max_inflight_msgs(follower.0, limit);
    }
    result
}

/// Returns the number of entries that followers were sent again since the last call.
pub fn take_sent_again(group: &mut Group) -> u64 {
    group.lanes.take_sent_again()
}

/// Returns the followers of this leader whose appends are bulk.
pub fn bulk_followers(group: &Group) -> impl Iterator<Item = ReplicaId> {
    group.lanes.bulk().filter(|follower| group.node.raft.prs().get(follower.0).is_some())
}
