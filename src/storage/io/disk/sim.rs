//! A disk in memory, for tests. A power cut loses any part of what was not synced: sectors of files, lengths, and names
//! in directories, each independently. A kill leaves the page cache unchanged.
//!
//! Every change is counted, and the process can die at any of them: `create`, `write_at` (which may have written a part
//! then), `allocate`, `sync`, `rename`, `unlink`, `create_dir`, `remove_dir`, `sync_dir`, `lock`. Names in the root are
//! mount points, and are durable at once.

mod rng;
mod world;

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

pub use self::rng::Rng;
use self::world::{Inode, Kept, NameOp, ROOT, World};
use super::{Backend, BackendFile, Disk, appended};

/// The disk; clones share it.
#[derive(Clone, Default)]
pub struct Sim(Arc<Mutex<World>>);

struct SimFile {
    world: Sim,
    inode: usize,
}

struct Lock(Sim, PathBuf);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.world().locks.remove(&self.1);
    }
}

impl Sim {
    pub fn disk(&self) -> Disk {
        Disk::new(Arc::new(self.clone()))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock()
    }

    /// Another disk with the same contents, without locks or open files.
    pub fn copy(&self) -> Sim {
        let world = self.world();
        let inodes = world.inodes.iter().map(|inode| Inode {
            is_dir: inode.is_dir,
            now: inode.now.clone(),
            disk: inode.disk.clone(),
            dirty: inode.dirty.clone(),
            unreadable: inode.unreadable.clone(),
        });
        let copy = World {
            inodes: inodes.collect(),
            names: world.names.clone(),
            disk_names: world.disk_names.clone(),
            pending: world.pending.clone(),
            changes: world.changes,
            salt: world.salt,
            ..World::default()
        };
        Sim(Arc::new(Mutex::new(copy)))
    }

    /// Makes every operation fail after this many further changes of files or names; `None`: never.
    pub fn die_after(&self, changes: Option<u64>) {
        let mut world = self.world();
        world.changes_left = changes;
        world.died = false;
    }

    /// The number of changes of files or names.
    pub fn changes(&self) -> u64 {
        self.world().changes
    }

    /// Returns the number of bytes read, and the number of failed reads.
    pub fn reads(&self) -> (u64, u64) {
        self.world().reads
    }

    /// Makes the next `times` operations that open a file fail, for lack of a descriptor.
    pub fn no_descriptor(&self, times: u64) {
        self.world().shortages = times;
    }

    /// Sets the free space that the disk reports. Writes succeed all the same.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.world().free_bytes = bytes;
    }

    /// Makes writes fail once files have grown by this many bytes; `None`: never.
    pub fn fill_up(&self, bytes: Option<u64>) {
        self.world().room = bytes;
    }

    /// True if an operation has failed because the process died.
    pub fn died(&self) -> bool {
        self.world().died
    }

    /// Kills the process; nothing is lost.
    pub fn kill(&self) {
        let mut world = self.world();
        world.locks.clear();
        world.forget();
    }

    /// Cuts the power: any part of what was not synced is lost.
    pub fn power_cut(&self, rng: &mut Rng) {
        let mut world = self.world();
        let world = &mut *world;
        let names = Kept::choose(rng);
        for op in std::mem::take(&mut world.pending) {
            if names.this(rng) {
                op.apply(&mut world.disk_names);
            }
        }
        world.names = world.disk_names.clone();
        let kept = Kept::choose(rng);
        let stale = rng.once_in(6).then(|| world.inodes[rng.below(world.inodes.len() as u64) as usize].now.clone());
        for inode in &mut world.inodes {
            inode.power_cut(kept, stale.as_deref(), rng);
        }
        world.locks.clear();
        world.forget();
    }

    /// Every file with its contents, and every directory, by path.
    pub fn files(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let world = self.world();
        let mut files = BTreeMap::new();
        let mut dirs = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, dir)) = dirs.pop() {
            for (name, inode) in world.inside(dir) {
                let path = path.join(name);
                let is_dir = world.inodes[inode].is_dir;
                files.insert(path.clone(), (!is_dir).then(|| world.inodes[inode].now.clone()));
                if is_dir {
                    dirs.push((path, inode));
                }
            }
        }
        files
    }

    /// Replaces a file's contents, durably.
    pub fn damage(&self, path: &Path, bytes: Vec<u8>) {
        let mut world = self.world();
        let inode = world.file(path).expect("a file");
        let unreadable = std::mem::take(&mut world.inodes[inode].unreadable);
        world.inodes[inode] = Inode { now: bytes.clone(), disk: bytes, unreadable, ..Inode::default() };
    }

    /// Makes reads of these bytes of a file fail with EIO, as reads of a bad sector do.
    pub fn unreadable(&self, path: &Path, bytes: Range<u64>) {
        let mut world = self.world();
        let inode = world.file(path).expect("a file");
        world.inodes[inode].unreadable.push(bytes);
    }

    /// Removes a file or a directory, durably.
    pub fn lose(&self, path: &Path) {
        let mut world = self.world();
        let place = world.place(path).expect("a directory");
        world.names.remove(&place);
        world.disk_names.remove(&place);
    }

    fn open_file(&self, inode: usize) -> Box<dyn BackendFile> {
        Box::new(SimFile { world: self.clone(), inode })
    }
}

