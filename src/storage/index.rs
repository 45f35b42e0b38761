//! The sparse index of a segment: (index, offset, time) → position, one entry for each 16 KiB or more.
//!
//! ```text
//!  0  "SERIIDX1" u64      8  salt u64      16  count u64      24  end u64: all below is indexed; 0 while it grows
//! 32  entries of four u64: index, offset, append time, position
//! ```
//!
//! It is derived and only ever saves time: never synced and never trusted. It is memory-mapped, written by the one thread
//! that appends, and read without a lock: an entry is whole before the count says so. One that is missing, short or wrong
//! is made anew from the segment; where no file can be had, it lives in memory.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::{Disk, DiskFile, Words};
use super::error::StorageError;
use super::frame::Header;
use super::reader::Access;
use super::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::walk::Walk;
use crate::types::{LogIndex, Offset};

const MAGIC: u64 = u64::from_le_bytes(*b"SERIIDX1");
const SALT: usize = 1;
const COUNT: usize = 2;
const END: usize = 3;
const ENTRIES: usize = 4;
const ENTRY_WORDS: usize = 4;
/// Small in tests, whose segments are.
const BYTES_BETWEEN: u64 = if cfg!(test) { 1 << 10 } else { 16 << 10 };

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    /// An entry.
    Index(LogIndex),
    /// A record.
    Offset(Offset),
    /// The first record that is not older, Unix microseconds.
    Time(u64),
}

/// Where a frame of an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The entry's index.
    pub index: u64,
    /// The offset of its first record.
    pub base_offset: u64,
    /// When it was appended, Unix microseconds.
    pub append_time_us: u64,
    /// Bytes from the beginning of the segment.
    pub position: u64,
}

/// The index of one segment.
pub struct Index {
    words: Words,
}

/// The name of an index's file.
pub fn index_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.idx"))
}

/// How many entries the index of a segment of that size gets; past them it just ends.
pub fn capacity(segment_bytes: u64) -> usize {
    usize::try_from(segment_bytes / BYTES_BETWEEN).unwrap_or(usize::MAX).clamp(if cfg!(test) { 8 } else { 64 }, 1 << 20)
}

/// Does an index note this frame, if the last one that it noted stands at `last`?
pub(super) fn worth_noting(last: Option<u64>, header: &Header, position: u64) -> bool {
    header.kind.is_entry() && last.is_none_or(|last| position >= last + BYTES_BETWEEN)
}

impl Index {
    /// An empty index for a segment.
    pub fn create(disk: &Disk, dir: &Path, number: u64, salt: u64, capacity: usize) -> Index {
        let words = ENTRIES + ENTRY_WORDS * capacity;
        let path = index_path(dir, number);
        let words = disk.map(&path, words, true).unwrap_or_else(|error| {
            log::warn!("{error}; the index of this segment is kept in memory");
            // A file half made would be taken for one at the next start, and refused: better none.
            let _ = disk.unlink(&path);
            Words::memory(words)
        });
        words.get()[0].store(MAGIC, Ordering::Relaxed);
        words.get()[SALT].store(salt, Ordering::Relaxed);
        Index { words }
    }

