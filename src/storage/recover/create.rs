//! Creates a group, or reuses one that was created before a crash and never listed in `node.toml`.

use std::path::Path;

use super::recovery;
use crate::storage::error::StorageError;
use crate::storage::format::state::Genesis;
use crate::storage::io::disk::Disk;
use crate::storage::io::group_files::{group_dir, unfinished_dir};
use crate::storage::write::create::{GroupStart, make_group};
use crate::storage::write::options::LogOptions;
use crate::types::GroupId;

pub(super) fn create(
    disk: &Disk,
    groups_dir: &Path,
    group: GroupId,
    options: &LogOptions,
    genesis: Genesis,
) -> Result<(), StorageError> {
    let start = GroupStart::of(&genesis);
    let dir = group_dir(groups_dir, group);
    let unfinished = unfinished_dir(groups_dir, group);
    // `DataDir::open` has created it and synced its name.
    if !disk.is_there(groups_dir) {
        disk.create_dir(groups_dir)?;
        disk.sync_dir(groups_dir.parent().unwrap_or(Path::new("/")))?;
    }
    if disk.list(&unfinished)?.is_some() {
        disk.remove_dir(&unfinished)?;
    }
    if disk.list(&dir)?.is_some() {
        if check_blank(disk, groups_dir, group, options, &start)? {
            // Its name may not be synced yet.
            return disk.sync_dir(groups_dir);
        }
        disk.rename(&dir, &unfinished)?;
        disk.remove_dir(&unfinished)?;
    }
    make_group(disk, groups_dir, group, options, start)
}

/// Checks that an existing group was created and never used. Returns `false` if it was created with another genesis: it
/// was never listed, so it may be replaced.
fn check_blank(
    disk: &Disk,
    groups_dir: &Path,
    group: GroupId,
    options: &LogOptions,
    start: &GroupStart,
) -> Result<bool, StorageError> {
    let (_, found) = recovery::open(disk, groups_dir, group, options)?;
    let began = |start: &GroupStart| {
        found.base == start.base
            && found.last_index == start.base.index
            && found.hard_state == start.hard_state
            && found.torn_bytes == 0
    };
    let starts = [Genesis::Blank, Genesis::Voters(found.conf_state.voters.clone(), found.base.offset)];
    if !starts.iter().any(|genesis| began(&GroupStart::of(genesis))) {
        return Err(StorageError::NotBlank { path: group_dir(groups_dir, group) });
    }
    Ok(began(start) && found.conf_state == start.conf_state)
}
