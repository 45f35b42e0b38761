//! Reads the records of a stopped node's log without changing anything, for `seriatim data dump`.
//!
//! A dump walks the frames as `data verify` does, so it finds the same end of the log and the same damage. It stops at
//! the first damage, or skips all damage and returns what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::finding::{Finding, Severity};
use super::group::GroupCheck;
use super::report::Report;
use super::segment::EntrySink;
use crate::storage::error::StorageError;
use crate::storage::format::frame::Frame;
use crate::storage::io::disk::Disk;
use crate::storage::io::group_files::{group_dir, group_of};
use crate::storage::io::node::DataDir;
use crate::types::{GroupId, LogIndex, Offset};

/// What a dump left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dumped {
    /// Entries with records that are not known to be committed on this node: they may never have been acknowledged.
    pub uncommitted: u64,
    /// Damage, and parts in another version's format. The records in them were left out.
    pub findings: Vec<Finding>,
    /// The number of findings that are not listed.
    pub more: u64,
    /// The offset after the last record, if there was one.
    pub next_offset: Option<Offset>,
}

/// Returns the groups in a data directory: those in `node.toml`, if it can be read, and those with a directory. A blank
/// directory has none.
///
/// # Errors
/// The directory is in use, missing, or not a data directory.
pub fn groups(disk: &Disk, path: &Path) -> Result<BTreeSet<GroupId>, StorageError> {
    let data_dir = DataDir::look(disk, path)?;
    let listed = match data_dir.check().and_then(|()| data_dir.load()) {
        Ok(node) => node.map(|node| node.groups).unwrap_or_default(),
        Err(error) if error.is_damage() => BTreeMap::new(),
        Err(error) => return Err(error),
    };
    let names = disk.list(&data_dir.groups_dir())?.unwrap_or_default();
    Ok(listed.into_keys().chain(names.iter().filter_map(|name| group_of(name))).collect())
}

/// Calls `sink` with the frame of each committed entry with records, in order. Ends at the first
/// damage, unless `skip_damage` is set.
///
/// # Errors
/// An error of the sink; or the directory is in use or missing, or not a data directory.
pub fn dump<E: From<StorageError>>(
    disk: &Disk,
    path: &Path,
    group: GroupId,
    skip_damage: bool,
    mut sink: impl FnMut(&Frame<'_>) -> Result<(), E>,
) -> Result<Dumped, E> {
    let data_dir = DataDir::look(disk, path)?;
    let mut report =
        Report { data_dir: path.to_owned(), node: None, groups: Vec::new(), findings: Vec::new(), more: 0 };
    match data_dir.check().and_then(|()| data_dir.load()) {
        Err(error) if skip_damage && error.is_damage() => report.add_error(error)?,
        loaded => drop(loaded?),
    }
    let mut dumper = Dumper {
        sink: &mut sink,
        skip_damage,
        last: LogIndex(0),
        committed: LogIndex(0),
        dumped: Dumped::default(),
        failed: None,
        is_done: false,
    };
    let dir = group_dir(&data_dir.groups_dir(), group);
    GroupCheck { disk, report: &mut report, group, sink: &mut dumper }.run(dir)?;
    let Dumper { mut dumped, failed, .. } = dumper;
    if let Some(error) = failed {
        return Err(error);
    }
    (dumped.findings, dumped.more) = (report.findings, report.more);
    dumped.findings.retain(|finding| finding.severity >= Severity::Format);
    Ok(dumped)
}

struct Dumper<'a, E> {
    sink: &'a mut dyn FnMut(&Frame<'_>) -> Result<(), E>,
    skip_damage: bool,
    /// The last entry.
    last: LogIndex,
    committed: LogIndex,
    dumped: Dumped,
    failed: Option<E>,
    is_done: bool,
}

