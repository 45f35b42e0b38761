//! Checks the data directory of a stopped node without changing it: what would a start find, and is every byte what was written?
//!
//! It uses recovery's rules (`recovery.rs`, `chain.rs`): the same durable position, the same chain, the same distinction between a torn
//! tail, which a start cuts off, and damage, which it refuses. In addition it reads what a start does not: every frame of every
//! segment, the stamps of every record, the indexes. Recovery ends at the first damage; this reports all of it, each damaged
//! byte range once.
//!
//! It takes the directory's lock, if the lock's file exists, so that no node runs meanwhile.
//!
//! - `files.rs` reads the manifest and the headers, as far as they can be used.
//! - `group.rs` checks one group.
//! - `segment.rs` checks the frames of one segment.
//! - `gaps.rs` names the segments that are missing or can't be used.

pub mod dump;
mod files;
mod finding;
mod gaps;
mod group;
pub mod scrub;
mod segment;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(in crate::storage) use self::finding::span;
pub use self::finding::{Finding, Severity, Unreadable};
use self::group::Look;
use crate::storage::error::{StorageError, other_format};
use crate::storage::io::disk::Disk;
use crate::storage::io::node::{DataDir, NodeFile};
use crate::storage::recover::unlisted::{group_of, holds};
use crate::storage::write::create::group_dir;
use crate::types::{GroupId, LogIndex, Offset};

/// The maximum number of findings in a report; further ones are only counted.
pub const FINDINGS_MAX: usize = 1000;

/// What a group's files contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// The group.
    pub group: GroupId,
    /// The first record that can be read.
    pub first_offset: Offset,
    /// The offset after the last record; `None` if damage hides where the log ends.
    pub next_offset: Option<Offset>,
    /// The last entry that was found.
    pub last_index: LogIndex,
    /// Valid entries.
    pub entries: u64,
    /// Segments that were read.
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
    /// The directory.
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
    /// The highest severity; `None` if there is no finding.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    fn add(&mut self, finding: Finding) {
        let place = |f: &Finding| (f.severity, f.position);
        if self.findings.len() >= FINDINGS_MAX {
            self.more += 1;
        } else if !self.findings.iter().any(|f| place(f) == place(&finding) && f.file == finding.file) {
            self.findings.push(finding);
        }
    }

    /// Adds an error that concerns one file; returns the others.
    fn add_error(&mut self, error: StorageError) -> Result<(), StorageError> {
        match error {
            StorageError::Damaged { file, position, what } => {
                self.add(Finding::new(Severity::Damage, &file, position, what));
            }
            StorageError::Io { action, file, error } => {
                self.add(Finding::new(Severity::Damage, &file, 0, format!("cannot {action} it: {error}")));
            }
            StorageError::OtherFormat { file, version, known } => {
                self.add(Finding::new(Severity::Format, &file, 0, other_format(version, known)));
            }
            StorageError::DiskFull { .. }
            | StorageError::ForeignDirectory { .. }
            | StorageError::InUse { .. }
            | StorageError::NotBlank { .. }
            | StorageError::BadEntry(_)
            | StorageError::Failed { .. } => return Err(error),
        }
        Ok(())
    }
}

/// Checks a data directory.
///
/// # Errors
/// [`StorageError::InUse`], [`StorageError::ForeignDirectory`], or if the directory does not exist.
pub fn verify(disk: &Disk, path: &Path) -> Result<Report, StorageError> {
    let data_dir = DataDir::look(disk, path)?;
    let mut report =
        Report { data_dir: path.to_owned(), node: None, groups: Vec::new(), findings: Vec::new(), more: 0 };
    match data_dir.check().and_then(|()| data_dir.load()) {
        Ok(node) => report.node = node,
        Err(error) => report.add_error(error)?,
    }
    let groups_dir = data_dir.groups_dir();
    let names = match disk.list(&groups_dir) {
        Ok(names) => names.unwrap_or_default(),
        Err(error) => {
            report.add_error(error)?;
            Vec::new()
        }
    };
    let there: BTreeSet<GroupId> = names.iter().filter_map(|name| group_of(name)).collect();
    let listed: BTreeSet<GroupId> = match &report.node {
        Some(node) => node.groups.iter().copied().collect(),
        None => there.clone(),
    };
    for group in &listed {
        Look { disk, report: &mut report, group: *group }.run(group_dir(&groups_dir, *group))?;
    }
    for group in there.difference(&listed) {
        let dir = group_dir(&groups_dir, *group);
        let (severity, what) = match holds(disk, &groups_dir, *group) {
            Some(what) => {
                Look { disk, report: &mut report, group: *group }.run(dir.clone())?;
                (Severity::Damage, format!("node.toml is an older copy: it does not list this group, but {what}"))
            }
            None => {
                let what = "this group is not listed in node.toml: it was created and never used; the node uses it or creates it again";
                (Severity::Note, what.to_owned())
            }
        };
        report.add(Finding::new(severity, &dir, 0, what));
    }
    Ok(report)
}

#[cfg(test)]
mod damage;
#[cfg(test)]
mod tests;
