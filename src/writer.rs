//! The `log-writer` thread: it puts on the disk what `consensus` has appended, and reports it.
//!
//! Its inbox is a map of group → highest Ready number, so it can't fill and `consensus` never waits for the disk. One drain
//! takes everything that is there; while it syncs, the next one gathers: group commit without a timer. A failed sync is
//! final (P7): the thread ends with its error, and nothing is reported after it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::storage::disk::Disk;
use crate::storage::error::StorageError;
use crate::storage::log::GroupLog;
use crate::thread::{self, FatalSender, Joiner};
use crate::types::GroupId;

/// After so long without work the logs get their `synced` marks.
const QUIET: Duration = Duration::from_secs(1);

/// Who is told what is on the disk: the group and the highest Ready number. Must not block.
pub type Report = Arc<dyn Fn(GroupId, u64) + Send + Sync>;

type SharedLog = Arc<Mutex<GroupLog>>;

/// The thread. Dropped, it does what [`Writer::stop`] does.
pub struct Writer {
    handle: WriterHandle,
    thread: Option<Joiner>,
}

/// The thread's inbox; a clone is the same one.
#[derive(Clone)]
pub struct WriterHandle(Arc<Inbox>);

struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
    busy_since: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct State {
    logs: BTreeMap<GroupId, SharedLog>,
    /// What is wanted on the disk: merged, so one place for each group is enough.
    wanted: BTreeMap<GroupId, u64>,
    stopping: bool,
}

enum Event {
    Sync(BTreeMap<GroupId, u64>),
    Quiet,
    Stop,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system can't make one.
    pub fn start(disk: &Disk, report: Report, fatal: &FatalSender) -> io::Result<Writer> {
        let inbox = Inbox { state: Mutex::new(State::default()), wake: Condvar::new(), busy_since: Mutex::new(None) };
        let handle = WriterHandle(Arc::new(inbox));
        let worker = Worker { inbox: handle.0.clone(), disk: disk.clone(), report };
        let thread = thread::spawn("log-writer", fatal, move || worker.run())?;
        Ok(Writer { handle, thread: Some(thread) })
    }

    /// For who has something to sync.
    pub fn handle(&self) -> WriterHandle {
        self.handle.clone()
    }

    /// Syncs what is wanted, reports it, leaves each log its clean mark, and ends. What is appended after that is lost.
    pub fn stop(self) {}
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.handle.0.state().stopping = true;
        self.handle.0.wake.notify_one();
        self.thread.take();
    }
}

impl WriterHandle {
    /// Makes a log known.
    pub fn register(&self, group: GroupId, log: Arc<Mutex<GroupLog>>) {
        self.0.state().logs.insert(group, log);
    }

    /// Wants on the disk what the log holds now; then this Ready number is reported, or a higher one. Never blocks.
    ///
    /// # Panics
    /// If the log was never registered: its writes would never be reported.
    pub fn sync(&self, group: GroupId, ready_number: u64) {
        let mut state = self.0.state();
        assert!(state.logs.contains_key(&group), "group {group} has no log here");
        let wanted = state.wanted.entry(group).or_default();
        *wanted = ready_number.max(*wanted);
        drop(state);
        self.0.wake.notify_one();
    }

