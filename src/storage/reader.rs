//! (being written)
use crate::types::Offset;
/// Read error.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadError {
    /// Not cached.
    NotCached,
    /// Trimmed.
    Trimmed {
        /// The first that is there.
        first_offset: Offset,
    },
    /// Damaged.
    Damaged(String),
    /// IO.
    Io(String),
}
/// Reader.
#[derive(Clone)]
pub struct GroupReader;
