//! Free space on the disk of the data directory: which appends are still accepted, and the reserve file.
//!
//! ```text
//!   free space   > soft                 enough
//!                soft ..  hard          low: a warning, once
//!                hard ..  hard / 2      full: clients' appends are refused, each before anything of it is written
//!                hard / 2 ..  0         a leader's entries are refused too (it sends them again); the node's own writes continue:
//!                                       terms, votes, commits, trims, elections, manifests
//!                0                      the file `reserve` is released for them, and created again when space is free
//! ```
//!
//! The thread `space` asks the system for the free space once a second, and not for each append. Between two queries,
//! the node subtracts what its segments have taken since (`took`) and what is promised but not written yet. So an
//! accepted append fits, whatever else this node writes. Only other users of the disk can make the free space too
//! small, and for that case there is the reserve file. If the disk is full nevertheless, the process ends: nothing is
//! acknowledged that could not be written.
//!
//! Once full, the state remains until more than the hard limit is free, by a quarter of it or 16 MiB, whichever is
//! less. So the state does not alternate.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use crate::config::DiskSpace;
use crate::events::{EventKind, Events, Severity};
use crate::storage::error::StorageError;
use crate::storage::io::disk::backend::Backend;
use crate::thread::{self, FatalSender, Joiner};

/// The reserve file's name in the data directory.
pub const RESERVE_FILE: &str = "reserve";

/// The interval at which the thread asks the system.
const LOOK: Duration = Duration::from_secs(1);

const MIB: u64 = 1 << 20;
/// Defaults: at most this many bytes, and at most this fraction (one in n) of the file system.
const SOFT: (u64, u64) = (2 << 30, 8);
const HARD: (u64, u64) = (256 * MIB, 16);
const RESERVE: (u64, u64) = (32 * MIB, 32);
/// The maximum of the space that must be free in addition to the hard limit before appends are accepted again.
const SLACK_BYTES_MAX: u64 = 16 * MIB;
/// A segment takes at most this fraction (one in n) of the file system, because a trim frees whole segments.
const SEGMENT_PART: u64 = 16;
const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// The level of free space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum SpaceState {
    /// Above the soft limit.
    #[default]
    Enough = 0,
    /// Below the soft limit.
    Low = 1,
    /// Below the hard limit: appends are refused.
    Full = 2,
}

/// What the node knows about the space on its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceStatus {
    pub state: SpaceState,
    /// Free bytes when the system was last asked, minus what was taken since.
    pub free_bytes: u64,
    /// The size of the file system.
    pub total_bytes: u64,
    pub soft_bytes: u64,
    pub hard_bytes: u64,
    /// True while the reserve file exists.
    pub reserve: bool,
    /// Appends refused since the start.
    pub refused: u64,
}

/// The free space of one data directory; clones share it. Unlimited until it is watched (`Disk::watch_space`).
#[derive(Clone, Default)]
pub struct Space(Arc<Inner>);

#[derive(Default)]
struct Inner {
    watched: OnceLock<Watched>,
    /// `taken` when the system was last asked, plus the free bytes at that time.
    ceiling: AtomicU64,
    /// Bytes that segments grew by since the start.
    taken: AtomicU64,
    /// Bytes that are promised to appends and not written yet.
    promised: AtomicU64,
    state: AtomicU8,
    refused: AtomicU64,
    /// True if an append was refused since the system was last asked.
    wanted: AtomicBool,
    /// True while the reserve file exists.
    reserve: AtomicBool,
    /// True if the system's last answer was an error, so that it is logged once.
    blind: AtomicBool,
    events: OnceLock<Events>,
}

/// The free bytes at which appends are accepted again, once less than the hard limit was free.
pub fn accepting_again_bytes(hard_bytes: u64) -> u64 {
    hard_bytes + 2 * slack_bytes(hard_bytes)
}

fn slack_bytes(hard_bytes: u64) -> u64 {
    (hard_bytes / 8).min(SLACK_BYTES_MAX / 2)
}

struct Watched {
    backend: Arc<dyn Backend>,
    dir: PathBuf,
    total_bytes: u64,
    soft_bytes: u64,
    hard_bytes: u64,
    reserve_bytes: u64,
    /// Locked while the system is asked, and while the reserve is released.
    looking: Mutex<()>,
}

