//! Recovery: determines what a log's files contain after any kind of stop, before raft is started.
//!
//! 1. The directory is synced, and so is every segment from the one that contains the manifest's durable position on.
//!    Their pages are dropped from the page cache, and only then are they read: what raft is told to be durable must be
//!    on the disk.
//! 2. The durable position is the highest one in the manifest and in all valid frames, including frames after a bad
//!    one. A valid frame is recognized at any position, because its checksum depends on its segment and position.
//! 3. Of the segments whose chain back to the manifest's first segment is complete, the newest one is chosen. Index,
//!    term and offset must be continuous.
//!    - Below the durable position, any other state is damage. So is a durable position in a segment newer than the
//!      chosen one, and a commit index above the last entry.
//!    - Above it, the first bad frame ends the log. A segment whose chain breaks there is rejected, and the next older
//!      one is tried.
//!    - A segment that begins a log (for a snapshot) and that the manifest does not name is unfinished: its chain does
//!      not reach the manifest's first segment, so it is rejected like any other.
//!    - A valid frame of a newer version is never a bad frame. If there is one, nothing is cut off or rejected: the
//!      start is refused.
//! 4. The producers and the cursors are read from the state file that the manifest names, and the entries after it are
//!    applied to them ([`super::tables`]).
//! 5. If there are segments outside the chain, a manifest whose next segment number is above that of every segment is
//!    written. Then these segments are deleted, and the directory is synced. If anything but zeros follows the end, the
//!    log continues in a new segment.
//!
//! Nothing is changed before step 5, so damage can be inspected as it was found. After a crash in step 5 the next start
//! repeats it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::chain::{Break, Chain, Ended};
use super::tables;
use crate::descriptors::LogDescriptor;
use crate::storage::error::{NewerFrame, StorageError};
use crate::storage::faults::{Fault, broken};
use crate::storage::format::frame::Position;
use crate::storage::format::index::{self, Index};
use crate::storage::format::manifest::{MANIFEST, Manifest};
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, segment_number, segment_path};
use crate::storage::format::state::{Base, HardState, LogState, Recovered, TablesOrigin};
use crate::storage::format::state_file::state_index;
use crate::storage::io::disk::{Access, Disk};
use crate::storage::io::group_files::{GroupFiles, Purpose, group_dir, written_after};
use crate::storage::read::damage::span;
use crate::storage::read::index_file::index_path;
use crate::storage::read::segment::Segment;
use crate::storage::read::view::{Part, Published, View};
use crate::storage::read::walk::{Walk, WalkError};
use crate::storage::write::active::Active;
use crate::storage::write::frames::FrameBatch;
use crate::storage::write::log::GroupLog;
use crate::storage::write::options::LogOptions;
use crate::storage::write::state_files::{DiskRoom, StateFiles};
use crate::types::GroupId;

pub(crate) fn open(
    disk: &Disk,
    groups_dir: &Path,
    group: GroupId,
    options: &LogOptions,
) -> Result<(GroupLog, Recovered), StorageError> {
    let files = GroupFiles::read(disk, group_dir(groups_dir, group), group, Purpose::Recover)?;
    let (chain, ended) = Survey::of(&files)?.choose(&files)?;
    let end = Position { file: chain.newest(), at: ended.at };
    let (only_zeros_follow, torn_bytes) = look_after(&files, &chain, ended.at)?;
    if torn_bytes > 0 {
        let path = segment_path(&files.dir, end.file);
        log::warn!("{}: {torn_bytes} bytes after byte {} were never synced: cut off", path.display(), end.at);
    }

    let mut hard_state = ended.hard_state;
    if ended.last.term > hard_state.term && !broken(Fault::TermNotRaised) {
        hard_state = HardState { term: ended.last.term, vote: None, ..hard_state };
    }
    hard_state.commit = hard_state.commit.max(files.manifest.base.index);
    let restored = tables::restore(disk, &files, &chain, &ended)?;
    let manifest = &files.manifest;
    let applied = manifest.applied.min(hard_state.commit).max(manifest.base.index);
    let recovered = Recovered {
        hard_state,
        base: manifest.base,
        last_index: ended.last.index,
        last_term: ended.last.term,
        next_offset: ended.last.offset,
        last_append_time_us: ended.time_us,
        terms: ended.terms.clone(),
        conf_state: manifest.conf_state.clone(),
        conf_index: manifest.conf_index,
        log_state: LogState {
            first_offset: manifest.log_state.first_offset,
            last_append_time_us: manifest.log_state.last_append_time_us,
            tables: restored.tables,
        },
        log_state_index: manifest.log_state_index,
        applied: if broken(Fault::AppliedUnbounded) { manifest.applied } else { applied },
        differing: manifest.differing,
        torn_bytes,
    };
    let mut log = build(disk, &files, options, &chain, &ended, end, &recovered)?;
    log.state_files = StateFiles::new(restored.origin, restored.replayed_bytes.max(end.at), restored.file_bytes);
    if let Some(damage) = restored.damage {
        log::warn!("group {group}: its producers and cursors were restored from the log ({damage})");
        log.state_files.set_void();
    }
    finish(&mut log, &files, &chain, only_zeros_follow)?;
    Ok((log, recovered))
}

