//! The bytes of one Raft entry, which are the same in raft, between peers and on the disk: a stamp and a payload.
//!
//! ```text
//!  0  kind u8 | 0 0 0
//!  4  count u32           records in the payload; 0 for every other kind
//!  8  base offset u64     of the first record; for every other kind, of the next record
//! 16  append time u64     Unix microseconds, the leader's clock
//! 24  producer id u64     0: none
//! 32  sequence u64
//! 40  payload
//! ```
//!
//! All numbers are little-endian. The leader writes the stamp when it appends; followers check it. The payload of
//! records is drawn in `payload`. That of a conf change is 16 bytes (type u32, 0 u32, node id u64); of a trim 8 bytes
//! (the first offset to keep); of a change of the log state a message; of a no-op none. Chained records are followed by
//! 64 bytes, the hash chain before and after them (`crate::hash_chain`).

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use crate::codes::codes;
use crate::hash_chain::EntryChain;
pub use crate::storage::error::BadEntry;
use crate::types::{GroupId, LogIndex, Offset, Term};

/// The largest entry, stamp and payload, in bytes: a constant of the format that every peer accepts.
pub const ENTRY_BYTES_MAX: usize = 8 << 20;

codes! {
    /// The kind of an entry. Peers send it, and a segment stores it as the kind of the entry's frame
    /// (`crate::storage::format::frame::FrameKind`). Frames have further kinds; a number means the same in both.
    pub enum EntryKind: u8, "entry kind" {
        /// Records of a client.
        Records = 1,
        /// The entry that a new leader appends. It has no payload.
        Noop = 2,
        /// A change of the group's voters or learners.
        ConfChange = 3,
        /// A new first offset.
        Trim = 4,
        /// Changes of the producers or the cursors of a log (`crate::log_state::StateCommand`).
        State = 8,
        /// Records of a client, followed by the hash chain of the log before and after them.
        ChainedRecords = 9,
    }
}

/// The form of a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadForm {
    /// At least one record, as drawn in `payload`.
    Records,
    /// The same, followed by an [`EntryChain`].
    ChainedRecords,
    /// A fixed number of bytes.
    Bytes(usize),
    /// A message, at least one byte.
    Message,
    /// Bytes without meaning.
    Filler,
}

impl PayloadForm {
    /// Whether a payload of this length, with this count of records in its header, can be of this form.
    pub const fn fits(self, bytes: usize, count: u32) -> bool {
        match self {
            PayloadForm::Records => count > 0,
            PayloadForm::ChainedRecords => count > 0 && bytes > EntryChain::BYTES,
            PayloadForm::Bytes(length) => count == 0 && bytes == length,
            PayloadForm::Message => count == 0 && bytes > 0,
            PayloadForm::Filler => count == 0,
        }
    }

    /// Whether the payload contains records.
    pub const fn has_records(self) -> bool {
        matches!(self, PayloadForm::Records | PayloadForm::ChainedRecords)
    }

    /// Returns the records of a payload of this form, without what follows them; nothing if the form has none.
    pub fn records(self, payload: &[u8]) -> &[u8] {
        match self {
            PayloadForm::Records => payload,
            PayloadForm::ChainedRecords => &payload[..payload.len().saturating_sub(EntryChain::BYTES)],
            PayloadForm::Bytes(_) | PayloadForm::Message | PayloadForm::Filler => &[],
        }
    }

    /// Returns the hash chain in a payload of this form.
    pub fn chain(self, payload: &[u8]) -> Option<EntryChain> {
        match self {
            PayloadForm::ChainedRecords => payload.last_chunk().map(EntryChain::decode),
            PayloadForm::Records | PayloadForm::Bytes(_) | PayloadForm::Message | PayloadForm::Filler => None,
        }
    }
}

/// The groups whose leader accepts proposals of a kind of entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProposedTo {
    /// None: only raft creates these entries.
    NoGroup,
    /// Logs. The catalog is never trimmed, because a start replays all of it.
    Logs,
    /// Logs and the catalog.
    EveryGroup,
}

