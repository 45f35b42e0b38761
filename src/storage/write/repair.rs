//! Repair of a sealed segment whose bytes are damaged.
//!
//! ```text
//!  before:   header │ sound frames │ damaged bytes          │ sound frames │ end
//!  after:    header │ the same     │ entries of a peer, gap │ the same     │ end
//! ```
//!
//! 1. [`survey`] finds the damaged bytes, and which entries were there.
//! 2. The caller gets these entries from a peer.
//! 3. [`SegmentRepair::write`] writes the whole segment into a new file, checks it, syncs it, and renames it.
//! 4. [`reopen`] lets readers use the new file.
//!
//! The entries have the same bytes on every replica, so they take no more room than before. What is left of the damaged
//! bytes, which contained notes of this node, becomes a filler. So every other frame, and the end of the segment, keep
//! their positions, and no other file changes.
//!
//! **Nothing is trusted.** The running digest before and after the segment is in its own header and in the next one. The
//! new file takes the place of the old one only if its entries lead from one to the other, so a peer with other entries
//! can't change the log. A crash leaves either file whole; a start deletes an unfinished one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::error::StorageError;
use crate::storage::faults::{Fault, broken};
use crate::storage::format::entry::{ENTRY_BYTES_MAX, Entry};
use crate::storage::format::frame::{self, HEADER_BYTES, Header, NoteKind, Position, frame_bytes};
use crate::storage::format::manifest::MANIFEST;
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_number};
use crate::storage::format::state::Base;
use crate::storage::format::state_file::state_index;
use crate::storage::io::disk::{Access, Disk, DiskFile};
use crate::storage::read::index_file::index_path;
use crate::storage::read::reader::GroupReader;
use crate::storage::read::segment::Segment;
use crate::storage::read::view::Part;
use crate::storage::read::walk::{Walk, WalkError};
use crate::storage::write::log::GroupLog;
use crate::types::LogIndex;

const COPY_BYTES: usize = 1 << 20;

/// A damaged file of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DamagedFile {
    /// A segment that is not written any more, by its number.
    Sealed(u64),
    /// The newest segment.
    Newest,
    /// The manifest or a state file: the log has its contents in memory.
    Small(String),
    /// Another file of the node.
    OfNode(String),
}

/// Returns the damaged files of the group that the scrub or a read has found.
pub fn damaged_files(reader: &GroupReader) -> Vec<DamagedFile> {
    let ranges = reader.published().damages().list();
    if ranges.is_empty() {
        return Vec::new();
    }
    let view = reader.view();
    let files = ranges.into_iter().filter_map(|range| {
        let Some(number) = segment_number(&range.file) else {
            let is_of_group = range.file == MANIFEST || state_index(&range.file).is_some();
            return Some(if is_of_group { DamagedFile::Small(range.file) } else { DamagedFile::OfNode(range.file) });
        };
        let part = view.parts.iter().find(|part| part.segment.header.number == number)?;
        match part.limit {
            // The next segment, whose header is the evidence, must be on the disk.
            Some(_) => (number < reader.published().durable().file).then_some(DamagedFile::Sealed(number)),
            // What is not synced yet can't be damaged on the disk.
            None => (Position { file: number, at: range.position } < reader.published().durable())
                .then_some(DamagedFile::Newest),
        }
    });
    files.collect()
}

/// Forgets the known damage of a file, after it was written again.
pub fn forget(reader: &GroupReader, file: &str) {
    reader.published().damages().forget(file);
}

/// The damaged bytes of a sealed segment, and the entries that were there.
#[derive(Clone)]
pub struct SegmentRepair {
    reader: GroupReader,
    part: Part,
    /// The end of the log after this segment.
    next: Base,
    from: u64,
    to: u64,
    /// The end of the log before the first entry that is needed.
    pub before: Base,
    /// The first entry that is needed.
    pub low: LogIndex,
    /// The first entry after those that are needed; equal to `low` if only notes are damaged.
    pub high: LogIndex,
}

