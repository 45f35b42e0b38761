//! How a node creates and drops replicas, in steps that a crash may interrupt anywhere.
//!
//! ```text
//!  taken up:  groups/<group> is created completely ─▶ node.toml lists it ─▶ its first message may be sent
//!  given up:  groups/<group> becomes groups/<group>.removed-<replica> ─▶ node.toml does not list it ─▶ deleted
//! ```
//!
//! The rename is the point of no return: a start that finds a listed group under the other name removes it from the
//! list. `node.toml` never lists a replica again that it once listed (`io/node_file.rs`). Only the last step deletes
//! data, and a `log-writer` performs it; a start finds what it has not deleted by its name.

use std::path::PathBuf;

use crate::storage::error::StorageError;
use crate::storage::faults::{Fault, broken};
use crate::storage::format::state::Genesis;
use crate::storage::io::group_files::{group_dir, retired_dir, retired_of};
use crate::storage::io::node::{DataDir, NodeFile};
use crate::storage::write::log::GroupLog;
use crate::storage::write::options::LogOptions;
use crate::types::{GroupId, ReplicaId};

/// Creates replicas, and lists them in `node.toml` with one write.
///
/// # Errors
/// [`StorageError`]; what was created is reused after the next start.
pub fn take_up(
    data_dir: &DataDir,
    node_file: &mut NodeFile,
    replicas: impl Iterator<Item = (GroupId, ReplicaId, Genesis)>,
    options: &LogOptions,
) -> Result<(), StorageError> {
    let mut is_changed = false;
    for (group, replica, genesis) in replicas {
        if broken(Fault::ListedBeforeCreated) {
            node_file.add(group, replica);
            data_dir.store(node_file)?;
        }
        GroupLog::create(data_dir.disk(), &data_dir.groups_dir(), group, options, genesis)?;
        node_file.add(group, replica);
        is_changed = true;
    }
    if is_changed { data_dir.store(node_file) } else { Ok(()) }
}

/// Drops the replica of a group, and returns the directory to delete; `None` if there is none. Nothing may use its
/// files any more.
///
/// # Errors
/// [`StorageError`].
pub fn give_up(data_dir: &DataDir, node_file: &mut NodeFile, group: GroupId) -> Result<Option<PathBuf>, StorageError> {
    let Some(replica) = node_file.groups.get(&group).copied() else { return Ok(None) };
    let (disk, groups_dir) = (data_dir.disk(), data_dir.groups_dir());
    if broken(Fault::UnlistedBeforeRetired) {
        node_file.remove(group);
        data_dir.store(node_file)?;
    }
    if broken(Fault::DeletedBeforeUnlisted) {
        disk.remove_dir(&group_dir(&groups_dir, group))?;
        disk.sync_dir(&groups_dir)?;
    } else {
        GroupLog::retire(disk, &groups_dir, group, replica)?;
    }
    node_file.remove(group);
    data_dir.store(node_file)?;
    Ok(Some(retired_dir(&groups_dir, group, replica)))
}

/// Removes from the list what was given up before a crash: a listed group without a directory, but with the directory
/// of its retired replica. The caller stores the file.
///
/// # Errors
/// [`StorageError`].
pub fn unlist_retired(data_dir: &DataDir, node_file: &mut NodeFile) -> Result<(), StorageError> {
    let names = data_dir.disk().list(&data_dir.groups_dir())?.unwrap_or_default();
    for (group, replica) in names.iter().filter_map(|name| retired_of(name)) {
        let is_gone = !names.contains(&group.to_string());
        if is_gone && node_file.groups.get(&group) == Some(&replica) {
            log::info!("group {group}: replica {replica} was given up before a crash");
            node_file.remove(group);
        }
    }
    Ok(())
}

/// Returns the directories of replicas that were given up and are not deleted yet.
///
/// # Errors
/// [`StorageError`].
pub fn retired_dirs(data_dir: &DataDir) -> Result<Vec<PathBuf>, StorageError> {
    let groups_dir = data_dir.groups_dir();
    let names = data_dir.disk().list(&groups_dir)?.unwrap_or_default();
    Ok(names.iter().filter(|name| retired_of(name).is_some()).map(|name| groups_dir.join(name)).collect())
}

#[cfg(test)]
mod tests;