/// Steps 2 and 3. Without damage, they read every frame once: first the chain of the newest segment, then all remaining
/// frames, only for their durable positions.
pub(crate) struct Survey {
    /// The durable position, as far as this version can read the frames.
    pub(crate) durable: Position,
    newest: Option<Result<(Chain, Ended), Break>>,
    /// A frame of a newer version.
    newer: Option<NewerFrame>,
}

impl Survey {
    pub(crate) fn of(files: &GroupFiles) -> Result<Survey, StorageError> {
        let newest = match files.headers.keys().next_back().map(|newest| Chain::read(files, *newest)) {
            Some(Err(Break::Refused(error))) => return Err(error),
            other => other,
        };
        let (durable, newer) = match &newest {
            Some(Ok((_, ended))) => durable(files, ended.durable, &ended.read)?,
            _ => durable(files, Position::default(), &BTreeMap::new())?,
        };
        Ok(Survey { durable, newest, newer })
    }

    /// Chooses the newest segment: step 3.
    pub(crate) fn choose(mut self, files: &GroupFiles) -> Result<(Chain, Ended), StorageError> {
        let durable = self.durable;
        let damaged =
            |at: Position, what: String| Err(StorageError::damaged(&segment_path(&files.dir, at.file), at.at, what));
        for newest in files.headers.keys().rev().copied() {
            let (chain, ended) = match self.newest.take().unwrap_or_else(|| Chain::read(files, newest)) {
                Ok(found) => found,
                Err(Break::Refused(error)) => return Err(error),
                Err(Break::Newer(newer)) => return Err(newer.into()),
                Err(Break::At(at, what)) if at < durable => {
                    return damaged(
                        at,
                        format!("{what}, below byte {} of segment {}, the durable position", durable.at, durable.file),
                    );
                }
                Err(Break::At(at, what)) => {
                    self.refuse_newer()?;
                    let (path, of) = (segment_path(&files.dir, newest), segment_path(&files.dir, at.file));
                    log::warn!(
                        "{} was never synced ({} byte {}: {what}): rejected",
                        path.display(),
                        of.display(),
                        at.at
                    );
                    continue;
                }
            };
            if durable.file > newest && !broken(Fault::DurableInNewerIgnored) {
                let what = format!(
                    "the log was synced up to byte {} of this file, but the file is not part of the log",
                    durable.at
                );
                return damaged(Position { file: durable.file, at: 0 }, what);
            }
            let end = Position { file: newest, at: ended.at };
            if end < durable && (durable.file == newest || !broken(Fault::DurableInNewerIgnored)) {
                let lost = lost(&files.manifest, durable, &ended.last);
                return damaged(
                    end,
                    format!("{}, below byte {}, the durable position: {lost}", ended.what, durable.at),
                );
            }
            if ended.hard_state.commit > ended.last.index && !broken(Fault::CommitAboveEndTaken) {
                let (commit, last) = (ended.hard_state.commit, ended.last.index);
                return damaged(end, format!("entries up to {commit} are committed, but the log ends with {last}"));
            }
            self.refuse_newer()?;
            return Ok((chain, ended));
        }
        let first = Position { file: files.manifest.first_segment, at: 0 };
        damaged(first, "the log's first segment is missing".to_owned())
    }

