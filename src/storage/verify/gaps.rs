//! Reports segments that are missing or can't be used, and the entries that were in them.

use std::collections::BTreeMap;
use std::path::Path;

use super::files::{Flaw, Readable};
use super::finding::{Finding, Severity, Unreadable};
use super::report::Report;
use super::segment::{VOTE_LOST, Walked};
use crate::storage::format::frame::Position;
use crate::storage::format::segment_header::{SegmentHeader, segment_path};
use crate::storage::format::state::Base;

/// The maximum number of missing files that are named individually at each gap.
const NAMED_MAX: u64 = 64;

/// The segments of a log that can't be used, by number.
pub(super) type Gone = BTreeMap<u64, Flaw>;

/// Follows the chain back from the newest segment. Where a header is missing, continues at the next older segment that
/// exists. Returns the segments that can't be used.
pub(super) fn gone(read: &Readable, durable: Position) -> Gone {
    let files = &read.files;
    let mut gone = Gone::new();
    let first = files.manifest.first_segment;
    let newest = read.newest(durable);
    // Everything up to the durable position was synced, so its segment existed.
    unknown(&mut gone, newest, durable.file);
    let mut number = durable.file.max(newest);
    while number >= first && number > 0 {
        let older = files.headers.range(..number).next_back().map_or(first.saturating_sub(1), |(older, _)| *older);
        let header = files.headers.get(&number).copied().flatten();
        if header.is_none() {
            let missing = || Flaw::missing("the segment is missing");
            gone.insert(number, read.flaws.get(&number).cloned().unwrap_or_else(missing));
        }
        number = match header.or_else(|| read.true_header(number)) {
            Some(header) if header.predecessor.file < number => header.predecessor.file,
            Some(_) => older,
            None => {
                // Its predecessor is unknown.
                if gone.get(&number).is_some_and(|flaw| flaw.severity == Severity::Damage) {
                    unknown(&mut gone, older, number);
                }
                older
            }
        };
    }
    gone
}

/// Adds the file numbers between two segments as missing. A truncation of the log leaves gaps in the numbers, too.
fn unknown(gone: &mut Gone, above: u64, below: u64) {
    for number in (above + 1..below).take(usize::try_from(NAMED_MAX).unwrap_or(usize::MAX)) {
        let what = "the segment is missing; it was part of the log, or was removed by a truncation";
        gone.insert(number, Flaw::missing(what));
    }
}

impl Readable {
    /// The newest segment that is part of the log. A segment after the durable position without a valid header was
    /// never known to be synced.
    pub(super) fn newest(&self, durable: Position) -> u64 {
        let is_part = |number: u64| {
            let stops_start = || self.flaws.get(&number).is_some_and(|flaw| flaw.stops_start);
            number <= durable.file
                || !self.has_manifest
                || matches!(self.files.headers.get(&number), Some(Some(_)))
                || stops_start()
        };
        self.files.headers.keys().rev().copied().find(|number| is_part(*number)).unwrap_or(0)
    }

    /// The header of a segment that was found in a file with another name.
    fn true_header(&self, number: u64) -> Option<SegmentHeader> {
        self.renamed.get(&number).map(|renamed| renamed.header)
    }

    /// Describes which file contains a segment, if it has another name.
    fn renaming(&self, number: u64) -> String {
        let Some(renamed) = self.renamed.get(&number) else { return String::new() };
        let swapped = self.renamed.get(&renamed.file).is_some_and(|other| other.file == number);
        let swapped = if swapped { ": the two files are swapped" } else { "" };
        format!("; the header in {} has the number of this file{swapped}", name(renamed.file))
    }
}

/// A segment's file name.
fn name(number: u64) -> String {
    segment_path(Path::new(""), number).display().to_string()
}

