//! Recovery: what a log's files hold after a stop of any kind, decided before raft is built.
//!
//! 1. The directory and every segment from the one that holds the manifest's durable position on are synced, their pages dropped, and
//!    only then read: what raft is told to be on the disk must be there.
//! 2. The durable position is the highest of the manifest's and of all valid frames', those behind a bad one too: a checksum that knows
//!    its segment and position makes a frame known anywhere.
//! 3. The newest segment whose chain back to the manifest's first one is whole is taken; index, term and offset must
//!    continue. Below the durable position anything else is damage, and so is a durable position in a newer segment than the one taken, and a
//!    commit past the last entry. Above it the first bad frame ends the log; a segment whose chain breaks there is rejected
//!    and the next older one tried. A segment that begins a log (a snapshot's) and that the manifest does not name is
//!    unfinished: its chain does not reach the manifest's first, so it is rejected like any other.
//! 4. Segments outside the chain are removed, after a manifest that knows their numbers, and the directory synced. If
//!    anything but zeros follows the end, the log goes on in a new segment.
//!
//! Until step 4 nothing is changed, so damage can be looked at as it was found. A crash in here is met by doing it again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::chain::{Break, Chain, Ended};
use crate::storage::error::StorageError;
use crate::storage::faults::{Fault, broken};
use crate::storage::format::frame::Position;
use crate::storage::format::index::{self, Index};
use crate::storage::format::manifest::{MANIFEST, Manifest};
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, segment_number, segment_path};
use crate::storage::format::state::{Base, HardState, Recovered};
use crate::storage::io::disk::{Access, Disk};
use crate::storage::io::group_files::{GroupFiles, Purpose, group_dir, written_behind};
use crate::storage::read::index_file::index_path;
use crate::storage::read::segment::Segment;
use crate::storage::read::view::{Part, Published, View};
use crate::storage::read::walk::{Walk, WalkError};
use crate::storage::write::active::Active;
use crate::storage::write::frames::Frames;
use crate::storage::write::log::{GroupLog, LogOptions};
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
    let (zeros_behind, torn_bytes) = look_behind(&files, &chain, ended.at)?;
    if torn_bytes > 0 {
        let path = segment_path(&files.dir, end.file);
        log::warn!("{}: {torn_bytes} bytes behind byte {} were never synced: cut off", path.display(), end.at);
    }

    let mut hard_state = ended.hard_state;
    if ended.last.term > hard_state.term && !broken(Fault::TermNotRaised) {
        hard_state = HardState { term: ended.last.term, vote: None, ..hard_state };
    }
    hard_state.commit = hard_state.commit.max(files.manifest.base.index);
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
        log_state: manifest.log_state,
        log_state_index: manifest.log_state_index,
        applied: if broken(Fault::AppliedUnbounded) { manifest.applied } else { applied },
        differing: manifest.differing,
        torn_bytes,
    };
    let mut log = build(disk, &files, options, &chain, &ended, end, &recovered)?;
    finish(&mut log, &files, &chain, zeros_behind)?;
    Ok((log, recovered))
}

/// Steps 2 and 3. They read every frame once, if nothing is wrong: the newest segment's chain first, and only what it does
/// not reach is looked at for durable positions besides.
pub(crate) struct Survey {
    pub(crate) durable: Position,
    newest: Option<Result<(Chain, Ended), Break>>,
}

impl Survey {
    pub(crate) fn of(files: &GroupFiles) -> Result<Survey, StorageError> {
        let newest = match files.headers.keys().next_back().map(|newest| Chain::read(files, *newest)) {
            Some(Err(Break::Disk(error))) => return Err(error),
            other => other,
        };
        let durable = match &newest {
            Some(Ok((_, ended))) => durable(files, ended.durable, &ended.read)?,
            _ => durable(files, Position::default(), &BTreeMap::new())?,
        };
        Ok(Survey { durable, newest })
    }

