//! Results that other threads report to `consensus`: synced Readies from the log-writer, fetched entries from the
//! readers.
//!
//! Reporting never blocks, and the queue is bounded: of persisted Readies only the highest number per group is kept,
//! and raft has a bounded number of pending fetches. Each report wakes the thread, or runs its
//! work (`wake.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::wake::{ConsensusWaker, Work};
use crate::catalog::faults::{Fault, broken};
use crate::storage::entry::Entry;
use crate::storage::reader::ReadError;
use crate::types::{GroupId, LogIndex};

/// Distinguishes the replicas of one group that this process has had, one after the other: what was requested for an
/// earlier one must not be reported to a later one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplicaEpoch(u32);

impl ReplicaEpoch {
    /// raft numbers a replica's Readies from 1 in each process, so they never need more bits.
    const READY_BITS: u32 = 40;

    /// Returns the epoch of the next replica.
    #[must_use]
    pub fn next(self) -> ReplicaEpoch {
        ReplicaEpoch(self.0 + 1)
    }

    /// Returns the number by which the log-writer knows a Ready. A later replica has higher numbers, until 2^24
    /// replicas were started.
    pub fn ticket(self, ready: u64) -> u64 {
        u64::from(self.0) << ReplicaEpoch::READY_BITS | ready
    }

    /// Returns the Ready of a ticket; `None` for a ticket of another replica.
    pub fn ready_of(self, ticket: u64) -> Option<u64> {
        let ready = ticket & ((1 << ReplicaEpoch::READY_BITS) - 1);
        let is_own = ticket >> ReplicaEpoch::READY_BITS == self.ticket(0) >> ReplicaEpoch::READY_BITS;
        (is_own || broken(Fault::EpochIgnored)).then_some(ready)
    }
}

/// A fetched range of a group.
pub struct Fetched {
    pub group: GroupId,
    /// The replica that requested it.
    pub epoch: ReplicaEpoch,
    /// The index of its first entry.
    pub low: LogIndex,
    /// Fails if they can't be read.
    pub entries: Result<Vec<Entry>, ReadError>,
}

#[derive(Default)]
struct Arrived {
    persisted: BTreeMap<GroupId, u64>,
    fetched: Vec<Fetched>,
}

/// The reporting side. Clones report to the same thread.
#[derive(Clone, Default)]
pub struct Completions {
    arrived: Arc<Mutex<Arrived>>,
    waker: ConsensusWaker,
}

impl Completions {
    pub fn new(waker: ConsensusWaker) -> Completions {
        Completions { arrived: Arc::default(), waker }
    }

    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock()
    }

    /// Records that everything of the group up to this Ready is on disk. [`Completions::handle_next`] follows.
    pub fn persisted(&self, group: GroupId, ready: u64) {
        let mut arrived = self.lock();
        let highest = arrived.persisted.entry(group).or_default();
        *highest = ready.max(*highest);
    }

    /// Wakes the thread. If `may_run_here`, the calling thread may handle the record instead.
    pub fn handle_next(&self, group: GroupId, may_run_here: bool) {
        // An applied entry of the catalog may create replicas, which takes long.
        if may_run_here && group != GroupId::CATALOG {
            self.waker.run_or_wake(Work::Persisted);
        } else {
            self.waker.wake();
        }
    }

    /// Reports a fetched range, or why it could not be fetched.
    pub fn fetched(&self, fetched: Fetched) {
        self.lock().fetched.push(fetched);
        self.waker.wake();
    }

    /// Returns true if no report is queued.
    pub fn is_empty(&self) -> bool {
        let arrived = self.lock();
        arrived.persisted.is_empty() && arrived.fetched.is_empty()
    }

    /// Takes the reports that take little time: not those of the catalog, whose entries may create replicas, and no fetched
    /// ranges.
    pub fn take_small(&self) -> BTreeMap<GroupId, u64> {
        let mut arrived = self.lock();
        let catalog = arrived.persisted.remove_entry(&GroupId::CATALOG);
        std::mem::replace(&mut arrived.persisted, catalog.into_iter().collect())
    }

    /// Takes all reports.
    pub fn take(&self) -> (BTreeMap<GroupId, u64>, Vec<Fetched>) {
        let arrived = std::mem::take(&mut *self.lock());
        (arrived.persisted, arrived.fetched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::faults::set;

    #[test]
    fn a_ticket_belongs_to_one_replica() {
        for epoch in [0, 1, (1 << 24) - 1, 1 << 24, (1 << 24) + 1].map(ReplicaEpoch) {
            let ticket = epoch.ticket(17);
            assert_eq!(epoch.ready_of(ticket), Some(17), "{epoch:?}");
            assert_eq!(epoch.next().ready_of(ticket), None, "{epoch:?}");
        }
        set(Some(Fault::EpochIgnored));
        assert_eq!(ReplicaEpoch(2).ready_of(ReplicaEpoch(1).ticket(17)), Some(17), "the fault is found");
        set(None);
        assert!(ReplicaEpoch(2).ticket(1) > ReplicaEpoch(1).ticket(1 << 39));
    }
}
