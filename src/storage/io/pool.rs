//! The `reader` threads: they execute reads that may wait for the disk.
//!
//! There are two queues: reads of clients, and reads of the node itself (entries for followers, retention). Each has
//! its own limit, and its own thread that prefers it. So clients that read many cold parts of a log neither fill the
//! queue of followers' reads nor delay such a read by more than the read in progress. Likewise, a follower that catches
//! up leaves one thread to the clients.

use std::io;

use crossbeam_channel::{Receiver, select};
use thiserror::Error;

use crate::inbox::{Inbox, Outbox, inbox};
use crate::thread::{self, FatalSender, Joiner};

/// The maximum number of queued jobs of clients. A further job is refused with [`QueueFull`], and its caller returns
/// RESOURCE_EXHAUSTED.
pub const QUEUE_JOBS_MAX: usize = 1024;

/// The maximum number of queued jobs of the node itself: a fetch for each follower of each group, and a retention check
/// for each log. A further job is refused, and its caller retries.
pub const OWN_JOBS_MAX: usize = 1024;

/// The queue of cold reads is full, or the readers have stopped. The job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many reads wait for the disk")]
pub struct QueueFull;

type Job = Box<dyn FnOnce() + Send>;

enum ReaderMsg {
    Run(Job),
    Stop,
}

/// The threads. When this is dropped, they finish the queued jobs and stop.
pub struct Readers {
    handle: ReadersHandle,
    threads: Vec<Joiner>,
}

/// Queues jobs for the threads; clones share the queues.
#[derive(Clone)]
pub struct ReadersHandle {
    clients: Outbox<ReaderMsg>,
    own: Outbox<ReaderMsg>,
}

impl Readers {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system can't create threads.
    pub fn start(fatal: &FatalSender) -> io::Result<Readers> {
        let (clients, of_clients) = inbox(QUEUE_JOBS_MAX);
        let (own, of_own) = inbox(OWN_JOBS_MAX);
        let mut readers = Readers { handle: ReadersHandle { clients, own }, threads: Vec::new() };
        for (i, [first, second]) in [[&of_own, &of_clients], [&of_clients, &of_own]].into_iter().enumerate() {
            let (first, second) = (first.clone(), second.clone());
            let body = move || run(&first, &second);
            readers.threads.push(thread::spawn(&format!("reader-{i}"), fatal, body)?);
        }
        Ok(readers)
    }

    pub fn handle(&self) -> ReadersHandle {
        self.handle.clone()
    }

    /// Finishes the queued jobs and stops the threads.
    pub fn stop(self) {}
}

impl Drop for Readers {
    fn drop(&mut self) {
        // A thread stops when it has received one stop message from each queue. Sending waits until the threads have
        // made room.
        for _ in &self.threads {
            self.handle.clients.send(ReaderMsg::Stop);
            self.handle.own.send(ReaderMsg::Stop);
        }
        self.threads.clear();
    }
}

/// Runs the jobs of both queues. A job of `first` takes precedence.
fn run(first: &Inbox<ReaderMsg>, second: &Inbox<ReaderMsg>) -> Result<(), io::Error> {
    let (mut first, mut second) = (Receiver::clone(first), Receiver::clone(second));
    let never = crossbeam_channel::never;
    let mut open = 2;
    while open > 0 {
        let (message, of_first) = match first.try_recv() {
            Ok(message) => (Some(message), true),
            Err(_) => select! {
                recv(first) -> message => (message.ok(), true),
                recv(second) -> message => (message.ok(), false),
            },
        };
        match message {
            Some(ReaderMsg::Run(job)) => job(),
            Some(ReaderMsg::Stop) | None => {
                open -= 1;
                if of_first { first = never() } else { second = never() }
            }
        }
    }
    Ok(())
}

impl ReadersHandle {
    /// Queues a client's job; never blocks.
    ///
    /// # Errors
    /// [`QueueFull`].
    pub fn run(&self, job: Job) -> Result<(), QueueFull> {
        self.clients.try_send(ReaderMsg::Run(job)).map_err(|_| QueueFull)
    }

    /// Queues a job of the node itself; never blocks.
    ///
    /// # Errors
    /// [`QueueFull`].
    pub fn run_own(&self, job: Job) -> Result<(), QueueFull> {
        self.own.try_send(ReaderMsg::Run(job)).map_err(|_| QueueFull)
    }
}

