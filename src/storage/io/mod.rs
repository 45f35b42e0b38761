//! The file system, and what is shared by everything that uses it.

pub mod disk;
pub mod group_files;
pub mod node;
pub mod pool;
pub mod segment_cache;
pub mod space;
