//! `/live` and `/ready`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::api::lifecycle::Phase;
use crate::api::service::Service;
use crate::http::{Response, Status};

/// A thread that makes no progress for this time makes the node not live. After `hang_max` the process aborts anyway.
const SILENT_MAX: Duration = Duration::from_secs(15);
/// The watchdog checks the threads every second. If it has not for this time, it hangs itself.
const CHECKED_MAX: Duration = Duration::from_secs(15);

/// Returns what the node waits for, if it is not ready.
pub type ReadyCheck = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The result of the watchdog's last check. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Liveness(Arc<Mutex<Option<Checked>>>);

#[derive(Clone, Debug)]
struct Checked {
    at: Instant,
    /// The thread that has made no progress for the longest time.
    silent: Option<(String, Duration)>,
}

impl Liveness {
    /// Records a check: the thread that has made no progress for the longest time.
    pub fn record(&self, silent: Option<(String, Duration)>) {
        *self.0.lock() = Some(Checked { at: Instant::now(), silent });
    }

    /// Returns why the node is not live, if it is not.
    fn check(&self, now: Instant) -> Result<(), String> {
        // Before the first check, the node is starting.
        let Some(checked) = self.0.lock().clone() else { return Ok(()) };
        let since = now.saturating_duration_since(checked.at);
        if since > CHECKED_MAX {
            return Err(format!("the watchdog has not checked the threads for {} s", since.as_secs()));
        }
        match checked.silent.filter(|(_, time)| *time > SILENT_MAX) {
            Some((thread, time)) => Err(format!("thread {thread} has made no progress for {} s", time.as_secs())),
            None => Ok(()),
        }
    }
}

pub(super) fn live(liveness: &Liveness) -> Response {
    response(liveness.check(Instant::now()), "live")
}

/// Answers as the health service of gRPC does, and like it waits up to three seconds during an election.
pub(super) async fn ready(service: &Service, ready: &ReadyCheck) -> Response {
    response(readiness(service, ready).await, "ready")
}

async fn readiness(service: &Service, ready: &ReadyCheck) -> Result<(), String> {
    match service.lifecycle.now().phase {
        Phase::Joining | Phase::Serving => {}
        Phase::Leaving | Phase::Stopping => return Err("the node is stopping".to_owned()),
    }
    ready()?;
    let core = service.member.get().ok_or_else(|| service.waiting.get())?;
    match service.availability.serves(core, &service.timers).await {
        true => Ok(()),
        false => Err("a log of this node has no majority or no leader, or its replica here is damaged".to_owned()),
    }
}

fn response(result: Result<(), String>, what: &str) -> Response {
    match result {
        Ok(()) => Response::text(Status::Ok, format!("{what}\n")),
        Err(why) => Response::text(Status::ServiceUnavailable, format!("not {what}: {why}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_or_a_watchdog_that_hangs_makes_the_node_not_live() {
        let liveness = Liveness::default();
        let now = Instant::now();
        assert_eq!(liveness.check(now), Ok(()), "starting");
        liveness.record(Some(("consensus".to_owned(), SILENT_MAX)));
        assert_eq!(liveness.check(now), Ok(()));
        liveness.record(Some(("log-writer-1".to_owned(), SILENT_MAX + Duration::from_secs(1))));
        assert_eq!(liveness.check(now), Err("thread log-writer-1 has made no progress for 16 s".to_owned()));
        liveness.record(None);
        assert_eq!(liveness.check(now), Ok(()));
        let why = liveness.check(now + CHECKED_MAX + Duration::from_secs(2)).expect_err("late");
        assert!(why.starts_with("the watchdog has not checked the threads for "), "{why}");
    }
}
