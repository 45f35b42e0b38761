//! Whether the logs of this node accept appends and linearizable reads now, for load balancers.
//!
//! A log is available while its replica here is undamaged and a read index succeeds, for which a majority must answer its
//! leader. An election takes a second or two, so only failures that last longer count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use parking_lot::{Mutex, MutexGuard};

use super::core::Core;
use crate::timers::TimersHandle;
use crate::types::GroupId;

/// Failures that last for this long make a node unavailable.
const FAILING_MAX: Duration = Duration::from_secs(3);
/// A read index that is not answered for this long has failed.
const PROBE_MAX: Duration = Duration::from_secs(1);
/// Between two probes while they fail.
const PROBE_PAUSE: Duration = Duration::from_millis(100);
/// The result of a probe is used for this long, however many requests need it.
const FRESH: Duration = Duration::from_secs(1);
/// Failures further apart than this are not one failure that lasts: nothing was probed in between.
const SAME_FAILURE_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Probes {
    succeeded: Option<Instant>,
    /// The first and the last failure since the last success.
    failed: Option<(Instant, Instant)>,
}

/// The results of the last probes; a clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Availability(Arc<Mutex<Probes>>);

impl Availability {
    fn lock(&self) -> MutexGuard<'_, Probes> {
        self.0.lock()
    }

    /// Whether every log here is available. Waits for an election to end, up to three seconds after the first failure.
    pub async fn serves(&self, core: &Core, timers: &TimersHandle) -> bool {
        loop {
            if core.check_rival().is_err() {
                return false;
            }
            if core.consensus.all_statuses().iter().any(|status| status.damage.is_some()) {
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

    /// Notes a failure; returns for how long it has lasted.
    fn record_failure(&self, now: Instant) -> Duration {
        let mut probes = self.lock();
        let same = probes.failed.filter(|(_, last)| now.duration_since(*last) < SAME_FAILURE_MAX);
        let first = same.map_or(now, |(first, _)| first);
        probes.failed = Some((first, now));
        now.duration_since(first)
    }
}

/// One read index for each log.
async fn probe(core: &Core, timers: &TimersHandle) -> bool {
    let until = Instant::now() + PROBE_MAX;
    let groups: Vec<GroupId> = core.logs.all().iter().map(|log| log.group).collect();
    for group in &groups {
        let index = core.read_index(*group, until);
        match select(Box::pin(index), timers.at(until + PROBE_PAUSE)).await {
            Either::Left((Ok(_), _)) => {}
            Either::Left((Err(_), _)) | Either::Right(_) => return false,
        }
    }
    !groups.is_empty()
}
