//! Storage: a node's directory and the segmented log of each group on it.

pub mod node;

pub mod entry;
pub mod payload;
pub mod state;

pub mod log;
pub mod reader;

pub mod frame;
pub mod segment;

mod active;
mod chain;
mod create;
mod index;
mod manifest;
mod pool;
mod recovery;
mod sync;
mod view;
mod walk;

pub mod disk;
pub mod error;
