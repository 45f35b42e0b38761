//! Looks at the data directory of a stopped node, and changes nothing: what would a start find, and is every byte right?
//!
//! It sees with recovery's eyes (`recovery.rs`, `chain.rs`): the same floor, the same chain, the same line between a torn
//! tail, which a start cuts off, and damage, which it refuses. And it reads what a start does not: every frame of every
//! segment, the stamps of every record, the indexes. Recovery ends at the first damage; this tells of all.
//!
//! It takes the directory's lock, if the lock's file is there, so that no node runs meanwhile.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::chain::Ended;
use super::create::group_dir;
use super::disk::Disk;
use super::entry::Kind;
use super::error::StorageError;
use super::frame::{Frame, Position};
use super::index::{INDEX_BYTES_MAX, Index, IndexEntry, index_path};
use super::manifest::MANIFEST;
use super::node::{DataDir, NodeFile};
use super::payload::check_stamped;
use super::reader::Access;
use super::recovery::{Files, Purpose, Survey, look_behind, written_behind};
use super::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_number, segment_path};
use super::state::Base;
use super::walk::{Walk, WalkError};
use crate::types::{GroupId, LogIndex, Offset};

/// So many findings are told one by one; the rest is counted.
pub const FINDINGS_MAX: usize = 1000;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is wrong with it, or the next start mends it.
    Note,
    /// Written once, never known to be synced: the next start cuts it off.
    Torn,
    /// Synced once, and not now what was written: the next start, or a read of it, refuses.
    Damage,
}

/// Something that is not as it should be, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Which file.
    pub file: PathBuf,
    /// Where in it, bytes.
    pub position: u64,
    /// What.
    pub what: String,
}

/// What a group's files hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// Which group.
    pub group: GroupId,
    /// The first record that readers get.
    pub first_offset: Offset,
    /// The offset behind the last record; `None` when damage hides where the log ends.
    pub next_offset: Option<Offset>,
    /// The last entry, as far as it can be told.
    pub last_index: LogIndex,
    /// Entries that are whole.
    pub entries: u64,
    /// Segments that were read.
    pub segments: u64,
    /// Bytes of the log's frames.
    pub log_bytes: u64,
    /// Bytes of all files, reserved space and indexes too.
    pub file_bytes: u64,
    /// How many bytes the next start cuts off.
    pub torn_bytes: u64,
}

/// What was found in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The directory.
    pub data_dir: PathBuf,
    /// Whose it is; `None` when it is blank, or `node.toml` can't be read.
    pub node: Option<NodeFile>,
    /// Its groups, as far as they can be read at all.
    pub groups: Vec<GroupReport>,
    /// All that is to be said, by group and file.
    pub findings: Vec<Finding>,
    /// How much more was found than [`FINDINGS_MAX`].
    pub more: u64,
}

impl Report {
    /// The worst that was found; `None`: nothing at all.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    fn add(&mut self, severity: Severity, file: &Path, position: u64, what: impl Into<String>) {
        let told = |f: &Finding| f.severity == severity && f.file == file && f.position == position;
        if self.findings.len() >= FINDINGS_MAX {
            self.more += 1;
        } else if !self.findings.iter().any(told) {
            self.findings.push(Finding { severity, file: file.to_owned(), position, what: what.into() });
        }
    }

    /// An error that speaks about one file is a finding; the others end the look.
    fn add_error(&mut self, error: StorageError) -> Result<(), StorageError> {
        match error {
            StorageError::Damaged { file, position, what } => self.add(Severity::Damage, &file, position, what),
            StorageError::Io { action, file, error } => {
                self.add(Severity::Damage, &file, 0, format!("cannot {action} it: {error}"));
            }
            StorageError::DiskFull { .. }
            | StorageError::OtherFormat { .. }
            | StorageError::ForeignDirectory { .. }
            | StorageError::InUse { .. }
            | StorageError::NotBlank { .. }
            | StorageError::BadEntry(_)
            | StorageError::Failed { .. } => return Err(error),
        }
        Ok(())
    }
}

