//! What one drain of `log-writer` does for a group, in the order that makes it safe to stop anywhere.

use std::path::PathBuf;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::error::StorageError;
use super::faults::{Fault, broken};
use super::frame::Position;
use super::index::index_path;
use super::manifest::MANIFEST;
use super::segment::segment_path;

/// Everything of one log that was written when the job was taken, and the position that it covers.
///
/// The order: the files, in any order; the directory, if a file is new; the manifest, which may name a new first segment and
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
        if broken(Fault::ManifestBeforeFiles) {
            self.replace_manifest(disk)?;
        }
        if broken(Fault::UnlinksBeforeManifest) {
            self.unlink(disk)?;
        }
        for file in self.files.iter().filter(|_| !broken(Fault::FilesNotSynced)) {
            file.sync()?;
        }
        if self.new_files && !broken(Fault::NoDirSyncAfterNewSegment) {
            disk.sync_dir(&self.dir)?;
        }
        self.replace_manifest(disk)?;
        self.unlink(disk)
    }

    fn replace_manifest(&self, disk: &Disk) -> Result<(), StorageError> {
        match &self.manifest {
            Some(manifest) => disk.replace(&self.dir.join(MANIFEST), manifest),
            None => Ok(()),
        }
    }

    fn unlink(&self, disk: &Disk) -> Result<(), StorageError> {
        for number in &self.unlinks {
            disk.unlink(&segment_path(&self.dir, *number))?;
            disk.unlink(&index_path(&self.dir, *number))?;
        }
        Ok(())
    }
}
