//! File descriptors that are reserved for files that a node must open.
//!
//! Only the system's limit bounds the number of connections. A host that opens enough of them, even without a
//! certificate, uses up all descriptors. A log then can't start a segment or replace its manifest, and the process
//! exits. So the soft limit of the process stays below its hard limit. If no descriptor is left for a required file,
//! the soft limit is raised while the file is opened. Connections never get descriptors above the soft limit, so
//! these stay reserved after the file is closed.
//!
//! Each log keeps one file open. So the soft limit is also raised by one for each log, up to the hard limit: logs do
//! not use up the descriptors of connections.

use std::io;
use std::sync::OnceLock;

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number of reserved descriptors, but at most a quarter of the hard limit. Starting a segment uses four at a time.
const KEPT_MAX: u64 = 64;

/// Global, because the limit applies to the process.
static KEPT: OnceLock<Descriptors> = OnceLock::new();

/// The limits between which this process switches.
struct Descriptors {
    limits: Limits,
    /// The number of logs with an open file.
    logs: Mutex<u64>,
}

#[derive(Clone, Copy)]
struct Limits {
    /// The limit for connections, without logs.
    soft: u64,
    hard: Option<u64>,
    /// The number of reserved descriptors.
    kept: u64,
}

impl Limits {
    fn of(soft: Option<u64>, hard: Option<u64>) -> Limits {
        let most = hard.unwrap_or(u64::MAX);
        let kept = KEPT_MAX.min(most / 4);
        Limits { soft: soft.unwrap_or(u64::MAX).min(most - kept), hard, kept }
    }

    /// The limit for connections, beside this many logs.
    fn below(self, logs: u64) -> u64 {
        self.soft.saturating_add(logs).min(self.hard.unwrap_or(u64::MAX) - self.kept)
    }

    fn apply(self, soft: u64) -> io::Result<()> {
        Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum: self.hard })?)
    }
}

/// Reserves descriptors for [`open_needed`]. Lowers the soft limit if the hard limit is too close to it.
///
/// # Errors
/// If the system rejects the limit.
pub fn keep() -> io::Result<()> {
    let now = getrlimit(Resource::Nofile);
    let limits = Limits::of(now.current, now.maximum);
    limits.apply(limits.below(0))?;
    let _ = KEPT.set(Descriptors { limits, logs: Mutex::default() });
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
        let logs = self.logs.lock();
        let below = self.limits.below(*logs);
        self.limits.apply(below + self.limits.kept)?;
        let opened = open();
        self.limits.apply(below)?;
        opened
    }

    /// Changes the number of logs. If the system rejects the limit, the logs share the reserved descriptors.
    fn count(&self, change: impl Fn(u64) -> u64) {
        let mut logs = self.logs.lock();
        *logs = change(*logs);
        if let Err(error) = self.limits.apply(self.limits.below(*logs)) {
            log::warn!("the limit of open files is not raised for {logs} logs: {error}");
        }
    }
}

/// The descriptor of a log's newest segment. While this exists, the soft limit is higher by one.
pub struct LogDescriptor(Option<&'static Descriptors>);

impl LogDescriptor {
    /// Raises the limit, if descriptors are reserved in this process.
    pub fn take() -> LogDescriptor {
        let kept = KEPT.get();
        if let Some(kept) = kept {
            kept.count(|logs| logs + 1);
        }
        LogDescriptor(kept)
    }
}

impl Drop for LogDescriptor {
    fn drop(&mut self) {
        if let Some(kept) = self.0 {
            kept.count(|logs| logs.saturating_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_take_no_descriptors_from_connections_up_to_the_hard_limit() {
        let below = |soft, hard, logs| Limits::of(soft, hard).below(logs);
        assert_eq!([0, 1, 1000].map(|logs| below(Some(1024), Some(4096), logs)), [1024, 1025, 2024]);
        assert_eq!([0, 5].map(|logs| below(Some(1024), Some(1024), logs)), [960, 960]);
        assert_eq!(below(Some(1024), Some(2000), 2000), 1936, "64 stay reserved");
        assert_eq!(below(Some(20), Some(20), 3), 15, "a quarter of a low limit");
        assert_eq!([0, 9].map(|logs| below(Some(1024), None, logs)), [1024, 1033]);
        assert_eq!(below(None, None, 9), u64::MAX - 64);
    }
}
