//! The state of the simulated disk: files and directories as processes see them, and as a power cut would leave them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use super::rng::Rng;

/// The unit that a disk writes completely or not at all.
pub(super) const SECTOR: usize = 512;
pub(super) const ROOT: usize = 0;

/// The fraction of unsynced changes that a power cut keeps, in eighths.
#[derive(Clone, Copy)]
pub(super) struct Kept(u64);

impl Kept {
    pub(super) fn choose(rng: &mut Rng) -> Kept {
        Kept([0, 8, 4, 4, 1, 7][rng.below(6) as usize])
    }

    pub(super) fn this(self, rng: &mut Rng) -> bool {
        rng.below(8) < self.0
    }
}

/// A file or a directory.
#[derive(Default)]
pub(super) struct Inode {
    pub(super) is_dir: bool,
    pub(super) now: Vec<u8>,
    pub(super) disk: Vec<u8>,
    pub(super) dirty: BTreeSet<usize>,
    /// Bytes that can't be read.
    pub(super) unreadable: Vec<Range<u64>>,
}

impl Inode {
    pub(super) fn power_cut(&mut self, kept: Kept, stale: Option<&[u8]>, rng: &mut Rng) {
        let on_disk = self.disk.len();
        if self.now.len() != on_disk && kept.this(rng) {
            self.disk.resize(self.now.len(), 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(self.now.len());
            let keeps = kept.this(rng);
            if keeps && self.disk.len() < range.end {
                self.disk.resize(range.end, 0);
            }
            // A sector that was never written may contain bytes of another file.
            let stale = stale.and_then(|bytes| bytes.get(range.clone())).filter(|_| range.start >= on_disk);
            if keeps {
                self.disk[range.clone()].copy_from_slice(&self.now[range]);
            } else if let (Some(stale), true) = (stale, self.disk.len() >= range.end) {
                self.disk[range].copy_from_slice(stale);
            }
        }
        self.now = self.disk.clone();
    }
}

/// Names, each in its directory.
pub(super) type Names = BTreeMap<(usize, String), usize>;

#[derive(Clone)]
pub(super) enum NameOp {
    Link(usize, String, usize),
    Unlink(usize, String),
    Rename(usize, String, String, usize),
}

impl NameOp {
    pub(super) fn dir(&self) -> usize {
        let (NameOp::Link(dir, ..) | NameOp::Unlink(dir, _) | NameOp::Rename(dir, ..)) = self;
        *dir
    }

    pub(super) fn apply(&self, names: &mut Names) {
        match self.clone() {
            NameOp::Link(dir, name, inode) => {
                names.insert((dir, name), inode);
            }
            NameOp::Unlink(dir, name) => {
                names.remove(&(dir, name));
            }
            NameOp::Rename(dir, from, to, inode) => {
                names.remove(&(dir, from));
                names.insert((dir, to), inode);
            }
        }
    }
}

pub(super) struct World {
    pub(super) inodes: Vec<Inode>,
    pub(super) names: Names,
    pub(super) disk_names: Names,
    pub(super) pending: Vec<NameOp>,
    pub(super) locks: BTreeSet<PathBuf>,
    /// The number of further changes that succeed; after them every operation fails.
    pub(super) changes_left: Option<u64>,
    pub(super) died: bool,
    pub(super) changes: u64,
    pub(super) salt: u64,
    /// The number of operations that will fail for lack of a descriptor.
    pub(super) shortages: u64,
    /// The number of bytes read, and the number of failed reads.
    pub(super) reads: (u64, u64),
    pub(super) free_bytes: u64,
    /// The number of bytes by which files can still grow.
    pub(super) room: Option<u64>,
}

impl Default for World {
    fn default() -> World {
        World {
            inodes: vec![Inode { is_dir: true, ..Inode::default() }],
            names: Names::new(),
            disk_names: Names::new(),
            pending: Vec::new(),
            locks: BTreeSet::new(),
            changes_left: None,
            died: false,
            changes: 0,
            salt: 0,
            shortages: 0,
            reads: (0, 0),
            free_bytes: 1 << 30,
            room: None,
        }
    }
}

impl World {
    /// Takes a descriptor to open a file.
    pub(super) fn descriptor(&mut self) -> io::Result<()> {
        if self.shortages > 0 {
            self.shortages -= 1;
            return Err(rustix::io::Errno::MFILE.into());
        }
        Ok(())
    }

    pub(super) fn change(&mut self) -> io::Result<()> {
        self.changes += 1;
        match &mut self.changes_left {
            Some(0) => {
                self.died = true;
                Err(io::Error::other("the process is dead"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The directory that contains the last name of a path, and that name.
    pub(super) fn place(&self, path: &Path) -> io::Result<(usize, String)> {
        let dir = self.find(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((dir, name.to_string_lossy().into_owned()))
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<usize> {
        let mut at = ROOT;
        for part in path.components() {
            if let Component::Normal(name) = part {
                let key = (at, name.to_string_lossy().into_owned());
                at = *self.names.get(&key).ok_or(io::ErrorKind::NotFound)?;
            }
        }
        Ok(at)
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<usize> {
        let inode = self.find(path)?;
        if self.inodes[inode].is_dir { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(inode) }
    }

    pub(super) fn name(&mut self, op: NameOp) {
        op.apply(&mut self.names);
        if op.dir() == ROOT {
            op.apply(&mut self.disk_names);
        } else {
            self.pending.push(op);
        }
    }

    pub(super) fn make(&mut self, path: &Path, is_dir: bool) -> io::Result<usize> {
        let (dir, name) = self.place(path)?;
        if self.names.contains_key(&(dir, name.clone())) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change()?;
        self.inodes.push(Inode { is_dir, ..Inode::default() });
        let inode = self.inodes.len() - 1;
        self.name(NameOp::Link(dir, name, inode));
        Ok(inode)
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        if !self.names.contains_key(&(dir, name.clone())) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change()?;
        self.name(NameOp::Unlink(dir, name));
        Ok(())
    }

    pub(super) fn inside(&self, dir: usize) -> impl Iterator<Item = (&str, usize)> {
        let range = (dir, String::new())..(dir + 1, String::new());
        self.names.range(range).map(|((_, name), inode)| (name.as_str(), *inode))
    }

    /// Takes the space for a file that grows up to this length.
    pub(super) fn take_room(&mut self, inode: usize, length: usize) -> io::Result<()> {
        let growth = length.saturating_sub(self.inodes[inode].now.len()) as u64;
        match &mut self.room {
            Some(room) if *room < growth => Err(rustix::io::Errno::NOSPC.into()),
            Some(room) => {
                *room -= growth;
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn write(&mut self, inode: usize, at: usize, bytes: &[u8]) {
        let inode = &mut self.inodes[inode];
        let end = at + bytes.len();
        if inode.now.len() < end {
            inode.now.resize(end, 0);
        }
        inode.now[at..end].copy_from_slice(bytes);
        inode.dirty.extend(at / SECTOR..end.div_ceil(SECTOR));
    }

    /// A file without a name takes no space once no process has it open.
    pub(super) fn forget(&mut self) {
        let mut live: BTreeSet<usize> = self.names.values().chain(self.disk_names.values()).copied().collect();
        live.extend(self.pending.iter().filter_map(|op| match op {
            NameOp::Link(_, _, inode) | NameOp::Rename(.., inode) => Some(*inode),
            NameOp::Unlink(..) => None,
        }));
        for (i, inode) in self.inodes.iter_mut().enumerate() {
            if !live.contains(&i) && !inode.is_dir {
                *inode = Inode::default();
            }
        }
    }
}
