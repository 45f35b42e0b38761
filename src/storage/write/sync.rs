//! Sync jobs: the steps of `log-writer` for one log, in an order that a crash may interrupt anywhere, and when a new
//! durable position is written to the manifest.
//!
//! **The durable position is also stored outside the segment.** Each frame contains the durable position at the time
//! when the frame was written. So no frame proves that it was synced itself, and a bad sector at the end of the newest
//! segment destroys the newest durable positions together with the records. Then only the manifest can distinguish
//! acknowledged records from a torn tail.
//!
//! Therefore the manifest is written with a new durable position ([`GroupLog::begin_note`]) when the log is idle, soon
//! after a term or a vote was written, and under load every few seconds or megabytes; [`Urgency`] determines when. This
//! manifest differs from the one on the disk only in the durable position, the terms, the checkpoints and the next
//! segment's number. So it can be written at any time between two sync jobs, whatever was appended meanwhile, and no
//! acknowledgement waits for it. `docs/RELIABILITY.md` states which damage is still mistaken for a torn tail.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::storage::error::StorageError;
use crate::storage::faults::{Fault, broken};
use crate::storage::format::frame::Position;
use crate::storage::format::manifest::{MANIFEST, Manifest};
use crate::storage::format::segment_header::segment_path;
use crate::storage::format::state_file::{StateFile, state_path};
use crate::storage::io::disk::{Disk, DiskFile};
use crate::storage::read::index_file::index_path;
use crate::storage::write::frames::FrameBatch;
use crate::storage::write::log::GroupLog;
use crate::storage::write::state_files::DiskRoom;
use crate::types::{LogIndex, Offset};

/// A log that was not written for this time is idle, and its durable position is written to the manifest.
pub const QUIET: Duration = Duration::from_secs(1);
/// The maximum age of the manifest's durable position under load.
pub const NOTE_EVERY: Duration = Duration::from_secs(5);
/// The maximum number of synced bytes above the manifest's durable position.
pub const NOTE_BYTES: u64 = 16 << 20;

/// If less space is free, the manifest is not written for the durable position alone.
const NOTE_ROOM: u64 = 1 << 20;

/// How soon the current durable position should be written to the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// The manifest contains the current durable position.
    Nothing,
    /// When the log becomes idle, or after a few seconds of load.
    Quiet,
    /// After a pause in proportion to the duration of the last sync. Until then one bad sector can make this node
    /// forget a vote, but two more syncs at once would delay the election on a slow disk.
    Vote,
    /// Now: at least [`NOTE_BYTES`] are above the manifest's durable position.
    Now,
}

/// Syncs everything of one log that was written before the job was taken.
///
/// The order is: the files, in any order; the directory, if a file is new; a new state file, and the directory; the
/// manifest, which contains the durable position after these syncs and may name a new first segment and a new state
/// file; the directory; then the segments and the state file that are not part of the log any more are deleted. So after
/// a crash at any step, either the old chain of segments or the new one is complete, and its state file is there.
pub struct SyncJob {
    pub(crate) dir: PathBuf,
    pub(crate) files: Vec<Arc<DiskFile>>,
    pub(crate) new_files: bool,
    pub(crate) state_file: Option<StateFile>,
    pub(crate) manifest: Option<Manifest>,
    pub(crate) unlinks: Vec<u64>,
    pub(crate) old_state_file: Option<LogIndex>,
    pub(crate) covered: Position,
    pub(crate) covered_end: (LogIndex, Offset),
    pub(crate) entries: u64,
    pub(crate) failed: bool,
}

