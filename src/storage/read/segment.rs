//! A segment: an append-only file of a group's log. A header, then frames.
//!
//! ```text
//!   0  "SERIATSG"
//!   8  format version u32     2
//!  12  crc u32                CRC-32C of the header without these four bytes
//!  16  group u64
//!  24  file number u64        also its name; never used twice
//!  32  salt u64               random: part of every frame's checksum
//!  40  predecessor: file number u64     0: the log begins here
//!  48  predecessor: position u64        where the log before this file ends
//!  56  first index u64        of the first entry that this file takes
//!  64  term before u64        of the entry before that one
//!  72  base offset u64        of the first record that this file takes
//!  80  time before u64        no record before is newer, Unix microseconds
//!  88  hard state: term u64, vote u64, commit u64     the last one written before this file was made
//! 112  digest before u64      the running digest of the log up to the entry before the first one (`digest.rs`)
//! 120  begun at u64           the log's clock when this file was made, microseconds; 0: unknown
//! 128  frames
//! ```
//!
//! The log is the chain of predecessors back from the newest segment: what no chain reaches is dead. Nothing is ever
//! overwritten; a log that loses its suffix goes on in a new file, whose predecessor is where the kept part ends.
//!
//! *Begun at* is local: it differs between nodes. All entries before a segment had arrived here by that time, whatever their
//! timestamps. The clock is the log's own (`consensus/ages.rs`): it never goes back within a chain, and retention by age uses it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::storage::error::StorageError;
use crate::storage::format::digest::Digest;
use crate::storage::format::entry::{u32_at, u64_at};
use crate::storage::format::frame::Position;
use crate::storage::format::manifest::NUMBERS_MAX;
use crate::storage::format::state::{Base, HardState};
use crate::storage::io::disk::{Disk, DiskFile};
use crate::storage::io::segment_cache::Slot;
use crate::storage::read::index::Index;
use crate::storage::read::reader::Access;
use crate::types::{GroupId, LogIndex, NodeId, Offset, Term};

/// Bytes before the first frame.
pub const SEGMENT_HEADER_BYTES: u64 = 128;

/// The only format of segments that this version reads and writes. Format 1, never released, had ten bytes for an offset and
/// for a term, which protobuf-java misreads.
pub const SEGMENT_FORMAT: u32 = 2;

/// Bytes of the header of format 1: what its checksum covers.
const FORMAT_1_HEADER_BYTES: usize = 128;

const MAGIC: &[u8; 8] = b"SERIATSG";

/// What a segment says of itself and of the log before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose log this is.
    pub group: GroupId,
    /// The file's number.
    pub number: u64,
    /// Seeds the checksums of its frames.
    pub salt: u64,
    /// Where the log before this file ends; the default, when the log begins here.
    pub predecessor: Position,
    /// The entry before the first one here: index, term, and the offset of the first record here.
    pub base: Base,
    /// No record before is newer, Unix microseconds.
    pub time_before_us: u64,
    /// The last hard state written before this file was made.
    pub hard_state: HardState,
    /// The log's clock when the file was created, microseconds: all earlier entries had arrived. 0: unknown.
    pub begun_us: u64,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// They are not what was written, or were never written.
    Torn,
    /// Written by a version with another format, an older or a newer one.
    OtherFormat(u32),
}

impl SegmentHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&SEGMENT_FORMAT.to_le_bytes());
        let numbers = [
            self.group.0,
            self.number,
            self.salt,
            self.predecessor.file,
            self.predecessor.at,
            self.base.index.0 + 1,
            self.base.term.0,
            self.base.offset.0,
            self.time_before_us,
            self.hard_state.term.0,
            self.hard_state.vote.unwrap_or_default().0,
            self.hard_state.commit.0,
            self.base.digest.0,
            self.begun_us,
        ];
        for (i, number) in numbers.iter().enumerate() {
            bytes[16 + 8 * i..24 + 8 * i].copy_from_slice(&number.to_le_bytes());
        }
        let crc = checksum(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`BadHeader`] for anything that [`SegmentHeader::encode`] did not write.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, BadHeader> {
        let old = bytes.first_chunk::<FORMAT_1_HEADER_BYTES>().ok_or(BadHeader::Torn)?;
        if &old[..8] != MAGIC {
            return Err(BadHeader::Torn);
        }
        let version = u32_at(old, 8);
        // A newer header may have its checksum elsewhere. An older one that does not match it was damaged.
        let newer = version > SEGMENT_FORMAT && !version_is_damaged(old, SEGMENT_FORMAT);
        if newer || version < SEGMENT_FORMAT && u32_at(old, 12) == checksum(old) {
            return Err(BadHeader::OtherFormat(version));
        }
        let bytes = bytes.first_chunk::<{ SEGMENT_HEADER_BYTES as usize }>().ok_or(BadHeader::Torn)?;
        let first_index = u64_at(bytes, 56);
        let counted = [40, 48].into_iter().all(|at| u64_at(bytes, at) <= NUMBERS_MAX);
        let numbered = counted && (1..=NUMBERS_MAX).contains(&first_index);
        if version != SEGMENT_FORMAT || u32_at(bytes, 12) != checksum(bytes) || !numbered {
            return Err(BadHeader::Torn);
        }
        let terms = [u64_at(bytes, 64), u64_at(bytes, 88)];
        if terms.iter().any(|term| Term(*term) > Term::MAX) || Offset(u64_at(bytes, 72)) > Offset::MAX {
            return Err(BadHeader::Torn);
        }
        Ok(SegmentHeader {
            group: GroupId(u64_at(bytes, 16)),
            number: u64_at(bytes, 24),
            salt: u64_at(bytes, 32),
            predecessor: Position { file: u64_at(bytes, 40), at: u64_at(bytes, 48) },
            base: Base {
                index: LogIndex(first_index - 1),
                term: Term(u64_at(bytes, 64)),
                offset: Offset(u64_at(bytes, 72)),
                digest: Digest(u64_at(bytes, 112)),
            },
            time_before_us: u64_at(bytes, 80),
            hard_state: HardState {
                term: Term(u64_at(bytes, 88)),
                vote: Some(NodeId(u64_at(bytes, 96))).filter(|v| v.0 != 0),
                commit: LogIndex(u64_at(bytes, 104)),
            },
            begun_us: u64_at(bytes, 120),
        })
    }
}