/// Adds a finding for each segment that can't be used, with the entries that were in it.
pub(super) fn add_gone(report: &mut Report, read: &Readable, gone: &Gone, walked: &[Walked]) {
    // The segment whose finding names the entries of several adjacent segments.
    let mut joint: Option<u64> = None;
    for (number, flaw) in gone {
        let older = walked.iter().rev().find(|walked| walked.header.number < *number);
        let newer = walked.iter().find(|walked| walked.header.number > *number);
        let above = older.map_or(0, |walked| walked.header.number);
        let below = newer.map_or(u64::MAX, |walked| walked.header.number);
        // All unusable segments between the same two readable ones.
        let run: Vec<u64> = gone.range(above..below).map(|(number, _)| *number).collect();
        let is_first = run.first() == Some(number);
        if is_first {
            joint = None;
        }
        let start = older.map(|walked| walked.last).or(read.has_manifest.then_some(read.files.manifest.base));
        let end = newer.map(|walked| walked.header.base);
        let mut what = format!("{}{}", flaw.what, read.renaming(*number));
        let unreadable = match bounds(read, &run, *number, start, end) {
            (Some(from), Some(to)) => Some(Unreadable::between(&from, &to)),
            (Some(from), None) if run.last() == Some(number) => Some(whole_run(read, &from, end)),
            _ if is_first => {
                joint = Some(*number);
                if let Some(others) = run.len().checked_sub(1).filter(|others| *others > 0 && start.is_some()) {
                    let others =
                        if others == 1 { "1 more segment".to_owned() } else { format!("{others} more segments") };
                    what += &format!("; the entries are those of this and of {others}");
                }
                start.map(|start| whole_run(read, &start, end))
            }
            _ => {
                if let Some(first) = joint.filter(|_| start.is_some()) {
                    what += &format!("; its entries are among those named at {}", name(first));
                }
                None
            }
        };
        if newer.is_none() && run.last() == Some(number) && flaw.severity == Severity::Damage {
            what += VOTE_LOST;
        }
        let path = segment_path(&read.files.dir, *number);
        let finding = Finding { end: flaw.end, ..Finding::new(flaw.severity, &path, flaw.position, what) };
        report.add(finding.with(unreadable));
    }
}

/// Adds a finding for a segment that does not begin where its predecessor ends, although no segment between them is
/// known to be missing.
pub(super) fn add_jump(report: &mut Report, read: &Readable, header: &SegmentHeader, before: &Base) {
    let (what, unreadable) = match header.base.index > before.index {
        true => ("no earlier segment contains the entries before it", Some(Unreadable::between(before, &header.base))),
        false => ("the segment does not continue its predecessor", None),
    };
    let path = segment_path(&read.files.dir, header.number);
    report.add(Finding::new(Severity::Damage, &path, 56, what).up_to(80).with(unreadable));
}

/// The ends of the log before and after one segment of a run, if they are known.
fn bounds(
    read: &Readable,
    run: &[u64],
    number: u64,
    start: Option<Base>,
    end: Option<Base>,
) -> (Option<Base>, Option<Base>) {
    let from = read.true_header(number).map(|header| header.base);
    let from = from.or_else(|| start.filter(|_| run.first() == Some(&number)));
    let newer = run.iter().copied().filter(|newer| *newer > number).find_map(|newer| read.true_header(newer));
    let to = match newer {
        Some(newer) => Some(newer.base).filter(|_| newer.predecessor.file == number),
        None => end.filter(|_| run.last() == Some(&number)),
    };
    (from, to)
}

/// What was in all segments between two readable ones, or after the last one.
fn whole_run(read: &Readable, start: &Base, end: Option<Base>) -> Unreadable {
    if let Some(end) = end {
        return Unreadable::between(start, &end);
    }
    // What was synced after the manifest was written is unknown.
    let (index, offset) = read.files.manifest.durable_end;
    let known = Base { index: index.max(start.index), offset: offset.max(start.offset), ..Base::default() };
    Unreadable { and_more: true, ..Unreadable::between(start, &known) }
}
