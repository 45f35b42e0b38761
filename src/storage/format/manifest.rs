//! The manifest: the segments of a group's log, and the state that its owner stores. The file is always replaced, never
//! changed in place.
//!
//! ```text
//!   0  "SERIATMF"
//!   8  format version u32   2
//!  12  crc u32              CRC-32C of the file without these four bytes
//!  16  group u64
//!  24  base: index u64, term u64, offset u64, digest u64       the entry before the first stored one
//!  56  first segment u64                           the oldest that the log's chain reaches
//!  64  next segment u64                            no file had this or a higher number when this was written
//!  72  durable position: file u64, position u64
//!  88  applied u64
//!  96  conf state as of u64
//! 104  log state as of u64
//! 112  the log's end at the durable position: last index u64, next offset u64
//! 128  differing u64                              0, or the index up to which this replica differed from a leader's
//! 136  voters u32, learners u32, term runs u32, checkpoints u32, bytes of log state u32, 0 u32
//! 160  voters u64 each, learners u64 each, runs (first index u64, term u64) each,
//!      checkpoints (index u64, term u64, offset u64, digest u64) each, log state
//! ```
//!
//! **Damage at the end of the newest segment does not destroy the durable position in the manifest.** The frames
//! contain it too, but a bad sector destroys it together with them. So the manifest is written when the log is idle
//! and, under load, every few seconds or megabytes (`sync.rs`). If entries and records up to the durable position are
//! missing, the end of the log at that position shows which ones.
//!
//! The term runs state the term of every entry from the base on, so that a start need not read old segments for it.
//! They are correct up to the first entry of the segment that contains the durable position; recovery reads the entries
//! after that.

use std::path::Path;

use crate::log_state::{BadLogState, LogState, StoredLogState};
use crate::storage::error::StorageError;
use crate::storage::format::digest::Digest;
use crate::storage::format::entry::{OFFSET_TOO_LARGE, TERM_TOO_LARGE, u32_at, u64_at};
use crate::storage::format::frame::Position;
use crate::storage::format::state::{Base, ConfState};
use crate::storage::format::versioned::{self, BadPrefix, are_countable, check_prefix, prefix};
use crate::types::{GroupId, LogIndex, Offset, ReplicaId, Term};

/// The manifest's name in the group's directory.
pub const MANIFEST: &str = "manifest";

/// The newest format of manifests that this version reads, and the one that it writes.
pub const MANIFEST_FORMAT: u32 = 2;

/// The maximum size of a manifest. A term run takes 16 bytes, and no log sees that many elections.
pub(crate) const MANIFEST_BYTES_MAX: usize = 64 << 20;

const CHECKPOINT_BYTES: usize = 32;
const MAGIC: &[u8; 8] = b"SERIATMF";
const HEADER_BYTES: usize = 160;
/// The positions of numbers that other numbers are added to: indexes, file numbers, positions.
const NUMBERED: [usize; 9] = [24, 56, 64, 72, 80, 88, 96, 104, 128];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub group: GroupId,
    /// The entry before the first stored one.
    pub base: Base,
    /// The number of the oldest segment of the chain.
    pub first_segment: u64,
    /// The number of the next segment.
    pub next_segment: u64,
    /// The log is known to be on the disk up to this position.
    pub durable: Position,
    /// The last index below the durable position, and the next offset at that position. Recovery must find at least
    /// these.
    pub durable_end: (LogIndex, Offset),
    /// The last entry that is known to be applied.
    pub applied: LogIndex,
    /// This replica differed from a leader's in the last comparison, at this entry or an earlier one.
    pub differing: Option<LogIndex>,
    pub conf_state: ConfState,
    /// The last entry that the conf state includes.
    pub conf_index: LogIndex,
    /// The log state without its tables, which are in a state file.
    pub log_state: StoredLogState,
    /// The last entry that the log state includes.
    pub log_state_index: LogIndex,
    /// The first index of each run of entries with one term.
    pub terms: Vec<(LogIndex, Term)>,
    /// The checkpoints of the running digest, ascending (`digest.rs`).
    pub checkpoints: Vec<Base>,
}

