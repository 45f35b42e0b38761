//! The checker: compares what the clients of one log observed with what the log promises. It is pure: it takes
//! observations with their times, and keeps what it finds wrong.
//!
//! It checks these properties. "Known" is what an acknowledgement, a read or the final log of a node has shown.
//!
//! 1. **One record per offset.** No two observations, on whichever nodes and at whichever times, know different records
//!    or append times at an offset ([`Wrong::Replaced`]). So an acknowledged offset contains its record, and all nodes
//!    contain the same records.
//! 2. **Once.** No record is known at two offsets ([`Wrong::Twice`]), whatever became of its requests.
//! 3. **Nothing is invented.** A known record was sent ([`Wrong::Invented`]), and was not certainly refused
//!    ([`Wrong::RefusedButThere`]).
//! 4. **Nothing is lost.** Each known record is in the final log of each node at its offset, unless the log begins after
//!    it ([`Wrong::Lost`]). So nothing was visible or acknowledged that could still vanish.
//! 5. **Offsets have no gap.** A reader, and a final log, get each offset after the one before. They skip only offsets
//!    below the highest trim that was requested ([`Wrong::Gap`]), and never go back ([`Wrong::WentBack`]).
//! 6. **Order of a producer.** The records of an idempotent producer are in the log in the order of their numbers
//!    ([`Wrong::Reordered`]), none left out ([`Wrong::LeftOut`]). What a producer of its name has appended before
//!    includes every acknowledged record, and no record that was not sent or certainly not appended
//!    ([`Wrong::Progress`]).
//! 7. **Real-time order.** A record that was sent after another one was acknowledged has a higher offset
//!    ([`Wrong::TooEarly`]).
//! 8. **Reads are up to date.** A read to the end, from any node, returns every record that was acknowledged before the
//!    read began ([`Wrong::Stale`]).
//! 9. **Timestamps do not decrease** in the final log ([`Wrong::TimeDecreases`]).
//! 10. **The log begins where it was trimmed**: not before an acknowledged trim and not after all requested ones, and all
//!     nodes end at the same offset ([`Wrong::Bounds`]).
//! 11. **Cursors.** A cursor is not before its last acknowledged position, and not after the last one that was asked for
//!     ([`Wrong::Cursor`]).
//! 12. **Expected offsets.** A request with an expected offset is appended there or not at all ([`Wrong::Unexpected`]).

use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Microseconds since the run began, by a monotonic clock.
pub type Time = u64;

/// A record, as its producer has numbered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Item {
    pub producer: u16,
    pub number: u64,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} of producer {}", self.number, self.producer)
    }
}

/// A record as a reader received it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub offset: u64,
    pub item: Item,
    pub append_time_us: u64,
}

/// The whole log of one node, at the end of a run.
#[derive(Clone, Debug, Default)]
pub struct FinalLog {
    pub node: String,
    pub first_offset: u64,
    pub next_offset: u64,
    pub records: Vec<Found>,
}

/// What is wrong. The module's page lists the properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    Replaced { offset: u64, known: Item, found: Item, by: String },
    Stamped { offset: u64, known: u64, found: u64, by: String },
    Twice { item: Item, offsets: [u64; 2], by: String },
    Invented { item: Item, by: String },
    RefusedButThere { item: Item, offset: u64 },
    Lost { item: Item, offset: u64, node: String },
    Gap { by: String, expected: u64, found: u64 },
    WentBack { by: String, expected: u64, found: u64 },
    Reordered { item: Item, offset: u64, next: u64 },
    LeftOut { producer: u16, number: u64, node: String },
    Progress { producer: u16, records: u64, acknowledged: u64, possible: u64 },
    TooEarly { item: Item, offset: u64, acknowledged: u64 },
    Stale { by: String, next: u64, acknowledged: u64 },
    TimeDecreases { node: String, offset: u64 },
    Bounds { node: String, first: u64, next: u64, trimmed: [u64; 2], known_end: u64 },
    Cursor { position: u64, acknowledged: u64, asked: u64 },
    Unexpected { item: Item, expected: u64, offset: u64 },
}

