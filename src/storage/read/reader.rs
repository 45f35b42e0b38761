//! Reads of one group's log, beside whoever appends to it and without its mutex.
//!
//! A reader takes the view of the moment, finds the segment and by its index a position, and walks the frames from there;
//! each one's checksum is checked on every read. gRPC's threads read with [`Access::Cached`], which never waits for the
//! disk; what that can't give ([`ReadError::NotCached`]) is done again on a `reader` thread ([`Readers`]) with
//! [`Access::Blocking`].
//!
//! Whoever reads records must not read beyond the watermark: what is there may still be cut off.

use std::sync::Arc;

use crate::storage::error::StorageError;
use crate::storage::faults::{Fault, broken};
use crate::storage::format::entry::Entry;
use crate::storage::format::payload;
use crate::storage::format::state::Base;
#[cfg(test)]
pub(crate) use crate::storage::io::pool::ByHand as ReadersByHand;
pub use crate::storage::io::pool::{QueueFull, Readers, ReadersHandle};
use crate::storage::read::damage::DamagedRange;
use crate::storage::read::index::Key;
use crate::storage::read::segment::SEGMENT_HEADER_BYTES;
use crate::storage::read::view::{Shared, View};
use crate::storage::read::visit::Visit;
use crate::types::{LogIndex, Offset};

/// How a read may get at the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// From the page cache, or not at all: never blocks.
    Cached,
    /// Waits for the disk.
    Blocking,
    /// From the disk, whatever the page cache has, and without filling it: for who checks the disk.
    Disk,
}

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// With [`Access::Cached`]: the bytes are not in memory; ask a `reader`.
    NotCached,
    /// It is not stored any more.
    Trimmed {
        /// The first stored record. Clients may read from the watermark's first offset on, which is not below it.
        first_offset: Offset,
    },
    /// The bytes differ from what was written, or can't be read: the range, and the records lost in it, from the first requested
    /// one on.
    Damaged(DamagedRange),
    /// The system refused to read; names the file.
    Io(String),
    /// The system had no descriptor or no memory left to read with: a passing condition, which says nothing about the bytes.
    Shortage(String),
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReadError::NotCached => f.write_str("not in memory"),
            ReadError::Trimmed { first_offset } => write!(f, "trimmed away: the first record is {first_offset}"),
            ReadError::Damaged(range) => write!(f, "damaged: {range}"),
            ReadError::Io(what) | ReadError::Shortage(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ReadError {}

/// Records as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Fields `records` = 3, one behind the other.
    pub bytes: Vec<u8>,
    /// How many.
    pub count: u32,
    /// The offset behind the last one; where the read began, when there is none.
    pub next: Offset,
}

/// Reads one group's log; a clone reads the same.
#[derive(Clone)]
pub struct GroupReader(pub(in crate::storage) Arc<Shared>);

impl GroupReader {
    pub(in crate::storage) fn new(shared: Arc<Shared>) -> GroupReader {
        GroupReader(shared)
    }

    pub(in crate::storage) fn shared(&self) -> &Shared {
        &self.0
    }

