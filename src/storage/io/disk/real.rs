//! The machine's own file system.

use std::any::Any;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Advice, FallocateFlags, FlockOperation, SeekFrom};
use rustix::io::Errno;

use super::backend::{Backend, BackendFile};
use crate::descriptors::{self, open_needed};

/// The size of a page. If pages are larger, those at both ends of a range stay in the page cache.
const PAGE_BYTES: u64 = 4096;

#[derive(Default)]
pub(super) struct Real;

struct RealFile(File);

/// Opens an existing plain file. Refuses a pipe, because opening one waits for another process.
fn open_plain(path: &Path, write: bool) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(write).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a plain file"));
    }
    Ok(file)
}

impl Backend for Real {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(Box::new(RealFile(open_needed(|| options.open(path))?)))
    }

    fn create_spare(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(Box::new(RealFile(options.open(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        Ok(Box::new(RealFile(open_needed(|| open_plain(path, true))?)))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        Ok(Box::new(RealFile(open_plain(path, false)?)))
    }

    fn file_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        let metadata = std::fs::metadata(path)?;
        Ok(metadata.is_file().then_some(metadata.len()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        open_needed(|| File::open(dir))?.sync_all()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn lock_if_there(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let file = open_plain(path, false)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn syncs_in_parallel(&self) -> bool {
        true
    }

    fn keep_descriptors(&self) -> io::Result<()> {
        descriptors::keep()
    }

    fn random(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        openssl::rand::rand_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

impl BackendFile for RealFile {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn append_cached_at(&self, at: u64, bytes: usize, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        buffer.reserve_exact(bytes);
        let mut done = 0;
        while done < bytes {
            let spare = &mut buffer.spare_capacity_mut()[..bytes - done];
            let part = libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len() };
            let (file, at) = (self.0.as_raw_fd(), at + done as u64);
            // SAFETY: the kernel writes only into the spare capacity of our buffer. (To zero it first, as rustix
            // requires, took 7 % of the time of a node that streams.)
            let read = unsafe { libc::preadv2(file, &raw const part, 1, at.cast_signed(), libc::RWF_NOWAIT) };
            match usize::try_from(read) {
                Ok(0) => break,
                Ok(read) => {
                    done += read;
                    // SAFETY: the kernel has written this many bytes after the old length.
                    unsafe { buffer.set_len(buffer.len() + read) };
                }
                Err(_) => match io::Error::last_os_error() {
                    e if e.kind() == io::ErrorKind::Interrupted => {}
                    // Not in the cache, or the file system lacks the flag, or the kernel lacks the call.
                    e if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EOPNOTSUPP | libc::ENOSYS)) => {
                        return Ok((done > 0).then_some(done));
                    }
                    e => return Err(e),
                },
            }
        }
        Ok(Some(done))
    }

    fn read_disk_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        // Whole pages, because the kernel does not drop a page of which the range covers only a part.
        let from = at / PAGE_BYTES * PAGE_BYTES;
        let length = (at + buffer.len() as u64).next_multiple_of(PAGE_BYTES) - from;
        let Some(length) = NonZeroU64::new(length).filter(|_| !buffer.is_empty()) else { return Ok(0) };
        // Otherwise the kernel would read ahead, even for the query below, and those pages would stay in the cache.
        rustix::fs::fadvise(&self.0, from, Some(length), Advice::Random)?;
        // Other readers may need these pages, so what was cached before (judged by the first byte) must be cached
        // afterwards.
        let was_cached = self.append_cached_at(at, 1, &mut Vec::new())?.is_some();
        rustix::fs::fadvise(&self.0, from, Some(length), Advice::DontNeed)?;
        let read = self.read_at(at, buffer)?;
        if !was_cached {
            rustix::fs::fadvise(&self.0, from, Some(length), Advice::DontNeed)?;
        }
        Ok(read)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn write_parts_at(&self, mut at: u64, parts: &[&[u8]]) -> io::Result<()> {
        // Enough for every call in this crate, and supported by every system.
        const PARTS_MAX: usize = 1024;
        let mut parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut left = parts.as_mut_slice();
        while !left.is_empty() {
            match rustix::io::pwritev(&self.0, &left[..left.len().min(PARTS_MAX)], at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), from, to - from) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Err(io::ErrorKind::Unsupported.into()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn will_need(&self, from: u64, bytes: u64) {
        // One call fetches about this much, whatever its argument.
        const STEP: u64 = 1 << 20;
        for at in (from..from.saturating_add(bytes)).step_by(STEP as usize) {
            // This is advice, so an error does not matter.
            let _ = rustix::fs::fadvise(&self.0, at, NonZeroU64::new(STEP), Advice::WillNeed);
        }
    }

    fn next_data(&self, at: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.0, SeekFrom::Data(at)) {
            Ok(at) => Ok(Some(at)),
            Err(Errno::NXIO) => Ok(None),
            // A file system without holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(at).filter(|at| self.bytes().is_ok_and(|b| *at < b))),
            Err(e) => Err(e.into()),
        }
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.0, 0, None, Advice::DontNeed)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Disk;

    #[test]
    fn files() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::real();
        let path = dir.path().join("a");
        let file = disk.create(&path).expect("created");
        assert!(disk.create(&path).is_err(), "it is there");
        file.write_at(5, b"hello").expect("written");
        file.allocate(0, 100).expect("allocated");
        file.sync().expect("synced");
        file.drop_cache().expect("dropped");
        let mut buffer = [1; 200];
        assert_eq!(file.read_at(4, &mut buffer).expect("read"), 96);
        assert_eq!(&buffer[..8], b"\0hello\0\0");
        // Cached now, or on a file system that does not report it.
        let mut more = b"say ".to_vec();
        if let Some(n) = file.append_cached_at(5, 5, &mut more).expect("read") {
            assert_eq!(more, b"say hello"[..4 + n]);
        }
        assert!(matches!(file.append_cached_at(100, 5, &mut more), Ok(Some(0) | None)), "the file ends there");
        // This takes at least two reads: the first may stop early, and the second finds the end.
        let mut rest = b"say ".to_vec();
        if let Some(n) = file.append_cached_at(7, 200, &mut rest).expect("read") {
            assert!(n <= 93 && rest.len() == 4 + n, "{n} bytes");
            assert!(b"say llo\0".iter().zip(&rest).all(|(a, b)| a == b), "{rest:?}");
        }
        disk.replace(&path, b"new").expect("replaced");
        assert_eq!(disk.read(&path, 3).expect("read").as_deref(), Some(&b"new"[..]));
        assert_eq!(disk.list(dir.path()).expect("listed"), Some(vec!["a".to_owned()]));
        disk.unlink(&path).expect("removed");
        disk.unlink(&path).expect("gone already");
        assert_eq!(disk.read(&path, 3).expect("read"), None);
        assert!(disk.free_bytes(dir.path()).expect("space") > 0);
    }

    #[test]
    fn locks() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::real();
        let guard = disk.lock(&dir.path().join("lock")).expect("locked");
        assert!(guard.is_some());
        assert!(disk.lock(&dir.path().join("lock")).expect("asked").is_none(), "taken");
        drop(guard);
        assert!(disk.lock(&dir.path().join("lock")).expect("asked").is_some());
    }

    /// Once, a pipe in a data directory blocked `data verify` forever, because opening it waits for a writer.
    #[test]
    fn only_plain_files_are_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::real();
        let path = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");
        for refused in [disk.open(&path).map(drop), disk.open_to_read(&path).map(drop), disk.read(&path, 9).map(drop)] {
            assert!(refused.expect_err("refused").to_string().contains("not a plain file"));
        }
        assert!(disk.lock_if_there(&path).is_err());
        assert_eq!(disk.file_bytes(&path).expect("looked"), None);
        assert!(disk.open_to_read(dir.path()).is_err(), "nor a directory");
        let loops = dir.path().join("loop");
        std::os::unix::fs::symlink(&loops, &loops).expect("a link to itself");
        assert!(disk.open_to_read(&loops).is_err() && disk.file_bytes(&loops).is_err());
    }

    /// A sparse file of a terabyte is searched at once, and never read into memory as a whole.
    #[test]
    fn holes_are_passed_over_and_lengths_not_believed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (disk, path) = (Disk::real(), dir.path().join("sparse"));
        let file = disk.create(&path).expect("created");
        file.write_at(0, b"head").expect("written");
        std::fs::OpenOptions::new().write(true).open(&path).expect("opened").set_len(1 << 40).expect("longer");
        assert_eq!(file.next_data(2).expect("asked"), Some(2));
        let refused = disk.read(&path, 1 << 20).expect_err("refused");
        assert!(refused.is_damage() && refused.to_string().contains("1099511627776 bytes"), "{refused}");
        let next = file.next_data(1 << 20).expect("asked");
        assert!(next.is_none() || next == Some(1 << 20), "none, or a file system that does not say: {next:?}");
        assert_eq!(file.next_data(1 << 40).expect("asked"), None, "the end");
    }
}
