//! A consumer: reads one log, and continues after failures.
//!
//! - `start`: where it begins
//! - `buffer`: the records that were read ahead
//! - `cursor`: the position that the cluster keeps
//! - `reader`: the thread that reads

mod buffer;
mod cursor;
mod reader;
mod start;

use std::sync::Arc;
use std::time::{Duration, Instant};

use grpcio::RpcStatusCode;
use parking_lot::Mutex;

use self::buffer::Buffer;
pub use self::cursor::CursorState;
use self::cursor::OwnCursor;
pub(super) use self::cursor::get as get_cursor;
use self::reader::{Position, Reader};
pub use self::start::StartAt;
use super::error::{Error, Result};
use super::nodes::Nodes;
use super::record::ReceivedRecord;
use super::route::Route;
use super::wait::Stop;
use crate::doorbell::Doorbell;
use crate::reason::Outcome;
use crate::thread::{self, Joiner, fatal_channel};

/// What a consumer reads, and how.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// The log. Empty: `default`.
    pub log: String,
    /// Where reading begins. With a cursor, where a new one begins.
    pub start: StartAt,
    /// The name of a cursor, which keeps the position in the cluster. One process at a time uses it: a newer one fences
    /// the one before. `None`: the application keeps the position.
    pub cursor: Option<String>,
    /// The interval at which the position is committed. `None`: only [`Consumer::commit`] commits it.
    pub auto_commit: Option<Duration>,
    /// Continue after records that were trimmed before they were read. Default: fail with `trimmed`.
    pub skip_trimmed: bool,
    /// The time without records after which the server sends a sign of life, at least 1 s. A stream that is silent for
    /// three times as long is opened again. Default: 10 s.
    pub heartbeat: Duration,
    /// Fail if no node sends anything for this long. `None`: try without an end.
    pub max_silence: Option<Duration>,
    /// What people see of this process in the list of cursors, for example its host. At most 255 bytes.
    pub owner: String,
}

impl ConsumerOptions {
    /// The defaults, for a log: all records that exist, and then new ones.
    pub fn new(log: impl Into<String>) -> ConsumerOptions {
        ConsumerOptions { log: log.into(), ..ConsumerOptions::default() }
    }
}

impl Default for ConsumerOptions {
    fn default() -> ConsumerOptions {
        ConsumerOptions {
            log: String::new(),
            start: StartAt::Earliest,
            cursor: None,
            auto_commit: None,
            skip_trimmed: false,
            heartbeat: Duration::from_secs(10),
            max_silence: None,
            owner: format!("seriatim client (Rust), process {}", std::process::id()),
        }
    }
}

/// Reads one log: an iterator over its records, which waits for new ones at the end. Threads can share it.
///
/// It returns each record once and in order, also if a node fails: it continues at another one.
pub struct Consumer {
    buffer: Arc<Buffer>,
    stop: Arc<Stop>,
    bell: Doorbell,
    threads: Mutex<Vec<Joiner>>,
    /// Until it is closed.
    cursor: Mutex<Option<Arc<OwnCursor>>>,
    commits_itself: bool,
}

