//! Directories of groups that `node.toml` does not list. A group is created completely before it is listed, so a crash
//! may leave an unlisted group that was never used: it is reused, or created again. If an unlisted group contains
//! anything, `node.toml` is an older copy, and a node that started with it would forget that group.

use std::io;
use std::path::Path;

use super::recovery::Survey;
use crate::storage::error::StorageError;
use crate::storage::io::disk::Disk;
use crate::storage::io::group_files::{GroupFiles, Purpose, group_dir, group_of};
use crate::storage::io::node::{DataDir, NODE_FILE, NodeFile};
use crate::storage::write::create::is_start;
use crate::types::GroupId;

/// Checks that `node.toml` lists all groups that contain anything. If it does not, it is an older copy.
///
/// # Errors
/// Damage; or, if nothing is damaged, another version of the program if that wrote an unlisted group.
pub fn check_groups(data_dir: &DataDir, node_file: Option<&NodeFile>) -> Result<(), StorageError> {
    let is_listed = |group: &GroupId| node_file.is_some_and(|node_file| node_file.groups.contains_key(group));
    let (disk, groups_dir) = (data_dir.disk(), data_dir.groups_dir());
    let names = disk.list(&groups_dir)?.unwrap_or_default();
    let mut refused = None;
    for group in names.iter().filter_map(|name| group_of(name)).filter(|group| !is_listed(group)) {
        match holds(disk, &groups_dir, group) {
            Ok(None) => {}
            Ok(Some(what)) => {
                let what = format!("group {group} is not listed, but {what}: this is an older copy of the file");
                return Err(StorageError::damaged(&data_dir.path().join(NODE_FILE), 0, what));
            }
            Err(error) => {
                refused.get_or_insert(error);
            }
        }
    }
    refused.map_or(Ok(()), Err)
}

/// Describes what an unlisted group contains; `None` if it was never used, or is not the directory of a group. Changes
/// nothing.
///
/// # Errors
/// If only another version of the program can read it, or the system has no descriptor or memory left.
pub(crate) fn holds(disk: &Disk, groups_dir: &Path, group: GroupId) -> Result<Option<String>, StorageError> {
    let dir = group_dir(groups_dir, group);
    let leads_nowhere = "its name leads nowhere, as a symbolic link does to a missing directory";
    match disk.list(&dir) {
        Ok(Some(names)) if names.is_empty() => return Ok(None),
        Ok(Some(_)) => {}
        Ok(None) => return Ok(Some(leads_nowhere.to_owned())),
        Err(StorageError::Io { error, .. }) if is_no_directory(&error) => return Ok(None),
        Err(error) if error.is_shortage() => return Err(error),
        Err(error) => return Ok(Some(format!("it can't be read: {error}"))),
    }
    let looked = GroupFiles::read(disk, dir, group, Purpose::Look).and_then(|files| {
        let (_, ended) = Survey::of(&files)?.choose(&files)?;
        Ok((files, ended))
    });
    Ok(match looked {
        Ok((files, ended)) if is_start(&files.manifest, ended.last.index, ended.hard_state) => None,
        Ok((files, ended)) => {
            let (first, next) = (files.manifest.log_state.first_offset, ended.last.offset);
            Some(format!("it contains entries up to {} and records {first}..{next}", ended.last.index))
        }
        Err(error) if error.is_config() || error.is_shortage() => return Err(error),
        Err(error) => Some(format!("it contains files that can't be used: {error}")),
    })
}

fn is_no_directory(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotADirectory || error.raw_os_error() == Some(libc::ELOOP)
}

#[cfg(test)]
mod tests;
