//! The known damage of a group's files, found by the scrub or by a read: logged once for each position, and listed for
//! the operator.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::storage::error::NewerFrame;
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, segment_number};
use crate::types::{GroupId, Offset};

/// The maximum number of listed ranges of a group; further ones are only logged and counted.
const RANGES_MAX: usize = 64;
/// The maximum number of positions of a group that are remembered so that each is logged once; further ones are not
/// logged.
const PLACES_MAX: usize = 4096;

/// Bytes on the disk that differ from what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// The file's name in the group's directory.
    pub file: String,
    /// Where the range begins.
    pub position: u64,
    /// The length of the range.
    pub bytes: u64,
    /// The first record in it.
    pub first_offset: Offset,
    /// The first record after it; `None` if no later frame shows it. Equal to `first_offset` if no record is lost.
    pub next_offset: Option<Offset>,
    pub what: String,
}

impl fmt::Display for DamagedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} byte {}: {}", self.file, self.position, self.what)
    }
}

impl DamagedRange {
    /// True if this damage makes the next start refuse the log, although no record is lost now.
    fn stops_start(&self) -> bool {
        segment_number(&self.file).is_none() || self.position < SEGMENT_HEADER_BYTES
    }

    /// Describes the range, the records in it, and what the node can't do because of them.
    fn described(&self) -> String {
        let DamagedRange { file, position, bytes, first_offset, next_offset, what } = self;
        let place = match bytes {
            // The length of the range is unknown.
            0 => format!("{file} is damaged at byte {position}"),
            bytes => {
                format!("{file} is damaged at {}", span("byte", "bytes", *position, position.saturating_add(*bytes)))
            }
        };
        let data_loss = "this node returns DATA_LOSS for";
        let records = match next_offset {
            Some(next) if next > first_offset => {
                format!("; {data_loss} {}", span("record", "records", first_offset.0, next.0))
            }
            None if !self.stops_start() => format!("; {data_loss} the records from {first_offset} on"),
            _ => "; no record is lost".to_owned(),
        };
        format!("{place}: {what}{records}")
    }

    /// True if both begin at the same position of the same file.
    pub(crate) fn is_at(&self, other: &DamagedRange) -> bool {
        (&self.file, self.position) == (&other.file, other.position)
    }
}

/// The known damage of one group.
#[derive(Default)]
pub struct Damages {
    known: Mutex<KnownDamage>,
    count: AtomicU64,
}

#[derive(Default)]
struct KnownDamage {
    ranges: Vec<DamagedRange>,
    /// The positions of `ranges` and of further ranges that were logged, each with the pass in which it was last found.
    places: BTreeMap<(String, u64), u64>,
    /// The frames of newer versions that were logged, by file and position.
    newer: BTreeMap<(PathBuf, u64), NewerFrame>,
    /// The number of scrub passes that have started.
    passes: u64,
}

