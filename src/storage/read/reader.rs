//! Reads of one group's log, at the same time as the thread that appends to it and without its mutex.
//!
//! A reader takes the current view, finds the segment, and by its index a position, and walks the frames from there; the checksum
//! of each is checked on every read. gRPC's threads read with [`Access::Cached`], which never waits for the disk. What is not in
//! memory ([`ReadError::NotCached`]) is read again on a `reader` thread (`io/pool.rs`) with [`Access::Blocking`].
//!
//! A caller that reads records must not read beyond the high watermark: what is there may still be truncated.

use std::sync::Arc;

use super::ahead::{self, Ahead, Fetch};
use super::block::{self, Block, ResumePoint};
use super::by_time;
use super::entries;
use super::error::ReadError;
use super::records::{self, Slice};
use super::view::{Published, View};
use crate::storage::error::StorageError;
use crate::storage::format::entry::Entry;
use crate::storage::format::state::Base;
use crate::storage::io::disk::Access;
use crate::types::{LogIndex, Offset};

/// Reads one group's log; a clone reads the same.
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

    /// Returns records from `from` on and below `until`, the high watermark. Ends before `records_max` or `bytes_max` is exceeded, but
    /// returns at least one record, of any size, if one exists; and ends before a record that can't be read. Each call checks whole
    /// frames, so a caller that wants single records reads many at once and splits them with [`crate::storage::payload::records`].
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

    /// Reads about `bytes_max` bytes of records from `from` on and below `until`, the high watermark: whole entries, if possible.
    /// `resume` is where the last read ended, if there was one.
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

    /// Returns what is to be fetched next for a stream whose last read ended at `resume`, if it is time. Never waits.
    pub fn to_fetch(&self, resume: ResumePoint, ahead: &mut Ahead) -> Option<Fetch> {
        ahead::to_fetch(&self.view(), resume, ahead)
    }

    /// The append time of the record at an offset below `until`, Unix microseconds; `None` if it does not exist. For a
    /// record that can't be read it is that of the next readable one, if that is found soon.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn append_time_us(&self, offset: Offset, until: Offset, access: Access) -> Result<Option<u64>, ReadError> {
        records::append_time_us(&self.0, offset, until, access)
    }

    /// The first record in `from..until` whose append time (Unix microseconds) is not before `time_us`; `None` when all of
    /// them are older. If that record may be among unreadable ones, the first of these. Records below `from` that are not stored any more
    /// count as older.
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

    /// Entries from `low` on and below `high`, up to `bytes_max`, but at least one. Fewer, or none, if the log is shorter: it may
    /// have been truncated since. Also fewer before an entry that can't be read. A caller that needs them to be of one log checks their
    /// terms.
    ///
    /// # Errors
    /// [`ReadError`]; `Trimmed` if `low` is not above the base; `Damaged` or `NewerFrame` if the first entry can't be read.
    pub fn entries(
        &self,
        low: LogIndex,
        high: LogIndex,
        bytes_max: u64,
        access: Access,
    ) -> Result<Vec<Entry>, ReadError> {
        entries::entries(&self.0, low, high, bytes_max, access)
    }

    /// The end of the log as of an entry. Reads from `near` on, an entry up to this one whose digest is known, or from the
    /// beginning of the entry's segment; blocks.
    ///
    /// # Errors
    /// [`StorageError`], also if the entry is not stored.
    pub fn end_at(&self, index: LogIndex, near: Option<Base>) -> Result<Base, StorageError> {
        entries::end_at(&self.0, index, near)
    }

    /// The base offset of the newest segment that was created at `local_us` or before, by the log's clock (`catalog/policy/ages.rs`): all
    /// earlier records had arrived by then. `None` if no segment is that old. Reads nothing.
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

    /// The first record to keep so that whole segments go and at least `bytes` stay; `None` when none can go. Reads nothing.
    pub fn first_within(&self, bytes: u64) -> Option<Offset> {
        self.view().first_within(bytes)
    }

    /// Bytes of the log's frames on this node.
    pub fn stored_bytes(&self) -> u64 {
        self.view().stored_bytes()
    }
}

#[cfg(test)]
mod tests;
