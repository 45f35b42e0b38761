//! Storage: a node's directory and the segmented log of each group on it.

pub mod node;

pub mod entry;
pub mod payload;
pub mod state;

pub mod log;
pub mod reader;
pub mod sync;

pub mod disk;
pub mod error;
