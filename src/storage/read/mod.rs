//! Reads of a log.

pub mod ahead;
pub mod block;
pub mod by_time;
pub mod damage;
pub mod index;
pub mod reader;
pub mod segment;
pub mod view;
pub mod visit;
pub mod walk;
