//! Why a read failed.

use thiserror::Error;

use super::damage::DamagedRange;
use crate::storage::error::NewerFrame;
#[cfg(doc)]
use crate::storage::io::disk::Access;
use crate::types::Offset;

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// With [`Access::Cached`]: the bytes are not in memory, so a `reader` thread has to read them.
    #[error("not in memory")]
    NotCached,
    /// The first requested record or entry is not stored any more.
    #[error("trimmed away: the first record is {first_offset}")]
    Trimmed {
        /// The offset of the first stored record. The first offset that clients may read is not below it.
        first_offset: Offset,
    },
    /// Bytes differ from what was written, or can't be read: the byte range, and the records lost in it, beginning with
    /// the first requested one.
    #[error("damaged: {0}")]
    Damaged(DamagedRange),
    /// The requested records or entries are in frames that a newer version wrote; nothing is damaged.
    #[error(transparent)]
    NewerFrame(NewerRecords),
    /// This node has given up its replica, and deletes the files.
    #[error("this node does not have a replica of the log any more")]
    Gone,
    /// The system refused to read; names the file.
    #[error("{0}")]
    Io(String),
    /// The system had no file descriptor or no memory left. This is temporary, and nothing is known about the bytes.
    #[error("{0}")]
    Shortage(String),
}

/// Records that this version can't read, because they are in frames that a newer version wrote.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{frame}")]
pub struct NewerRecords {
    /// The first of these frames.
    pub frame: NewerFrame,
    /// The first of these records.
    pub first_offset: Offset,
    /// The first record after them; `None` if no later frame shows it.
    pub next_offset: Option<Offset>,
}