impl Damages {
    fn known(&self) -> MutexGuard<'_, KnownDamage> {
        self.known.lock()
    }

    /// Logs and lists a range. If damage at its position is known, only updates the listed range.
    pub fn report(&self, group: GroupId, range: &DamagedRange) {
        {
            let mut known = self.known();
            let (passes, place) = (known.passes, (range.file.clone(), range.position));
            if let Some(met) = known.places.get_mut(&place) {
                *met = passes;
                if let Some(before) = known.ranges.iter_mut().find(|known| known.is_at(range)) {
                    before.clone_from(range);
                }
                return;
            }
            if known.places.len() >= PLACES_MAX {
                return;
            }
            known.places.insert(place, passes);
            if known.ranges.len() < RANGES_MAX {
                known.ranges.push(range.clone());
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        log::error!(
            "group {group}: {}. Check the disk. The file is repaired if this node, or another one, has what was in it; \
             `seriatim data verify` checks a stopped node",
            range.described()
        );
    }

    /// Logs a frame of a newer version, once. It is not damaged, so it is not listed.
    pub fn report_newer(&self, group: GroupId, newer: &NewerFrame) {
        {
            let mut known = self.known();
            let place = (newer.file.clone(), newer.position);
            if known.newer.len() >= PLACES_MAX || known.newer.contains_key(&place) {
                return;
            }
            known.newer.insert(place, newer.clone());
        }
        log::error!("group {group}: {newer}");
    }

    /// The logged frames of newer versions.
    #[cfg(test)]
    pub(crate) fn newer(&self) -> Vec<NewerFrame> {
        self.known().newer.values().cloned().collect()
    }

    pub fn list(&self) -> Vec<DamagedRange> {
        self.known().ranges.clone()
    }

    /// The number of positions that were logged.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Notes that a scrub pass starts.
    pub(crate) fn begin_pass(&self) {
        self.known().passes += 1;
    }

    /// Forgets the damage of a file that was written again.
    pub(crate) fn forget(&self, file: &str) {
        let mut known = self.known();
        known.ranges.retain(|range| range.file != file);
        known.places.retain(|(of, _), _| of != file);
    }

    /// Ends a complete scrub pass: forgets all damage except `found`, and except what reads have found since the pass
    /// started.
    pub(crate) fn keep(&self, found: &[DamagedRange]) {
        let mut known = self.known();
        let KnownDamage { ranges, places, passes, .. } = &mut *known;
        places.retain(|(file, position), met| {
            *met == *passes || found.iter().any(|f| (&f.file, f.position) == (file, *position))
        });
        ranges.retain(|range| places.contains_key(&(range.file.clone(), range.position)));
    }
}

/// Returns `record 7` or `records 7 to 9`.
pub(crate) fn span(one: &str, several: &str, first: u64, next: u64) -> String {
    match next - first {
        1 => format!("{one} {first}"),
        _ => format!("{several} {first} to {}", next - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(position: u64) -> DamagedRange {
        let (file, what) = ("00000000000000000001.seg".to_owned(), "flipped".to_owned());
        DamagedRange { file, position, bytes: 8, first_offset: Offset(1), next_offset: Some(Offset(3)), what }
    }

    /// A pass takes hours. Once, its end discarded damage that a read had found meanwhile in a part that the pass had
    /// already checked.
    #[test]
    fn keeps_what_reads_find_during_a_pass() {
        let damages = Damages::default();
        damages.report(GroupId(1), &range(200));
        damages.begin_pass();
        damages.report(GroupId(1), &range(300));
        damages.keep(&[range(400)]);
        assert_eq!(damages.list(), [range(300)], "the pass has not found the other one again");
        damages.report(GroupId(1), &range(300));
        assert_eq!(damages.count(), 2, "logged once");
        damages.begin_pass();
        damages.keep(&[]);
        assert_eq!(damages.list(), []);
    }

    /// Once, a single record was described as "records 680 to 680 ... are damaged", and an empty manifest as "0 bytes
    /// of manifest at byte 0".
    #[test]
    fn describes_a_range_with_its_records() {
        let name = "00000000000000000001.seg is damaged at";
        let data_loss = "flipped; this node returns DATA_LOSS for";
        assert_eq!(range(200).described(), format!("{name} bytes 200 to 207: {data_loss} records 1 to 2"));
        let one = DamagedRange { bytes: 1, next_offset: Some(Offset(2)), ..range(200) };
        assert_eq!(one.described(), format!("{name} byte 200: {data_loss} record 1"));
        let open = DamagedRange { next_offset: None, ..range(200) };
        assert_eq!(open.described(), format!("{name} bytes 200 to 207: {data_loss} the records from 1 on"));
        let manifest = DamagedRange { file: "manifest".to_owned(), bytes: 0, next_offset: Some(Offset(1)), ..range(0) };
        assert_eq!(manifest.described(), "manifest is damaged at byte 0: flipped; no record is lost");
    }

    #[test]
    fn logs_a_position_once_and_limits_the_list() {
        let damages = Damages::default();
        for _ in 0..2 {
            (0..10_000).for_each(|at| damages.report(GroupId(1), &range(200 + at)));
            assert_eq!((damages.count(), damages.list().len()), (PLACES_MAX as u64, RANGES_MAX));
        }
        damages.begin_pass();
        damages.keep(&[range(201)]);
        assert_eq!(damages.list(), [range(201)]);
        damages.report(GroupId(1), &range(201));
        damages.report(GroupId(1), &range(202));
        assert_eq!((damages.count(), damages.list().len()), (PLACES_MAX as u64 + 1, 2));
        assert_eq!(range(9).to_string(), "00000000000000000001.seg byte 9: flipped");
        assert!(range(9).stops_start() && !range(128).stops_start());
        assert!(DamagedRange { file: "manifest".to_owned(), ..range(500) }.stops_start());
    }
}
