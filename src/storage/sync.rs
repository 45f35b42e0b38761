//! (being written)
use super::disk::Disk;
use super::error::StorageError;
/// What one drain of the log-writer does for a group.
pub struct SyncJob {}
impl SyncJob {
    /// Syncs; without the log's mutex.
    pub fn perform(&self, _disk: &Disk) -> Result<(), StorageError> {
        todo!()
    }
}
