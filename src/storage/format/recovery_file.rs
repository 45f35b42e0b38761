//! The file `recovery` in the data directory: the changes with which `seriatim recover` makes this node the founder of a
//! new cluster. The file exists from the moment at which they are decided until all of them are made.
//!
//! ```text
//!   0  magic "SRTMRCVR", version u32, crc u32    as in `versioned.rs`
//!  16  cluster id u64        of the new cluster
//!  24  number of changes u32, 0 u32
//!  32  changes, each:        kind u32, length of the name u32, length of the contents u64, name, contents
//! ```
//!
//! | kind | change | contents |
//! |---|---|---|
//! | 1 | write the file | its bytes |
//! | 2 | rename the directory | the new name |
//! | 3 | remove the file | none |
//!
//! A name is relative to the data directory.

use std::path::Path;

use super::entry::{u32_at, u64_at};
use super::versioned::{self, BadPrefix, PREFIX_BYTES, check_prefix, prefix};
use crate::codes::codes;
use crate::storage::error::StorageError;
use crate::types::ClusterId;

/// The name of the file.
pub(crate) const RECOVERY_FILE: &str = "recovery";
/// The maximum size of the file: the catalog, and the manifest of every log.
pub(crate) const RECOVERY_FILE_BYTES_MAX: usize = 1 << 30;

const RECOVERY_FILE_FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"SRTMRCVR";
const HEADER_BYTES: usize = PREFIX_BYTES + 16;
const CHANGE_BYTES: usize = 16;

codes! {
    /// What a change does.
    pub(crate) enum ChangeKind: u32, "kind of change" {
        Write = 1,
        Rename = 2,
        Remove = 3,
    }
}

/// One change of the data directory. It can be made again after a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Replaces or creates a file.
    Write {
        name: String,
        bytes: Vec<u8>,
    },
    /// Renames a directory of a group.
    Rename {
        name: String,
        to: String,
    },
    Remove {
        name: String,
    },
}

/// The contents of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecoveryFile {
    pub(crate) cluster_id: ClusterId,
    /// In the order in which they are made.
    pub(crate) changes: Vec<Change>,
}

impl Change {
    fn parts(&self) -> (ChangeKind, &str, &[u8]) {
        match self {
            Change::Write { name, bytes } => (ChangeKind::Write, name, bytes),
            Change::Rename { name, to } => (ChangeKind::Rename, name, to.as_bytes()),
            Change::Remove { name } => (ChangeKind::Remove, name, &[]),
        }
    }

    fn of(kind: ChangeKind, name: &[u8], contents: &[u8]) -> Option<Change> {
        let name = name_of(name)?;
        match kind {
            ChangeKind::Write => Some(Change::Write { name, bytes: contents.to_vec() }),
            ChangeKind::Rename => Some(Change::Rename { name, to: name_of(contents)? }),
            ChangeKind::Remove => contents.is_empty().then_some(Change::Remove { name }),
        }
    }
}

/// A relative path that stays in the data directory.
fn name_of(bytes: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(bytes).ok()?;
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control);
    name.split('/').all(is_plain).then(|| name.to_owned())
}

