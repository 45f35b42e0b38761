//! Replication: the traffic between the nodes of one cluster.
//!
//! ```text
//!   consensus ──Outbound::send──► Peers ──mailbox──► thread peer-<node> ──Replicate, Forward──► PeerService of the other node
//!   api ──propose, read_index──►                     (one loop, one channel)                       │ hello checked first
//!                                                                                                  ▼
//!                                                                                   consensus of the other node
//! ```
//!
//! Guarantees:
//! - A node can speak, join and answer only as a node that its certificate names (`guard.rs`, `addresses.rs`).
//! - The first request of a stream is a hello. Nothing else is read or sent before the hello is accepted. It is
//!   refused unless both nodes belong to the same cluster and support the cluster's feature level (`hello.rs`,
//!   `levels.rs`).
//! - Raft's appends and snapshots to one peer keep their order, those of bulk among themselves. Bulk messages have a
//!   connection of their own, so nothing else waits for them. Messages without entries are sent before them, in
//!   order among themselves. Any message may be lost; consensus is then informed that the peer was unreachable.
//! - A request is forwarded at most once, and never forwarded again by its receiver. If it was not sent, it was not
//!   appended. If it was sent and is not answered, its outcome is unknown, unless the log of a later leader shows it
//!   (`settle.rs`).
//! - A request is relayed only to a node that has a replica of its log, and never relayed again. The client's rights
//!   are checked by the node that relays it (`relay.rs`).
//! - Every queue is bounded by bytes or by a count. What happens when it is full is documented at the bound.
//! - Every number and code that is sent is encoded and decoded from one table: refusal reasons (`reason.rs`), refusals
//!   of jobs (`outcome.rs`), relayed methods (`relay.rs`), raft messages and entries (`consensus/wire.rs`). A code that
//!   only a newer version knows is refused by name, and logged with the node that sent it.
//!
//! Parts, in reading order:
//! - Callers: `levels` (which versions are compatible), `hello` (the first message), `reason`, `refusal` and
//!   `refusal_log` (refusals), `guard` (certificates and permissions), `addresses` (what is known about other nodes).
//! - Sending: `dial` (channels), `link` (one stream), `forward` (work and its callers), `mailbox` (the inbox of a
//!   peer's thread), `unanswered` (sent jobs without an answer), `outcome` (the answers), `settle` (answers from the
//!   log), `node` (the state that the threads share), `probe` (whether a lost peer's process has ended), `bulk` and
//!   `bulk_rate` (what lagging followers lack), `peer` (one peer's thread), `peers` (all peers).
//! - Relaying: `relay` (the requests and their answers), `relay_channels` and `relay_answer` (the side of the node
//!   without a replica), `relay_service` (the side of the node that has one).
//! - Receiving: `core` (this node as a member), `welcome` (the checks of a caller), `proposal` (a forwarded proposal),
//!   `join` (admission), `form` (blank nodes that form a cluster), `service` (the calls), `listener` (the server).
//! - `wait`: lets a plain thread wait for futures.

pub mod addresses;
mod bulk;
pub mod bulk_rate;
mod core;
pub mod dial;
mod direct;
mod form;
mod forward;
pub mod guard;
pub mod hello;
mod join;
pub mod levels;
mod link;
pub mod listener;
pub(crate) mod mailbox;
mod node;
mod outcome;
mod peer;
pub mod peers;
mod probe;
mod proposal;
mod reason;
pub mod refusal;
mod refusal_log;
pub mod relay;
mod relay_answer;
mod relay_channels;
mod relay_service;
pub mod service;
mod settle;
mod unanswered;
pub mod wait;
mod welcome;

use std::sync::{Arc, OnceLock};

/// A value that is set after its users were started. For example, the core of this node is set once the node is
/// admitted.
pub type Late<T> = Arc<OnceLock<T>>;

#[cfg(test)]
pub(crate) mod tests;

#[cfg(test)]
mod fuzz;