    /// Records from an offset on and below `until`, the watermark. Ends before `records_max` or `bytes_max` is exceeded,
    /// but gives at least one record, however large, when there is one; and ends before damage. Each call checks whole frames:
    /// whoever wants records one by one reads many at once and takes them apart with [`payload::records`].
    ///
    /// # Errors
    /// [`ReadError`]; `Damaged` if the first record is damaged.
    pub fn records(
        &self,
        from: Offset,
        until: Offset,
        records_max: u32,
        bytes_max: usize,
        access: Access,
    ) -> Result<Slice, ReadError> {
        self.read(|view| {
            let mut slice = Slice { next: from, ..Slice::default() };
            if from < view.base.offset {
                return Err(ReadError::Trimmed { first_offset: view.base.offset });
            }
            if from >= until || records_max == 0 {
                return Ok(slice);
            }
            // Damage that contains the wanted record, if only entries without records followed it so far.
            let mut met: Option<DamagedRange> = None;
            let ended = self.visit(view, Key::Offset(from), access, |part, at, frame, hole| {
                if !frame.header.kind.is_entry() {
                    return Ok(Visit::Next);
                }
                let (base, count) = (frame.header.base_offset, frame.header.count);
                let known = met.clone().or_else(|| hole.cloned());
                let lost = |next: Offset, what: &str| {
                    let range = known.clone().unwrap_or_else(|| part.damaged(at, what));
                    Err(ReadError::Damaged(DamagedRange { first_offset: from, next_offset: Some(next), ..range }))
                };
                let Some(end) = base.0.checked_add(u64::from(count)) else { return lost(until, "offsets overflow") };
                let go_on = if slice.count > 0 { Visit::NextSound } else { Visit::Next };
                if end < slice.next.0 || end == slice.next.0 && base < slice.next {
                    return Ok(go_on);
                }
                if base >= until {
                    return Ok(Visit::Done);
                }
                if base > slice.next {
                    if slice.count > 0 && !broken(Fault::SoundWithheld) {
                        return Ok(Visit::Done);
                    }
                    if !frame.header.kind.is_records() {
                        // The next record shows where it ends.
                        met = known;
                        return Ok(go_on);
                    }
                    if !broken(Fault::LossSkipped) {
                        return lost(base, "the record before this one is missing");
                    }
                    slice.next = base;
                }
                if !frame.header.kind.is_records() {
                    return Ok(go_on);
                }
                let fits = count <= records_max - slice.count && slice.bytes.len() + frame.payload.len() <= bytes_max;
                if base == slice.next && end <= until.0 && fits {
                    slice.bytes.extend_from_slice(frame.payload);
                    slice.count += count;
                    slice.next = Offset(end);
                } else {
                    let skipped = (slice.next.0 - base.0) as usize;
                    for record in payload::records(frame.payload).skip(skipped) {
                        let record = match record {
                            Ok(record) => record,
                            Err(_) if slice.count > 0 => return Ok(Visit::Done),
                            Err(bad) => return lost(Offset(end), bad.0),
                        };
                        let fits = slice.count < records_max && slice.bytes.len() + record.len() <= bytes_max;
                        if slice.next >= until || slice.count > 0 && !fits {
                            return Ok(Visit::Done);
                        }
                        slice.bytes.extend_from_slice(record);
                        slice.count += 1;
                        slice.next.0 += 1;
                    }
                    if slice.next.0 != end {
                        return lost(Offset(end), "a count of records that is not theirs");
                    }
                }
                let full = slice.count >= records_max || slice.bytes.len() >= bytes_max || slice.next >= until;
                Ok(if full { Visit::Done } else { Visit::NextSound })
            })?;
            if slice.count == 0 {
                let last = &view.parts[view.parts.len() - 1];
                let range =
                    met.or(ended).unwrap_or_else(|| last.damaged(last.end(), &format!("record {from} is missing")));
                return Err(ReadError::Damaged(DamagedRange { first_offset: from, next_offset: Some(until), ..range }));
            }
            Ok(slice)
        })
    }

