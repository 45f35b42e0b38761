//! What clients call: `log.v1.Log`, `seriatim.v1.Admin` and `grpc.health.v1.Health`, on the client listener.
//!
//! ```text
//!  a call ── guard: identity, method ── limits ── log name and right ── router ── consensus here
//!                                                                  │         └─── or the leader, one hop
//!                                                                  └ reads: watermark, stored bytes ── reader-* when
//!                                                                                                     not in memory
//! ```
//!
//! Everything here runs on gRPC's completion-queue threads as small futures that wait for a reply, a watermark, a send or
//! a timer, and never block. What must hold:
//! - A caller is known and allowed before anything is looked up, and asked again while its stream is open.
//! - A node answers from what it has; "there is nothing there" and "no such log" are said only after a read index.
//! - Each call ends with an answer or a status; [`errors`] is the one file that says which.

pub mod server;

pub mod methods;
pub mod service;

pub mod authorize;
mod availability;
pub mod limits;
pub mod refusals;
pub mod tarpit;

pub mod batch;
pub mod produce;
pub mod produce_stream;

pub mod consume;
pub mod consume_stream;
pub mod read;

pub mod admin;
pub mod configure;
pub mod health;
pub mod info;

pub mod core;
pub mod router;

pub mod errors;

pub mod deadline;
pub mod in_flight;
pub mod state;
pub mod wire;

pub use self::core::{Core, Me};
pub use self::router::Forward;
pub use self::server::{Api, ApiOptions, StartError};

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz;
