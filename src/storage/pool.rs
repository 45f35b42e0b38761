//! The `reader` threads: they do the reads that would make others wait for the disk.

use std::fmt;
use std::io;

use crate::inbox::{Inbox, Outbox, inbox};
use crate::thread::{self, FatalSender, Joiner};

/// How many threads.
const READERS: usize = 2;

/// How many jobs wait at most. Beyond it a job is refused with [`QueueFull`]: its owner answers RESOURCE_EXHAUSTED or asks
/// again.
pub const QUEUE_JOBS_MAX: usize = 1024;

/// The queue of cold reads is full, or the readers have stopped. The job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

impl fmt::Display for QueueFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many reads wait for the disk")
    }
}

impl std::error::Error for QueueFull {}

type Job = Box<dyn FnOnce() + Send>;

enum ReaderMsg {
    Run(Job),
    Stop,
}

/// The threads. Dropped, they finish what is queued and end.
pub struct Readers {
    handle: ReadersHandle,
    threads: Vec<Joiner>,
}

/// Gives jobs to the threads; a clone gives to the same.
#[derive(Clone)]
pub struct ReadersHandle(Outbox<ReaderMsg>);

impl Readers {
    /// Starts them.
    ///
    /// # Errors
    /// When the system can't make threads.
    pub fn start(fatal: &FatalSender) -> io::Result<Readers> {
        let (outbox, inbox) = inbox(QUEUE_JOBS_MAX);
        let mut readers = Readers { handle: ReadersHandle(outbox), threads: Vec::new() };
        for i in 0..READERS {
            let inbox = inbox.clone();
            let body = move || run(&inbox);
            readers.threads.push(thread::spawn(&format!("reader-{i}"), fatal, body)?);
        }
        Ok(readers)
    }

    /// For who has jobs.
    pub fn handle(&self) -> ReadersHandle {
        self.handle.clone()
    }

    /// Finishes what is queued and ends the threads.
    pub fn stop(self) {}
}

impl Drop for Readers {
    fn drop(&mut self) {
        for _ in &self.threads {
            // Waits for room, which a running reader makes.
            self.handle.0.send(ReaderMsg::Stop);
        }
        self.threads.clear();
    }
}

fn run(jobs: &Inbox<ReaderMsg>) -> Result<(), io::Error> {
    while let Ok(ReaderMsg::Run(job)) = jobs.recv() {
        job();
    }
    Ok(())
}

impl ReadersHandle {
    /// Queues a job; never blocks.
    ///
    /// # Errors
    /// [`QueueFull`].
    pub fn run(&self, job: Job) -> Result<(), QueueFull> {
        self.0.try_send(ReaderMsg::Run(job)).map_err(|_| QueueFull)
    }
}

/// The readers without their threads, for simulations.
#[cfg(test)]
pub(crate) struct ByHand {
    handle: ReadersHandle,
    jobs: Inbox<ReaderMsg>,
}

#[cfg(test)]
impl ByHand {
    /// With room for so many jobs.
    pub fn new(jobs_max: usize) -> ByHand {
        let (outbox, jobs) = inbox(jobs_max);
        ByHand { handle: ReadersHandle(outbox), jobs }
    }

    pub fn handle(&self) -> ReadersHandle {
        self.handle.clone()
    }

    /// Does what is queued.
    pub fn run(&self) {
        self.jobs.try_iter().for_each(|msg| {
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
    use crossbeam_channel::bounded;

    #[test]
    fn jobs_run_and_the_queue_has_an_end() {
        let (fatal, _failures) = thread::fatal_channel();
        let readers = Readers::start(&fatal).expect("threads");
        let handle = readers.handle();
        let (gate, gates) = bounded::<()>(0);
        for _ in 0..READERS {
            let gates = gates.clone();
            let job = move || assert!(gates.recv().is_err(), "opened by going away");
            handle.run(Box::new(job)).expect("room");
        }
        let mut queued = 0;
        while handle.run(Box::new(|| ())).is_ok() {
            queued += 1;
        }
        assert!((QUEUE_JOBS_MAX - READERS..=QUEUE_JOBS_MAX).contains(&queued), "{queued}");
        drop(gate);
        let (tx, rx) = reply();
        let mut job: Job = Box::new(move || tx.send(1));
        let sent = loop {
            match handle.0.try_send(ReaderMsg::Run(job)) {
                Err(crossbeam_channel::TrySendError::Full(ReaderMsg::Run(again))) => job = again,
                other => break other.is_ok(),
            }
        };
        assert!(sent);
        assert_eq!(rx.wait(), Ok(1));
        readers.stop();
        assert_eq!(handle.run(Box::new(|| ())), Err(QueueFull), "stopped");
    }
}
