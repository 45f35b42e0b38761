//! A producer: appends records to one log, each once and in order.
//!
//! - `ack`: the handle of a record that was sent
//! - `queue`: records that are not in a request yet
//! - `requests`: requests that are not answered, and what is known about each
//! - `core`: what the threads share
//! - `receiver`: opens a stream, and receives its answers
//! - `worker`: chooses the node of a stream, and decides after failures

mod ack;
mod core;
mod queue;
mod receiver;
mod requests;
mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use grpcio::RpcStatusCode;
use parking_lot::Mutex;

pub use self::ack::{Ack, AckHandle};
use self::core::Core;
use self::queue::{Ended, Queue, Sizes};
use self::requests::Requests;
use self::worker::{Identity, Worker};
use super::error::{Error, Result};
use super::nodes::Nodes;
use super::record::Record;
use super::route::{Operation, Route};
use super::wait::Stop;
use crate::reason::Outcome;
use crate::thread::{self, Joiner, fatal_channel};

/// The limits of a log are read again at most once in this time.
const LIMITS_AGE_MAX: Duration = Duration::from_secs(1);

/// How a producer sends.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// The log. Empty: `default`.
    pub log: String,
    /// A name under which the log remembers what this producer has appended. One process at a time uses it: a newer one
    /// fences the one before. `None`: an unnamed producer.
    pub name: Option<String>,
    /// What people see of this process in the list of producers, for example its host. At most 255 bytes.
    pub owner: String,
    /// The maximum number of records in a request. Default: 1,000.
    pub batch_records: usize,
    /// The maximum content of a request. A larger record is sent alone. Default: 512 KiB.
    pub batch_bytes: usize,
    /// The maximum content of all records that are not answered. Default: 32 MiB.
    pub buffer_bytes: usize,
    /// How long it tries to append a record. Default: 120 s.
    pub delivery_timeout: Duration,
}

impl ProducerOptions {
    /// The defaults, for a log.
    pub fn new(log: impl Into<String>) -> ProducerOptions {
        ProducerOptions { log: log.into(), ..ProducerOptions::default() }
    }
}

impl Default for ProducerOptions {
    fn default() -> ProducerOptions {
        ProducerOptions {
            log: String::new(),
            name: None,
            owner: format!("seriatim client (Rust), process {}", std::process::id()),
            batch_records: 1000,
            batch_bytes: 512 << 10,
            buffer_bytes: 32 << 20,
            delivery_timeout: Duration::from_secs(120),
        }
    }
}

/// What a producer of this name has appended before. An unnamed one begins with nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The sequence of its last request; 0: there was none.
    pub last_sequence: u64,
    /// The offset of its last record.
    pub last_offset: u64,
    /// The number of its records, in all processes. A source with one record for each of its items continues with the
    /// item after that many.
    pub records: u64,
}

/// Appends records to one log, each once and in the order of the calls. Threads share it, by reference or in an
/// [`Arc`].
///
/// While a request is unanswered, the next records gather, and are sent together.
///
/// The first record that can't be appended ends the producer: that record and all later ones fail, so that none is left
/// out.
pub struct Producer {
    core: Arc<Core>,
    stop: Arc<Stop>,
    worker: Mutex<Option<Joiner>>,
    /// Until it is closed.
    nodes: Mutex<Option<Arc<Nodes>>>,
    log: String,
    log_id: String,
    /// When the limits of the log were last read because of a record that exceeds them.
    limits_read: Mutex<Option<Instant>>,
    progress: Progress,
}

impl Producer {
    /// Registers the producer.
    pub(super) fn open(nodes: &Arc<Nodes>, options: &ProducerOptions) -> Result<Producer> {
        if options.batch_records == 0 || options.batch_bytes == 0 || options.buffer_bytes == 0 {
            let text = "batch_records, batch_bytes and buffer_bytes must be above 0";
            return Err(Error::local(RpcStatusCode::INVALID_ARGUMENT, text, Outcome::None));
        }
        let identity = Identity {
            log: options.log.clone(),
            name: options.name.clone().unwrap_or_default(),
            owner: options.owner.clone(),
        };
        let until = Instant::now() + nodes.options.operation_timeout;
        let registered = worker::register(nodes, &identity, None, &Operation { until, reads: false, stop: None })?;
        let reading = Operation { until, reads: true, stop: None };
        let limits = worker::limits(nodes, &options.log, &registered.log_id, &reading)?;
        let sizes = Sizes {
            batch_records: options.batch_records,
            batch_bytes: options.batch_bytes,
            buffer_bytes: options.buffer_bytes,
        };
        let core = Arc::new(Core::new(Queue::new(sizes, limits), Requests::new(&registered)));
        let stop = Arc::new(Stop::new());
        let worker = Worker {
            core: core.clone(),
            nodes: nodes.clone(),
            stop: stop.clone(),
            identity,
            log_id: registered.log_id.clone(),
            delivery_timeout: options.delivery_timeout,
            route: Route::new(nodes),
            node: None,
            not_before: Instant::now(),
            last_error: None,
        };
        let (fatal, _) = fatal_channel();
        let worker = thread::spawn("seriatim-send", &fatal, move || worker.run())
            .map_err(|e| Error::local(RpcStatusCode::RESOURCE_EXHAUSTED, format!("no thread: {e}"), Outcome::None))?;
        let progress = Progress {
            last_sequence: registered.last_sequence,
            last_offset: registered.last_offset,
            records: registered.records,
        };
        Ok(Producer {
            core,
            stop,
            worker: Mutex::new(Some(worker)),
            nodes: Mutex::new(Some(nodes.clone())),
            log: options.log.clone(),
            log_id: registered.log_id,
            limits_read: Mutex::new(None),
            progress,
        })
    }

