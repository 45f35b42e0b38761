//! Results that other threads report to `consensus`: synced Readies from the log-writer, fetched entries from the
//! readers.
//!
//! Reporting never blocks, and the queue is bounded: of persisted Readies only the highest number per group is kept,
//! and raft has a bounded number of pending fetches. Each report rings the thread's doorbell.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::doorbell::Doorbell;
use crate::storage::entry::Entry;
use crate::storage::reader::ReadError;
use crate::types::{GroupId, LogIndex};

/// A fetched range: its group, the index of its first entry, and the entries.
pub type Fetched = (GroupId, LogIndex, Result<Vec<Entry>, ReadError>);

#[derive(Default)]
struct Arrived {
    persisted: BTreeMap<GroupId, u64>,
    fetched: Vec<Fetched>,
}

/// The reporting side. Clones report to the same thread.
#[derive(Clone, Default)]
pub struct Completions {
    arrived: Arc<Mutex<Arrived>>,
    bell: Doorbell,
}

impl Completions {
    pub fn new(bell: Doorbell) -> Completions {
        Completions { arrived: Arc::default(), bell }
    }

    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock()
    }

    /// Reports that everything of the group up to this Ready is on disk.
    pub fn persisted(&self, group: GroupId, ready: u64) {
        {
            let mut arrived = self.lock();
            let highest = arrived.persisted.entry(group).or_default();
            *highest = ready.max(*highest);
        }
        self.bell.ring();
    }

    /// Reports a fetched range, or why it could not be fetched.
    pub fn fetched(&self, fetched: Fetched) {
        self.lock().fetched.push(fetched);
        self.bell.ring();
    }

    /// Returns true if no report is queued.
    pub fn is_empty(&self) -> bool {
        let arrived = self.lock();
        arrived.persisted.is_empty() && arrived.fetched.is_empty()
    }

    /// Takes all reports.
    pub fn take(&self) -> (BTreeMap<GroupId, u64>, Vec<Fetched>) {
        let arrived = std::mem::take(&mut *self.lock());
        (arrived.persisted, arrived.fetched)
    }
}
