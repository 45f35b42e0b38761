//! The records that are not in a request yet, and the space of all that are not answered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::ack::AckSlot;
use crate::client::error::Error;
use crate::pb::v1;

/// The maximum of unanswered records, so that records without content are limited, too.
const RECORDS_MAX: usize = 250_000;

/// A record that is not answered yet.
#[derive(Debug)]
pub(super) struct Entry {
    pub record: v1::Record,
    /// The size that the limits count.
    pub bytes: usize,
    /// Its number among all records of this producer.
    pub number: u64,
    pub at: Instant,
    pub slot: Arc<AckSlot>,
}

impl Entry {
    /// Returns an upper bound of the encoded size.
    pub fn encoded_bytes(&self) -> usize {
        self.bytes + 48 + 12 * self.record.headers.len()
    }
}

/// The limits of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub record_bytes: usize,
    pub request_bytes: usize,
}

/// When a request is full, and how much is buffered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub batch_records: usize,
    pub batch_bytes: usize,
    pub buffer_bytes: usize,
}

/// Why no more records are accepted.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    /// The application has closed the producer.
    Closing,
    /// A record failed, and so all later ones.
    Failed(Error),
}

#[derive(Debug)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    /// The content of `entries`.
    bytes: usize,
    /// The content of all records that are not answered.
    buffered_bytes: usize,
    buffered: usize,
    /// The number of the next record.
    next_number: u64,
    /// All records with lower numbers are answered.
    pub settled: u64,
    pub sizes: Sizes,
    pub limits: Limits,
    pub ended: Option<Ended>,
    /// The number of threads that wait for a change.
    pub waiting: usize,
}

impl Queue {
    pub fn new(sizes: Sizes, limits: Limits) -> Queue {
        Queue {
            entries: VecDeque::new(),
            bytes: 0,
            buffered_bytes: 0,
            buffered: 0,
            next_number: 0,
            settled: 0,
            sizes,
            limits,
            ended: None,
            waiting: 0,
        }
    }

    /// Returns true if a record of this size fits into the buffer. One that is larger than the buffer needs all of it.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.buffered == 0 || (self.buffered_bytes + bytes <= self.sizes.buffer_bytes && self.buffered < RECORDS_MAX)
    }

    /// Returns the number of records that were accepted.
    pub fn accepted(&self) -> u64 {
        self.next_number
    }

    pub fn unanswered(&self) -> usize {
        self.buffered
    }

    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    pub fn push(&mut self, record: v1::Record, bytes: usize, slot: Arc<AckSlot>, at: Instant) {
        self.entries.push_back(Entry { record, bytes, number: self.next_number, at, slot });
        self.next_number += 1;
        self.bytes += bytes;
        self.buffered_bytes += bytes;
        self.buffered += 1;
    }

    /// Puts entries of a request back, in front of the others.
    pub fn put_back(&mut self, entries: Vec<Entry>) {
        for entry in entries.into_iter().rev() {
            self.bytes += entry.bytes;
            self.entries.push_front(entry);
        }
    }

    /// Removes and returns the entries for which `which` is true.
    pub fn extract(&mut self, which: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let (out, kept): (Vec<Entry>, Vec<Entry>) = self.entries.drain(..).partition(which);
        self.entries = kept.into();
        self.bytes -= out.iter().map(|entry| entry.bytes).sum::<usize>();
        out
    }

    pub fn take_all(&mut self) -> Vec<Entry> {
        self.bytes = 0;
        self.entries.drain(..).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn front(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// Returns true if the records fill a request.
    pub fn has_full_batch(&self) -> bool {
        self.entries.len() >= self.sizes.batch_records || self.bytes >= self.batch_bytes()
    }

    fn batch_bytes(&self) -> usize {
        self.sizes.batch_bytes.min(self.limits.request_bytes)
    }

    /// Takes the records of the next request, unless their encoded size is above `room`.
    pub fn take_batch(&mut self, room: usize) -> Option<Vec<Entry>> {
        let (mut count, mut bytes, mut encoded) = (0, 0, 0);
        for entry in self.entries.iter().take(self.sizes.batch_records) {
            if count > 0 && bytes + entry.bytes > self.batch_bytes() {
                break;
            }
            (count, bytes, encoded) = (count + 1, bytes + entry.bytes, encoded + entry.encoded_bytes());
        }
        if count == 0 || encoded > room {
            return None;
        }
        self.bytes -= bytes;
        Some(self.entries.drain(..count).collect())
    }

    /// Releases the space of records that are answered.
    pub fn release(&mut self, count: usize, bytes: usize) {
        self.buffered -= count;
        self.buffered_bytes -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(batch_records: usize, batch_bytes: usize) -> Queue {
        let sizes = Sizes { batch_records, batch_bytes, buffer_bytes: 100 };
        Queue::new(sizes, Limits { record_bytes: 50, request_bytes: 60 })
    }

    fn push(queue: &mut Queue, bytes: usize) {
        let record = v1::Record { value: vec![0; bytes].into(), ..v1::Record::default() };
        queue.push(record, bytes, Arc::default(), Instant::now());
    }

    fn numbers(batch: Option<Vec<Entry>>) -> Vec<u64> {
        batch.unwrap_or_default().iter().map(|entry| entry.number).collect()
    }

    #[test]
    fn a_request_has_at_most_so_many_records_and_bytes() {
        let mut queue = queue(3, 1000);
        (0..4).for_each(|_| push(&mut queue, 1));
        assert!(queue.has_full_batch());
        assert_eq!(numbers(queue.take_batch(usize::MAX)), [0, 1, 2]);
        assert!(!queue.has_full_batch());
        push(&mut queue, 50);
        push(&mut queue, 10);
        assert!(queue.has_full_batch(), "the log allows 60 bytes");
        assert!(queue.take_batch(10).is_none(), "no room");
        assert_eq!(numbers(queue.take_batch(usize::MAX)), [3, 4]);
        assert_eq!(numbers(queue.take_batch(usize::MAX)), [5]);
        assert!(queue.take_batch(usize::MAX).is_none());
    }

    #[test]
    fn the_buffer_counts_records_until_they_are_answered() {
        let mut queue = queue(10, 1000);
        assert!(queue.has_room(1000), "a record that is larger than the buffer");
        push(&mut queue, 90);
        assert!(queue.has_room(10) && !queue.has_room(11));
        assert_eq!(numbers(queue.take_batch(usize::MAX)), [0]);
        assert!(!queue.has_room(11), "it is sent, and not answered");
        queue.release(1, 90);
        assert!(queue.has_room(11));
    }

    #[test]
    fn records_are_put_back_in_order() {
        let mut queue = queue(2, 1000);
        (0..3).for_each(|_| push(&mut queue, 1));
        let batch = queue.take_batch(usize::MAX).expect("records");
        queue.put_back(batch);
        let out = queue.extract(|entry| entry.number == 1);
        assert_eq!(numbers(Some(out)), [1]);
        assert_eq!(numbers(queue.take_batch(usize::MAX)), [0, 2]);
    }
}
