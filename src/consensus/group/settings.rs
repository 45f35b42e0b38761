//! The configuration of a group, and the safety rules without which data can be lost.

use crate::consensus::faults::{Fault, broken};
use crate::types::{GroupId, ReplicaId};

/// The length of a tick, the unit of raft's timeouts, in milliseconds.
pub const TICK_MS: u64 = 50;
/// An election starts after 12 to 24 ticks without a leader.
pub const ELECTION_TICKS: usize = 12;
/// The number of ticks between a leader's heartbeats.
pub const HEARTBEAT_TICKS: usize = 2;
/// The limit on the bytes of uncommitted entries. Proposals over it are refused.
pub const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;

/// The configuration of a group.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    pub id: GroupId,
    pub me: ReplicaId,
    /// True for a replica that was created in this process to lead its group at first, in the term of the genesis.
    pub leads_at_first: bool,
    /// A fixed election timeout in ticks, for simulations. raft's own timeout is random.
    pub election_ticks: Option<usize>,
    /// All on, except in tests that show what happens without a rule.
    pub rules: Rules,
}

/// Safety rules. Without each of them, data can be lost.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A leader's messages wait until its term is synced.
    pub hold_unsynced_term: bool,
    /// A conf change waits until the commit that covers it is synced.
    pub sync_commit_before_conf_change: bool,
    /// At a start, every conf change of the log except the last is treated as committed (`node.rs`).
    pub recover_commit_of_conf_changes: bool,
    /// A leader's messages are compared with the committed entries of this node, and acknowledgements with the
    /// leader's log.
    pub compare_with_leader: bool,
    /// Only entries that an append proves to be equal are acknowledged.
    pub acknowledge_compared_only: bool,
    /// An acknowledgement is ignored if the digests show that its entries differ from the leader's.
    pub count_compared_only: bool,
    /// A rejection that depends on the end of the log waits until that end is committed.
    pub hold_uncommitted_refusals: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            hold_unsynced_term: true,
            sync_commit_before_conf_change: true,
            recover_commit_of_conf_changes: true,
            hold_uncommitted_refusals: !broken(Fault::RefusedByUncommitted),
            compare_with_leader: true,
            acknowledge_compared_only: true,
            count_compared_only: true,
        }
    }
}

/// To which voters leadership may be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Successor {
    /// Those that should lead, or else any.
    Any,
    /// Only those that should lead.
    NotAvoided,
}
