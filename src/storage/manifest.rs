//! The manifest: what a group's log is made of. Replaced whole, never written in place.
//!
//! ```text
//!   0  "SERIATMF"
//!   8  format version u32   1
//!  12  crc u32              CRC-32C of the file without these four bytes
//!  16  group u64
//!  24  base: index u64, term u64, offset u64       the entry before the first stored one
//!  48  first segment u64                           the oldest that the log's chain reaches
//!  56  next segment u64                            no file of this number or a higher one was there when this was written
//!  64  synced floor: file u64, position u64
//!  80  applied u64
//!  88  conf state as of u64
//!  96  derived state as of u64
//! 104  voters u32, learners u32, term runs u32, bytes of derived state u32
//! 120  voters u64 each, learners u64 each, runs (first index u64, term u64) each, derived state
//! ```
//!
//! The runs say which entries have which term, from the base on, so that no old segment has to be read for it at start.
//! They are right up to the first entry of the segment that holds the floor; behind it recovery reads the entries.

use std::path::Path;

use super::entry::{u32_at, u64_at};
use super::error::StorageError;
use super::frame::Position;
use super::state::{Base, ConfState, Derived};
use crate::types::{GroupId, LogIndex, NodeId, Offset, Term};

/// The manifest's name in the group's directory.
pub const MANIFEST: &str = "manifest";

/// The newest format of manifests that this version reads, and the one that it writes.
pub const MANIFEST_FORMAT: u32 = 1;

/// Indexes and numbers of files count up from 1: none is ever near this, and none above it is added to.
pub(super) const NUMBERS_MAX: u64 = 1 << 62;

/// None is longer: a run of terms is 16 bytes, and there are never so many elections.
pub(super) const MANIFEST_BYTES_MAX: usize = 64 << 20;

const MAGIC: &[u8; 8] = b"SERIATMF";
const HEADER_BYTES: usize = 120;

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Whose.
    pub group: GroupId,
    /// The entry before the first stored one.
    pub base: Base,
    /// The oldest segment of the chain.
    pub first_segment: u64,
    /// The number that the next segment gets.
    pub next_segment: u64,
    /// Up to here the log is known to be on the disk.
    pub floor: Position,
    /// Applied up to here.
    pub applied: LogIndex,
    /// Who carries the group,
    pub conf_state: ConfState,
    /// as of this entry.
    pub conf_index: LogIndex,
    /// The derived state,
    pub derived: Derived,
    /// as of this entry.
    pub derived_index: LogIndex,
    /// Runs of one term by their first index.
    pub terms: Vec<(LogIndex, Term)>,
}

