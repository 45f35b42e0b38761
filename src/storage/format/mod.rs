//! The bytes of every file: encoded and decoded here, without I/O.

pub mod digest;
pub mod entry;
pub mod frame;
pub mod manifest;
pub mod payload;
pub mod state;