/// The readers without their threads, for simulations.
#[cfg(test)]
pub(crate) struct ReadersByHand {
    handle: ReadersHandle,
    queues: [Inbox<ReaderMsg>; 2],
}

#[cfg(test)]
impl ReadersByHand {
    /// Creates queues with room for this many jobs each.
    pub fn new(jobs_max: usize) -> ReadersByHand {
        let ((clients, of_clients), (own, of_own)) = (inbox(jobs_max), inbox(jobs_max));
        ReadersByHand { handle: ReadersHandle { clients, own }, queues: [of_own, of_clients] }
    }

    pub fn handle(&self) -> ReadersHandle {
        self.handle.clone()
    }

    /// Executes the queued jobs.
    pub fn run(&self) {
        self.queues.iter().flat_map(|queue| queue.try_iter()).for_each(|msg| {
            if let ReaderMsg::Run(job) = msg {
                job();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::reply;
    use crossbeam_channel::{TrySendError, bounded, unbounded};

    #[test]
    fn jobs_run_and_the_queue_has_an_end() {
        let (fatal, _failures) = thread::fatal_channel();
        let readers = Readers::start(&fatal).expect("threads");
        let handle = readers.handle();
        let (gate, gates) = bounded::<()>(0);
        for _ in 0..readers.threads.len() {
            let gates = gates.clone();
            let job = move || assert!(gates.recv().is_err(), "opened by going away");
            handle.run(Box::new(job)).expect("room");
        }
        let mut queued = 0;
        while handle.run(Box::new(|| ())).is_ok() {
            queued += 1;
        }
        assert!((QUEUE_JOBS_MAX - readers.threads.len()..=QUEUE_JOBS_MAX).contains(&queued), "{queued}");
        drop(gate);
        let (tx, rx) = reply();
        let mut job: Job = Box::new(move || tx.send(1));
        let sent = loop {
            match handle.clients.try_send(ReaderMsg::Run(job)) {
                Err(TrySendError::Full(ReaderMsg::Run(again))) => job = again,
                other => break other.is_ok(),
            }
        };
        assert!(sent);
        assert_eq!(rx.wait(), Ok(1));
        readers.stop();
        assert_eq!(handle.run(Box::new(|| ())), Err(QueueFull), "stopped");
        assert_eq!(handle.run_own(Box::new(|| ())), Err(QueueFull), "stopped");
    }

    /// Once, a thousand cold reads of clients filled the only queue: a follower's fetch was refused, or would have
    /// waited for all of them.
    #[test]
    fn neither_queue_starves_the_other() {
        const ROUNDS: usize = 200;
        let (fatal, _failures) = thread::fatal_channel();
        let readers = Readers::start(&fatal).expect("threads");
        let handle = readers.handle();
        let (at_gate, arrived) = unbounded::<(usize, bool)>();
        let (gates, waits): (Vec<_>, Vec<_>) = [bounded::<()>(0), bounded(0)].into_iter().unzip();
        // Every job waits at the gate of its thread.
        let job = |own: bool| {
            let (at_gate, waits) = (at_gate.clone(), waits.clone());
            Box::new(move || {
                let name = std::thread::current().name().map(str::to_owned).unwrap_or_default();
                let reader = usize::from(name == "reader-1");
                // At the end the receiver and the gates are dropped.
                let _ = at_gate.send((reader, own));
                let _ = waits[reader].recv();
            })
        };
        for _ in 0..2 {
            handle.run(job(false)).expect("room");
            assert!(arrived.recv().is_ok_and(|(_, own)| !own), "each thread is at a client's job");
        }
        while handle.run(job(false)).is_ok() {}
        for _ in 0..ROUNDS {
            handle.run_own(job(true)).expect("room, though clients have filled theirs");
        }
        let next = |reader: usize| {
            gates[reader].send(()).expect("it waits");
            arrived.recv().expect("the next job")
        };
        for round in 0..ROUNDS {
            assert_eq!(next(0), (0, true), "round {round}: the node's own come first");
            assert_eq!(next(1), (1, false), "round {round}: the clients' go on");
        }
        assert_eq!(next(0), (0, false), "with nothing of the node's own it helps the clients");
        drop((gates, arrived));
        readers.stop();
    }
}
