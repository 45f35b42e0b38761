//! The file system: nothing else in storage uses `std::fs`.
//!
//! A [`Disk`] is a handle to a [`Backend`]: the machine's own file system, or in tests a simulated one that loses what
//! was not synced. Every error names the operation and the file. Nothing here syncs by itself except `Disk::replace`.
//! If a write of the node's own finds the disk full and the reserve file can be released (`space.rs`), the write is
//! retried once. A failed sync is never retried.

pub mod backend;
mod real;
#[cfg(test)]
pub(crate) mod sim;

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::backend::{Backend, BackendFile};
use crate::config::DiskSpace;
use crate::storage::error::{StorageError, is_full, no_descriptor};
use crate::storage::faults::{Fault, broken};
use crate::storage::io::segment_cache::SegmentCache;
use crate::storage::io::space::Space;
use crate::thread::in_parallel;

/// The number of bytes to read of a file that is too long: enough for its version.
const BEGINNING_BYTES: usize = 4096;

/// Where a read may take the bytes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only the page cache: never blocks.
    Cached,
    /// The page cache or the disk: may block.
    Blocking,
    /// Only the disk, whatever the page cache contains, and without filling it. For checks of the disk.
    Disk,
}

/// A file system; clones share it.
#[derive(Clone)]
pub struct Disk {
    backend: Arc<dyn Backend>,
    space: Space,
    segment_cache: SegmentCache,
}

/// An open file, with its path for errors.
pub struct DiskFile {
    path: PathBuf,
    file: Box<dyn BackendFile>,
    space: Space,
}

/// A file whose length is limited.
enum SmallFile {
    Whole(Vec<u8>),
    /// The beginning of the file, and the error for its length.
    TooLong {
        beginning: Vec<u8>,
        error: StorageError,
    },
}

/// Runs an operation that may find the disk full. If it does, releases the reserve file and runs the operation once
/// more.
fn with_reserve<T>(space: &Space, act: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match act() {
        Err(error) if is_full(&error) && space.give_reserve() => act(),
        other => other,
    }
}

impl Disk {
    /// The machine's own file system.
    pub fn real() -> Disk {
        Disk::new(Arc::new(real::Real))
    }

    /// A disk on any file system, for tests.
    pub fn new(backend: Arc<dyn Backend>) -> Disk {
        Disk { backend, space: Space::default(), segment_cache: SegmentCache::default() }
    }

    /// Starts to watch the free space of a data directory.
    ///
    /// # Errors
    /// If the system does not report the free space.
    pub fn watch_space(&self, dir: &Path, config: &DiskSpace) -> Result<(), StorageError> {
        self.space.watch(&self.backend, dir, config)
    }

    /// Reserves some of the process's descriptors for the files that the node must open. Otherwise connections could
    /// take every free descriptor, and a log that can't continue in a new segment ends the process.
    ///
    /// # Errors
    /// If the system does not report the limit, or does not allow it.
    pub fn keep_descriptors(&self) -> Result<(), StorageError> {
        let error = |e| StorageError::io("keep descriptors for", Path::new("the node's files"), e);
        self.backend.keep_descriptors().map_err(error)
    }

    pub(crate) fn segment_cache(&self) -> &SegmentCache {
        &self.segment_cache
    }

    /// The free space on this disk.
    pub fn space(&self) -> &Space {
        &self.space
    }

    #[cfg(test)]
    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    fn file(&self, path: &Path, file: Box<dyn BackendFile>) -> DiskFile {
        DiskFile { path: path.to_owned(), file, space: self.space.clone() }
    }

