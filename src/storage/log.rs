//! One group's log on disk (being written).
use std::path::Path;

use super::disk::Disk;
use super::entry::Entry;
pub use super::error::StorageError;
use super::reader::GroupReader;
pub use super::state::{Base, ConfState, Derived, Genesis, HardState, Marker, Recovered};
pub use super::sync::SyncJob;
use crate::types::{GroupId, LogIndex, Offset, Term};

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// A segment of this size is full. Soft: a frame is never split.
    pub segment_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions { segment_bytes: 64 << 20 }
    }
}

/// Where a log begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The entry before the first stored one.
    pub base: Base,
    /// The last entry; the base, when there is none.
    pub last_index: LogIndex,
    /// Its term.
    pub last_term: Term,
    /// The offset that the next record gets.
    pub next_offset: Offset,
}

/// One group's log.
pub struct GroupLog {}

impl GroupLog {
    /// Makes a group.
    pub fn create(
        _disk: &Disk,
        _groups_dir: &Path,
        _group: GroupId,
        _options: &LogOptions,
        _genesis: Genesis,
    ) -> Result<(), StorageError> {
        todo!()
    }
    /// Recovers a group.
    pub fn open(
        _disk: &Disk,
        _groups_dir: &Path,
        _group: GroupId,
        _options: &LogOptions,
    ) -> Result<(GroupLog, Recovered), StorageError> {
        todo!()
    }
    /// Appends entries.
    pub fn append(&mut self, _entries: &[Entry]) -> Result<(), StorageError> {
        todo!()
    }
    /// Appends the hard state.
    pub fn append_hard_state(&mut self, _hard_state: &HardState) -> Result<(), StorageError> {
        todo!()
    }
    /// Entries from `from` on are gone.
    pub fn truncate_suffix(&mut self, _from: LogIndex) -> Result<(), StorageError> {
        todo!()
    }
    /// Drops whole segments below.
    pub fn trim(&mut self, _first_offset: Offset, _applied: LogIndex) -> Result<Base, StorageError> {
        todo!()
    }
    /// Begins anew behind the marker.
    pub fn install_marker(&mut self, _marker: &Marker, _hard_state: &HardState) -> Result<(), StorageError> {
        todo!()
    }
    /// Notes who carries the group.
    pub fn set_conf_state(&mut self, _conf_state: ConfState, _as_of: LogIndex) {
        todo!()
    }
    /// Notes the derived state.
    pub fn set_derived(&mut self, _derived: Derived, _as_of: LogIndex) {
        todo!()
    }
    /// Notes how far the log is applied.
    pub fn set_applied(&mut self, _applied: LogIndex) {
        todo!()
    }
    /// Takes what is to be synced.
    pub fn begin_sync(&mut self) -> Option<SyncJob> {
        todo!()
    }
    /// The job is done.
    pub fn end_sync(&mut self, _job: SyncJob) {
        todo!()
    }
    /// Notes the floor after a second of quiet.
    pub fn append_synced_mark(&mut self) -> Result<bool, StorageError> {
        todo!()
    }
    /// Syncs and leaves the clean mark.
    pub fn close(&mut self) -> Result<(), StorageError> {
        todo!()
    }
    /// A reader.
    pub fn reader(&self) -> GroupReader {
        todo!()
    }
    /// Where the log begins and ends.
    pub fn bounds(&self) -> Bounds {
        todo!()
    }
    /// Bytes on disk.
    pub fn stored_bytes(&self) -> u64 {
        todo!()
    }
}
