//! A bounded queue to a thread, in which nothing is left lying: once the thread is gone, what it has not taken is dropped.
//!
//! So whoever waits for a [`reply`](crate::reply) learns it. A channel of crossbeam keeps what was sent before its receiver
//! went for as long as somebody could still send: a request that came just before the thread failed would wait for ever.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// The sending side; a clone sends to the same thread.
#[derive(Debug)]
pub struct Outbox<T> {
    sender: Sender<T>,
    queue: Queue<T>,
}

/// The receiving side; a clone takes from the same queue. When the last one is dropped, the inbox is closed.
#[derive(Debug)]
pub struct Inbox<T>(Arc<Taker<T>>);

#[derive(Debug)]
struct Taker<T>(Queue<T>);

#[derive(Debug)]
struct Queue<T> {
    receiver: Receiver<T>,
    closed: Arc<AtomicBool>,
}

/// Makes the two sides of a queue that holds `messages_max`.
pub fn inbox<T>(messages_max: usize) -> (Outbox<T>, Inbox<T>) {
    let (sender, receiver) = bounded(messages_max);
    let queue = Queue { receiver, closed: Arc::default() };
    (Outbox { sender, queue: queue.clone() }, Inbox(Arc::new(Taker(queue))))
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Queue<T> {
        Queue { receiver: self.receiver.clone(), closed: self.closed.clone() }
    }
}

impl<T> Queue<T> {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn clear(&self) {
        self.receiver.try_iter().for_each(drop);
    }
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Outbox<T> {
        Outbox { sender: self.sender.clone(), queue: self.queue.clone() }
    }
}

impl<T> Outbox<T> {
    /// Sends; waits for room. What is sent to a closed inbox is dropped.
    pub fn send(&self, message: T) {
        // Never an error, as this side holds a receiver; and closing makes room.
        let _ = self.sender.send(message);
        self.sent();
    }

    /// Sends, if there is room. What is sent while the inbox closes may be dropped.
    ///
    /// # Errors
    /// The message, when the queue is full, or the inbox closed.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        if self.queue.is_closed() {
            return Err(TrySendError::Disconnected(message));
        }
        self.sender.try_send(message)?;
        self.sent();
        Ok(())
    }

    /// Either the closing side still saw the message, or this one sees that it is closed.
    fn sent(&self) {
        if self.queue.is_closed() {
            self.queue.clear();
        }
    }
}

impl<T> Clone for Inbox<T> {
    fn clone(&self) -> Inbox<T> {
        Inbox(self.0.clone())
    }
}

impl<T> Deref for Inbox<T> {
    type Target = Receiver<T>;

    fn deref(&self) -> &Receiver<T> {
        &self.0.0.receiver
    }
}

impl<T> Drop for Taker<T> {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::SeqCst);
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::{Dropped, reply};

    #[test]
    fn what_nobody_takes_is_dropped() {
        let (outbox, inbox) = inbox(4);
        let (before, answer_before) = reply::<()>();
        outbox.try_send(before).expect("room");
        let other = inbox.clone();
        drop(inbox);
        assert!(!outbox.queue.is_closed(), "one still takes");
        drop(other);
        assert_eq!(answer_before.wait(), Err(Dropped));
        let (after, answer_after) = reply::<()>();
        outbox.send(after);
        assert_eq!(answer_after.wait(), Err(Dropped));
        assert!(matches!(outbox.try_send(reply().0), Err(TrySendError::Disconnected(_))));
    }

    /// More senders than there is room for, and a thread that goes away in between: each of them gets an answer.
    #[test]
    fn nobody_waits_in_vain_when_the_thread_goes_away() {
        for round in 0..200 {
            let (outbox, inbox) = inbox(2);
            let senders: Vec<_> = (0..8)
                .map(|_| {
                    let outbox = outbox.clone();
                    std::thread::spawn(move || {
                        let (tx, rx) = reply();
                        outbox.send(tx);
                        rx.wait()
                    })
                })
                .collect();
            for _ in 0..round % 8 {
                inbox.recv().expect("eight are sent").send(round);
            }
            drop(inbox);
            let answers: Vec<_> = senders.into_iter().map(|thread| thread.join().expect("no panic")).collect();
            assert_eq!(answers.iter().filter(|answer| **answer == Ok(round)).count(), round % 8);
        }
    }

    #[test]
    fn the_thread_sees_that_nobody_sends_any_more() {
        let (outbox, inbox) = inbox(2);
        outbox.clone().send(1);
        drop(outbox);
        assert_eq!(inbox.recv(), Ok(1));
        assert!(inbox.recv().is_err());
    }
}
