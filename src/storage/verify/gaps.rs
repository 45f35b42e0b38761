//! Names segments that are missing or whose header can't be read, and the entries that were in them.

use super::super::recovery::Files;
use super::super::segment::{SegmentHeader, segment_path};
use super::super::state::Base;
use super::{Look, Severity, between};

/// The maximum number of missing files that are named one by one, at each gap.
const NAMED_MAX: u64 = 64;

impl Look<'_> {
    /// Names all of them: follows the chain back from the newest segment as far as headers allow, and continues at the next
    /// existing segment.
    pub(super) fn gaps(&mut self, files: &Files) {
        let first = files.manifest.first_segment;
        let newest = files.headers.keys().next_back().copied().unwrap_or(0);
        // The log was synced up to the floor.
        self.unknown(files, newest, files.manifest.floor.file);
        let mut number = files.manifest.floor.file.max(newest);
        while number >= first && number > 0 {
            let older = files.headers.range(..number).next_back().map_or(first.saturating_sub(1), |(older, _)| *older);
            number = match files.headers.get(&number) {
                Some(Some(header)) if header.predecessor.file < number => header.predecessor.file,
                Some(Some(_)) => older,
                found => {
                    let what =
                        if found.is_some() { "the segment has no valid header" } else { "the segment is missing" };
                    self.report.add(Severity::Damage, &segment_path(&files.dir, number), 0, what);
                    // Its predecessor is unknown.
                    self.unknown(files, older, number);
                    older
                }
            };
        }
    }

    /// Names missing files between two numbers. A truncation of the log leaves gaps in the numbers, too.
    fn unknown(&mut self, files: &Files, above: u64, below: u64) {
        for number in (above + 1..below).take(usize::try_from(NAMED_MAX).unwrap_or(usize::MAX)) {
            let what = "the segment is missing; it was part of the log, or was removed by a truncation";
            self.report.add(Severity::Damage, &segment_path(&files.dir, number), 0, what);
        }
    }

    /// A segment does not begin where its predecessor ends: names the missing entries, at the file that contained them if
    /// known.
    pub(super) fn missing_between(&mut self, files: &Files, number: u64, header: &SegmentHeader, before: &Base) {
        let what = if header.base.index > before.index {
            format!("{} are missing: no earlier segment contains them", between(before, &header.base))
        } else {
            "the segment does not continue its predecessor".to_owned()
        };
        let gone = (number + 1..header.number).map(|number| segment_path(&files.dir, number));
        for path in gone.take(usize::try_from(NAMED_MAX).unwrap_or(usize::MAX)) {
            if let Some(finding) = self.report.findings.iter_mut().find(|f| f.file == path && f.position == 0) {
                finding.what += &format!("; {}", between(before, &header.base));
                return;
            }
        }
        self.report.add(Severity::Damage, &segment_path(&files.dir, header.number), 56, what);
    }
}