impl Manifest {
    pub fn encode(&self) -> Vec<u8> {
        let log_state = self.log_state.encode();
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&prefix(MAGIC, MANIFEST_FORMAT));
        let numbers = [
            self.group.0,
            self.base.index.0,
            self.base.term.0,
            self.base.offset.0,
            self.base.digest.0,
            self.first_segment,
            self.next_segment,
            self.durable.file,
            self.durable.at,
            self.applied.0,
            self.conf_index.0,
            self.log_state_index.0,
            self.durable_end.0.0,
            self.durable_end.1.0,
            self.differing.unwrap_or_default().0,
        ];
        numbers.iter().for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
        let (voters, learners) = (&self.conf_state.voters, &self.conf_state.learners);
        for count in [voters.len(), learners.len(), self.terms.len(), self.checkpoints.len(), log_state.len(), 0] {
            bytes.extend_from_slice(&(count as u32).to_le_bytes());
        }
        voters.iter().chain(learners).for_each(|id| bytes.extend_from_slice(&id.0.to_le_bytes()));
        for (index, term) in &self.terms {
            bytes.extend_from_slice(&index.0.to_le_bytes());
            bytes.extend_from_slice(&term.0.to_le_bytes());
        }
        for at in &self.checkpoints {
            for number in [at.index.0, at.term.0, at.offset.0, at.digest.0] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&log_state);
        versioned::seal(&mut bytes);
        bytes
    }

    /// Decodes a manifest; `file` is its name, for the error.
    ///
    /// # Errors
    /// [`StorageError::OtherFormat`], or [`StorageError::Damaged`] for anything that [`Manifest::encode`] did not
    /// write.
    pub fn decode(bytes: &[u8], file: &Path) -> Result<Manifest, StorageError> {
        let damaged = |at: usize, what: &str| Err(StorageError::damaged(file, at as u64, what));
        match check_prefix(bytes, MAGIC, MANIFEST_FORMAT) {
            Err(BadPrefix::OtherFormat(version)) => {
                return Err(StorageError::OtherFormat {
                    file: file.to_owned(),
                    part: "",
                    version,
                    known: MANIFEST_FORMAT,
                });
            }
            Err(BadPrefix::NotOurs) => return damaged(0, "this is not a manifest"),
            Ok(()) | Err(BadPrefix::Damaged) if bytes.len() < HEADER_BYTES => {
                return damaged(0, "this is not a manifest");
            }
            Ok(()) => {}
            Err(BadPrefix::Damaged) => return damaged(12, "the checksum does not match"),
        }
        let count = |at| u32_at(bytes, at) as usize;
        let [voters, learners, runs, checkpoints, log_state] = std::array::from_fn(|i| count(136 + 4 * i));
        let checkpoints_at = HEADER_BYTES + 8 * (voters + learners) + 16 * runs;
        let log_state_at = checkpoints_at + CHECKPOINT_BYTES * checkpoints;
        if bytes.len() != log_state_at + log_state || runs == 0 || u32_at(bytes, 156) != 0 {
            return damaged(136, "the lengths do not add up");
        }
        let id = |i: usize| ReplicaId(u64_at(bytes, HEADER_BYTES + 8 * i));
        let run = |i: usize| {
            let at = HEADER_BYTES + 8 * (voters + learners) + 16 * i;
            (LogIndex(u64_at(bytes, at)), Term(u64_at(bytes, at + 8)))
        };
        let checkpoint = |i: usize| base_at(bytes, checkpoints_at + CHECKPOINT_BYTES * i);
        if !are_countable(bytes, &NUMBERED) || (0..checkpoints).any(|i| checkpoint(i).index.0 > versioned::NUMBERS_MAX)
        {
            return damaged(24, "a number that no log reaches");
        }
        let log_state = match StoredLogState::decode(&bytes[log_state_at..]) {
            Ok(log_state) => log_state,
            Err(BadLogState::Newer(version)) => {
                return Err(StorageError::OtherFormat {
                    file: file.to_owned(),
                    part: "a log state of ",
                    version,
                    known: LogState::FORMAT,
                });
            }
            Err(BadLogState::Malformed) => return damaged(log_state_at, "the log state is malformed"),
        };
        let (first, last) = (u64_at(bytes, 24), u64_at(bytes, 104));
        if let Some(tables) = log_state.tables.filter(|tables| !(first..=last).contains(&tables.index.0)) {
            // The entries after it are applied again.
            let what = format!(
                "its producers and cursors are those after entry {}, but the log begins after entry {first}, and its state \
                 includes entries up to {last}",
                tables.index
            );
            return damaged(log_state_at + 24, &what);
        }
        let terms: Vec<(LogIndex, Term)> = (0..runs).map(run).collect();
        let offsets = [Offset(u64_at(bytes, 40)), Offset(u64_at(bytes, 120)), log_state.first_offset];
        if offsets.into_iter().chain((0..checkpoints).map(|i| checkpoint(i).offset)).any(|offset| offset > Offset::MAX)
        {
            return damaged(40, OFFSET_TOO_LARGE.0);
        }
        if Term(u64_at(bytes, 32)) > Term::MAX || terms.iter().any(|(_, term)| *term > Term::MAX) {
            return damaged(32, TERM_TOO_LARGE.0);
        }
        Ok(Manifest {
            group: GroupId(u64_at(bytes, 16)),
            base: base_at(bytes, 24),
            first_segment: u64_at(bytes, 56),
            next_segment: u64_at(bytes, 64),
            durable: Position { file: u64_at(bytes, 72), at: u64_at(bytes, 80) },
            applied: LogIndex(u64_at(bytes, 88)),
            conf_index: LogIndex(u64_at(bytes, 96)),
            log_state_index: LogIndex(u64_at(bytes, 104)),
            durable_end: (LogIndex(u64_at(bytes, 112)), Offset(u64_at(bytes, 120))),
            differing: Some(LogIndex(u64_at(bytes, 128))).filter(|index| index.0 != 0),
            conf_state: ConfState {
                voters: (0..voters).map(id).collect(),
                learners: (voters..voters + learners).map(id).collect(),
            },
            log_state,
            terms,
            checkpoints: (0..checkpoints).map(checkpoint).collect(),
        })
    }
}

