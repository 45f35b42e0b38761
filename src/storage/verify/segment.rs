//! Reads every frame of a segment, and reports each damaged byte range once, with the entries and records in it.

use std::path::Path;

use super::finding::{Finding, Severity, Unreadable};
use super::report::Report;
use crate::hash_chain::{ChainHash, ContentHash};
use crate::storage::error::StorageError;
use crate::storage::format::frame::{Frame, Position, frame_bytes};
use crate::storage::format::index::{INDEX_BYTES_MAX, Index, IndexEntry};
use crate::storage::format::payload::check_stamped;
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_path};
use crate::storage::format::state::Base;
use crate::storage::io::disk::{Access, Disk, DiskFile};
use crate::storage::io::group_files::{GroupFiles, written_after};
use crate::storage::read::index_file::index_path;
use crate::storage::read::walk::{Walk, WalkError};
use crate::storage::recover::chain::Ended;
use crate::types::{LogIndex, Offset};

/// Appended to a finding about damage at the log's end, because no later frame repeats the hard state.
pub(super) const VOTE_LOST: &str = "; a term and a vote may be lost";

/// A part of a segment that should be valid.
pub(super) struct Stretch {
    pub(super) header: SegmentHeader,
    /// Where the log continues in a newer segment; `None` if it ends with the frames of this one.
    pub(super) limit: Option<u64>,
}

/// A segment that was read.
pub(super) struct Walked {
    pub(super) header: SegmentHeader,
    pub(super) end: u64,
    pub(super) last: Base,
    pub(super) entries: u64,
    /// True if its end can't be read, or a newer version wrote it.
    pub(super) lost: bool,
    /// True if no damage was found in it, so that its running digest is meaningful.
    pub(super) sound: bool,
    /// The last committed entry according to its frames.
    pub(super) commit: LogIndex,
    /// The hash chain after the last entry.
    pub(super) chain: ChainState,
}

/// What is known of the hash chain at a place in a log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ChainState {
    /// The hash after the last entry; `None` if it is not known.
    pub(super) after: Option<ChainHash>,
    /// Whether the entries have a hash chain: all of a log, or none. `None` before the first one.
    pub(super) is_chained: Option<bool>,
}

