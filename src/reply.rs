//! One response from one thread to another. Sending never blocks.
//!
//! The receiver is a future for gRPC's threads; other threads can block on it. If the sender is dropped without sending, the receiver
//! gets [`Dropped`], so it never waits forever.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::channel::oneshot;

/// Sends the response.
#[derive(Debug)]
pub struct ReplySender<T>(oneshot::Sender<T>);

/// Receives the response.
#[derive(Debug)]
pub struct ReplyReceiver<T>(oneshot::Receiver<T>);

/// The sender was dropped without sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped;

/// Creates the sender and the receiver of one response.
pub fn reply<T>() -> (ReplySender<T>, ReplyReceiver<T>) {
    let (sender, receiver) = oneshot::channel();
    (ReplySender(sender), ReplyReceiver(receiver))
}

impl<T> ReplySender<T> {
    /// Sends the response. It is dropped if the receiver no longer exists.
    pub fn send(self, answer: T) {
        let _ = self.0.send(answer);
    }

    /// Whether the receiver was dropped.
    pub fn is_abandoned(&self) -> bool {
        self.0.is_canceled()
    }
}

impl<T> ReplyReceiver<T> {
    /// Blocks the calling thread until the response is received. Must not be called on gRPC's threads.
    ///
    /// # Errors
    /// [`Dropped`] if the sender was dropped.
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
    fn receives_a_response_or_that_the_sender_was_dropped() {
        let (tx, rx) = reply();
        std::thread::spawn(move || tx.send(7));
        assert_eq!(rx.wait(), Ok(7));
        let (tx, rx) = reply::<u8>();
        drop(tx);
        assert_eq!(rx.wait(), Err(Dropped));
    }
}
