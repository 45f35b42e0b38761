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
//! Read `group/mod.rs` for what a group promises, `driver.rs` for how its effects are performed, `handle.rs` for what the rest
//! of the program can ask. Only this folder knows raft's types.

mod bad_message;
mod claim;
mod compare;
mod completions;
mod conf_change;
mod driver;
mod error;
mod group;
pub mod handle;
mod leadership;
mod metrics;
mod peer_inbox;
mod received;
mod replica;
mod retention;
mod sinks;
pub mod status;
mod wire;

pub use driver::{Consensus, ConsensusParts};
pub use error::HostError;
pub use handle::command_proposal;
pub use peer_inbox::keeps_its_place;
pub use sinks::Outbound;

#[cfg(test)]
pub(crate) use group::StreamSequences;
#[cfg(test)]
pub(crate) use peer_inbox::PeerInbox;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz;
