//! A blocking client of the API, for the command line and the tests. A [`Client`] connects to one node, with mutual
//! TLS.
//!
//! It never sends a request twice. [`Status::fate`] tells whether a failed produce may have been appended; the caller
//! decides whether to retry. Methods block, so they must not be called on gRPC's threads.
//!
//! - `calls`: [`Client`], with one method per RPC
//! - `streams`: [`ConsumeStream`] and [`ProduceStream`]
//! - `status`: [`ClientError`] and [`Status`]
//! - `connection`: the channel and its thread, which stop when the last user is dropped

mod calls;
mod connection;
mod status;
mod streams;

pub use self::calls::{Client, ClientFiles, ClientOptions};
pub use self::status::{ClientError, Status};
pub use self::streams::{ConsumeStream, ProduceStream};
pub use crate::reason::Fate;

#[cfg(test)]
mod fuzz;
