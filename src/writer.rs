//! The `log-writer` threads: they sync what `consensus` has appended, and report it.
//!
//! Each group belongs to one of the threads, by its id, so the syncs of one log never overlap, and those of many logs
//! share the disk's work. A thread's inbox is a map from group to highest Ready number. The map can't fill up, so
//! `consensus` never waits for the disk. One drain takes everything in the inbox; requests that arrive during its syncs
//! form the thread's next drain. This is group commit without a timer. A failed sync is final for the process: its
//! thread ends with the error, and from then on the others begin no sync and report nothing.
//!
//! The threads also write the durable position to each log's manifest, when no sync is waiting or when the manifest is
//! overdue (`storage/write/sync.rs` explains why). They do so only after they have reported the drain. The last thread
//! also deletes the directories of dropped replicas, file by file, when nothing else is due.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use self::manifests::ManifestWrites;
use crate::storage::disk::Disk;
use crate::storage::error::StorageError;
use crate::storage::log::{GroupLog, NOTE_EVERY, Removal, Urgency};
use crate::thread::{self, FatalSender, Joiner};
use crate::types::GroupId;

#[cfg(test)]
mod by_hand;
mod manifests;
mod report;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use self::by_hand::WriterByHand;
#[cfg(test)]
pub use self::manifests::VOTE_PAUSE;
pub use self::report::{Report, WriterMetrics};

/// The number of threads. To sync a hundred files with small writes took 368 ms with one thread, 28 ms with two, 8 ms
/// with four, and no less with more.
pub const WRITER_THREADS: usize = 4;

/// Under load, writing durable positions to manifests takes at most one part in this many of a thread's time, and so
/// does deleting files.
const IDLE_WORK_PART: u32 = 5;

type SharedLog = Arc<Mutex<GroupLog>>;

/// The threads. Dropping it does the same as [`Writer::stop`].
pub struct Writer {
    handle: WriterHandle,
    threads: Vec<Joiner>,
}

/// The inboxes of the threads. Clones share them.
#[derive(Clone)]
pub struct WriterHandle(Arc<[WriterInbox]>);

#[derive(Default)]
struct WriterInbox {
    state: Mutex<WriterState>,
    wake: Condvar,
    /// Notified when the thread has finished its work on a log, and when it ends.
    finished: Condvar,
    busy_since: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct WriterState {
    logs: BTreeMap<GroupId, SharedLog>,
    /// Registered logs that the thread has not seen yet.
    registered: Vec<GroupId>,
    /// The Ready number to report for each group. A newer request of a group replaces its older one.
    wanted: BTreeMap<GroupId, u64>,
    /// Directories to delete that the thread has not seen yet.
    removals: Vec<PathBuf>,
    /// The group whose files the thread is using.
    using: Option<GroupId>,
    stopping: bool,
    /// True once any of the threads has failed.
    failed: bool,
    ended: bool,
}

/// A request to sync a log. It contains the log itself, because the group may have another replica by the time of the
/// sync.
struct Wanted {
    group: GroupId,
    log: SharedLog,
    ready_number: u64,
}

enum WriterEvent {
    Sync(Vec<Wanted>),
    /// A manifest is overdue while syncs wait.
    ManifestOverdue(GroupId),
    /// A manifest is due, and no sync waits.
    ManifestDue(GroupId),
    /// A file of a dropped replica can be deleted.
    Remove,
    Stop,
    /// Another thread has failed.
    Failed,
}

/// Returns the name of a thread.
pub fn thread_name(thread: usize) -> String {
    format!("log-writer-{thread}")
}

impl Writer {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system can't create one.
    pub fn start(disk: &Disk, report: Report, metrics: WriterMetrics, fatal: &FatalSender) -> io::Result<Writer> {
        let handle = WriterHandle::new(WRITER_THREADS);
        let mut writer = Writer { handle: handle.clone(), threads: Vec::new() };
        for thread in 0..WRITER_THREADS {
            let (report, metrics) = (report.clone(), metrics.clone());
            let worker = Worker { inboxes: handle.clone(), thread, disk: disk.clone(), report, metrics };
            writer.threads.push(thread::spawn(&thread_name(thread), fatal, move || worker.run())?);
        }
        Ok(writer)
    }