impl Watched {
    fn slack_bytes(&self) -> u64 {
        slack_bytes(self.hard_bytes)
    }

    fn reserve_path(&self) -> PathBuf {
        self.dir.join(RESERVE_FILE)
    }
}

impl Space {
    /// Starts to watch the file system of a data directory, and creates the reserve file if it fits. Called once.
    ///
    /// # Errors
    /// If the system does not report the free space.
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
        // The file is not opened: its contents are never read, and opening a pipe would wait.
        let there = match backend.file_bytes(&watched.reserve_path()) {
            Ok(Some(bytes)) => Some(bytes),
            Ok(None) => {
                let error = io::Error::new(io::ErrorKind::InvalidData, "it is not a plain file");
                return Err(StorageError::io("use", &watched.reserve_path(), error));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(StorageError::io("look at", &watched.reserve_path(), e)),
        };
        self.0.reserve.store(there == Some(watched.reserve_bytes), Ordering::Relaxed);
        if there.is_some_and(|bytes| bytes != watched.reserve_bytes) {
            // The size has changed, so it is created again below.
            let path = watched.reserve_path();
            backend.unlink(&path).map_err(|e| StorageError::io("remove", &path, e))?;
        }
        if self.0.watched.set(watched).is_ok() {
            self.look();
        }
        Ok(())
    }

    /// True if a client's append of this many bytes fits. Its space is then promised until [`Space::kept`] is called.
    pub fn promise(&self, bytes: u64) -> bool {
        let hard = self.0.watched.get().map_or(0, |watched| watched.hard_bytes);
        let fits = self.state() != SpaceState::Full && self.fits(bytes, hard);
        if !fits {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            self.0.wanted.store(true, Ordering::Relaxed);
        }
        fits
    }

    /// True if a leader's entries of this many bytes fit. The leader has accepted them already, so they may use more of
    /// the disk.
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

    /// Notes that all promised bytes are written, or never will be.
    pub fn kept(&self) {
        self.0.promised.store(0, Ordering::Relaxed);
    }

    /// Notes that a segment has grown.
    pub(crate) fn took(&self, bytes: u64) {
        self.0.taken.fetch_add(bytes, Ordering::Release);
    }

