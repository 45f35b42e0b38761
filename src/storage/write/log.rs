//! One group's log on disk: the Raft log, which is the commit log, in append-only segments.
//!
//! `consensus` owns it under a mutex and appends. `log-writer` takes what has to be synced ([`GroupLog::begin_sync`]),
//! syncs it without the mutex, and hands the job back ([`GroupLog::end_sync`]). Readers share a view and do not lock
//! the log.
//!
//! Only [`GroupLog::create`], [`GroupLog::open`], [`GroupLog::close`] and [`GroupLog::truncate_suffix`], which reads,
//! wait for the disk. An appended entry is durable once a job that was taken after the append has been performed. After
//! an error the log refuses every operation, because the state of its files is unknown.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::descriptors::LogDescriptor;
use crate::storage::error::StorageError;
use crate::storage::faults::{Fault, broken};
use crate::storage::format::checkpoints::{Checkpoints, RecentEnds};
use crate::storage::format::entry::{ENTRY_BYTES_MAX, Entry};
use crate::storage::format::frame::{Header, Position, frame_bytes};
use crate::storage::format::manifest::Manifest;
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::storage::format::state::{
    Base, Bounds, ConfState, HardState, LogSnapshot, LogState, SealAge, StoredLogState,
};
use crate::storage::io::disk::{Disk, DiskFile};
use crate::storage::read::entries::locate;
use crate::storage::read::reader::GroupReader;
use crate::storage::read::view::{Part, Published, View};
use crate::storage::write::active::Active;
use crate::storage::write::frames::FrameBatch;
use crate::storage::write::state_files::{DiskRoom, StateFiles};
use crate::types::{GroupId, LogIndex, Offset, Term};

/// Frames are collected up to this size before they are written.
const BATCH_BYTES: usize = 1 << 20;
/// If a trim drops all records, it also seals the newest segment if its frames take at least this many bytes, or a
/// quarter of the segment size if that is less, so that the segment can be deleted.
const TRIM_ROLL_BYTES: u64 = 64 << 10;

/// One group's log, for the thread that appends to it.
pub struct GroupLog {
    pub(crate) disk: Disk,
    pub(crate) dir: PathBuf,
    pub(crate) group: GroupId,
    pub(crate) segment_bytes: u64,
    pub(crate) index_capacity: usize,
    pub(crate) published: Arc<Published>,
    pub(crate) active: Active,
    pub(crate) next_segment: u64,

    /// The end of the log.
    pub(crate) last: Base,
    pub(crate) last_time_us: u64,
    /// The first index of each run of entries with one term. The first run begins at the base.
    pub(crate) terms: Vec<(LogIndex, Term)>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) recent: RecentEnds,
    /// The last one that was appended.
    pub(crate) hard_state: HardState,
    pub(crate) conf_state: ConfState,
    pub(crate) conf_index: LogIndex,
    pub(crate) log_state: LogState,
    pub(crate) log_state_index: LogIndex,
    pub(crate) state_files: StateFiles,
    pub(crate) applied: LogIndex,
    pub(crate) differing: Option<LogIndex>,

    /// The durable position: everything up to here is synced.
    pub(crate) durable: Position,
    /// The last index below the durable position, and the next offset at that position.
    pub(crate) durable_end: (LogIndex, Offset),
    /// The manifest that is on the disk.
    pub(crate) noted: Manifest,
    /// The end of the frame with the newest term and vote.
    pub(crate) vote_end: Position,
    /// The log's clock, for the header of the next segment; 0: unknown.
    pub(crate) local_us: u64,

    pub(crate) dirty: BTreeMap<u64, Arc<DiskFile>>,
    pub(crate) new_files: bool,
    pub(crate) manifest_due: bool,
    pub(crate) unlinks: Vec<u64>,
    pub(crate) frames: FrameBatch,
    pub(crate) failed: bool,
    pub(crate) _descriptor: LogDescriptor,
}