    /// The index of a sealed segment, if there is a whole one.
    ///
    /// # Errors
    /// When the system has nothing left to open it with, which says nothing about it.
    pub fn load(
        disk: &Disk,
        dir: &Path,
        number: u64,
        salt: u64,
        capacity: usize,
    ) -> Result<Option<Index>, StorageError> {
        match disk.map(&index_path(dir, number), ENTRIES + ENTRY_WORDS * capacity, false) {
            Ok(words) => Ok(Some(Index { words }).filter(|index| index.checked_count(salt).is_some())),
            Err(error) if error.is_shortage() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// The entries of a sealed segment's index, from the bytes of its file; `None` when they are not whole.
    pub fn entries_of(bytes: &[u8], salt: u64) -> Option<Vec<IndexEntry>> {
        if !bytes.len().is_multiple_of(8) || bytes.len() < 8 * ENTRIES {
            return None;
        }
        let index = Index::in_memory(bytes);
        let count = index.checked_count(salt)?;
        let entry = |i| {
            let [index, base_offset, append_time_us, position] = index.entry(i);
            IndexEntry { index, base_offset, append_time_us, position }
        };
        Some((0..count).map(entry).collect())
    }

    /// From a copy of the file.
    pub(super) fn in_memory(bytes: &[u8]) -> Index {
        let words = bytes.as_chunks::<8>().0.iter().map(|word| AtomicU64::new(u64::from_le_bytes(*word)));
        Index { words: Words::Memory(words.collect()) }
    }

    /// How many entries a whole index of that segment has.
    fn checked_count(&self, salt: u64) -> Option<usize> {
        let words = self.words.get();
        let head: [u64; ENTRIES] = std::array::from_fn(|i| words[i].load(Ordering::Acquire));
        let count = usize::try_from(head[COUNT]).ok()?;
        let capacity = (words.len() - ENTRIES) / ENTRY_WORDS;
        if head[0] != MAGIC || head[SALT] != salt || head[END] < SEGMENT_HEADER_BYTES || count > capacity {
            return None;
        }
        let mut last = [0, 0, 0, SEGMENT_HEADER_BYTES - 1];
        for i in 0..count {
            let entry = self.entry(i);
            if entry[0] <= last[0] || entry[1] < last[1] || entry[3] <= last[3] || entry[3] >= head[END] {
                return None;
            }
            last = entry;
        }
        Some(count)
    }

    /// Makes the index of a segment anew, from its frames below `end`. A bad frame ends it: who reads there will see.
    pub fn rebuild(
        disk: &Disk,
        dir: &Path,
        header: &SegmentHeader,
        capacity: usize,
        file: &DiskFile,
        end: u64,
    ) -> Index {
        let index = Index::create(disk, dir, header.number, header.salt, capacity);
        let mut walk = Walk::new(file, header.salt, SEGMENT_HEADER_BYTES, end, Access::Blocking);
        while let Ok(Some((at, frame))) = walk.next() {
            index.push(&frame.header, at);
        }
        index.seal(end);
        index
    }

    fn entry(&self, i: usize) -> [u64; ENTRY_WORDS] {
        let at = ENTRIES + ENTRY_WORDS * i;
        std::array::from_fn(|word| self.words.get()[at + word].load(Ordering::Relaxed))
    }

    fn count(&self) -> &AtomicU64 {
        &self.words.get()[COUNT]
    }

    /// Notes where a frame stands, if it is an entry's and far enough from the last one noted. For the appending thread
    /// alone, before the frame is published.
    pub fn push(&self, header: &Header, position: u64) {
        let count = self.count().load(Ordering::Relaxed) as usize;
        let at = ENTRIES + ENTRY_WORDS * count;
        let last = count.checked_sub(1).map(|last| self.entry(last)[3]);
        if !worth_noting(last, header, position) || at + ENTRY_WORDS > self.words.get().len() {
            return;
        }
        let entry = [header.index.0, header.base_offset.0, header.append_time_us, position];
        for (word, number) in self.words.get()[at..].iter().zip(entry) {
            word.store(number, Ordering::Relaxed);
        }
        self.count().store(count as u64 + 1, Ordering::Release);
    }

    /// Nothing will be added any more: all below `end` is indexed.
    pub fn seal(&self, end: u64) {
        self.words.get()[END].store(end, Ordering::Release);
    }

    /// A position from which on a walk finds the key: the last noted frame that is not behind it.
    pub fn position(&self, key: Key) -> u64 {
        let capacity = (self.words.get().len() - ENTRIES) / ENTRY_WORDS;
        let count = (self.count().load(Ordering::Acquire) as usize).min(capacity);
        // A no-op has no time: what stands before it says where it is.
        let time = |i: usize| (0..=i).rev().map(|i| self.entry(i)[2]).find(|time| *time != 0).unwrap_or(0);
        let not_behind = |i: usize| match key {
            Key::Index(index) => self.entry(i)[0] <= index.0,
            Key::Offset(offset) => self.entry(i)[1] <= offset.0,
            Key::Time(wanted) => time(i) < wanted,
        };
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            if not_behind(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if let Key::Time(_) = key {
            // Between a timed frame and a no-op noted behind it records may stand that are newer than that frame.
            low = (1..=low).rev().find(|i| self.entry(*i - 1)[2] != 0).unwrap_or(0);
        }
        if low == 0 { SEGMENT_HEADER_BYTES } else { self.entry(low - 1)[3] }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Kind;
    use super::super::frame::Position;
    use super::*;

    fn filled(disk: &Disk, dir: &Path) -> Index {
        let index = Index::create(disk, dir, 1, 7, 64);
        for i in 0..100u64 {
            let note = Header::of_note(Kind::Records, Position::default());
            let header = Header { index: LogIndex(10 + i), base_offset: Offset(i / 2), ..note };
            index.push(&header, SEGMENT_HEADER_BYTES + i * BYTES_BETWEEN / 2);
            index.push(&Header::of_note(Kind::Synced, Position::default()), u64::MAX / 2);
        }
        index
    }

    #[test]
    fn it_finds_the_last_frame_not_behind() {
        let dir = tempfile::tempdir().expect("a directory");
        let index = filled(&Disk::real(), dir.path());
        let at = |i: u64| SEGMENT_HEADER_BYTES + i * BYTES_BETWEEN / 2;
        assert_eq!(index.position(Key::Index(LogIndex(1))), SEGMENT_HEADER_BYTES);
        assert_eq!(index.position(Key::Index(LogIndex(10))), at(0));
        assert_eq!(index.position(Key::Index(LogIndex(13))), at(2));
        assert_eq!(index.position(Key::Index(LogIndex(14))), at(4));
        assert_eq!(index.position(Key::Offset(Offset(2))), at(4));
        assert_eq!(index.position(Key::Index(LogIndex(u64::MAX))), at(98));
    }

    #[test]
    fn one_that_is_not_whole_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::real();
        let index = filled(&disk, dir.path());
        let load =
            |number, salt, capacity| Index::load(&disk, dir.path(), number, salt, capacity).expect("no shortage");
        assert!(load(1, 7, 64).is_none(), "not sealed");
        index.seal(1 << 30);
        assert!(load(1, 7, 64).is_some());
        assert!(load(1, 8, 64).is_none(), "of another segment");
        assert!(load(1, 7, 65).is_none(), "of another length");
        assert!(load(2, 7, 64).is_none(), "missing");
        index.words.get()[ENTRIES + 8].store(0, Ordering::Relaxed);
        assert!(load(1, 7, 64).is_none(), "a page of zeros");
    }
}