/// Looks at a data directory.
///
/// # Errors
/// [`StorageError::InUse`], [`StorageError::ForeignDirectory`], [`StorageError::OtherFormat`], or that there is none.
pub fn verify(disk: &Disk, path: &Path) -> Result<Report, StorageError> {
    let data_dir = DataDir::look(disk, path)?;
    let mut report =
        Report { data_dir: path.to_owned(), node: None, groups: Vec::new(), findings: Vec::new(), more: 0 };
    match data_dir.check().and_then(|()| data_dir.load()) {
        Ok(node) => report.node = node,
        Err(error) => report.add_error(error)?,
    }
    let groups_dir = data_dir.groups_dir();
    let names = match disk.list(&groups_dir) {
        Ok(names) => names.unwrap_or_default(),
        Err(error) => {
            report.add_error(error)?;
            Vec::new()
        }
    };
    let there: BTreeSet<GroupId> = names.iter().filter_map(|name| name.parse().ok().map(GroupId)).collect();
    let listed: BTreeSet<GroupId> = match &report.node {
        Some(node) => node.groups.iter().copied().collect(),
        None => there.clone(),
    };
    for group in &listed {
        Look { disk, report: &mut report, group: *group }.run(group_dir(&groups_dir, *group))?;
    }
    for group in there.difference(&listed) {
        let what =
            "this group is not listed in node.toml: it was made and never used; the node uses it or makes it anew";
        report.add(Severity::Note, &group_dir(&groups_dir, *group), 0, what);
    }
    Ok(report)
}

/// A look at one group.
struct Look<'a> {
    disk: &'a Disk,
    report: &'a mut Report,
    group: GroupId,
}

/// A part of a segment that should be whole.
struct Stretch {
    header: SegmentHeader,
    /// The log goes on elsewhere from here; `None`: it ends where its frames do.
    limit: Option<u64>,
}

/// What a walk over a stretch has seen.
struct Seen {
    end: u64,
    last: Base,
    entries: u64,
    /// It ended amid something that can't be read.
    lost: bool,
    /// No damage was found in it, so its running digest is meaningful.
    sound: bool,
}

