//! What can still be read of a log that can't be opened, because its files are damaged. Nothing in its files is changed,
//! and nothing is appended.
//!
//! The manifest must be sound: it says where the log begins, and up to where it was synced. Only records of committed
//! entries are read: up to the highest commit index in the manifest, the segments' headers and the sound frames. A
//! damaged record fails like one that is found while the node runs. Nothing is read of a log that differed from a leader's
//! when it was last compared.

use std::path::Path;
use std::sync::Arc;

use super::chain::Chain;
use crate::storage::format::frame::{Frame, FrameKind, NoteKind, Position};
use crate::storage::format::index;
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_path};
use crate::storage::format::state::HardState;
use crate::storage::io::disk::{Access, Disk};
use crate::storage::io::group_files::{GroupFiles, Purpose, group_dir};
use crate::storage::read::reader::GroupReader;
use crate::storage::read::segment::Segment;
use crate::storage::read::view::{Part, Published, View};
use crate::storage::read::walk::{Walk, WalkError};
use crate::storage::write::options::LogOptions;
use crate::types::{GroupId, LogIndex, Offset};

/// A damaged log, for readers.
pub struct ReadableLog {
    /// Reads its records.
    pub reader: GroupReader,
    /// The first record that may be read.
    pub first_offset: Offset,
    /// The record after the last one that may be read.
    pub next_offset: Offset,
    /// The last entry that can be read and is committed.
    pub applied: LogIndex,
    /// The append time of the last record that may be read, or a later one, Unix microseconds.
    pub last_append_time_us: u64,
}

