//! The log-writer without its threads. A simulation begins and ends each drain, which is one for all groups.

use std::sync::Arc;

use super::{Report, Wanted, Worker, WriterHandle, WriterMetrics};
use crate::metrics::Registry;
use crate::storage::disk::Disk;
use crate::storage::error::StorageError;
use crate::storage::log::{Removal, SyncJob};

pub(crate) struct WriterByHand {
    pub(super) worker: Worker,
    begun: Vec<(Wanted, Option<SyncJob>)>,
}

impl WriterByHand {
    pub fn new(disk: &Disk, report: Report) -> WriterByHand {
        let metrics = WriterMetrics::new(&Registry::default());
        let worker = Worker { inboxes: WriterHandle::new(1), thread: 0, disk: disk.clone(), report, metrics };
        WriterByHand { worker, begun: Vec::new() }
    }

    /// Returns the inbox, for threads that request syncs.
    pub fn handle(&self) -> WriterHandle {
        self.worker.inboxes.clone()
    }

    /// Begins a drain of all requests, unless one is in progress.
    pub fn begin(&mut self) {
        if self.begun.is_empty() {
            let wanted = self.worker.inbox().state().take_wanted();
            let begin = |wanted: Wanted| {
                let job = wanted.log.lock().begin_sync();
                (wanted, job)
            };
            self.begun = wanted.into_iter().map(begin).collect();
        }
    }

    /// Performs the syncs of the drain, and reports it. The job of a log that was unregistered meanwhile is dropped:
    /// the thread would have performed it before.
    pub fn end(&mut self) -> Result<(), StorageError> {
        for (Wanted { group, log, ready_number }, job) in std::mem::take(&mut self.begun) {
            let registered = self.worker.inbox().state().logs.get(&group).cloned();
            if !registered.is_some_and(|registered| Arc::ptr_eq(&registered, &log)) {
                continue;
            }
            if let Some(job) = job {
                job.perform(&self.worker.disk)?;
                log.lock().end_sync(job);
            }
            self.worker.report.persisted(group, ready_number);
            self.worker.report.next(group, false);
        }
        Ok(())
    }

    /// Does what a thread does after a second without requests, or at a stop.
    pub fn quiet(&mut self, stop: bool) -> Result<(), StorageError> {
        self.begin();
        self.end()?;
        if stop {
            return self.worker.close();
        }
        let logs: Vec<_> = self.worker.inbox().state().logs.values().cloned().collect();
        logs.iter().try_for_each(|log| self.worker.sync_and_write_manifest(log).map(drop))?;
        let removals = std::mem::take(&mut self.worker.inbox().state().removals);
        for mut removal in removals.into_iter().map(Removal::new) {
            while !removal.step(&self.worker.disk)? {}
        }
        Ok(())
    }
}
