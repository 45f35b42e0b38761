//! The sparse index of a segment: (index, offset, time) → position, one entry for each 16 KiB or more.
//!
//! ```text
//!  0  "SERIIDX", format '2'   8  salt u64      16  count u64      24  end u64: all below is indexed
//! 32  crc u64             CRC-32C of the file without these eight bytes
//! 40  entries of four u64: index, offset, append time, position
//! ```
//!
//! An index is derived and only saves time, so it is never synced and never trusted. The index of the active segment is
//! in memory, and is written to its file when the segment is sealed. The index of a sealed segment is read into memory
//! when the segment is opened. It is not memory-mapped, because a bad sector under a mapping would end the process. An
//! index that is missing, wrong or unreadable is rebuilt from the segment.

use parking_lot::{Mutex, MutexGuard};
use thiserror::Error;

use super::entry::u64_at;
use super::frame::Header;
use super::segment_header::SEGMENT_HEADER_BYTES;
use crate::types::{LogIndex, Offset};

const MAGIC: &[u8; 7] = b"SERIIDX";
/// The format: a digit, which is the last byte of the magic.
const FORMAT: u8 = b'2';
const HEADER_BYTES: usize = 40;
const ENTRY_BYTES: usize = 32;
/// The maximum number of entries of an index.
const ENTRIES_MAX: usize = 1 << 20;
/// The maximum size of an index file.
pub(crate) const INDEX_BYTES_MAX: usize = HEADER_BYTES + ENTRIES_MAX * ENTRY_BYTES;
/// The minimum distance of indexed frames. Small in tests, because their segments are small.
pub(crate) const BYTES_BETWEEN: u64 = if cfg!(test) { 1 << 10 } else { 16 << 10 };

/// Why bytes are not an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadIndex {
    /// They differ from what was written.
    #[error("is not valid")]
    Invalid,
    /// An older or a newer version wrote them in another format.
    #[error("has format {0}, and this version of seriatim reads format {known}", known = char::from(FORMAT))]
    OtherFormat(char),
}

/// What a search looks for.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    Index(LogIndex),
    Offset(Offset),
    /// The first record whose append time (Unix microseconds) is at or after this.
    Time(u64),
}

/// The position of an entry's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    pub index: u64,
    /// The offset of its first record.
    pub base_offset: u64,
    /// Unix microseconds.
    pub append_time_us: u64,
    /// Bytes from the beginning of the segment.
    pub position: u64,
}

/// The index of one segment. One thread appends to it while others search it.
pub struct Index {
    entries: Mutex<Vec<IndexEntry>>,
    entries_max: usize,
}

/// The maximum number of entries of the index of a segment of this size; later frames are not indexed.
pub fn capacity(segment_bytes: u64) -> usize {
    let entries = usize::try_from(segment_bytes / BYTES_BETWEEN).unwrap_or(usize::MAX);
    entries.clamp(if cfg!(test) { 8 } else { 64 }, ENTRIES_MAX)
}

/// True if this frame belongs into an index whose last entry is at the position `last`.
pub(crate) fn worth_noting(last: Option<u64>, header: &Header, position: u64) -> bool {
    header.kind.is_entry() && last.is_none_or(|last| position >= last.saturating_add(BYTES_BETWEEN))
}

fn checksum(bytes: &[u8]) -> u64 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..HEADER_BYTES - 8]), &bytes[HEADER_BYTES..]).into()
}

/// True if only the format of these bytes is damaged: with the known format their checksum matches.
fn format_is_damaged(bytes: &[u8]) -> bool {
    let mut known = bytes.to_vec();
    known[MAGIC.len()] = FORMAT;
    known.len() >= HEADER_BYTES && u64_at(&known, HEADER_BYTES - 8) == checksum(&known)
}

impl Index {
    /// An empty index for at most this many entries.
    pub fn new(entries_max: usize) -> Index {
        Index { entries: Mutex::default(), entries_max }
    }

