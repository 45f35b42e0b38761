//! A frame in a segment: an entry, or a note that belongs to this node only.
//!
//! ```text
//!  0  length u32            bytes of the payload
//!  4  crc u32               CRC-32C of salt u64, position u64, and the frame without these four bytes
//!  8  kind u8 | check 3 bytes   the low bytes of the CRC-32C of salt, position, length, kind, and the header from 12 on
//! 12  count u32             records in the payload
//! 16  term u64
//! 24  index u64
//! 32  base offset u64
//! 40  append time u64       Unix microseconds
//! 48  producer id u64
//! 56  sequence u64
//! 64  durable position: file u64, position u64     when the frame was written
//! 80  payload, and zeros up to the next multiple of 8
//! ```
//!
//! All numbers are little-endian.
//!
//! - The checksums are seeded with the segment's salt and with the frame's position, so bytes in a payload, or a frame
//!   of another segment, are never mistaken for a frame.
//! - The check covers only the header. With it, the frames after a damaged one are found without reading the payload
//!   that every eight bytes, taken as a header, would announce. Those frames contain the durable position.
//! - Kind 0 is never used, so zeros are not a frame.
//! - A hard state's payload is the vote, u64, 0 for none; its term and commit are in `term` and `index`. A `synced`
//!   frame has no payload; a filler's payload has no meaning.
//! - A frame whose checksums are right and whose kind is unknown was written by a newer version ([`BadFrame::Newer`]).

use crate::codes::{UnknownCode, codes};
use crate::hash_chain::EntryChain;
use crate::storage::faults::{Fault, broken};
use crate::storage::format::entry::{
    BadEntry, ENTRY_BYTES_MAX, Entry, EntryKind, PayloadForm, Stamp, TERM_TOO_LARGE, u32_at, u64_at,
};
use crate::types::{LogIndex, Offset, Term};

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 80;

codes! {
    /// A note: a frame that is not an entry. It belongs to this node only, and peers never receive it.
    pub enum NoteKind: u8, "note kind" {
        /// Term, vote and commit index.
        HardState = 5,
        /// Nothing but the durable position in the frame's header.
        Synced = 6,
        /// Has no meaning: it replaces other frames, so that the frames after them keep their positions.
        Filler = 7,
    }
}

impl NoteKind {
    /// The form of the payload.
    const fn payload(self) -> PayloadForm {
        match self {
            NoteKind::HardState => PayloadForm::Bytes(8),
            NoteKind::Synced => PayloadForm::Bytes(0),
            NoteKind::Filler => PayloadForm::Filler,
        }
    }
}

// A frame's kind is the code of an entry or of a note, so the two must not overlap.
const _: () = {
    let mut i = 0;
    while i < NoteKind::ALL.len() {
        let mut j = 0;
        while j < EntryKind::ALL.len() {
            assert!(NoteKind::ALL[i].code() != EntryKind::ALL[j].code(), "a note and an entry have the same code");
            j += 1;
        }
        i += 1;
    }
};

/// The kind of a frame. 0 is never used, so zeros on the disk are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// An entry, which Raft replicates.
    Entry(EntryKind),
    /// A note of this node.
    Note(NoteKind),
}

impl FrameKind {
    /// The code as it is stored.
    pub const fn code(self) -> u8 {
        match self {
            FrameKind::Entry(kind) => kind.code(),
            FrameKind::Note(kind) => kind.code(),
        }
    }

    /// True for entries, which Raft replicates.
    pub const fn is_entry(self) -> bool {
        matches!(self, FrameKind::Entry(_))
    }

    /// The form of the payload.
    pub const fn payload(self) -> PayloadForm {
        match self {
            FrameKind::Entry(kind) => kind.payload(),
            FrameKind::Note(kind) => kind.payload(),
        }
    }

    /// True for a frame with records.
    pub const fn is_records(self) -> bool {
        self.payload().has_records()
    }
}

impl From<EntryKind> for FrameKind {
    fn from(kind: EntryKind) -> FrameKind {
        FrameKind::Entry(kind)
    }
}

