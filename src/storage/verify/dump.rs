//! Reads the records of a stopped node's log and changes nothing, for `seriatim log dump`.
//!
//! It finds the end of the log by recovery's rules. It ends at the first damage; `log verify` names all of it.

use std::path::Path;

use crate::storage::error::StorageError;
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, segment_path};
use crate::storage::io::disk::Access;
use crate::storage::io::disk::Disk;
use crate::storage::io::group_files::group_dir;
use crate::storage::io::group_files::{GroupFiles, Purpose};
use crate::storage::io::node::DataDir;
use crate::storage::read::walk::Walk;
use crate::storage::recover::recovery::Survey;
use crate::types::{GroupId, LogIndex};

/// What a dump left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dumped {
    /// Entries with records that this node does not know to be committed: they may never have been acknowledged.
    pub uncommitted: u64,
}

/// Calls `sink` with the payload (`payload.rs`) of each committed entry with records, in order.
///
/// # Errors
/// An error of the sink; or the directory is in use, missing or damaged.
pub fn dump<E: From<StorageError>>(
    disk: &Disk,
    path: &Path,
    group: GroupId,
    mut sink: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Dumped, E> {
    let data_dir = DataDir::look(disk, path)?;
    data_dir.check()?;
    data_dir.load()?;
    let files = GroupFiles::read(disk, group_dir(&data_dir.groups_dir(), group), group, Purpose::Look)?;
    let (chain, ended) = Survey::of(&files)?.choose(&files)?;
    let manifest = &files.manifest;
    let committed: LogIndex = ended.hard_state.commit.max(manifest.applied).max(manifest.base.index);
    let mut dumped = Dumped::default();
    for (header, end) in chain.stretches(ended.at) {
        let path = segment_path(&files.dir, header.number);
        let file =
            disk.open_to_read(&path)?.ok_or_else(|| StorageError::damaged(&path, 0, "the segment is missing"))?;
        let mut walk = Walk::new(&file, header.salt, SEGMENT_HEADER_BYTES, end, Access::Blocking);
        loop {
            let frame = match walk.next() {
                Ok(Some((_, frame))) => frame,
                Ok(None) => break,
                Err(error) => return Err(error.in_file(&path, walk.position()).into()),
            };
            if !frame.header.kind.is_records() {
                continue;
            }
            if frame.header.index > committed {
                dumped.uncommitted += 1;
                continue;
            }
            sink(frame.payload)?;
        }
    }
    Ok(dumped)
}
