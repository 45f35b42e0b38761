//! How many calls have not ended yet: a drain waits until none is left.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

#[derive(Default)]
struct Shared {
    calls: Mutex<u64>,
    none_left: Condvar,
}

/// The count; a clone is the same.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Shared>);

impl InFlight {
    /// Counts a call until the guard is dropped.
    pub fn enter(&self) -> Entered {
        *self.lock() += 1;
        Entered(self.clone())
    }

    /// Blocks until no call is left, at most until then. True when none is.
    pub fn wait_until(&self, deadline: Instant) -> bool {
        let mut calls = self.lock();
        while *calls > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.0.none_left.wait_for(&mut calls, left);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        // A number is always whole.
        self.0.calls.lock()
    }
}

/// One call in flight.
pub struct Entered(InFlight);

impl Drop for Entered {
    fn drop(&mut self) {
        let mut calls = self.0.lock();
        *calls -= 1;
        if *calls == 0 {
            self.0.0.none_left.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn waits_for_the_last_call() {
        let calls = InFlight::default();
        let first = calls.enter();
        assert!(!calls.wait_until(Instant::now() + Duration::from_millis(5)));
        let ends = std::thread::spawn(move || drop(first));
        assert!(calls.wait_until(Instant::now() + Duration::from_secs(10)));
        ends.join().expect("no panic");
    }
}
