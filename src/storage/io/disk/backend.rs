//! What storage needs of a file system: the machine's own, or in tests a simulated one.

use std::any::Any;
use std::io;
use std::path::Path;

/// What a file system must do. Paths are whole; errors are the system's own.
pub trait Backend: Send + Sync {
    /// Makes a directory and those above it, readable by its owner alone; one that is there is fine.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes a file that must not be there yet.
    fn create(&self, path: &Path) -> io::Result<Box<dyn BackendFile>>;
    /// As `create`, for a file that the node can do without: no kept descriptor is used.
    fn create_spare(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        self.create(path)
    }
    /// Opens a file that is there.
    fn open(&self, path: &Path) -> io::Result<Box<dyn BackendFile>>;
    /// Opens a file that is there, for reading alone.
    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        self.open(path)
    }
    /// Renames within a directory, replacing what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and the files in it.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Puts the names in a directory on the disk.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that are free for us where `path` is.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Bytes of the whole file system where `path` is.
    fn total_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
    /// Locks a file, made if need be, for this process until the guard is dropped; [`io::ErrorKind::WouldBlock`] when
    /// another has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;
    /// As `lock`, but the file is not made: [`io::ErrorKind::NotFound`] where there is none.
    fn lock_if_there(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.lock(path)
    }
    /// Bytes of a file, which is not opened; `None` for a directory, a pipe, or whatever else is no plain file.
    fn file_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        self.open_to_read(path)?.bytes().map(Some)
    }
    /// From now on some descriptors are kept for what must be opened: whatever `open`, `create` and `sync_dir` open.
    fn keep_descriptors(&self) -> io::Result<()> {
        Ok(())
    }
    /// A random number.
    fn random(&self) -> io::Result<u64>;
}

/// What an open file must do.
pub trait BackendFile: Send + Sync {
    /// Reads until the buffer is full or the file ends; gives the number of bytes.
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Appends so many bytes to the buffer, or as many as there are without waiting for the disk; `None`: not even one.
    fn append_cached_at(&self, at: u64, bytes: usize, buffer: &mut Vec<u8>) -> io::Result<Option<usize>>;
    /// As `read_at`, but from the disk, whatever the page cache has; and leaves in the cache what was there, and no more.
    fn read_disk_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_at(at, buffer)
    }
    /// Writes all of it.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Writes all parts, one behind the other.
    fn write_parts_at(&self, at: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.write_at(at, &parts.concat())
    }
    /// Puts the contents, and what is needed to find them, on the disk.
    fn sync(&self) -> io::Result<()>;
    /// How long the file is.
    fn bytes(&self) -> io::Result<u64>;
    /// Reserves space up to a length; the new part reads as zeros. [`io::ErrorKind::Unsupported`] where that can't be done.
    fn allocate(&self, from: u64, to: u64) -> io::Result<()>;
    /// These bytes will be read soon: begins to fetch them, as far as the system does so.
    fn will_need(&self, _from: u64, _bytes: u64) {}
    /// Where, from a position on, the next byte is that may be none of a hole; `None` when there is none. A hole reads as zeros.
    fn next_data(&self, at: u64) -> io::Result<Option<u64>> {
        Ok(Some(at).filter(|at| self.bytes().is_ok_and(|bytes| *at < bytes)))
    }
    /// Forgets what the page cache has of the file, so that the next read is from the disk.
    fn drop_cache(&self) -> io::Result<()>;
}
