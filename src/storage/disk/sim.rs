//! A disk in memory that forgets, at a power cut, any part of what was not synced: sectors of files and names of
//! directories, each for itself. A kill leaves the page cache as it is. For tests.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Backend, BackendFile, Disk, Words};

const SECTOR: usize = 512;

/// A small generator of pseudo-random numbers (splitmix64): the same seed gives the same test.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below a number.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

#[derive(Default)]
struct Inode {
    now: Vec<u8>,
    disk: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Clone)]
enum NameOp {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

impl NameOp {
    fn dir(&self) -> &Path {
        let (NameOp::Link(path, _) | NameOp::Unlink(path) | NameOp::Rename(path, ..)) = self;
        path.parent().unwrap_or(Path::new("/"))
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameOp::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            NameOp::Unlink(path) => {
                names.remove(path);
            }
            NameOp::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

#[derive(Default)]
struct World {
    inodes: Vec<Inode>,
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, usize>,
    disk_names: BTreeMap<PathBuf, usize>,
    pending: Vec<NameOp>,
    /// So many more changes succeed; then nothing does.
    changes_left: Option<u64>,
    changes: u64,
    salt: u64,
}

impl World {
    fn change(&mut self) -> io::Result<()> {
        self.changes += 1;
        match &mut self.changes_left {
            Some(0) => Err(io::Error::other("the process is dead")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn name(&mut self, op: NameOp) {
        op.apply(&mut self.names);
        self.pending.push(op);
    }

    fn write(&mut self, inode: usize, at: usize, bytes: &[u8]) {
        let inode = &mut self.inodes[inode];
        let end = at + bytes.len();
        if inode.now.len() < end {
            inode.now.resize(end, 0);
        }
        inode.now[at..end].copy_from_slice(bytes);
        inode.dirty.extend(at / SECTOR..end.div_ceil(SECTOR));
    }
}

/// The disk; a clone is the same one.
#[derive(Clone, Default)]
pub struct Sim(Arc<Mutex<World>>);

struct SimFile {
    world: Sim,
    inode: usize,
}

impl Sim {
    pub fn disk(&self) -> Disk {
        Disk::new(Arc::new(self.clone()))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After so many more changes of files or names everything fails; `None`: never.
    pub fn die_after(&self, changes: Option<u64>) {
        self.world().changes_left = changes;
    }

    /// The power goes: of what was not synced, any part is lost.
    pub fn power_cut(&self, rng: &mut Rng) {
        let mut world = self.world();
        let world = &mut *world;
        // All, nothing, or each for itself.
        let mut kept = {
            let mode = rng.below(4);
            move || match mode {
                0 => false,
                1 => true,
                _ => rng.once_in(2),
            }
        };
        for op in std::mem::take(&mut world.pending) {
            if kept() {
                op.apply(&mut world.disk_names);
            }
        }
        world.names = world.disk_names.clone();
        for inode in &mut world.inodes {
            if inode.now.len() != inode.disk.len() && kept() {
                inode.disk.resize(inode.now.len(), 0);
            }
            for sector in std::mem::take(&mut inode.dirty) {
                if kept() {
                    let range = sector * SECTOR..((sector + 1) * SECTOR).min(inode.now.len());
                    if inode.disk.len() < range.end {
                        inode.disk.resize(range.end, 0);
                    }
                    inode.disk[range.clone()].copy_from_slice(&inode.now[range]);
                }
            }
            inode.now = inode.disk.clone();
        }
    }

    fn file(&self, inode: usize) -> Box<dyn BackendFile> {
        Box::new(SimFile { world: self.clone(), inode })
    }
}

impl Backend for Sim {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.world().dirs.insert(path.to_owned());
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        if !world.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let paths = world.names.keys().chain(&world.dirs).filter(|path| path.parent() == Some(dir));
        Ok(paths.filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        let mut world = self.world();
        world.change()?;
        if world.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        world.inodes.push(Inode::default());
        let inode = world.inodes.len() - 1;
        world.name(NameOp::Link(path.to_owned(), inode));
        Ok(self.file(inode))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        let inode = *self.world().names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.change()?;
        if let Some(inode) = world.names.get(from).copied() {
            world.name(NameOp::Rename(from.to_owned(), to.to_owned(), inode));
            return Ok(());
        }
        // A directory: made whole and at once here.
        if !world.dirs.remove(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.dirs.insert(to.to_owned());
        let world = &mut *world;
        for names in [&mut world.names, &mut world.disk_names] {
            let moved: Vec<_> = names.keys().filter(|p| p.starts_with(from)).cloned().collect();
            for path in moved {
                if let (Some(inode), Ok(rest)) = (names.remove(&path), path.strip_prefix(from)) {
                    names.insert(to.join(rest), inode);
                }
            }
        }
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        if !world.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.change()?;
        world.name(NameOp::Unlink(path.to_owned()));
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.dirs.remove(path);
        let inside: Vec<_> = world.names.keys().filter(|p| p.starts_with(path)).cloned().collect();
        inside.into_iter().for_each(|p| world.name(NameOp::Unlink(p)));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.change()?;
        let world = &mut *world;
        let (synced, rest) = std::mem::take(&mut world.pending).into_iter().partition(|op| op.dir() == dir);
        world.pending = rest;
        let synced: Vec<NameOp> = synced;
        synced.iter().for_each(|op| op.apply(&mut world.disk_names));
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(1 << 30)
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        Ok(Box::new(()))
    }

    fn map(&self, _path: &Path, words: usize, create: bool) -> io::Result<Words> {
        if create { Ok(Words::memory(words)) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn random(&self) -> io::Result<u64> {
        let mut world = self.world();
        world.salt += 1;
        Ok(Rng(world.salt).next())
    }
}

impl BackendFile for SimFile {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let world = self.world.world();
        let bytes = world.inodes[self.inode].now.get(at as usize..).unwrap_or_default();
        let n = bytes.len().min(buffer.len());
        buffer[..n].copy_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn read_cached_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.read_at(at, buffer).map(Some)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.world.world();
        if let Err(dead) = world.change() {
            // Killed in the middle of it.
            let part = Rng(world.changes).below(bytes.len() as u64 + 1) as usize;
            if world.changes_left == Some(0) && part > 0 && world.changes.is_multiple_of(2) {
                world.write(self.inode, at as usize, &bytes[..part]);
            }
            return Err(dead);
        }
        world.write(self.inode, at as usize, bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.world.world();
        world.change()?;
        let inode = &mut world.inodes[self.inode];
        inode.disk = inode.now.clone();
        inode.dirty.clear();
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.world.world().inodes[self.inode].now.len() as u64)
    }

    fn allocate(&self, _from: u64, to: u64) -> io::Result<()> {
        let mut world = self.world.world();
        world.change()?;
        let inode = &mut world.inodes[self.inode];
        let length = inode.now.len().max(to as usize);
        inode.now.resize(length, 0);
        Ok(())
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }
}