    /// The free bytes that are known without asking the system; `None` if not watched.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        self.0.watched.get()?;
        Some(self.0.ceiling.load(Ordering::Relaxed).saturating_sub(self.0.taken.load(Ordering::Relaxed)))
    }

    /// The size of segments: the configured one, or less if the file system is small.
    pub fn segment_bytes(&self, wanted: u64) -> u64 {
        let Some(watched) = self.0.watched.get() else { return wanted };
        wanted.min((watched.total_bytes / SEGMENT_PART).max(SEGMENT_BYTES_MIN))
    }

    pub(crate) fn state(&self) -> SpaceState {
        match self.0.state.load(Ordering::Relaxed) {
            0 => SpaceState::Enough,
            1 => SpaceState::Low,
            2.. => SpaceState::Full,
        }
    }

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

    /// Records changes of the state in these events, too.
    pub fn record_in(&self, events: Events) {
        let _ = self.0.events.set(events);
    }

    fn record(&self, severity: Severity, text: impl Into<String>) {
        if let Some(events) = self.0.events.get() {
            events.record(EventKind::Disk, severity, text);
        }
    }

    /// Deletes the reserve file, because a write of the node's own found the disk full; returns false if it does not
    /// exist.
    pub(crate) fn give_reserve(&self) -> bool {
        let Some(watched) = self.0.watched.get() else { return false };
        let _looking = watched.looking.lock();
        if !self.0.reserve.swap(false, Ordering::Relaxed) {
            return false;
        }
        log::error!("{} has no space left: the reserve file is released", watched.dir.display());
        self.record(Severity::Error, "the disk has no space left: the reserve file is released");
        self.0.state.store(SpaceState::Full as u8, Ordering::Relaxed);
        watched.backend.unlink(&watched.reserve_path()).is_ok()
    }

    /// Asks the system for the free space. May block on a disk that hangs.
    pub(crate) fn look(&self) {
        let Some(watched) = self.0.watched.get() else { return };
        let _looking = watched.looking.lock();
        if let Err(error) = self.look_at(watched) {
            // Until the system answers again, the known free space only shrinks, so no append is promised space that
            // does not exist.
            if !self.0.blind.swap(true, Ordering::Relaxed) {
                log::warn!("the free space of {} is not known: {error}", watched.dir.display());
            }
        }
    }

    fn look_at(&self, watched: &Watched) -> io::Result<()> {
        let mut free = self.measure(watched)?;
        let wanted_for_reserve = watched.reserve_bytes + accepting_again_bytes(watched.hard_bytes);
        if watched.reserve_bytes > 0 && !self.0.reserve.load(Ordering::Relaxed) && free >= wanted_for_reserve {
            self.make_reserve(watched);
            free = self.measure(watched)?;
        }
        self.0.blind.store(false, Ordering::Relaxed);
        let (before, hard, slack) = (self.state(), watched.hard_bytes, watched.slack_bytes());
        let wanted = self.0.wanted.swap(false, Ordering::Relaxed);
        let full = free < hard
            || (wanted && free < hard + slack)
            || (before == SpaceState::Full && free < accepting_again_bytes(hard));
        let now = match (full, free < watched.soft_bytes) {
            (true, _) => SpaceState::Full,
            (false, true) => SpaceState::Low,
            (false, false) => SpaceState::Enough,
        };
        self.0.state.store(now as u8, Ordering::Relaxed);
        let (dir, total, soft) = (watched.dir.display(), watched.total_bytes, watched.soft_bytes);
        match (before, now) {
            (SpaceState::Full, SpaceState::Full) => {}
            (_, SpaceState::Full) => self.record(Severity::Error, format!("the disk is full: {free} bytes are free")),
            (SpaceState::Enough, SpaceState::Low) => {
                self.record(Severity::Warning, format!("the disk fills: {free} bytes are free"));
            }
            (SpaceState::Full, _) => self.record(Severity::Info, "the disk has room: appends are accepted"),
            (SpaceState::Low, SpaceState::Enough) => self.record(Severity::Info, "the disk has enough room again"),
            (SpaceState::Low, SpaceState::Low) | (SpaceState::Enough, SpaceState::Enough) => {}
        }
        match (before, now) {
            (SpaceState::Enough | SpaceState::Low, SpaceState::Full) => log::error!(
                "the disk of {dir} is full: {free} of {total} bytes are free, the hard limit is {hard}. Appends are refused \
                 until {} are free; trim a log, or free space",
                accepting_again_bytes(hard)
            ),
            (SpaceState::Enough, SpaceState::Low) => log::warn!(
                "the disk of {dir} fills: {free} of {total} bytes are free, the soft limit is {soft}. Below {hard} appends \
                 are refused"
            ),
            (SpaceState::Full, SpaceState::Low | SpaceState::Enough) => {
                log::warn!("the disk of {dir} has {free} bytes free again: appends are accepted");
            }
            (SpaceState::Low, SpaceState::Enough) => log::info!("the disk of {dir} has {free} bytes free again"),
            (SpaceState::Enough, SpaceState::Enough)
            | (SpaceState::Low, SpaceState::Low)
            | (SpaceState::Full, SpaceState::Full) => {}
        }
        Ok(())
    }

    /// Asks the system for the free space. Bytes taken from now on are subtracted.
    fn measure(&self, watched: &Watched) -> io::Result<u64> {
        // In this order, bytes taken between the two steps are subtracted twice instead of not at all.
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
                // Without the reserve, only the hard limit keeps some space free. This is retried when the system is
                // asked next.
                log::debug!("{} can't be created: {error}", path.display());
                let _ = watched.backend.unlink(&path);
            }
        }
    }
}

/// The thread `space`: it asks the system once a second, and may block on the disk. It ends when this is dropped.
pub struct SpaceWatch {
    stop: Option<Sender<()>>,
    thread: Option<Joiner>,
}

impl SpaceWatch {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system can't create a thread.
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