impl SyncJob {
    /// The number of entries that become durable.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Performs the job. Must not be called under the log's mutex.
    ///
    /// # Errors
    /// Every error is final: this process must never report as durable what was written since the last finished job.
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
        if let Some(state_file) = self.state_file.as_ref().filter(|_| !broken(Fault::StateAfterManifest)) {
            self.write_state_file(disk, state_file)?;
        }
        self.replace_manifest(disk)?;
        if let Some(state_file) = self.state_file.as_ref().filter(|_| broken(Fault::StateAfterManifest)) {
            self.write_state_file(disk, state_file)?;
        }
        self.unlink(disk)
    }

    fn write_state_file(&self, disk: &Disk, state_file: &StateFile) -> Result<(), StorageError> {
        disk.replace(&state_path(&self.dir, state_file.index), &state_file.encode())
    }

    /// Performs a job of [`GroupLog::begin_note`]; returns `false` if no space or no descriptor is left for it. Nothing
    /// waits for such a job, which only adds protection, so it must neither end the process nor use space that other
    /// writes need.
    ///
    /// # Errors
    /// As [`SyncJob::perform`].
    pub fn perform_note(&self, disk: &Disk) -> Result<bool, StorageError> {
        if disk.space().free_bytes().is_some_and(|free| free < NOTE_ROOM) {
            return Ok(false);
        }
        match self.perform(disk) {
            Ok(()) => Ok(true),
            // An error of the directory is excluded: its sync followed the rename, so its failure is final.
            Err(StorageError::DiskFull { file }) if file != self.dir => {
                disk.unlink(&self.dir.join(MANIFEST).with_extension("tmp"))?;
                Ok(false)
            }
            Err(error) if error.is_shortage() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn replace_manifest(&self, disk: &Disk) -> Result<(), StorageError> {
        match &self.manifest {
            Some(manifest) => disk.replace(&self.dir.join(MANIFEST), &manifest.encode()),
            None => Ok(()),
        }
    }

    fn unlink(&self, disk: &Disk) -> Result<(), StorageError> {
        for number in &self.unlinks {
            disk.unlink(&segment_path(&self.dir, *number))?;
            disk.unlink(&index_path(&self.dir, *number))?;
        }
        self.old_state_file.map_or(Ok(()), |index| disk.unlink(&state_path(&self.dir, index)))
    }
}

impl GroupLog {
    /// Takes everything that has to be synced now; `None` if everything is synced. There is one job at a time: the
    /// caller performs it and passes it to [`GroupLog::end_sync`] before it takes the next one.
    pub fn begin_sync(&mut self) -> Option<SyncJob> {
        if self.is_synced() {
            return None;
        }
        let covered = self.active.position();
        if broken(Fault::DurableTooHigh) {
            self.durable = covered;
        }
        let covered_end = (self.last.index, self.last.offset);
        let base = self.published.view().base.index;
        let room = DiskRoom::of(self.disk.space());
        let due = self.state_files.is_due(base, self.segment_bytes, room, &self.log_state, self.log_state_index);
        let state_file =
            due.then(|| self.state_files.begin(self.group, &self.log_state, self.log_state_index)).flatten();
        let manifest = (std::mem::take(&mut self.manifest_due) || due).then(|| self.manifest(covered, covered_end));
        let state_index = |manifest: &Manifest| manifest.log_state.state_file();
        let is_old = |index: &LogIndex| manifest.as_ref().is_some_and(|next| state_index(next) != Some(*index));
        let old_state_file = state_index(&self.noted).filter(is_old);
        Some(SyncJob {
            dir: self.dir.clone(),
            files: std::mem::take(&mut self.dirty).into_values().collect(),
            new_files: std::mem::take(&mut self.new_files),
            state_file,
            manifest,
            unlinks: std::mem::take(&mut self.unlinks),
            old_state_file,
            covered,
            covered_end,
            entries: self.last.index.0.saturating_sub(self.durable_end.0.0),
            failed: self.failed,
        })
    }

    /// Takes a job that only writes the current durable position to the manifest; `None` if the manifest contains it,
    /// or the next sync job writes it. Such jobs and those of [`GroupLog::begin_sync`] are performed one at a time.
    pub fn begin_note(&mut self) -> Option<SyncJob> {
        if self.urgency() == Urgency::Nothing || broken(Fault::DurableNotNoted) {
            return None;
        }
        let mut manifest = self.noted.clone();
        (manifest.durable, manifest.durable_end) = (self.durable, self.durable_end);
        if broken(Fault::NoteAheadOfSync) {
            (manifest.durable, manifest.durable_end) = (self.active.position(), (self.last.index, self.last.offset));
        }
        // Recovery may have found segments that are newer than the manifest, but the terms below the new durable
        // position must be correct.
        manifest.terms.clone_from(&self.terms);
        manifest.checkpoints = self.checkpoints.all().to_vec();
        manifest.next_segment = self.next_segment;
        Some(SyncJob {
            dir: self.dir.clone(),
            files: Vec::new(),
            new_files: false,
            state_file: None,
            manifest: Some(manifest),
            unlinks: Vec::new(),
            old_state_file: None,
            covered: self.durable,
            entries: 0,
            covered_end: self.durable_end,
            failed: self.failed,
        })
    }

    /// Ends a performed job, and raises the durable position accordingly.
    pub fn end_sync(&mut self, job: SyncJob) {
        if job.covered > self.durable {
            (self.durable, self.durable_end) = (job.covered, job.covered_end);
        }
        self.published.raise_durable(self.durable);
        if let Some(manifest) = job.manifest {
            self.published.note_durable(manifest.durable);
            self.noted = manifest;
        }
    }

    /// How soon the current durable position should be written to the manifest.
    pub fn urgency(&self) -> Urgency {
        if self.noted.durable >= self.durable || self.manifest_due {
            return Urgency::Nothing;
        }
        match self.published.unprotected_bytes() {
            bytes if bytes >= NOTE_BYTES => Urgency::Now,
            _ if self.vote_end > self.noted.durable && self.vote_end <= self.durable => Urgency::Vote,
            _ => Urgency::Quiet,
        }
    }

    /// Frees memory that only a busy log needs. Called when nothing was written for a second.
    pub fn rest(&mut self) {
        self.frames = FrameBatch::default();
        self.recent.rest(self.applied);
    }

    /// True if everything is synced.
    pub fn is_synced(&self) -> bool {
        self.dirty.is_empty() && !self.manifest_due && self.unlinks.is_empty()
    }

    /// Syncs everything, and writes a manifest whose durable position is the end of the log.
    ///
    /// # Errors
    /// [`StorageError`]; the next start recovers as after a crash.
    pub fn close(&mut self) -> Result<(), StorageError> {
        self.manifest_due = true;
        if let Some(job) = self.begin_sync() {
            job.perform(&self.disk)?;
            self.end_sync(job);
        }
        Ok(())
    }
}