    /// If a newer version has written to the log, this version must not decide where the log ends.
    fn refuse_newer(&mut self) -> Result<(), StorageError> {
        self.newer.take().map_or(Ok(()), |newer| Err(newer.into()))
    }
}

/// Describes what is missing between the end of the log and the durable position.
fn lost(manifest: &Manifest, durable: Position, last: &Base) -> String {
    let (index, offset) = manifest.durable_end;
    let (first, next) = (last.index.next(), last.offset);
    if durable > manifest.durable {
        // A frame contains the durable position, but not the last index and the next offset there.
        return format!("lost: the entries from {first} and the records from {next} up to that position");
    }
    let mut lost = Vec::new();
    if index > last.index {
        lost.push(span("entry", "entries", first.0, index.next().0));
    }
    if offset > next {
        lost.push(span("record", "records", next.0, offset.0));
    }
    lost.push("perhaps a term and a vote".to_owned());
    format!("lost: {}", lost.join(", "))
}

/// Step 2. Returns the highest of three durable positions: the manifest's; `seen`, the highest one in the frames up to
/// `read` in each segment; and the highest one in the frames after those. Also returns the first frame of a newer
/// version, whose durable position is not read.
fn durable(
    files: &GroupFiles,
    seen: Position,
    read: &BTreeMap<u64, u64>,
) -> Result<(Position, Option<NewerFrame>), StorageError> {
    if broken(Fault::DurableIgnored) {
        return Ok((Position::default(), None));
    }
    if broken(Fault::FrameDurableIgnored) {
        return Ok((files.manifest.durable, None));
    }
    let mut durable = files.manifest.durable.max(seen);
    let mut first_newer = None;
    for (number, file) in &files.open {
        let Some(Some(header)) = files.headers.get(number) else { continue };
        let from = read.get(number).copied().unwrap_or(SEGMENT_HEADER_BYTES);
        let mut walk = Walk::new(file, header.salt, from, file.len()?, Access::Blocking);
        loop {
            // A valid frame after a bad one may show that the bad one was synced, and so is not a torn tail.
            match walk.next() {
                Ok(Some((_, frame))) => durable = durable.max(frame.header.durable),
                Ok(None) => break,
                Err(WalkError::Disk(error)) => return Err(error),
                Err(WalkError::Newer(newer)) => {
                    walk.skip_newer(&newer);
                    first_newer.get_or_insert(newer);
                }
                Err(_) if broken(Fault::DurableAfterBadIgnored) => break,
                Err(WalkError::Bad { .. } | WalkError::NotCached) => {
                    let more = walk.skip_bad();
                    if let Some(error) = walk.unreadable() {
                        // The unreadable block may contain such a frame.
                        return Err(error);
                    }
                    match more {
                        Ok(true) => {}
                        Ok(false) | Err(WalkError::Bad { .. } | WalkError::NotCached | WalkError::Newer(_)) => break,
                        Err(WalkError::Disk(error)) => return Err(error),
                    }
                }
            }
        }
    }
    Ok((durable, first_newer))
}

/// Returns whether only zeros follow the end of the log, and how many bytes were written after it and in rejected
/// segments.
pub(crate) fn look_after(files: &GroupFiles, chain: &Chain, end: u64) -> Result<(bool, u64), StorageError> {
    let newest = chain.newest();
    let mut torn = 0;
    let mut zeros = true;
    for (number, file) in files.open.range(newest..) {
        let from = if *number == newest { end } else { 0 };
        let written = written_after(file, from)?;
        torn += written;
        zeros &= *number != newest || written == 0;
    }
    Ok((zeros, torn))
}

