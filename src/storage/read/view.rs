//! What readers see of a log: the chain of its segments. A view is replaced when the chain changes, and never locked
//! during I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::error::ReadError;
use crate::storage::format::frame::Position;
use crate::storage::format::segment_header::SEGMENT_HEADER_BYTES;
use crate::storage::format::state::Base;
use crate::storage::read::damage::{DamagedRange, Damages};
use crate::storage::read::segment::Segment;
use crate::types::{LogIndex, Offset};

/// One segment of the chain.
#[derive(Clone)]
pub struct Part {
    pub segment: Arc<Segment>,
    /// Where the log continues in the next segment; `None` in the newest one.
    pub limit: Option<u64>,
}

impl Part {
    /// The end of the log's frames in this segment.
    pub fn end(&self) -> u64 {
        self.limit.unwrap_or_else(|| self.segment.end())
    }

    /// Bytes of the log's frames in this segment.
    pub fn bytes(&self) -> u64 {
        self.end() - SEGMENT_HEADER_BYTES
    }

    /// The end of the log before this segment.
    pub fn base(&self) -> Base {
        self.segment.header.base
    }

    /// Damage of this part from `position` to its end; the caller sets the length and the lost records when they are
    /// known.
    pub(crate) fn damaged(&self, position: u64, what: &str) -> DamagedRange {
        let path = self.segment.path();
        DamagedRange {
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            position,
            bytes: self.end().saturating_sub(position),
            first_offset: self.base().offset,
            next_offset: None,
            what: what.to_owned(),
        }
    }
}

/// The chain of segments, oldest first; never empty.
#[derive(Clone)]
pub struct View {
    /// The end of the log before the first stored entry.
    pub base: Base,
    pub parts: Vec<Part>,
}

impl View {
    /// The part that contains the entry, or the last one that ends before it. The entry is after the base.
    pub fn part_of_index(&self, index: LogIndex) -> usize {
        self.parts.partition_point(|part| part.base().index < index).saturating_sub(1)
    }

    /// The part that contains the record, or the last one that ends before it. The record is not before the base.
    pub fn part_of_offset(&self, offset: Offset) -> usize {
        self.parts.partition_point(|part| part.base().offset <= offset).saturating_sub(1)
    }

    /// Returns the last part that is preceded only by records older than `time_us` (Unix microseconds).
    pub fn part_of_time(&self, time_us: u64) -> usize {
        self.parts.partition_point(|part| part.segment.header.time_before_us < time_us).saturating_sub(1)
    }

    /// The latest time in the segments' headers, by the log's clock; 0 if it is unknown.
    pub fn begun_us(&self) -> u64 {
        self.parts.iter().map(|part| part.segment.header.begun_us).max().unwrap_or(0)
    }

    /// Bytes of the log's frames.
    pub fn stored_bytes(&self) -> u64 {
        self.parts.iter().map(Part::bytes).sum()
    }

    /// Returns about how many bytes the entries after `before` have, up to `until`. Those in the middle of a segment are
    /// interpolated by the index. The log ends at or after `until`.
    pub fn bytes_between(&self, before: LogIndex, until: LogIndex) -> u64 {
        let ends = self.parts.iter().skip(1).map(|part| part.base().index);
        // Of the newest segment, `until` may be before its end, but is close to it.
        let ends = ends.chain([until.max(self.parts.last().map_or(until, |part| part.base().index))]);
        let within = |(part, end): (&Part, LogIndex)| {
            let begin = part.base().index;
            let (low, high) = (before.clamp(begin, end), until.clamp(begin, end));
            let (entries, all) = (high.0.saturating_sub(low.0), end.0.saturating_sub(begin.0));
            (u128::from(part.bytes()) * u128::from(entries) / u128::from(all.max(1))) as u64
        };
        self.parts.iter().zip(ends).map(within).sum()
    }

    /// Returns the base offset of the newest segment that was created at or before `local_us`, by the log's clock
    /// (`catalog/policy/ages.rs`): all earlier records had arrived by then. `None` if no segment is that old.
    pub fn arrived_by(&self, local_us: u64) -> Option<Offset> {
        let arrived = |begun_us: u64| begun_us != 0 && begun_us <= local_us;
        let part = self.parts.iter().skip(1).rev().find(|part| arrived(part.segment.header.begun_us));
        part.map(|part| part.base().offset)
    }