impl EntryKind {
    /// The properties of the kinds, one line for each.
    const fn properties(self) -> (PayloadForm, ProposedTo) {
        match self {
            EntryKind::Records => (PayloadForm::Records, ProposedTo::EveryGroup),
            EntryKind::Noop => (PayloadForm::Bytes(0), ProposedTo::NoGroup),
            EntryKind::ConfChange => (PayloadForm::Bytes(16), ProposedTo::NoGroup),
            EntryKind::Trim => (PayloadForm::Bytes(8), ProposedTo::Logs),
            EntryKind::State => (PayloadForm::Message, ProposedTo::Logs),
            EntryKind::ChainedRecords => (PayloadForm::ChainedRecords, ProposedTo::Logs),
        }
    }

    /// The form of the payload.
    pub const fn payload(self) -> PayloadForm {
        self.properties().0
    }

    /// True if entries of this kind are proposed to this group, and not created by raft.
    pub fn is_proposed_to(self, group: GroupId) -> bool {
        match self.properties().1 {
            ProposedTo::NoGroup => false,
            ProposedTo::Logs => group != GroupId::CATALOG,
            ProposedTo::EveryGroup => true,
        }
    }
}

/// No log reaches an offset that large ([`Offset::MAX`]).
pub const OFFSET_TOO_LARGE: BadEntry = BadEntry("an offset of more than 63 bits");
/// No log reaches a term that large ([`Term::MAX`]).
pub const TERM_TOO_LARGE: BadEntry = BadEntry("a term of more than 63 bits");

/// A newer version wrote an entry of this kind.
pub const UNKNOWN_KIND: BadEntry = BadEntry("a kind of entry that this version does not know");

/// The fields that the leader sets on an entry when it appends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Determines the form of the payload.
    pub kind: EntryKind,
    /// The number of records in the payload.
    pub count: u32,
    /// The offset of the first record; without records, the offset of the next record.
    pub base_offset: Offset,
    /// The leader's clock, Unix microseconds; never decreases within a log.
    pub append_time_us: u64,
    /// The producer; 0: none.
    pub producer_id: u64,
    /// The number that the producer gave this request, from 1. Without a producer it has no meaning in the log. A node
    /// that forwards a request then sets it to a random number, and recognizes the entry by it.
    pub sequence: u64,
}

impl Stamp {
    /// The length of a stamp.
    pub const BYTES: usize = 40;

    /// Encodes the stamp.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = self.kind.code();
        bytes[4..8].copy_from_slice(&self.count.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.base_offset.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.append_time_us.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.producer_id.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    /// Reads the stamp at the beginning of an entry's bytes.
    ///
    /// # Errors
    /// [`BadEntry`] for anything that [`Stamp::encode`] does not write.
    pub fn decode(bytes: &[u8]) -> Result<Stamp, BadEntry> {
        let Some(bytes) = bytes.first_chunk::<{ Self::BYTES }>() else {
            return Err(BadEntry("shorter than its stamp"));
        };
        let kind = EntryKind::try_from(bytes[0]).map_err(|_| UNKNOWN_KIND)?;
        if bytes[1..4] != [0; 3] {
            return Err(BadEntry("reserved bytes of the stamp are set"));
        }
        let stamp = Stamp {
            kind,
            count: u32_at(bytes, 4),
            base_offset: Offset(u64_at(bytes, 8)),
            append_time_us: u64_at(bytes, 16),
            producer_id: u64_at(bytes, 24),
            sequence: u64_at(bytes, 32),
        };
        if stamp.kind.payload().has_records() != (stamp.count > 0) {
            return Err(BadEntry("the count of records does not fit the kind"));
        }
        stamp.end_offset()?;
        Ok(stamp)
    }

    /// The offset of the first record after the entry.
    ///
    /// # Errors
    /// [`BadEntry`] if it has more than 63 bits.
    pub fn end_offset(&self) -> Result<Offset, BadEntry> {
        self.base_offset.plus(u64::from(self.count)).ok_or(OFFSET_TOO_LARGE)
    }
}

/// The payload of an entry that is not appended yet, preceded by room for its stamp. A gRPC thread assembles the bytes
/// once; the same bytes are then written to the disk and sent to the peers. A clone shares them.
#[derive(Clone, PartialEq, Eq)]
pub struct Unstamped(Bytes);

impl Unstamped {
    /// Returns a buffer with room for the stamp, to which the caller appends the payload.
    pub fn room(payload_bytes: usize) -> Vec<u8> {
        let mut data = Vec::with_capacity(Stamp::BYTES + payload_bytes);
        data.resize(Stamp::BYTES, 0);
        data
    }

