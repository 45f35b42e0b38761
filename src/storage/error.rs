//! The errors of storage. Each names the file, the position and the operator's next step.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use thiserror::Error;

use crate::codes::UnknownCode;

/// Why bytes are not a valid entry, or not a valid payload of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not a valid entry: {0}")]
pub struct BadEntry(pub &'static str);

/// A valid frame of a newer version: its checksums are correct, but this version does not know its kind. It is never
/// treated as damage or as a torn tail.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} contains at byte {position} {kind}", .file.display())]
pub struct NewerFrame {
    /// The segment.
    pub file: PathBuf,
    /// Where the frame begins.
    pub position: u64,
    /// Where it ends.
    pub end: u64,
    /// Its kind.
    pub kind: UnknownCode<u8>,
}

/// A failure of storage. A failed write or sync is final for the process: only a restart, which reads the disk again,
/// recovers from it.
#[derive(Debug, Error)]
pub enum StorageError {
    /// The system refused an operation on a file.
    #[error("cannot {action} {}: {error}", .file.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// The path of the file concerned.
        file: PathBuf,
        /// The system's error.
        #[source]
        error: io::Error,
    },
    /// No space is left; nothing was written.
    #[error("no space left for {}: free some, or move the data directory to a larger disk", .file.display())]
    DiskFull {
        /// The file that should have grown.
        file: PathBuf,
    },
    /// Synced bytes differ from what was written. They are never cut off and never skipped.
    #[error(
        "{} is damaged at byte {position}: {what}. Nothing was changed. Check the disk; then restore this node from the others: \
         move its data directory away, start the node again, and run `seriatim node replace NODE`",
        .file.display()
    )]
    Damaged {
        /// The path of the file concerned.
        file: PathBuf,
        /// The first damaged byte.
        position: u64,
        /// What is wrong there.
        what: String,
    },
    /// An older or a newer version wrote the file in another format.
    #[error("{} has {}{}", .file.display(), .part, OtherFormat { version: *.version, known: *.known })]
    OtherFormat {
        /// The path of the file concerned.
        file: PathBuf,
        /// The part of the file that has that format: empty for the file itself, or "a ... of ".
        part: &'static str,
        /// Its format.
        version: u32,
        /// The format that this version reads.
        known: u32,
    },
    /// A newer version wrote a part of the file.
    #[error(transparent)]
    NewerFrame(#[from] NewerFrame),
    /// The directory is not empty and not a data directory of Seriatim.
    #[error("{} is not a data directory of seriatim, {found}: choose an empty or a new directory", .path.display())]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// Another process uses the directory.
    #[error("{} is in use by another process: stop that one, or choose another data directory", .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// `seriatim recover` has begun to change the directory, and was interrupted.
    #[error(
        "{} is in the middle of a recovery that was interrupted: run `seriatim recover --apply` on it again, which finishes it",
        .path.display()
    )]
    RecoveryUnfinished {
        /// The directory.
        path: PathBuf,
    },
    /// A group that should be created already exists and contains data.
    #[error("{} must be created as a new group but contains data: move it away", .path.display())]
    NotBlank {
        /// The group's directory.
        path: PathBuf,
    },
    /// The caller's entry is not valid.
    #[error(transparent)]
    BadEntry(#[from] BadEntry),
    /// An earlier operation on this log failed; only a restart helps.
    #[error("an earlier write to {} failed: restart, so that it is read from the disk", .path.display())]
    Failed {
        /// The group's directory.
        path: PathBuf,
    },
}

impl StorageError {
    /// True if data is damaged: exit code 65.
    pub fn is_damage(&self) -> bool {
        match self {
            StorageError::Damaged { .. } | StorageError::BadEntry(_) => true,
            StorageError::Io { .. }
            | StorageError::DiskFull { .. }
            | StorageError::OtherFormat { .. }
            | StorageError::NewerFrame(_)
            | StorageError::ForeignDirectory { .. }
            | StorageError::InUse { .. }
            | StorageError::RecoveryUnfinished { .. }
            | StorageError::NotBlank { .. }
            | StorageError::Failed { .. } => false,
        }
    }

