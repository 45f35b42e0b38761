//! What a group is made with: its numbers, and the rules that lose data when they are forgotten.

use crate::types::{GroupId, NodeId};

/// A tick is the unit of raft's timeouts, milliseconds.
pub const TICK_MS: u64 = 50;
/// An election starts after 12 to 24 ticks without a leader.
pub const ELECTION_TICKS: usize = 12;
/// A leader sends a heartbeat each time this many ticks have passed.
pub const HEARTBEAT_TICKS: usize = 2;
/// Entries that are not committed yet take at most this many bytes; beyond it proposals are refused.
pub const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;

/// What a group is made with.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    pub id: GroupId,
    pub me: NodeId,
    /// A fixed election timeout, in ticks: for simulations, as raft's own is random.
    pub election_ticks: Option<usize>,
    /// Off only in the tests that show what each rule is for.
    pub rules: Rules,
}

/// Rules that lose data when they are forgotten.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A leader's messages wait until its term is synced.
    pub hold_unsynced_term: bool,
    /// A conf change waits until the commit that covers it is synced.
    pub sync_commit_before_conf_change: bool,
    /// At start, every conf change of the log but the last counts as committed (`node.rs`).
    pub recover_commit_of_conf_changes: bool,
    /// A leader's messages are compared with what is committed here, and acknowledgements with the leader's own log.
    pub compare_with_leader: bool,
    /// Only entries that an append itself shows to be equal are acknowledged.
    pub acknowledge_compared_only: bool,
    /// An acknowledgement is not counted if the digests show that the entries here are others.
    pub count_compared_only: bool,
    /// A rejection because of the log's end waits until that end is committed.
    pub hold_uncommitted_refusals: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            hold_unsynced_term: true,
            sync_commit_before_conf_change: true,
            recover_commit_of_conf_changes: true,
            hold_uncommitted_refusals: true,
            compare_with_leader: true,
            acknowledge_compared_only: true,
            count_compared_only: true,
        }
    }
}
