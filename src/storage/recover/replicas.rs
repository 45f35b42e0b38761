//! How a node creates and drops replicas, in steps that a crash may interrupt anywhere.
//!
//! ```text
//!  taken up:  groups/<group> is created completely ─▶ node.toml lists it ─▶ its first message may be sent
//!  given up:  groups/<group> becomes groups/<group>.removed-<replica> ─▶ node.toml does not list it ─▶ deleted
//!  damaged:   groups/<group> becomes groups/<group>.damaged-<replica> ─▶ node.toml does not list it
//!             ─▶ deleted once a new replica of the group is whole
//! ```
//!
//! The rename is the point of no return: a start that finds a listed group under the other name removes it from the
//! list. `node.toml` never lists a replica again that it once listed (`io/node_file.rs`). Only the last step deletes
//! data, and a `log-writer` performs it; a start finds what it has not deleted by its name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::storage::error::StorageError;
use crate::storage::faults::{Fault, broken};
use crate::storage::format::state::Genesis;
use crate::storage::io::group_files::{aside_dir, aside_of, group_dir, retired_dir, retired_of};
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

/// What becomes of the files of a replica that is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// They are deleted.
    Delete,
    /// They are damaged, and kept until a new replica is whole.
    KeepAside,
}

/// Drops the replica of a group, and returns the directory to delete; `None` if there is none, or if it is kept.
/// Nothing may use its files any more.
///
/// # Errors
/// [`StorageError`].
pub fn give_up(
    data_dir: &DataDir,
    node_file: &mut NodeFile,
    group: GroupId,
    files: Files,
) -> Result<Option<PathBuf>, StorageError> {
    let Some(replica) = node_file.groups.get(&group).copied() else { return Ok(None) };
    let (disk, groups_dir) = (data_dir.disk(), data_dir.groups_dir());
    let retired = match files {
        Files::Delete => retired_dir(&groups_dir, group, replica),
        Files::KeepAside => aside_dir(&groups_dir, group, replica),
    };
    // The directory of a damaged replica may be missing: that may be the damage.
    let is_there = disk.is_there(&group_dir(&groups_dir, group));
    if broken(Fault::UnlistedBeforeRetired) {
        node_file.remove(group);
        data_dir.store(node_file)?;
    }
    if broken(Fault::DeletedBeforeUnlisted) {
        disk.remove_dir(&group_dir(&groups_dir, group))?;
        disk.sync_dir(&groups_dir)?;
    } else if is_there {
        GroupLog::retire(disk, &groups_dir, group, &retired)?;
    }
    node_file.remove(group);
    data_dir.store(node_file)?;
    Ok(Some(retired).filter(|_| is_there && files == Files::Delete))
}

/// Removes from the list what was given up before a crash: a listed group without a directory, but with the directory
/// of its retired replica. The caller stores the file.
///
/// # Errors
/// [`StorageError`].
pub fn unlist_retired(data_dir: &DataDir, node_file: &mut NodeFile) -> Result<(), StorageError> {
    let names = data_dir.disk().list(&data_dir.groups_dir())?.unwrap_or_default();
    for (group, replica) in names.iter().filter_map(|name| retired_of(name).or_else(|| aside_of(name))) {
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

/// Returns the directories of damaged replicas that were given up and whose successors were not whole yet.
///
/// # Errors
/// [`StorageError`].
pub fn aside_dirs(data_dir: &DataDir) -> Result<BTreeMap<(GroupId, ReplicaId), PathBuf>, StorageError> {
    let groups_dir = data_dir.groups_dir();
    let names = data_dir.disk().list(&groups_dir)?.unwrap_or_default();
    Ok(names.iter().filter_map(|name| Some((aside_of(name)?, groups_dir.join(name)))).collect())
}

#[cfg(test)]
mod tests;
