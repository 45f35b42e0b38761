//! Checks one group: finds the chain of its segments as a start does, then reads all segments.

use std::path::PathBuf;

use super::files::{FileCheck, Readable};
use super::finding::{Finding, Severity};
use super::gaps::{Gone, add_gone, add_jump, gone};
use super::report::{GroupReport, Report};
use super::segment::{ChainState, EntrySink, NoSink, SegmentCheck, Stretch, Walked};
use crate::hash_chain::ChainHash;
use crate::storage::error::{NewerFrame, StorageError};
use crate::storage::format::frame::Position;
use crate::storage::format::manifest::MANIFEST;
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_number, segment_path};
use crate::storage::format::state::Base;
use crate::storage::format::state_file::state_index;
use crate::storage::io::disk::Disk;
use crate::storage::io::group_files::GroupFiles;
use crate::storage::recover::chain::{Chain, Ended};
use crate::storage::recover::recovery::{Survey, look_after};
use crate::storage::recover::tables::{read_state_file, restore};
use crate::types::{GroupId, LogIndex};

/// The check of one group.
pub(super) struct GroupCheck<'a> {
    pub(super) disk: &'a Disk,
    pub(super) report: &'a mut Report,
    pub(super) group: GroupId,
    /// Receives the entries.
    pub(super) sink: &'a mut dyn EntrySink,
}

