//! Determines whether the logs of this node accept appends and linearizable reads now. Load balancers ask for this.
//!
//! A log is available if its replica on this node is undamaged and a read index succeeds, which requires that a
//! majority answers its leader. An election takes a second or two, so only longer failures count. A replica that could
//! not be opened does not count if another node serves the log: requests are relayed to it.
//!
//! A read index wakes a quiet group, and a node with many logs still serves the others if one has no majority. So a
//! node with more than [`LOGS_PROBED_MAX`] logs is available if the catalog is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use parking_lot::{Mutex, MutexGuard};

use super::core::Core;
use crate::timers::TimersHandle;
use crate::types::GroupId;

/// A failure that lasts for this time makes a node unavailable.
const FAILING_MAX: Duration = Duration::from_secs(3);
/// A read index without an answer after this time has failed.
const PROBE_MAX: Duration = Duration::from_secs(1);
/// The pause between two probes while probes fail.
const PROBE_PAUSE: Duration = Duration::from_millis(100);
/// A successful probe is valid for this time, for any number of requests.
const FRESH: Duration = Duration::from_secs(1);
/// Two failed probes that are further apart do not count as one lasting failure, because nothing was probed in between.
const SAME_FAILURE_MAX: Duration = Duration::from_secs(10);

/// A node with at most this many logs probes each of them, a node with more only the catalog.
const LOGS_PROBED_MAX: usize = 4;

#[derive(Debug, Default)]
struct Probes {
    succeeded: Option<Instant>,
    /// The first and the last failure since the last success.
    failed: Option<(Instant, Instant)>,
}

/// The results of the last probes. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct Availability(Arc<Mutex<Probes>>);

impl Availability {
    fn lock(&self) -> MutexGuard<'_, Probes> {
        self.0.lock()
    }

    /// Returns true if every log of this node is available. If probes fail, waits up to three seconds after the first
    /// failure, because an election may be in progress.
    pub async fn serves(&self, core: &Core, timers: &TimersHandle) -> bool {
        loop {
            if core.check_rival().is_err() {
                return false;
            }
            let is_damaged = |group| core.consensus.lost(group).is_none() || !core.is_served_elsewhere(group);
            let mut statuses = core.consensus.all_statuses().into_iter();
            if statuses.any(|status| status.damage.is_some() && is_damaged(status.group)) {
                return false;
            }
            if self.lock().succeeded.is_some_and(|at| at.elapsed() < FRESH) {
                return true;
            }
            if probe(core, timers).await {
                *self.lock() = Probes { succeeded: Some(Instant::now()), failed: None };
                return true;
            }
            if self.record_failure(Instant::now()) >= FAILING_MAX {
                return false;
            }
            timers.at(Instant::now() + PROBE_PAUSE).await;
        }
    }

    /// Records a failed probe. Returns for how long probes have failed.
    fn record_failure(&self, now: Instant) -> Duration {
        let mut probes = self.lock();
        let same = probes.failed.filter(|(_, last)| now.duration_since(*last) < SAME_FAILURE_MAX);
        let first = same.map_or(now, |(first, _)| first);
        probes.failed = Some((first, now));
        now.duration_since(first)
    }
}

/// Performs one read index for each log, or one of the catalog. Returns true if all succeed.
async fn probe(core: &Core, timers: &TimersHandle) -> bool {
    let until = Instant::now() + PROBE_MAX;
    let open = core.logs.all().into_iter().map(|log| log.group);
    let mut groups: Vec<GroupId> = open.filter(|group| core.consensus.lost(*group).is_none()).collect();
    // A node without replicas relays: it has to know which nodes have them.
    if (groups.is_empty() && core.catalog.get().had_logs()) || groups.len() > LOGS_PROBED_MAX {
        groups = vec![GroupId::CATALOG];
    }
    for group in &groups {
        let index = core.read_index(*group, until);
        match select(Box::pin(index), timers.at(until + PROBE_PAUSE)).await {
            Either::Left((Ok(_), _)) => {}
            Either::Left((Err(_), _)) | Either::Right(_) => return false,
        }
    }
    !groups.is_empty()
}
