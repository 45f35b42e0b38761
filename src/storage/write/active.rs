//! The newest segment of a log: the one that is appended to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::error::StorageError;
use crate::storage::format::frame::Position;
use crate::storage::format::index::Index;
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_path};
use crate::storage::io::disk::{Disk, DiskFile};
use crate::storage::read::index_file;
use crate::storage::read::segment::Segment;
use crate::storage::write::frames::FrameBatch;

/// Space is reserved in steps that double from this size to [`STEP_BYTES_MAX`].
const STEP_BYTES_MIN: u64 = 4 << 10;
const STEP_BYTES_MAX: u64 = 8 << 20;
/// A step is at most this fraction of the free space: one in `FREE_PART`.
const FREE_PART: u64 = 64;

/// The segment, its open file and its index.
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<DiskFile>,
    index: Arc<Index>,
    disk: Disk,
    dir: PathBuf,
    at: u64,
    allocated: u64,
    step: u64,
}

impl Active {
    /// Creates a segment with its header, and reserves space. Nothing is synced.
    pub(crate) fn create(
        disk: &Disk,
        dir: &Path,
        header: &SegmentHeader,
        index_capacity: usize,
    ) -> Result<Active, StorageError> {
        let file = Arc::new(disk.create(&segment_path(dir, header.number))?);
        let index = Index::new(index_capacity);
        let mut active = Active::resume(disk, dir, header, index_capacity, file, index, 0)?;
        active.reserve(SEGMENT_HEADER_BYTES, u64::MAX)?;
        active.file.write_at(0, &header.encode())?;
        active.at = SEGMENT_HEADER_BYTES;
        active.segment.publish_end(SEGMENT_HEADER_BYTES);
        Ok(active)
    }

    /// Continues an existing segment at `at`. Only zeros follow there.
    pub(crate) fn resume(
        disk: &Disk,
        dir: &Path,
        header: &SegmentHeader,
        index_capacity: usize,
        file: Arc<DiskFile>,
        index: Index,
        at: u64,
    ) -> Result<Active, StorageError> {
        let allocated = file.len()?;
        let index = Arc::new(index);
        let segment = Segment::new(disk, dir, *header, index_capacity, at).with_open(file.clone(), index.clone());
        let segment = Arc::new(segment);
        let (disk, dir) = (disk.clone(), dir.to_owned());
        Ok(Active { segment, file, index, disk, dir, at, allocated, step: STEP_BYTES_MIN })
    }

    /// The position of the next frame.
    pub(crate) fn position(&self) -> Position {
        Position { file: self.segment.header.number, at: self.at }
    }

    /// Appends frames to the page cache, and publishes them to the readers. Nothing is synced.
    pub(crate) fn append(&mut self, frames: &FrameBatch, segment_bytes: u64) -> Result<(), StorageError> {
        let end = self.at + frames.bytes() as u64;
        self.reserve(end, segment_bytes)?;
        self.file.write_parts_at(self.at, &frames.slices())?;
        frames.headers().iter().for_each(|(header, position)| self.index.push(header, *position));
        self.at = end;
        self.segment.publish_end(end);
        Ok(())
    }

    /// Seals the segment, and writes its index file for later reads.
    pub(crate) fn seal(&self) {
        let header = &self.segment.header;
        index_file::store(&self.index, &self.disk, &self.dir, header.number, header.salt, self.at);
        self.segment.sealed();
    }

    /// Reserves space in advance, so that a full disk is detected before anything is written.
    fn reserve(&mut self, needed: u64, segment_bytes: u64) -> Result<(), StorageError> {
        if needed <= self.allocated {
            return Ok(());
        }
        let free = match self.disk.space().free_bytes() {
            Some(free) => free,
            None => self.disk.free_bytes(self.file.path())?,
        };
        let step = self.step.min(free / FREE_PART);
        self.step = (self.step * 2).min(STEP_BYTES_MAX);
        let wanted = (self.allocated + step).min(segment_bytes).max(needed).next_multiple_of(4096);
        let reserved = match self.file.allocate(self.allocated, wanted) {
            // The needed bytes were promised to a client or belong to the node's own writes, so they may use the
            // reserve file's space.
            Err(StorageError::DiskFull { .. }) => {
                self.file.allocate_needed(self.allocated, needed).map(|done| done.then_some(needed))
            }
            other => other.map(|done| done.then_some(wanted)),
        };
        // If the file system can't reserve space, the write extends the file.
        let allocated = reserved?.unwrap_or(needed);
        self.disk.space().took(allocated - self.allocated);
        self.allocated = allocated;
        Ok(())
    }
}
