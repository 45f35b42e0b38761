//! Wakes a thread that looks for work in several places.
//!
//! The thread checks all places, then waits. A thread that adds work rings. A ring between the check and the wait is
//! not lost. A ring costs an atomic swap, and a system call only if the thread sleeps. That is cheaper than waking a
//! channel's receiver under the channel's lock, or selecting over many channels.

use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Instant;

/// Wakes one thread. Clones wake the same one.
#[derive(Clone, Debug, Default)]
pub struct Doorbell(Arc<OnceLock<Thread>>);

impl Doorbell {
    /// Makes the calling thread the one that is woken. Only the first call has an effect. Earlier rings are lost, so
    /// the thread must check for work before its first wait.
    pub fn attach_current_thread(&self) {
        let _ = self.0.set(std::thread::current());
    }

    /// Wakes the thread, because it has work.
    pub fn ring(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }

    /// Waits for a ring, until `moment` at most; may return early. Only for the thread of [`Doorbell::attach_current_thread`].
    pub fn wait_until(&self, moment: Instant) {
        std::thread::park_timeout(moment.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{TryRecvError, bounded};
    use std::time::Duration;

    #[test]
    fn loses_no_ring() {
        let bell = Doorbell::default();
        let (sender, receiver) = bounded(4);
        let (ready, is_ready) = bounded(1);
        let answering = bell.clone();
        let thread = std::thread::spawn(move || {
            answering.attach_current_thread();
            ready.send(()).expect("the test waits");
            let mut sum = 0u64;
            loop {
                match receiver.try_recv() {
                    Ok(n) => sum += n,
                    // A lost ring would make the test hang.
                    Err(TryRecvError::Empty) => answering.wait_until(Instant::now() + Duration::from_secs(3600)),
                    Err(TryRecvError::Disconnected) => return sum,
                }
            }
        });
        is_ready.recv().expect("the thread is ready");
        for n in 1..=10_000u64 {
            sender.send(n).expect("the thread receives");
            bell.ring();
        }
        drop(sender);
        bell.ring();
        assert_eq!(thread.join().expect("no panic"), 50_005_000);
    }
}
