//! Counts the requests that have not ended. A drain waits until none is left.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

#[derive(Default)]
struct InFlightCount {
    requests: Mutex<u64>,
    none_left: Condvar,
}

/// The count. Clones share it.
#[derive(Clone, Default)]
pub struct InFlight(Arc<InFlightCount>);

impl InFlight {
    /// Counts a request until the guard is dropped.
    pub fn enter(&self) -> Entered {
        *self.lock() += 1;
        Entered(self.clone())
    }

    /// Blocks until no request is left, or until the deadline. Returns true if none is left.
    pub fn wait_until(&self, deadline: Instant) -> bool {
        let mut requests = self.lock();
        while *requests > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.0.none_left.wait_for(&mut requests, left);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.0.requests.lock()
    }
}

/// Counts as one request in flight until it is dropped.
pub struct Entered(InFlight);

impl Drop for Entered {
    fn drop(&mut self) {
        let mut requests = self.0.lock();
        *requests -= 1;
        if *requests == 0 {
            self.0.0.none_left.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn waits_for_the_last_request() {
        let requests = InFlight::default();
        let first = requests.enter();
        assert!(!requests.wait_until(Instant::now() + Duration::from_millis(5)));
        let ends = std::thread::spawn(move || drop(first));
        assert!(requests.wait_until(Instant::now() + Duration::from_secs(10)));
        ends.join().expect("no panic");
    }
}