impl GroupLog {
    /// Appends entries to the log, in a new segment if the newest one is full.
    ///
    /// # Errors
    /// [`StorageError`]; final for this log.
    ///
    /// # Panics
    /// If index, term or offset do not continue the log, or an entry is too large.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), StorageError> {
        self.append_ready(entries, None)
    }

    /// Appends a hard state without entries.
    ///
    /// # Errors
    /// [`StorageError`]; final for this log.
    ///
    /// # Panics
    /// If the commit index is above the last entry.
    pub fn append_hard_state(&mut self, hard_state: &HardState) -> Result<(), StorageError> {
        self.append_ready(&[], Some(hard_state))
    }

    /// Appends the entries of a Ready and then its hard state, with one write.
    ///
    /// # Errors
    /// [`StorageError`]; final for this log.
    ///
    /// # Panics
    /// As [`GroupLog::append`] and [`GroupLog::append_hard_state`].
    pub fn append_ready(&mut self, entries: &[Entry], hard_state: Option<&HardState>) -> Result<(), StorageError> {
        self.guarded(|log| {
            let file = log.active.position().file;
            let forgotten = broken(Fault::HardStateNotSynced) && entries.is_empty() && !log.dirty.contains_key(&file);
            let mut frames = std::mem::take(&mut log.frames);
            let result = log.append_frames(entries, hard_state, &mut frames);
            frames.clear();
            log.frames = frames;
            if forgotten {
                log.dirty.remove(&file);
            }
            result
        })
    }

    fn append_frames(
        &mut self,
        entries: &[Entry],
        hard_state: Option<&HardState>,
        frames: &mut FrameBatch,
    ) -> Result<(), StorageError> {
        for entry in entries {
            let header = Header::of_entry(entry, self.durable)?;
            assert_eq!(
                entry.index,
                self.last.index.next(),
                "an entry of group {} does not continue the log",
                self.group
            );
            assert!(entry.term >= self.last.term, "entry {} of group {} has an older term", entry.index, self.group);
            assert_eq!(header.base_offset, self.last.offset, "entry {} of group {}", entry.index, self.group);
            assert!(entry.data.len() <= ENTRY_BYTES_MAX, "entry {} of group {} is too large", entry.index, self.group);
            let payload = entry.payload();
            let end = self.active.position().at + (frames.bytes() + frame_bytes(payload.len())) as u64;
            let empty = self.active.position().at == SEGMENT_HEADER_BYTES && frames.bytes() == 0;
            let full = end > self.segment_bytes && !empty;
            if full || frames.bytes() >= BATCH_BYTES {
                self.write(frames)?;
                frames.clear();
            }
            if full {
                self.roll()?;
            }
            let position = self.active.position().at + frames.bytes() as u64;
            frames.push(self.active.segment.header.salt, position, &header, &payload);
            if entry.term > self.last.term {
                self.terms.push((entry.index, entry.term));
            }
            self.last = self.last.then_frame(&header, &payload)?;
            self.checkpoints.note(self.last);
            self.recent.note(self.last, self.applied);
            self.last_time_us = self.last_time_us.max(header.append_time_us);
        }
        if let Some(hard_state) = hard_state {
            assert!(hard_state.commit <= self.last.index, "a commit of group {} past the last entry", self.group);
            let (header, payload) = hard_state.to_frame(self.durable);
            let position = self.active.position().at + frames.bytes() as u64;
            frames.push_small(self.active.segment.header.salt, position, &header, &payload);
        }
        self.write(frames)?;
        if let Some(hard_state) = hard_state {
            if (hard_state.term, hard_state.vote) != (self.hard_state.term, self.hard_state.vote) {
                self.vote_end = self.active.position();
            }
            self.hard_state = *hard_state;
        }
        Ok(())
    }

    /// Removes the entries from `from` on. The log continues in a new segment, whose predecessor is the end of the
    /// entry before `from`. Segments with only removed entries are deleted by the sync job of the new segment, not
    /// earlier: until it is synced, the durable position is in the old segments.
    ///
    /// # Errors
    /// [`StorageError`]; final for this log.
    ///
    /// # Panics
    /// If an entry to be removed is committed, or does not exist.
    pub fn truncate_suffix(&mut self, from: LogIndex) -> Result<(), StorageError> {
        self.guarded(|log| {
            let view = log.published.view();
            assert!(from > view.base.index && from > log.hard_state.commit, "group {} would lose {from}", log.group);
            assert!(from <= log.last.index.next(), "group {} has no entry {from}", log.group);
            if from > log.last.index {
                return Ok(());
            }
            let kept = LogIndex(from.0 - 1);
            let near = log.recent.at(kept).copied().or_else(|| log.checkpoint_before(kept));
            let (part, at, last) = if kept == view.base.index {
                (0, SEGMENT_HEADER_BYTES, view.base)
            } else {
                locate(&log.published, &view, kept, near)?
            };
            log.terms.retain(|(first, _)| *first < from);
            log.checkpoints.truncate_suffix(from);
            log.recent.truncate_suffix(from);
            log.last = last;
            let predecessor = Position { file: view.parts[part].segment.header.number, at };
            let mut parts = view.parts[..=part].to_vec();
            parts[part].limit = Some(at);
            log.unlinks.extend(view.parts[part + 1..].iter().map(|p| p.segment.header.number));
            if broken(Fault::UnlinksAtOnce) {
                view.parts[part + 1..].iter().try_for_each(|p| log.disk.unlink(&p.segment.path()))?;
            }
            log.begin_segment(predecessor, View { base: view.base, parts })
        })
    }

    /// Drops the segments that contain only records below `first_offset`, and returns the new base. If that is all of
    /// them, the log continues in a new segment, so that a trim frees space on a full disk whatever the segment size.
    /// An entry is dropped only if it is applied and if the log state includes it ([`GroupLog::set_log_state`]),
    /// because a restart needs the others. The files are deleted by the sync job that writes the manifest without them,
    /// after a state file that includes them.
    ///
    /// # Errors
    /// [`StorageError`]; final for this log.
    pub fn trim(&mut self, first_offset: Offset, applied: LogIndex) -> Result<Base, StorageError> {
        self.guarded(|log| {
            log.applied = log.applied.max(applied);
            let seen = applied.min(log.log_state_index).min(log.hard_state.commit);
            let view = log.published.view();
            let room = DiskRoom::of(log.disk.space());
            let freed = |limit| view.bytes_below(first_offset, limit, log.last);
            let seen = log.state_files.trim_limit(seen, &log.log_state, room, freed);
            let written = log.active.position().at - SEGMENT_HEADER_BYTES;
            if log.last.offset <= first_offset
                && log.last.index <= seen
                && written >= TRIM_ROLL_BYTES.min(log.segment_bytes / 4)
            {
                // The newest segment contains no records to keep either.
                log.roll()?;
            }
            let seen = if broken(Fault::TrimBeyondApplied) { log.last.index } else { seen };
            let view = log.published.view();
            let keeps = |part: &Part| part.base().offset > first_offset || part.base().index > seen;
            let dropped = view.parts[1..].iter().position(keeps).unwrap_or(view.parts.len() - 1);
            if dropped == 0 {
                return Ok(view.base);
            }
            let base = view.parts[dropped].base();
            log.unlinks.extend(view.parts[..dropped].iter().map(|p| p.segment.header.number));
            log.published.publish(View { base, parts: view.parts[dropped..].to_vec() });
            log.terms.retain(|(first, _)| *first > base.index);
            log.terms.insert(0, (base.index, base.term));
            log.manifest_due = true;
            Ok(base)
        })
    }

    /// Replaces the whole log, which then begins after the snapshot. The hard state is appended with a commit index of
    /// at most the snapshot's; the caller appends a higher one after the entries that it commits.
    ///
    /// # Errors
    /// [`StorageError`]; final for this log.
    ///
    /// # Panics
    /// If the snapshot is older than what is committed here.
    pub fn install_snapshot(&mut self, snapshot: &LogSnapshot, hard_state: &HardState) -> Result<(), StorageError> {
        self.guarded(|log| {
            let view = log.published.view();
            let base = snapshot.base;
            assert!(
                base.index > view.base.index && base.index >= log.hard_state.commit,
                "an old snapshot: {snapshot:?}"
            );
            log.unlinks.extend(view.parts.iter().map(|p| p.segment.header.number));
            log.last = base;
            log.last_time_us = log.last_time_us.max(snapshot.log_state.last_append_time_us);
            log.terms = vec![(base.index, base.term)];
            log.checkpoints = Checkpoints::default();
            log.recent = RecentEnds::default();
            (log.conf_state, log.conf_index) = (snapshot.conf_state.clone(), snapshot.conf_index);
            log.state_files.set_void();
            log.set_log_state(snapshot.log_state.clone(), snapshot.log_state_index);
            log.applied = base.index;
            log.begin_segment(Position::default(), View { base, parts: Vec::new() })
        })?;
        self.append_hard_state(&HardState { commit: hard_state.commit.min(snapshot.base.index), ..*hard_state })
    }

    /// Sets the conf state; the next sync job writes it to the manifest.
    pub fn set_conf_state(&mut self, conf_state: ConfState, as_of: LogIndex) {
        (self.conf_state, self.conf_index) = (conf_state, as_of);
        self.manifest_due = true;
    }

    /// Sets the log state. The next manifest that is written contains it, except for the tables (`state_files.rs`).
    pub fn set_log_state(&mut self, log_state: LogState, as_of: LogIndex) {
        self.state_files.applied(&log_state, as_of);
        (self.log_state, self.log_state_index) = (log_state, as_of);
    }

    /// Sets the applied index. The next manifest that is written contains it.
    pub fn set_applied(&mut self, applied: LogIndex) {
        self.applied = self.applied.max(applied);
    }

    /// Notes that this replica differs from a leader's at this entry or an earlier one; `None` once both were found to
    /// be equal there. The next sync job writes it to the manifest.
    pub fn set_differing(&mut self, differing: Option<LogIndex>) {
        self.manifest_due |= self.differing != differing;
        self.differing = differing;
    }

    /// Sets the log's clock (`catalog/policy/ages.rs`), for the header of the next segment. It never decreases.
    pub fn set_local_time(&mut self, local_us: u64) {
        self.local_us = self.local_us.max(local_us);
    }

    /// Seals the newest segment if it is at least this old by the log's clock, or if its age is unknown. The next
    /// segment's header then proves that these entries have arrived by now, and after a crash the log's clock continues
    /// from that time. Returns true if the log has to be synced.
    ///
    /// # Errors
    /// [`StorageError`]; final for this log.
    pub fn end_old_segment(&mut self, age: SealAge) -> Result<bool, StorageError> {
        let header = &self.active.segment.header;
        let age_us = if self.last.index > header.base.index { age.used_us } else { age.empty_us };
        let young = header.begun_us != 0 && self.local_us.saturating_sub(header.begun_us) < age_us;
        if young || self.local_us == 0 || header.begun_us == self.local_us {
            return Ok(false);
        }
        self.guarded(GroupLog::roll)?;
        Ok(true)
    }

    /// A reader of this log, for other threads.
    pub fn reader(&self) -> GroupReader {
        GroupReader::new(self.published.clone())
    }

    /// Returns the beginning and the end of the log.
    pub fn bounds(&self) -> Bounds {
        let Base { index, term, offset, .. } = self.last;
        Bounds { base: self.published.view().base, last_index: index, last_term: term, next_offset: offset }
    }

    /// The end of the log: its last entry, the next offset and the running digest.
    pub fn last(&self) -> Base {
        self.last
    }

    /// The end of the log as of the entry at `index`, if no read is needed to determine it: for the newest entries, at
    /// a checkpoint, and at both ends of the log.
    pub fn known_at(&self, index: LogIndex) -> Option<Base> {
        let ends = [self.last, self.published.view().base];
        let known = self.recent.at(index).or_else(|| self.checkpoints.at(index));
        ends.iter().chain(known).find(|at| at.index == index).copied()
    }

    /// The last checkpoint before an entry.
    pub fn checkpoint_before(&self, index: LogIndex) -> Option<Base> {
        self.checkpoints.all().iter().rev().find(|at| at.index < index).copied()
    }

    /// The checkpoints of the running digest, at fixed indexes that all replicas share.
    pub fn checkpoints(&self) -> &[Base] {
        self.checkpoints.all()
    }

    /// Computes the digest at every entry from `applied` on; `tail` contains all entries after it. Recovery can't do
    /// this, because it reads only the segments from the durable position on, and `applied` may be in an older one.
    pub fn note_tail(&mut self, applied: LogIndex, tail: &[Entry]) {
        if self.recent.at(applied).is_some() {
            return;
        }
        let mut recent = RecentEnds::default();
        let start = match self.known_at(applied) {
            Some(start) => Ok(start),
            None => self.reader().end_at(applied, self.checkpoint_before(applied)),
        };
        let noted = start.and_then(|start| {
            recent.note(start, applied);
            tail.iter().try_fold(start, |at, entry| {
                let at = at.then(entry)?;
                recent.note(at, applied);
                Ok(at)
            })
        });
        match noted {
            Ok(last) if last == self.last => self.recent = recent,
            // Other checks report the damage. Without these digests, acknowledgements are late but correct.
            Ok(_) => log::warn!("group {}: the entries after {applied} do not lead to the log's end", self.group),
            Err(error) => log::warn!("group {}: no digests of the entries after {applied}: {error}", self.group),
        }
    }

    /// Bytes of the log's frames.
    pub fn stored_bytes(&self) -> u64 {
        self.published.view().stored_bytes()
    }

    /// Performs a change, unless an earlier change failed.
    fn guarded<T>(&mut self, act: impl FnOnce(&mut GroupLog) -> Result<T, StorageError>) -> Result<T, StorageError> {
        if self.failed {
            return Err(StorageError::Failed { path: self.dir.clone() });
        }
        // A panic leaves this set.
        self.failed = true;
        let result = act(self);
        self.failed = result.is_err();
        result
    }

    fn write(&mut self, frames: &FrameBatch) -> Result<(), StorageError> {
        if frames.bytes() == 0 {
            return Ok(());
        }
        self.active.append(frames, self.segment_bytes)?;
        self.state_files.appended(frames.bytes() as u64);
        self.dirty.insert(self.active.position().file, self.active.file.clone());
        Ok(())
    }

    /// Continues the log in a new segment.
    pub(crate) fn roll(&mut self) -> Result<(), StorageError> {
        let mut view = (*self.published.view()).clone();
        let predecessor = self.active.position();
        if let Some(last) = view.parts.last_mut() {
            last.limit = Some(predecessor.at);
        }
        self.begin_segment(predecessor, view)
    }

    /// Creates a new segment that continues the log after `kept`. The next sync job writes a manifest.
    fn begin_segment(&mut self, predecessor: Position, mut kept: View) -> Result<(), StorageError> {
        if broken(Fault::NumberUsedTwice) {
            self.next_segment = predecessor.file + 1;
        }
        let hard_state = if broken(Fault::HeaderWithoutHardState) { HardState::default() } else { self.hard_state };
        let header = SegmentHeader {
            group: self.group,
            number: self.next_segment,
            salt: self.disk.random()?,
            predecessor,
            base: self.last,
            time_before_us: self.last_time_us,
            hard_state,
            begun_us: self.local_us,
        };
        self.next_segment += 1;
        self.active.seal();
        self.active = Active::create(&self.disk, &self.dir, &header, self.index_capacity)?;
        self.dirty.insert(header.number, self.active.file.clone());
        self.new_files = true;
        self.manifest_due = true;
        kept.parts.push(Part { segment: self.active.segment.clone(), limit: None });
        self.published.publish(kept);
        Ok(())
    }

    /// The manifest to write once everything up to `durable` is synced.
    pub(crate) fn manifest(&self, durable: Position, durable_end: (LogIndex, Offset)) -> Manifest {
        let view = self.published.view();
        Manifest {
            group: self.group,
            base: view.base,
            first_segment: view.parts[0].segment.header.number,
            next_segment: self.next_segment,
            durable,
            durable_end,
            applied: self.applied,
            differing: self.differing,
            conf_state: self.conf_state.clone(),
            conf_index: self.conf_index,
            log_state: StoredLogState::new(&self.log_state, self.state_files.origin()),
            log_state_index: self.log_state_index,
            terms: self.terms.clone(),
            checkpoints: self.checkpoints.all().to_vec(),
        }
    }
}

#[cfg(test)]
mod damaged;
#[cfg(test)]
pub(crate) mod tests;
