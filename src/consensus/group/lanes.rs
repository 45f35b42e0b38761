//! Chooses the lane of each append: bulk appends, which nobody waits for, never delay fresh ones.
//!
//! The next entries that a follower lacks are *bulk* if more than [`BULK_BYTES`] of them are committed already: a majority has
//! them, so no producer waits for this follower. A follower whose acknowledgements a commit needs is therefore never
//! bulk. Bulk messages have a separate connection and separate queues (`replication/mailbox.rs`, `consensus/peer_inbox.rs`), so
//! the appends of one follower could overtake each other when it changes its lane, and raft would send them again. So **a
//! follower changes its lane only while no append to it is in flight**. Until then, it is limited to one.
//!
//! ```text
//!             next entry is committed,           nothing in flight
//!            more than BULK_BYTES of them
//!   ┌───────┐ ───────────────────────▶ ┌──────────┐ ────────────▶ ┌──────┐
//!   │ fresh │                          │ draining │               │ bulk │
//!   └───────┘ ◀─────────────────────── └──────────┘ ◀──────────── └──────┘
//!               nothing in flight                    at most REST_BYTES of them
//! ```

use std::collections::BTreeMap;

use super::in_flight::MESSAGES_MAX;
use crate::types::{LogIndex, ReplicaId};

/// The committed bytes that a follower lacks from which on they are bulk.
pub const BULK_BYTES: u64 = 1 << 20;
/// The bytes at which a bulk follower returns to the fresh lane.
const REST_BYTES: u64 = 256 << 10;

/// If the limit of appends in flight is reached, one of them counts as lost after this many heartbeat responses without
/// progress.
const LOST_RESPONSES: u32 = 10;
/// The same for a bulk follower. On a slow network it waits for the bulk of many groups, and nobody waits for it.
const LOST_RESPONSES_BULK: u32 = 50;

/// What a follower is sent next, seen from the append that precedes it.
#[derive(Clone, Copy, Debug)]
pub struct NextAppend {
    /// The entry before the first one of the append.
    pub before: LogIndex,
    /// The last entry that the follower has acknowledged.
    pub matched: LogIndex,
    /// The committed bytes from the append on. `None`: more than the cache contains.
    pub committed_bytes: Option<u64>,
}

/// A follower that is not simply in the fresh lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    is_bulk: bool,
    is_draining: bool,
    /// The number of messages in flight while it is bulk.
    share: usize,
}

impl Default for Flow {
    fn default() -> Flow {
        Flow { is_bulk: false, is_draining: false, share: MESSAGES_MAX }
    }
}

/// A follower whose limit of appends in flight is reached.
#[derive(Clone, Copy, Debug, Default)]
struct FullWindow {
    matched: LogIndex,
    /// The heartbeat responses since it has acknowledged this entry.
    responses: u32,
}

/// The followers' lanes, as their leader uses them.
#[derive(Debug, Default)]
pub struct Lanes {
    flows: BTreeMap<ReplicaId, Flow>,
    full: BTreeMap<ReplicaId, FullWindow>,
    /// The last entry that each follower was sent.
    sent: BTreeMap<ReplicaId, LogIndex>,
    /// The number of entries that a follower was sent again, since the last [`Lanes::take_sent_again`].
    sent_again: u64,
}

impl Lanes {
    /// Returns true if the next append to a follower is bulk. Called for each append, in the order in which they are sent.
    pub fn is_bulk(&mut self, follower: ReplicaId, next: NextAppend) -> bool {
        let flow = self.flows.get(&follower).copied().unwrap_or_default();
        let bytes = next.committed_bytes.unwrap_or(u64::MAX);
        let wants_bulk = if flow.is_bulk { bytes > REST_BYTES } else { bytes > BULK_BYTES };
        let is_drained = next.before <= next.matched;
        let is_bulk = if is_drained { wants_bulk } else { flow.is_bulk };
        let is_draining = wants_bulk != is_bulk;
        if is_bulk || is_draining {
            self.flows.insert(follower, Flow { is_bulk, is_draining, ..flow });
        } else {
            self.flows.remove(&follower);
        }
        is_bulk
    }

