//! A one-shot answer between threads: a completion, so sending never blocks.
//!
//! The receiving side is a future for gRPC's threads and can be waited for by a plain thread. A sender that is dropped
//! unsent is seen by the receiver as [`Dropped`]: an answer is never awaited in vain.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::channel::oneshot;

/// Gives the answer, once.
#[derive(Debug)]
pub struct ReplySender<T>(oneshot::Sender<T>);

/// Takes the answer.
#[derive(Debug)]
pub struct ReplyReceiver<T>(oneshot::Receiver<T>);

/// Who should have answered is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped;

/// Makes the two ends of one answer.
pub fn reply<T>() -> (ReplySender<T>, ReplyReceiver<T>) {
    let (sender, receiver) = oneshot::channel();
    (ReplySender(sender), ReplyReceiver(receiver))
}

impl<T> ReplySender<T> {
    /// Answers. Nobody may be waiting any more: then the answer is let go.
    pub fn send(self, answer: T) {
        let _ = self.0.send(answer);
    }

    /// True when nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.0.is_canceled()
    }
}

impl<T> ReplyReceiver<T> {
    /// Blocks the calling thread until the answer is there. Not for gRPC's threads.
    ///
    /// # Errors
    /// [`Dropped`] when the sender went away.
    pub fn wait(self) -> Result<T, Dropped> {
        futures::executor::block_on(self)
    }
}

impl<T> Future for ReplyReceiver<T> {
    type Output = Result<T, Dropped>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|r| r.map_err(|_| Dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answered_and_dropped() {
        let (tx, rx) = reply();
        std::thread::spawn(move || tx.send(7));
        assert_eq!(rx.wait(), Ok(7));
        let (tx, rx) = reply::<u8>();
        drop(tx);
        assert_eq!(rx.wait(), Err(Dropped));
    }
}
