//! What storage requires of a file system: the machine's own, or in tests a simulated one.

use std::any::Any;
use std::io;
use std::path::Path;

/// A file system. Paths are absolute or relative to the process; errors are the system's own.
pub trait Backend: Send + Sync {
    /// Creates a directory and its parents, readable only by the owner; succeeds if it exists.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in any order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Creates a file; fails if it exists.
    fn create(&self, path: &Path) -> io::Result<Box<dyn BackendFile>>;
    /// As `create`, for a file that the node can do without: does not use a reserved descriptor.
    fn create_spare(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        self.create(path)
    }
    /// Opens an existing file.
    fn open(&self, path: &Path) -> io::Result<Box<dyn BackendFile>>;
    /// Opens an existing file for reading only.
    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        self.open(path)
    }
    /// Renames a file within its directory. Replaces an existing file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes the name of a file.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and the files in it.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Syncs the names in a directory.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The number of bytes that this user may still write in the file system of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// The size of the file system of `path`.
    fn total_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
    /// Locks a file for this process until the guard is dropped, and creates it if necessary;
    /// [`io::ErrorKind::WouldBlock`] if another process holds the lock.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;
    /// As `lock`, but does not create the file: [`io::ErrorKind::NotFound`] if it does not exist.
    fn lock_if_there(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.lock(path)
    }
    /// The length of a file, without opening it; `None` if it is not a plain file.
    fn file_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        self.open_to_read(path)?.bytes().map(Some)
    }
    /// True if several syncs at the same time take less time than one after the other.
    fn syncs_in_parallel(&self) -> bool {
        false
    }
    /// Reserves descriptors for the files that the node must open: those of `open`, `create` and `sync_dir`.
    fn keep_descriptors(&self) -> io::Result<()> {
        Ok(())
    }
    /// Returns a random number of 64 bits.
    fn random(&self) -> io::Result<u64>;
}

/// An open file.
pub trait BackendFile: Send + Sync {
    /// Reads until the buffer is full or the file ends; returns the number of bytes.
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Appends this many bytes to the buffer, or as many as are in the page cache; `None` if not even the first one is.
    fn append_cached_at(&self, at: u64, bytes: usize, buffer: &mut Vec<u8>) -> io::Result<Option<usize>>;
    /// As `read_at`, but reads from the disk, whatever the page cache contains, and leaves the page cache unchanged.
    fn read_disk_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_at(at, buffer)
    }
    /// Writes all bytes.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Writes all parts, one after the other.
    fn write_parts_at(&self, at: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.write_at(at, &parts.concat())
    }
    /// Syncs the contents, and the metadata that is necessary to read them.
    fn sync(&self) -> io::Result<()>;
    /// The length of the file.
    fn bytes(&self) -> io::Result<u64>;
    /// Reserves space up to a length. The new part reads as zeros. [`io::ErrorKind::Unsupported`] if the file system
    /// can't reserve space.
    fn allocate(&self, from: u64, to: u64) -> io::Result<()>;
    /// Starts to fetch bytes that will be read soon, if the system supports it.
    fn will_need(&self, _from: u64, _bytes: u64) {}
    /// The position of the first byte at or after `at` that is not in a hole; `None` if there is only a hole up to the
    /// end of the file. A hole reads as zeros.
    fn next_data(&self, at: u64) -> io::Result<Option<u64>> {
        Ok(Some(at).filter(|at| self.bytes().is_ok_and(|bytes| *at < bytes)))
    }
    /// Drops the file's pages from the page cache, so that the next read comes from the disk.
    fn drop_cache(&self) -> io::Result<()>;
}
