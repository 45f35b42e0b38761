//! What can go wrong with the files, named so that whoever reads it knows the file, the position and what to do next.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::storage::format::entry::BadEntry;

/// A failure of storage. A failed write or sync is final for the process: look again from the disk.
#[derive(Debug)]
pub enum StorageError {
    /// The system refused an operation on a file.
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// There is no space left; nothing was written.
    DiskFull {
        /// The file that should have grown.
        file: PathBuf,
    },
    /// Bytes that were synced once are not what was written. Never cut off, never skipped.
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Where in it, bytes.
        position: u64,
        /// What is wrong there.
        what: String,
    },
    /// Written by a version with another format, an older or a newer one.
    OtherFormat {
        /// Which file.
        file: PathBuf,
        /// Its format.
        version: u32,
        /// The format that this version reads.
        known: u32,
    },
    /// The directory is not empty and not a data directory of ours.
    ForeignDirectory {
        /// Which.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// Another process runs on the directory.
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// A group that should be made anew is there and holds something.
    NotBlank {
        /// Its directory.
        path: PathBuf,
    },
    /// The caller's entry is none.
    BadEntry(BadEntry),
    /// An earlier operation on this log failed; only a restart helps.
    Failed {
        /// The group's directory.
        path: PathBuf,
    },
}

impl StorageError {
    /// True when the data is damaged: exit code 65.
    pub fn is_damage(&self) -> bool {
        match self {
            StorageError::Damaged { .. } | StorageError::BadEntry(_) => true,
            StorageError::Io { .. }
            | StorageError::DiskFull { .. }
            | StorageError::OtherFormat { .. }
            | StorageError::ForeignDirectory { .. }
            | StorageError::InUse { .. }
            | StorageError::NotBlank { .. }
            | StorageError::Failed { .. } => false,
        }
    }

    /// True when the data directory or the program is the wrong one: exit code 78.
    pub fn is_config(&self) -> bool {
        match self {
            StorageError::OtherFormat { .. }
            | StorageError::ForeignDirectory { .. }
            | StorageError::InUse { .. }
            | StorageError::NotBlank { .. } => true,
            StorageError::Io { .. }
            | StorageError::DiskFull { .. }
            | StorageError::Damaged { .. }
            | StorageError::BadEntry(_)
            | StorageError::Failed { .. } => false,
        }
    }

    /// True if the path is no directory, or this user may not use it: at a start exit code 78, as it stays so however often
    /// it is tried. A file system that became read-only is no such case: it may be mended at any time.
    pub fn is_unusable_path(&self) -> bool {
        self.io_error().is_some_and(|(_, error)| {
            matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied)
        })
    }

    /// True if the disk could not read what is stored: at a start exit code 65, as `log verify` reports it.
    pub fn is_unreadable(&self) -> bool {
        self.io_error().is_some_and(|(action, error)| {
            let reads = matches!(action, "read" | "list" | "open" | "look at" | "look for data in");
            reads && error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
        })
    }

    fn io_error(&self) -> Option<(&'static str, &io::Error)> {
        if let StorageError::Io { action, error, .. } = self { Some((action, error)) } else { None }
    }

    /// True when the system had no descriptor or no memory left for it: later it may, and nothing is known to be wrong with
    /// the file.
    pub fn is_shortage(&self) -> bool {
        match self {
            StorageError::Io { error, .. } => crate::storage::io::disk::is_short(error),
            StorageError::DiskFull { .. }
            | StorageError::Damaged { .. }
            | StorageError::OtherFormat { .. }
            | StorageError::ForeignDirectory { .. }
            | StorageError::InUse { .. }
            | StorageError::NotBlank { .. }
            | StorageError::BadEntry(_)
            | StorageError::Failed { .. } => false,
        }
    }

    /// True if the system said that there is no such file.
    pub(in crate::storage) fn is_not_found(&self) -> bool {
        matches!(self, StorageError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }

    pub(in crate::storage) fn io(action: &'static str, file: &Path, error: io::Error) -> StorageError {
        if crate::storage::io::disk::is_full(&error) {
            return StorageError::DiskFull { file: file.to_owned() };
        }
        StorageError::Io { action, file: file.to_owned(), error }
    }

    pub(in crate::storage) fn damaged(file: &Path, position: u64, what: impl Into<String>) -> StorageError {
        StorageError::Damaged { file: file.to_owned(), position, what: what.into() }
    }
}

/// Describes the format of a file that this version does not read, and the next step.
pub(in crate::storage) fn other_format(version: u32, known: u32) -> String {
    let (age, next) = if version < known {
        (
            "older",
            "start the version that wrote it, or move the data directory away and let the node join as a new node",
        )
    } else {
        ("newer", "start the newer version")
    };
    format!("format {version}, {age} than what this version of seriatim reads (format {known}): {next}")
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StorageError::Io { action, file, error } => write!(f, "cannot {action} {}: {error}", file.display()),
            StorageError::DiskFull { file } => {
                write!(
                    f,
                    "no space left for {}: free some, or move the data directory to a larger disk",
                    file.display()
                )
            }
            StorageError::Damaged { file, position, what } => write!(
                f,
                "{} is damaged at byte {position}: {what}. Nothing was changed. Check the disk; then restore this node from \
                 the others: move its data directory away and let it join as a new node with another name",
                file.display()
            ),
            StorageError::OtherFormat { file, version, known } => {
                write!(f, "{} has {}", file.display(), other_format(*version, *known))
            }
            StorageError::ForeignDirectory { path, found } => write!(
                f,
                "{} is not a data directory of seriatim, {found}: choose an empty or a new directory",
                path.display()
            ),
            StorageError::InUse { path } => write!(
                f,
                "{} is in use by another process: stop that one, or choose another data directory",
                path.display()
            ),
            StorageError::NotBlank { path } => {
                write!(f, "{} should be made anew but holds data: move it away", path.display())
            }
            StorageError::BadEntry(bad) => bad.fmt(f),
            StorageError::Failed { path } => {
                write!(f, "an earlier write to {} failed: restart, so that it is read from the disk", path.display())
            }
        }
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StorageError::Io { error, .. } => Some(error),
            StorageError::BadEntry(bad) => Some(bad),
            StorageError::DiskFull { .. }
            | StorageError::Damaged { .. }
            | StorageError::OtherFormat { .. }
            | StorageError::ForeignDirectory { .. }
            | StorageError::InUse { .. }
            | StorageError::NotBlank { .. }
            | StorageError::Failed { .. } => None,
        }
    }
}

impl From<BadEntry> for StorageError {
    fn from(bad: BadEntry) -> StorageError {
        StorageError::BadEntry(bad)
    }
}
