//! Reads of one log, concurrent with the thread that appends to it.
//!
//! - [`view`]: the chain of segments that the writer publishes; [`segment`], [`index_file`]: one of them, opened when
//!   it is read.
//! - [`walk`]: the frames of one file. Everything in storage reads frames with it.
//! - [`visit`]: the frames of a log from a key on, with the holes between them (`holes.rs`): damage, and frames of a
//!   newer version.
//! - [`records`], [`entries`], [`by_time`]: reads by offset, by index and by time; [`block`], [`ahead`]: reads of a
//!   stream.
//! - [`reader`]: the handle for all of these reads. [`error`], [`damage`]: why a read failed, and the known damage.

pub mod ahead;
pub mod block;
pub mod by_time;
pub mod damage;
pub mod entries;
pub mod error;
mod holes;
pub mod index_file;
pub mod links;
pub mod reader;
pub mod records;
pub mod segment;
pub mod view;
pub mod visit;
pub mod walk;
