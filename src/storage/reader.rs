//! (being written)
use super::entry::Entry;
use crate::thread::FatalSender;
use crate::types::{LogIndex, Offset};
/// How a read may get at the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// From the page cache, or not at all: never blocks.
    Cached,
    /// Waits for the disk.
    Blocking,
}
/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// With [`Access::Cached`]: the bytes are not in memory; ask a `reader`.
    NotCached,
    /// It is not stored any more.
    Trimmed {
        /// The first stored record.
        first_offset: Offset,
    },
    /// The bytes are not what was written; names file and position.
    Damaged(String),
    /// The system refused to read.
    Io(String),
}
/// Records as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Fields `records` = 3, one behind the other.
    pub bytes: Vec<u8>,
    /// How many.
    pub count: u32,
    /// The offset behind the last one.
    pub next: Offset,
}
/// Reads one group's log; a clone reads the same.
#[derive(Clone)]
pub struct GroupReader;
impl GroupReader {
    /// Records from an offset on.
    pub fn records(
        &self,
        _from: Offset,
        _until: Offset,
        _records_max: u32,
        _bytes_max: usize,
        _access: Access,
    ) -> Result<Slice, ReadError> {
        todo!()
    }
    /// Entries `low..high`.
    pub fn entries(
        &self,
        _low: LogIndex,
        _high: LogIndex,
        _bytes_max: u64,
        _access: Access,
    ) -> Result<Vec<Entry>, ReadError> {
        todo!()
    }
    /// Bytes on disk.
    pub fn stored_bytes(&self) -> u64 {
        todo!()
    }
    /// Unix microseconds of the record at `first_offset`; `None` when there is none.
    pub fn append_time_us(&self, _offset: Offset, _until: Offset, _access: Access) -> Result<Option<u64>, ReadError> {
        todo!()
    }
}
/// The queue of cold reads is full, or the readers have stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;
/// The `reader` threads.
pub struct Readers;
/// Gives jobs to the readers.
#[derive(Clone)]
pub struct ReadersHandle;
impl Readers {
    /// Starts the threads.
    pub fn start(_fatal: &FatalSender) -> std::io::Result<Readers> {
        todo!()
    }
    /// For who has jobs.
    pub fn handle(&self) -> ReadersHandle {
        todo!()
    }
    /// Finishes what is queued and ends the threads.
    pub fn stop(self) {
        todo!()
    }
}
impl ReadersHandle {
    /// Queues a job.
    pub fn run(&self, _job: Box<dyn FnOnce() + Send>) -> Result<(), QueueFull> {
        todo!()
    }
}
