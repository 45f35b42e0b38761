//! Seriatim: a replicated commit log for plain Linux hosts.
//!
//! Applications use [`client`], the library for appending and reading records. Everything else is the server.
//!
//! The modules form layers. A module imports only from lower layers, and the files of a module do not import each
//! other in circles; `tests/e2e/layers.rs` checks both. Read them from the bottom up:
//!
//! ```text
//!   cli                                        subcommands of the program
//!   agent                                      starts and stops the parts of a node
//!   monitor                                    metrics, health and a page, over HTTP
//!   api          membership                    requests of clients │ finding other nodes, joining
//!   replication                                messages between peers
//!   consensus                                  Raft groups, and the thread that drives them
//!   catalog  writer  logs  grpc  http  client  cluster state │ sync │ open logs │ transport
//!   storage      security                      segments on disk │ certificates, access policy
//!   log_state  watermark  timers               state derived from entries │ end of the visible records
//!   types  thread  inbox  reply  config ...    basic types and tools; they import no other layer
//! ```
//!
//! [`types`] defines the ids and names that all modules use. `docs/ARCHITECTURE.md` describes how a record travels
//! through the layers, which threads exist, and which file does what.

pub mod bucket_map;
pub mod random;
pub mod types;
pub mod varint;

pub mod calendar;
pub mod clock;
pub mod codes;
pub mod config;
pub mod descriptors;
pub mod doorbell;
pub mod events;
mod faults;
pub mod feature_level;
pub mod free_memory;
pub mod hash_chain;
mod inbox;
pub mod metrics;
pub mod pb;
pub mod reason;
pub mod reply;
pub mod thread;
pub mod waiting;

pub mod pacer;
pub mod timers;

pub mod forming;
pub mod log_state;
pub mod watermark;

pub mod security;
pub mod storage;

pub mod catalog;
pub mod client;
pub mod grpc;
pub mod http;
mod line_limit;
pub mod logs;
pub mod writer;

pub mod consensus;

pub mod replication;

pub mod api;
pub mod membership;

pub mod monitor;

pub mod agent;
pub mod lost_quorum;

pub mod cli;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod golden;
