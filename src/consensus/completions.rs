//! What comes up to `consensus`: "it is on disk" from the log-writer, fetched entries from the readers.
//!
//! A completion never blocks whoever reports it. Persisted Readies are merged to the highest of each group; fetches are
//! bounded by what raft waits for. Whoever reports rings for the thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::doorbell::Doorbell;
use crate::storage::entry::Entry;
use crate::storage::reader::ReadError;
use crate::types::{GroupId, LogIndex};

/// A fetched range: the group, its first entry, the entries.
pub type Fetched = (GroupId, LogIndex, Result<Vec<Entry>, ReadError>);

#[derive(Default)]
struct Arrived {
    persisted: BTreeMap<GroupId, u64>,
    fetched: Vec<Fetched>,
}

/// The reporting side; a clone reports to the same thread.
#[derive(Clone, Default)]
pub struct Completions {
    arrived: Arc<Mutex<Arrived>>,
    bell: Doorbell,
}

impl Completions {
    /// Rings this one.
    pub fn new(bell: Doorbell) -> Completions {
        Completions { arrived: Arc::default(), bell }
    }

    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock()
    }

    /// Everything of the group up to this Ready is on disk.
    pub fn persisted(&self, group: GroupId, ready: u64) {
        {
            let mut arrived = self.lock();
            let highest = arrived.persisted.entry(group).or_default();
            *highest = ready.max(*highest);
        }
        self.bell.ring();
    }

    /// A range was fetched, or could not be.
    pub fn fetched(&self, fetched: Fetched) {
        self.lock().fetched.push(fetched);
        self.bell.ring();
    }

    /// True when nothing has arrived.
    pub fn is_empty(&self) -> bool {
        let arrived = self.lock();
        arrived.persisted.is_empty() && arrived.fetched.is_empty()
    }

    /// Takes what has arrived.
    pub fn take(&self) -> (BTreeMap<GroupId, u64>, Vec<Fetched>) {
        let arrived = std::mem::take(&mut *self.lock());
        (arrived.persisted, arrived.fetched)
    }
}
