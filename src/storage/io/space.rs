//! Space on the disk of the data directory: who may still append, and the reserve file (RELIABILITY L14).
//!
//! ```text
//!   free space   > soft                 enough
//!                soft ..  hard          low: a warning, once
//!                hard ..  hard / 2      full: clients' appends are refused, each before anything of it is written
//!                hard / 2 ..  0         a leader's entries are not taken either (they come again); the node's own writes go
//!                                       on: terms, votes, commits, trims, elections, manifests
//!                0                      the file `reserve` is given back for them, and made again when there is room
//! ```
//!
//! Nobody asks the system for each append. The thread `space` looks once a second; what is taken since is counted where
//! segments grow (`took`), and what was promised but is not written yet is counted too. So what was admitted fits,
//! whatever else we write; only others who share the disk can make it too small, and then the reserve is left. A disk that
//! is full all the same ends the process: nothing is acknowledged that could not be written.
//!
//! Once full, it is full until a quarter of the hard watermark more than that is free: no flutter.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use crate::config::DiskSpace;
use crate::storage::error::StorageError;
use crate::storage::io::disk::backend::Backend;
use crate::thread::{self, FatalSender, Joiner};

/// The reserve file's name in the data directory.
pub const RESERVE_FILE: &str = "reserve";

/// How often the thread looks.
const LOOK: Duration = Duration::from_secs(1);

const MIB: u64 = 1 << 20;
/// Defaults: at most this much, and at most this part of the file system.
const SOFT: (u64, u64) = (2 << 30, 8);
const HARD: (u64, u64) = (256 * MIB, 16);
const RESERVE: (u64, u64) = (32 * MIB, 32);
/// How much more than the hard watermark must be free until appends are taken again, at most.
const SLACK_BYTES_MAX: u64 = 16 * MIB;
/// A segment takes at most this part of the file system: a trim gives back whole segments.
const SEGMENT_PART: u64 = 16;
const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// How much is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum SpaceState {
    /// Above the soft watermark.
    #[default]
    Enough = 0,
    /// Below it.
    Low = 1,
    /// Below the hard one: appends are refused.
    Full = 2,
}

/// What the node knows about the space on its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceStatus {
    /// How much is free.
    pub state: SpaceState,
    /// Bytes: at the last look, less what was taken since.
    pub free_bytes: u64,
    /// Bytes of the file system.
    pub total_bytes: u64,
    /// The soft watermark, bytes.
    pub soft_bytes: u64,
    /// The hard watermark, bytes.
    pub hard_bytes: u64,
    /// True while the reserve file is there.
    pub reserve: bool,
    /// Appends refused since the start.
    pub refused: u64,
}

/// The space of one data directory; a clone is the same. Before it is watched (`Disk::watch_space`) there is no end of it.
#[derive(Clone, Default)]
pub struct Space(Arc<Inner>);

#[derive(Default)]
struct Inner {
    watched: OnceLock<Watched>,
    /// What was taken when it was last looked, and what was free then.
    ceiling: AtomicU64,
    /// Bytes that segments grew by since the start.
    taken: AtomicU64,
    /// Bytes that are to be written in this turn of `consensus`.
    promised: AtomicU64,
    state: AtomicU8,
    refused: AtomicU64,
    /// An append was refused since the last look.
    wanted: AtomicBool,
    /// The reserve file is there.
    reserve: AtomicBool,
    /// The last look failed; said once.
    blind: AtomicBool,
}

struct Watched {
    backend: Arc<dyn Backend>,
    dir: PathBuf,
    total_bytes: u64,
    soft_bytes: u64,
    hard_bytes: u64,
    reserve_bytes: u64,
    /// One look at a time, and no reserve made while it is given back.
    looking: Mutex<()>,
}

impl Watched {
    fn slack_bytes(&self) -> u64 {
        (self.hard_bytes / 8).min(SLACK_BYTES_MAX / 2)
    }

    fn reserve_path(&self) -> PathBuf {
        self.dir.join(RESERVE_FILE)
    }
}

