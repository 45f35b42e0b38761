//! Storage: a node's data directory, and the segmented log of each group in it.
//!
//! **The Raft log is the commit log.** A second copy does not exist: a leader encodes a proposal once, and the same
//! bytes are stored in frames and sent to readers.
//!
//! ```text
//!   <data_dir>/
//!     node.toml, lock                     io/node.rs                 the node's identity and groups
//!     catalog                             format/catalog_file.rs     the newest snapshot of the catalog
//!     recovery                            format/recovery_file.rs    the changes of `seriatim recover`, until they are made
//!     reserve                             io/space.rs                deleted when the disk is full
//!     groups/<group id>/                  write/create.rs            created completely or not at all
//!       manifest                          format/manifest.rs         where the log begins, the durable position, conf state, log state
//!       00000000000000000100.state        format/state_file.rs       the producers and cursors after an entry
//!       00000000000000000001.seg          format/segment_header.rs   a header, then frames (frame.rs), which contain entries (entry.rs)
//!       00000000000000000001.idx          format/index.rs            derived: (index, offset, time) → position
//! ```
//!
//! # Guarantees
//!
//! - Files are append-only and never overwritten. A repaired segment replaces the damaged one as a whole. A log that loses its suffix continues in a new segment.
//! - The durable position is covered by a finished sync. Below it, bytes that can't be read are damage and are refused.
//!   Above it, the first bad frame ends the log.
//! - Files and frames that a newer version wrote are refused with an error that names them. They are never treated as
//!   damage, and never cut off as a torn tail.
//! - A file is deleted only when a manifest that does not need it is on the disk.
//! - Every number that is read from a disk is checked before it is used; derived files are never trusted.
//! - Only `io/disk.rs` uses the file system.
//!
//! # Parts
//!
//! In reading order. Each part imports only from those above it, and no two files import each other.
//!
//! ```text
//!   error, faults   the errors; the rules that tests break
//!        │
//!   format          the bytes of every file, without I/O
//!        │
//!   io              disk, space, the node's directory, a group's files, the reader threads
//!        │
//!   read            ◀── gRPC threads (Access::Cached), reader-* (Access::Blocking)
//!        │                the view that the writer publishes; segments; the walk over frames, by which everything reads frames
//!   write           ◀── consensus: append, hard state, truncate, trim, snapshot; log-writer: begin_sync, perform, end_sync
//!        │                one log for its owner
//!   recover         ◀── a start; seriatim recover
//!        │
//!   verify          ◀── data verify, data dump; the scrub thread
//! ```
//!
//! `proof` tests that all of this survives crashes and damage. The rest of the crate uses only the names that are
//! re-exported below.

pub mod error;
pub(crate) mod faults;
mod format;
mod io;
mod read;
mod recover;
pub(crate) mod verify;
mod write;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod proof;

#[cfg(test)]
pub(crate) use self::format::checkpoints;
pub use self::format::entry;
pub(crate) use self::format::recovery_file;
pub(crate) use self::format::state_change;
pub(crate) use self::format::{digest, frame, payload};
pub use self::io::disk;
pub(crate) use self::io::{node, space};
#[cfg(test)]
pub(crate) use self::read::damage;
pub(crate) use self::read::{ahead, block};
#[cfg(test)]
pub(crate) use self::recover::tables::replay;
pub(crate) use self::recover::unlisted::check_groups;
pub(crate) use self::recover::{only_voter, readable, replicas, roll_forward};
pub(crate) use self::verify::{dump, scrub};
pub(crate) use self::write::repair;

/// Reads of a log, and the threads that execute blocking reads.
pub(crate) mod reader {
    pub use super::io::disk::Access;
    #[cfg(test)]
    pub(crate) use super::io::pool::ReadersByHand;
    pub use super::io::pool::{Readers, ReadersHandle};
    #[cfg(test)]
    pub use super::read::error::NewerRecords;
    pub use super::read::error::ReadError;
    pub use super::read::links::Link;
    pub use super::read::reader::GroupReader;
    pub use super::read::records::Slice;
}

/// One group's log, for its owner.
pub mod log {
    pub use super::error::StorageError;
    pub use super::format::state::{
        Base, Bounds, CatalogState, ConfState, Genesis, HardState, LogSnapshot, LogState, Recovered, SealAge,
    };
    pub use super::write::log::GroupLog;
    pub use super::write::options::LogOptions;
    pub use super::write::removal::Removal;
    pub use super::write::sync::{NOTE_BYTES, NOTE_EVERY, QUIET, SyncJob, Urgency};
}
