//! The `log-writer` thread: it syncs what `consensus` has appended, and reports it.
//!
//! Its inbox is a map from group to highest Ready number. The map can't fill up, so `consensus` never waits for the
//! disk. One drain takes everything in the inbox; requests that arrive during its syncs form the next drain. This is
//! group commit without a timer. A failed sync is final: the thread ends with its error and reports nothing more.
//!
//! The thread also writes the durable position to each log's manifest, when no sync is waiting or when the manifest is
//! overdue (`storage/write/sync.rs` explains why). It does so only after it has reported the drain.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::metrics::{Histogram, ITEMS, Registry, SECONDS};
use crate::storage::disk::Disk;
use crate::storage::error::StorageError;
use crate::storage::log::{GroupLog, NOTE_EVERY, QUIET, Urgency};
use crate::thread::{self, FatalSender, Joiner};
use crate::types::GroupId;

/// Under load, writing durable positions to manifests takes at most one part in this many of the thread's time.
const MANIFEST_PART: u32 = 5;

/// After a term or a vote, the manifest is written after this many times the duration of the sync, or twice that if
/// syncs keep waiting. Writing a manifest takes two syncs: on a slow disk they would delay the next vote, or the new
/// leader's first entry.
pub const VOTE_PAUSE: u32 = 3;

/// Called with a group and its highest durable Ready number. Must not block.
pub type Report = Arc<dyn Fn(GroupId, u64) + Send + Sync>;

/// The metrics of the thread.
pub struct WriterMetrics {
    sync_seconds: Histogram,
    sync_entries: Histogram,
}

impl WriterMetrics {
    /// Registers the metrics.
    pub fn new(registry: &Registry) -> WriterMetrics {
        WriterMetrics {
            sync_seconds: registry.histogram("sync_seconds", "Syncing what was appended to one log", SECONDS),
            sync_entries: registry.histogram(
                "sync_entries",
                "Entries that one sync made durable (group commit)",
                ITEMS,
            ),
        }
    }
}

type SharedLog = Arc<Mutex<GroupLog>>;

/// The thread. Dropping it does the same as [`Writer::stop`].
pub struct Writer {
    handle: WriterHandle,
    thread: Option<Joiner>,
}

/// The thread's inbox. Clones share it.
#[derive(Clone)]
pub struct WriterHandle(Arc<WriterInbox>);

struct WriterInbox {
    state: Mutex<WriterState>,
    wake: Condvar,
    busy_since: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct WriterState {
    logs: BTreeMap<GroupId, SharedLog>,
    /// Registered logs that the thread has not seen yet.
    registered: Vec<GroupId>,
    /// The Ready number to report for each group. A newer request of a group replaces its older one.
    wanted: BTreeMap<GroupId, u64>,
    stopping: bool,
}

enum WriterEvent {
    Sync(BTreeMap<GroupId, u64>),
    /// A manifest is overdue while syncs wait.
    ManifestOverdue(GroupId),
    /// A manifest is due, and no sync waits.
    ManifestDue(GroupId),
    Stop,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system can't create it.
    pub fn start(disk: &Disk, report: Report, metrics: WriterMetrics, fatal: &FatalSender) -> io::Result<Writer> {
        let inbox = WriterInbox {
            state: Mutex::new(WriterState::default()),
            wake: Condvar::new(),
            busy_since: Mutex::new(None),
        };
        let handle = WriterHandle(Arc::new(inbox));
        let worker = Worker { inbox: handle.0.clone(), disk: disk.clone(), report, metrics };
        let thread = thread::spawn("log-writer", fatal, move || worker.run())?;
        Ok(Writer { handle, thread: Some(thread) })
    }

    /// Returns the inbox, for threads that request syncs.
    pub fn handle(&self) -> WriterHandle {
        self.handle.clone()
    }

    /// Syncs and reports what was requested, closes each log, and ends the thread. Later appends may be lost.
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
    /// Registers a log.
    pub fn register(&self, group: GroupId, log: Arc<Mutex<GroupLog>>) {
        let mut state = self.0.state();
        state.logs.insert(group, log);
        state.registered.push(group);
        drop(state);
        self.0.wake.notify_one();
    }

    /// Requests a sync of the log's present content. The thread then reports this Ready number or a higher one. Never
    /// blocks.
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

    /// Returns since when the thread has been working on one log, for the watchdog.
    pub fn busy_since(&self) -> Option<Instant> {
        *self.0.busy_since.lock()
    }
}

impl WriterInbox {
    fn state(&self) -> MutexGuard<'_, WriterState> {
        self.state.lock()
    }

