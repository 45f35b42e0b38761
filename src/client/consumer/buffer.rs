//! The records that were read ahead, between the thread that reads and the application.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::client::error::{Error, Result};
use crate::client::record::ReceivedRecord;

/// Nothing more is read while more than this is buffered. The limits are 4 MiB and 10,000 records; a message has up to
/// 1 MiB or 1,000 records, and gRPC reads one ahead.
const BYTES_HIGH: usize = 2 << 20;
const RECORDS_HIGH: usize = 8000;

/// The memory of a record besides its content.
const RECORD_BYTES: usize = 64;

#[derive(Debug)]
enum Item {
    Record(ReceivedRecord),
    /// Records that were trimmed before they were read, up to this offset.
    Skipped {
        count: u64,
        next_offset: u64,
    },
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    skipped: u64,
    /// The offset after the last record that the application has taken.
    taken: Option<u64>,
    /// The same for the last record whose successor the application has asked for.
    settled: Option<u64>,
    /// No more records follow. Contains the error, unless the application has closed the consumer.
    ended: Option<Option<Error>>,
}

impl State {
    fn has_room(&self) -> bool {
        self.bytes <= BYTES_HIGH && self.items.len() <= RECORDS_HIGH
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    state: Mutex<State>,
    /// Items were added, or none follow.
    added: Condvar,
}

impl Buffer {
    /// The position before the first record is taken.
    pub fn begin_at(&self, next_offset: u64) {
        let mut state = self.state.lock();
        (state.taken, state.settled) = (Some(next_offset), Some(next_offset));
    }

    pub fn has_room(&self) -> bool {
        self.state.lock().has_room()
    }

    pub fn add(&self, records: impl Iterator<Item = ReceivedRecord>) {
        let mut state = self.state.lock();
        for record in records {
            state.bytes += record.record.content_bytes() + RECORD_BYTES;
            state.items.push_back(Item::Record(record));
        }
        drop(state);
        self.added.notify_all();
    }

    pub fn skip(&self, count: u64, next_offset: u64) {
        self.state.lock().items.push_back(Item::Skipped { count, next_offset });
        self.added.notify_all();
    }

    /// Ends the consumer. The first call counts.
    pub fn end(&self, error: Option<Error>) {
        self.state.lock().ended.get_or_insert(error);
        self.added.notify_all();
    }

    /// Drops what was read ahead, and ends the consumer.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.items.clear();
        state.ended.get_or_insert(None);
        drop(state);
        self.added.notify_all();
    }

    /// The application has seen the error.
    pub fn finish(&self) {
        self.state.lock().ended = Some(None);
    }

    /// Takes the next record. Returns `None` at `until`, and if the consumer was closed. Calls `on_room` if there is
    /// room again.
    pub fn take(&self, until: Option<Instant>, on_room: impl Fn()) -> Result<Option<ReceivedRecord>> {
        let mut state = self.state.lock();
        state.settled = state.taken;
        loop {
            let had_room = state.has_room();
            match state.items.pop_front() {
                Some(Item::Record(record)) => {
                    state.bytes -= record.record.content_bytes() + RECORD_BYTES;
                    state.taken = Some(record.offset + 1);
                    if !had_room && state.has_room() {
                        on_room();
                    }
                    return Ok(Some(record));
                }
                Some(Item::Skipped { count, next_offset }) => {
                    state.skipped += count;
                    (state.taken, state.settled) = (Some(next_offset), Some(next_offset));
                    continue;
                }
                None => {}
            }
            match &state.ended {
                Some(Some(error)) => return Err(error.clone()),
                Some(None) => return Ok(None),
                None => {}
            }
            match until {
                None => self.added.wait(&mut state),
                Some(until) => {
                    if self.added.wait_until(&mut state, until).timed_out() && state.items.is_empty() {
                        return match &state.ended {
                            Some(Some(error)) => Err(error.clone()),
                            Some(None) | None => Ok(None),
                        };
                    }
                }
            }
        }
    }

    pub fn skipped(&self) -> u64 {
        self.state.lock().skipped
    }

    /// Returns true if the application has closed the consumer.
    pub fn is_closed(&self) -> bool {
        matches!(self.state.lock().ended, Some(None))
    }

    /// Returns the offset after the last record that the application has taken.
    pub fn taken(&self) -> Option<u64> {
        self.state.lock().taken
    }

    /// Returns the offset after the last record whose successor the application has asked for.
    pub fn settled(&self) -> Option<u64> {
        self.state.lock().settled
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::client::record::Record;

    fn record(offset: u64, bytes: usize) -> ReceivedRecord {
        ReceivedRecord { offset, append_time: UNIX_EPOCH, record: Record::new(vec![0; bytes]) }
    }

    fn take(buffer: &Buffer) -> Option<u64> {
        buffer.take(Some(Instant::now()), || ()).expect("no error").map(|record| record.offset)
    }

    #[test]
    fn a_record_counts_when_its_successor_is_asked_for() {
        let buffer = Buffer::default();
        buffer.add([record(7, 0), record(8, 0)].into_iter());
        assert_eq!((take(&buffer), buffer.taken(), buffer.settled()), (Some(7), Some(8), None));
        assert_eq!((take(&buffer), buffer.taken(), buffer.settled()), (Some(8), Some(9), Some(8)));
        assert_eq!((take(&buffer), buffer.taken(), buffer.settled()), (None, Some(9), Some(9)));
    }

    #[test]
    fn skipped_records_are_counted_in_their_place() {
        let buffer = Buffer::default();
        buffer.add([record(1, 0)].into_iter());
        buffer.skip(3, 5);
        buffer.add([record(5, 0)].into_iter());
        assert_eq!((take(&buffer), buffer.skipped()), (Some(1), 0));
        assert_eq!((take(&buffer), buffer.skipped()), (Some(5), 3));
    }

    #[test]
    fn the_reader_is_told_when_there_is_room_again() {
        let (buffer, told) = (Buffer::default(), Cell::new(0));
        buffer.add((0..4).map(|offset| record(offset, 1 << 20)));
        assert!(!buffer.has_room());
        let rings: Vec<i32> = (0..4)
            .map(|_| {
                let _ = buffer.take(None, || told.set(told.get() + 1));
                told.get()
            })
            .collect();
        assert_eq!(rings, [0, 0, 1, 1], "once");
        assert!(buffer.has_room());
    }

    #[test]
    fn what_was_read_is_returned_before_the_end() {
        let buffer = Buffer::default();
        buffer.add([record(0, 0)].into_iter());
        buffer.end(Some(Error::closed("test")));
        assert_eq!(take(&buffer), Some(0));
        assert!(buffer.take(None, || ()).is_err());
        let closed = Buffer::default();
        closed.add([record(0, 0)].into_iter());
        closed.close();
        assert_eq!(take(&closed), None);
    }
}
