//! Consensus: raft over the segmented log, one thread for all groups.
//!
//! ```text
//!  handle ──inbox──▶ driver ──propose/step/tick──▶ Group (pure) ──▶ Effects ──▶ driver
//!                      ▲                                                         │ write   ─▶ GroupLog (page cache)
//!                      └── completions ◀── log-writer, readers ◀─────────────────┤ sync, fetch
//!                                                                                │ messages ─▶ Outbound (the peers)
//!                                                                                └ mark, answers ─▶ watermark, replies
//! ```
//!
//! Read `group.rs` for what a group promises, `driver.rs` for how its effects are performed, `handle.rs` for what the rest
//! of the program can ask. Only this folder knows raft's types.

mod ages;
mod bad_message;
mod catch_up;
mod claim;
mod compare;
mod completions;
mod conf_change;
mod driver;
mod group;
pub mod handle;
mod joins;
mod leadership;
mod peer_inbox;
mod received;
mod reconcile;
mod replica;
mod retention;
pub mod status;
mod wire;

pub use driver::{Consensus, ConsensusParts, command_proposal};
pub use peer_inbox::keeps_its_place;
pub use replica::HostError;

use crate::pb::peer::RaftMessage;
use crate::types::NodeId;

/// The way to the peers, which live above consensus: `replication` implements it, `agent` injects it.
pub trait Outbound: Send + Sync {
    /// Takes a message for a peer. Never blocks; over its budget it drops the message and reports
    /// [`handle::ConsensusHandle::unreachable`].
    fn send(&self, to: NodeId, message: RaftMessage);
}

#[cfg(test)]
pub(crate) use group::StreamSequences;
#[cfg(test)]
pub(crate) use peer_inbox::PeerInbox;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz;