    /// Records that a follower is sent the entries after `before`, up to `last`.
    pub fn record_sent(&mut self, follower: ReplicaId, before: LogIndex, last: LogIndex) {
        let sent = self.sent.entry(follower).or_default();
        self.sent_again += (*sent).min(last).0.saturating_sub(before.0);
        *sent = last.max(*sent);
    }

    /// Returns the number of entries that were sent again since the last call.
    pub fn take_sent_again(&mut self) -> u64 {
        std::mem::take(&mut self.sent_again)
    }

    /// Returns the maximum number of messages in flight to a follower. `most`: the limit of a fresh one.
    pub fn messages_max(&self, follower: ReplicaId, most: usize) -> usize {
        match self.flows.get(&follower) {
            Some(flow) if flow.is_draining => 1,
            Some(flow) if flow.is_bulk => most.min(flow.share),
            Some(_) | None => most,
        }
    }

    /// Sets the number of bulk followers on the same node as this one, of all groups. They share its budget.
    pub fn share_with(&mut self, follower: ReplicaId, bulk_followers: usize) {
        if let Some(flow) = self.flows.get_mut(&follower) {
            flow.share = (MESSAGES_MAX / bulk_followers.max(1)).max(1);
        }
    }

    /// Forgets the followers that have left the group.
    pub fn retain(&mut self, is_member: impl Fn(ReplicaId) -> bool) {
        self.flows.retain(|follower, _| is_member(*follower));
        self.full.retain(|follower, _| is_member(*follower));
        self.sent.retain(|follower, _| is_member(*follower));
    }

    /// Returns true if an append to a follower counts as lost. Called for each of its heartbeat responses while the limit
    /// of appends in flight is reached.
    pub fn takes_for_lost(&mut self, follower: ReplicaId, matched: LogIndex) -> bool {
        let is_bulk = self.flows.get(&follower).is_some_and(|flow| flow.is_bulk);
        let most = if is_bulk { LOST_RESPONSES_BULK } else { LOST_RESPONSES };
        let window = self.full.entry(follower).or_default();
        let responses = if window.matched == matched { window.responses + 1 } else { 1 };
        let is_lost = responses >= most;
        *window = FullWindow { matched, responses: if is_lost { 0 } else { responses } };
        is_lost
    }