impl Space {
    /// Begins to watch the file system of a data directory, and makes the reserve file if there is room. Once.
    ///
    /// # Errors
    /// When the system can't say how much is free.
    pub(crate) fn watch(&self, backend: &Arc<dyn Backend>, dir: &Path, config: &DiskSpace) -> Result<(), StorageError> {
        let ask = |e| StorageError::io("ask for the free space of", dir, e);
        let total_bytes = backend.total_bytes(dir).map_err(ask)?;
        let or_part = |given: Option<u64>, (most, part): (u64, u64)| given.unwrap_or(most.min(total_bytes / part));
        let hard_bytes = or_part(config.disk_free_hard_bytes, HARD);
        let watched = Watched {
            backend: backend.clone(),
            dir: dir.to_owned(),
            total_bytes,
            soft_bytes: or_part(config.disk_free_soft_bytes, SOFT).max(hard_bytes),
            hard_bytes,
            reserve_bytes: or_part(config.disk_reserve_bytes, RESERVE),
            looking: Mutex::default(),
        };
        // Not opened: nothing in it is read, and a pipe would wait for somebody.
        let there = match backend.file_bytes(&watched.reserve_path()) {
            Ok(Some(bytes)) => Some(bytes),
            Ok(None) => {
                let error = io::Error::new(io::ErrorKind::InvalidData, "it is no plain file");
                return Err(StorageError::io("use", &watched.reserve_path(), error));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(StorageError::io("look at", &watched.reserve_path(), e)),
        };
        self.0.reserve.store(there == Some(watched.reserve_bytes), Ordering::Relaxed);
        if there.is_some_and(|bytes| bytes != watched.reserve_bytes) {
            // Of another size: made again below.
            let path = watched.reserve_path();
            backend.unlink(&path).map_err(|e| StorageError::io("remove", &path, e))?;
        }
        if self.0.watched.set(watched).is_ok() {
            self.look();
        }
        Ok(())
    }

    /// May a client's append of so many bytes begin? Then its room is promised until [`Space::kept`].
    pub fn promise(&self, bytes: u64) -> bool {
        let hard = self.0.watched.get().map_or(0, |watched| watched.hard_bytes);
        let fits = self.state() != SpaceState::Full && self.fits(bytes, hard);
        if !fits {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            self.0.wanted.store(true, Ordering::Relaxed);
        }
        fits
    }

    /// May entries of a leader be taken? It has promised them to its clients, so they may go deeper.
    pub fn promise_to_leader(&self, bytes: u64) -> bool {
        self.fits(bytes, self.0.watched.get().map_or(0, |watched| watched.hard_bytes / 2))
    }

    fn fits(&self, bytes: u64, left: u64) -> bool {
        let Some(_) = self.0.watched.get() else { return true };
        let (taken, promised) = (self.0.taken.load(Ordering::Relaxed), self.0.promised.load(Ordering::Relaxed));
        let needed = taken.saturating_add(promised).saturating_add(bytes).saturating_add(left);
        let fits = needed <= self.0.ceiling.load(Ordering::Relaxed);
        if fits {
            self.0.promised.fetch_add(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Everything that was promised is written, or will not be.
    pub fn kept(&self) {
        self.0.promised.store(0, Ordering::Relaxed);
    }

    /// A segment grew.
    pub(crate) fn took(&self, bytes: u64) {
        self.0.taken.fetch_add(bytes, Ordering::Release);
    }

    /// Bytes that are free, as far as is known without asking the system. `None`: not watched.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        self.0.watched.get()?;
        Some(self.0.ceiling.load(Ordering::Relaxed).saturating_sub(self.0.taken.load(Ordering::Relaxed)))
    }

    /// A segment of this size is large enough for the file system: of one that is wanted, and what the file system bears.
    pub fn segment_bytes(&self, wanted: u64) -> u64 {
        let Some(watched) = self.0.watched.get() else { return wanted };
        wanted.min((watched.total_bytes / SEGMENT_PART).max(SEGMENT_BYTES_MIN))
    }

    fn state(&self) -> SpaceState {
        match self.0.state.load(Ordering::Relaxed) {
            0 => SpaceState::Enough,
            1 => SpaceState::Low,
            2.. => SpaceState::Full,
        }
    }

    /// What is known now.
    pub fn status(&self) -> SpaceStatus {
        let Some(watched) = self.0.watched.get() else { return SpaceStatus::default() };
        SpaceStatus {
            state: self.state(),
            free_bytes: self.free_bytes().unwrap_or_default(),
            total_bytes: watched.total_bytes,
            soft_bytes: watched.soft_bytes,
            hard_bytes: watched.hard_bytes,
            reserve: self.0.reserve.load(Ordering::Relaxed),
            refused: self.0.refused.load(Ordering::Relaxed),
        }
    }

    /// Gives back the reserve file; false when there is none. For a write of our own that found the disk full.
    pub(crate) fn give_reserve(&self) -> bool {
        let Some(watched) = self.0.watched.get() else { return false };
        let _looking = watched.looking.lock();
        if !self.0.reserve.swap(false, Ordering::Relaxed) {
            return false;
        }
        log::error!("{} has no space left: the reserve file is given back", watched.dir.display());
        self.0.state.store(SpaceState::Full as u8, Ordering::Relaxed);
        watched.backend.unlink(&watched.reserve_path()).is_ok()
    }

    /// Asks the system. May block on a disk that hangs.
    pub(crate) fn look(&self) {
        let Some(watched) = self.0.watched.get() else { return };
        let _looking = watched.looking.lock();
        if let Err(error) = self.look_at(watched) {
            // What is known of the space stays as it is: it only shrinks, so nothing is promised that is not there.
            if !self.0.blind.swap(true, Ordering::Relaxed) {
                log::warn!("the free space of {} is not known: {error}", watched.dir.display());
            }
        }
    }

    fn look_at(&self, watched: &Watched) -> io::Result<()> {
        let mut free = self.measure(watched)?;
        let wanted_for_reserve = watched.reserve_bytes + watched.hard_bytes + 2 * watched.slack_bytes();
        if watched.reserve_bytes > 0 && !self.0.reserve.load(Ordering::Relaxed) && free >= wanted_for_reserve {
            self.make_reserve(watched);
            free = self.measure(watched)?;
        }
        self.0.blind.store(false, Ordering::Relaxed);
        let (before, hard, slack) = (self.state(), watched.hard_bytes, watched.slack_bytes());
        let wanted = self.0.wanted.swap(false, Ordering::Relaxed);
        let full =
            free < hard || (wanted && free < hard + slack) || (before == SpaceState::Full && free < hard + 2 * slack);
        let now = match (full, free < watched.soft_bytes) {
            (true, _) => SpaceState::Full,
            (false, true) => SpaceState::Low,
            (false, false) => SpaceState::Enough,
        };
        self.0.state.store(now as u8, Ordering::Relaxed);
        let (dir, total, soft) = (watched.dir.display(), watched.total_bytes, watched.soft_bytes);
        match (before, now) {
            (SpaceState::Enough | SpaceState::Low, SpaceState::Full) => log::error!(
                "the disk of {dir} is full: {free} of {total} bytes are free, the hard watermark is {hard}. Appends are refused \
                 until {} are free; trim, or make room",
                hard + 2 * slack
            ),
            (SpaceState::Enough, SpaceState::Low) => log::warn!(
                "the disk of {dir} fills: {free} of {total} bytes are free, the soft watermark is {soft}. Below {hard} appends \
                 are refused"
            ),
            (SpaceState::Full, SpaceState::Low | SpaceState::Enough) => {
                log::warn!("the disk of {dir} has room again, {free} bytes: appends are taken");
            }
            (SpaceState::Low, SpaceState::Enough) => log::info!("the disk of {dir} has {free} bytes free again"),
            (SpaceState::Enough, SpaceState::Enough)
            | (SpaceState::Low, SpaceState::Low)
            | (SpaceState::Full, SpaceState::Full) => {}
        }
        Ok(())
    }

    /// What is free; from here on whatever is taken comes off it.
    fn measure(&self, watched: &Watched) -> io::Result<u64> {
        // In this order: what is taken in between is counted twice, never not at all.
        let taken = self.0.taken.load(Ordering::Acquire);
        let free = watched.backend.free_bytes(&watched.dir)?;
        self.0.ceiling.store(taken.saturating_add(free), Ordering::Relaxed);
        Ok(free)
    }

    fn make_reserve(&self, watched: &Watched) {
        let path = watched.reserve_path();
        let made = match watched.backend.unlink(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => watched.backend.create(&path).and_then(|file| file.allocate(0, watched.reserve_bytes)),
        };
        match made {
            Ok(()) => self.0.reserve.store(true, Ordering::Relaxed),
            Err(error) => {
                // Where space can't be reserved, the hard watermark alone keeps some. Asked again at the next look.
                log::debug!("{} can't be made: {error}", path.display());
                let _ = watched.backend.unlink(&path);
            }
        }
    }
}

/// The thread `space`: it looks once a second, and may block on the disk. Dropped, it ends.
pub struct SpaceWatch {
    stop: Option<Sender<()>>,
    thread: Option<Joiner>,
}

impl SpaceWatch {
    /// Starts it.
    ///
    /// # Errors
    /// When the system can't make a thread.
    pub fn start(space: &Space, fatal: &FatalSender) -> io::Result<SpaceWatch> {
        let space = space.clone();
        let (stop, stopped) = bounded::<()>(0);
        let thread = thread::spawn("space", fatal, move || -> Result<(), io::Error> {
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                space.look();
            }
            Ok(())
        })?;
        Ok(SpaceWatch { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for SpaceWatch {
    fn drop(&mut self) {
        self.stop = None;
        self.thread = None;
    }
}

#[cfg(test)]
mod tests;