    fn set_busy(&self, since: Option<Instant>) {
        *self.busy_since.lock() = since;
    }
}

struct Worker {
    inbox: Arc<WriterInbox>,
    disk: Disk,
    report: Report,
    metrics: WriterMetrics,
}

/// The manifests that must be written with a new durable position, and when.
#[derive(Default)]
struct ManifestWrites {
    due: BTreeMap<GroupId, ManifestWrite>,
    /// Under load no manifest is written before this time, so that manifests take at most a fifth of the thread's
    /// time, for any number of logs.
    not_before: Option<Instant>,
}

struct ManifestWrite {
    /// The first sync since the manifest was written.
    first: Instant,
    /// The last sync of the log, and how long it took.
    last: Instant,
    took: Duration,
    urgency: Urgency,
}

impl ManifestWrite {
    /// Returns when the manifest is written if no sync waits.
    fn idle_at(&self) -> Instant {
        match self.urgency {
            Urgency::Nothing | Urgency::Quiet => self.last + QUIET,
            Urgency::Vote => self.last + self.took * VOTE_PAUSE,
            Urgency::Now => self.first,
        }
    }

    /// Returns when the manifest is written even if a sync waits.
    fn must_at(&self) -> Instant {
        match self.urgency {
            Urgency::Nothing | Urgency::Quiet => self.first + NOTE_EVERY,
            Urgency::Vote => self.first + QUIET.max(self.took * (2 * VOTE_PAUSE)),
            Urgency::Now => self.first,
        }
    }
}

impl ManifestWrites {
    /// Records that a log was synced, which took `took`, or that it was registered.
    fn synced(&mut self, group: GroupId, urgency: Urgency, now: Instant, took: Duration) {
        let write = self.due.entry(group).or_insert(ManifestWrite { first: now, last: now, took, urgency });
        (write.last, write.took, write.urgency) = (now, took, urgency);
    }

    /// Returns the log whose manifest is overdue, if any.
    fn overdue(&self, now: Instant) -> Option<GroupId> {
        if self.not_before.is_some_and(|then| now < then) {
            return None;
        }
        let first = self.due.iter().min_by_key(|(_, write)| write.must_at())?;
        (first.1.must_at() <= now).then_some(*first.0)
    }

    /// Returns the log whose manifest is due first if no sync waits, and when it is due.
    fn next(&self) -> Option<(GroupId, Instant)> {
        let idle_at = |write: &ManifestWrite| write.idle_at().min(write.must_at());
        self.due.iter().map(|(group, write)| (*group, idle_at(write))).min_by_key(|(_, at)| *at)
    }
}

impl Worker {
    fn run(self) -> Result<(), StorageError> {
        let mut manifests = ManifestWrites::default();
        loop {
            match self.next_event(&mut manifests) {
                WriterEvent::Stop => return self.close(),
                event => self.act(event, &mut manifests)?,
            }
        }
    }

    fn act(&self, event: WriterEvent, manifests: &mut ManifestWrites) -> Result<(), StorageError> {
        match event {
            WriterEvent::Sync(wanted) => {
                for (group, ready_number) in wanted {
                    let began = Instant::now();
                    let urgency = self.sync(group)?;
                    let took = began.elapsed();
                    (self.report)(group, ready_number);
                    manifests.synced(group, urgency, Instant::now(), took);
                }
            }
            WriterEvent::ManifestOverdue(group) => {
                let began = Instant::now();
                let written = self.write_manifest(group)?;
                manifests.not_before = Some(began + began.elapsed() * MANIFEST_PART);
                manifests.due.remove(&group);
                if !written {
                    manifests.synced(group, Urgency::Quiet, Instant::now(), Duration::ZERO);
                }
            }
            WriterEvent::ManifestDue(group) => {
                manifests.due.remove(&group);
                if !self.sync_and_write_manifest(group)? {
                    manifests.synced(group, Urgency::Quiet, Instant::now(), Duration::ZERO);
                }
            }
            WriterEvent::Stop => return self.close(),
        }
        Ok(())
    }

    fn next_event(&self, manifests: &mut ManifestWrites) -> WriterEvent {
        let mut state = self.inbox.state();
        loop {
            let now = Instant::now();
            for group in std::mem::take(&mut state.registered) {
                manifests.synced(group, Urgency::Quiet, now, Duration::ZERO);
            }
            if !state.wanted.is_empty() {
                // At most one manifest is written between two drains.
                return match manifests.overdue(now) {
                    Some(group) => WriterEvent::ManifestOverdue(group),
                    None => WriterEvent::Sync(std::mem::take(&mut state.wanted)),
                };
            }
            if state.stopping {
                return WriterEvent::Stop;
            }
            let Some((group, at)) = manifests.next() else {
                self.inbox.wake.wait(&mut state);
                continue;
            };
            if at <= now {
                return WriterEvent::ManifestDue(group);
            }
            self.inbox.wake.wait_for(&mut state, at - now);
        }
    }

