//! One log for its owner: appends, truncation, trims, and sync jobs.
//!
//! - [`log`]: the log, with its [`options`]; [`active`]: its newest segment; [`frames`]: the frames of one write.
//! - [`sync`]: what a sync job does, in which order, and when the manifest gets a new durable position.
//! - [`create`]: a new group's files.

pub mod active;
pub mod create;
pub mod frames;
pub mod log;
pub mod options;
pub mod sync;