    /// Runs an operation that opens a file. If no descriptor is left, closes sealed segments and runs the operation
    /// once more.
    fn opening<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match open() {
            Err(error) if no_descriptor(&error) && self.segment_cache.close_all() => open(),
            other => other,
        }
    }

    pub(crate) fn create_dir(&self, path: &Path) -> Result<(), StorageError> {
        with_reserve(&self.space, || self.backend.create_dir(path))
            .map_err(|e| StorageError::io("make the directory", path, e))
    }

    /// The names in a directory; `None` if it does not exist.
    pub(crate) fn list(&self, dir: &Path) -> Result<Option<Vec<String>>, StorageError> {
        match self.backend.list(dir) {
            Ok(names) => Ok(Some(names)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StorageError::io("list", dir, e)),
        }
    }

    pub(crate) fn create(&self, path: &Path) -> Result<DiskFile, StorageError> {
        let file = with_reserve(&self.space, || self.opening(|| self.backend.create(path)));
        Ok(self.file(path, file.map_err(|e| StorageError::io("create", path, e))?))
    }

    pub(crate) fn open(&self, path: &Path) -> Result<DiskFile, StorageError> {
        let file = self.opening(|| self.backend.open(path)).map_err(|e| StorageError::io("open", path, e))?;
        Ok(self.file(path, file))
    }

    /// Opens an existing file for reading; `None` if it does not exist.
    pub(crate) fn open_to_read(&self, path: &Path) -> Result<Option<DiskFile>, StorageError> {
        match self.opening(|| self.backend.open_to_read(path)) {
            Ok(file) => Ok(Some(self.file(path, file))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StorageError::io("open", path, e)),
        }
    }

    /// Reads a small file; `None` if it does not exist. The length is limited, because the file may be anything.
    ///
    /// # Errors
    /// Also [`StorageError::Damaged`] if it is longer than `bytes_max`.
    pub(crate) fn read(&self, path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, StorageError> {
        match self.read_small(path, bytes_max, DiskFile::append_at)? {
            Some(SmallFile::Whole(bytes)) => Ok(Some(bytes)),
            Some(SmallFile::TooLong { error, .. }) => Err(error),
            None => Ok(None),
        }
    }

    /// Decodes a small file that begins with the version of its format; `None` if it does not exist. A newer version
    /// may write a longer file, so if a file is too long, its beginning is decoded for the version.
    ///
    /// # Errors
    /// Those of `decode`. [`StorageError::Damaged`] if the file is longer than `bytes_max` and this version's format.
    pub(crate) fn load<T>(
        &self,
        path: &Path,
        bytes_max: usize,
        access: Access,
        decode: impl FnOnce(&[u8], &Path) -> Result<T, StorageError>,
    ) -> Result<Option<T>, StorageError> {
        let read = match access {
            Access::Disk => DiskFile::append_disk_at,
            Access::Blocking | Access::Cached => DiskFile::append_at,
        };
        match self.read_small(path, bytes_max, read)? {
            Some(SmallFile::Whole(bytes)) => decode(&bytes, path).map(Some),
            Some(SmallFile::TooLong { beginning, error }) => match decode(&beginning, path) {
                Err(other @ StorageError::OtherFormat { .. }) => Err(other),
                Ok(_) | Err(_) => Err(error),
            },
            None => Ok(None),
        }
    }

    fn read_small(
        &self,
        path: &Path,
        bytes_max: usize,
        read: impl Fn(&DiskFile, u64, usize, &mut Vec<u8>) -> Result<usize, StorageError>,
    ) -> Result<Option<SmallFile>, StorageError> {
        let Some(file) = self.open_to_read(path)? else { return Ok(None) };
        let length = file.len()?;
        let fits = usize::try_from(length).ok().filter(|length| *length <= bytes_max);
        let mut bytes = Vec::new();
        read(&file, 0, fits.unwrap_or(BEGINNING_BYTES), &mut bytes)?;
        if fits.is_some() {
            return Ok(Some(SmallFile::Whole(bytes)));
        }
        let what = format!("the file has {length} bytes, more than the {bytes_max} that can have been written");
        let error = StorageError::damaged(path, bytes_max as u64, what);
        Ok(Some(SmallFile::TooLong { beginning: bytes, error }))
    }

    /// Replaces the contents of a derived file. Nothing is synced, and neither reserved space nor reserved descriptors
    /// are used. After a crash any part of the file may exist.
    pub(crate) fn write_derived(&self, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        self.unlink(path)?;
        let written = self.backend.create_spare(path).and_then(|file| file.write_at(0, bytes));
        written.map_err(|error| {
            // A partial file must not remain.
            let _ = self.unlink(path);
            StorageError::io("write", path, error)
        })
    }

    /// Returns false only if the system reports that the name does not exist.
    pub(crate) fn is_there(&self, path: &Path) -> bool {
        !self.file_bytes(path).is_err_and(|error| error.is_not_found())
    }

    /// The length of a file, without opening it; `None` if it is not a plain file.
    pub(crate) fn file_bytes(&self, path: &Path) -> Result<Option<u64>, StorageError> {
        self.backend.file_bytes(path).map_err(|e| StorageError::io("look at", path, e))
    }

    /// Replaces a file. The new contents are durable when this returns: it writes and syncs a new file under another
    /// name, renames it, and syncs the directory. After a crash the file has either the old or the new contents.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        let temporary = path.with_extension("tmp");
        self.unlink(&temporary)?;
        let file = self.create(&temporary)?;
        file.write_at(0, bytes)?;
        if !broken(Fault::ManifestNotSynced) {
            file.sync()?;
        }
        with_reserve(&self.space, || self.backend.rename(&temporary, path))
            .map_err(|e| StorageError::io("replace", path, e))?;
        if broken(Fault::NoDirSyncAfterRename) {
            return Ok(());
        }
        self.sync_dir(path.parent().unwrap_or(Path::new("/")))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        with_reserve(&self.space, || self.backend.rename(from, to)).map_err(|e| StorageError::io("rename", from, e))
    }

    /// Removes a file; succeeds if it does not exist.
    pub(crate) fn unlink(&self, path: &Path) -> Result<(), StorageError> {
        match self.backend.unlink(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StorageError::io("remove", path, e)),
            _ => Ok(()),
        }
    }

    pub(crate) fn remove_dir(&self, path: &Path) -> Result<(), StorageError> {
        self.backend.remove_dir(path).map_err(|e| StorageError::io("remove", path, e))
    }

    pub(crate) fn sync_dir(&self, dir: &Path) -> Result<(), StorageError> {
        // This never repeats a failed sync: without a descriptor no sync was started.
        self.opening(|| self.backend.sync_dir(dir)).map_err(|e| StorageError::io("sync the directory", dir, e))
    }

    /// True if several syncs at the same time take less time than one after the other.
    pub(crate) fn syncs_in_parallel(&self) -> bool {
        self.backend.syncs_in_parallel()
    }

    /// Syncs new files and the directory that contains their names. The order does not matter.
    pub(crate) fn sync_new(&self, dir: &Path, files: &[&DiskFile]) -> Result<(), StorageError> {
        let sync = |file: Option<&DiskFile>| file.map_or_else(|| self.sync_dir(dir), DiskFile::sync);
        let threads = if self.syncs_in_parallel() { files.len() + 1 } else { 1 };
        in_parallel(threads, files.iter().copied().map(Some).chain([None]), sync).into_iter().collect()
    }

    pub(crate) fn free_bytes(&self, path: &Path) -> Result<u64, StorageError> {
        self.backend.free_bytes(path).map_err(|e| StorageError::io("ask for the free space of", path, e))
    }

    /// Locks a file; `None` if another process holds the lock.
    pub(crate) fn lock(&self, path: &Path) -> Result<Option<Box<dyn Any + Send + Sync>>, StorageError> {
        match self.backend.lock(path) {
            Ok(guard) => Ok(Some(guard)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(StorageError::io("lock", path, e)),
        }
    }

    /// Locks a file if it exists; `None` if another process holds the lock. If the file is missing, no process holds
    /// the lock.
    pub(crate) fn lock_if_there(&self, path: &Path) -> Result<Option<Box<dyn Any + Send + Sync>>, StorageError> {
        match self.backend.lock_if_there(path) {
            Ok(guard) => Ok(Some(guard)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Some(Box::new(()))),
            Err(e) => Err(StorageError::io("lock", path, e)),
        }
    }

    pub(crate) fn random(&self) -> Result<u64, StorageError> {
        self.backend.random().map_err(|e| StorageError::io("get randomness for", Path::new("a segment"), e))
    }
}

