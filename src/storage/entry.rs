//! (being written)
use crate::types::*;
/// Kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Records.
    Records = 1,
    /// No-op.
    Noop = 2,
    /// Conf change.
    ConfChange = 3,
    /// Trim.
    Trim = 4,
    /// Hard state.
    HardState = 5,
    /// Synced.
    Synced = 6,
    /// Filler.
    Filler = 7,
}
/// An entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its index.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// Stamp and payload.
    pub data: bytes::Bytes,
}