    /// Returns what a producer of this name has appended before this process.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Sends a record, and returns a handle for its acknowledgement. Waits while the buffer is full.
    ///
    /// # Errors
    /// If the record exceeds the limit of the log (kind `too_large`), and the producer goes on; or if an earlier record
    /// failed, or the producer is closed. In each case, the record is not appended.
    pub fn send(&self, record: impl Into<Record>) -> Result<AckHandle> {
        self.send_until(record.into(), None)
    }

    /// Like [`Producer::send`], but waits at most this long while the buffer is full.
    ///
    /// # Errors
    /// As [`Producer::send`], and with the kind `timeout` if the buffer stays full.
    pub fn send_timeout(&self, record: impl Into<Record>, timeout: Duration) -> Result<AckHandle> {
        self.send_until(record.into(), Some(Instant::now() + timeout))
    }

    fn send_until(&self, record: Record, until: Option<Instant>) -> Result<AckHandle> {
        if self.core.is_too_large(record.content_bytes()) {
            self.read_limits(until);
        }
        self.core.send(record, until)
    }

    /// Reads the limits of the log again, because they may have been raised. If no node answers, the known ones apply.
    fn read_limits(&self, until: Option<Instant>) {
        // Held while they are read, so that other callers get the answer, too.
        let mut read = self.limits_read.lock();
        if read.is_some_and(|at| at.elapsed() < LIMITS_AGE_MAX) {
            return;
        }
        let Some(nodes) = self.nodes.lock().clone() else { return };
        let attempt = Instant::now() + nodes.options.attempt_timeout;
        let until = until.map_or(attempt, |until| until.min(attempt));
        let operation = Operation { until, reads: true, stop: Some(&self.stop) };
        if let Ok(limits) = worker::limits(&nodes, &self.log, &self.log_id, &operation) {
            self.core.set_limits(&mut self.core.queue.lock(), limits);
        }
        *read = Some(Instant::now());
    }

    /// Appends a record, and waits for its acknowledgement.
    ///
    /// # Errors
    /// As [`Producer::send`] and [`AckHandle::wait`].
    pub fn append(&self, record: impl Into<Record>) -> Result<Ack> {
        self.send(record)?.wait()
    }

    /// Waits until everything that was sent before is answered.
    ///
    /// # Errors
    /// The error that has ended the producer; with the kind `timeout` if the time is over first.
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        if !self.core.wait_settled(Some(Instant::now() + timeout)) {
            let text = format!("not everything was answered within {timeout:?}");
            return Err(Error::local(RpcStatusCode::DEADLINE_EXCEEDED, text, Outcome::None));
        }
        match &self.core.queue.lock().ended {
            Some(Ended::Failed(error)) => Err(error.clone()),
            Some(Ended::Closing) | None => Ok(()),
        }
    }

    /// Accepts no more records, and waits until all are answered. What is left after the timeout fails. A second call
    /// changes nothing.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub fn close(&self, timeout: Duration) -> Result<()> {
        self.end();
        let flushed = self.flush(timeout);
        self.join();
        flushed
    }

    /// Accepts no more records, and does not wait. Callers that wait for room get an error. [`Producer::close`] begins
    /// with this.
    pub fn end(&self) {
        let mut queue = self.core.queue.lock();
        queue.ended.get_or_insert(Ended::Closing);
        drop(queue);
        self.core.changed.notify_all();
    }

    fn join(&self) {
        self.stop.stop();
        self.core.bell.ring();
        // Held while the thread is joined, so that a second caller waits, too.
        let mut worker = self.worker.lock();
        if let Some(worker) = worker.take() {
            worker.join();
        }
        *self.nodes.lock() = None;
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if self.worker.lock().is_some() {
            let left = self.core.queue.lock().unanswered();
            log::warn!("a producer was dropped without close log={} unanswered={left}", self.log);
            self.end();
            self.join();
        }
    }
}
