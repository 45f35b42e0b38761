//! What comes up to `consensus`: "it is on disk" from the log-writer, fetched entries from the readers.
//!
//! A completion never blocks whoever reports it. Persisted Readies are merged to the highest of each group; fetches are
//! bounded by what raft waits for. A full wake channel means that the thread will look anyway.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

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
#[derive(Clone)]
pub struct Completions {
    arrived: Arc<Mutex<Arrived>>,
    wake: Sender<()>,
}

impl Completions {
    /// Makes the reporting side and the channel that wakes `consensus`.
    pub fn new() -> (Completions, Receiver<()>) {
        let (wake, woken) = bounded(1);
        (Completions { arrived: Arc::default(), wake }, woken)
    }

    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything of the group up to this Ready is on disk.
    pub fn persisted(&self, group: GroupId, ready: u64) {
        {
            let mut arrived = self.lock();
            let highest = arrived.persisted.entry(group).or_default();
            *highest = ready.max(*highest);
        }
        let _ = self.wake.try_send(());
    }

    /// A range was fetched, or could not be.
    pub fn fetched(&self, fetched: Fetched) {
        self.lock().fetched.push(fetched);
        let _ = self.wake.try_send(());
    }

    /// Takes what has arrived.
    pub fn take(&self) -> (BTreeMap<GroupId, u64>, Vec<Fetched>) {
        let arrived = std::mem::take(&mut *self.lock());
        (arrived.persisted, arrived.fetched)
    }
}