/// Returns what can be read of a damaged log; `None` if that is nothing.
pub fn open_readable(disk: &Disk, groups_dir: &Path, group: GroupId, options: &LogOptions) -> Option<ReadableLog> {
    let files = GroupFiles::read(disk, group_dir(groups_dir, group), group, Purpose::Look).ok()?;
    let manifest = &files.manifest;
    if manifest.differing.is_some() {
        return None;
    }
    // What is newer was not synced when the manifest was written.
    let numbers = files.headers.keys().rev().filter(|number| **number <= manifest.durable.file);
    let chain = numbers.copied().find_map(|number| Chain::back(&files, number).ok())?;
    let capacity = index::capacity(options.segment_bytes);
    let segment = |header: &SegmentHeader, end| Arc::new(Segment::new(disk, &files.dir, *header, capacity, end));
    let sealed = chain.sealed().map(|(header, limit)| Part { segment: segment(header, limit), limit: Some(limit) });
    let mut parts: Vec<Part> = sealed.collect();
    let newest = chain.newest_header();
    let end = match newest.number == manifest.durable.file {
        true => manifest.durable.at,
        // Where the next segment continues is in its header, which is damaged.
        false => {
            let file = disk.open_to_read(&segment_path(&files.dir, newest.number)).ok()??;
            file.len().unwrap_or(SEGMENT_HEADER_BYTES)
        }
    };
    parts.push(Part { segment: segment(newest, end), limit: None });
    let path = segment_path(&files.dir, newest.number);
    let walk = |visit: &mut dyn FnMut(&Frame<'_>)| walk_sound(disk, &path, newest.salt, end, visit);
    let mut commit = newest.hard_state.commit.max(manifest.applied).max(manifest.base.index);
    walk(&mut |frame| {
        if frame.header.kind == FrameKind::Note(NoteKind::HardState)
            && let Ok(hard_state) = HardState::of_frame(frame)
        {
            commit = commit.max(hard_state.commit);
        }
    });
    let mut last = None;
    walk(&mut |frame| {
        let header = &frame.header;
        if header.kind.is_entry() && header.index <= commit {
            last = Some((header.index, Offset(header.base_offset.0.saturating_add(u64::from(header.count)))));
        }
    });
    let end = Position { file: newest.number, at: end };
    let published = Published::new(View { base: manifest.base, parts: parts.clone() }, end, manifest.durable);
    let reader = GroupReader::new(Arc::new(published));
    let bases = parts.iter().rev().map(Part::base);
    let before = bases.into_iter().find(|base| base.index <= commit).unwrap_or(manifest.base);
    let (applied, next_offset) = last.unwrap_or((before.index, before.offset));
    let first_offset = manifest.log_state.first_offset.max(manifest.base.offset);
    (first_offset < next_offset).then_some(ReadableLog {
        reader,
        first_offset,
        next_offset,
        applied,
        last_append_time_us: manifest.log_state.last_append_time_us,
    })
}

/// Visits the sound frames of a segment.
fn walk_sound(disk: &Disk, path: &Path, salt: u64, end: u64, visit: &mut dyn FnMut(&Frame<'_>)) {
    let Ok(Some(file)) = disk.open_to_read(path) else { return };
    let mut walk = Walk::new(&file, salt, SEGMENT_HEADER_BYTES, end, Access::Blocking);
    loop {
        match walk.next() {
            Ok(None) | Err(WalkError::NotCached) => return,
            Ok(Some((_, frame))) => visit(&frame),
            Err(WalkError::Newer(newer)) => walk.skip_newer(&newer),
            Err(WalkError::Bad { .. } | WalkError::Disk(_)) => match walk.skip_bad() {
                Ok(true) => {}
                Ok(false) | Err(_) => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::format::state::Genesis;
    use crate::storage::io::disk::sim::Sim;
    use crate::storage::write::log::GroupLog;
    use crate::storage::write::log::tests::batch;
    use crate::types::{ReplicaId, Term};

    const GROUP: GroupId = GroupId(3);
    const OPTIONS: LogOptions = LogOptions { segment_bytes: 4096 };

    /// A log of 40 records, the last of which is not committed.
    fn filled() -> Sim {
        let (sim, groups) = (Sim::default(), Path::new("/groups"));
        sim.disk().create_dir(groups).expect("made");
        GroupLog::create(&sim.disk(), groups, GROUP, &OPTIONS, Genesis::founder(ReplicaId(5))).expect("made");
        let (mut log, _) = GroupLog::open(&sim.disk(), groups, GROUP, &OPTIONS).expect("opened");
        for n in 0..40_u8 {
            log.append(&[batch(&log, 1, &[&[n; 300]])]).expect("appended");
            let commit = LogIndex(log.last().index.0 - 1);
            log.append_hard_state(&HardState { term: Term(1), vote: None, commit }).expect("appended");
        }
        log.close().expect("closed");
        sim
    }

    fn readable(sim: &Sim) -> (Vec<u64>, Option<Offset>) {
        let Some(log) = open_readable(&sim.disk(), Path::new("/groups"), GROUP, &OPTIONS) else {
            return (Vec::new(), None);
        };
        let read = |offset: &u64| {
            let offset = Offset(*offset);
            log.reader
                .records(offset, log.next_offset, 1, 1 << 20, Access::Blocking)
                .is_ok_and(|read| read.next > offset)
        };
        ((log.first_offset.0..log.next_offset.0).filter(read).collect(), Some(log.next_offset))
    }

    fn damage(sim: &Sim, name: &str, change: impl Fn(&mut Vec<u8>)) {
        let path = Path::new("/groups/3").join(name);
        let mut bytes = sim.files().remove(&path).flatten().expect("a file");
        change(&mut bytes);
        sim.damage(&path, bytes);
    }

    #[test]
    fn sound_records_of_a_damaged_log_are_read() {
        let sim = filled();
        let before = sim.files();
        assert_eq!(readable(&sim), ((0..39).collect(), Some(Offset(39))), "only what is committed");
        let changed = sim.files().into_iter().filter(|(path, bytes)| before.get(path) != Some(bytes));
        assert!(changed.map(|(path, _)| path).all(|path| path.extension().is_some_and(|e| e == "idx")));
        // A record in the middle of a segment.
        damage(&sim, "00000000000000000001.seg", |bytes| bytes[1000] ^= 1);
        let (read, _) = readable(&sim);
        assert!(read.len() == 38 && read.contains(&38), "{read:?}");
        // The header of a segment: what is after it can't be found.
        damage(&sim, "00000000000000000002.seg", |bytes| bytes[..128].fill(0));
        let (read, _) = readable(&sim);
        assert!((5..38).contains(&read.len()), "{read:?}");
        damage(&sim, "manifest", |bytes| bytes[30] ^= 1);
        assert_eq!(readable(&sim), (Vec::new(), None));
    }

    /// Once, the records of a replica that differs were served again when it was damaged in addition.
    #[test]
    fn no_record_is_read_of_a_log_that_differs_from_a_leaders() {
        let sim = filled();
        let (mut log, _) = GroupLog::open(&sim.disk(), Path::new("/groups"), GROUP, &OPTIONS).expect("opened");
        log.set_differing(Some(LogIndex(7)));
        log.close().expect("closed");
        drop(log);
        assert_eq!(readable(&sim), (Vec::new(), None));
    }
}