    /// Returns the inboxes, for threads that request syncs.
    pub fn handle(&self) -> WriterHandle {
        self.handle.clone()
    }

    /// Syncs and reports what was requested, closes each log, and ends the threads. Later appends may be lost.
    pub fn stop(self) {}
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.handle.set_each(|state| state.stopping = true);
        self.threads.clear();
    }
}

impl WriterHandle {
    fn new(threads: usize) -> WriterHandle {
        WriterHandle((0..threads).map(|_| WriterInbox::default()).collect())
    }

    fn inbox(&self, group: GroupId) -> &WriterInbox {
        &self.0[(group.0 % self.0.len() as u64) as usize]
    }

    fn set_each(&self, set: impl Fn(&mut WriterState)) {
        for inbox in self.0.iter() {
            set(&mut inbox.state());
            inbox.wake.notify_one();
        }
    }

    /// Registers a log.
    pub fn register(&self, group: GroupId, log: Arc<Mutex<GroupLog>>) {
        let inbox = self.inbox(group);
        let mut state = inbox.state();
        state.logs.insert(group, log);
        state.registered.push(group);
        drop(state);
        inbox.wake.notify_one();
    }

    /// Removes a log. Waits for the sync of this log that is in progress, if any: after this, no thread uses its files,
    /// and no Ready of it is reported.
    pub fn unregister(&self, group: GroupId) {
        let inbox = self.inbox(group);
        let mut state = inbox.state();
        state.logs.remove(&group);
        state.wanted.remove(&group);
        state.registered.retain(|registered| *registered != group);
        while state.using == Some(group) && !state.ended {
            inbox.finished.wait(&mut state);
        }
    }

    /// Deletes the directory of a dropped replica, when nothing else is due. Never blocks. The next start deletes what
    /// a stop leaves of it.
    pub fn remove_directory(&self, path: PathBuf) {
        let Some(inbox) = self.0.last() else { return };
        inbox.state().removals.push(path);
        inbox.wake.notify_one();
    }

    /// Requests a sync of the log's present content. Its thread then reports this Ready number or a higher one. Never
    /// blocks.
    ///
    /// # Panics
    /// If the log is not registered: its writes would never be reported.
    pub fn sync(&self, group: GroupId, ready_number: u64) {
        let inbox = self.inbox(group);
        let mut state = inbox.state();
        assert!(state.logs.contains_key(&group), "group {group} has no log here");
        let wanted = state.wanted.entry(group).or_default();
        *wanted = ready_number.max(*wanted);
        drop(state);
        inbox.wake.notify_one();
    }

    /// Returns for each thread since when it has been waiting for the disk, for the watchdog.
    pub fn busy_since(&self) -> Vec<Option<Instant>> {
        self.0.iter().map(|inbox| *inbox.busy_since.lock()).collect()
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

impl WriterState {
    fn take_wanted(&mut self) -> Vec<Wanted> {
        let wanted = std::mem::take(&mut self.wanted).into_iter();
        wanted
            .filter_map(|(group, ready_number)| {
                Some(Wanted { group, log: self.logs.get(&group)?.clone(), ready_number })
            })
            .collect()
    }
}

/// While this exists, `unregister` of the group waits.
struct Using<'a>(&'a WriterInbox);

impl Drop for Using<'_> {
    fn drop(&mut self) {
        self.0.state().using = None;
        self.0.finished.notify_all();
    }
}

/// Tells the threads that wait for this one that it has ended, even if it panics.
struct Ended<'a>(&'a WriterInbox);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.finished.notify_all();
    }
}

struct Worker {
    inboxes: WriterHandle,
    thread: usize,
    disk: Disk,
    report: Report,
    metrics: WriterMetrics,
}

