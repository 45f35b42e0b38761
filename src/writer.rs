//! The `log-writer` thread: it puts on the disk what `consensus` has appended, and reports it.
//!
//! Its inbox is a map of group → highest Ready number, so it can't fill and `consensus` never waits for the disk. One drain
//! takes everything that is there; while it syncs, the next one gathers: group commit without a timer. A failed sync is
//! final (P7): the thread ends with its error, and nothing is reported after it.
//!
//! It also writes the durable position to each log's manifest, when no sync is waiting or when that is overdue (`storage/sync.rs` has
//! the reason). This is not part of a drain: the drain has been reported by then.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::storage::disk::Disk;
use crate::storage::error::StorageError;
use crate::storage::log::{GroupLog, NOTE_EVERY, QUIET, Urgency};
use crate::thread::{self, FatalSender, Joiner};
use crate::types::GroupId;

/// Under load, manifests that are written only for their durable positions take at most this fraction (one part in five) of the time.
const NOTE_PART: u32 = 5;

/// After a term or a vote, the thread waits this many times as long as the sync took before it writes the manifest, and twice that
/// if syncs keep waiting. A manifest takes two syncs: on a slow disk they would delay the next vote, or the new leader's first entry.
pub const VOTE_PAUSE: u32 = 3;

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
    /// Registered logs that the thread has not seen yet.
    registered: Vec<GroupId>,
    /// What is wanted on the disk: merged, so one place for each group is enough.
    wanted: BTreeMap<GroupId, u64>,
    stopping: bool,
}

enum Event {
    Sync(BTreeMap<GroupId, u64>),
    /// A manifest is overdue while syncs wait.
    Note(GroupId),
    /// A manifest is due, and no sync waits.
    Quiet(GroupId),
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
        let mut state = self.0.state();
        state.logs.insert(group, log);
        state.registered.push(group);
        drop(state);
        self.0.wake.notify_one();
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
        *self.0.busy_since.lock()
    }
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole.
        self.state.lock()
    }

    fn set_busy(&self, since: Option<Instant>) {
        *self.busy_since.lock() = since;
    }
}

struct Worker {
    inbox: Arc<Inbox>,
    disk: Disk,
    report: Report,
}

/// The logs whose manifests should get a new durable position, and when.
#[derive(Default)]
struct Notes {
    due: BTreeMap<GroupId, Note>,
    /// Under load no manifest is written before this time: they take at most a fifth of the thread's time, for any number of
    /// logs.
    not_before: Option<Instant>,
}

struct Note {
    /// The first sync since the manifest was written.
    first: Instant,
    /// The last sync of the log, and how long it took.
    last: Instant,
    took: Duration,
    urgency: Urgency,
}

impl Note {
    /// When it is written if no sync waits.
    fn idle_at(&self) -> Instant {
        match self.urgency {
            Urgency::Nothing | Urgency::Quiet => self.last + QUIET,
            Urgency::Vote => self.last + self.took * VOTE_PAUSE,
            Urgency::Now => self.first,
        }
    }

    /// When it is written before the next sync.
    fn must_at(&self) -> Instant {
        match self.urgency {
            Urgency::Nothing | Urgency::Quiet => self.first + NOTE_EVERY,
            Urgency::Vote => self.first + QUIET.max(self.took * (2 * VOTE_PAUSE)),
            Urgency::Now => self.first,
        }
    }
}

impl Notes {
    /// Notes that a log was synced, which took this long, or registered.
    fn synced(&mut self, group: GroupId, urgency: Urgency, now: Instant, took: Duration) {
        let note = self.due.entry(group).or_insert(Note { first: now, last: now, took, urgency });
        (note.last, note.took, note.urgency) = (now, took, urgency);
    }

    /// The log whose manifest is overdue, if any.
    fn overdue(&self, now: Instant) -> Option<GroupId> {
        if self.not_before.is_some_and(|then| now < then) {
            return None;
        }
        let first = self.due.iter().min_by_key(|(_, note)| note.must_at())?;
        (first.1.must_at() <= now).then_some(*first.0)
    }

    /// The log whose manifest is due first if no sync waits, and when that is.
    fn next(&self) -> Option<(GroupId, Instant)> {
        let idle_at = |note: &Note| note.idle_at().min(note.must_at());
        self.due.iter().map(|(group, note)| (*group, idle_at(note))).min_by_key(|(_, at)| *at)
    }
}

