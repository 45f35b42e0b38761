//! The client API, on the client listener: `seriatim.v1` (`LogService`, `ClusterService`), `log.v1.Log` for the clients
//! of proglog, health checks and server reflection.
//!
//! ```text
//!  request ── prelude: certificate, right, limits ── handler: log name and its right ── router ── consensus here
//!                                                              │                           └──── or the leader, one hop
//!                                                              └ reads: high watermark, stored bytes ── reader-* threads
//!                                                                                                     if not in memory
//! ```
//!
//! Handlers are futures on gRPC's completion-queue threads. They wait for a reply, a watermark, a send or a timer, and
//! never block. Invariants:
//! - A client is authenticated and authorized before its request is processed, and again while its stream is open.
//! - A node serves reads from its own replica, or passes on what a node with a replica answers. It returns "no record"
//!   and "no such log" only after a read index.
//! - Each request ends with a response or a status. [`status`] is the only file that maps errors to statuses.
//!
//! An append has exactly three representations:
//! 1. [`messages::Request`]: the client's bytes, as gRPC delivers them
//! 2. [`Proposal`](crate::consensus::handle::Proposal): the conditions of the append, and the payload: space for the
//!    entry's stamp, then the records in canonical form, encoded once by [`append_request`]. If the proposal is
//!    forwarded to a leader, the message contains the same payload bytes.
//! 3. [`Entry`](crate::storage::entry::Entry): the same allocation, after the leader has written the stamp and each
//!    record's offset, term and time in place. raft, the messages to followers and the frame on disk share these bytes.
//!
//! In reading order:
//! - [`rpc`]: the table of RPCs. [`prelude`]: the steps before and after every handler. [`service`]: what handlers use.
//! - [`access`], [`limits`], [`deadline`], [`in_flight`], [`lifecycle`], [`metrics`]: the parts of the prelude
//! - [`produce`], [`produce_stream`], [`consume`], [`consume_stream`], [`servers`], [`logs`], [`create`], [`update`],
//!   [`delete`], [`trim`], [`node`], [`identity`], [`cluster_settings`], [`upgrade`], [`health`], [`reflection`]: the
//!   handlers; [`append_request`], [`read_request`], [`read`] and `availability` are parts of them
//! - [`package`]: the two packages in which the same handlers are offered
//! - [`core`], [`router`], [`leaders`], [`forward`]: the parts of the node that the API uses, and the routing of
//!   proposals to a leader
//! - [`relay`]: requests for a log of which this node has no replica. [`relayed`]: such requests of other nodes.
//! - [`messages`], [`wire`]: requests and responses as bytes. [`error`], [`status`]: the errors, and their statuses.
//! - [`server`]: starts and stops the listener
//!
//! To add an RPC: a line in [`rpc`], and its handler.

pub mod server;

pub mod rpc;

pub mod prelude;
pub mod service;

pub mod access;
pub mod deadline;
pub mod in_flight;
pub mod lifecycle;
pub mod limits;
pub mod metrics;

pub mod append_request;
pub mod produce;
pub mod produce_stream;
pub mod producers;
mod state_change;

pub mod consume;
pub mod consume_stream;
pub mod cursors;
pub mod read;
pub mod read_request;

mod availability;
mod chain;
mod change;
pub mod cluster_settings;
pub mod create;
pub mod delete;
pub mod health;
pub mod identity;
mod log_settings;
pub mod logs;
pub mod node;
pub mod nodes;
pub mod reflection;
pub mod restore;
pub mod servers;
mod timestamp;
pub mod trim;
pub mod update;
pub mod upgrade;

pub mod package;

pub mod core;
pub mod forward;
pub mod leaders;
pub mod relay;
pub mod relayed;
pub mod router;

pub mod messages;
pub mod wire;

pub mod error;
pub mod invalid;
pub mod status;

pub use self::core::{Core, Me};
pub use self::forward::Forward;
pub use self::server::{Api, ApiOptions, StartError};

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz;