    /// Since when the thread has been at one log without an end; the watchdog looks.
    pub fn busy_since(&self) -> Option<Instant> {
        *self.0.busy_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_busy(&self, since: Option<Instant>) {
        *self.busy_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

struct Worker {
    inbox: Arc<Inbox>,
    disk: Disk,
    report: Report,
}

impl Worker {
    fn run(self) -> Result<(), StorageError> {
        // Marks are looked for once after each busy time, not every second for ever.
        let mut marks_due = true;
        loop {
            let event = self.next_event(marks_due);
            match event {
                Event::Sync(wanted) => {
                    for (group, ready_number) in wanted {
                        self.sync(group)?;
                        (self.report)(group, ready_number);
                    }
                    marks_due = true;
                }
                Event::Quiet => marks_due = !self.note_floors()?,
                Event::Stop => return self.close(),
            }
        }
    }

    fn next_event(&self, marks_due: bool) -> Event {
        let mut state = self.inbox.state();
        let quiet_at = Instant::now() + QUIET;
        loop {
            if !state.wanted.is_empty() {
                return Event::Sync(std::mem::take(&mut state.wanted));
            }
            if state.stopping {
                return Event::Stop;
            }
            if !marks_due {
                state = self.inbox.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let left = quiet_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Event::Quiet;
            }
            state = self.inbox.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn sync(&self, group: GroupId) -> Result<(), StorageError> {
        let Some(log) = self.inbox.state().logs.get(&group).cloned() else { return Ok(()) };
        let Some(job) = lock(&log).begin_sync() else { return Ok(()) };
        self.inbox.set_busy(Some(Instant::now()));
        job.perform(&self.disk)?;
        self.inbox.set_busy(None);
        lock(&log).end_sync(job);
        Ok(())
    }

    /// Leaves every log its mark, on the disk. `false`: something was written meanwhile, so look again.
    fn note_floors(&self) -> Result<bool, StorageError> {
        let logs = self.inbox.state().logs.clone();
        let mut all = true;
        for (group, log) in logs {
            // Nobody wants the commit index that is written behind the last entries on the disk; the mark does.
            self.sync(group)?;
            let noted = lock(&log).append_synced_mark()?;
            if noted {
                self.sync(group)?;
            }
            all &= lock(&log).is_synced();
        }
        Ok(all)
    }

    fn close(&self) -> Result<(), StorageError> {
        let logs = std::mem::take(&mut self.inbox.state().logs);
        let mut result = Ok(());
        for log in logs.into_values() {
            self.inbox.set_busy(Some(Instant::now()));
            // The first error is told, but every log is closed that can be.
            result = result.and(lock(&log).close());
            self.inbox.set_busy(None);
        }
        result
    }
}

/// The log-writer without its thread, for simulations: a drain begins and ends when they say so.
#[cfg(test)]
pub(crate) struct ByHand {
    worker: Worker,
    begun: Vec<(GroupId, u64, Option<crate::storage::log::SyncJob>)>,
}

#[cfg(test)]
impl ByHand {
    pub fn new(disk: &Disk, report: Report) -> ByHand {
        let inbox = Inbox { state: Mutex::new(State::default()), wake: Condvar::new(), busy_since: Mutex::new(None) };
        ByHand { worker: Worker { inbox: Arc::new(inbox), disk: disk.clone(), report }, begun: Vec::new() }
    }

    pub fn handle(&self) -> WriterHandle {
        WriterHandle(self.worker.inbox.clone())
    }

    /// Takes what is wanted on the disk, if nothing is under way.
    pub fn begin(&mut self) {
        if self.begun.is_empty() {
            let wanted = std::mem::take(&mut self.worker.inbox.state().wanted);
            for (group, ready) in wanted {
                let log = self.worker.inbox.state().logs[&group].clone();
                self.begun.push((group, ready, lock(&log).begin_sync()));
            }
        }
    }

    /// Puts it there, and reports it.
    pub fn end(&mut self) -> Result<(), StorageError> {
        for (group, ready, job) in std::mem::take(&mut self.begun) {
            if let Some(job) = job {
                let log = self.worker.inbox.state().logs[&group].clone();
                job.perform(&self.worker.disk)?;
                lock(&log).end_sync(job);
            }
            (self.worker.report)(group, ready);
        }
        Ok(())
    }

    /// What a second of quiet does, or a stop.
    pub fn quiet(&mut self, stop: bool) -> Result<(), StorageError> {
        self.begin();
        self.end()?;
        if stop { self.worker.close() } else { self.worker.note_floors().map(drop) }
    }
}

/// A log whose owner panicked is written no more but may be synced: what it had finished before is whole.
fn lock(log: &SharedLog) -> MutexGuard<'_, GroupLog> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
