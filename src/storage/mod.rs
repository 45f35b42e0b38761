//! Storage: a node's directory, and the segmented log of each group in it.
//!
//! **The Raft log is the commit log.** There is no second copy: what a leader proposes is encoded once, stored in frames,
//! and sent to readers as it is stored.
//!
//! ```text
//!   <data_dir>/
//!     node.toml, lock                     node.rs      whose directory this is
//!     reserve                             space.rs     given back when the disk is full
//!     groups/<group id>/                  create.rs    made whole or not at all
//!       manifest                          manifest.rs  where the log begins, the durable position, conf and log state
//!       00000000000000000001.seg          segment.rs   a header, then frames (frame.rs), which hold entries (entry.rs)
//!       00000000000000000001.idx          index.rs     derived: (index, offset, time) -> position
//!
//!   consensus    ── append, hard state, truncate, trim, snapshot ──▶  GroupLog (log.rs, active.rs)
//!   log-writer   ── begin_sync, SyncJob::perform, end_sync ──────▶  GroupLog, sync.rs
//!   gRPC threads ── records(Cached) ──▶  GroupReader (reader.rs) ──▶  visit.rs, view.rs, walk.rs
//!   reader-*     ── records(Blocking) ──▶  the same, for what is not in the page cache (pool.rs), and what a stream will come to
//!                                          (ahead.rs)
//!   start        ── GroupLog::open ──▶  recovery.rs, chain.rs
//!   scrub        ── each synced frame from the disk, now and then ──▶  scrub.rs; what it and reads find: damage.rs
//!   log verify   ── the same eyes, changing nothing ──▶  verify.rs; log dump ──▶ dump.rs
//! ```
//!
//! What must stay true:
//! - Files are append-only. Nothing is overwritten; a log that loses its suffix goes on in a new segment.
//! - The durable position is a position that a finished sync has covered. Below it, whatever can't be read is damage, and refused;
//!   above it, the first bad frame ends the log.
//! - A file goes only when a manifest that does not need it is on the disk.
//! - Every number read from a disk is checked before it is used; what is derived is never trusted.
//! - `disk.rs` is the only door to the file system.

pub mod error;
mod faults;
mod format;
mod io;
mod read;
mod recover;
pub mod verify;
mod write;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod proof;

pub use self::format::{checkpoints, digest, entry, frame, payload};
pub use self::io::{disk, node, space};
pub use self::read::{ahead, block, damage};

/// Reads of a log, and the threads that do those that wait for the disk.
pub mod reader {
    pub use super::io::disk::Access;
    #[cfg(test)]
    pub(crate) use super::io::pool::ByHand as ReadersByHand;
    pub use super::io::pool::{QueueFull, Readers, ReadersHandle};
    pub use super::read::error::ReadError;
    pub use super::read::reader::GroupReader;
    pub use super::read::records::Slice;
}

pub use self::verify::{dump, scrub};

pub use self::recover::unlisted::check_groups;

/// One group's log, for its owner.
pub mod log {
    pub use super::error::StorageError;
    pub use super::format::state::{Base, ConfState, Genesis, HardState, LogSnapshot, LogState, Recovered, SealAge};
    pub use super::write::log::{Bounds, GroupLog, LogOptions};
    pub use super::write::sync::{NOTE_BYTES, NOTE_EVERY, QUIET, SyncJob, Urgency};
}