impl TryFrom<u8> for FrameKind {
    type Error = UnknownCode<u8>;

    fn try_from(code: u8) -> Result<FrameKind, UnknownCode<u8>> {
        let entry = EntryKind::try_from(code).map(FrameKind::Entry);
        let kind = entry.or_else(|_| NoteKind::try_from(code).map(FrameKind::Note));
        kind.map_err(|_| UnknownCode { what: "a frame of kind", code })
    }
}

/// A position in a group's log: everything in files with lower numbers, and everything below `at` in this file, is
/// before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The file's number; 0: none.
    pub file: u64,
    /// Bytes from the beginning of the file.
    pub at: u64,
}

/// Why bytes are not a frame that this version reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// They are not a valid frame, for this reason.
    Invalid(&'static str),
    /// They are a valid frame of a newer version.
    Newer(UnknownCode<u8>),
}

/// The fields before the payload, without length and checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: FrameKind,
    /// The number of records in the payload.
    pub count: u32,
    /// The entry's term, or the hard state's.
    pub term: Term,
    /// The entry's index, or the hard state's commit.
    pub index: LogIndex,
    /// The offset of the first record, or of the next one if the payload contains none.
    pub base_offset: Offset,
    /// The leader's clock, Unix microseconds.
    pub append_time_us: u64,
    pub producer_id: u64,
    pub sequence: u64,
    /// The durable position when the frame was written.
    pub durable: Position,
}

/// A frame whose checksums are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub header: Header,
    pub payload: &'a [u8],
}

/// The length of a frame with a payload of this length.
pub fn frame_bytes(payload_bytes: usize) -> usize {
    HEADER_BYTES + payload_bytes.next_multiple_of(8)
}

/// The seed of the checksums, from the salt, the position and the length.
fn seed(frame: &[u8], salt: u64, position: u64) -> u32 {
    let mut seed = [0; 20];
    let (salt, position) = if broken(Fault::CrcWithoutPlace) { (0, 0) } else { (salt, position) };
    seed[..8].copy_from_slice(&salt.to_le_bytes());
    seed[8..16].copy_from_slice(&position.to_le_bytes());
    seed[16..].copy_from_slice(&frame[..4]);
    crc32c::crc32c(&seed)
}

fn checksum(frame: &[u8], salt: u64, position: u64) -> u32 {
    let covered = if broken(Fault::CrcWithoutHeader) { HEADER_BYTES } else { 8 };
    crc32c::crc32c_append(seed(frame, salt, position), &frame[covered..])
}

/// The zeros after a payload.
pub fn padding(payload_bytes: usize) -> &'static [u8] {
    &[0; 8][..payload_bytes.next_multiple_of(8) - payload_bytes]
}

fn header_check(frame: &[u8], salt: u64, position: u64) -> [u8; 3] {
    let crc = crc32c::crc32c_append(seed(frame, salt, position), &frame[8..9]);
    if broken(Fault::CrcWithoutHeader) {
        return [0; 3];
    }
    let [a, b, c, _] = crc32c::crc32c_append(crc, &frame[12..HEADER_BYTES]).to_le_bytes();
    [a, b, c]
}

/// Checks the header of a frame, and returns the frame's length.
///
/// # Errors
/// Why it is not the header of a frame that was written at this position.
pub fn peek_bytes(header: &[u8; HEADER_BYTES], salt: u64, position: u64) -> Result<usize, &'static str> {
    if header[8] == 0 {
        if broken(Fault::ZerosSkipped) && header[..8] == [0; 8] {
            return Ok(8);
        }
        return Err("not a frame");
    }
    let length = u32_at(header, 0) as usize;
    if header[9..12] != header_check(header, salt, position) || length > ENTRY_BYTES_MAX {
        return Err("not a valid header of a frame");
    }
    Ok(frame_bytes(length))
}

