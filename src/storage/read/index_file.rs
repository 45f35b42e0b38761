//! The file of a segment's index: read, written, and rebuilt from the segment.

use std::path::{Path, PathBuf};

use super::walk::{Walk, WalkError};
use crate::storage::error::StorageError;
use crate::storage::faults::{Fault, broken};
use crate::storage::format::index::{BadIndex, INDEX_BYTES_MAX, Index};
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::storage::io::disk::{Access, Disk, DiskFile};

/// The path of an index file.
pub fn index_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.idx"))
}

/// Returns the message that an index is rebuilt. An index is derived from its segment, so unlike damage to other files
/// this requires no action from the operator.
fn rebuilding(error: &StorageError) -> String {
    match error {
        StorageError::Damaged { file, what, .. } => {
            format!("the index {} is not valid: {what}: rebuilding it", file.display())
        }
        error => format!("{error}: rebuilding the index"),
    }
}

/// Reads the index of a sealed segment; `None` if no valid one exists.
///
/// # Errors
/// If the system lacks a descriptor or memory to open it; nothing is known about the file then.
pub(crate) fn load(disk: &Disk, dir: &Path, number: u64, salt: u64) -> Result<Option<Index>, StorageError> {
    match disk.read(&index_path(dir, number), INDEX_BYTES_MAX) {
        Ok(Some(bytes)) => match Index::decode(&bytes, salt) {
            Ok(entries) => Ok(Some(Index::of(entries))),
            Err(BadIndex::Invalid) => Ok(None),
            Err(other @ BadIndex::OtherFormat(_)) => {
                log::info!("the index {} {other}: rebuilding it", index_path(dir, number).display());
                Ok(None)
            }
        },
        Ok(None) => Ok(None),
        Err(error) if error.is_shortage() || broken(Fault::IndexMustBeRead) => Err(error),
        Err(error) => {
            log::warn!("{}", rebuilding(&error));
            Ok(None)
        }
    }
}

/// Writes the index file of a segment that ends at `end`, without a sync. If that fails, no file remains, and the index
/// is rebuilt when it is needed.
pub(crate) fn store(index: &Index, disk: &Disk, dir: &Path, number: u64, salt: u64, end: u64) {
    if let Err(error) = disk.write_derived(&index_path(dir, number), &index.encode(salt, end)) {
        log::info!("{error}: the index of this segment will be rebuilt when it is needed");
    }
}

/// Rebuilds the index of a segment from its frames below `end`, including those after a bad one, and writes its file.
pub(crate) fn rebuild(
    disk: &Disk,
    dir: &Path,
    header: &SegmentHeader,
    capacity: usize,
    file: &DiskFile,
    end: u64,
) -> Index {
    let index = Index::new(capacity);
    let mut walk = Walk::new(file, header.salt, SEGMENT_HEADER_BYTES, end, Access::Blocking);
    loop {
        match walk.next() {
            Ok(Some((at, frame))) => index.push(&frame.header, at),
            Ok(None) | Err(WalkError::NotCached) => break,
            Err(WalkError::Newer(newer)) => walk.skip_newer(&newer),
            // A lack of descriptors or memory is temporary: the incomplete index must not be stored.
            Err(WalkError::Disk(error)) if error.is_shortage() => return index,
            Err(WalkError::Bad { .. } | WalkError::Disk(_)) => match walk.skip_bad() {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => return index,
            },
        }
    }
    store(&index, disk, dir, header.number, header.salt, end);
    index
}

#[cfg(test)]
mod tests;
