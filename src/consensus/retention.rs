//! Searches for expired records, when the policy asks for one (`catalog/policy/retention.rs`). A search reads the
//! disk on a reader thread and proposes a trim.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::handle::{ConsensusHandle, Proposal};
use crate::catalog::policy::retention::{Expired, LogContents};
use crate::storage::reader::{Access, GroupReader, ReadersHandle};
use crate::types::{GroupId, Offset};

impl LogContents for GroupReader {
    fn first_within(&self, bytes: u64) -> Option<Offset> {
        GroupReader::first_within(self, bytes)
    }

    fn arrived_by(&self, local_us: u64) -> Option<Offset> {
        GroupReader::arrived_by(self, local_us)
    }

    fn first_not_before(&self, time_us: u64, from: Offset, below: Offset) -> Offset {
        match GroupReader::first_not_before(self, time_us, from, below, Access::Blocking) {
            Ok(found) => found.unwrap_or(below),
            Err(error) => {
                log::warn!("retention: records can't be read and are kept for now: {error}");
                from
            }
        }
    }
}

/// Starts searches, and tracks which ones are running.
pub struct Searches {
    consensus: ConsensusHandle,
    running: BTreeMap<GroupId, Arc<AtomicBool>>,
}

impl Searches {
    /// Creates the tracker. Trims are proposed through the handle.
    pub fn new(consensus: ConsensusHandle) -> Searches {
        Searches { consensus, running: BTreeMap::new() }
    }

    /// Returns true while a search of the group's log is running.
    pub fn is_running(&self, group: GroupId) -> bool {
        self.running.get(&group).is_some_and(|running| running.load(Ordering::Acquire))
    }

    /// Starts a search, unless no record can have expired. If all reader threads are busy, the policy asks again later.
    pub fn start(&mut self, group: GroupId, expired: Expired, reader: &GroupReader, readers: &ReadersHandle) {
        if !expired.is_possible(reader) {
            return;
        }
        let running = self.running.entry(group).or_default();
        running.store(true, Ordering::Release);
        let (reader, consensus, ended) = (reader.clone(), self.consensus.clone(), Arc::clone(running));
        let job = move || {
            if let Some(first) = expired.first_to_keep(&reader) {
                log::debug!("retention: group {group} keeps records from {first} on");
                // If the proposal is refused or lost, the next search proposes it again.
                drop(consensus.propose(Proposal::trim(group, first)));
            }
            ended.store(false, Ordering::Release);
        };
        if readers.run_own(Box::new(job)).is_err() {
            running.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod model;
