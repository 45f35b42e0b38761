//! Writes of a log.

pub mod active;
pub mod create;
pub mod frames;
pub mod log;
pub mod sync;