/// What a thread does when no sync waits.
#[derive(Default)]
struct IdleWork {
    manifests: ManifestWrites,
    removals: VecDeque<Removal>,
    /// Under load no file is deleted before this time.
    remove_not_before: Option<Instant>,
}

impl IdleWork {
    fn removal_overdue(&self, now: Instant) -> bool {
        !self.removals.is_empty() && self.remove_not_before.is_none_or(|then| then <= now)
    }
}

impl Worker {
    fn run(self) -> Result<(), StorageError> {
        let _ended = Ended(self.inbox());
        let mut work = IdleWork::default();
        let result = loop {
            match self.next_event(&mut work) {
                WriterEvent::Stop => break self.close(),
                WriterEvent::Failed => break Ok(()),
                event => match self.act(event, &mut work) {
                    Ok(()) => {}
                    Err(error) => break Err(error),
                },
            }
        };
        if result.is_err() {
            self.inboxes.set_each(|state| state.failed = true);
        }
        result
    }

    fn inbox(&self) -> &WriterInbox {
        &self.inboxes.0[self.thread]
    }

    /// Begins the use of a log's files; `None` if this log is not registered any more.
    fn begin(&self, group: GroupId, log: &SharedLog) -> Option<Using<'_>> {
        let mut state = self.inbox().state();
        let registered = state.logs.get(&group).is_some_and(|registered| Arc::ptr_eq(registered, log));
        registered.then(|| {
            state.using = Some(group);
            Using(self.inbox())
        })
    }

    fn act(&self, event: WriterEvent, work: &mut IdleWork) -> Result<(), StorageError> {
        match event {
            WriterEvent::Sync(wanted) => {
                let mut left = wanted.len();
                for Wanted { group, log, ready_number } in wanted {
                    left -= 1;
                    let Some(using) = self.begin(group, &log) else { continue };
                    let began = Instant::now();
                    let urgency = self.sync(&log)?;
                    let took = began.elapsed();
                    if self.inbox().state().failed {
                        return Ok(());
                    }
                    self.report.persisted(group, ready_number);
                    // The next call may run `consensus` on this thread, which may unregister a log.
                    drop(using);
                    let state = self.inbox().state();
                    let is_last = left == 0 && state.wanted.is_empty() && !state.stopping;
                    drop(state);
                    self.report.next(group, is_last);
                    work.manifests.synced(group, urgency, Instant::now(), took);
                }
            }
            WriterEvent::ManifestOverdue(group) => {
                let began = Instant::now();
                let written = self.with_log(group, |log| self.write_manifest(log))?;
                work.manifests.not_before = Some(began + began.elapsed() * IDLE_WORK_PART);
                work.manifests.due.remove(&group);
                if !written {
                    work.manifests.synced(group, Urgency::Quiet, Instant::now(), Duration::ZERO);
                }
            }
            WriterEvent::ManifestDue(group) => {
                work.manifests.due.remove(&group);
                if !self.with_log(group, |log| self.sync_and_write_manifest(log))? {
                    work.manifests.synced(group, Urgency::Quiet, Instant::now(), Duration::ZERO);
                }
            }
            WriterEvent::Remove => {
                let began = Instant::now();
                self.remove_file(&mut work.removals);
                work.remove_not_before = Some(began + began.elapsed() * IDLE_WORK_PART);
            }
            WriterEvent::Stop => return self.close(),
            WriterEvent::Failed => {}
        }
        Ok(())
    }

    fn next_event(&self, work: &mut IdleWork) -> WriterEvent {
        let mut state = self.inbox().state();
        loop {
            let now = Instant::now();
            for group in std::mem::take(&mut state.registered) {
                work.manifests.synced(group, Urgency::Quiet, now, Duration::ZERO);
            }
            for path in std::mem::take(&mut state.removals) {
                if work.removals.is_empty() {
                    work.remove_not_before = Some(now + NOTE_EVERY);
                }
                work.removals.push_back(Removal::new(path));
            }
            if state.failed {
                return WriterEvent::Failed;
            }
            if !state.wanted.is_empty() {
                // At most one manifest is written, or one file deleted, between two drains.
                return match work.manifests.overdue(now) {
                    Some(group) => WriterEvent::ManifestOverdue(group),
                    None if work.removal_overdue(now) => WriterEvent::Remove,
                    None => WriterEvent::Sync(state.take_wanted()),
                };
            }
            if state.stopping {
                return WriterEvent::Stop;
            }
            let next = work.manifests.next();
            match next {
                Some((group, at)) if at <= now => return WriterEvent::ManifestDue(group),
                _ if !work.removals.is_empty() => return WriterEvent::Remove,
                Some((_, at)) => {
                    self.inbox().wake.wait_for(&mut state, at - now);
                }
                None => self.inbox().wake.wait(&mut state),
            }
        }
    }

    /// Calls `act` with a registered log; `true` if it is not registered any more.
    fn with_log(
        &self,
        group: GroupId,
        act: impl FnOnce(&SharedLog) -> Result<bool, StorageError>,
    ) -> Result<bool, StorageError> {
        let Some(log) = self.inbox().state().logs.get(&group).cloned() else { return Ok(true) };
        let Some(_using) = self.begin(group, &log) else { return Ok(true) };
        act(&log)
    }

    /// Syncs a log. Returns how soon its manifest should contain the new durable position.
    fn sync(&self, log: &SharedLog) -> Result<Urgency, StorageError> {
        let job = log.lock().begin_sync();
        let Some(job) = job else { return Ok(log.lock().urgency()) };
        let began = Instant::now();
        self.inbox().set_busy(Some(began));
        job.perform(&self.disk)?;
        self.inbox().set_busy(None);
        self.metrics.sync_seconds.observe(began.elapsed().as_secs_f64());
        self.metrics.sync_entries.observe(job.entries() as f64);
        let mut log = log.lock();
        log.end_sync(job);
        Ok(log.urgency())
    }

    /// Writes the current durable position to a log's manifest; `false` if no space is left for that.
    fn write_manifest(&self, log: &SharedLog) -> Result<bool, StorageError> {
        let Some(job) = log.lock().begin_note() else { return Ok(true) };
        self.inbox().set_busy(Some(Instant::now()));
        let written = job.perform_note(&self.disk)?;
        self.inbox().set_busy(None);
        if written {
            log.lock().end_sync(job);
        }
        Ok(written)
    }

    /// Called when a log is idle: syncs all of it and writes the durable position to its manifest. `false` if
    /// something was written in the meantime, or no space was left: the caller retries later.
    fn sync_and_write_manifest(&self, log: &SharedLog) -> Result<bool, StorageError> {
        // The commit index is written after the last entries, and no request asks to sync it. The durable position
        // should cover it.
        self.sync(log)?;
        self.write_manifest(log)?;
        let mut log = log.lock();
        let is_idle = log.is_synced() && log.urgency() == Urgency::Nothing;
        if is_idle {
            log.rest();
        }
        Ok(is_idle)
    }

    /// Deletes one file. If that fails, the rest of the directory remains until the next start: no data is at risk.
    fn remove_file(&self, removals: &mut VecDeque<Removal>) {
        let Some(removal) = removals.front_mut() else { return };
        self.inbox().set_busy(Some(Instant::now()));
        let removed = removal.step(&self.disk);
        self.inbox().set_busy(None);
        match removed {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => log::warn!("{error}: the next start tries again to delete what a dropped replica has left"),
        }
        removals.pop_front();
    }

    fn close(&self) -> Result<(), StorageError> {
        let logs = std::mem::take(&mut self.inbox().state().logs);
        let mut result = Ok(());
        for log in logs.into_values() {
            self.inbox().set_busy(Some(Instant::now()));
            // The first error is returned, after an attempt to close every log.
            result = result.and(log.lock().close());
            self.inbox().set_busy(None);
        }
        result
    }
}