    /// Syncs a log. Returns how soon its manifest should contain the new durable position.
    fn sync(&self, group: GroupId) -> Result<Urgency, StorageError> {
        let Some(log) = self.inbox.state().logs.get(&group).cloned() else { return Ok(Urgency::Nothing) };
        let job = lock(&log).begin_sync();
        let Some(job) = job else { return Ok(lock(&log).urgency()) };
        let began = Instant::now();
        self.inbox.set_busy(Some(began));
        job.perform(&self.disk)?;
        self.inbox.set_busy(None);
        self.metrics.sync_seconds.observe(began.elapsed().as_secs_f64());
        self.metrics.sync_entries.observe(job.entries() as f64);
        let mut log = lock(&log);
        log.end_sync(job);
        Ok(log.urgency())
    }

    /// Writes the current durable position to a log's manifest; `false` if no space is left for that.
    fn write_manifest(&self, group: GroupId) -> Result<bool, StorageError> {
        let Some(log) = self.inbox.state().logs.get(&group).cloned() else { return Ok(true) };
        let Some(job) = lock(&log).begin_note() else { return Ok(true) };
        self.inbox.set_busy(Some(Instant::now()));
        let written = job.perform_note(&self.disk)?;
        self.inbox.set_busy(None);
        if written {
            lock(&log).end_sync(job);
        }
        Ok(written)
    }

    /// Called when a log is idle: syncs all of it and writes the durable position to its manifest. `false` if
    /// something was written in the meantime, or no space was left: the caller retries later.
    fn sync_and_write_manifest(&self, group: GroupId) -> Result<bool, StorageError> {
        // The commit index is written after the last entries, and no request asks to sync it. The durable position
        // should cover it.
        self.sync(group)?;
        self.write_manifest(group)?;
        let Some(log) = self.inbox.state().logs.get(&group).cloned() else { return Ok(true) };
        let log = lock(&log);
        Ok(log.is_synced() && log.urgency() == Urgency::Nothing)
    }

    fn close(&self) -> Result<(), StorageError> {
        let logs = std::mem::take(&mut self.inbox.state().logs);
        let mut result = Ok(());
        for log in logs.into_values() {
            self.inbox.set_busy(Some(Instant::now()));
            // The first error is returned, after an attempt to close every log.
            result = result.and(lock(&log).close());
            self.inbox.set_busy(None);
        }
        result
    }
}

/// The log-writer without its thread. A simulation begins and ends each drain.
#[cfg(test)]
pub(crate) struct WriterByHand {
    worker: Worker,
    begun: Vec<(GroupId, u64, Option<crate::storage::log::SyncJob>)>,
}

#[cfg(test)]
impl WriterByHand {
    pub fn new(disk: &Disk, report: Report) -> WriterByHand {
        let inbox = WriterInbox {
            state: Mutex::new(WriterState::default()),
            wake: Condvar::new(),
            busy_since: Mutex::new(None),
        };
        let metrics = WriterMetrics::new(&Registry::default());
        let worker = Worker { inbox: Arc::new(inbox), disk: disk.clone(), report, metrics };
        WriterByHand { worker, begun: Vec::new() }
    }

    /// Returns the inbox, for threads that request syncs.
    pub fn handle(&self) -> WriterHandle {
        WriterHandle(self.worker.inbox.clone())
    }

    /// Begins a drain of all requests, unless one is in progress.
    pub fn begin(&mut self) {
        if self.begun.is_empty() {
            let wanted = std::mem::take(&mut self.worker.inbox.state().wanted);
            for (group, ready) in wanted {
                let log = self.worker.inbox.state().logs[&group].clone();
                self.begun.push((group, ready, lock(&log).begin_sync()));
            }
        }
    }

    /// Performs the syncs of the drain, and reports it.
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

    /// Does what the thread does after a second without requests, or at a stop.
    pub fn quiet(&mut self, stop: bool) -> Result<(), StorageError> {
        self.begin();
        self.end()?;
        if stop {
            return self.worker.close();
        }
        let groups: Vec<GroupId> = self.worker.inbox.state().logs.keys().copied().collect();
        groups.into_iter().try_for_each(|group| self.worker.sync_and_write_manifest(group).map(drop))
    }
}

fn lock(log: &SharedLog) -> MutexGuard<'_, GroupLog> {
    log.lock()
}

#[cfg(test)]
mod tests;
