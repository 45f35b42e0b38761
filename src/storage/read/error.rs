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
    /// The first wanted record or entry is not stored any more.
    #[error("trimmed away: the first record is {first_offset}")]
    Trimmed {
        /// The first stored record. Clients may read from the watermark's first offset on, which is not below it.
        first_offset: Offset,
    },
    /// The bytes differ from what was written, or can't be read: the range, and the records lost in it, from the first requested
    /// one on.
    #[error("damaged: {0}")]
    Damaged(DamagedRange),
    /// A newer version wrote the frames in which the records or entries should be; nothing there is damaged.
    #[error(transparent)]
    NewerFrame(NewerRecords),
    /// The system refused to read; names the file.
    #[error("{0}")]
    Io(String),
    /// The system had no descriptor or no memory left: a temporary condition, and nothing is known about the bytes.
    #[error("{0}")]
    Shortage(String),
}

/// Records that this version can't read, because a newer one wrote the frames where they should be.
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
