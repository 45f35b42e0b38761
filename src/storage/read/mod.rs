//! Reads of a log.

pub mod ahead;
pub mod block;
pub mod by_time;
pub mod damage;
pub mod entries;
pub mod error;
pub mod index_file;
pub mod reader;
pub mod records;
pub mod segment;
pub mod view;
pub mod visit;
pub mod walk;