/// Receives the valid entries of a log, in order, while they are checked.
pub(super) trait EntrySink {
    /// Called first, with the entry before the first one of the log and the last entry that is known to be committed.
    fn begin(&mut self, before: LogIndex, committed: LogIndex);
    /// Receives one entry. `is_after_damage` is true if something before it is damaged or was written by a newer
    /// version.
    fn entry(&mut self, frame: &Frame<'_>, is_after_damage: bool);
    /// Returns true if no more entries are needed, so that the rest is not checked.
    fn is_done(&self) -> bool;
    /// Returns false if the entries are ignored.
    fn needs_entries(&self) -> bool {
        true
    }
}

/// Ignores the entries.
pub(super) struct NoSink;

impl EntrySink for NoSink {
    fn begin(&mut self, _: LogIndex, _: LogIndex) {}
    fn entry(&mut self, _: &Frame<'_>, _: bool) {}
    fn is_done(&self) -> bool {
        false
    }
    fn needs_entries(&self) -> bool {
        false
    }
}

/// A byte range without valid entries.
struct Hole {
    from: u64,
    /// The first valid frame after it.
    end: u64,
    what: String,
}

/// Checks the segments of one group.
pub(super) struct SegmentCheck<'a> {
    pub(super) disk: &'a Disk,
    pub(super) report: &'a mut Report,
    pub(super) sink: &'a mut dyn EntrySink,
    /// The hash chain before the segment.
    pub(super) chain: ChainState,
}

impl SegmentCheck<'_> {
    /// Reads all frames of a stretch.
    pub(super) fn stretch(
        &mut self,
        files: &GroupFiles,
        stretch: &Stretch,
        durable: Position,
        next: Option<&SegmentHeader>,
    ) -> Result<Walked, StorageError> {
        let header = stretch.header;
        let path = segment_path(&files.dir, header.number);
        let mut state = Ended::before(&header, Vec::new());
        let mut walked = Walked {
            header,
            end: SEGMENT_HEADER_BYTES,
            last: header.base,
            entries: 0,
            lost: false,
            sound: true,
            commit: header.hard_state.commit,
            chain: self.chain,
        };
        let opened = match self.disk.open_to_read(&path) {
            Ok(Some(file)) => file.len().map(|bytes| (file, bytes)),
            Ok(None) => Err(StorageError::damaged(&path, 0, "the segment is missing")),
            Err(error) => Err(error),
        };
        let (file, bytes) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.report.add_error(error)?;
                return Ok(Walked { lost: true, ..walked });
            }
        };
        // The newest segment's index is rebuilt at every start.
        let mut index = if next.is_some() { self.index(files, &header)? } else { None };
        let end = stretch.limit.unwrap_or(bytes);
        // Everything before it was synced.
        let synced = stretch.limit.unwrap_or(if durable.file == header.number { durable.at } else { 0 });
        let mut walk = Walk::new(&file, header.salt, SEGMENT_HEADER_BYTES, end, Access::Blocking);
        // The holes since the last entry. The last one ends at the next valid entry, or at a frame of a newer version.
        let mut holes: Vec<Hole> = Vec::new();
        let mut is_open = false;
        // True if a frame of a newer version is directly before the next frame.
        let mut newer_before = false;
        while !self.sink.is_done() {
            let (position, what) = match walk.next() {
                Ok(None) if end < synced && holes.is_empty() => (end, "the file ends".to_owned()),
                Ok(None) => break,
                Ok(Some((at, frame))) => {
                    let is_entry = frame.header.kind.is_entry();
                    if is_entry {
                        let next = before_entry(&frame);
                        let is_after_gap = !holes.is_empty() || std::mem::take(&mut newer_before);
                        for hole in holes.drain(..) {
                            self.add_hole(&path, hole, Unreadable::between(&state.last, &next));
                        }
                        if is_after_gap {
                            (state.last, is_open, newer_before) = (next, false, false);
                            walked.chain.after = None;
                        }
                        walked.entries += 1;
                    }
                    let after = at + frame_bytes(frame.payload.len()) as u64;
                    let mut is_valid = true;
                    if let Err(what) = state.frame(&frame) {
                        (walked.sound, is_valid) = (false, false);
                        self.report.add(Finding::new(Severity::Damage, &path, at, what).up_to(after));
                        if is_entry {
                            // The entries after this one are compared with it.
                            state.last = before_entry(&frame);
                            let _ = state.frame(&frame);
                        }
                    }
                    walked.commit = walked.commit.max(state.hard_state.commit);
                    if let Err(what) = check_payload(&frame).and_then(|()| check_chain(&frame, &mut walked.chain)) {
                        (walked.sound, is_valid) = (false, false);
                        let unreadable =
                            is_entry.then(|| Unreadable::between(&before_entry(&frame), &after_entry(&frame)));
                        self.report.add(Finding::new(Severity::Damage, &path, at, what).up_to(after).with(unreadable));
                    }
                    if let Some(index) = &mut index {
                        index.note(at, &frame);
                    }
                    if is_entry && is_valid {
                        self.sink.entry(&frame, self.report.worst() >= Some(Severity::Format));
                    }
                    continue;
                }
                Err(WalkError::Newer(newer)) => {
                    // This frame may be an entry, so nothing after it can be compared with what precedes it.
                    let what = format!("{}; what follows is only partly checked", newer.kind);
                    self.report.add(Finding::new(Severity::Format, &path, newer.position, what).up_to(newer.end));
                    walk.skip_newer(&newer);
                    if let Some(index) = &mut index {
                        index.note_newer(newer.position, newer.end);
                    }
                    (walked.sound, newer_before, is_open) = (false, true, false);
                    continue;
                }
                Err(WalkError::Bad { position, what }) => (position, what.to_owned()),
                Err(WalkError::Disk(error)) => (walk.position(), error.to_string()),
                Err(WalkError::NotCached) => (walk.position(), "it can't be read".to_owned()),
            };
            // The newest segment has no known end. The log ends here if this is not below the durable position, or if
            // the durable position is in a newer segment and only zeros follow here.
            let below_durable = Position { file: header.number, at: position } < durable;
            let ends =
                || header.number != durable.file && written_after(&file, position).is_ok_and(|written| written == 0);
            if stretch.limit.is_none() && (!below_durable || ends()) {
                break;
            }
            walked.sound = false;
            // The index may lead to the damaged frame.
            index = None;
            newer_before = false;
            if !std::mem::replace(&mut is_open, true) {
                holes.push(Hole { from: position, end: 0, what });
            }
            let more = position < end && matches!(walk.skip_bad(), Ok(true));
            if let Some(hole) = holes.last_mut() {
                hole.end = if more { walk.position() } else { end.max(synced) };
            }
            if !more {
                break;
            }
        }
        walked.lost = !holes.is_empty() || newer_before;
        if let Some(index) = index {
            self.compared_index(files, &header, &file, end, index);
        }
        for mut hole in holes {
            let unreadable = match next.filter(|next| next.predecessor.file == header.number) {
                Some(next) => Unreadable::between(&state.last, &next.base),
                None if durable == files.manifest.durable
                    && durable.file == header.number
                    && hole.from < durable.at =>
                {
                    // Bytes after the durable position were never known to be synced.
                    hole.end = hole.end.min(durable.at);
                    hole.what += VOTE_LOST;
                    let (index, offset) = files.manifest.durable_end;
                    Unreadable::between(&state.last, &Base { index, offset, ..Base::default() })
                }
                None => Unreadable::after(&state.last),
            };
            self.add_hole(&path, hole, unreadable);
        }
        (walked.end, walked.last) = (walk.position().min(end), state.last);
        Ok(walked)
    }

    fn add_hole(&mut self, path: &Path, hole: Hole, unreadable: Unreadable) {
        let finding = Finding::new(Severity::Damage, path, hole.from, hole.what).up_to(hole.end);
        self.report.add(finding.with(Some(unreadable)));
    }

    /// Reads the index of a sealed segment, if it is valid.
    fn index(&mut self, files: &GroupFiles, header: &SegmentHeader) -> Result<Option<Noted>, StorageError> {
        let what = match self.disk.read(&index_path(&files.dir, header.number), INDEX_BYTES_MAX) {
            Ok(Some(bytes)) => match Index::decode(&bytes, header.salt) {
                Ok(entries) => return Ok(Some(Noted::new(entries))),
                Err(bad) => bad.to_string(),
            },
            Ok(None) => "is missing".to_owned(),
            Err(error) if error.is_shortage() => return Err(error),
            Err(StorageError::Io { error, .. }) => format!("can't be read ({error})"),
            Err(StorageError::Damaged { what, .. }) => format!("is not valid ({what})"),
            Err(_) => "is not valid".to_owned(),
        };
        self.wrong_index(files, header.number, &what);
        Ok(None)
    }

    /// Adds a finding if an index, which was compared with all frames of its segment below `end`, leads elsewhere. It is
    /// damage if a reader would find a frame there: no fault puts a frame with valid checksums between the others.
    fn compared_index(&mut self, files: &GroupFiles, header: &SegmentHeader, file: &DiskFile, end: u64, index: Noted) {
        if self.sink.is_done() {
            return;
        }
        let (elsewhere, is_wrong) = index.finish(end);
        let is_entry = |at: &u64| {
            let mut walk = Walk::new(file, header.salt, *at, end, Access::Blocking);
            matches!(walk.next(), Ok(Some((_, frame))) if frame.header.kind.is_entry())
        };
        if let Some(at) = elsewhere.into_iter().find(is_entry) {
            let what =
                "the index leads readers to an entry that is hidden between those of the log: the files were changed";
            let path = segment_path(&files.dir, header.number);
            self.report.add(Finding::new(Severity::Damage, &path, at, what));
        } else if is_wrong {
            self.wrong_index(files, header.number, "does not lead to the frames of its segment");
        }
    }

    /// Adds a note about a wrong index. An index is derived from its segment, so a wrong one only costs time.
    fn wrong_index(&mut self, files: &GroupFiles, number: u64, what: &str) {
        let what = format!("the index {what}: it is rebuilt when it is needed");
        self.report.add(Finding::new(Severity::Note, &index_path(&files.dir, number), 0, what));
    }
}