/// Appends a frame to be written at `position`.
///
/// # Panics
/// If the payload is too large, or the position is not a multiple of 8.
pub fn encode(out: &mut Vec<u8>, salt: u64, position: u64, header: &Header, payload: &[u8]) {
    encode_head(out, salt, position, header, payload);
    out.extend_from_slice(payload);
    out.extend_from_slice(padding(payload.len()));
}

/// Appends the header of a frame, with its checksums. The caller writes the payload and its [`padding`] after it.
///
/// # Panics
/// As [`encode`].
pub fn encode_head(out: &mut Vec<u8>, salt: u64, position: u64, header: &Header, payload: &[u8]) {
    assert!(payload.len() <= ENTRY_BYTES_MAX && position.is_multiple_of(8));
    let start = out.len();
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[header.kind.code(), 0, 0, 0]);
    out.extend_from_slice(&header.count.to_le_bytes());
    let numbers = [
        header.term.0,
        header.index.0,
        header.base_offset.0,
        header.append_time_us,
        header.producer_id,
        header.sequence,
        header.durable.file,
        header.durable.at,
    ];
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let check = header_check(&out[start..], salt, position);
    out[start + 9..start + 12].copy_from_slice(&check);
    let crc = crc32c::crc32c_append(checksum(&out[start..], salt, position), payload);
    let crc = crc32c::crc32c_append(crc, padding(payload.len()));
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Decodes a frame that has exactly this length.
///
/// # Errors
/// [`BadFrame::Invalid`] for anything that no version wrote with this salt at this position, [`BadFrame::Newer`] for a
/// frame of a kind that this version does not know.
pub fn decode(bytes: &[u8], salt: u64, position: u64) -> Result<Frame<'_>, BadFrame> {
    if broken(Fault::ZerosSkipped) && bytes == [0; 8] {
        return Ok(Frame { header: Header::of_note(NoteKind::Filler, Position::default()), payload: &[] });
    }
    let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else { return Err(BadFrame::Invalid("not a whole frame")) };
    if peek_bytes(head, salt, position).map_err(BadFrame::Invalid)? != bytes.len() {
        return Err(BadFrame::Invalid("not a whole frame"));
    }
    if u32_at(head, 4) != checksum(bytes, salt, position) && !broken(Fault::TailCutLate) {
        return Err(BadFrame::Invalid("the checksum does not match"));
    }
    let header = Header {
        kind: FrameKind::try_from(head[8]).map_err(BadFrame::Newer)?,
        count: u32_at(head, 12),
        term: Term(u64_at(head, 16)),
        index: LogIndex(u64_at(head, 24)),
        base_offset: Offset(u64_at(head, 32)),
        append_time_us: u64_at(head, 40),
        producer_id: u64_at(head, 48),
        sequence: u64_at(head, 56),
        durable: Position { file: u64_at(head, 64), at: u64_at(head, 72) },
    };
    Ok(Frame { header, payload: &bytes[HEADER_BYTES..HEADER_BYTES + u32_at(head, 0) as usize] })
}

impl Header {
    /// The header of an entry's frame.
    ///
    /// # Errors
    /// [`BadEntry`] if the entry has no stamp, or a term of more than 63 bits.
    pub fn of_entry(entry: &Entry, durable: Position) -> Result<Header, BadEntry> {
        if entry.term > Term::MAX {
            return Err(TERM_TOO_LARGE);
        }
        let Stamp { kind, count, base_offset, append_time_us, producer_id, sequence } = entry.stamp()?;
        Ok(Header {
            kind: FrameKind::Entry(kind),
            count,
            term: entry.term,
            index: entry.index,
            base_offset,
            append_time_us,
            producer_id,
            sequence,
            durable,
        })
    }

    /// The header of a note of the node's own.
    pub fn of_note(kind: NoteKind, durable: Position) -> Header {
        Header {
            kind: FrameKind::Note(kind),
            count: 0,
            term: Term(0),
            index: LogIndex(0),
            base_offset: Offset(0),
            append_time_us: 0,
            producer_id: 0,
            sequence: 0,
            durable,
        }
    }
}

