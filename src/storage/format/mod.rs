//! The bytes of every file, encoded and decoded without I/O.
//!
//! - [`entry`]: an entry and its kinds, as it is stored and sent; [`payload`]: its records.
//! - [`frame`]: an entry or a note in a segment; [`digest`]: the running digest of entries.
//! - [`segment_header`], [`manifest`], [`index`]: the files; [`versioned`]: what the first two have in common.
//! - [`catalog_file`], [`recovery_file`]: files of the data directory.
//! - [`state`], [`checkpoints`]: what a log stores besides its entries; [`state_file`]: its producers and cursors;
//!   [`state_change`]: how an entry changes them.

pub mod catalog_file;
pub mod checkpoints;
pub mod digest;
pub mod entry;
pub mod frame;
pub mod index;
pub mod manifest;
pub mod payload;
pub mod recovery_file;
pub mod segment_header;
pub mod state;
pub mod state_change;
pub mod state_file;
pub mod versioned;