/// Extends the buffer by new bytes for `read` to fill, and keeps as many as `read` returns.
fn appended<E>(
    bytes: usize,
    buffer: &mut Vec<u8>,
    read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
) -> Result<usize, E> {
    let have = buffer.len();
    buffer.resize(have + bytes, 0);
    let read = read(&mut buffer[have..]);
    buffer.truncate(have + read.as_ref().map_or(0, |read| *read));
    read
}

impl DiskFile {
    /// The path that it was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn read_at(&self, at: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        self.file.read_at(at, buffer).map_err(|e| StorageError::io("read", &self.path, e))
    }

    /// Appends this many bytes to the buffer, or fewer at the end of the file.
    pub(crate) fn append_at(&self, at: u64, bytes: usize, buffer: &mut Vec<u8>) -> Result<usize, StorageError> {
        appended(bytes, buffer, |buffer| self.read_at(at, buffer))
    }

    /// As [`DiskFile::append_at`], but from the disk ([`Access::Disk`]).
    pub(crate) fn append_disk_at(&self, at: u64, bytes: usize, buffer: &mut Vec<u8>) -> Result<usize, StorageError> {
        appended(bytes, buffer, |buffer| self.read_disk_at(at, buffer))
    }

    /// As [`DiskFile::append_at`], but stops at the first byte that is not in the page cache; `None` if that is the
    /// first one.
    pub(crate) fn append_cached_at(
        &self,
        at: u64,
        bytes: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<usize>, StorageError> {
        self.file.append_cached_at(at, bytes, buffer).map_err(|e| StorageError::io("read", &self.path, e))
    }

    pub(crate) fn read_disk_at(&self, at: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        self.file.read_disk_at(at, buffer).map_err(|e| StorageError::io("read", &self.path, e))
    }

    pub(crate) fn write_at(&self, at: u64, bytes: &[u8]) -> Result<(), StorageError> {
        with_reserve(&self.space, || self.file.write_at(at, bytes))
            .map_err(|e| StorageError::io("write", &self.path, e))
    }

    pub(crate) fn write_parts_at(&self, at: u64, parts: &[&[u8]]) -> Result<(), StorageError> {
        with_reserve(&self.space, || self.file.write_parts_at(at, parts))
            .map_err(|e| StorageError::io("write", &self.path, e))
    }

    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        self.file.sync().map_err(|e| StorageError::io("sync", &self.path, e))
    }

    pub(crate) fn len(&self) -> Result<u64, StorageError> {
        self.file.bytes().map_err(|e| StorageError::io("ask for the length of", &self.path, e))
    }

    /// As [`DiskFile::allocate`], and may use the reserve file's space.
    pub(crate) fn allocate_needed(&self, from: u64, to: u64) -> Result<bool, StorageError> {
        match self.allocate(from, to) {
            Err(StorageError::DiskFull { .. }) if self.space.give_reserve() => self.allocate(from, to),
            other => other,
        }
    }

    /// Reserves space; `false` if the file system can't.
    pub(crate) fn allocate(&self, from: u64, to: u64) -> Result<bool, StorageError> {
        match self.file.allocate(from, to) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(false),
            Err(e) => Err(StorageError::io("reserve space for", &self.path, e)),
        }
    }

    /// The position of the first byte at or after `at` that is not in a hole; `None` if there is only a hole up to the
    /// end of the file.
    pub(crate) fn next_data(&self, at: u64) -> Result<Option<u64>, StorageError> {
        self.file.next_data(at).map_err(|e| StorageError::io("look for data in", &self.path, e))
    }

    pub(crate) fn will_need(&self, from: u64, bytes: u64) {
        self.file.will_need(from, bytes);
    }

    pub(crate) fn drop_cache(&self) -> Result<(), StorageError> {
        self.file.drop_cache().map_err(|e| StorageError::io("drop the cache of", &self.path, e))
    }
}
