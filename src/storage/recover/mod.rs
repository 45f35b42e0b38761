//! What a start does.

pub mod chain;
pub mod recovery;
pub mod unlisted;
