//! A state file: the producers and the cursors of a log after an entry. The manifest names the file by this entry; any
//! other state file is not part of the log. It is written as a whole and never changed.
//!
//! ```text
//!   0  magic "SRTMSTAT", version u32, crc u32    as in `versioned.rs`
//!  16  group u64
//!  24  index u64             the last entry that the tables include
//!  32  `Tables` of proto/seriatim/logstate/v1/log_state.proto, up to the end
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::u64_at;
use super::versioned::{self, BadPrefix, NUMBERS_MAX, PREFIX_BYTES, check_prefix, prefix};
use crate::log_state::Tables;
use crate::storage::error::StorageError;
use crate::types::{GroupId, LogIndex};

/// The maximum size of a state file. The tables are bounded by `log_state/`, to about 8 MiB.
pub(crate) const STATE_FILE_BYTES_MAX: usize = 64 << 20;

const STATE_FILE_FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"SRTMSTAT";
const HEADER_BYTES: usize = PREFIX_BYTES + 16;
const SUFFIX: &str = ".state";

/// The tables of a log after an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateFile {
    pub(crate) group: GroupId,
    /// The last entry that the tables include.
    pub(crate) index: LogIndex,
    pub(crate) tables: Arc<Tables>,
}

/// The path of the state file with this index.
pub(crate) fn state_path(dir: &Path, index: LogIndex) -> PathBuf {
    dir.join(format!("{:020}{SUFFIX}", index.0))
}

/// The index in the name of a state file, or of one that was not finished; `None` for other files.
pub(crate) fn state_index(name: &str) -> Option<LogIndex> {
    let digits = name.strip_suffix(SUFFIX).or_else(|| name.strip_suffix(".tmp"))?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number).map(LogIndex)
}

impl StateFile {
    /// Returns the contents of the file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = prefix(MAGIC, STATE_FILE_FORMAT).to_vec();
        bytes.extend_from_slice(&self.group.0.to_le_bytes());
        bytes.extend_from_slice(&self.index.0.to_le_bytes());
        bytes.extend(self.tables.encode());
        versioned::seal(&mut bytes);
        bytes
    }

    /// Decodes the output of [`StateFile::encode`]; `file` is its name, for the error.
    ///
    /// # Errors
    /// [`StorageError::OtherFormat`], or [`StorageError::Damaged`] for anything else.
    pub(crate) fn decode(bytes: &[u8], file: &Path) -> Result<StateFile, StorageError> {
        let damaged = |at: usize, what: &str| Err(StorageError::damaged(file, at as u64, what));
        match check_prefix(bytes, MAGIC, STATE_FILE_FORMAT) {
            Err(BadPrefix::OtherFormat(version)) => {
                let known = STATE_FILE_FORMAT;
                return Err(StorageError::OtherFormat { file: file.to_owned(), part: "", version, known });
            }
            Err(BadPrefix::NotOurs) => return damaged(0, "this is not a state file"),
            Err(BadPrefix::Damaged) => return damaged(12, "the checksum does not match"),
            Ok(()) => {}
        }
        if bytes.len() < HEADER_BYTES || u64_at(bytes, 24) >= NUMBERS_MAX {
            return damaged(16, "the index is missing or too large");
        }
        match Tables::decode(&bytes[HEADER_BYTES..]) {
            Ok(tables) if !tables.is_empty() => Ok(StateFile {
                group: GroupId(u64_at(bytes, 16)),
                index: LogIndex(u64_at(bytes, 24)),
                tables: Arc::new(tables),
            }),
            Ok(_) => damaged(HEADER_BYTES, "the tables are empty"),
            Err(error) => damaged(HEADER_BYTES, &error.to_string()),
        }
    }

    /// Checks that it is the file of this group whose name has this index.
    ///
    /// # Errors
    /// [`StorageError::Damaged`].
    pub(crate) fn check(self, group: GroupId, index: LogIndex, file: &Path) -> Result<StateFile, StorageError> {
        if (self.group, self.index) == (group, index) {
            return Ok(self);
        }
        let what = format!("this is the state of group {} after entry {}", self.group, self.index);
        Err(StorageError::damaged(file, 16, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::assert_golden;
    use crate::log_state::StateCommand;
    use crate::log_state::cursors::CommitCursor;
    use crate::log_state::producers::{Answer, InitProducer};
    use crate::types::{CursorName, Offset, ProducerId, ProducerName, Term};

    fn state_file() -> StateFile {
        let mut tables = Tables::default();
        let init = InitProducer {
            id: ProducerId(0x0102_0304_0506_0708),
            name: Some(ProducerName::new("p").expect("a name")),
            instance: 9,
            expected_epoch: None,
            owner: "o".to_owned(),
        };
        let commit = CommitCursor {
            name: CursorName::new("c").expect("a name"),
            next_offset: Offset(4),
            epoch: 0,
            expected_revision: None,
            allow_rewind: false,
            metadata: b"m".to_vec(),
        };
        tables.apply(&StateCommand::InitProducer(init), LogIndex(2), 10);
        let (offset, count, term, index) = (Offset(0), 3, Term(1), LogIndex(3));
        let answer = Answer { offset, count, term, index, append_time_us: 11 };
        tables.producers.appended(ProducerId(0x0102_0304_0506_0708), 1, answer);
        tables.apply(&StateCommand::CommitCursor(commit), LogIndex(4), 12);
        StateFile { group: GroupId(7), index: LogIndex(4), tables: Arc::new(tables) }
    }

    #[test]
    fn a_state_file_has_these_bytes_and_refuses_others() {
        let bytes = state_file().encode();
        assert_golden("state-v1.bin", &bytes);
        let file = Path::new("s");
        assert_eq!(StateFile::decode(&bytes, file).expect("its own bytes"), state_file());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = StateFile::decode(&damaged, file).expect_err("damaged");
            assert!(error.is_damage() && error.to_string().contains("s is damaged at byte"), "bit {bit}: {error}");
        }
        for length in 0..bytes.len() {
            assert!(StateFile::decode(&bytes[..length], file).is_err(), "cut to {length}");
        }
        let mut newer = bytes.clone();
        newer[8] = 2;
        versioned::seal(&mut newer);
        let error = StateFile::decode(&newer, file).expect_err("newer");
        assert!(error.is_config(), "{error}");
        for (at, byte) in [(31, 0x40), (32, 0xff)] {
            let mut other = bytes.clone();
            other[at] = byte;
            versioned::seal(&mut other);
            assert!(StateFile::decode(&other, file).expect_err("damaged").is_damage(), "byte {at}");
        }
        let of_another = state_file().check(GroupId(8), LogIndex(4), file).expect_err("another group's");
        assert!(of_another.to_string().contains("the state of group 7 after entry 4"), "{of_another}");
    }

    #[test]
    fn the_name_has_the_index() {
        let path = state_path(Path::new("/g"), LogIndex(100));
        assert_eq!(path, Path::new("/g/00000000000000000100.state"));
        assert_eq!(state_index("00000000000000000100.state"), Some(LogIndex(100)));
        assert_eq!(state_index("00000000000000000100.tmp"), Some(LogIndex(100)));
        for name in ["100.state", "manifest.tmp", "00000000000000000100.seg", "+0000000000000000100.state"] {
            assert_eq!(state_index(name), None, "{name}");
        }
    }
}