#[cfg(test)]
impl Manifest {
    /// Sets the checksum.
    pub(crate) fn seal(bytes: &mut [u8]) {
        if bytes.len() >= 16 {
            versioned::seal(bytes);
        }
    }
}

fn base_at(bytes: &[u8], at: usize) -> Base {
    Base {
        index: LogIndex(u64_at(bytes, at)),
        term: Term(u64_at(bytes, at + 8)),
        offset: Offset(u64_at(bytes, at + 16)),
        digest: Digest(u64_at(bytes, at + 24)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_state::TablesOrigin;

    fn with_state_file() -> Manifest {
        let tables = Some(TablesOrigin { index: LogIndex(12), in_file: true });
        Manifest { log_state: StoredLogState { tables, ..manifest().log_state }, ..manifest() }
    }

    fn manifest() -> Manifest {
        Manifest {
            group: GroupId(1),
            base: Base { index: LogIndex(2), term: Term(3), offset: Offset(4), digest: Digest(19) },
            first_segment: 5,
            next_segment: 6,
            durable: Position { file: 7, at: 8 },
            durable_end: (LogIndex(19), Offset(20)),
            applied: LogIndex(9),
            differing: Some(LogIndex(24)),
            conf_state: ConfState { voters: vec![ReplicaId(10), ReplicaId(11)], learners: vec![ReplicaId(12)] },
            conf_index: LogIndex(13),
            log_state: StoredLogState { first_offset: Offset(14), last_append_time_us: 15, tables: None },
            log_state_index: LogIndex(16),
            terms: vec![(LogIndex(2), Term(3)), (LogIndex(17), Term(18))],
            checkpoints: vec![Base { index: LogIndex(20), term: Term(21), offset: Offset(22), digest: Digest(23) }],
        }
    }

    #[test]
    fn the_bytes_of_a_manifest_never_change() {
        let bytes = manifest().encode();
        crate::golden::assert_golden("manifest-v2.bin", &bytes);
        assert_eq!(Manifest::decode(&bytes, Path::new("m")).expect("a manifest"), manifest());
    }

    #[test]
    fn the_bytes_of_a_manifest_with_a_state_file_never_change() {
        let bytes = with_state_file().encode();
        crate::golden::assert_golden("manifest-v2-state.bin", &bytes);
        assert_eq!(Manifest::decode(&bytes, Path::new("m")).expect("a manifest"), with_state_file());
    }

    /// The entries after the state file's are applied again, so all of them must be there.
    #[test]
    fn refuses_a_state_file_that_the_log_does_not_continue() {
        for index in [1, 17] {
            let mut manifest = with_state_file();
            manifest.log_state.tables = Some(TablesOrigin { index: LogIndex(index), in_file: true });
            let error = Manifest::decode(&manifest.encode(), Path::new("m")).expect_err("a gap");
            assert!(error.is_damage() && error.to_string().contains("the log begins after entry 2"), "{error}");
        }
    }

    #[test]
    fn refuses_bytes_that_are_not_a_manifest() {
        [manifest(), with_state_file()].iter().for_each(|manifest| refuses_other_bytes_than(&manifest.encode()));
    }

    fn refuses_other_bytes_than(good: &[u8]) {
        for bit in 0..good.len() * 8 {
            let mut bytes = good.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = Manifest::decode(&bytes, Path::new("m")).expect_err("damaged");
            assert!(error.is_damage() && error.to_string().starts_with("m is damaged at byte"), "bit {bit}: {error}");
        }
        for length in 0..good.len() {
            assert!(Manifest::decode(&good[..length], Path::new("m")).is_err(), "cut to {length}");
        }
        for (version, told) in [(9, "format 9, newer than"), (1, "format 1, older than"), (0, "format 0, older than")] {
            let mut other = good.to_vec();
            other[8] = version;
            Manifest::seal(&mut other);
            let error = Manifest::decode(&other, Path::new("m")).expect_err("another version's");
            assert!(error.is_config() && error.to_string().contains(told), "{error}");
        }
        // A number may be impossible although the checksum is correct.
        for at in NUMBERED {
            let mut bytes = good.to_vec();
            bytes[at..at + 8].fill(0xff);
            Manifest::seal(&mut bytes);
            assert!(Manifest::decode(&bytes, Path::new("m")).expect_err("damaged").is_damage(), "number at {at}");
        }
        for at in [136, 140, 144, 148, 152, 156] {
            let mut bytes = good.to_vec();
            bytes[at..at + 4].fill(0xff);
            Manifest::seal(&mut bytes);
            assert!(Manifest::decode(&bytes, Path::new("m")).expect_err("damaged").is_damage(), "count at {at}");
        }
    }

    /// Once, the log state of a newer version was reported as damage (exit code 65), although the disk was sound.
    #[test]
    fn a_newer_log_state_is_not_damage() {
        let mut bytes = manifest().encode();
        let version_at = bytes.len() - 24;
        bytes[version_at] = 4;
        Manifest::seal(&mut bytes);
        let error = Manifest::decode(&bytes, Path::new("m")).expect_err("newer");
        let told = error.to_string();
        assert!(error.is_config() && !error.is_damage() && told.contains("a log state of format 4, newer"), "{told}");
    }

    #[test]
    fn refuses_numbers_of_more_than_63_bits() {
        let large = |change: fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            let error = Manifest::decode(&manifest.encode(), Path::new("m")).expect_err("too large");
            assert!(error.is_damage(), "{error}");
            error.to_string()
        };
        assert!(large(|m| m.base.term = Term(1 << 63)).contains("a term of more than 63 bits"));
        assert!(large(|m| m.terms[1].1 = Term(1 << 63)).contains("a term of more than 63 bits"));
        assert!(large(|m| m.base.offset = Offset(1 << 63)).contains("an offset of more than 63 bits"));
        assert!(large(|m| m.durable_end.1 = Offset(1 << 63)).contains("an offset of more than 63 bits"));
        assert!(large(|m| m.checkpoints[0].offset = Offset(1 << 63)).contains("an offset of more than 63 bits"));
        assert!(large(|m| m.log_state.first_offset = Offset(1 << 63)).contains("an offset of more than 63 bits"));
    }
}