impl<E> EntrySink for Dumper<'_, E> {
    fn begin(&mut self, before: LogIndex, committed: LogIndex) {
        (self.last, self.committed) = (before, committed);
    }

    fn entry(&mut self, frame: &Frame<'_>, is_after_damage: bool) {
        let header = &frame.header;
        // If the chain of segments is incomplete, an entry may occur in several segments.
        if header.index <= self.last {
            return;
        }
        if !self.skip_damage && (is_after_damage || header.index != self.last.next()) {
            self.is_done = true;
            return;
        }
        self.last = header.index;
        if !header.kind.is_records() {
            return;
        }
        if header.index > self.committed {
            self.dumped.uncommitted += 1;
            return;
        }
        if let Err(error) = (self.sink)(frame) {
            (self.failed, self.is_done) = (Some(error), true);
            return;
        }
        self.dumped.next_offset = Some(Offset(header.base_offset.0.saturating_add(u64::from(header.count))));
    }

    fn is_done(&self) -> bool {
        self.is_done
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::Home;
    use super::*;
    use crate::storage::format::state::HardState;
    use crate::types::Term;

    const GROUP: GroupId = GroupId(3);

    /// A node that was stopped cleanly, with all entries known to be committed.
    fn well() -> Home {
        let home = Home::new(true);
        let mut log = home.try_log().expect("opened");
        let commit = log.bounds().last_index;
        log.append_hard_state(&HardState { term: Term(1), vote: None, commit }).expect("appended");
        log.close().expect("closed");
        home
    }

    fn dumped(home: &Home, skip_damage: bool) -> (u64, Dumped) {
        let mut entries = 0;
        let dumped = dump::<StorageError>(&home.disk, home.dir.path(), GROUP, skip_damage, |_| {
            entries += 1;
            Ok(())
        });
        (entries, dumped.expect("a dump"))
    }

    /// Once, if the newest segment of the only copy was damaged, no command could read the remaining records: the dump
    /// printed none, not even those of older segments.
    #[test]
    fn damage_costs_only_what_it_hides() {
        let (all, whole) = dumped(&well(), false);
        assert!(all > 10 && whole.findings.is_empty() && whole.uncommitted == 0, "{all} {whole:?}");
        for (segment, frame) in [(1, 2), (3, 0)] {
            let home = well();
            let name = home.segments()[segment].clone();
            let at = usize::try_from(home.frames(&name)[frame]).expect("a position");
            home.change(&name, |bytes| bytes[at + 100] ^= 1);
            let (before, stopped) = dumped(&home, false);
            assert!((2..all).contains(&before), "segment {segment}: {before} of {all}");
            assert_eq!(stopped.next_offset, Some(Offset(2 * before)), "segment {segment}");
            let (left, skipped) = dumped(&home, true);
            assert_eq!((left, skipped.next_offset), (all - 1, whole.next_offset), "segment {segment}: what follows it");
            for dumped in [stopped, skipped] {
                let hole = &dumped.findings[0];
                assert!(dumped.findings.len() == 1 && hole.severity == Severity::Damage, "{:?}", dumped.findings);
                assert!(hole.file == home.path(&name) && hole.unreadable.is_some(), "{hole:?}");
            }
        }
    }

    #[test]
    fn a_missing_segment_manifest_or_node_file_hides_nothing_else() {
        let (all, _) = dumped(&well(), false);
        let home = well();
        fs::remove_file(home.path(&home.segments()[1])).expect("removed");
        let (before, stopped) = dumped(&home, false);
        let (left, _) = dumped(&home, true);
        assert!(before > 0 && before < left && left < all && !stopped.findings.is_empty(), "{before} {left} of {all}");

        let home = well();
        fs::remove_file(home.path("manifest")).expect("removed");
        assert_eq!(dumped(&home, false).0, 0);
        let (left, skipped) = dumped(&home, true);
        assert!(left > 0 && left + skipped.uncommitted == all, "{left} and {skipped:?} of {all}");

        let home = well();
        fs::write(home.dir.path().join("node.toml"), "format = 1\n").expect("written");
        let refused = dump::<StorageError>(&home.disk, home.dir.path(), GROUP, false, |_| Ok(()));
        assert!(refused.expect_err("damaged").is_damage());
        assert_eq!(dumped(&home, true).0, all);
        assert_eq!(groups(&home.disk, home.dir.path()).expect("groups"), BTreeSet::from([GROUP]));
    }
}