/// The entries of an index, in the order in which a walk over the segment reaches their frames.
struct Noted {
    entries: Vec<IndexEntry>,
    next: usize,
    /// The positions between the frames to which entries lead.
    elsewhere: Vec<u64>,
    /// True if an entry does not describe the frame at its position.
    is_wrong: bool,
}

impl Noted {
    fn new(entries: Vec<IndexEntry>) -> Noted {
        Noted { entries, next: 0, elsewhere: Vec::new(), is_wrong: false }
    }

    /// Compares the entries up to this frame with it.
    fn note(&mut self, at: u64, frame: &Frame<'_>) {
        self.pass(at);
        let Some(entry) = self.entries.get(self.next).filter(|entry| entry.position == at) else { return };
        let header = &frame.header;
        let found = IndexEntry {
            index: header.index.0,
            base_offset: header.base_offset.0,
            append_time_us: header.append_time_us,
            position: at,
        };
        self.is_wrong |= *entry != found || !header.kind.is_entry();
        self.next += 1;
    }

    /// Passes a frame of a newer version, which may have been indexed.
    fn note_newer(&mut self, at: u64, end: u64) {
        self.pass(at);
        if self.entries.get(self.next).is_some_and(|entry| entry.position == at) {
            self.next += 1;
        }
        self.pass(end);
    }

