//! How a start treats the files of a stopped or crashed process. It is the only reader that may change them.
//!
//! 1. `io/group_files.rs` reads the names, the manifest and the segments' headers.
//! 2. [`chain`] reads the chain of segments back from one of them, and the frames that a start has to read.
//! 3. [`recovery`] chooses the newest segment whose chain is complete, refuses damage, and builds the log.
//! 4. [`tables`] restores the producers and the cursors.
//! 5. [`create`] and [`unlisted`] handle groups that were created before a crash but not yet listed in `node.toml`.
//! 6. [`readable`]: what can still be read of a damaged log.
//! 7. [`replicas`]: the steps in which a node creates and drops replicas.
//!
//! `seriatim recover` makes a stopped node the only voter of its groups: [`only_voter`] determines what becomes of a
//! group's files, and [`roll_forward`] changes the directory.

pub mod chain;
mod create;
pub mod only_voter;
pub mod readable;
pub mod recovery;
pub mod replicas;
pub mod roll_forward;
pub mod tables;
pub mod unlisted;

use std::path::Path;

use crate::storage::error::StorageError;
use crate::storage::faults::{Fault, broken};
use crate::storage::format::state::{Genesis, Recovered};
use crate::storage::io::disk::Disk;
use crate::storage::io::group_files::group_dir;
use crate::storage::write::log::GroupLog;
use crate::storage::write::options::LogOptions;
use crate::thread::in_parallel;
use crate::types::GroupId;

/// The number of groups that are recovered at the same time.
const OPEN_AT_ONCE: usize = 4;

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

    /// Renames the directory of a replica that this node drops, so that a new replica of the group can be created.
    /// Nothing uses the files any more.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn retire(disk: &Disk, groups_dir: &Path, group: GroupId, retired: &Path) -> Result<(), StorageError> {
        if disk.is_there(retired) {
            disk.remove_dir(retired)?;
        }
        disk.rename(&group_dir(groups_dir, group), retired)?;
        if !broken(Fault::RetiredNameNotSynced) {
            disk.sync_dir(groups_dir)?;
        }
        Ok(())
    }

    /// Recovers several groups at the same time, because each of them waits for two syncs. Returns them in their order.
    pub fn open_all(
        disk: &Disk,
        groups_dir: &Path,
        groups: impl Iterator<Item = GroupId>,
        options: &LogOptions,
    ) -> Vec<Result<(GroupLog, Recovered), StorageError>> {
        let at_once = if disk.syncs_in_parallel() { OPEN_AT_ONCE } else { 1 };
        in_parallel(at_once, groups, |group| GroupLog::open(disk, groups_dir, group, options))
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