#[cfg(test)]
impl SegmentHeader {
    /// Puts the checksum right, if the bytes are as many as a header's.
    pub(in crate::storage) fn seal(bytes: &mut [u8]) {
        if let Some(bytes) = bytes.first_chunk_mut::<{ SEGMENT_HEADER_BYTES as usize }>() {
            let crc = checksum(bytes);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

/// True if only the version field of these bytes is damaged: their checksum is the one of format `known`. Segment headers and
/// manifests have the version (4 bytes) at byte 8 and the checksum of all other bytes at byte 12. CRC-32C never takes two
/// different versions of the same bytes for equal.
pub(in crate::storage) fn version_is_damaged(bytes: &[u8], known: u32) -> bool {
    if bytes.len() < 16 || u32_at(bytes, 8) == known {
        return false;
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &known.to_le_bytes());
    u32_at(bytes, 12) == crc32c::crc32c_append(crc, &bytes[16..])
}

/// The name of a segment's file.
pub fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.seg"))
}

/// The number of the file of that name, if it is a segment's.
pub fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let number = (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?;
    // The next file gets the number behind the highest: one that is near the end of them was not made here.
    number.filter(|number| *number < NUMBERS_MAX / 2)
}

/// A segment, for who reads it: opened when it is read, and closed when too many others are (`opened.rs`).
pub struct Segment {
    /// What it says of itself.
    pub header: SegmentHeader,
    disk: Disk,
    dir: PathBuf,
    index_capacity: usize,
    /// Frames are whole up to here. Grows in the newest segment alone, after the write.
    end: AtomicU64,
    slot: Arc<Slot>,
    /// Its index was rebuilt once, and that was logged.
    index_made: AtomicBool,
    index_wrong: AtomicBool,
}

impl Segment {
    /// A segment that is there, with frames up to `end`.
    pub fn new(disk: &Disk, dir: &Path, header: SegmentHeader, index_capacity: usize, end: u64) -> Segment {
        Segment {
            header,
            disk: disk.clone(),
            dir: dir.to_owned(),
            index_capacity,
            end: AtomicU64::new(end),
            slot: Arc::default(),
            index_made: AtomicBool::new(false),
            index_wrong: AtomicBool::new(false),
        }
    }

    /// The newest segment of a log: open, and it stays so until it is sealed.
    pub fn with_open(self, file: Arc<DiskFile>, index: Arc<Index>) -> Segment {
        Segment { slot: Arc::new(Slot::of(file, index)), ..self }
    }

    /// It is not written any more, and stays open only as long as it is read.
    pub fn sealed(&self) {
        self.disk.opened().keep(&self.slot);
    }

    /// Its file's name.
    pub fn path(&self) -> PathBuf {
        segment_path(&self.dir, self.header.number)
    }

    /// Frames are whole up to here.
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Frames are written and indexed up to here: readers may see them.
    pub fn publish_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// Its file; `None` when it would have to be opened and may not.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn file(&self, access: Access) -> Result<Option<Arc<DiskFile>>, StorageError> {
        if let Some(file) = self.slot.file() {
            return Ok(Some(file));
        }
        if access == Access::Cached {
            return Ok(None);
        }
        let path = self.path();
        let missing = || StorageError::io("open", &path, std::io::ErrorKind::NotFound.into());
        let file = self.disk.open_to_read(&path)?.ok_or_else(missing)?;
        Ok(Some(self.disk.opened().keep_file(&self.slot, Arc::new(file))))
    }

    /// True if a wrong index was logged.
    #[cfg(test)]
    pub(in crate::storage) fn has_wrong_index(&self) -> bool {
        self.index_wrong.load(Ordering::Relaxed)
    }

    /// Logs once that its index returns wrong positions.
    pub(in crate::storage) fn tell_wrong_index(&self) {
        if !self.index_wrong.swap(true, Ordering::Relaxed) {
            log::warn!("the index of {} is wrong: reading from an earlier position", self.path().display());
        }
    }

    /// Its index; `None` when it would have to be opened and may not. One that is missing or wrong is made anew.
    ///
    /// # Errors
    /// When the segment can't be opened, or the system has nothing left to open the index with.
    pub fn index(&self, access: Access) -> Result<Option<Arc<Index>>, StorageError> {
        if let Some(index) = self.slot.index() {
            return Ok(Some(index));
        }
        let (Access::Blocking, Some(file)) = (access, self.file(access)?) else { return Ok(None) };
        let (number, salt) = (self.header.number, self.header.salt);
        let index = match Index::load(&self.disk, &self.dir, number, salt)? {
            Some(index) => index,
            None => {
                if !self.index_made.swap(true, Ordering::Relaxed) {
                    log::info!("the index of {} is missing or wrong: rebuilding it", self.path().display());
                }
                Index::rebuild(&self.disk, &self.dir, &self.header, self.index_capacity, &file, self.end())
            }
        };
        let index = Arc::new(index);
        self.slot.keep_index(index.clone());
        Ok(Some(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            group: GroupId(1),
            number: 2,
            salt: 3,
            predecessor: Position { file: 4, at: 5 },
            base: Base { index: LogIndex(5), term: Term(7), offset: Offset(8), digest: Digest(13) },
            time_before_us: 9,
            hard_state: HardState { term: Term(10), vote: Some(NodeId(11)), commit: LogIndex(12) },
            begun_us: 14,
        }
    }

    #[test]
    fn a_header_is_these_bytes() {
        let bytes = header().encode();
        crate::golden::assert_golden("segment-header-v2.bin", &bytes);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
    }

    #[test]
    fn other_bytes_are_none() {
        assert_eq!(SegmentHeader::decode(&[0; 128]), Err(BadHeader::Torn), "zeros");
        assert_eq!(SegmentHeader::decode(&header().encode()[..127]), Err(BadHeader::Torn), "short");
        let good = header().encode();
        // The version's bits as well: a flipped one was taken for a newer format (exit code 78).
        for bit in 0..good.len() * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Torn), "bit {bit}");
        }
        for at in [40, 48, 56, 72] {
            let mut bytes = good;
            bytes[at..at + 8].fill(0xff);
            SegmentHeader::seal(&mut bytes);
            assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Torn), "number at {at}");
        }
        let mut newer = good;
        newer[8] = 3;
        SegmentHeader::seal(&mut newer);
        assert_eq!(SegmentHeader::decode(&newer), Err(BadHeader::OtherFormat(3)));
        newer[12..16].fill(0);
        assert_eq!(SegmentHeader::decode(&newer), Err(BadHeader::OtherFormat(3)), "its checksum may be elsewhere");
    }

    /// Files of the previous version are reported as such, not as damage.
    #[test]
    fn the_old_format_is_told_from_damage() {
        let old = include_bytes!("../../../tests/golden/segment-header-v1.bin");
        assert_eq!(SegmentHeader::decode(old), Err(BadHeader::OtherFormat(1)));
        for bit in (0..old.len() * 8).filter(|bit| !(64..96).contains(bit)) {
            let mut bytes = *old;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Torn), "bit {bit}");
        }
    }

    #[test]
    fn numbers_of_more_than_63_bits_are_refused() {
        for at in [64, 72, 88] {
            let mut bytes = header().encode();
            bytes[at..at + 8].copy_from_slice(&(i64::MAX as u64).to_le_bytes());
            SegmentHeader::seal(&mut bytes);
            assert!(SegmentHeader::decode(&bytes).is_ok(), "byte {at}");
            bytes[at..at + 8].copy_from_slice(&(1u64 << 63).to_le_bytes());
            SegmentHeader::seal(&mut bytes);
            assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Torn), "byte {at}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(segment_path(Path::new("g"), 1), Path::new("g/00000000000000000001.seg"));
        assert_eq!(segment_number("00000000000000000012.seg"), Some(12));
        for other in [
            "1.seg",
            "00000000000000000001.idx",
            "+0000000000000000001.seg",
            "99999999999999999999.seg",
            "18446744073709551615.seg",
            "04611686018427387903.seg",
        ] {
            assert_eq!(segment_number(other), None, "{other}");
        }
    }
}
