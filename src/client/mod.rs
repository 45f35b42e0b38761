//! A blocking client of the API, for the command line and the tests: mutual TLS, one node per [`Client`].
//!
//! It never sends anything twice. [`Status::fate`] says what became of a produce that failed; the caller decides whether to
//! send again. Every method blocks, so none may be called on gRPC's threads.
//!
//! - `calls`: [`Client`], with one method per RPC
//! - `streams`: [`ConsumeStream`] and [`ProduceStream`]
//! - `status`: [`ClientError`] and [`Status`]
//! - `connection`: the channel and its thread, which live until the last user is dropped

mod calls;
mod connection;
mod status;
mod streams;

pub use self::calls::{Client, ClientFiles, ClientOptions};
pub use self::status::{ClientError, Fate, Status};
pub use self::streams::{ConsumeStream, ProduceStream};

#[cfg(test)]
mod fuzz;
