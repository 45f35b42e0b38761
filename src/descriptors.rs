//! File descriptors that are reserved for files that a node must open.
//!
//! Only the system's limit bounds the number of connections. A host that opens enough of them, even without a
//! certificate, uses up all descriptors. A log then can't start a segment or replace its manifest, and the process
//! exits. So the soft limit of the process stays below its hard limit. If no descriptor is left for a required file,
//! the soft limit is raised while the file is opened. Connections never get descriptors above the soft limit, so
//! these stay reserved after the file is closed.

use std::io;
use std::sync::OnceLock;

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number of reserved descriptors, but at most a quarter of the hard limit. Starting a segment uses four at a
/// time, and each log keeps one open.
const KEPT_MAX: u64 = 64;

/// Global, because the limit applies to the process.
static KEPT: OnceLock<Descriptors> = OnceLock::new();

/// The two limits between which this process switches.
struct Descriptors {
    /// The limit for connections.
    below: Rlimit,
    /// The limit while a required file is opened.
    with_kept: Rlimit,
    raised: Mutex<()>,
}

/// Reserves descriptors for [`open_needed`]. Lowers the soft limit if the hard limit is too close to it.
///
/// # Errors
/// If the system rejects the limit.
pub fn keep() -> io::Result<()> {
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(u64::MAX);
    let soft = now.current.unwrap_or(u64::MAX).min(hard);
    let kept = KEPT_MAX.min(hard / 4);
    let soft = soft.min(hard - kept);
    let limit = |soft| Rlimit { current: Some(soft), maximum: now.maximum };
    let descriptors = Descriptors { below: limit(soft), with_kept: limit(soft + kept), raised: Mutex::default() };
    setrlimit(Resource::Nofile, descriptors.below)?;
    let _ = KEPT.set(descriptors);
    Ok(())
}

/// Opens a file that the node requires, with a reserved descriptor if no other is left.
///
/// # Errors
/// As `open`.
pub fn open_needed<T>(open: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match (open(), KEPT.get()) {
        (Err(error), Some(kept)) if Errno::from_io_error(&error) == Some(Errno::MFILE) => kept.with(open),
        (other, _) => other,
    }
}

impl Descriptors {
    /// Opens a file while the limit is raised.
    fn with<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let _raised = self.raised.lock();
        setrlimit(Resource::Nofile, self.with_kept)?;
        let opened = open();
        setrlimit(Resource::Nofile, self.below)?;
        opened
    }
}
