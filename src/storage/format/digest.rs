//! The running digest of a log: one number that identifies the entries of a log, so that replicas can be compared.
//!
//! The digest after an entry is the XXH3 hash (64 bits, <https://github.com/Cyan4973/xxHash>) of the entry's header
//! fields and of the length and CRC-32C of its payload, seeded with the digest before it. Two replicas with the same
//! digest at an index hold the same entries up to it. Only fields that all replicas share are hashed, not a segment's
//! salt or a frame's position. (XXH3 of the payload itself took six times as many instructions as the CRC, which
//! processors compute.)
//!
//! Every segment header contains the digest before its first entry. [`Checkpoints`] keeps the digest at fixed indexes,
//! which are the same on every node: dense near the end of the log and sparse far from it, so that a few hundred cover
//! any log. [`RecentEnds`] keeps it at every index near the end.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::storage::format::frame::Header;

/// The running digest after some entry. The log before its first entry has digest 0.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest(pub u64);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Digest {
    /// The digest after one more entry.
    #[must_use]
    pub fn then(self, header: &Header, payload: &[u8]) -> Digest {
        let fields = [
            u64::from(header.kind.code()) | u64::from(header.count) << 32,
            u64::from(crc32c::crc32c(payload)) | (payload.len() as u64) << 32,
            header.term.0,
            header.index.0,
            header.base_offset.0,
            header.append_time_us,
            header.producer_id,
            header.sequence,
        ];
        let mut bytes = [0; 64];
        for (chunk, field) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(fields) {
            *chunk = field.to_le_bytes();
        }
        Digest(xxh3_64_with_seed(&bytes, self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::format::entry::EntryKind;
    use crate::storage::format::frame::{Position, sample_header as header};
    use crate::types::{LogIndex, Offset, Term};

    /// The digest is a stored format: nodes of different versions compare it.
    #[test]
    fn a_digest_is_this_number() {
        assert_eq!(Digest(1).then(&header(), b"payload").0, 0x391a_e782_64a0_8b1c);
    }

    #[test]
    fn depends_on_every_shared_field_and_on_nothing_local() {
        let digest = Digest(1).then(&header(), b"payload");
        let other = [
            Digest(2).then(&header(), b"payload"),
            Digest(1).then(&header(), b"payloae"),
            Digest(1).then(&header(), b""),
            Digest(1).then(&Header { kind: EntryKind::Trim.into(), ..header() }, b"payload"),
            Digest(1).then(&Header { count: 2, ..header() }, b"payload"),
            Digest(1).then(&Header { term: Term(3), ..header() }, b"payload"),
            Digest(1).then(&Header { index: LogIndex(4), ..header() }, b"payload"),
            Digest(1).then(&Header { base_offset: Offset(5), ..header() }, b"payload"),
            Digest(1).then(&Header { append_time_us: 6, ..header() }, b"payload"),
            Digest(1).then(&Header { producer_id: 7, ..header() }, b"payload"),
            Digest(1).then(&Header { sequence: 8, ..header() }, b"payload"),
        ];
        assert!(other.iter().all(|other| *other != digest));
        let local = Header { durable: Position { file: 1, at: 2 }, ..header() };
        assert_eq!(Digest(1).then(&local, b"payload"), digest);
    }
}