    /// Returns what is damaged, without the next step: for a log that the node's peers can restore.
    pub(crate) fn damage(&self) -> String {
        match self {
            StorageError::Damaged { file, position, what } => {
                format!("{} is damaged at byte {position}: {what}", file.display())
            }
            other => other.to_string(),
        }
    }

    /// True if the data directory or the version of the program is the wrong one: exit code 78.
    pub fn is_config(&self) -> bool {
        match self {
            StorageError::OtherFormat { .. }
            | StorageError::NewerFrame(_)
            | StorageError::ForeignDirectory { .. }
            | StorageError::InUse { .. }
            | StorageError::RecoveryUnfinished { .. }
            | StorageError::NotBlank { .. } => true,
            StorageError::Io { .. }
            | StorageError::DiskFull { .. }
            | StorageError::Damaged { .. }
            | StorageError::BadEntry(_)
            | StorageError::Failed { .. } => false,
        }
    }

    /// True if the path can't be a directory, or this user may not use it: exit code 78 at a start, because a retry
    /// does not help. A file system that became read-only is not included, because it may be repaired at any time.
    pub fn is_unusable_path(&self) -> bool {
        use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound, PermissionDenied, Unsupported};
        self.io_error().is_some_and(|(action, error)| match error.kind() {
            NotADirectory | PermissionDenied | InvalidFilename => true,
            // A file system in which no directory can be created, for example `/proc`. The parents exist.
            NotFound | Unsupported => action == "make the directory",
            _ => false,
        })
    }

    /// True if the disk failed to read stored bytes: exit code 65 at a start, as for `data verify`.
    pub fn is_unreadable(&self) -> bool {
        self.io_error().is_some_and(|(action, error)| {
            let reads = matches!(action, "read" | "list" | "open" | "look at" | "look for data in");
            reads && Errno::from_io_error(error) == Some(Errno::IO)
        })
    }

    fn io_error(&self) -> Option<(&'static str, &io::Error)> {
        if let StorageError::Io { action, error, .. } = self { Some((action, error)) } else { None }
    }

    /// True if the system had no descriptor or no memory left. Nothing is known to be wrong with the file, and a retry
    /// may succeed.
    pub fn is_shortage(&self) -> bool {
        self.io_error().is_some_and(|(_, error)| is_short(error))
    }

    /// True if the system says that the file does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.io_error().is_some_and(|(_, error)| error.kind() == io::ErrorKind::NotFound)
    }

    pub(crate) fn io(action: &'static str, file: &Path, error: io::Error) -> StorageError {
        if is_full(&error) {
            return StorageError::DiskFull { file: file.to_owned() };
        }
        StorageError::Io { action, file: file.to_owned(), error }
    }

    pub(crate) fn damaged(file: &Path, position: u64, what: impl Into<String>) -> StorageError {
        StorageError::Damaged { file: file.to_owned(), position, what: what.into() }
    }
}

/// True if the system reports that no space, or none of this user's quota, is left.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// True if this process or the system has no descriptor left. Only an operation that opens a file fails with this.
pub(crate) fn no_descriptor(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// True if no descriptor or no memory is left.
pub(crate) fn is_short(error: &io::Error) -> bool {
    no_descriptor(error) || Errno::from_io_error(error) == Some(Errno::NOMEM)
}

/// The format of a file that this version does not read; displayed with the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OtherFormat {
    pub(crate) version: u32,
    /// The format that this version reads.
    pub(crate) known: u32,
}

impl fmt::Display for OtherFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OtherFormat { version, known } = self;
        let (age, next) = if version < known {
            (
                "older",
                "start the version that wrote it, or move the data directory away and let the node join as a new node",
            )
        } else {
            ("newer", "start the newer version")
        };
        write!(f, "format {version}, {age} than what this version of seriatim reads (format {known}): {next}")
    }
}
