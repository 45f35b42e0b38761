//! What `data verify` found in a data directory.

use std::path::PathBuf;

use super::finding::{Finding, Severity};
use crate::storage::error::{NewerFrame, OtherFormat, StorageError};
use crate::storage::io::node::NodeFile;
use crate::types::{GroupId, LogIndex, Offset};

/// The maximum number of findings in a report; further ones are only counted.
pub const FINDINGS_MAX: usize = 1000;

/// What a group's files contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport {
    pub group: GroupId,
    /// The first record that can be read.
    pub first_offset: Offset,
    /// The offset after the last record; `None` if damage hides where the log ends.
    pub next_offset: Option<Offset>,
    /// The last entry that was found.
    pub last_index: LogIndex,
    /// The number of valid entries.
    pub entries: u64,
    /// The number of segments that were read.
    pub segments: u64,
    /// Bytes of the log's frames.
    pub log_bytes: u64,
    /// Bytes of all files, including reserved space and indexes.
    pub file_bytes: u64,
    /// Bytes that the next start cuts off.
    pub torn_bytes: u64,
}

/// What was found in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub data_dir: PathBuf,
    /// Its node; `None` if the directory is blank or `node.toml` can't be read.
    pub node: Option<NodeFile>,
    /// Its groups, as far as they can be read at all.
    pub groups: Vec<GroupReport>,
    /// The findings, by group and file.
    pub findings: Vec<Finding>,
    /// The number of findings beyond [`FINDINGS_MAX`].
    pub more: u64,
}

impl Report {
    /// The highest severity; `None` without findings.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    pub(super) fn add(&mut self, finding: Finding) {
        let place = |f: &Finding| (f.severity, f.position);
        if self.findings.len() >= FINDINGS_MAX {
            self.more += 1;
        } else if !self.findings.iter().any(|f| place(f) == place(&finding) && f.file == finding.file) {
            self.findings.push(finding);
        }
    }

    /// Adds an error that concerns one file; returns the others.
    pub(super) fn add_error(&mut self, error: StorageError) -> Result<(), StorageError> {
        match error {
            StorageError::Damaged { file, position, what } => {
                self.add(Finding::new(Severity::Damage, &file, position, what));
            }
            StorageError::Io { action, file, error } => {
                self.add(Finding::new(Severity::Damage, &file, 0, format!("cannot {action} it: {error}")));
            }
            StorageError::OtherFormat { file, part, version, known } => {
                let what = format!("{part}{}", OtherFormat { version, known });
                self.add(Finding::new(Severity::Format, &file, 0, what));
            }
            StorageError::NewerFrame(NewerFrame { file, position, end, kind }) => {
                self.add(Finding::new(Severity::Format, &file, position, kind.to_string()).up_to(end));
            }
            StorageError::DiskFull { .. }
            | StorageError::ForeignDirectory { .. }
            | StorageError::InUse { .. }
            | StorageError::RecoveryUnfinished { .. }
            | StorageError::NotBlank { .. }
            | StorageError::BadEntry(_)
            | StorageError::Failed { .. } => return Err(error),
        }
        Ok(())
    }
}
