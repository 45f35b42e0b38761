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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flow {
    is_bulk: bool,
    is_draining: bool,
}

/// The followers' lanes, as their leader uses them.
#[derive(Debug)]
pub struct Lanes {
    flows: BTreeMap<ReplicaId, Flow>,
    /// The number of messages in flight to each bulk follower.
    share: usize,
}

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes { flows: BTreeMap::new(), share: MESSAGES_MAX }
    }
}

impl Lanes {
    /// Returns true if the next append to a follower is bulk. Called for each append, in the order in which they are sent.
    pub fn is_bulk(&mut self, follower: ReplicaId, next: NextAppend) -> bool {
        let flow = self.flows.get(&follower).copied().unwrap_or_default();
        let bytes = next.committed_bytes.unwrap_or(u64::MAX);
        let wants_bulk = if flow.is_bulk { bytes > REST_BYTES } else { bytes > BULK_BYTES };
        let is_drained = next.before <= next.matched;
        let is_bulk = if is_drained { wants_bulk } else { flow.is_bulk };
        let flow = Flow { is_bulk, is_draining: wants_bulk != is_bulk };
        if flow == Flow::default() {
            self.flows.remove(&follower);
        } else {
            self.flows.insert(follower, flow);
        }
        is_bulk
    }

    /// Returns the maximum number of messages in flight to a follower. `most`: the limit of a fresh one.
    pub fn messages_max(&self, follower: ReplicaId, most: usize) -> usize {
        match self.flows.get(&follower) {
            Some(flow) if flow.is_draining => 1,
            Some(flow) if flow.is_bulk => most.min(self.share),
            Some(_) | None => most,
        }
    }

    /// Sets the number of bulk followers on the same node, of all groups. They share its budget.
    pub fn share_with(&mut self, bulk_followers: usize) {
        self.share = (MESSAGES_MAX / bulk_followers.max(1)).max(1);
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

    #[test]
    fn the_bulk_followers_on_a_node_share_its_budget() {
        let mut lanes = Lanes::default();
        assert!(lanes.is_bulk(FOLLOWER, next(10, 10, u64::MAX)));
        lanes.share_with(4);
        assert_eq!(lanes.messages_max(FOLLOWER, MESSAGES_MAX), MESSAGES_MAX / 4);
        assert_eq!(lanes.messages_max(FOLLOWER, 6), 6, "of large messages, fewer are in flight anyway");
        lanes.share_with(1000);
        assert_eq!(lanes.messages_max(FOLLOWER, MESSAGES_MAX), 1);
    }
}
