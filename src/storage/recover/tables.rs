//! Restores the producers and the cursors of a log: from the state file that the manifest names, or from empty tables, and
//! from the entries after it.
//!
//! Tables that lack a change would let a retry be appended twice. So a state file that is damaged or missing is damage of
//! the whole replica, as with a manifest. The exception is a log that still has all its entries from the first one on:
//! they are all applied again, and the result is the same.

use std::path::Path;
use std::sync::Arc;

use super::chain::{Chain, Ended};
use crate::log_state::{Tables, TablesOrigin, apply_to_tables};
use crate::storage::error::{BadEntry, StorageError};
use crate::storage::faults::{Fault, broken};
#[cfg(test)]
use crate::storage::format::entry::Entry;
use crate::storage::format::entry::{EntryKind, Stamp};
use crate::storage::format::frame::{FrameKind, Header, frame_bytes};
use crate::storage::format::manifest::MANIFEST;
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_path};
use crate::storage::format::state::Base;
use crate::storage::format::state_change::state_change;
use crate::storage::format::state_file::{STATE_FILE_BYTES_MAX, StateFile, state_path};
use crate::storage::io::disk::{Access, Disk};
use crate::storage::io::group_files::GroupFiles;
use crate::storage::read::walk::{Walk, WalkError};
use crate::types::{GroupId, LogIndex, Term};

/// The tables of a recovered log.
pub(crate) struct RestoredTables {
    /// As of the manifest's log state.
    pub(crate) tables: Arc<Tables>,
    /// From where they come.
    pub(crate) origin: TablesOrigin,
    /// About the size of the state file; 0 without one.
    pub(crate) file_bytes: u64,
    /// The size of the entries that were applied again.
    pub(crate) replayed_bytes: u64,
    /// Why the state file can't be used, although the tables could be restored.
    pub(crate) damage: Option<StorageError>,
}

