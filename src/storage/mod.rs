//! (being written)
pub mod entry;
pub mod reader;