impl Backend for Sim {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        let missing: Vec<&Path> = path.ancestors().take_while(|p| world.find(p).is_err()).collect();
        missing.into_iter().rev().try_for_each(|path| world.make(path, true).map(drop))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        let dir = world.find(dir)?;
        Ok(world.inside(dir).map(|(name, _)| name.to_owned()).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        let mut world = self.world();
        world.descriptor()?;
        let inode = world.make(path, false)?;
        drop(world);
        Ok(self.open_file(inode))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        let mut world = self.world();
        world.descriptor()?;
        let inode = world.file(path)?;
        drop(world);
        Ok(self.open_file(inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        let inode = world.find(from)?;
        let ((dir, from), (to_dir, to)) = (world.place(from)?, world.place(to)?);
        assert_eq!(dir, to_dir, "within a directory");
        world.change()?;
        world.name(NameOp::Rename(dir, from, to, inode));
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.world().remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        let dir = world.find(path)?;
        let inside: Vec<PathBuf> = world.inside(dir).map(|(name, _)| path.join(name)).collect();
        inside.iter().try_for_each(|path| world.remove(path))?;
        world.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.descriptor()?;
        let dir = world.find(dir)?;
        world.change()?;
        let world = &mut *world;
        let (synced, rest) = std::mem::take(&mut world.pending).into_iter().partition(|op| op.dir() == dir);
        world.pending = rest;
        let synced: Vec<NameOp> = synced;
        synced.iter().for_each(|op| op.apply(&mut world.disk_names));
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.world().free_bytes)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut world = self.world();
        if world.file(path).is_err() {
            world.make(path, false)?;
        }
        if !world.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock(self.clone(), path.to_owned())))
    }

    fn random(&self) -> io::Result<u64> {
        let mut world = self.world();
        world.salt += 1;
        Ok(Rng(world.salt).next())
    }
}

impl BackendFile for SimFile {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut world = self.world.world();
        let World { inodes, reads, .. } = &mut *world;
        let inode = &inodes[self.inode];
        let bytes = inode.now.get(at as usize..).unwrap_or_default();
        let n = bytes.len().min(buffer.len());
        if inode.unreadable.iter().any(|bad| bad.start < at + n as u64 && at < bad.end) {
            reads.1 += 1;
            return Err(rustix::io::Errno::IO.into());
        }
        reads.0 += n as u64;
        buffer[..n].copy_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn append_cached_at(&self, at: u64, bytes: usize, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        appended(bytes, buffer, |buffer| self.read_at(at, buffer)).map(Some)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.world.world();
        let was_dead = world.died;
        if let Err(dead) = world.change() {
            // Killed during the write.
            let part = Rng(world.changes).below(bytes.len() as u64 + 1) as usize;
            if !was_dead && part > 0 && world.changes.is_multiple_of(2) {
                world.write(self.inode, at as usize, &bytes[..part]);
            }
            return Err(dead);
        }
        world.take_room(self.inode, at as usize + bytes.len())?;
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
        world.take_room(self.inode, to as usize)?;
        let inode = &mut world.inodes[self.inode];
        let length = inode.now.len().max(to as usize);
        inode.now.resize(length, 0);
        Ok(())
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }
}