/// Restores the tables of a log. Reads only, and changes nothing.
pub(crate) fn restore(
    disk: &Disk,
    files: &GroupFiles,
    chain: &Chain,
    ended: &Ended,
) -> Result<RestoredTables, StorageError> {
    let manifest = &files.manifest;
    let (group, end) = (manifest.group, manifest.log_state_index);
    let mut restored = RestoredTables {
        tables: Arc::default(),
        origin: manifest.log_state.tables.unwrap_or(TablesOrigin { index: end, in_file: false }),
        file_bytes: 0,
        replayed_bytes: 0,
        damage: None,
    };
    if let Some(index) = manifest.log_state.state_file() {
        match read_state_file(disk, &files.dir, group, index) {
            Ok(state_file) => {
                restored.file_bytes = state_file.tables.encoded_bytes();
                restored.tables = state_file.tables;
            }
            Err(_) if broken(Fault::DamagedStateEmpty) => {}
            Err(error)
                if (error.is_damage() || error.is_unreadable())
                    && manifest.base.index <= Base::FIRST
                    && ended.last.index >= end =>
            {
                log::error!("{error}");
                log::warn!(
                    "group {group}: its producers and cursors are restored from all entries, which takes a while"
                );
                restored.origin = TablesOrigin { index: manifest.base.index, in_file: false };
                restored.damage = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    let mut next = restored.origin.index.next();
    if next > end || broken(Fault::StateNotReplayed) {
        return Ok(restored);
    }
    let stretches: Vec<(SegmentHeader, u64)> = chain.stretches(ended.at).collect();
    for (i, (header, limit)) in stretches.iter().enumerate() {
        let is_needed = stretches.get(i + 1).is_none_or(|(after, _)| after.base.index >= next);
        if is_needed && next <= end {
            replay_segment(disk, files, header, *limit, &mut next, &mut restored)?;
        }
    }
    if next > end {
        return Ok(restored);
    }
    let what = format!("the log state includes entries up to {end}, but the log does not contain entry {next}");
    Err(StorageError::damaged(&files.dir.join(MANIFEST), 104, what))
}

/// Applies the entries of a segment, from `next` up to that of the manifest's log state.
fn replay_segment(
    disk: &Disk,
    files: &GroupFiles,
    header: &SegmentHeader,
    limit: u64,
    next: &mut LogIndex,
    restored: &mut RestoredTables,
) -> Result<(), StorageError> {
    let (group, end) = (files.manifest.group, files.manifest.log_state_index);
    let path = segment_path(&files.dir, header.number);
    let file = disk.open_to_read(&path)?.ok_or_else(|| StorageError::damaged(&path, 0, "the segment is missing"))?;
    let depend = |what: &str| format!("{what}: the producers and cursors of the log depend on it");
    let mut walk = Walk::new(&file, header.salt, SEGMENT_HEADER_BYTES, limit, Access::Blocking);
    while *next <= end {
        let (position, frame) = match walk.next() {
            Ok(Some(found)) => found,
            Ok(None) => break,
            Err(WalkError::Disk(error)) => return Err(error),
            Err(WalkError::Newer(newer)) => return Err(newer.into()),
            Err(WalkError::Bad { position, what }) => return Err(StorageError::damaged(&path, position, depend(what))),
            Err(WalkError::NotCached) => return Err(StorageError::damaged(&path, walk.position(), "it can't be read")),
        };
        let FrameKind::Entry(kind) = frame.header.kind else { continue };
        if frame.header.index < *next {
            continue;
        }
        if frame.header.index > *next {
            let what = depend(&format!("entry {next} is missing"));
            return Err(StorageError::damaged(&path, position, what));
        }
        let (place, stamp) = ((frame.header.index, frame.header.term), stamp(&frame.header, kind));
        replay_entry(&mut restored.tables, group, place, &stamp, frame.payload)
            .map_err(|bad| StorageError::damaged(&path, position, depend(bad.0)))?;
        restored.replayed_bytes += frame_bytes(frame.payload.len()) as u64;
        *next = next.next();
    }
    Ok(())
}

fn stamp(header: &Header, kind: EntryKind) -> Stamp {
    let &Header { count, base_offset, append_time_us, producer_id, sequence, .. } = header;
    Stamp { kind, count, base_offset, append_time_us, producer_id, sequence }
}

/// Reads a state file that a manifest names.
///
/// # Errors
/// [`StorageError`]; a missing file is damage.
pub(crate) fn read_state_file(
    disk: &Disk,
    dir: &Path,
    group: GroupId,
    index: LogIndex,
) -> Result<StateFile, StorageError> {
    let path = state_path(dir, index);
    let loaded = disk.load(&path, STATE_FILE_BYTES_MAX, Access::Blocking, StateFile::decode)?;
    loaded.ok_or_else(|| StorageError::damaged(&path, 0, "the file is missing"))?.check(group, index, &path)
}

fn replay_entry(
    tables: &mut Arc<Tables>,
    group: GroupId,
    place: (LogIndex, Term),
    stamp: &Stamp,
    payload: &[u8],
) -> Result<(), BadEntry> {
    match stamp.kind {
        EntryKind::Noop | EntryKind::ConfChange => {}
        EntryKind::Records | EntryKind::ChainedRecords | EntryKind::State | EntryKind::Trim => {
            apply_to_tables(tables, place.0, &state_change(group, place, stamp, payload)?);
        }
    }
    Ok(())
}

/// Applies entries to tables.
///
/// # Errors
/// [`BadEntry`] for an entry that no leader appends.
#[cfg(test)]
pub(crate) fn replay(tables: &mut Arc<Tables>, group: GroupId, entries: &[Entry]) -> Result<(), BadEntry> {
    entries
        .iter()
        .try_for_each(|entry| replay_entry(tables, group, (entry.index, entry.term), &entry.stamp()?, &entry.payload()))
}
