//! A bounded queue to a thread. When the thread ends, the queue drops all remaining messages.
//!
//! A caller that waits for a [`reply`](crate::reply) then sees that its request was dropped. A crossbeam channel
//! alone would keep unreceived messages while a sender exists, and the caller of a request that was sent just before
//! the thread failed would wait forever.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// The sending side. Clones send to the same thread.
#[derive(Debug)]
pub struct Outbox<T> {
    sender: Sender<T>,
    queue: Queue<T>,
}

/// The receiving side. Clones take from the same queue; dropping the last one closes it.
#[derive(Debug)]
pub struct Inbox<T>(Arc<Taker<T>>);

#[derive(Debug)]
struct Taker<T>(Queue<T>);

#[derive(Debug)]
struct Queue<T> {
    receiver: Receiver<T>,
    closed: Arc<AtomicBool>,
}

/// Creates the two sides of a queue that holds `messages_max`.
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
    /// Sends a message, waiting while the queue is full. If the inbox is closed, the message is dropped.
    pub fn send(&self, message: T) {
        // Never fails, because the outbox holds a receiver too. Never blocks forever, because closing empties the
        // queue.
        let _ = self.sender.send(message);
        self.sent();
    }

    /// Sends a message unless the queue is full. If the inbox closes at the same time, the message may be dropped.
    ///
    /// # Errors
    /// Returns the message if the queue is full or the inbox is closed.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        if self.queue.is_closed() {
            return Err(TrySendError::Disconnected(message));
        }
        self.sender.try_send(message)?;
        self.sent();
        Ok(())
    }

    /// Returns the number of messages that are queued.
    pub fn len(&self) -> usize {
        self.queue.receiver.len()
    }

    /// Called after each send. If the inbox closed meanwhile, the message was sent either before it was emptied, or
    /// after `closed` was set, in which case it is dropped here.
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
    fn drops_messages_that_were_not_taken() {
        let (outbox, inbox) = inbox(4);
        let (before, answer_before) = reply::<()>();
        outbox.try_send(before).expect("room");
        let other = inbox.clone();
        drop(inbox);
        assert!(!outbox.queue.is_closed(), "a clone of the inbox still exists");
        drop(other);
        assert_eq!(answer_before.wait(), Err(Dropped));
        let (after, answer_after) = reply::<()>();
        outbox.send(after);
        assert_eq!(answer_after.wait(), Err(Dropped));
        assert!(matches!(outbox.try_send(reply().0), Err(TrySendError::Disconnected(_))));
    }

    /// More senders than the queue holds, and a thread that ends meanwhile: each sender gets a result.
    #[test]
    fn no_sender_waits_forever_when_the_thread_ends() {
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
    fn the_thread_sees_that_all_senders_are_dropped() {
        let (outbox, inbox) = inbox(2);
        outbox.clone().send(1);
        drop(outbox);
        assert_eq!(inbox.recv(), Ok(1));
        assert!(inbox.recv().is_err());
    }
}
