//! The file system, and the directories of a node and of its groups.
//!
//! - [`disk`]: the only module that uses the file system. Its parts are an interface, the real file system, and a
//!   simulated one.
//! - [`space`]: free space and the reserve file; [`segment_cache`]: which sealed segments stay open.
//! - [`node`]: the data directory; [`node_file`]: `node.toml`; [`pledge_file`]: `pledge.toml`; [`group_files`]: the files of
//!   one group.
//! - [`pool`]: the threads for reads that wait for the disk.

pub mod disk;
pub mod group_files;
pub mod node;
pub mod node_file;
pub(crate) mod pledge_file;
pub mod pool;
pub mod segment_cache;
pub mod space;