    /// Returns the bulk followers.
    pub fn bulk(&self) -> impl Iterator<Item = ReplicaId> {
        self.flows.iter().filter(|(_, flow)| flow.is_bulk).map(|(follower, _)| *follower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLLOWER: ReplicaId = ReplicaId(2);

    fn next(before: u64, matched: u64, committed_bytes: u64) -> NextAppend {
        NextAppend {
            before: LogIndex(before),
            matched: LogIndex(matched),
            committed_bytes: (committed_bytes < u64::MAX).then_some(committed_bytes),
        }
    }

    #[test]
    fn an_append_is_bulk_if_a_majority_has_what_the_follower_lacks() {
        let mut lanes = Lanes::default();
        assert!(!lanes.is_bulk(FOLLOWER, next(10, 10, 0)), "not committed yet");
        assert!(!lanes.is_bulk(FOLLOWER, next(10, 10, BULK_BYTES)));
        assert!(lanes.is_bulk(FOLLOWER, next(10, 10, BULK_BYTES + 1)));
        assert!(lanes.is_bulk(FOLLOWER, next(12, 10, u64::MAX)));
        assert!(!lanes.is_bulk(ReplicaId(3), next(12, 12, 0)), "another follower");
        assert_eq!(lanes.bulk().collect::<Vec<_>>(), [FOLLOWER]);
    }

    /// An append that overtakes another one is rejected, and raft sends everything after the last acknowledged entry
    /// again.
    #[test]
    fn a_follower_changes_its_lane_only_while_no_append_is_in_flight() {
        let mut lanes = Lanes::default();
        assert!(!lanes.is_bulk(FOLLOWER, next(20, 10, u64::MAX)), "the appends of 11 to 20 are in the fresh lane");
        assert_eq!(lanes.messages_max(FOLLOWER, MESSAGES_MAX), 1, "until they are acknowledged");
        assert!(lanes.is_bulk(FOLLOWER, next(20, 20, u64::MAX)));
        assert_eq!(lanes.messages_max(FOLLOWER, MESSAGES_MAX), MESSAGES_MAX);
        assert!(lanes.is_bulk(FOLLOWER, next(30, 20, REST_BYTES + 1)));
        assert_eq!(lanes.messages_max(FOLLOWER, MESSAGES_MAX), MESSAGES_MAX);
        assert!(lanes.is_bulk(FOLLOWER, next(40, 20, 0)));
        assert_eq!(lanes.messages_max(FOLLOWER, MESSAGES_MAX), 1);
        assert!(!lanes.is_bulk(FOLLOWER, next(40, 40, REST_BYTES)));
        assert_eq!(lanes.messages_max(FOLLOWER, MESSAGES_MAX), MESSAGES_MAX);
        assert!(lanes.flows.is_empty());
    }

    /// Once, a lost node on which every group has a bulk follower left those on all other nodes one message each.
    #[test]
    fn the_bulk_followers_on_a_node_share_its_budget() {
        let mut lanes = Lanes::default();
        assert!(lanes.is_bulk(FOLLOWER, next(10, 10, u64::MAX)));
        assert!(lanes.is_bulk(ReplicaId(3), next(10, 10, u64::MAX)), "on another node");
        lanes.share_with(FOLLOWER, 4);
        assert_eq!(lanes.messages_max(ReplicaId(3), MESSAGES_MAX), MESSAGES_MAX);
        assert_eq!(lanes.messages_max(FOLLOWER, MESSAGES_MAX), MESSAGES_MAX / 4);
        assert_eq!(lanes.messages_max(FOLLOWER, 6), 6, "of large messages, fewer are in flight anyway");
        assert!(lanes.is_bulk(FOLLOWER, next(20, 20, u64::MAX)));
        assert_eq!(lanes.messages_max(FOLLOWER, MESSAGES_MAX), MESSAGES_MAX / 4, "the share is kept");
        lanes.share_with(FOLLOWER, 1000);
        assert_eq!(lanes.messages_max(FOLLOWER, MESSAGES_MAX), 1);
        lanes.retain(|member| member != FOLLOWER);
        assert_eq!(lanes.bulk().collect::<Vec<_>>(), [ReplicaId(3)], "one that was removed has no share");
    }

    #[test]
    fn entries_that_are_sent_again_are_counted() {
        let mut lanes = Lanes::default();
        let mut again = |follower, before, last| {
            lanes.record_sent(ReplicaId(follower), LogIndex(before), LogIndex(last));
            lanes.take_sent_again()
        };
        assert_eq!((again(2, 10, 20), again(3, 10, 15), again(2, 20, 30), again(2, 30, 30)), (0, 0, 0, 0));
        assert_eq!((again(2, 15, 25), again(2, 25, 40), again(3, 10, 20)), (10, 5, 5));
    }

    #[test]
    fn an_append_counts_as_lost_after_heartbeats_without_progress() {
        let mut lanes = Lanes::default();
        let lost = |lanes: &mut Lanes, matched| lanes.takes_for_lost(FOLLOWER, LogIndex(matched));
        assert!((0..100).all(|matched| !lost(&mut lanes, matched)), "progress");
        let until_lost = |lanes: &mut Lanes| (1..1000).find(|_| lost(lanes, 100));
        assert_eq!(until_lost(&mut lanes), Some(LOST_RESPONSES));
        assert_eq!(until_lost(&mut lanes), Some(LOST_RESPONSES), "another one");
        assert!(lanes.is_bulk(FOLLOWER, next(10, 10, u64::MAX)));
        assert_eq!(until_lost(&mut lanes), Some(LOST_RESPONSES_BULK));
    }
}