fn build(
    disk: &Disk,
    files: &GroupFiles,
    options: &LogOptions,
    chain: &Chain,
    ended: &Ended,
    end: Position,
    recovered: &Recovered,
) -> Result<GroupLog, StorageError> {
    let capacity = index::capacity(options.segment_bytes);
    let newest = chain.newest_header();
    let file = match files.open.get(&end.file) {
        Some(file) => file.clone(),
        None => Arc::new(disk.open(&segment_path(&files.dir, end.file))?),
    };
    let index = Index::new(capacity);
    ended.noted.iter().for_each(|(header, at)| index.push(header, *at));
    let active = Active::resume(disk, &files.dir, newest, capacity, file, index, end.at)?;
    let mut parts: Vec<Part> = Vec::new();
    for (header, limit) in chain.sealed() {
        let segment = Segment::new(disk, &files.dir, *header, capacity, limit);
        parts.push(Part { segment: Arc::new(segment), limit: Some(limit) });
    }
    parts.push(Part { segment: active.segment.clone(), limit: None });
    let next_segment = files.numbers.last().map_or(0, |n| n + 1).max(files.manifest.next_segment);
    let view = View { base: recovered.base, parts };
    Ok(GroupLog {
        disk: disk.clone(),
        dir: files.dir.clone(),
        group: files.manifest.group,
        segment_bytes: options.segment_bytes,
        index_capacity: capacity,
        published: Arc::new(Published::new(view.clone(), end, files.manifest.durable)),
        active,
        next_segment,
        last: ended.last,
        last_time_us: recovered.last_append_time_us,
        terms: recovered.terms.clone(),
        checkpoints: ended.checkpoints.clone(),
        recent: ended.recent.clone(),
        hard_state: recovered.hard_state,
        conf_state: recovered.conf_state.clone(),
        conf_index: recovered.conf_index,
        log_state: recovered.log_state.clone(),
        log_state_index: recovered.log_state_index,
        state_files: StateFiles::new(TablesOrigin::default(), 0, 0),
        applied: recovered.applied,
        differing: recovered.differing,
        // Everything that is part of the log was synced before it was read.
        durable: end,
        durable_end: (recovered.last_index, recovered.next_offset),
        noted: files.manifest.clone(),
        // The vote may be above the manifest's durable position.
        vote_end: end,
        // The log's clock continues at the time in the newest header.
        local_us: view.begun_us(),
        dirty: BTreeMap::new(),
        new_files: false,
        manifest_due: false,
        unlinks: Vec::new(),
        frames: FrameBatch::default(),
        failed: false,
        _descriptor: LogDescriptor::take(),
    })
}

/// Deletes what is not part of the log: step 5.
fn finish(log: &mut GroupLog, files: &GroupFiles, chain: &Chain, only_zeros_follow: bool) -> Result<(), StorageError> {
    // An older index file may contain frames that are cut off now.
    log.disk.unlink(&index_path(&files.dir, chain.newest()))?;
    let dead: Vec<u64> = files.numbers.iter().copied().filter(|n| !chain.contains(*n)).collect();
    if !dead.is_empty() {
        let manifest = log.manifest(log.durable, log.durable_end);
        log.disk.replace(&files.dir.join(MANIFEST), &manifest.encode())?;
        log.published.note_durable(manifest.durable);
        log.noted = manifest;
    }
    let dead_indexes = files.names.iter().filter_map(|name| {
        let number = segment_number(&format!("{}.seg", name.strip_suffix(".idx")?))?;
        (!chain.contains(number)).then_some(number)
    });
    let state_file = log.noted.log_state.state_file();
    let is_unused = |name: &str| {
        let is_other_state = state_index(name).is_some_and(|index| Some(index) != state_file || name.ends_with(".tmp"));
        name == "manifest.tmp" || name.ends_with(".seg.tmp") || is_other_state
    };
    let mut removed = false;
    for path in dead
        .iter()
        .map(|n| segment_path(&files.dir, *n))
        .chain(dead_indexes.map(|n| index_path(&files.dir, n)))
        .chain(files.names.iter().filter(|n| is_unused(n)).map(|n| files.dir.join(n)))
    {
        if !broken(Fault::RejectedStay) {
            log.disk.unlink(&path)?;
        }
        removed = true;
    }
    if removed && !broken(Fault::NoDirSyncAfterRejected) {
        log.disk.sync_dir(&files.dir)?;
    }
    if !only_zeros_follow && !broken(Fault::WritesOverTorn) {
        log.roll()?;
    }
    // A state file that was damaged is written again; on a full disk by the next sync that is needed anyway.
    let room = DiskRoom::of(log.disk.space());
    log.manifest_due |= log.state_files.is_void() && room.has(log.log_state.tables.encoded_bytes());
    if log.manifest_due
        && let Some(job) = log.begin_sync()
    {
        job.perform(&log.disk)?;
        log.end_sync(job);
    }
    Ok(())
}

#[cfg(test)]
mod damage;
#[cfg(test)]
mod evidence;
