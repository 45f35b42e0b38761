//! Consensus: raft over the segmented log, one thread for all groups.
//!
//! ```text
//!  handle ──inbox──▶ driver ──propose/step/tick──▶ Group (pure) ──▶ Effects ──▶ replica
//!                      ▲                                                          │ write    ─▶ GroupLog (page cache)
//!                      └── completions ◀── log-writer, readers ◀──────────────────┤ sync, fetches
//!                                                                                 │ messages ─▶ Outbound (the peers)
//!                                                                                 └ visible, answers ─▶ high watermark, replies
//! ```
//!
//! Reading order:
//! 1. `group/`: one Raft group as a pure state machine, and what it guarantees.
//! 2. `replica.rs`: a group with its log and its high watermark; performs the effects. `compare.rs` and `claim.rs`:
//!    the comparison of replicas by digests.
//! 3. `driver.rs`: the thread, all groups of this node, and the catalog. `groups.rs`: this node's replicas, and which
//!    of them need attention. `heartbeats.rs`: quiet groups, and the heartbeats between nodes that replace those of the
//!    groups.
//! 4. `handle.rs`, `status.rs`: the interface for the rest of the program, and the published status. `peer_inbox.rs`:
//!    the queue of peers' messages.
//! 5. `wire.rs`, `conf_change.rs`, `received.rs`: the conversion of raft's types for peers and for the disk, and the
//!    checks of received messages.
//!
//! No other module uses raft's types. The tests are a seeded simulation, and golden scripts in `tests/scripts/`.

mod bad_message;
mod catch_up;
mod claim;
mod compare;
mod completions;
pub(crate) mod conf_change;
mod damage;
mod driver;
mod error;
pub(crate) mod faults;
mod freshness;
mod group;
mod groups;
pub mod handle;
mod heartbeats;
mod leadership;
mod metrics;
mod peer_inbox;
mod received;
mod removals;
mod replica;
mod retention;
mod sinks;
pub mod status;
mod transfer;
pub(crate) mod wake;
mod watch;
mod wire;

pub use driver::{Consensus, ConsensusParts};
pub use error::HostError;
pub use handle::command_proposal;
pub use peer_inbox::is_ordered;
pub use sinks::Outbound;

#[cfg(test)]
pub(crate) use group::StreamSequences;
#[cfg(test)]
pub(crate) use peer_inbox::PeerInbox;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz;
