//! Wakes a thread that looks for work in several places.
//!
//! The thread looks everywhere, and then waits; whoever leaves work rings. A ring between the look and the wait is not
//! lost. It costs an atomic swap, and a call of the system only when the thread sleeps: cheaper than a channel's wake under
//! its lock, or than selecting over many channels.

use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Instant;

/// A clone rings for the same thread.
#[derive(Clone, Debug, Default)]
pub struct Doorbell(Arc<OnceLock<Thread>>);

impl Doorbell {
    /// The calling thread is the one that is rung for, from now on. Only the first such call counts. Work that was left
    /// before nobody rang for: look for it before the first wait.
    pub fn answer_here(&self) {
        let _ = self.0.set(std::thread::current());
    }

    /// There is work.
    pub fn ring(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }

    /// Waits until somebody rings, or that moment; may return for no reason. Only for the thread that answers.
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
    fn no_ring_is_lost() {
        let bell = Doorbell::default();
        let (sender, receiver) = bounded(4);
        let (ready, is_ready) = bounded(1);
        let answering = bell.clone();
        let thread = std::thread::spawn(move || {
            answering.answer_here();
            ready.send(()).expect("the test waits");
            let mut sum = 0u64;
            loop {
                match receiver.try_recv() {
                    Ok(n) => sum += n,
                    // So long that a lost ring would be seen.
                    Err(TryRecvError::Empty) => answering.wait_until(Instant::now() + Duration::from_secs(3600)),
                    Err(TryRecvError::Disconnected) => return sum,
                }
            }
        });
        is_ready.recv().expect("it answers");
        for n in 1..=10_000u64 {
            sender.send(n).expect("it takes them");
            bell.ring();
        }
        drop(sender);
        bell.ring();
        assert_eq!(thread.join().expect("no panic"), 50_005_000);
    }
}
