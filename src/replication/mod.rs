//! Replication: the way between the nodes of one cluster.
//!
//! ```text
//!   consensus ──Outbound::send──► Peers ──mailbox──► thread peer-<node> ──Replicate, Forward──► PeerService of the other node
//!   api ──propose, read_index──►                     (one loop, one channel)                       │ hello checked first
//!                                                                                                  ▼
//!                                                                                   consensus of the other node
//! ```
//!
//! What must stay true:
//! - Nobody speaks for, joins as or answers as a node that its certificate does not name (`guard.rs`, `addresses.rs`).
//! - Nothing of a stream but its hello is looked at before the hello is accepted, and nothing else is sent before.
//! - Raft's appends and snapshots to one peer keep their order; messages without entries go before them, in theirs. All may be lost;
//!   then consensus is told that the peer was unreachable.
//! - A forwarded request is sent once and goes one hop. Not handed to the stream: surely not appended. Handed to it and no
//!   answer: outcome unknown.
//! - Every queue has a budget of bytes or a count, and a named consequence beyond it.

pub mod hello;
pub mod refusal;

pub mod peers;

mod peer;

pub(crate) mod mailbox;

mod forward;
mod link;
mod outcome;
mod settle;

pub mod listener;

pub mod guard;
pub mod service;

mod join;

pub mod addresses;
pub mod dial;
pub mod wait;

mod node;

use std::sync::{Arc, OnceLock};

/// Something that comes into being after those who use it were started: the node's core, once it is admitted.
pub type Late<T> = Arc<OnceLock<T>>;

#[cfg(test)]
pub(crate) mod tests;

#[cfg(test)]
mod fuzz;
