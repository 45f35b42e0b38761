//! The header of a segment. A segment is an append-only file of a group's log: a header, then frames.
//!
//! ```text
//!   0  "SERIATSG"
//!   8  format version u32     2
//!  12  crc u32                CRC-32C of the header without these four bytes
//!  16  group u64
//!  24  file number u64        also its name; never used twice
//!  32  salt u64               random: part of every frame's checksum
//!  40  predecessor: file number u64     0: the log begins in this file
//!  48  predecessor: position u64        where the log before this file ends
//!  56  first index u64        of the first entry in this file
//!  64  term before u64        of the entry before it
//!  72  base offset u64        of the first record in this file
//!  80  time before u64        no earlier record is newer, Unix microseconds
//!  88  hard state: term u64, vote u64, commit u64     the last one before this file was created
//! 112  digest before u64      the running digest of the log up to the entry before the first one (`digest.rs`)
//! 120  begun at u64           the log's clock when this file was created, microseconds; 0: unknown
//! 128  frames
//! ```
//!
//! The log is the chain of predecessors, followed back from the newest segment. Segments outside this chain are dead.
//! Nothing is ever overwritten: a log that loses its suffix continues in a new file, whose predecessor is the end of
//! the kept part.
//!
//! *Begun at* is local to the node. By that time, all entries before the segment had arrived on this node, whatever
//! their timestamps. The clock is the log's own (`catalog/policy/ages.rs`): it never decreases within a chain, and
//! retention by age uses it.

use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::entry::u64_at;
use super::frame::Position;
use super::state::{Base, HardState};
use super::versioned::{self, BadPrefix, NUMBERS_MAX, PREFIX_BYTES, are_countable, check_prefix, prefix};
use crate::types::{GroupId, LogIndex, Offset, ReplicaId, Term};

/// Bytes before the first frame.
pub const SEGMENT_HEADER_BYTES: u64 = 128;

/// The only format of segments that this version reads and writes. Format 1, never released, had ten bytes for an
/// offset and for a term, which protobuf-java misreads.
pub const SEGMENT_FORMAT: u32 = 2;

const MAGIC: &[u8; 8] = b"SERIATSG";

/// A segment's description of itself and of the log before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub group: GroupId,
    pub number: u64,
    /// Seeds the checksums of its frames.
    pub salt: u64,
    /// Where the log before this file ends; the default value if the log begins in this file.
    pub predecessor: Position,
    /// The end of the log before the first entry of this file.
    pub base: Base,
    /// An upper bound of all earlier append times, Unix microseconds.
    pub time_before_us: u64,
    /// The last hard state before this file was created.
    pub hard_state: HardState,
    /// The log's clock when the file was created, microseconds: all earlier entries had arrived. 0: unknown.
    pub begun_us: u64,
}

/// Why bytes are not a header of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// Damaged, or never completely written.
    Torn,
    /// An older or a newer version wrote them in another format.
    OtherFormat(u32),
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        bytes[..PREFIX_BYTES].copy_from_slice(&prefix(MAGIC, SEGMENT_FORMAT));
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
        versioned::seal(&mut bytes);
        bytes
    }

    /// Decodes a header.
    ///
    /// # Errors
    /// [`BadHeader`] for anything that [`SegmentHeader::encode`] did not write.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, BadHeader> {
        // The checksums of this format and of format 1 cover no more than this. A newer header may be shorter.
        let bytes = &bytes[..bytes.len().min(SEGMENT_HEADER_BYTES as usize)];
        check_prefix(bytes, MAGIC, SEGMENT_FORMAT).map_err(|bad| match bad {
            BadPrefix::OtherFormat(version) => BadHeader::OtherFormat(version),
            BadPrefix::NotOurs | BadPrefix::Damaged => BadHeader::Torn,
        })?;
        let bytes = bytes.first_chunk::<{ SEGMENT_HEADER_BYTES as usize }>().ok_or(BadHeader::Torn)?;
        let first_index = u64_at(bytes, 56);
        if !are_countable(bytes, &[40, 48, 56]) || first_index == 0 {
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
                vote: Some(ReplicaId(u64_at(bytes, 96))).filter(|v| v.0 != 0),
                commit: LogIndex(u64_at(bytes, 104)),
            },
            begun_us: u64_at(bytes, 120),
        })
    }
}

#[cfg(test)]
impl SegmentHeader {
    /// Sets the checksum, if these are as many bytes as a header.
    pub(crate) fn seal(bytes: &mut [u8]) {
        if let Some(bytes) = bytes.first_chunk_mut::<{ SEGMENT_HEADER_BYTES as usize }>() {
            versioned::seal(bytes);
        }
    }
}

/// The path of a segment's file.
pub fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.seg"))
}

/// The number in the name of a segment's file; `None` for other files.
pub fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let number = (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?;
    // Each new file gets the next number, so a node never wrote a number near the maximum.
    number.filter(|number| *number < NUMBERS_MAX / 2)
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
            hard_state: HardState { term: Term(10), vote: Some(ReplicaId(11)), commit: LogIndex(12) },
            begun_us: 14,
        }
    }

    #[test]
    fn the_bytes_of_a_header_never_change() {
        let bytes = header().encode();
        crate::golden::assert_golden("segment-header-v2.bin", &bytes);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
    }

    #[test]
    fn refuses_bytes_that_are_not_a_header() {
        assert_eq!(SegmentHeader::decode(&[0; 128]), Err(BadHeader::Torn), "zeros");
        assert_eq!(SegmentHeader::decode(&header().encode()[..127]), Err(BadHeader::Torn), "short");
        let good = header().encode();
        // This includes the bits of the version. Once, a flipped one was mistaken for a newer format (exit code 78).
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
        for length in 0..newer.len() {
            // Once, a short header was treated as torn, and its segment was deleted.
            let bad = if length < 12 { BadHeader::Torn } else { BadHeader::OtherFormat(3) };
            assert_eq!(SegmentHeader::decode(&newer[..length]), Err(bad), "cut to {length}");
            assert_eq!(
                SegmentHeader::decode(&good[..length]),
                Err(BadHeader::Torn),
                "of this version, cut to {length}"
            );
        }
    }

    /// Files of the previous version are reported as such, not as damage.
    #[test]
    fn distinguishes_the_old_format_from_damage() {
        let old = include_bytes!("../../../tests/golden/segment-header-v1.bin");
        assert_eq!(SegmentHeader::decode(old), Err(BadHeader::OtherFormat(1)));
        for bit in (0..old.len() * 8).filter(|bit| !(64..96).contains(bit)) {
            let mut bytes = *old;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Torn), "bit {bit}");
        }
    }

    #[test]
    fn refuses_numbers_of_more_than_63_bits() {
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
    fn file_names_contain_the_number() {
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