impl Look<'_> {
    fn run(mut self, dir: PathBuf) -> Result<(), StorageError> {
        let mut files = match Files::read(self.disk, dir, self.group, Purpose::Look) {
            Ok(files) => files,
            Err(error) => return self.report.add_error(error),
        };
        std::mem::take(&mut files.unreadable).into_iter().try_for_each(|error| self.report.add_error(error))?;
        let mut torn_bytes = 0;
        let (floor, chosen) = match Survey::of(&files) {
            Ok(survey) => (survey.floor, survey.choose(&files)),
            Err(error) => (files.manifest.floor, Err(error)),
        };
        let (stretches, next_offset) = match chosen {
            Ok((chain, ended)) => {
                let newest = segment_path(&files.dir, chain.newest());
                match look_behind(&files, &chain, ended.at) {
                    Ok((_, 0)) => {}
                    Ok((_, torn)) => {
                        torn_bytes = torn;
                        let what = format!(
                            "{torn} bytes from here on, in this and newer segments, were never known to be synced ({}): \
                             the next start cuts them off",
                            ended.what
                        );
                        self.report.add(Severity::Torn, &newest, ended.at, what);
                    }
                    Err(error) => self.report.add_error(error)?,
                }
                for number in files.numbers.iter().filter(|number| !chain.contains(**number)) {
                    let what = "this segment is not part of the log any more: the next start removes it";
                    self.report.add(Severity::Note, &segment_path(&files.dir, *number), 0, what);
                }
                let stretches: Vec<Stretch> =
                    chain.stretches(ended.at).map(|(header, end)| Stretch { header, limit: Some(end) }).collect();
                (stretches, Some(ended.last.offset))
            }
            Err(error) => {
                self.report.add_error(error)?;
                self.gaps(&files);
                (by_headers(&files), None)
            }
        };
        let mut group = GroupReport {
            group: self.group,
            first_offset: files.manifest.derived.first_offset.max(files.manifest.base.offset),
            next_offset,
            last_index: files.manifest.base.index,
            entries: 0,
            segments: 0,
            log_bytes: 0,
            file_bytes: self.file_bytes(&files),
            torn_bytes,
        };
        self.names(&files);
        let mut before: Option<(u64, Seen)> = None;
        for (i, stretch) in stretches.iter().enumerate() {
            let header = &stretch.header;
            if let Some((number, seen)) = before.filter(|(_, seen)| !seen.lost) {
                let place = |base: &Base| (base.index, base.term, base.offset);
                if place(&seen.last) != place(&header.base) {
                    self.missing_between(&files, number, header, &seen.last);
                } else if seen.sound && seen.last.digest != header.base.digest {
                    let what = "the running digest is not that of the entries before this segment";
                    self.report.add(Severity::Damage, &segment_path(&files.dir, header.number), 112, what);
                }
            }
            let next = stretches.get(i + 1).map(|next| &next.header);
            let seen = self.stretch(&files, stretch, floor, next)?;
            group.segments += 1;
            group.entries += seen.entries;
            group.log_bytes += seen.end.saturating_sub(SEGMENT_HEADER_BYTES);
            group.last_index = group.last_index.max(seen.last.index);
            before = Some((header.number, seen));
        }
        self.report.groups.push(group);
        Ok(())
    }

    /// The bytes of all files of a group; a file whose size can't be determined counts as 0.
    fn file_bytes(&self, files: &Files) -> u64 {
        let bytes = |name| self.disk.file_bytes(&files.dir.join(name)).ok().flatten().unwrap_or(0);
        files.names.iter().map(bytes).sum()
    }

    /// Names that the log does not use.
    fn names(&mut self, files: &Files) {
        for name in files.names.iter().filter(|name| *name != MANIFEST && segment_number(name).is_none()) {
            let number = name.strip_suffix(".idx").and_then(|stem| segment_number(&format!("{stem}.seg")));
            let what = match number {
                Some(number) if files.numbers.contains(&number) => continue,
                Some(_) => "an index without its segment: the next start removes it",
                None if name == "manifest.tmp" => "a manifest that was not finished: the next start removes it",
                None => "not a file of this log: it is left alone",
            };
            self.report.add(Severity::Note, &files.dir.join(name), 0, what);
        }
    }

    /// Reads all frames of a stretch.
    fn stretch(
        &mut self,
        files: &Files,
        stretch: &Stretch,
        floor: Position,
        next: Option<&SegmentHeader>,
    ) -> Result<Seen, StorageError> {
        let header = &stretch.header;
        let path = segment_path(&files.dir, header.number);
        let mut state = Ended::before(header, Vec::new());
        let mut seen = Seen { end: SEGMENT_HEADER_BYTES, last: header.base, entries: 0, lost: false, sound: true };
        let opened = match self.disk.open_to_read(&path) {
            Ok(Some(file)) => file.len().map(|bytes| (file, bytes)),
            Ok(None) => Err(StorageError::damaged(&path, 0, "the segment is missing")),
            Err(error) => Err(error),
        };
        let (file, bytes) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.report.add_error(error)?;
                return Ok(Seen { lost: true, ..seen });
            }
        };
        // The newest segment's index is rebuilt at every start.
        let mut index = if next.is_some() { self.index(files, header)? } else { None };
        let end = stretch.limit.unwrap_or(bytes);
        let mut walk = Walk::new(&file, header.salt, SEGMENT_HEADER_BYTES, end, Access::Blocking);
        let mut hole: Option<u64> = None;
        loop {
            let (position, what) = match walk.next() {
                Ok(None) => break,
                Ok(Some((at, frame))) => {
                    if frame.header.kind.is_entry() {
                        if let Some(from) = hole.take() {
                            self.lost(&path, from, at, &state.last, Some(&before_entry(&frame)));
                            state.last = before_entry(&frame);
                        }
                        seen.entries += 1;
                    }
                    if let Err(what) = state.frame(&frame) {
                        seen.sound = false;
                        self.report.add(Severity::Damage, &path, at, what);
                        if frame.header.kind.is_entry() {
                            // Once more, now that it is taken as it is.
                            state.last = before_entry(&frame);
                            let _ = state.frame(&frame);
                        }
                    }
                    if let Err(what) = check_payload(&frame) {
                        seen.sound = false;
                        self.report.add(Severity::Damage, &path, at, what);
                    }
                    if index.as_mut().is_some_and(|index| !index.agrees(at, &frame)) {
                        index = None;
                        self.wrong_index(files, header.number, "does not lead to the frames of its segment");
                    }
                    continue;
                }
                Err(WalkError::Bad { position, what }) => (position, what.to_owned()),
                Err(WalkError::Disk(error)) => (walk.position(), error.to_string()),
                Err(WalkError::NotCached) => (walk.position(), "it can't be read".to_owned()),
            };
            // The newest segment has no known end: the log ends here if this is not below the floor, or if only zeros follow.
            let below_floor = Position { file: header.number, at: position } < floor;
            let ends =
                || header.number != floor.file && written_behind(&file, position).is_ok_and(|written| written == 0);
            if stretch.limit.is_none() && (!below_floor || ends()) {
                break;
            }
            seen.sound = false;
            self.report.add(Severity::Damage, &path, position, what);
            hole = hole.or(Some(position));
            match walk.skip_bad() {
                Ok(true) => {}
                Ok(false) | Err(WalkError::Disk(_) | WalkError::Bad { .. } | WalkError::NotCached) => break,
            }
        }
        if let Some(from) = hole {
            let behind = next.filter(|next| next.predecessor.file == header.number).map(|next| &next.base);
            self.lost(&path, from, end, &state.last, behind);
        }
        if index.is_some_and(|index| !index.is_done(end)) && hole.is_none() {
            self.wrong_index(files, header.number, "leads to where no frame is");
        }
        (seen.end, seen.last, seen.lost) = (walk.position().min(end), state.last, hole.is_some());
        Ok(seen)
    }

    /// Adds the lost entries and records to a finding, now that the next valid frame, if any, is known.
    fn lost(&mut self, path: &Path, from: u64, at: u64, before: &Base, behind: Option<&Base>) {
        let Some(finding) = self.report.findings.iter_mut().find(|f| f.file == path && f.position == from) else {
            return;
        };
        match behind {
            Some(behind) if behind.index <= before.index => {}
            Some(behind) => finding.what += &format!("; up to byte {at}: {}", between(before, behind)),
            None => {
                finding.what += &format!(
                    "; no later frame shows what is lost: possibly entries from {} and records from {} on",
                    before.index.next(),
                    before.offset
                );
            }
        }
    }

    /// What the index of a sealed segment says, if it is whole.
    fn index(&mut self, files: &Files, header: &SegmentHeader) -> Result<Option<Noted>, StorageError> {
        let what = match self.disk.read(&index_path(&files.dir, header.number), INDEX_BYTES_MAX) {
            Ok(Some(bytes)) => match Index::decode(&bytes, header.salt) {
                Some(entries) => return Ok(Some(Noted { entries, next: 0 })),
                None => "is not whole".to_owned(),
            },
            Ok(None) => "is missing".to_owned(),
            Err(error) if error.is_shortage() => return Err(error),
            Err(StorageError::Io { error, .. }) => format!("can't be read ({error})"),
            Err(_) => "is not whole".to_owned(),
        };
        self.wrong_index(files, header.number, &what);
        Ok(None)
    }

    /// An index is derived: a wrong one costs time, and nothing else.
    fn wrong_index(&mut self, files: &Files, number: u64, what: &str) {
        let what = format!("the index {what}: it is made anew when it is needed");
        self.report.add(Severity::Note, &index_path(&files.dir, number), 0, what);
    }
}