    /// The append time of the record at an offset below `until`, Unix microseconds; `None` if there is no such record. For a
    /// damaged record it is that of the next valid one, if that is found soon.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn append_time_us(&self, offset: Offset, until: Offset, access: Access) -> Result<Option<u64>, ReadError> {
        let mut from = offset;
        let mut tries = 0;
        let slice = loop {
            match self.records(from, until, 1, 0, access) {
                Err(ReadError::Damaged(DamagedRange { next_offset: Some(next), .. })) if next < until && tries < 8 => {
                    (from, tries) = (next, tries + 1);
                }
                other => break other?,
            }
        };
        let time = payload::records(&slice.bytes).next().map(|r| r.and_then(payload::record_time_us)).transpose();
        time.map_err(|bad| {
            let view = self.view();
            let part = &view.parts[view.part_of_offset(offset)];
            let range = part.damaged(SEGMENT_HEADER_BYTES, &format!("record {offset}: {bad}"));
            let next_offset = Some(Offset(offset.0.saturating_add(1)));
            ReadError::Damaged(DamagedRange { first_offset: offset, next_offset, ..range })
        })
    }

    /// Entries from `low` on and below `high`, up to `bytes_max`, but at least one. Fewer, or none, if the log is shorter: it may
    /// have been truncated since. Fewer before damage, too. A caller that needs them to be of one log checks their terms.
    ///
    /// # Errors
    /// [`ReadError`]; `Trimmed` if `low` is not above the base; `Damaged` if the first entry is damaged.
    pub fn entries(
        &self,
        low: LogIndex,
        high: LogIndex,
        bytes_max: u64,
        access: Access,
    ) -> Result<Vec<Entry>, ReadError> {
        self.read(|view| {
            if low <= view.base.index {
                return Err(ReadError::Trimmed { first_offset: view.base.offset });
            }
            let mut entries: Vec<Entry> = Vec::new();
            if low >= high {
                return Ok(entries);
            }
            let mut wanted = low;
            let mut bytes = 0;
            let ended = self.visit(view, Key::Index(low), access, |part, at, frame, hole| {
                let go_on = if entries.is_empty() { Visit::Next } else { Visit::NextSound };
                if !frame.header.kind.is_entry() || frame.header.index < wanted {
                    return Ok(go_on);
                }
                if frame.header.index > wanted {
                    if !entries.is_empty() && !broken(Fault::SoundWithheld) {
                        return Ok(Visit::Done);
                    }
                    let range = hole.cloned();
                    let range = range.unwrap_or_else(|| part.damaged(at, "the entry before this one is missing"));
                    return Err(ReadError::Damaged(range));
                }
                let Some(entry) = frame.entry() else { return Ok(go_on) };
                bytes += entry.data.len() as u64;
                if bytes > bytes_max && !entries.is_empty() {
                    return Ok(Visit::Done);
                }
                entries.push(entry);
                wanted = wanted.next();
                Ok(if wanted >= high { Visit::Done } else { Visit::NextSound })
            })?;
            match ended {
                Some(range) if entries.is_empty() => Err(ReadError::Damaged(range)),
                _ => Ok(entries),
            }
        })
    }

    /// The end of the log as of an entry. Reads from `near` on, an entry up to this one whose digest is known, or from the
    /// beginning of the entry's segment; blocks.
    ///
    /// # Errors
    /// [`StorageError`], also if the entry is not stored.
    pub fn end_at(&self, index: LogIndex, near: Option<Base>) -> Result<Base, StorageError> {
        let view = self.view();
        if index == view.base.index { Ok(view.base) } else { Ok(self.locate(&view, index, near)?.2) }
    }

    /// The place of an entry after the base: the number of its part in the view, the end of its frame, and the end of the log as of
    /// that entry. Reads from `near` on, an entry up to this one whose digest is known, or from the beginning of the segment.
    pub(in crate::storage) fn locate(
        &self,
        view: &View,
        index: LogIndex,
        near: Option<Base>,
    ) -> Result<(usize, u64, Base), StorageError> {
        let mut found = None;
        let part = view.part_of_index(index);
        let first = view.parts[part].base();
        let mut last = near.filter(|near| near.index > first.index && near.index <= index).unwrap_or(first);
        let mut wanted = index.min(last.index.next());
        let visited = self.visit(view, Key::Index(wanted), Access::Blocking, |part, at, frame, hole| {
            let header = &frame.header;
            if !header.kind.is_entry() || header.index < wanted {
                return Ok(Visit::Next);
            }
            let damaged = |what| Err(ReadError::Damaged(hole.cloned().unwrap_or_else(|| part.damaged(at, what))));
            if header.index != wanted {
                return damaged("the entry before this one is missing");
            }
            if wanted > last.index {
                match last.then_frame(header, frame.payload) {
                    Ok(next) => last = next,
                    Err(bad) => return damaged(bad.0),
                }
            }
            if wanted < index {
                wanted = wanted.next();
                return Ok(Visit::Next);
            }
            found = Some((at + crate::storage::format::frame::frame_bytes(frame.payload.len()) as u64, last));
            Ok(Visit::Done)
        });
        let path = view.parts[part].segment.path();
        match (visited, found) {
            (Ok(_), Some((end, last))) => Ok((part, end, last)),
            (Ok(hole), None) => {
                let missing = || view.parts[part].damaged(view.parts[part].end(), "it is missing");
                let DamagedRange { position, what, .. } = hole.unwrap_or_else(missing);
                Err(StorageError::damaged(&path, position, format!("entry {index} can't be read: {what}")))
            }
            (Err(ReadError::Io(what) | ReadError::Shortage(what)), _) => {
                Err(StorageError::io("read", &path, std::io::Error::other(what)))
            }
            (Err(other @ (ReadError::Damaged(_) | ReadError::NotCached | ReadError::Trimmed { .. })), _) => {
                Err(StorageError::damaged(&path, 0, format!("entry {index} can't be read: {other}")))
            }
        }
    }

    /// The log as it is now.
    pub(in crate::storage) fn view(&self) -> Arc<View> {
        self.0.get()
    }

    /// Bytes of the log's frames on this node.
    pub fn stored_bytes(&self) -> u64 {
        self.0.get().stored_bytes()
    }

    /// Reads from the view of the moment; again, whenever a segment of it may have been removed meanwhile.
    pub(in crate::storage) fn read<T>(&self, read: impl Fn(&View) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let mut view = self.0.get();
        loop {
            match read(&view) {
                Err(error @ (ReadError::Io(_) | ReadError::Damaged(_))) => {
                    let newer = self.0.get();
                    if Arc::ptr_eq(&view, &newer) {
                        return Err(error);
                    }
                    view = newer;
                }
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests;
