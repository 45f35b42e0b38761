//! A blocking client of the API, for the command line and the tests. A [`Client`] connects to one node, with mutual
//! TLS.
//!
//! It never sends a request twice. [`Status::outcome`] says what became of a failed request, and [`Status::retry`]
//! whether the same request can succeed; the caller decides. Methods block, so they must not be called on gRPC's threads.
//!
//! - `calls`: [`Client`], with one method per RPC
//! - `streams`: [`ConsumeStream`] and [`ProduceStream`]
//! - `status`: [`ClientError`] and [`Status`]
//! - [`metrics`]: reads the metrics of a node
//! - `connection`: the channel and its thread, which stop when the last user is dropped

mod calls;
mod connection;
pub mod metrics;
mod status;
mod streams;

pub use self::calls::{Client, ClientFiles, ClientOptions};
pub use self::status::{ClientError, Status};
pub use self::streams::{ConsumeStream, ProduceStream};
pub use crate::reason::{Outcome, Retry};

#[cfg(test)]
mod fuzz;