    pub(crate) fn entries(&self) -> MutexGuard<'_, Vec<IndexEntry>> {
        self.entries.lock()
    }

    /// The index of a sealed segment, with these entries.
    pub(crate) fn of(entries: Vec<IndexEntry>) -> Index {
        Index { entries_max: entries.len(), entries: Mutex::new(entries) }
    }

    /// The entries of a sealed segment's index, from the bytes of its file.
    ///
    /// # Errors
    /// [`BadIndex`].
    pub fn decode(bytes: &[u8], salt: u64) -> Result<Vec<IndexEntry>, BadIndex> {
        match bytes.strip_prefix(MAGIC).and_then(|rest| rest.first()) {
            Some(&FORMAT) => Index::decode_entries(bytes, salt).ok_or(BadIndex::Invalid),
            Some(format) if format.is_ascii_digit() && !format_is_damaged(bytes) => {
                Err(BadIndex::OtherFormat(char::from(*format)))
            }
            Some(_) | None => Err(BadIndex::Invalid),
        }
    }

    fn decode_entries(bytes: &[u8], salt: u64) -> Option<Vec<IndexEntry>> {
        let entries = bytes.get(HEADER_BYTES..)?;
        let count = usize::try_from(u64_at(bytes, 16)).ok()?;
        let end = u64_at(bytes, 24);
        if u64_at(bytes, 8) != salt
            || count > ENTRIES_MAX
            || entries.len() != count * ENTRY_BYTES
            || u64_at(bytes, 32) != checksum(bytes)
        {
            return None;
        }
        let entry = |bytes: &[u8; ENTRY_BYTES]| IndexEntry {
            index: u64_at(bytes, 0),
            base_offset: u64_at(bytes, 8),
            append_time_us: u64_at(bytes, 16),
            position: u64_at(bytes, 24),
        };
        let entries: Vec<IndexEntry> = entries.as_chunks().0.iter().map(entry).collect();
        let ascends = |two: &[IndexEntry]| {
            two[0].index < two[1].index && two[0].base_offset <= two[1].base_offset && two[0].position < two[1].position
        };
        let inside = |entry: &IndexEntry| (SEGMENT_HEADER_BYTES..end).contains(&entry.position) && entry.index > 0;
        (entries.iter().all(inside) && entries.windows(2).all(ascends)).then_some(entries)
    }

    /// The bytes of the file: everything below `end` is indexed.
    pub(crate) fn encode(&self, salt: u64, end: u64) -> Vec<u8> {
        let entries = self.entries();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + entries.len() * ENTRY_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.push(FORMAT);
        for number in [salt, entries.len() as u64, end, 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for entry in entries.iter() {
            for number in [entry.index, entry.base_offset, entry.append_time_us, entry.position] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        let crc = checksum(&bytes);
        bytes[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Adds a frame if it contains an entry and is far enough from the last indexed one. Only the appending thread
    /// calls this, before it publishes the frame.
    pub fn push(&self, header: &Header, position: u64) {
        let mut entries = self.entries();
        if entries.len() >= self.entries_max
            || !worth_noting(entries.last().map(|last| last.position), header, position)
        {
            return;
        }
        entries.push(IndexEntry {
            index: header.index.0,
            base_offset: header.base_offset.0,
            append_time_us: header.append_time_us,
            position,
        });
    }

    /// Returns a position from which a walk finds the key: that of the last indexed frame at or before the key.
    pub fn position(&self, key: Key) -> u64 {
        let entries = self.entries();
        // A no-op has no time, so the nearest earlier entry with a time decides.
        let time = |i: usize| (0..=i).rev().map(|i| entries[i].append_time_us).find(|time| *time != 0).unwrap_or(0);
        let not_after = |i: usize| match key {
            Key::Index(index) => entries[i].index <= index.0,
            Key::Offset(offset) => entries[i].base_offset <= offset.0,
            Key::Time(wanted) => time(i) < wanted,
        };
        let (mut low, mut high) = (0, entries.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if not_after(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if let Key::Time(_) = key {
            // Records between a frame with a time and a later no-op may be newer than that frame.
            low = (1..=low).rev().find(|i| entries[*i - 1].append_time_us != 0).unwrap_or(0);
        }
        if low == 0 { SEGMENT_HEADER_BYTES } else { entries[low - 1].position }
    }

    /// The position that is `entries_before` index entries before this one, or the first frame's if there are fewer.
    pub fn before(&self, position: u64, entries_before: usize) -> u64 {
        let entries = self.entries();
        let here = entries.partition_point(|entry| entry.position < position);
        here.checked_sub(entries_before).map_or(SEGMENT_HEADER_BYTES, |i| entries[i].position)
    }
}

#[cfg(test)]
impl Index {
    /// Sets the checksum.
    pub(crate) fn seal(bytes: &mut [u8]) {
        if bytes.len() >= HEADER_BYTES {
            let crc = checksum(bytes);
            bytes[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        }
    }
}