impl Manifest {
    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let derived = self.derived.encode();
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&MANIFEST_FORMAT.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        let numbers = [
            self.group.0,
            self.base.index.0,
            self.base.term.0,
            self.base.offset.0,
            self.first_segment,
            self.next_segment,
            self.floor.file,
            self.floor.at,
            self.applied.0,
            self.conf_index.0,
            self.derived_index.0,
        ];
        numbers.iter().for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
        let (voters, learners) = (&self.conf_state.voters, &self.conf_state.learners);
        for count in [voters.len(), learners.len(), self.terms.len(), derived.len()] {
            bytes.extend_from_slice(&(count as u32).to_le_bytes());
        }
        voters.iter().chain(learners).for_each(|id| bytes.extend_from_slice(&id.0.to_le_bytes()));
        for (index, term) in &self.terms {
            bytes.extend_from_slice(&index.0.to_le_bytes());
            bytes.extend_from_slice(&term.0.to_le_bytes());
        }
        bytes.extend_from_slice(&derived);
        let crc = checksum(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a manifest; `file` is its name, for the error.
    ///
    /// # Errors
    /// [`StorageError::NewerFormat`], or [`StorageError::Damaged`] for anything that [`Manifest::encode`] did not write.
    pub fn decode(bytes: &[u8], file: &Path) -> Result<Manifest, StorageError> {
        let damaged = |at: usize, what: &str| Err(StorageError::damaged(file, at as u64, what));
        if bytes.len() < HEADER_BYTES || &bytes[..8] != MAGIC {
            return damaged(0, "this is no manifest");
        }
        let version = u32_at(bytes, 8);
        if version > MANIFEST_FORMAT {
            return Err(StorageError::NewerFormat { file: file.to_owned(), version, known: MANIFEST_FORMAT });
        }
        if version == 0 || u32_at(bytes, 12) != checksum(bytes) {
            return damaged(12, "the checksum does not match");
        }
        let count = |at| u32_at(bytes, at) as usize;
        let (voters, learners, runs, derived) = (count(104), count(108), count(112), count(116));
        let derived_at = HEADER_BYTES + 8 * (voters + learners) + 16 * runs;
        if bytes.len() != derived_at + derived || runs == 0 {
            return damaged(104, "the lengths do not add up");
        }
        let id = |i: usize| NodeId(u64_at(bytes, HEADER_BYTES + 8 * i));
        let run = |i: usize| {
            let at = HEADER_BYTES + 8 * (voters + learners) + 16 * i;
            (LogIndex(u64_at(bytes, at)), Term(u64_at(bytes, at + 8)))
        };
        if [24, 40, 48, 56, 64, 72, 80, 88, 96].into_iter().any(|at| u64_at(bytes, at) > NUMBERS_MAX) {
            return damaged(24, "a number that no log comes to");
        }
        let Ok(derived) = Derived::decode(&bytes[derived_at..]) else {
            return damaged(derived_at, "derived state of another version");
        };
        Ok(Manifest {
            group: GroupId(u64_at(bytes, 16)),
            base: Base {
                index: LogIndex(u64_at(bytes, 24)),
                term: Term(u64_at(bytes, 32)),
                offset: Offset(u64_at(bytes, 40)),
            },
            first_segment: u64_at(bytes, 48),
            next_segment: u64_at(bytes, 56),
            floor: Position { file: u64_at(bytes, 64), at: u64_at(bytes, 72) },
            applied: LogIndex(u64_at(bytes, 80)),
            conf_index: LogIndex(u64_at(bytes, 88)),
            derived_index: LogIndex(u64_at(bytes, 96)),
            conf_state: ConfState {
                voters: (0..voters).map(id).collect(),
                learners: (voters..voters + learners).map(id).collect(),
            },
            derived,
            terms: (0..runs).map(run).collect(),
        })
    }
}

#[cfg(test)]
impl Manifest {
    /// Puts the checksum right.
    pub(super) fn seal(bytes: &mut [u8]) {
        if bytes.len() >= 16 {
            let crc = checksum(bytes);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            group: GroupId(1),
            base: Base { index: LogIndex(2), term: Term(3), offset: Offset(4) },
            first_segment: 5,
            next_segment: 6,
            floor: Position { file: 7, at: 8 },
            applied: LogIndex(9),
            conf_state: ConfState { voters: vec![NodeId(10), NodeId(11)], learners: vec![NodeId(12)] },
            conf_index: LogIndex(13),
            derived: Derived { first_offset: Offset(14), last_append_time_us: 15 },
            derived_index: LogIndex(16),
            terms: vec![(LogIndex(2), Term(3)), (LogIndex(17), Term(18))],
        }
    }

    #[test]
    fn a_manifest_is_these_bytes() {
        let bytes = manifest().encode();
        assert_eq!(bytes, include_bytes!("../../tests/golden/manifest-v1.bin"));
        assert_eq!(Manifest::decode(&bytes, Path::new("m")).expect("a manifest"), manifest());
    }

    #[test]
    fn other_bytes_are_none() {
        let good = manifest().encode();
        for bit in (0..good.len() * 8).filter(|bit| !(64..96).contains(bit)) {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = Manifest::decode(&bytes, Path::new("m")).expect_err("damaged");
            assert!(error.is_damage() && error.to_string().starts_with("m is damaged at byte"), "bit {bit}: {error}");
        }
        for length in 0..good.len() {
            assert!(Manifest::decode(&good[..length], Path::new("m")).is_err(), "cut to {length}");
        }
        // A right checksum does not make a number one that can be counted on from.
        for at in [24, 40, 48, 56, 64, 72, 80, 88, 96] {
            let mut bytes = good.clone();
            bytes[at..at + 8].fill(0xff);
            Manifest::seal(&mut bytes);
            assert!(Manifest::decode(&bytes, Path::new("m")).expect_err("damaged").is_damage(), "number at {at}");
        }
        for at in [104, 108, 112, 116] {
            let mut bytes = good.clone();
            bytes[at..at + 4].fill(0xff);
            Manifest::seal(&mut bytes);
            assert!(Manifest::decode(&bytes, Path::new("m")).expect_err("damaged").is_damage(), "count at {at}");
        }
        let mut newer = good;
        newer[8] = 9;
        let error = Manifest::decode(&newer, Path::new("m")).expect_err("newer");
        assert!(error.is_config() && error.to_string().contains("format 9"), "{error}");
    }
}
