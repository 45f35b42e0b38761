//! What the threads tell others: durable Readies, and metrics.

use std::sync::Arc;

use crate::metrics::{Histogram, ITEMS, Registry, SECONDS};
use crate::types::GroupId;

type Persisted = dyn Fn(GroupId, u64) + Send + Sync;
type Next = dyn Fn(GroupId, bool) + Send + Sync;

/// Receives durable Readies.
#[derive(Clone)]
pub struct Report {
    persisted: Arc<Persisted>,
    next: Arc<Next>,
}

impl Report {
    /// `persisted` is called after each sync with a group and its highest durable Ready number. It must not block.
    ///
    /// `next` is called after it, when the thread no longer uses the group's log. If its second parameter is true, no other
    /// sync waits for the thread, so `next` may use it for a moment.
    pub fn new(
        persisted: impl Fn(GroupId, u64) + Send + Sync + 'static,
        next: impl Fn(GroupId, bool) + Send + Sync + 'static,
    ) -> Report {
        Report { persisted: Arc::new(persisted), next: Arc::new(next) }
    }

    pub(super) fn persisted(&self, group: GroupId, ready_number: u64) {
        (self.persisted)(group, ready_number);
    }

    pub(super) fn next(&self, group: GroupId, is_last: bool) {
        (self.next)(group, is_last);
    }
}

/// The metrics of the threads.
#[derive(Clone)]
pub struct WriterMetrics {
    pub(super) sync_seconds: Histogram,
    pub(super) sync_entries: Histogram,
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
