//! Seriatim: a replicated commit log for plain Linux hosts.
//!
//! The modules stand in floors; each imports only from lower ones (`docs/ARCHITECTURE.md` has the drawing, a test holds it).
//! Read them in this order.

pub mod types;
pub mod varint;

pub mod clock;
pub mod codes;
pub mod config;
pub mod descriptors;
pub mod doorbell;
pub mod inbox;
pub mod metrics;
pub mod pb;
pub mod reason;
pub mod reply;
pub mod thread;
pub mod waiting;

pub mod pacer;
pub mod timers;

pub mod log_state;
pub mod watermark;

pub mod security;
pub mod storage;

pub mod catalog;
pub mod client;
pub mod grpc;
mod line_limit;
pub mod logs;
pub mod writer;

pub mod consensus;

pub mod replication;

pub mod api;
pub mod membership;

pub mod agent;

pub mod cli;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod golden;
