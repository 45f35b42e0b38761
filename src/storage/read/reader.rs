//! Reads of one group's log, concurrent with the thread that appends to it and without its mutex.
//!
//! A reader takes the current view, finds the segment, searches the segment's index for a position, and walks the
//! frames from there. Every read verifies the checksum of each frame. gRPC threads read with [`Access::Cached`], which
//! never waits for the disk. If that fails with [`ReadError::NotCached`], the read is repeated on a `reader` thread
//! (`io/pool.rs`) with [`Access::Blocking`].
//!
//! Callers must not read records at or above the high watermark, because these may still be truncated.

use std::sync::Arc;

use super::ahead::{self, Ahead, Fetch};
use super::block::{self, Block, ResumePoint};
use super::by_time;
use super::entries;
use super::error::ReadError;
use super::links::{self, Link};
use super::records::{self, Slice};
use super::view::{Published, View};
use crate::storage::error::StorageError;
use crate::storage::format::entry::Entry;
use crate::storage::format::state::Base;
use crate::storage::io::disk::Access;
use crate::types::{LogIndex, Offset};

/// A handle for reads of one group's log; a clone reads the same log.
#[derive(Clone)]
pub struct GroupReader(Arc<Published>);

impl GroupReader {
    pub(crate) fn new(published: Arc<Published>) -> GroupReader {
        GroupReader(published)
    }

    pub(crate) fn published(&self) -> &Published {
        &self.0
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.0.view()
    }

    /// Returns records from `from` up to but excluding `until`, the high watermark. Stops before `records_max` or
    /// `bytes_max` is exceeded, but returns at least one record, of any size, if one exists; also stops before a record
    /// that can't be read. Each call checks whole frames, so a caller that needs single records reads many at once and
    /// splits them with [`crate::storage::payload::records`].
    ///
    /// # Errors
    /// [`ReadError`]; `Damaged` or `NewerFrame` if the first record can't be read.
    pub fn records(
        &self,
        from: Offset,
        until: Offset,
        records_max: u32,
        bytes_max: usize,
        access: Access,
    ) -> Result<Slice, ReadError> {
        records::records(&self.0, from, until, records_max, bytes_max, access)
    }

    /// Reads about `bytes_max` bytes of records, in whole entries if possible, from `from` up to but excluding `until`,
    /// the high watermark. `resume` is where the previous read ended, if there was one.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn block(
        &self,
        from: Offset,
        until: Offset,
        bytes_max: usize,
        access: Access,
        resume: Option<ResumePoint>,
    ) -> Result<Block, ReadError> {
        block::block(&self.0, from, until, bytes_max, access, resume)
    }

    /// Returns the links of the hash chain from the entry that contains `from` on, up to but excluding `until`, the high
    /// watermark. Stops before `links_max` is exceeded and once `bytes_max` bytes of records were hashed, but returns at
    /// least one link if `from` is below `until`. Also stops before an entry that can't be read.
    ///
    /// # Errors
    /// [`ReadError`]; `Damaged` or `NewerFrame` if the first entry can't be read or contains no hash chain.
    pub fn links(
        &self,
        from: Offset,
        until: Offset,
        links_max: usize,
        bytes_max: usize,
        access: Access,
    ) -> Result<Vec<Link>, ReadError> {
        links::links(&self.0, from, until, links_max, bytes_max, access)
    }

    /// Returns the next bytes to request for a stream whose last read ended at `resume`; `None` if enough are
    /// requested. Never waits.
    pub fn to_fetch(&self, resume: ResumePoint, ahead: &mut Ahead) -> Option<Fetch> {
        ahead::to_fetch(&self.view(), resume, ahead)
    }

    /// Returns the append time (Unix microseconds) of the record at `offset`; `None` if that is not below `until`. For
    /// a record that can't be read, returns the time of the next readable one, if a few attempts find it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn append_time_us(&self, offset: Offset, until: Offset, access: Access) -> Result<Option<u64>, ReadError> {
        records::append_time_us(&self.0, offset, until, access)
    }

    /// Returns the first record in `from..until` whose append time (Unix microseconds) is at or after `time_us`; `None`
    /// if all of them are older. If an unreadable record may be that record, returns the first such one. Trimmed
    /// records count as older.
    ///
    /// # Errors
    /// [`ReadError`]; never `Trimmed`.
    pub fn first_not_before(
        &self,
        time_us: u64,
        from: Offset,
        until: Offset,
        access: Access,
    ) -> Result<Option<Offset>, ReadError> {
        by_time::first_not_before(&self.0, time_us, from, until, access)
    }

    /// Returns entries from `low` up to but excluding `high`, at most `bytes_max` bytes, but at least one entry.
    /// Returns fewer or none if the log is shorter, because it may have been truncated meanwhile, and stops before an
    /// entry that can't be read. A caller that needs entries of one consistent log checks their terms.
    ///
    /// # Errors
    /// [`ReadError`]; `Trimmed` if `low` is not above the base; `Damaged` or `NewerFrame` if the first entry can't be
    /// read.
    pub fn entries(
        &self,
        low: LogIndex,
        high: LogIndex,
        bytes_max: u64,
        access: Access,
    ) -> Result<Vec<Entry>, ReadError> {
        entries::entries(&self.0, low, high, bytes_max, access)
    }

    /// Returns the end of the log as of an entry. Reads forward from `near`, an entry at or before this one whose
    /// digest is known, or from the beginning of the entry's segment. May wait for the disk.
    ///
    /// # Errors
    /// [`StorageError`], also if the entry is not stored.
    pub fn end_at(&self, index: LogIndex, near: Option<Base>) -> Result<Base, StorageError> {
        entries::end_at(&self.0, index, near)
    }

    /// Returns the base offset of the newest segment that was created at or before `local_us`, by the log's clock
    /// (`catalog/policy/ages.rs`): all earlier records had arrived by then. `None` if no segment is that old. Reads
    /// nothing from the disk.
    pub fn arrived_by(&self, local_us: u64) -> Option<Offset> {
        self.view().arrived_by(local_us)
    }

    /// The latest time in the segments' headers, by the log's clock; 0 if it is unknown.
    pub fn begun_us(&self) -> u64 {
        self.view().begun_us()
    }

    /// The number of synced bytes at the log's end above the manifest's durable position (`write/sync.rs`).
    pub fn unprotected_bytes(&self) -> u64 {
        self.0.unprotected_bytes()
    }

    /// Returns the first record to keep so that whole segments are dropped and at least `bytes` remain; `None` if none
    /// can be dropped. Reads nothing from the disk.
    pub fn first_within(&self, bytes: u64) -> Option<Offset> {
        self.view().first_within(bytes)
    }

    /// Notes that this node drops its replica, and deletes the files. From now on a read that fails does so with
    /// [`ReadError::Gone`].
    pub fn give_up(&self) {
        self.0.give_up();
    }

    /// Returns about how many bytes the entries after `before` have, up to `until`. Reads nothing from the disk.
    pub fn bytes_between(&self, before: LogIndex, until: LogIndex) -> u64 {
        if before >= until { 0 } else { self.view().bytes_between(before, until) }
    }

    /// Bytes of the log's frames on this node.
    pub fn stored_bytes(&self) -> u64 {
        self.view().stored_bytes()
    }
}

#[cfg(test)]
mod tests;