    /// Takes a buffer that was returned by [`Unstamped::room`].
    ///
    /// # Panics
    /// If it is shorter than a stamp.
    pub fn new(data: Vec<u8>) -> Unstamped {
        assert!(data.len() >= Stamp::BYTES, "no room for a stamp");
        Unstamped(data.into())
    }

    /// The payload alone; shares the bytes.
    pub fn payload(&self) -> Bytes {
        self.0.slice(Stamp::BYTES..)
    }

    /// Fills in the stamp and returns the data of an entry. Copies the bytes only if a clone shares them.
    pub fn stamp(self, stamp: &Stamp) -> Vec<u8> {
        let mut data = Vec::from(self.0);
        data[..Stamp::BYTES].copy_from_slice(&stamp.encode());
        data
    }
}

impl From<&[u8]> for Unstamped {
    fn from(payload: &[u8]) -> Unstamped {
        let mut data = Unstamped::room(payload.len());
        data.extend_from_slice(payload);
        Unstamped::new(data)
    }
}

impl Deref for Unstamped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0[Stamp::BYTES..]
    }
}

impl fmt::Debug for Unstamped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unstamped({} bytes)", self.len())
    }
}

/// A Raft entry as it is stored and sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The position in the Raft log, from 1.
    pub index: LogIndex,
    /// The term of the leader that appended it.
    pub term: Term,
    /// The stamp and the payload.
    pub data: Bytes,
}

impl Entry {
    /// Assembles an entry from its stamp and payload.
    pub fn new(index: LogIndex, term: Term, stamp: Stamp, payload: &[u8]) -> Entry {
        let mut data = Vec::with_capacity(Stamp::BYTES + payload.len());
        data.extend_from_slice(&stamp.encode());
        data.extend_from_slice(payload);
        Entry { index, term, data: data.into() }
    }

    /// Decodes the stamp.
    ///
    /// # Errors
    /// [`BadEntry`] if the data does not begin with one.
    pub fn stamp(&self) -> Result<Stamp, BadEntry> {
        Stamp::decode(&self.data)
    }

    /// The bytes after the stamp; empty if the stamp is incomplete.
    pub fn payload(&self) -> Bytes {
        self.data.slice(Stamp::BYTES.min(self.data.len())..)
    }

    /// The offset of the first record after this entry.
    ///
    /// # Errors
    /// [`BadEntry`] if the data does not begin with a stamp.
    pub fn end_offset(&self) -> Result<Offset, BadEntry> {
        self.stamp()?.end_offset()
    }
}

/// Reads a little-endian number.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

/// Reads a little-endian number.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_stamp_never_change() {
        let stamp = Stamp {
            kind: EntryKind::Records,
            count: 2,
            base_offset: Offset(0x0102_0304_0506_0708),
            append_time_us: 3,
            producer_id: 4,
            sequence: 5,
        };
        let golden = [
            1, 0, 0, 0, 2, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0,
            0, 0, 0, 0,
        ];
        assert_eq!(stamp.encode(), golden);
        assert_eq!(Stamp::decode(&golden), Ok(stamp));
        let entry = Entry::new(LogIndex(7), Term(1), stamp, b"xyz");
        assert_eq!((entry.stamp(), &entry.payload()[..]), (Ok(stamp), &b"xyz"[..]));
        assert_eq!(entry.end_offset(), Ok(Offset(0x0102_0304_0506_070a)));
    }

    #[test]
    fn refuses_bytes_that_are_not_a_stamp() {
        let good = Stamp {
            kind: EntryKind::Noop,
            count: 0,
            base_offset: Offset(1),
            append_time_us: 0,
            producer_id: 0,
            sequence: 0,
        };
        assert!(Stamp::decode(&good.encode()[..39]).is_err());
        assert!(Stamp::decode(&[0; 40]).is_err(), "zeros");
        for (at, value) in [(0, 5), (0, 10), (1, 1), (4, 1)] {
            let mut bytes = good.encode();
            bytes[at] = value;
            assert!(Stamp::decode(&bytes).is_err(), "{at} {value}");
        }
        for (base_offset, fits) in [(i64::MAX as u64 - 1, true), (i64::MAX as u64, false), (u64::MAX, false)] {
            let last = Stamp { kind: EntryKind::Records, count: 1, base_offset: Offset(base_offset), ..good };
            let expected = if fits { Ok(last) } else { Err(OFFSET_TOO_LARGE) };
            assert_eq!(Stamp::decode(&last.encode()), expected, "{base_offset}");
        }
    }
}
