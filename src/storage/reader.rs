//! Reads of one group's log, beside whoever appends to it and without its mutex.
//!
//! A reader takes the view of the moment, finds the segment and by its index a position, and walks the frames from there;
//! each one's checksum is checked on every read. gRPC's threads read with [`Access::Cached`], which never waits for the
//! disk; what that can't give ([`ReadError::NotCached`]) is done again on a `reader` thread ([`Readers`]) with
//! [`Access::Blocking`].
//!
//! Whoever reads records must not read beyond the watermark: what is there may still be cut off.

use std::sync::Arc;

use super::entry::{Entry, Kind};
use super::error::StorageError;
use super::faults::{Fault, broken};
use super::frame::Frame;
use super::index::Key;
use super::payload;
#[cfg(test)]
pub(crate) use super::pool::ByHand as ReadersByHand;
pub use super::pool::{QueueFull, Readers, ReadersHandle};
use super::segment::SEGMENT_HEADER_BYTES;
use super::state::Base;
use super::view::{Part, Shared, View};
use super::walk::{Walk, WalkError};
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
    /// The bytes are not what was written; names file and position.
    Damaged(String),
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
            ReadError::Damaged(what) => write!(f, "damaged: {what}"),
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
pub struct GroupReader(pub(super) Arc<Shared>);

/// What a visitor of frames says.
pub(super) enum Visit {
    Next,
    Done,
}