impl GroupCheck<'_> {
    pub(super) fn run(mut self, dir: PathBuf) -> Result<(), StorageError> {
        let mut check = FileCheck { disk: self.disk, report: self.report, group: self.group };
        let Some(read) = check.read(dir)? else { return Ok(()) };
        let files = &read.files;
        // A frame of a newer version does not hide the durable positions in other frames: damage below them is damage,
        // not a torn tail.
        let (durable, chosen) = match Survey::of(files) {
            Ok(survey) if read.has_manifest => (survey.durable, Some(survey.choose(files))),
            Ok(survey) => (survey.durable, None),
            Err(error) => (files.manifest.durable, Some(Err(error))),
        };
        let known = files.manifest.applied.max(files.manifest.base.index);
        let (mut torn_bytes, mut next_offset) = (0, None);
        let (committed, refused);
        let (stretches, mut gone) = match chosen {
            Some(Ok((chain, ended))) => {
                torn_bytes = self.tail(&read, &chain, &ended)?;
                refused = self.tables(&read, &chain, &ended);
                next_offset = Some(ended.last.offset);
                committed = ended.hard_state.commit;
                let stretches =
                    chain.stretches(ended.at).map(|(header, end)| Stretch { header, limit: Some(end) }).collect();
                let mut gone = read.flaws.clone();
                gone.retain(|_, flaw| flaw.stops_start);
                (stretches, gone)
            }
            refusal => {
                self.state_file(&read)?;
                refused = refusal.and_then(Result::err);
                let (stretches, gone) = (self.by_headers(&read, durable), gone(&read, durable));
                committed = self.committed(&read, &stretches, durable)?;
                (stretches, gone)
            }
        };
        self.sink.begin(files.manifest.base.index, known.max(committed));
        let walked = self.walk(&read, &stretches, &gone, durable)?;
        if self.sink.is_done() {
            // The segments after this one were not read.
            let last = walked.last().map_or(0, |walked| walked.header.number);
            gone.retain(|number, _| *number < last);
        }
        add_gone(self.report, &read, &gone, &walked);
        if let Some(error) = refused.filter(|_| !self.sink.is_done() || self.report.worst() < Some(Severity::Damage)) {
            self.refusal(error)?;
        }
        self.names(files);
        self.report.groups.push(GroupReport {
            group: self.group,
            first_offset: files.manifest.log_state.first_offset.max(files.manifest.base.offset),
            next_offset,
            last_index: walked.iter().map(|w| w.last.index).fold(files.manifest.base.index, Ord::max),
            entries: walked.iter().map(|w| w.entries).sum(),
            segments: walked.len() as u64,
            log_bytes: walked.iter().map(|w| w.end.saturating_sub(SEGMENT_HEADER_BYTES)).sum(),
            file_bytes: self.file_bytes(files),
            torn_bytes,
        });
        Ok(())
    }

    /// The last committed entry according to the frames of all stretches. Only needed if the chain is broken.
    fn committed(&self, read: &Readable, stretches: &[Stretch], durable: Position) -> Result<LogIndex, StorageError> {
        let mut scratch =
            Report { data_dir: PathBuf::new(), node: None, groups: Vec::new(), findings: Vec::new(), more: 0 };
        let mut check =
            SegmentCheck { chain: ChainState::default(), disk: self.disk, report: &mut scratch, sink: &mut NoSink };
        let mut committed = LogIndex(0);
        for stretch in stretches.iter().filter(|_| self.sink.needs_entries()) {
            committed = committed.max(check.stretch(&read.files, stretch, durable, None)?.commit);
        }
        Ok(committed)
    }

    /// Adds findings for what follows the end of the log and for segments outside it; returns the number of bytes that
    /// the next start cuts off.
    fn tail(&mut self, read: &Readable, chain: &Chain, ended: &Ended) -> Result<u64, StorageError> {
        let files = &read.files;
        let torn = match look_after(files, chain, ended.at) {
            Ok((_, torn)) => torn,
            Err(error) => self.report.add_error(error).map(|()| 0)?,
        };
        if torn > 0 {
            let what = format!(
                "{torn} bytes from here on, in this and newer segments, were never known to be synced ({}): the next start \
                 cuts them off",
                ended.what
            );
            self.report.add(Finding::new(Severity::Torn, &segment_path(&files.dir, chain.newest()), ended.at, what));
        }
        let stops_start = |number| read.flaws.get(number).is_some_and(|flaw| flaw.stops_start);
        for number in files.numbers.iter().filter(|number| !chain.contains(**number) && !stops_start(number)) {
            let what = "this segment is not part of the log any more: the next start removes it";
            self.report.add(Finding::new(Severity::Note, &segment_path(&files.dir, *number), 0, what));
        }
        Ok(torn)
    }

    /// Reads all stretches, and checks that each continues the one before.
    fn walk(
        &mut self,
        read: &Readable,
        stretches: &[Stretch],
        gone: &Gone,
        durable: Position,
    ) -> Result<Vec<Walked>, StorageError> {
        let mut walked: Vec<Walked> = Vec::new();
        for (i, stretch) in stretches.iter().enumerate() {
            if self.sink.is_done() {
                break;
            }
            let header = &stretch.header;
            if let Some(before) = walked.last().filter(|before| !before.lost) {
                let place = |base: &Base| (base.index, base.term, base.offset);
                let is_gap = gone.range(before.header.number..header.number).next().is_some();
                if !is_gap && place(&before.last) != place(&header.base) {
                    add_jump(self.report, read, header, &before.last);
                } else if before.sound && !is_gap && before.last.digest != header.base.digest {
                    let what = "the running digest is not that of the entries before this segment";
                    let path = segment_path(&read.files.dir, header.number);
                    self.report.add(Finding::new(Severity::Damage, &path, 112, what).up_to(120));
                }
            }
            let next = stretches.get(i + 1).map(|next| &next.header);
            // A log that still has its first entry begins with the chain of no records.
            let is_whole = read.has_manifest && read.files.manifest.base.index <= Base::FIRST && gone.is_empty();
            let chain = match walked.last() {
                Some(before) if before.lost || gone.range(before.header.number..header.number).next().is_some() => {
                    ChainState { after: None, ..before.chain }
                }
                Some(before) => before.chain,
                None => ChainState { after: is_whole.then(ChainHash::default), ..ChainState::default() },
            };
            let mut check = SegmentCheck { disk: self.disk, report: self.report, sink: self.sink, chain };
            let segment = check.stretch(&read.files, stretch, durable, next)?;
            walked.push(segment);
        }
        Ok(walked)
    }

    /// Adds the reason why a start fails, unless another finding concerns the same file: that one is the cause, and
    /// more precise.
    fn refusal(&mut self, error: StorageError) -> Result<(), StorageError> {
        let file = match &error {
            StorageError::Damaged { file, .. }
            | StorageError::Io { file, .. }
            | StorageError::NewerFrame(NewerFrame { file, .. }) => Some(file.clone()),
            _ => None,
        };
        let is_named = |f: &Finding| f.severity >= Severity::Format && Some(&f.file) == file.as_ref();
        if self.report.findings.iter().any(is_named) { Ok(()) } else { self.report.add_error(error) }
    }

    /// Returns the stretches of a broken chain: each segment up to where a newer one continues it.
    fn by_headers(&mut self, read: &Readable, durable: Position) -> Vec<Stretch> {
        let files = &read.files;
        let path = |number| segment_path(&files.dir, number);
        let renamed = read.renamed.values().map(|renamed| &renamed.header);
        let headers: Vec<&SegmentHeader> = files.headers.values().flatten().chain(renamed).collect();
        let limit = |number| {
            let ends = headers.iter().map(|header| header.predecessor);
            ends.filter(|p| p.file == number && p.at >= SEGMENT_HEADER_BYTES).map(|p| p.at).max()
        };
        for (number, flaw) in read.flaws.range(read.newest(durable) + 1..) {
            let what = format!("{}; this segment was never known to be synced", flaw.what);
            self.report.add(Finding::new(Severity::Note, &path(*number), flaw.position, what));
        }
        let mut stretches: Vec<Stretch> = Vec::new();
        for header in files.headers.values().rev().flatten() {
            let older = stretches.last().map(|newer| newer.header.predecessor.file);
            if older.is_some_and(|older| older < header.number && matches!(files.headers.get(&older), Some(Some(_)))) {
                let what = "this segment is not part of the log any more";
                self.report.add(Finding::new(Severity::Note, &path(header.number), 0, what));
                continue;
            }
            stretches.push(Stretch { header: *header, limit: limit(header.number) });
        }
        stretches.reverse();
        stretches
    }

    /// The bytes of all files of a group; a file whose size can't be determined counts as 0.
    fn file_bytes(&self, files: &GroupFiles) -> u64 {
        let bytes = |name| self.disk.file_bytes(&files.dir.join(name)).ok().flatten().unwrap_or(0);
        files.names.iter().map(bytes).sum()
    }

    /// Restores the producers and cursors as a start does, and returns what is wrong.
    fn tables(&self, read: &Readable, chain: &Chain, ended: &Ended) -> Option<StorageError> {
        if self.sink.needs_entries() {
            return None;
        }
        restore(self.disk, &read.files, chain, ended).map_or_else(Some, |restored| restored.damage)
    }

    /// Checks the state file that the manifest names.
    fn state_file(&mut self, read: &Readable) -> Result<(), StorageError> {
        let files = &read.files;
        let is_checked = read.has_manifest && !self.sink.needs_entries();
        let Some(index) = files.manifest.log_state.state_file().filter(|_| is_checked) else { return Ok(()) };
        let read = read_state_file(self.disk, &files.dir, self.group, index);
        read.map(drop).or_else(|error| self.report.add_error(error))
    }

    /// Adds the files that the log does not use.
    fn names(&mut self, files: &GroupFiles) {
        let state_file = files.manifest.log_state.state_file();
        let is_used = |name: &str| {
            let index = state_index(name).filter(|_| !name.ends_with(".tmp"));
            name == MANIFEST || segment_number(name).is_some() || index.is_some() && index == state_file
        };
        for name in files.names.iter().filter(|name| !is_used(name)) {
            let number = name.strip_suffix(".idx").and_then(|stem| segment_number(&format!("{stem}.seg")));
            let what = match number {
                Some(number) if files.numbers.contains(&number) => continue,
                Some(_) => "an index without its segment: the next start removes it",
                None if state_index(name).is_some() => "not the state file of this log: the next start removes it",
                None if name == "manifest.tmp" => "an unfinished manifest: the next start removes it",
                None => "not a file of this log: it is left alone",
            };
            self.report.add(Finding::new(Severity::Note, &files.dir.join(name), 0, what));
        }
    }
}