/// What was observed of one producer.
#[derive(Default)]
struct Sent {
    /// Whether its records are in the log in order, none left out.
    in_order: bool,
    /// The number of records that were sent, which are those below it.
    sent: u64,
    /// When each unanswered record was first sent.
    since: HashMap<u64, Time>,
    /// One more than the highest acknowledged number.
    acknowledged: u64,
    /// The lowest number that was certainly not appended, since the producer was opened.
    not_done: Option<u64>,
    refused: BTreeMap<u64, ()>,
    /// The offset of each known record.
    places: BTreeMap<u64, u64>,
}

/// The observations of one log.
#[derive(Default)]
pub struct Checker {
    producers: HashMap<u16, Sent>,
    /// The record at each offset, and its append time once it was read.
    known: BTreeMap<u64, (Item, Option<u64>)>,
    /// The next offset of each reader.
    readers: HashMap<String, u64>,
    /// When the highest acknowledged offset rose, and one more than that offset.
    acknowledged: Vec<(Time, u64)>,
    /// The highest trim that was acknowledged, and the highest that was requested.
    trimmed: [u64; 2],
    /// The same for the position of the cursor.
    cursor: [u64; 2],
    wrong: Vec<Wrong>,
}

/// More are not kept: one fault causes many.
const WRONG_MAX: usize = 50;

impl Checker {
    /// Declares an idempotent producer, which numbers its records from 0 on.
    pub fn declare_in_order(&mut self, producer: u16) {
        self.producers.entry(producer).or_default().in_order = true;
    }

    /// A record is about to be sent, perhaps not for the first time.
    pub fn sent(&mut self, item: Item, at: Time) {
        let sent = self.producers.entry(item.producer).or_default();
        if item.number >= sent.sent {
            sent.sent = item.number + 1;
            sent.since.insert(item.number, at);
        }
    }

    /// A record was acknowledged. The offset is unknown if its answer was lost for good.
    pub fn acknowledged(&mut self, item: Item, offset: Option<u64>, at: Time) {
        let sent = self.producers.entry(item.producer).or_default();
        sent.acknowledged = sent.acknowledged.max(item.number + 1);
        let since = sent.since.remove(&item.number);
        let Some(offset) = offset else { return };
        if let Some(since) = since {
            let before = self.acknowledged_before(since);
            if offset < before {
                self.wrong(Wrong::TooEarly { item, offset, acknowledged: before - 1 });
            }
        }
        self.place(offset, item, None, "an acknowledgement");
        if self.acknowledged.last().is_none_or(|(_, end)| *end <= offset) {
            // A lock orders the calls, so that times do not decrease.
            self.acknowledged.push((at, offset + 1));
        }
    }

    /// The same for a request that must be appended at an offset.
    pub fn acknowledged_at(&mut self, item: Item, expected: u64, offset: u64, at: Time) {
        if expected != offset {
            self.wrong(Wrong::Unexpected { item, expected, offset });
        }
        self.acknowledged(item, Some(offset), at);
    }

    /// A record was certainly not appended, and is not sent again.
    pub fn refused(&mut self, item: Item) {
        let sent = self.producers.entry(item.producer).or_default();
        sent.since.remove(&item.number);
        sent.refused.insert(item.number, ());
        if let Some(offset) = sent.places.get(&item.number).copied() {
            self.wrong(Wrong::RefusedButThere { item, offset });
        }
    }

    /// A record was certainly not appended. Its producer opens again, and may send it once more.
    pub fn not_done(&mut self, item: Item) {
        let sent = self.producers.entry(item.producer).or_default();
        sent.not_done = Some(sent.not_done.map_or(item.number, |number| number.min(item.number)));
    }

    /// A producer has opened again, and was told how many records of its name are in the log.
    pub fn progress(&mut self, producer: u16, records: u64) {
        let sent = self.producers.entry(producer).or_default();
        let possible = sent.not_done.take().map_or(sent.sent, |number| number.min(sent.sent));
        let acknowledged = sent.acknowledged;
        if records < acknowledged || records > possible {
            self.wrong(Wrong::Progress { producer, records, acknowledged, possible });
        }
    }

