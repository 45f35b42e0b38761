//! Which log's manifest a log-writer writes next, and when (`storage/write/sync.rs` explains why it is written).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::storage::log::{NOTE_EVERY, QUIET, Urgency};
use crate::types::GroupId;

/// After a term or a vote, the manifest is written after this many times the duration of the sync, or twice that if
/// syncs keep waiting. Writing a manifest takes two syncs: on a slow disk they would delay the next vote, or the new
/// leader's first entry.
pub const VOTE_PAUSE: u32 = 3;

/// The manifests that must be written with a new durable position, and when.
#[derive(Default)]
pub(super) struct ManifestWrites {
    pub due: BTreeMap<GroupId, ManifestWrite>,
    /// Under load no manifest is written before this time, so that manifests take at most a fifth of the thread's
    /// time, for any number of logs.
    pub not_before: Option<Instant>,
}

pub(super) struct ManifestWrite {
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
    pub fn synced(&mut self, group: GroupId, urgency: Urgency, now: Instant, took: Duration) {
        let write = self.due.entry(group).or_insert(ManifestWrite { first: now, last: now, took, urgency });
        (write.last, write.took, write.urgency) = (now, took, urgency);
    }

    /// Returns the log whose manifest is overdue, if any.
    pub fn overdue(&self, now: Instant) -> Option<GroupId> {
        if self.not_before.is_some_and(|then| now < then) {
            return None;
        }
        let first = self.due.iter().min_by_key(|(_, write)| write.must_at())?;
        (first.1.must_at() <= now).then_some(*first.0)
    }

    /// Returns the log whose manifest is due first if no sync waits, and when it is due.
    pub fn next(&self) -> Option<(GroupId, Instant)> {
        let idle_at = |write: &ManifestWrite| write.idle_at().min(write.must_at());
        self.due.iter().map(|(group, write)| (*group, idle_at(write))).min_by_key(|(_, at)| *at)
    }
}
