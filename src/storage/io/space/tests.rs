//! A disk of a few MiB that other programs fill and empty.

use std::any::Any;

use super::*;
use crate::storage::format::state::Genesis;
use crate::storage::io::disk::{Disk, backend::BackendFile};
use crate::storage::write::log::GroupLog;
use crate::storage::write::log::tests::batch;
use crate::storage::write::options::LogOptions;
use crate::types::{GroupId, ReplicaId};

/// The machine's file system with less space: `allocate` subtracts from `free`.
struct Small {
    real: Disk,
    dir: PathBuf,
    free: Arc<AtomicU64>,
}

struct SmallFile {
    file: Box<dyn BackendFile>,
    free: Arc<AtomicU64>,
}

const TOTAL: u64 = 64 * MIB;

impl Small {
    fn backend(&self) -> &Arc<dyn Backend> {
        self.real.backend()
    }

    fn wrap(&self, file: Box<dyn BackendFile>) -> Box<dyn BackendFile> {
        Box::new(SmallFile { file, free: self.free.clone() })
    }
}

impl Backend for Small {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.backend().create_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.backend().list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        self.backend().create(path).map(|file| self.wrap(file))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        self.backend().open(path).map(|file| self.wrap(file))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.backend().rename(from, to)
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        let bytes = self.backend().open(path)?.bytes()?;
        self.backend().unlink(path)?;
        self.free.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.backend().remove_dir(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.backend().sync_dir(dir)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        assert!(path.starts_with(&self.dir));
        Ok(self.free.load(Ordering::Relaxed))
    }
    fn total_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(TOTAL)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.backend().lock(path)
    }
    fn random(&self) -> io::Result<u64> {
        self.backend().random()
    }
}

impl BackendFile for SmallFile {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(at, buffer)
    }
    fn append_cached_at(&self, at: u64, bytes: usize, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        self.file.append_cached_at(at, bytes, buffer)
    }
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(at, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        let take = |free: u64| free.checked_sub(to - from);
        self.free
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .map_err(|_| io::Error::from(io::ErrorKind::StorageFull))?;
        self.file.allocate(from, to)
    }
    fn drop_cache(&self) -> io::Result<()> {
        self.file.drop_cache()
    }
}

struct Home {
    disk: Disk,
    free: Arc<AtomicU64>,
    dir: tempfile::TempDir,
}

impl Home {
    fn new(free: u64) -> Home {
        let dir = tempfile::tempdir().expect("a directory");
        let free = Arc::new(AtomicU64::new(free));
        let small = Small { real: Disk::real(), dir: dir.path().to_owned(), free: free.clone() };
        let disk = Disk::new(Arc::new(small));
        disk.watch_space(dir.path(), &DiskSpace::default()).expect("watched");
        Home { disk, free, dir }
    }

    fn space(&self) -> &Space {
        self.disk.space()
    }

    fn set_free(&self, mib: u64) -> SpaceState {
        self.free.store(mib * MIB, Ordering::Relaxed);
        self.space().look();
        self.space().state()
    }

    fn reserve_bytes(&self) -> Option<u64> {
        std::fs::metadata(self.dir.path().join(RESERVE_FILE)).ok().map(|m| m.len())
    }
}

#[test]
fn defaults_are_parts_of_a_small_file_system() {
    let home = Home::new(60 * MIB);
    let status = home.space().status();
    assert_eq!((status.soft_bytes, status.hard_bytes, status.total_bytes), (8 * MIB, 4 * MIB, TOTAL));
    assert_eq!((home.reserve_bytes(), status.reserve), (Some(2 * MIB), true));
    assert_eq!(status.free_bytes, 58 * MIB, "less the reserve");
    assert_eq!(home.space().segment_bytes(64 * MIB), 4 * MIB);
    assert_eq!(home.space().segment_bytes(MIB), MIB);
    let unwatched = Space::default();
    assert!(unwatched.promise(u64::MAX) && unwatched.promise_to_leader(u64::MAX));
    assert_eq!(unwatched.segment_bytes(64 * MIB), 64 * MIB);
}

