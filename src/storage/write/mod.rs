//! One log for its owner: appends, truncation, trims, and sync jobs.
//!
//! - [`log`]: the log, with its [`options`]; [`active`]: its newest segment; [`frames`]: the frames of one write.
//! - [`sync`]: the steps of a sync job, their order, and when a new durable position is written to the manifest.
//! - [`state_files`]: when the producers and the cursors are written.
//! - [`repair`]: a damaged segment is written again.
//! - [`create`]: a new group's files. [`removal`]: how a dropped replica's files are deleted.

pub mod active;
pub mod create;
pub mod frames;
pub mod log;
pub mod options;
pub mod removal;
pub mod repair;
pub(crate) mod state_files;
pub mod sync;
