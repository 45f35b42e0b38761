//! How a start treats the files of a stopped or crashed process. It is the only reader that may change them.
//!
//! 1. `io/group_files.rs` reads the names, the manifest and the segments' headers.
//! 2. [`chain`] reads the chain of segments back from one of them, and the frames that a start has to read.
//! 3. [`recovery`] chooses the newest segment whose chain is complete, refuses damage, and builds the log.
//! 4. [`create`] and [`unlisted`] handle groups that were created before a crash but not yet listed in `node.toml`.

pub mod chain;
mod create;
pub mod recovery;
pub mod unlisted;

use std::path::Path;

use crate::storage::error::StorageError;
use crate::storage::format::state::{Genesis, Recovered};
use crate::storage::io::disk::Disk;
use crate::storage::write::log::GroupLog;
use crate::storage::write::options::LogOptions;
use crate::types::GroupId;

impl GroupLog {
    /// Creates a group: its directory, first segment and manifest are complete and synced, and so is the parent
    /// directory. Reuses a complete and blank group: it was created before a crash and never listed.
    ///
    /// # Errors
    /// [`StorageError::NotBlank`] if the group contains data.
    pub fn create(
        disk: &Disk,
        groups_dir: &Path,
        group: GroupId,
        options: &LogOptions,
        genesis: Genesis,
    ) -> Result<(), StorageError> {
        create::create(disk, groups_dir, group, options, genesis)
    }

    /// Recovers a group from its files, by the rules of `recovery`.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] for anything that was synced once and can't be read now; nothing is changed then.
    pub fn open(
        disk: &Disk,
        groups_dir: &Path,
        group: GroupId,
        options: &LogOptions,
    ) -> Result<(GroupLog, Recovered), StorageError> {
        recovery::open(disk, groups_dir, group, options)
    }
}
