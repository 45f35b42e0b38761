//! Returns memory to the system when a load has ended.
//!
//! By itself, an allocator returns freed memory only while it is in use: after a load, an idle process would keep tens
//! of MiB that it does not need.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The pause between two times that memory is returned.
const RETURN_EVERY: Duration = Duration::from_secs(2);

static RETURN: OnceLock<fn()> = OnceLock::new();

/// Sets the function that makes the allocator of this process return its free memory. Only the first call has an effect.
pub fn returned_by(act: fn()) {
    let _ = RETURN.set(act);
}

/// When free memory was last returned.
#[derive(Debug, Default)]
pub(crate) struct FreeMemory {
    returned: Option<Instant>,
}

impl FreeMemory {
    /// Returns free memory to the system, if it was not just done. Must be called regularly while the process rests: a
    /// busy one would soon need the memory again.
    pub fn return_while_resting(&mut self) {
        if self.returned.is_none_or(|returned| returned.elapsed() >= RETURN_EVERY)
            && let Some(act) = RETURN.get()
        {
            act();
            self.returned = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        /// Of this thread: other tests run threads that return memory, too.
        static TIMES: Cell<u32> = const { Cell::new(0) };
    }

    #[test]
    fn returns_memory_again_after_a_pause() {
        returned_by(|| TIMES.set(TIMES.get() + 1));
        let mut memory = FreeMemory::default();
        (0..3).for_each(|_| memory.return_while_resting());
        assert_eq!(TIMES.get(), 1);
        memory.returned = memory.returned.map(|returned| returned - RETURN_EVERY);
        memory.return_while_resting();
        assert_eq!(TIMES.get(), 2);
    }
}