/// The entries of an index, as a walk over the segment meets their frames.
struct Noted {
    entries: Vec<IndexEntry>,
    next: usize,
}

impl Noted {
    fn agrees(&mut self, at: u64, frame: &Frame<'_>) -> bool {
        let Some(entry) = self.entries.get(self.next).filter(|entry| entry.position <= at) else { return true };
        self.next += 1;
        let header = &frame.header;
        let found = IndexEntry {
            index: header.index.0,
            base_offset: header.base_offset.0,
            append_time_us: header.append_time_us,
            position: at,
        };
        *entry == found && header.kind.is_entry()
    }

    /// What it notes behind the end was cut off since: nobody goes there.
    fn is_done(&self, end: u64) -> bool {
        self.entries[self.next..].iter().all(|entry| entry.position >= end)
    }
}

/// The entry before this frame's.
fn before_entry(frame: &Frame<'_>) -> Base {
    let header = &frame.header;
    let index = LogIndex(header.index.0.saturating_sub(1));
    // The digest is unknown after a gap, and is not compared there.
    Base { index, term: header.term, offset: header.base_offset, ..Base::default() }
}

/// Is the payload what its kind says (`entry.rs` draws them)?
fn check_payload(frame: &Frame<'_>) -> Result<(), String> {
    let header = &frame.header;
    let bytes = frame.payload.len();
    let good = match header.kind {
        Kind::Records => {
            let (base, term, time) = (header.base_offset, header.term, header.append_time_us);
            return check_stamped(frame.payload, base, term, time, header.count).map_err(|bad| bad.to_string());
        }
        Kind::Noop | Kind::Synced => bytes == 0,
        Kind::ConfChange => bytes == 16,
        Kind::Trim | Kind::HardState => bytes == 8,
        Kind::Filler => true,
    };
    if good && header.count == 0 { Ok(()) } else { Err(format!("a payload that is none of a {:?}", header.kind)) }
}

/// Where the chain can't be told: each segment by itself, up to where a newer one says that it goes on.
fn by_headers(files: &Files) -> Vec<Stretch> {
    let headers = || files.headers.values().flatten();
    let limit = |number| {
        let ends = headers().map(|h| h.predecessor).filter(|p| p.file == number && p.at >= SEGMENT_HEADER_BYTES);
        ends.map(|p| p.at).max()
    };
    headers().map(|header| Stretch { header: *header, limit: limit(header.number) }).collect()
}

/// The entries and records between two places in the log.
fn between(before: &Base, behind: &Base) -> String {
    let mut text = format!("entries {} to {}", before.index.next(), behind.index);
    if behind.offset > before.offset {
        text += &format!(", records {} to {}", before.offset, behind.offset.0 - 1);
    }
    text
}

mod gaps;
#[cfg(test)]
mod tests;