    /// Bytes of the segments that contain only records below `first_offset` and entries up to `limit`. The log ends at
    /// `end`.
    pub fn bytes_below(&self, first_offset: Offset, limit: LogIndex, end: Base) -> u64 {
        let ends = self.parts.iter().skip(1).map(Part::base).chain([end]);
        let below = self.parts.iter().zip(ends).take_while(|(_, end)| end.offset <= first_offset && end.index <= limit);
        below.map(|(part, _)| part.bytes()).sum()
    }

    /// Returns the first record to keep so that whole segments are dropped and at least `bytes` remain; `None` if none
    /// can be dropped.
    pub fn first_within(&self, bytes: u64) -> Option<Offset> {
        let mut stays = self.stored_bytes();
        let mut keep = None;
        for pair in self.parts.windows(2) {
            stays -= pair[0].bytes();
            if stays < bytes {
                break;
            }
            keep = Some(pair[1].base().offset);
        }
        keep
    }
}

/// What the writer of a log publishes to its readers: the newest view, the durable position, and the durable position
/// in the manifest. Also contains the damage that readers, the writer or the scrub have found.
pub struct Published {
    view: Mutex<Arc<View>>,
    durable: Mutex<Position>,
    noted: Mutex<Position>,
    damages: Damages,
    given_up: AtomicBool,
}

impl Published {
    pub fn new(view: View, durable: Position, noted: Position) -> Published {
        Published {
            view: Mutex::new(Arc::new(view)),
            durable: Mutex::new(durable),
            noted: Mutex::new(noted),
            damages: Damages::default(),
            given_up: AtomicBool::new(false),
        }
    }

    /// Notes that the files will be deleted: from now on a read that fails has found no damage.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    pub fn damages(&self) -> &Damages {
        &self.damages
    }

    /// The number of synced bytes above the manifest's durable position: damage there can't be distinguished from a
    /// torn tail.
    pub fn unprotected_bytes(&self) -> u64 {
        let noted = *self.noted.lock();
        let durable = self.durable();
        // A manifest that names an older segment is replaced by the first sync of a newer one.
        let from = if noted.file == durable.file { noted.at } else { SEGMENT_HEADER_BYTES };
        durable.at.saturating_sub(from)
    }

    /// Notes the durable position that the manifest on the disk contains.
    pub fn note_durable(&self, noted: Position) {
        *self.noted.lock() = noted;
    }

    /// The durable position.
    pub fn durable(&self) -> Position {
        *self.durable.lock()
    }

    /// Raises the durable position; a lower one is ignored.
    pub fn raise_durable(&self, durable: Position) {
        let mut now = self.durable.lock();
        *now = durable.max(*now);
    }

    pub fn view(&self) -> Arc<View> {
        self.view.lock().clone()
    }

    pub fn publish(&self, view: View) {
        *self.view.lock() = Arc::new(view);
    }

    /// Reads from the current view. After an error, repeats the read if there is a newer view, because a segment may
    /// have been removed or truncated meanwhile.
    pub(super) fn read<T>(&self, read: impl Fn(&View) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let mut view = self.view();
        loop {
            match read(&view) {
                Err(error @ (ReadError::Io(_) | ReadError::Damaged(_) | ReadError::NewerFrame(_))) => {
                    let newer = self.view();
                    if Arc::ptr_eq(&view, &newer) {
                        return Err(if self.is_given_up() { ReadError::Gone } else { error });
                    }
                    view = newer;
                }
                other => return other,
            }
        }
    }

    /// True if this position is still part of the log: since it was read, it may have been trimmed or truncated, or
    /// this node may have given up its replica.
    pub(crate) fn still_contains(&self, part: &Part, position: u64) -> bool {
        let view = self.view();
        let now = view.parts.iter().find(|now| Arc::ptr_eq(&now.segment, &part.segment));
        now.is_some_and(|now| position < now.end()) && !self.is_given_up()
    }
}