    /// Passes the entries before a position, which lead to no frame.
    fn pass(&mut self, before: u64) {
        while let Some(entry) = self.entries.get(self.next).filter(|entry| entry.position < before) {
            self.elsewhere.push(entry.position);
            self.next += 1;
        }
    }

    /// Returns the positions between the frames, and whether any entry is wrong. Entries of frames after the end are never
    /// used, because those frames were cut off.
    fn finish(mut self, end: u64) -> (Vec<u64>, bool) {
        self.pass(end);
        let is_wrong = self.is_wrong || !self.elsewhere.is_empty();
        (self.elsewhere, is_wrong)
    }
}

/// The end of the log before this frame's entry.
fn before_entry(frame: &Frame<'_>) -> Base {
    let header = &frame.header;
    let index = LogIndex(header.index.0.saturating_sub(1));
    // The digest is unknown after a gap, and is not compared there.
    Base { index, term: header.term, offset: header.base_offset, ..Base::default() }
}

/// The end of the log after this frame's entry.
fn after_entry(frame: &Frame<'_>) -> Base {
    let header = &frame.header;
    let offset = Offset(header.base_offset.0.saturating_add(u64::from(header.count)));
    Base { index: header.index, term: header.term, offset, ..Base::default() }
}

/// Checks that the hash chain in a frame is that of its records, and continues the one before. `chain` is the state before
/// the frame, and then the one after it.
fn check_chain(frame: &Frame<'_>, chain: &mut ChainState) -> Result<(), String> {
    if !frame.header.kind.is_records() {
        return Ok(());
    }
    let stored = frame.chain();
    if chain.is_chained.replace(stored.is_some()).is_some_and(|before| before != stored.is_some()) {
        return Err("only a part of the log has a hash chain: records were changed after they were appended".to_owned());
    }
    let Some(stored) = stored else { return Ok(()) };
    let before = chain.after.replace(stored.after);
    let end = after_entry(frame).offset.0;
    if !stored.fits(end, ContentHash::of(frame.records())) {
        return Err("the hash chain is not that of the records: they were changed after they were appended".to_owned());
    }
    match before {
        Some(before) if before != stored.before => {
            Err("the hash chain does not continue that of the entry before: records were changed or removed".to_owned())
        }
        Some(_) | None => Ok(()),
    }
}

/// Checks that the payload is one of the frame's kind (`entry.rs`).
fn check_payload(frame: &Frame<'_>) -> Result<(), String> {
    let header = &frame.header;
    if header.kind.is_records() {
        let (base, term, time) = (header.base_offset, header.term, header.append_time_us);
        check_stamped(frame.records(), base, term, time, header.count).map_err(|bad| bad.to_string())?;
    }
    if header.kind.payload().fits(frame.payload.len(), header.count) {
        Ok(())
    } else {
        Err(format!("the payload does not fit the frame's kind ({})", header.kind.code()))
    }
}
