//! The log-writer (being written).
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::storage::disk::Disk;
use crate::storage::log::GroupLog;
use crate::thread::FatalSender;
use crate::types::GroupId;
/// Who is told what is on disk: the group and the highest Ready number.
pub type Report = Arc<dyn Fn(GroupId, u64) + Send + Sync>;
/// The thread.
pub struct Writer;
/// Its inbox.
#[derive(Clone)]
pub struct WriterHandle;
impl Writer {
    /// Starts the thread.
    pub fn start(_disk: &Disk, _report: Report, _fatal: &FatalSender) -> std::io::Result<Writer> {
        todo!()
    }
    /// For who has something to sync.
    pub fn handle(&self) -> WriterHandle {
        todo!()
    }
    /// Drains, syncs once more, closes each log, and ends.
    pub fn stop(self) {
        todo!()
    }
}
impl WriterHandle {
    /// Makes a log known.
    pub fn register(&self, _group: GroupId, _log: Arc<Mutex<GroupLog>>) {
        todo!()
    }
    /// Wants the log on disk; reports this Ready number then. Never blocks.
    pub fn sync(&self, _group: GroupId, _ready_number: u64) {
        todo!()
    }
    /// Since when one drain runs.
    pub fn busy_since(&self) -> Option<Instant> {
        todo!()
    }
}