impl<'a> Frame<'a> {
    /// The records in the frame, without the hash chain after them; nothing if it has none.
    pub fn records(&self) -> &'a [u8] {
        self.header.kind.payload().records(self.payload)
    }

    /// The hash chain in the frame, if it has one.
    pub fn chain(&self) -> Option<EntryChain> {
        self.header.kind.payload().chain(self.payload)
    }

    /// The entry in the frame; `None` for a note.
    pub fn entry(&self) -> Option<Entry> {
        let FrameKind::Entry(kind) = self.header.kind else { return None };
        let Header { count, base_offset, append_time_us, producer_id, sequence, .. } = self.header;
        let stamp = Stamp { kind, count, base_offset, append_time_us, producer_id, sequence };
        Some(Entry::new(self.header.index, self.header.term, stamp, self.payload))
    }
}

/// Sets both checksums of a frame.
#[cfg(test)]
pub(crate) fn seal(frame: &mut [u8], salt: u64, position: u64) {
    let check = header_check(frame, salt, position);
    frame[9..12].copy_from_slice(&check);
    let crc = checksum(frame, salt, position);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Turns the frame at a position of a segment into one of another kind, with correct checksums, as another version
/// would write it.
#[cfg(test)]
pub(crate) fn set_kind(segment: &mut [u8], position: u64, kind: u8) {
    let (salt, frame) = (u64_at(segment, 32), &mut segment[position as usize..]);
    let bytes = frame_bytes(u32_at(frame, 0) as usize);
    frame[8] = kind;
    seal(&mut frame[..bytes], salt, position);
}

#[cfg(test)]
pub(crate) fn sample_header() -> Header {
    Header {
        kind: FrameKind::Entry(EntryKind::Records),
        count: 1,
        term: Term(2),
        index: LogIndex(3),
        base_offset: Offset(4),
        append_time_us: 5,
        producer_id: 6,
        sequence: 7,
        durable: Position { file: 8, at: 9 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_frame_never_change() {
        let mut bytes = Vec::new();
        encode(&mut bytes, 0x0102_0304_0506_0708, 128, &sample_header(), b"hello");
        crate::golden::assert_golden("frame-v1.bin", &bytes);
        assert_eq!(
            decode(&bytes, 0x0102_0304_0506_0708, 128),
            Ok(Frame { header: sample_header(), payload: b"hello" })
        );
    }

    #[test]
    fn refuses_bytes_that_are_not_a_frame() {
        let mut bytes = Vec::new();
        encode(&mut bytes, 1, 128, &sample_header(), b"hello");
        assert!(decode(&bytes, 2, 128).is_err(), "of another segment");
        assert!(decode(&bytes, 1, 136).is_err(), "from another position");
        assert!(decode(&vec![0; bytes.len()], 1, 128).is_err(), "zeros");
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes, 1, 128).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length], 1, 128).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn refuses_a_term_of_more_than_63_bits() {
        let noop = Stamp {
            kind: EntryKind::Noop,
            count: 0,
            base_offset: Offset(0),
            append_time_us: 0,
            producer_id: 0,
            sequence: 0,
        };
        for (term, fits) in [(Term::MAX, true), (Term(1 << 63), false)] {
            let entry = Entry::new(LogIndex(3), term, noop, b"");
            assert_eq!(Header::of_entry(&entry, Position::default()).is_ok(), fits, "{term}");
        }
    }

    #[test]
    fn an_entry_comes_back() {
        let stamp = Stamp {
            kind: EntryKind::Records,
            count: 1,
            base_offset: Offset(4),
            append_time_us: 5,
            producer_id: 6,
            sequence: 7,
        };
        let entry = Entry::new(LogIndex(3), Term(2), stamp, b"12345678");
        let head = Header::of_entry(&entry, Position { file: 8, at: 9 }).expect("an entry");
        assert_eq!(head, sample_header());
        assert_eq!(Frame { header: head, payload: &entry.payload() }.entry(), Some(entry));
    }
}