    /// Step 3.
    pub(crate) fn choose(mut self, files: &GroupFiles) -> Result<(Chain, Ended), StorageError> {
        let durable = self.durable;
        let damaged =
            |at: Position, what: String| Err(StorageError::damaged(&segment_path(&files.dir, at.file), at.at, what));
        for newest in files.headers.keys().rev().copied() {
            let (chain, ended) = match self.newest.take().unwrap_or_else(|| Chain::read(files, newest)) {
                Ok(found) => found,
                Err(Break::Disk(error)) => return Err(error),
                Err(Break::At(at, what)) if at < durable => {
                    return damaged(
                        at,
                        format!("{what}, below byte {} of segment {}, the durable position", durable.at, durable.file),
                    );
                }
                Err(Break::At(at, what)) => {
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
            if ended.hard_state.commit > ended.last.index && !broken(Fault::CommitBehindEndTaken) {
                let (commit, last) = (ended.hard_state.commit, ended.last.index);
                return damaged(end, format!("entries up to {commit} are committed, but the log ends with {last}"));
            }
            return Ok((chain, ended));
        }
        let first = Position { file: files.manifest.first_segment, at: 0 };
        damaged(first, "the log's first segment is missing".to_owned())
    }
}

/// What is missing between the end that was found and the durable position.
fn lost(manifest: &Manifest, durable: Position, last: &Base) -> String {
    let (index, offset) = manifest.durable_end;
    let (first, next) = (last.index.next(), last.offset);
    if durable > manifest.durable {
        // A frame contains the durable position, but not the last index and the next offset there.
        return format!("lost: the entries from {first} and the records from {next} up to that position");
    }
    let mut lost = Vec::new();
    if index > last.index {
        lost.push(format!("entries {first} to {index}"));
    }
    if offset > next {
        lost.push(format!("records {next} to {}", offset.0 - 1));
    }
    lost.push("perhaps a term and a vote".to_owned());
    format!("lost: {}", lost.join(", "))
}

/// Step 2: the highest of the manifest's durable position, of `seen`, which is that of the frames up to `read` in each segment, and
/// of those behind.
fn durable(files: &GroupFiles, seen: Position, read: &BTreeMap<u64, u64>) -> Result<Position, StorageError> {
    if broken(Fault::DurableIgnored) {
        return Ok(Position::default());
    }
    if broken(Fault::FrameDurableIgnored) {
        return Ok(files.manifest.durable);
    }
    let mut durable = files.manifest.durable.max(seen);
    for (number, file) in &files.open {
        let Some(Some(header)) = files.headers.get(number) else { continue };
        let from = read.get(number).copied().unwrap_or(SEGMENT_HEADER_BYTES);
        let mut walk = Walk::new(file, header.salt, from, file.len()?, Access::Blocking);
        loop {
            // A valid frame behind a bad one tells that the bad one is no torn tail, if it was synced by then.
            match walk.next() {
                Ok(Some((_, frame))) => durable = durable.max(frame.header.durable),
                Ok(None) => break,
                Err(WalkError::Disk(error)) => return Err(error),
                Err(WalkError::Newer(newer)) => return Err(newer.into()),
                Err(_) if broken(Fault::DurableAfterBadIgnored) => break,
                Err(WalkError::Bad { .. } | WalkError::NotCached) => {
                    let more = walk.skip_bad();
                    if let Some(error) = walk.unreadable() {
                        // It may hold the frame that tells.
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
    Ok(durable)
}

/// Is there nothing but zeros behind the end? And how much was written once behind it and in rejected segments?
pub(crate) fn look_behind(files: &GroupFiles, chain: &Chain, end: u64) -> Result<(bool, u64), StorageError> {
    let newest = chain.newest();
    let mut torn = 0;
    let mut zeros = true;
    for (number, file) in files.open.range(newest..) {
        let from = if *number == newest { end } else { 0 };
        let written = written_behind(file, from)?;
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
    // What was written out of it once may know frames that are cut off now.
    disk.unlink(&index_path(&files.dir, newest.number))?;
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
        log_state: recovered.log_state,
        log_state_index: recovered.log_state_index,
        applied: recovered.applied,
        differing: recovered.differing,
        // Everything that is part of the log was synced before it was read.
        durable: end,
        durable_end: (recovered.last_index, recovered.next_offset),
        noted: files.manifest.clone(),
        // It may be among what the manifest does not protect yet.
        vote_end: end,
        // The log's clock continues where the newest header says that it was.
        local_us: view.begun_us(),
        dirty: BTreeMap::new(),
        new_files: false,
        manifest_due: false,
        unlinks: Vec::new(),
        frames: Frames::default(),
        failed: false,
    })
}

/// Step 4.
fn finish(log: &mut GroupLog, files: &GroupFiles, chain: &Chain, zeros_behind: bool) -> Result<(), StorageError> {
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
    let mut removed = false;
    for path in dead
        .iter()
        .map(|n| segment_path(&files.dir, *n))
        .chain(dead_indexes.map(|n| index_path(&files.dir, n)))
        .chain(files.names.iter().filter(|n| *n == "manifest.tmp").map(|n| files.dir.join(n)))
    {
        if !broken(Fault::RejectedStay) {
            log.disk.unlink(&path)?;
        }
        removed = true;
    }
    if removed && !broken(Fault::NoDirSyncAfterRejected) {
        log.disk.sync_dir(&files.dir)?;
    }
    if !zeros_behind && !broken(Fault::WritesOverTorn) {
        log.roll()?;
        if let Some(job) = log.begin_sync() {
            job.perform(&log.disk)?;
            log.end_sync(job);
        }
    }
    Ok(())
}

#[cfg(test)]
mod damage;
#[cfg(test)]
mod evidence;