#[test]
fn promised_bytes_fit() {
    let home = Home::new(22 * MIB);
    let space = home.space();
    assert_eq!(space.status().free_bytes, 20 * MIB);
    assert!(space.promise(10 * MIB) && !space.promise(7 * MIB) && space.promise(6 * MIB));
    assert!(!space.promise(1), "all above the hard watermark is promised");
    assert!(space.promise_to_leader(2 * MIB) && !space.promise_to_leader(1), "a leader's entries may go deeper");
    space.kept();
    space.took(16 * MIB);
    assert!(!space.promise(1), "kept, and so taken");
    assert_eq!(space.status().free_bytes, 4 * MIB);
    assert_eq!(space.status().refused, 3);
    home.free.store(4 * MIB, Ordering::Relaxed);
    space.look();
    assert_eq!(space.state(), SpaceState::Full, "somebody wanted more");
    assert_eq!(home.set_free(30), SpaceState::Enough);
    assert!(space.promise(20 * MIB));
}

#[test]
fn states_do_not_alternate() {
    let home = Home::new(60 * MIB);
    assert_eq!(home.space().state(), SpaceState::Enough);
    assert_eq!(home.set_free(7), SpaceState::Low);
    assert_eq!(home.set_free(3), SpaceState::Full);
    assert!(!home.space().promise(1));
    assert_eq!(home.set_free(4), SpaceState::Full, "not at once");
    assert_eq!(home.set_free(5), SpaceState::Low);
    assert!(home.space().promise(1000));
    assert_eq!(home.set_free(4), SpaceState::Low, "just above it, and nobody was refused");
    assert_eq!(home.set_free(9), SpaceState::Enough);
}

#[test]
fn the_reserve_is_released_and_created_again() {
    let home = Home::new(60 * MIB);
    let groups = home.dir.path().join("groups");
    let group = GroupId(3);
    let options = LogOptions { segment_bytes: MIB };
    GroupLog::create(&home.disk, &groups, group, &options, Genesis::founder(ReplicaId(1))).expect("made");
    let (mut log, _) = GroupLog::open(&home.disk, &groups, group, &options).expect("opened");
    // Another program took all the space.
    assert_eq!(home.set_free(0), SpaceState::Full);
    log.append(&[batch(&log, 1, &[&[7; 200_000]])]).expect("with the reserve's space");
    assert_eq!((home.reserve_bytes(), home.space().status().reserve), (None, false));
    log.append(&[batch(&log, 1, &[&[7; 900_000]])]).expect("rolls with what is left of it");
    assert_eq!(home.set_free(4), SpaceState::Full);
    assert_eq!(home.reserve_bytes(), None, "not while it is needed otherwise");
    assert_eq!(home.set_free(9), SpaceState::Low);
    assert_eq!(home.reserve_bytes(), Some(2 * MIB));
    home.set_free(0);
    assert!(home.space().give_reserve() && !home.space().give_reserve(), "once");
    home.free.store(0, Ordering::Relaxed);
    let full = log.append(&[batch(&log, 1, &[&[7; 2_000_000]])]).expect_err("really full");
    assert!(full.to_string().contains("no space left"), "{full}");
}

#[test]
fn a_reserve_of_another_size_is_created_again() {
    let home = Home::new(60 * MIB);
    let config = DiskSpace { disk_reserve_bytes: Some(3 * MIB), ..DiskSpace::default() };
    let backend = home.disk.backend().clone();
    Space::default().watch(&backend, home.dir.path(), &config).expect("watched");
    assert_eq!(home.reserve_bytes(), Some(3 * MIB));
    assert_eq!(home.free.load(Ordering::Relaxed), 57 * MIB);
    let none = DiskSpace { disk_reserve_bytes: Some(0), ..DiskSpace::default() };
    Space::default().watch(&backend, home.dir.path(), &none).expect("watched");
    assert_eq!(home.reserve_bytes(), None);
}
