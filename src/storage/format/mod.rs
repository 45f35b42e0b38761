//! The bytes of every file: encoded and decoded here, without I/O.

pub mod checkpoints;
pub mod digest;
pub mod entry;
pub mod frame;
pub mod index;
pub mod manifest;
pub mod payload;
pub mod segment_header;
pub mod state;
pub mod versioned;
