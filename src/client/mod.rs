//! The client library: appends records to logs and reads them, and survives the failure of nodes.
//!
//! A [`Cluster`] finds the members of the cluster and connects to them. A [`Producer`] appends records to a log, each once
//! and in order. A [`Consumer`] reads a log, and its cursor keeps the position in the cluster. `clients/README.md`
//! describes what they have in common with the libraries for other languages: retries, timeouts and errors.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use seriatim::client::{ClientFiles, Cluster, ClusterOptions, ConsumerOptions, ProducerOptions, Record};
//!
//! # fn main() -> seriatim::client::Result<()> {
//! let cluster = Cluster::new(ClusterOptions {
//!     files: Some(ClientFiles::in_dir("certs", "root")),
//!     ..ClusterOptions::new(["n1.example:8400", "n2.example:8400"])
//! })?;
//!
//! let producer = cluster.producer(&ProducerOptions::new("default"))?;
//! // Sends at once. Records that follow while it is unanswered are sent together.
//! let first = producer.send("one")?;
//! let second = producer.send(Record { key: Some("k".into()), ..Record::new("two") })?;
//! println!("offsets {:?} and {:?}", first.wait()?.offset, second.wait()?.offset);
//! producer.close(Duration::from_secs(10))?;
//!
//! let consumer = cluster.consumer(&ConsumerOptions {
//!     cursor: Some("printer".into()),
//!     ..ConsumerOptions::new("default")
//! })?;
//! for received in &consumer {
//!     let received = received?;
//!     println!("{} {:?}", received.offset, received.record.value);
//!     consumer.commit()?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! An [`Error`] covers all attempts of an operation. [`Error::kind`] says what went wrong, and
//! [`Error::may_have_been_done`] whether the operation may have had an effect nevertheless.
//!
//! # Threads
//!
//! The library needs no async runtime. A cluster has one thread of gRPC; a producer and a consumer have one each, and a
//! consumer that commits by itself has two. Methods block, except [`Producer::send`] while its buffer has room. An
//! [`AckHandle`] is also a future.
//!
//! # One node
//!
//! A [`Client`] connects to one node, for the command line and for tests. It never sends a request twice.
//! [`Status::outcome`] says what became of a failed request, and [`Status::retry`] whether the same request can succeed;
//! the caller decides. Its methods must not be called on gRPC's threads.
//!
//! # Files
//!
//! - `cluster`, `producer`, `consumer`, `record`: what applications use
//! - `error`, `error_kind`: their errors
//! - `nodes`: the members and the channels to them
//! - `route`: which node is asked next, after which pause; calls that are sent until they are answered
//! - `wait`: waits that the owner of a thread can end; pauses
//! - `calls`: [`Client`], with one method per RPC
//! - `streams`: [`ConsumeStream`] and [`ProduceStream`]
//! - `status`: [`ClientError`] and [`Status`]
//! - [`metrics`]: reads the metrics of a node
//! - `connection`: the channel and its thread, which stop when the last user is dropped

mod calls;
mod cluster;
mod connection;
mod consumer;
mod error;
mod error_kind;
pub mod metrics;
mod nodes;
mod producer;
mod record;
mod route;
mod status;
mod streams;
mod wait;

pub use self::calls::{Client, ClientFiles, ClientOptions};
pub use self::cluster::Cluster;
pub use self::consumer::{Consumer, ConsumerOptions, CursorState, StartAt};
pub use self::error::{Error, Result};
pub use self::error_kind::ErrorKind;
pub use self::nodes::ClusterOptions;
pub use self::producer::{Ack, AckHandle, Producer, ProducerOptions, Progress};
pub use self::record::{ReceivedRecord, Record};
pub use self::status::{ClientError, Status};
pub use self::streams::{ConsumeStream, ProduceStream};
pub use crate::reason::{Outcome, Retry};
pub use grpcio::RpcStatusCode;

#[cfg(test)]
mod fuzz;
