//! A segment as readers use it. Its file and its index are opened on demand.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::index_file;
use crate::storage::error::StorageError;
use crate::storage::format::index::Index;
use crate::storage::format::segment_header::{SegmentHeader, segment_path};
use crate::storage::io::disk::{Access, Disk, DiskFile};
use crate::storage::io::segment_cache::{CacheSlot, SegmentCache};

/// The open parts of a segment. The index is closed together with the file.
#[derive(Default)]
struct Slot {
    open: Mutex<Open>,
    used: AtomicBool,
}

#[derive(Default)]
struct Open {
    file: Option<Arc<DiskFile>>,
    index: Option<Arc<Index>>,
}

impl Slot {
    fn file(&self) -> Option<Arc<DiskFile>> {
        self.used.store(true, Ordering::Relaxed);
        self.open.lock().file.clone()
    }

    fn index(&self) -> Option<Arc<Index>> {
        self.used.store(true, Ordering::Relaxed);
        self.open.lock().index.clone()
    }

    fn keep_index(&self, index: Arc<Index>) {
        let mut open = self.open.lock();
        if open.file.is_some() && open.index.is_none() {
            open.index = Some(index);
        }
    }

    /// Keeps `file` open, unless another thread has opened the segment first; returns the file to use.
    fn keep_file(self: &Arc<Slot>, file: Arc<DiskFile>, cache: &SegmentCache) -> Arc<DiskFile> {
        {
            let mut open = self.open.lock();
            if let Some(first) = &open.file {
                return first.clone();
            }
            open.file = Some(file.clone());
        }
        cache.keep(&self.as_cache_slot());
        file
    }

    fn as_cache_slot(self: &Arc<Slot>) -> Arc<dyn CacheSlot> {
        self.clone()
    }
}

impl CacheSlot for Slot {
    fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    fn close(&self) -> bool {
        // Dropped after the lock is released.
        let open = std::mem::take(&mut *self.open.lock());
        open.file.is_some()
    }

    #[cfg(test)]
    fn is_open(&self) -> bool {
        self.open.lock().file.is_some()
    }
}

/// A segment of a log: its file is opened when it is read, and closed when too many others are open
/// ([`crate::storage::io::segment_cache`]).
pub struct Segment {
    pub header: SegmentHeader,
    disk: Disk,
    dir: PathBuf,
    index_capacity: usize,
    /// The end of the complete frames. It grows only in the newest segment, after each write.
    end: AtomicU64,
    slot: Arc<Slot>,
    /// True once a rebuild of the index was logged.
    index_made: AtomicBool,
    index_wrong: AtomicBool,
}

impl Segment {
    /// An existing segment with frames up to `end`.
    pub fn new(disk: &Disk, dir: &Path, header: SegmentHeader, index_capacity: usize, end: u64) -> Segment {
        Segment {
            header,
            disk: disk.clone(),
            dir: dir.to_owned(),
            index_capacity,
            end: AtomicU64::new(end),
            slot: Arc::default(),
            index_made: AtomicBool::new(false),
            index_wrong: AtomicBool::new(false),
        }
    }

    /// The newest segment of a log, which stays open until it is sealed.
    pub fn with_open(self, file: Arc<DiskFile>, index: Arc<Index>) -> Segment {
        let open = Mutex::new(Open { file: Some(file), index: Some(index) });
        Segment { slot: Arc::new(Slot { open, used: AtomicBool::new(true) }), ..self }
    }

    /// Notes that the segment is not written any more: from now on it may be closed.
    pub fn sealed(&self) {
        self.disk.segment_cache().keep(&self.slot.as_cache_slot());
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub fn path(&self) -> PathBuf {
        segment_path(&self.dir, self.header.number)
    }

    /// The end of the complete frames.
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Publishes frames up to `end` to the readers. They must be written and indexed before.
    pub fn publish_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// Returns the open file; `None` if it is closed and `access` does not allow opening it.
    ///
    /// # Errors
    /// If it can't be opened.
    pub fn file(&self, access: Access) -> Result<Option<Arc<DiskFile>>, StorageError> {
        if let Some(file) = self.slot.file() {
            return Ok(Some(file));
        }
        if access == Access::Cached {
            return Ok(None);
        }
        let path = self.path();
        let missing = || StorageError::io("open", &path, std::io::ErrorKind::NotFound.into());
        let file = self.disk.open_to_read(&path)?.ok_or_else(missing)?;
        Ok(Some(self.slot.keep_file(Arc::new(file), self.disk.segment_cache())))
    }

    /// True if it was logged that the index is wrong.
    #[cfg(test)]
    pub(crate) fn has_wrong_index(&self) -> bool {
        self.index_wrong.load(Ordering::Relaxed)
    }

    /// Logs once that the index returns wrong positions.
    pub(crate) fn log_wrong_index(&self) {
        if !self.index_wrong.swap(true, Ordering::Relaxed) {
            log::warn!("the index of {} is wrong: reading from an earlier position", self.path().display());
        }
    }

    /// Returns the index; `None` if it is closed and `access` does not allow opening it. A missing or wrong index is
    /// rebuilt.
    ///
    /// # Errors
    /// If the segment can't be opened, or the system lacks a descriptor or memory for the index.
    pub fn index(&self, access: Access) -> Result<Option<Arc<Index>>, StorageError> {
        if let Some(index) = self.slot.index() {
            return Ok(Some(index));
        }
        let (Access::Blocking, Some(file)) = (access, self.file(access)?) else { return Ok(None) };
        let (number, salt) = (self.header.number, self.header.salt);
        let index = match index_file::load(&self.disk, &self.dir, number, salt)? {
            Some(index) => index,
            None => {
                if !self.index_made.swap(true, Ordering::Relaxed) {
                    log::info!("the index of {} is missing or wrong: rebuilding it", self.path().display());
                }
                index_file::rebuild(&self.disk, &self.dir, &self.header, self.index_capacity, &file, self.end())
            }
        };
        let index = Arc::new(index);
        self.slot.keep_index(index.clone());
        Ok(Some(index))
    }
}