impl Consumer {
    /// Acquires the cursor, if there is one, and begins to read.
    pub(super) fn open(nodes: &Arc<Nodes>, options: &ConsumerOptions) -> Result<Consumer> {
        let invalid = |text: &str| Err(Error::local(RpcStatusCode::INVALID_ARGUMENT, text, Outcome::None));
        if options.heartbeat < Duration::from_secs(1) {
            return invalid("the heartbeat must be 1 s or more");
        }
        if options.auto_commit.is_some() && options.cursor.is_none() {
            return invalid("auto_commit needs a cursor");
        }
        let cursor = options
            .cursor
            .as_deref()
            .map(|name| OwnCursor::acquire(nodes, &options.log, name, options.start, &options.owner).map(Arc::new));
        let cursor = cursor.transpose()?;
        let (buffer, stop, bell) = (Arc::<Buffer>::default(), Arc::new(Stop::new()), Doorbell::default());
        let mut position = Position::default();
        if let Some(cursor) = &cursor {
            buffer.begin_at(cursor.next_offset);
            position = Position { log_id: Some(cursor.log_id.clone()), next_offset: Some(cursor.next_offset) };
        } else if let StartAt::Offset(offset) = options.start {
            position.next_offset = Some(offset);
        }
        let reader = Reader {
            nodes: nodes.clone(),
            buffer: buffer.clone(),
            stop: stop.clone(),
            bell: bell.clone(),
            log: options.log.clone(),
            start: options.start,
            cursor: cursor.clone(),
            heartbeat: options.heartbeat,
            skip_trimmed: options.skip_trimmed,
            max_silence: options.max_silence,
            position,
            route: Route::new(nodes),
            damaged: Vec::new(),
            heard: Instant::now(),
        };
        let (fatal, _) = fatal_channel();
        let no_thread = |e| Error::local(RpcStatusCode::RESOURCE_EXHAUSTED, format!("no thread: {e}"), Outcome::None);
        let reading = thread::spawn("seriatim-read", &fatal, move || reader.run()).map_err(no_thread)?;
        let commits_itself = options.auto_commit.is_some();
        let committed = cursor.clone();
        let consumer = Consumer {
            buffer,
            stop,
            bell,
            threads: Mutex::new(vec![reading]),
            cursor: Mutex::new(cursor),
            commits_itself,
        };
        if let (Some(interval), Some(cursor)) = (options.auto_commit, committed) {
            let (buffer, stop) = (consumer.buffer.clone(), consumer.stop.clone());
            let body = move || cursor.commit_every(interval, &buffer, &stop);
            let committing = thread::spawn("seriatim-commit", &fatal, body).map_err(no_thread)?;
            consumer.threads.lock().push(committing);
        }
        Ok(consumer)
    }

    /// Waits for the next record. Returns `None` after the consumer was closed.
    ///
    /// # Errors
    /// The error that has ended the consumer.
    pub fn recv(&self) -> Result<Option<ReceivedRecord>> {
        self.buffer.take(None, || self.bell.ring())
    }

    /// Waits at most this long for the next record. Returns `None` if none has come, and after the consumer was closed.
    ///
    /// # Errors
    /// As [`Consumer::recv`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<ReceivedRecord>> {
        self.buffer.take(Some(Instant::now() + timeout), || self.bell.ring())
    }

    /// Returns the number of records that were trimmed before they could be read, up to the last record that was
    /// returned.
    pub fn skipped(&self) -> u64 {
        self.buffer.skipped()
    }

    /// Returns true after [`Consumer::close`].
    pub fn is_closed(&self) -> bool {
        self.buffer.is_closed()
    }

    /// Stores the position after the last record that was returned, so that the next process with this cursor begins
    /// there. Returns the position.
    ///
    /// # Errors
    /// With the kind `fenced`, if another process has acquired the cursor; with `invalid`, if the consumer has no cursor.
    pub fn commit(&self) -> Result<u64> {
        if self.is_closed() {
            return Err(Error::closed("consumer"));
        }
        let Some(cursor) = self.cursor.lock().clone() else {
            let text = "a consumer without a cursor commits nothing";
            return Err(Error::local(RpcStatusCode::INVALID_ARGUMENT, text, Outcome::None));
        };
        cursor.commit(|| self.buffer.taken(), false, Some(&self.stop))
    }

    /// Ends the consumer. If it commits by itself, it commits once more: the records whose successor was asked for. A
    /// second call changes nothing.
    ///
    /// # Errors
    /// If that commit fails.
    pub fn close(&self) -> Result<()> {
        let settled = self.buffer.settled();
        self.buffer.close();
        self.join();
        let Some(cursor) = self.cursor.lock().take().filter(|_| self.commits_itself) else { return Ok(()) };
        cursor.commit(|| settled, true, None).map(|_| ())
    }

    /// Ends the threads.
    fn join(&self) {
        self.stop.stop();
        self.bell.ring();
        // Held while they are joined, so that a second caller waits, too.
        let mut threads = self.threads.lock();
        threads.drain(..).for_each(Joiner::join);
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.buffer.close();
        self.join();
    }
}

/// Ends after the first error, and when the consumer is closed.
impl Iterator for Consumer {
    type Item = Result<ReceivedRecord>;

    fn next(&mut self) -> Option<Result<ReceivedRecord>> {
        (&*self).next()
    }
}

impl Iterator for &Consumer {
    type Item = Result<ReceivedRecord>;

    fn next(&mut self) -> Option<Result<ReceivedRecord>> {
        let item = self.recv().transpose()?;
        if item.is_err() {
            self.buffer.finish();
        }
        Some(item)
    }
}