/// Why a segment was not repaired. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The entries are not those that this log had.
    #[error("these are not the entries that were stored: {0}")]
    OtherEntries(&'static str),
    /// The segment is not part of the log any more.
    #[error("the segment was removed meanwhile")]
    Removed,
    /// The disk can't be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Reads a sealed segment from the disk, and returns what has to be repaired; `None` if nothing is damaged, or the
/// segment is not part of the log any more.
///
/// # Errors
/// If a newer version has written to the segment, or the system has no descriptor or memory left.
pub fn survey(reader: &GroupReader, number: u64) -> Result<Option<SegmentRepair>, StorageError> {
    let view = reader.view();
    let Some(i) = view.parts.iter().position(|part| part.segment.header.number == number) else { return Ok(None) };
    let Some(next) = view.parts.get(i + 1).map(Part::base) else { return Ok(None) };
    let part = view.parts[i].clone();
    let (base, end) = (part.base(), part.end());
    let repair = |from, to, before: Base, high| {
        let low = before.index.next();
        let (reader, part) = (reader.clone(), part.clone());
        Ok(Some(SegmentRepair { reader, part, next, from, to, before, low, high }))
    };
    let all = || repair(SEGMENT_HEADER_BYTES, end, base, next.index.next());
    let file = match part.segment.disk().open_to_read(&part.segment.path()) {
        Ok(Some(file)) => file,
        Ok(None) => return all(),
        Err(error) if error.is_shortage() => return Err(error),
        Err(_) => return all(),
    };
    let mut last = base;
    let mut damaged: Option<(u64, Base)> = None;
    let (mut to, mut high, mut is_open, mut needs_high) = (end, next.index.next(), false, false);
    let mut walk = Walk::new(&file, part.segment.header.salt, SEGMENT_HEADER_BYTES, end, Access::Disk);
    loop {
        match walk.next() {
            Ok(None) => break,
            Ok(Some((at, frame))) => {
                if std::mem::take(&mut is_open) {
                    (to, needs_high) = (at, true);
                }
                if !frame.header.kind.is_entry() {
                    continue;
                }
                if std::mem::take(&mut needs_high) {
                    high = frame.header.index;
                }
                if damaged.is_none() {
                    last = last.then_frame(&frame.header, frame.payload)?;
                }
            }
            Err(WalkError::Newer(newer)) => return Err(newer.into()),
            Err(WalkError::Disk(error)) if error.is_shortage() => return Err(error),
            Err(WalkError::Bad { .. } | WalkError::Disk(_) | WalkError::NotCached) => {
                damaged.get_or_insert((walk.position(), last));
                (to, high, is_open, needs_high) = (end, next.index.next(), true, false);
                match walk.skip_bad() {
                    Ok(true) if walk.position() < end => {}
                    Err(WalkError::Disk(error)) if error.is_shortage() => return Err(error),
                    Ok(_) | Err(_) => break,
                }
            }
        }
    }
    match damaged {
        Some((from, before)) => repair(from, to, before, high),
        None if last != next => all(),
        None if has_header(&file, &part.segment.header) => Ok(None),
        // Only the header is damaged.
        None => repair(SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES, base, base.index.next()),
    }
}

fn has_header(file: &DiskFile, header: &SegmentHeader) -> bool {
    let mut bytes = Vec::new();
    let read = file.append_disk_at(0, SEGMENT_HEADER_BYTES as usize, &mut bytes);
    read.is_ok() && SegmentHeader::decode(&bytes).is_ok_and(|on_disk| on_disk == *header)
}

impl SegmentRepair {
    /// The number of the segment.
    pub fn number(&self) -> u64 {
        self.part.segment.header.number
    }

    /// Writes the segment with these entries in place of the damaged bytes. Blocks for the disk.
    ///
    /// # Errors
    /// [`RepairError`]; the damaged segment is unchanged then.
    pub fn write(&self, entries: &[Entry]) -> Result<(), RepairError> {
        let path = self.part.segment.path();
        let unfinished = path.with_extension("seg.tmp");
        let disk = self.part.segment.disk();
        let written = self.write_to(disk, &path, &unfinished, entries);
        if written.is_err() {
            // A start deletes what remains.
            let _ = disk.unlink(&unfinished);
        }
        written
    }

    fn write_to(&self, disk: &Disk, path: &Path, unfinished: &Path, entries: &[Entry]) -> Result<(), RepairError> {
        let dir = path.parent().map(PathBuf::from).unwrap_or_default();
        // For a moment both files take space. What the node must write itself comes first.
        if !disk.space().promise_to_leader(self.part.end()) {
            return Err(StorageError::DiskFull { file: unfinished.to_owned() }.into());
        }
        disk.unlink(unfinished)?;
        let file = disk.create(unfinished)?;
        file.write_at(0, &self.part.segment.header.encode())?;
        if self.from > SEGMENT_HEADER_BYTES || self.to < self.part.end() {
            let damaged = disk.open_to_read(path)?.ok_or(RepairError::Removed)?;
            copy(&damaged, &file, SEGMENT_HEADER_BYTES, self.from)?;
            copy(&damaged, &file, self.to, self.part.end())?;
        }
        self.write_entries(&file, entries)?;
        file.sync()?;
        if !broken(Fault::RepairUnverified) {
            self.check(&file)?;
        }
        // The replica may have been dropped, and its directory renamed: then the name of this file is gone with it.
        let published = self.reader.published();
        let was_trimmed = self.part.bytes() > 0 && !published.still_contains(&self.part, SEGMENT_HEADER_BYTES);
        if published.is_given_up() || was_trimmed {
            return Err(RepairError::Removed);
        }
        if broken(Fault::RepairNotRenamed) {
            disk.unlink(path)?;
        }
        disk.rename(unfinished, path)?;
        disk.sync_dir(&dir)?;
        // Some entries are at other positions now.
        disk.unlink(&index_path(&dir, self.number()))?;
        Ok(())
    }

    /// Writes the entries, and fillers up to the next sound frame.
    fn write_entries(&self, file: &DiskFile, entries: &[Entry]) -> Result<(), RepairError> {
        let salt = self.part.segment.header.salt;
        let mut at = self.from;
        let mut last = self.before;
        let mut frames = Vec::new();
        for entry in entries {
            let header =
                Header::of_entry(entry, Position::default()).map_err(|bad| RepairError::OtherEntries(bad.0))?;
            let payload = entry.payload();
            let continues = entry.index == last.index.next() && header.base_offset == last.offset;
            if (!continues || entry.term < last.term) && !broken(Fault::RepairUnverified) {
                return Err(RepairError::OtherEntries("they do not continue the log"));
            }
            if at + frame_bytes(payload.len()) as u64 > self.to {
                return Err(RepairError::OtherEntries("they are longer"));
            }
            last = last.then_frame(&header, &payload).map_err(|bad| RepairError::OtherEntries(bad.0))?;
            frames.clear();
            frame::encode(&mut frames, salt, at, &header, &payload);
            file.write_at(at, &frames)?;
            at += frames.len() as u64;
        }
        while at < self.to {
            let room = (self.to - at) as usize;
            if room < HEADER_BYTES {
                return Err(RepairError::OtherEntries("they have other lengths"));
            }
            // The rest is either empty or has room for another frame.
            let whole = room - HEADER_BYTES <= ENTRY_BYTES_MAX;
            let payload = if whole { room - HEADER_BYTES } else { ENTRY_BYTES_MAX - 2 * HEADER_BYTES };
            let header = Header::of_note(NoteKind::Filler, Position::default());
            frames.clear();
            frame::encode(&mut frames, salt, at, &header, &vec![0; payload / 8 * 8]);
            file.write_at(at, &frames)?;
            at += frames.len() as u64;
        }
        Ok(())
    }

    /// Checks every frame of the new file, and that its entries lead to the next segment.
    fn check(&self, file: &DiskFile) -> Result<(), RepairError> {
        let salt = self.part.segment.header.salt;
        let mut last = self.part.base();
        let mut walk = Walk::new(file, salt, SEGMENT_HEADER_BYTES, self.part.end(), Access::Blocking);
        loop {
            match walk.next() {
                Ok(None) => break,
                Ok(Some((_, frame))) if frame.header.kind.is_entry() => {
                    if frame.header.index != last.index.next() || frame.header.base_offset != last.offset {
                        return Err(RepairError::OtherEntries("an entry is missing"));
                    }
                    let next = last.then_frame(&frame.header, frame.payload);
                    last = next.map_err(|bad| RepairError::OtherEntries(bad.0))?;
                }
                Ok(Some(_)) => {}
                Err(WalkError::Disk(error)) => return Err(error.into()),
                Err(WalkError::Newer(newer)) => return Err(StorageError::from(newer).into()),
                Err(WalkError::Bad { what, .. }) => return Err(RepairError::OtherEntries(what)),
                Err(WalkError::NotCached) => return Err(RepairError::OtherEntries("they can't be read again")),
            }
        }
        match last == self.next {
            true => Ok(()),
            false => Err(RepairError::OtherEntries("their digest is not the one in the next segment")),
        }
    }
}

fn copy(from: &DiskFile, to: &DiskFile, begin: u64, end: u64) -> Result<(), StorageError> {
    let mut at = begin;
    let mut buffer = Vec::new();
    while at < end {
        buffer.clear();
        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(COPY_BYTES);
        let read = from.append_disk_at(at, wanted, &mut buffer)?;
        if read == 0 {
            return Err(StorageError::damaged(from.path(), at, "the file ends"));
        }
        to.write_at(at, &buffer)?;
        at += read as u64;
    }
    Ok(())
}

/// Lets readers use the file of a repaired segment.
pub fn reopen(log: &GroupLog, number: u64) {
    let mut view = (*log.published.view()).clone();
    let sealed = |part: &&mut Part| part.segment.header.number == number && part.limit.is_some();
    if let Some(part) = view.parts.iter_mut().find(sealed) {
        let segment = Segment::new(&log.disk, &log.dir, part.segment.header, log.index_capacity, part.end());
        let name = part.segment.path();
        part.segment = Arc::new(segment);
        log.published.publish(view);
        log.published.damages().forget(&name.file_name().unwrap_or_default().to_string_lossy());
    }
}

/// Ends the newest segment, so that it can be repaired. The caller syncs the log.
///
/// # Errors
/// [`StorageError`]; final for this log.
pub fn seal(log: &mut GroupLog) -> Result<(), StorageError> {
    if log.failed {
        return Err(StorageError::Failed { path: log.dir.clone() });
    }
    let sealed = log.roll();
    log.failed = sealed.is_err();
    sealed
}

/// Writes the manifest and the state file with the next sync, because one of them is damaged.
pub fn write_small_files(log: &mut GroupLog) {
    log.state_files.set_void();
    log.manifest_due = true;
}

/// Returns one of the damaged files.
#[cfg(test)]
pub fn damaged_file(reader: &GroupReader) -> Option<DamagedFile> {
    damaged_files(reader).into_iter().next()
}

#[cfg(test)]
pub(crate) mod tests;