    /// A reader begins, or begins again, at an offset.
    pub fn opened(&mut self, reader: &str, offset: u64) {
        self.readers.insert(reader.to_owned(), offset);
    }

    /// A reader got a record.
    pub fn read(&mut self, reader: &str, found: Found) {
        let expected = self.readers.get(reader).copied().unwrap_or(0);
        self.check_next(reader, expected, found.offset);
        match self.readers.get_mut(reader) {
            Some(next) => *next = found.offset + 1,
            None => self.opened(reader, found.offset + 1),
        }
        self.place(found.offset, found.item, Some(found.append_time_us), reader);
    }

    /// A reader that began at a time has reached the end of the log.
    pub fn reached_end(&mut self, reader: &str, began: Time, next: u64) {
        let acknowledged = self.acknowledged_before(began);
        if next < acknowledged {
            self.wrong(Wrong::Stale { by: reader.to_owned(), next, acknowledged: acknowledged - 1 });
        }
    }

    pub fn trim_requested(&mut self, first: u64) {
        self.trimmed[1] = self.trimmed[1].max(first);
    }

    pub fn trim_acknowledged(&mut self, first: u64) {
        self.trimmed[0] = self.trimmed[0].max(first);
    }

    pub fn commit_requested(&mut self, position: u64) {
        self.cursor[1] = self.cursor[1].max(position);
    }

    pub fn commit_acknowledged(&mut self, position: u64) {
        self.cursor[0] = self.cursor[0].max(position);
    }

    /// The cursor was read while no commit was in flight. After a trim it may be at the first record.
    pub fn cursor_is_at(&mut self, position: u64) {
        let [acknowledged, asked] = self.cursor;
        if position < acknowledged || position > asked.max(self.trimmed[1]) {
            self.wrong(Wrong::Cursor { position, acknowledged, asked });
        }
    }

    /// One more than the highest offset that is known.
    pub fn known_end(&self) -> u64 {
        self.known.last_key_value().map_or(0, |(offset, _)| offset + 1)
    }

    /// The number of records that are known, and of those that were acknowledged with the highest offset.
    pub fn counts(&self) -> (usize, u64) {
        (self.known.len(), self.acknowledged.last().map_or(0, |(_, end)| *end))
    }

    /// What was found so far.
    pub fn found(&self) -> &[Wrong] {
        &self.wrong
    }

    /// Compares the logs of all nodes, after the last request was answered, and returns everything that is wrong.
    pub fn finish(mut self, logs: &[FinalLog]) -> Vec<Wrong> {
        for log in logs {
            let mut expected = log.first_offset;
            for found in &log.records {
                self.check_next(&log.node, expected, found.offset);
                expected = found.offset + 1;
                self.place(found.offset, found.item, Some(found.append_time_us), &log.node);
            }
            if expected != log.next_offset {
                self.wrong(Wrong::Gap { by: log.node.clone(), expected, found: log.next_offset });
            }
            for pair in log.records.windows(2).filter(|pair| pair[0].append_time_us > pair[1].append_time_us) {
                self.wrong(Wrong::TimeDecreases { node: log.node.clone(), offset: pair[1].offset });
            }
        }
        let known_end = self.known_end();
        for log in logs {
            let trimmed = self.trimmed;
            if log.first_offset < trimmed[0] || log.first_offset > trimmed[1] || log.next_offset != known_end {
                let (first, next) = (log.first_offset, log.next_offset);
                self.wrong(Wrong::Bounds { node: log.node.clone(), first, next, trimmed, known_end });
            }
            self.check_complete(log);
        }
        self.check_order();
        self.wrong
    }