impl GroupReader {
    pub(super) fn new(shared: Arc<Shared>) -> GroupReader {
        GroupReader(shared)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    /// Records from an offset on and below `until`, the watermark. Ends before `records_max` or `bytes_max` is exceeded,
    /// but gives at least one record, however large, when there is one. Each call checks whole frames: whoever wants records
    /// one by one reads many at once and takes them apart with [`payload::records`].
    ///
    /// # Errors
    /// [`ReadError`].
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
            self.visit(view, Key::Offset(from), access, |part, at, frame| {
                if frame.header.kind != Kind::Records {
                    return Ok(Visit::Next);
                }
                let bad = |what: &str| Err(damaged(part, at, what));
                let (base, count) = (frame.header.base_offset, frame.header.count);
                let Some(end) = base.0.checked_add(u64::from(count)) else { return bad("offsets overflow") };
                if end <= slice.next.0 {
                    return Ok(Visit::Next);
                }
                if base >= until {
                    return Ok(Visit::Done);
                }
                if base > slice.next {
                    return bad("the record before this one is missing");
                }
                let fits = count <= records_max - slice.count && slice.bytes.len() + frame.payload.len() <= bytes_max;
                if base == slice.next && end <= until.0 && fits {
                    slice.bytes.extend_from_slice(frame.payload);
                    slice.count += count;
                    slice.next = Offset(end);
                } else {
                    let skipped = (slice.next.0 - base.0) as usize;
                    for record in payload::records(frame.payload).skip(skipped) {
                        let record = record.map_err(|e| damaged(part, at, e.0))?;
                        let fits = slice.count < records_max && slice.bytes.len() + record.len() <= bytes_max;
                        if slice.next >= until || slice.count > 0 && !fits {
                            return Ok(Visit::Done);
                        }
                        slice.bytes.extend_from_slice(record);
                        slice.count += 1;
                        slice.next.0 += 1;
                    }
                    if slice.next.0 != end {
                        return bad("a count of records that is not theirs");
                    }
                }
                let full = slice.count >= records_max || slice.bytes.len() >= bytes_max || slice.next >= until;
                Ok(if full { Visit::Done } else { Visit::Next })
            })?;
            if slice.count == 0 {
                let last = &view.parts[view.parts.len() - 1];
                return Err(damaged(last, last.end(), &format!("record {from} is missing")));
            }
            Ok(slice)
        })
    }

    /// The append time of the record at an offset below `until`, Unix microseconds; `None` when there is none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn append_time_us(&self, offset: Offset, until: Offset, access: Access) -> Result<Option<u64>, ReadError> {
        let slice = self.records(offset, until, 1, 0, access)?;
        let time = payload::records(&slice.bytes).next().map(|r| r.and_then(payload::record_time_us)).transpose();
        time.map_err(|e| ReadError::Damaged(format!("record {offset}: {e}")))
    }

    /// Entries from `low` on and below `high`, as far as `bytes_max` reaches, but at least one. Fewer, or none, where the
    /// log is shorter: it may have been cut since. Whoever needs them to be of one log checks their terms.
    ///
    /// # Errors
    /// [`ReadError`]; `Trimmed` when `low` is not behind the base.
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
            self.visit(view, Key::Index(low), access, |part, at, frame| {
                if !frame.header.kind.is_entry() || frame.header.index < wanted {
                    return Ok(Visit::Next);
                }
                if frame.header.index > wanted {
                    return Err(damaged(part, at, "the entry before this one is missing"));
                }
                let entry = frame.entry();
                bytes += entry.data.len() as u64;
                if bytes > bytes_max && !entries.is_empty() {
                    return Ok(Visit::Done);
                }
                entries.push(entry);
                wanted = wanted.next();
                Ok(if wanted >= high { Visit::Done } else { Visit::Next })
            })?;
            Ok(entries)
        })
    }

    /// Where an entry after the base stands: number of its part in the view, where its frame ends, and where the log stands
    /// there. Reads its segment from the beginning, for the digest.
    pub(super) fn locate(&self, view: &View, index: LogIndex) -> Result<(usize, u64, Base), StorageError> {
        let mut found = None;
        let part = view.part_of_index(index);
        let mut last = view.parts[part].base();
        let visited = self.visit(view, Key::Index(last.index.next()), Access::Blocking, |part, at, frame| {
            let header = &frame.header;
            if !header.kind.is_entry() {
                return Ok(Visit::Next);
            }
            if header.index != last.index.next() {
                return Err(damaged(part, at, "the entry before this one is missing"));
            }
            let offset = Offset(header.base_offset.0 + u64::from(header.count));
            let digest = last.digest.then(header, frame.payload);
            last = Base { index: header.index, term: header.term, offset, digest };
            if last.index < index {
                return Ok(Visit::Next);
            }
            found = Some((at + super::frame::frame_bytes(frame.payload.len()) as u64, last));
            Ok(Visit::Done)
        });
        let path = view.parts[part].segment.path();
        match (visited, found) {
            (Ok(()), Some((end, last))) => Ok((part, end, last)),
            (Ok(()), None) => {
                Err(StorageError::damaged(&path, view.parts[part].end(), format!("entry {index} is missing")))
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
    pub(super) fn view(&self) -> Arc<View> {
        self.0.get()
    }

    /// Bytes of the log's frames on this node.
    pub fn stored_bytes(&self) -> u64 {
        self.0.get().stored_bytes()
    }

    /// Reads from the view of the moment; again, whenever a segment of it may have been removed meanwhile.
    pub(super) fn read<T>(&self, read: impl Fn(&View) -> Result<T, ReadError>) -> Result<T, ReadError> {
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

    /// Walks from the last indexed frame that is not behind the key to the end of the log, or until the visitor is done.
    pub(super) fn visit(
        &self,
        view: &View,
        key: Key,
        access: Access,
        mut visitor: impl FnMut(&Part, u64, &Frame<'_>) -> Result<Visit, ReadError>,
    ) -> Result<(), ReadError> {
        let first = match key {
            Key::Index(index) => view.part_of_index(index),
            Key::Offset(offset) => view.part_of_offset(offset),
            Key::Time(time_us) => view.part_of_time(time_us),
        };
        for part in &view.parts[first..] {
            let failed = |error| read_error(part, error);
            let segment = &part.segment;
            let mut start = SEGMENT_HEADER_BYTES;
            let end = part.end();
            if std::ptr::eq(part, &view.parts[first]) {
                let index = segment.index(access).map_err(|e| failed(WalkError::Disk(e)))?;
                start = index.ok_or(ReadError::NotCached)?.position(key).min(end);
            }
            let file = segment.file(access).map_err(|e| failed(WalkError::Disk(e)))?.ok_or(ReadError::NotCached)?;
            let mut walk = Walk::new(&file, segment.header.salt, start, end, access);
            let mut begun = false;
            loop {
                match walk.next() {
                    Ok(Some((at, frame))) => {
                        // An index that leads behind the key is wrong, and so is one that leads to no frame.
                        let behind = !begun
                            && start > SEGMENT_HEADER_BYTES
                            && is_behind(&frame, key)
                            && !broken(Fault::IndexTrusted);
                        begun = true;
                        if !behind {
                            if let Visit::Done = visitor(part, at, &frame)? {
                                return Ok(());
                            }
                            continue;
                        }
                    }
                    // Nor does one lead to where the log goes on in the next segment. (The newest's was made by this process.)
                    Ok(None) if begun || part.limit.is_none() || start == SEGMENT_HEADER_BYTES => break,
                    Ok(None) => {}
                    Err(WalkError::Bad { .. }) if !begun && start > SEGMENT_HEADER_BYTES => {}
                    Err(error) => return Err(failed(error)),
                }
                log::warn!("the index of {} is wrong: reading from the beginning", segment.path().display());
                start = SEGMENT_HEADER_BYTES;
                walk = Walk::new(&file, segment.header.salt, start, end, access);
            }
        }
        Ok(())
    }
}

fn is_behind(frame: &Frame<'_>, key: Key) -> bool {
    match key {
        Key::Index(index) => !frame.header.kind.is_entry() || frame.header.index > index,
        Key::Offset(offset) => !frame.header.kind.is_entry() || frame.header.base_offset > offset,
        // No time proves nothing of the frames before.
        Key::Time(time_us) => frame.header.append_time_us == 0 || frame.header.append_time_us >= time_us,
    }
}

pub(super) fn damaged(part: &Part, at: u64, what: &str) -> ReadError {
    ReadError::Damaged(format!("{} byte {at}: {what}", part.segment.path().display()))
}

fn read_error(part: &Part, error: WalkError) -> ReadError {
    match error {
        WalkError::NotCached => ReadError::NotCached,
        WalkError::Bad { position, what } => damaged(part, position, what),
        WalkError::Disk(error) if error.is_shortage() => ReadError::Shortage(error.to_string()),
        WalkError::Disk(error) => ReadError::Io(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