impl Worker {
    fn run(self) -> Result<(), StorageError> {
        let mut notes = Notes::default();
        loop {
            match self.next_event(&mut notes) {
                Event::Stop => return self.close(),
                event => self.act(event, &mut notes)?,
            }
        }
    }

    fn act(&self, event: Event, notes: &mut Notes) -> Result<(), StorageError> {
        match event {
            Event::Sync(wanted) => {
                for (group, ready_number) in wanted {
                    let began = Instant::now();
                    let urgency = self.sync(group)?;
                    let took = began.elapsed();
                    (self.report)(group, ready_number);
                    notes.synced(group, urgency, Instant::now(), took);
                }
            }
            Event::Note(group) => {
                let began = Instant::now();
                let noted = self.note(group)?;
                notes.not_before = Some(began + began.elapsed() * NOTE_PART);
                notes.due.remove(&group);
                if !noted {
                    notes.synced(group, Urgency::Quiet, Instant::now(), Duration::ZERO);
                }
            }
            Event::Quiet(group) => {
                notes.due.remove(&group);
                if !self.note_quiet(group)? {
                    notes.synced(group, Urgency::Quiet, Instant::now(), Duration::ZERO);
                }
            }
            Event::Stop => return self.close(),
        }
        Ok(())
    }

    fn next_event(&self, notes: &mut Notes) -> Event {
        let mut state = self.inbox.state();
        loop {
            let now = Instant::now();
            for group in std::mem::take(&mut state.registered) {
                notes.synced(group, Urgency::Quiet, now, Duration::ZERO);
            }
            if !state.wanted.is_empty() {
                // At most one manifest between two drains.
                return match notes.overdue(now) {
                    Some(group) => Event::Note(group),
                    None => Event::Sync(std::mem::take(&mut state.wanted)),
                };
            }
            if state.stopping {
                return Event::Stop;
            }
            let Some((group, at)) = notes.next() else {
                self.inbox.wake.wait(&mut state);
                continue;
            };
            if at <= now {
                return Event::Quiet(group);
            }
            self.inbox.wake.wait_for(&mut state, at - now);
        }
    }

    /// Syncs a log; returns how soon its manifest should get the new durable position.
    fn sync(&self, group: GroupId) -> Result<Urgency, StorageError> {
        let Some(log) = self.inbox.state().logs.get(&group).cloned() else { return Ok(Urgency::Nothing) };
        let job = lock(&log).begin_sync();
        let Some(job) = job else { return Ok(lock(&log).urgency()) };
        self.inbox.set_busy(Some(Instant::now()));
        job.perform(&self.disk)?;
        self.inbox.set_busy(None);
        let mut log = lock(&log);
        log.end_sync(job);
        Ok(log.urgency())
    }

    /// Writes the current durable position to a log's manifest; `false` if there is no space for that.
    fn note(&self, group: GroupId) -> Result<bool, StorageError> {
        let Some(log) = self.inbox.state().logs.get(&group).cloned() else { return Ok(true) };
        let Some(job) = lock(&log).begin_note() else { return Ok(true) };
        self.inbox.set_busy(Some(Instant::now()));
        let noted = job.perform_note(&self.disk)?;
        self.inbox.set_busy(None);
        if noted {
            lock(&log).end_sync(job);
        }
        Ok(noted)
    }

    /// Called when a log is idle: syncs all of it and writes the durable position to its manifest. `false` if something was written
    /// meanwhile, or if there was no space: try again later.
    fn note_quiet(&self, group: GroupId) -> Result<bool, StorageError> {
        // No request waits for the commit index that follows the last entries, but the durable position should cover it.
        self.sync(group)?;
        self.note(group)?;
        let Some(log) = self.inbox.state().logs.get(&group).cloned() else { return Ok(true) };
        let log = lock(&log);
        Ok(log.is_synced() && log.urgency() == Urgency::Nothing)
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
        if stop {
            return self.worker.close();
        }
        let groups: Vec<GroupId> = self.worker.inbox.state().logs.keys().copied().collect();
        groups.into_iter().try_for_each(|group| self.worker.note_quiet(group).map(drop))
    }
}

/// A log whose owner panicked is written no more but may be synced: what it had finished before is whole.
fn lock(log: &SharedLog) -> MutexGuard<'_, GroupLog> {
    log.lock()
}

#[cfg(test)]
mod tests;