    /// Each known record is in the log, and no record of an idempotent producer is left out.
    fn check_complete(&mut self, log: &FinalLog) {
        let there: HashMap<u64, Item> = log.records.iter().map(|found| (found.offset, found.item)).collect();
        let known = self.known.range(log.first_offset..);
        let lost: Vec<(u64, Item)> = known
            .filter(|(offset, _)| !there.contains_key(offset))
            .map(|(offset, (item, _))| (*offset, *item))
            .collect();
        for (offset, item) in lost {
            self.wrong(Wrong::Lost { item, offset, node: log.node.clone() });
        }
        let mut left_out = Vec::new();
        for (producer, sent) in self.producers.iter().filter(|(_, sent)| sent.in_order) {
            let mut numbers: Vec<u64> = log
                .records
                .iter()
                .map(|found| found.item)
                .filter(|item| item.producer == *producer)
                .map(|item| item.number)
                .collect();
            numbers.sort_unstable();
            // What was trimmed is not there, but it is a prefix.
            let first = numbers.first().copied();
            let gap = first.and_then(|first| (first..).zip(&numbers).find(|(wanted, number)| wanted != *number));
            left_out.extend(gap.map(|(wanted, _)| (*producer, wanted)));
            let end = numbers.last().map_or(0, |last| last + 1);
            // All records below the trim may be gone.
            let all_trimmed = first.is_none() && log.first_offset > 0;
            if end < sent.acknowledged && !all_trimmed {
                left_out.push((*producer, end));
            }
        }
        for (producer, number) in left_out {
            self.wrong(Wrong::LeftOut { producer, number, node: log.node.clone() });
        }
    }

    fn check_order(&mut self) {
        let mut reordered = Vec::new();
        for (producer, sent) in self.producers.iter().filter(|(_, sent)| sent.in_order) {
            let pairs = sent.places.iter().zip(sent.places.iter().skip(1));
            reordered.extend(pairs.filter(|((_, offset), (_, next))| offset >= next).map(
                |((number, offset), (_, next))| Wrong::Reordered {
                    item: Item { producer: *producer, number: *number },
                    offset: *offset,
                    next: *next,
                },
            ));
        }
        reordered.into_iter().for_each(|wrong| self.wrong(wrong));
    }

    fn check_next(&mut self, by: &str, expected: u64, found: u64) {
        if found < expected {
            self.wrong(Wrong::WentBack { by: by.to_owned(), expected, found });
        }
        if found > expected && found > self.trimmed[1] {
            self.wrong(Wrong::Gap { by: by.to_owned(), expected, found });
        }
    }

    /// Notes that a record was seen at an offset.
    fn place(&mut self, offset: u64, item: Item, time: Option<u64>, by: &str) {
        match self.known.get_mut(&offset) {
            Some((known, _)) if *known != item => {
                let known = *known;
                return self.wrong(Wrong::Replaced { offset, known, found: item, by: by.to_owned() });
            }
            Some((_, known)) => match (*known, time) {
                (Some(known), Some(found)) if known != found => {
                    return self.wrong(Wrong::Stamped { offset, known, found, by: by.to_owned() });
                }
                (None, Some(_)) => *known = time,
                _ => return,
            },
            None => {
                self.known.insert(offset, (item, time));
            }
        }
        let Some(sent) = self.producers.get_mut(&item.producer).filter(|sent| item.number < sent.sent) else {
            return self.wrong(Wrong::Invented { item, by: by.to_owned() });
        };
        let is_refused = sent.refused.contains_key(&item.number);
        let before = sent.places.insert(item.number, offset);
        if is_refused {
            self.wrong(Wrong::RefusedButThere { item, offset });
        }
        if let Some(before) = before.filter(|before| *before != offset) {
            self.wrong(Wrong::Twice { item, offsets: [before, offset], by: by.to_owned() });
        }
    }

    /// One more than the highest offset that was acknowledged before a time.
    fn acknowledged_before(&self, at: Time) -> u64 {
        let after = self.acknowledged.partition_point(|(time, _)| *time < at);
        after.checked_sub(1).map_or(0, |last| self.acknowledged[last].1)
    }

    fn wrong(&mut self, wrong: Wrong) {
        if self.wrong.len() < WRONG_MAX {
            self.wrong.push(wrong);
        }
    }
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
