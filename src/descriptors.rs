//! Descriptors that are kept for the files that a node must open.
//!
//! Nothing but the system's limit bounds connections: whoever opens enough of them, with or without a certificate, leaves no
//! descriptor, and a log that can't roll, or replace its manifest, ends the process. So the process's soft limit stays below
//! its hard one. What must be opened and finds no descriptor is opened while the soft limit is raised, for as long as that
//! takes; the numbers above the limit that it gets are nobody else's, and stay kept when it is closed.

use std::io;
use std::sync::OnceLock;

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many are kept, or a quarter of few. A roll takes four at a time, and one stays open for each log.
const KEPT_MAX: u64 = 64;

/// The limit is one of the process, so there is one of these.
static KEPT: OnceLock<Descriptors> = OnceLock::new();

/// The kept ones of this process.
struct Descriptors {
    /// What everybody has.
    below: Rlimit,
    /// What is had for a moment.
    with_kept: Rlimit,
    raised: Mutex<()>,
}

/// From now on some descriptors are kept for [`open_needed`]. Lowers the soft limit, where the hard one is not far enough above it.
///
/// # Errors
/// When the system refuses the limit.
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

/// Opens what the node must open, with a kept descriptor if there is no other.
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
    /// Opens something with the limit raised.
    fn with<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let _raised = self.raised.lock();
        setrlimit(Resource::Nofile, self.with_kept)?;
        let opened = open();
        setrlimit(Resource::Nofile, self.below)?;
        opened
    }
}