impl RecoveryFile {
    /// Returns the contents of the file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = prefix(MAGIC, RECOVERY_FILE_FORMAT).to_vec();
        bytes.extend_from_slice(&self.cluster_id.0.to_le_bytes());
        bytes.extend_from_slice(&(self.changes.len() as u64).to_le_bytes());
        for change in &self.changes {
            let (kind, name, contents) = change.parts();
            bytes.extend_from_slice(&kind.code().to_le_bytes());
            bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&(contents.len() as u64).to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(contents);
        }
        versioned::seal(&mut bytes);
        bytes
    }

    /// Decodes the output of [`RecoveryFile::encode`]; `file` is its name, for the error.
    ///
    /// # Errors
    /// [`StorageError::OtherFormat`], or [`StorageError::Damaged`] for anything else.
    pub(crate) fn decode(bytes: &[u8], file: &Path) -> Result<RecoveryFile, StorageError> {
        let damaged = |at: usize, what: &str| StorageError::damaged(file, at as u64, what);
        match check_prefix(bytes, MAGIC, RECOVERY_FILE_FORMAT) {
            Err(BadPrefix::OtherFormat(version)) => {
                let known = RECOVERY_FILE_FORMAT;
                return Err(StorageError::OtherFormat { file: file.to_owned(), part: "", version, known });
            }
            Err(BadPrefix::NotOurs | BadPrefix::Damaged) => return Err(damaged(0, "the checksum does not match")),
            Ok(()) => {}
        }
        if bytes.len() < HEADER_BYTES || u32_at(bytes, 28) != 0 {
            return Err(damaged(PREFIX_BYTES, "the file is too short, or the number of changes is too large"));
        }
        let mut changes = Vec::new();
        let mut at = HEADER_BYTES;
        for _ in 0..u32_at(bytes, 24) {
            let change = change_at(bytes, &mut at).ok_or_else(|| damaged(at, "a change is malformed"))?;
            changes.push(change);
        }
        if at != bytes.len() {
            return Err(damaged(at, "the lengths do not add up"));
        }
        Ok(RecoveryFile { cluster_id: ClusterId(u64_at(bytes, PREFIX_BYTES)), changes })
    }
}

/// Reads the change at this position, and advances the position to the next one.
fn change_at(bytes: &[u8], at: &mut usize) -> Option<Change> {
    let rest = bytes.get(*at..).filter(|rest| rest.len() >= CHANGE_BYTES)?;
    let name_bytes = u32_at(rest, 4) as usize;
    let contents_bytes = usize::try_from(u64_at(rest, 8)).ok()?;
    let contents_at = CHANGE_BYTES.checked_add(name_bytes)?;
    let end = contents_at.checked_add(contents_bytes)?;
    let name = rest.get(CHANGE_BYTES..contents_at)?;
    let kind = ChangeKind::try_from(u32_at(rest, 0)).ok()?;
    let change = Change::of(kind, name, rest.get(contents_at..end)?)?;
    *at += end;
    Some(change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::assert_golden;

    fn recovery_file() -> RecoveryFile {
        let changes = vec![
            Change::Rename { name: "groups/2".to_owned(), to: "groups/2.dropped".to_owned() },
            Change::Write { name: "groups/1/manifest".to_owned(), bytes: b"new".to_vec() },
            Change::Remove { name: "groups/1/a.idx".to_owned() },
        ];
        RecoveryFile { cluster_id: ClusterId(5), changes }
    }

    #[test]
    fn a_recovery_file_has_these_bytes_and_refuses_others() {
        let bytes = recovery_file().encode();
        assert_golden("recovery-v1.bin", &bytes);
        let file = Path::new("recovery");
        assert_eq!(RecoveryFile::decode(&bytes, file).expect("its own bytes"), recovery_file());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(RecoveryFile::decode(&damaged, file).expect_err("damaged").is_damage(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(RecoveryFile::decode(&bytes[..length], file).is_err(), "cut to {length}");
        }
        let mut newer = bytes;
        newer[8] = 2;
        versioned::seal(&mut newer);
        assert!(RecoveryFile::decode(&newer, file).expect_err("newer").is_config());
    }

    #[test]
    fn refuses_names_outside_of_the_directory() {
        for name in ["", "/etc/passwd", "../x", "groups/../../x", "groups//1", "a\n"] {
            let change = Change::Remove { name: name.to_owned() };
            let bytes = RecoveryFile { cluster_id: ClusterId(5), changes: vec![change] }.encode();
            assert!(RecoveryFile::decode(&bytes, Path::new("r")).expect_err("refused").is_damage(), "{name}");
        }
    }
}
