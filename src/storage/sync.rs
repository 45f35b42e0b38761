//! What one drain of `log-writer` does for a group, in the order that makes it safe to stop anywhere.

use std::path::PathBuf;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::error::StorageError;
use super::frame::Position;
use super::index::index_path;
use super::manifest::MANIFEST;
use super::segment::segment_path;

/// Everything of one log that was written when the job was taken, and the position that it covers.
///
/// The order: files by number; the directory, if a file is new; the manifest, which may name a new first segment and
/// carries the floor that these syncs make; the directory; and only then are segments removed that the log does not
/// reach any more. So after a crash anywhere in between, either the old chain of segments is whole or the new one.
pub struct SyncJob {
    pub(super) dir: PathBuf,
    pub(super) files: Vec<Arc<DiskFile>>,
    pub(super) new_files: bool,
    pub(super) manifest: Option<Vec<u8>>,
    pub(super) unlinks: Vec<u64>,
    pub(super) covered: Position,
    pub(super) failed: bool,
}

impl SyncJob {
    /// Puts it on the disk. Not to be done under the log's mutex.
    ///
    /// # Errors
    /// Any is final: nothing that was written since the last finished job may be told to be on the disk, by this process.
    pub fn perform(&self, disk: &Disk) -> Result<(), StorageError> {
        if self.failed {
            return Err(StorageError::Failed { path: self.dir.clone() });
        }
        for file in &self.files {
            file.sync()?;
        }
        if self.new_files {
            disk.sync_dir(&self.dir)?;
        }
        if let Some(manifest) = &self.manifest {
            disk.replace(&self.dir.join(MANIFEST), manifest)?;
        }
        for number in &self.unlinks {
            disk.unlink(&segment_path(&self.dir, *number))?;
            disk.unlink(&index_path(&self.dir, *number))?;
        }
        Ok(())
    }
}
