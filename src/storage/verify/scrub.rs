//! The `scrub` thread slowly reads synced bytes from the disk and checks every frame, so that damage is found while
//! other nodes still have the records, and not only when the records are needed.
//!
//! A pass checks `node.toml`, the snapshot of the catalog, the manifests, the state files, and all segments of all groups up to their
//! durable positions, headers first. It reads from the disk instead of the page cache, and leaves the page cache
//! unchanged ([`Access::Disk`]). Between steps it waits on its inbox, for the next pass or for the rate limit. Damage
//! is logged and listed, together with the damage that reads have found ([`ScrubHandle::damaged`]). The group
//! continues, and a read of a damaged record returns DATA_LOSS, as without a scrub. A segment that is trimmed during a
//! pass is not an error, and neither is a replica that the node drops.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::{Mutex, MutexGuard};

use crate::storage::error::{OtherFormat, StorageError};
use crate::storage::format::catalog_file::{self, CATALOG_FILE, CATALOG_FILE_BYTES_MAX};
use crate::storage::format::manifest::{MANIFEST, MANIFEST_BYTES_MAX, Manifest};
use crate::storage::format::segment_header::{
    BadHeader, SEGMENT_FORMAT, SEGMENT_HEADER_BYTES, SegmentHeader, segment_number,
};
use crate::storage::format::state::Base;
use crate::storage::format::state_file::{STATE_FILE_BYTES_MAX, StateFile, state_path};
use crate::storage::io::disk::Access;
use crate::storage::io::disk::{Disk, DiskFile};
use crate::storage::io::node::{NODE_FILE, NODE_FILE_BYTES_MAX, NodeFile};
pub use crate::storage::read::damage::DamagedRange;
use crate::storage::read::reader::GroupReader;
use crate::storage::read::view::{Part, Published, View};
use crate::storage::read::walk::{Walk, WalkError};
use crate::thread::{self, FatalSender, Joiner};
use crate::types::{GroupId, Offset};

/// The delay of the first pass after the start, or the interval if that is shorter. A starting node needs the disk
/// itself.
const FIRST_AFTER: Duration = Duration::from_secs(600);
/// The time before a retry if the system has no descriptor or memory left.
const SHORTAGE_WAIT: Duration = if cfg!(test) { Duration::from_millis(1) } else { Duration::from_secs(1) };
/// The thread waits for the rate limit and checks for a stop message after this many bytes.
const STEP_BYTES: u64 = if cfg!(test) { 16 << 10 } else { 256 << 10 };

/// The options of the scrub.
#[derive(Clone, Copy, Debug)]
pub struct ScrubOptions {
    /// The rate limit; 0: the thread is not started.
    pub bytes_per_second: u64,
    /// The time from the beginning of one pass to the beginning of the next.
    pub interval: Duration,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubCounts {
    /// Finished passes.
    pub passes: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Damaged ranges that the scrub or reads have found; a range that is found again counts once.
    pub damaged_ranges: u64,
}

/// Shared by the thread and its handles.
#[derive(Default)]
struct ScrubState {
    groups: Mutex<BTreeMap<GroupId, GroupReader>>,
    passes: AtomicU64,
    bytes: AtomicU64,
}

/// Adds groups to the scrub and returns what it has found; clones share one scrub. The default has no thread.
#[derive(Clone, Default)]
pub struct ScrubHandle(Arc<ScrubState>);

impl ScrubHandle {
    /// Checks the group from now on.
    pub fn add(&self, group: GroupId, reader: GroupReader) {
        self.groups().insert(group, reader);
    }

    /// Stops checking the group.
    pub fn remove(&self, group: GroupId) {
        self.groups().remove(&group);
    }

    /// True if the group is still checked, and has not been given up and created again. The files of a replica are
    /// renamed and deleted only after it was removed here.
    fn checks(&self, group: GroupId, reader: &GroupReader) -> bool {
        self.groups().get(&group).is_some_and(|now| std::ptr::eq(now.published(), reader.published()))
    }

    /// The known damage of a group: found by the last pass, by the current one, or by reads since then. Damage in parts
    /// that are not in the log any more is left out.
    pub fn damaged(&self, group: GroupId) -> Vec<DamagedRange> {
        let Some(reader) = self.groups().get(&group).cloned() else { return Vec::new() };
        let view = reader.view();
        let there = |range: &DamagedRange| {
            let Some(number) = segment_number(&range.file) else { return true };
            let part = view.parts.iter().find(|part| part.segment.header.number == number);
            part.is_some_and(|part| range.position < part.end())
        };
        let mut ranges = reader.published().damages().list();
        ranges.retain(there);
        ranges
    }

    pub fn counts(&self) -> ScrubCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ScrubCounts {
            passes: count(&self.0.passes),
            bytes: count(&self.0.bytes),
            damaged_ranges: self.groups().values().map(|reader| reader.published().damages().count()).sum(),
        }
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<GroupId, GroupReader>> {
        self.0.groups.lock()
    }

    /// Makes one pass on this thread, for simulations.
    #[cfg(test)]
    pub(crate) fn pass_by_hand(&self, disk: &Disk, data_dir: &Path) {
        let (_stop, inbox) = bounded(1);
        let options = ScrubOptions { bytes_per_second: u64::MAX, interval: Duration::ZERO };
        let (disk, node_file) = (disk.clone(), data_dir.join(NODE_FILE));
        let pass = Scrubber { handle: self.clone(), disk, node_file, options, inbox }.pass();
        assert!(pass.is_ok(), "nothing stops it");
    }
}

enum ScrubMsg {
    Stop,
}

/// The thread. It stops at its next step after this is dropped.
pub struct Scrub {
    handle: ScrubHandle,
    /// Has a capacity of one, for the stop message.
    inbox: Sender<ScrubMsg>,
    thread: Option<Joiner>,
}

impl Scrub {
    /// Starts the thread, unless the rate is 0.
    ///
    /// # Errors
    /// If the system can't create a thread.
    pub fn start(disk: &Disk, data_dir: &Path, options: ScrubOptions, fatal: &FatalSender) -> std::io::Result<Scrub> {
        let handle = ScrubHandle::default();
        let (sender, inbox) = bounded(1);
        let scrubber = Scrubber {
            handle: handle.clone(),
            disk: disk.clone(),
            node_file: data_dir.join(NODE_FILE),
            options,
            inbox,
        };
        let thread = if options.bytes_per_second == 0 {
            None
        } else {
            Some(thread::spawn("scrub", fatal, move || scrubber.run())?)
        };
        Ok(Scrub { handle, inbox: sender, thread })
    }

    pub fn handle(&self) -> ScrubHandle {
        self.handle.clone()
    }

    pub fn stop(self) {}
}

impl Drop for Scrub {
    fn drop(&mut self) {
        // If the inbox is full, it contains a stop message already.
        let _ = self.inbox.try_send(ScrubMsg::Stop);
        self.thread = None;
    }
}

/// The thread has received its stop message.
struct Stopped;

struct Scrubber {
    handle: ScrubHandle,
    disk: Disk,
    node_file: PathBuf,
    options: ScrubOptions,
    inbox: Receiver<ScrubMsg>,
}

/// The progress of a pass, for the rate limit.
struct Pace {
    begun: Instant,
    bytes: u64,
    since_step: u64,
}

impl Scrubber {
    fn run(self) -> Result<(), StorageError> {
        let mut next = Instant::now() + self.options.interval.min(FIRST_AFTER);
        while self.wait(next).is_ok() {
            next = Instant::now() + self.options.interval;
            if self.pass().is_err() {
                break;
            }
        }
        Ok(())
    }

    fn wait(&self, until: Instant) -> Result<(), Stopped> {
        match self.inbox.recv_deadline(until) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(ScrubMsg::Stop) | Err(RecvTimeoutError::Disconnected) => Err(Stopped),
        }
    }

    /// Checks all groups once.
    fn pass(&self) -> Result<(), Stopped> {
        let mut pace = Pace { begun: Instant::now(), bytes: 0, since_step: 0 };
        let groups = self.handle.groups().clone();
        for (group, reader) in groups {
            reader.published().damages().begin_pass();
            let found = self.group(group, &reader, &mut pace)?;
            // Damage that was not found again was trimmed, or its file was replaced.
            reader.published().damages().keep(&found);
        }
        self.handle.0.passes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn group(&self, group: GroupId, reader: &GroupReader, pace: &mut Pace) -> Result<Vec<DamagedRange>, Stopped> {
        let view = reader.published().view();
        let mut found = self.manifest(group, &view, reader)?;
        if group == GroupId::CATALOG {
            // Every node has a replica of the catalog.
            let node_file = self
                .small(&self.node_file, NODE_FILE_BYTES_MAX, |bytes, path| NodeFile::decode(bytes, path).map(drop))?;
            found.extend(node_file);
            let catalog = self.node_file.with_file_name(CATALOG_FILE);
            // Until the log is trimmed, there may be no snapshot.
            if view.base.index > Base::FIRST || self.disk.is_there(&catalog) {
                let decode = |bytes: &[u8], path: &Path| catalog_file::decode(bytes, path).map(drop);
                found.extend(self.small(&catalog, CATALOG_FILE_BYTES_MAX, decode)?);
            }
        }
        if !self.handle.checks(group, reader) {
            return Ok(Vec::new());
        }
        found.iter().for_each(|range| reader.published().damages().report(group, range));
        let durable = reader.published().durable();
        let numbers: Vec<u64> = view.parts.iter().map(|part| part.segment.header.number).collect();
        drop(view);
        for number in numbers.into_iter().take_while(|number| *number <= durable.file) {
            // Each segment takes a new view, because a view keeps its segments open, and so the space of trimmed ones
            // in use.
            let view = reader.view();
            let Some(i) = view.parts.iter().position(|part| part.segment.header.number == number) else { continue };
            let part = view.parts[i].clone();
            let end = if number == durable.file { part.end().min(durable.at) } else { part.end() };
            // The durable position may be inside a sealed segment. The digest is only known at the end of a segment.
            let next = view.parts.get(i + 1).map(Part::base).filter(|_| end == part.end());
            drop(view);
            for range in self.part(reader.published(), &part, end, next, pace)? {
                if reader.published().still_contains(&part, range.position) && self.handle.checks(group, reader) {
                    reader.published().damages().report(group, &range);
                    found.push(range);
                }
            }
        }
        Ok(found)
    }

    /// Checks that the next start will accept the manifest.
    fn manifest(&self, group: GroupId, view: &View, reader: &GroupReader) -> Result<Vec<DamagedRange>, Stopped> {
        let Some(dir) = view.parts[0].segment.path().parent().map(Path::to_owned) else { return Ok(Vec::new()) };
        let found = self.small(&dir.join(MANIFEST), MANIFEST_BYTES_MAX, |bytes, path| {
            let manifest = Manifest::decode(bytes, path)?;
            // The manifest is written after a trim, so it may still name a segment that is not in the log any more.
            let view = reader.view();
            let first = view.parts.iter().find(|part| part.segment.header.number == manifest.first_segment);
            if manifest.group != group || first.is_some_and(|part| part.base() != manifest.base) {
                return Err(StorageError::damaged(path, 16, "it is not this log's"));
            }
            Ok(())
        })?;
        let found = match found {
            Some(found) => Some(found),
            None => self.state_file(group, &dir)?,
        };
        Ok(found.into_iter().collect())
    }

    /// Checks the state file that the manifest names. Both may be replaced meanwhile, and then the next ones are checked.
    fn state_file(&self, group: GroupId, dir: &Path) -> Result<Option<DamagedRange>, Stopped> {
        let named = || {
            let loaded =
                self.disk.load(&dir.join(MANIFEST), MANIFEST_BYTES_MAX, Access::Blocking, Manifest::decode).ok()?;
            loaded?.log_state.state_file()
        };
        loop {
            let Some(index) = named() else { return Ok(None) };
            let decode =
                |bytes: &[u8], path: &Path| StateFile::decode(bytes, path)?.check(group, index, path).map(drop);
            let found = self.small(&state_path(dir, index), STATE_FILE_BYTES_MAX, decode)?;
            if found.is_none() || named() == Some(index) {
                return Ok(found);
            }
        }
    }

    /// Reads and checks a small file. Damage to it makes the next start fail, but not a read.
    fn small(
        &self,
        path: &Path,
        bytes_max: usize,
        check: impl Fn(&[u8], &Path) -> Result<(), StorageError>,
    ) -> Result<Option<DamagedRange>, Stopped> {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let damaged = |position, what| {
            let (first_offset, next_offset) = (Offset(0), Some(Offset(0)));
            Ok(Some(DamagedRange { file: file.clone(), position, bytes: 0, first_offset, next_offset, what }))
        };
        loop {
            return match self.disk.load(path, bytes_max, Access::Disk, &check) {
                Ok(Some(())) => Ok(None),
                Ok(None) => damaged(0, "the file is missing".to_owned()),
                Err(error) if error.is_shortage() => {
                    self.wait(Instant::now() + SHORTAGE_WAIT)?;
                    continue;
                }
                Err(StorageError::Damaged { position, what, .. }) => damaged(position, what),
                // This includes another format, because this process wrote the file in its own.
                Err(error) => damaged(0, error.to_string()),
            };
        }
    }

    /// Checks that the header is still the one that the segment was created or opened with. The chain depends on it.
    fn header(&self, part: &Part, file: &DiskFile) -> Result<Option<DamagedRange>, Stopped> {
        let bytes = SEGMENT_HEADER_BYTES as usize;
        let what = loop {
            let mut buffer = Vec::new();
            break match file.append_disk_at(0, bytes, &mut buffer) {
                Ok(_) => match SegmentHeader::decode(&buffer) {
                    Ok(header) if header == part.segment.header => return Ok(None),
                    Err(BadHeader::OtherFormat(version)) => OtherFormat { version, known: SEGMENT_FORMAT }.to_string(),
                    Ok(_) | Err(BadHeader::Torn) => "its header is not what was written".to_owned(),
                },
                Err(error) if error.is_shortage() => {
                    self.wait(Instant::now() + SHORTAGE_WAIT)?;
                    continue;
                }
                Err(error) => error.to_string(),
            };
        };
        let next_offset = Some(part.base().offset);
        Ok(Some(DamagedRange { bytes: SEGMENT_HEADER_BYTES, next_offset, ..part.damaged(0, &what) }))
    }

    /// Reads a segment up to `end`. `next` is the end of the log at that position, if known: the running digest must
    /// equal its digest.
    fn part(
        &self,
        log: &Published,
        part: &Part,
        end: u64,
        next: Option<Base>,
        pace: &mut Pace,
    ) -> Result<Vec<DamagedRange>, Stopped> {
        let group = part.segment.header.group;
        let path = part.segment.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Base { offset: mut next_offset, mut digest, .. } = part.base();
        let damaged = |position, first_offset, what| DamagedRange {
            file: name.clone(),
            position,
            bytes: end - position,
            first_offset,
            next_offset: next.map(|next| next.offset),
            what,
        };
        // The file is opened again, because the advice given to the kernel must not affect other reads.
        let file = loop {
            match self.disk.open_to_read(&path) {
                Ok(Some(file)) => break file,
                Ok(None) => return Ok(vec![damaged(0, next_offset, "the file is missing".to_owned())]),
                Err(error) if error.is_shortage() => self.wait(Instant::now() + SHORTAGE_WAIT)?,
                Err(error) => return Ok(vec![damaged(0, next_offset, error.to_string())]),
            }
        };
        let mut found: Vec<DamagedRange> = self.header(part, &file)?.into_iter().collect();
        // The first range in `found` that no entry follows yet.
        let mut open = found.len();
        let mut walk = Walk::new(&file, part.segment.header.salt, SEGMENT_HEADER_BYTES, end, Access::Disk);
        let mut before = SEGMENT_HEADER_BYTES;
        let mut next_digest = next.map(|next| next.digest);
        loop {
            let (position, what) = match walk.next() {
                Ok(None) => break,
                Ok(Some((at, frame))) => {
                    if let Some(range) = found[open..].last_mut() {
                        range.bytes = range.bytes.min(at - range.position);
                    }
                    if frame.header.kind.is_entry() {
                        // Without an entry between them, each of these ranges may contain all the missing records.
                        found[open..].iter_mut().for_each(|range| range.next_offset = Some(frame.header.base_offset));
                        open = found.len();
                        digest = digest.then(&frame.header, frame.payload);
                        next_offset = Offset(frame.header.base_offset.0.saturating_add(u64::from(frame.header.count)));
                    }
                    self.keep_pace(pace, walk.position() - std::mem::replace(&mut before, walk.position()))?;
                    continue;
                }
                Err(WalkError::Newer(newer)) => {
                    // This frame may be an entry, and then the digest of the entries that were read differs.
                    walk.skip_newer(&newer);
                    if let Some(range) = found[open..].last_mut() {
                        range.bytes = range.bytes.min(newer.position - range.position);
                    }
                    next_digest = None;
                    if log.still_contains(part, newer.position) {
                        log.damages().report_newer(group, &newer);
                    }
                    continue;
                }
                Err(WalkError::Bad { position, what }) => (position, what.to_owned()),
                Err(WalkError::Disk(error)) if error.is_shortage() => {
                    self.wait(Instant::now() + SHORTAGE_WAIT)?;
                    continue;
                }
                Err(WalkError::Disk(error)) => (walk.position(), error.to_string()),
                Err(WalkError::NotCached) => (walk.position(), "it can't be read".to_owned()),
            };
            if let Some(range) = found[open..].last_mut() {
                range.bytes = range.bytes.min(position - range.position);
            }
            found.push(damaged(position, next_offset, what));
            match walk.skip_bad() {
                Ok(true) if walk.position() < end => {}
                Ok(_) => break,
                Err(_) => break,
            }
            self.keep_pace(pace, walk.position() - std::mem::replace(&mut before, walk.position()))?;
        }
        if found.is_empty() && next_digest.is_some_and(|next| next != digest) {
            let what = "its entries are not those of the running digest in the next segment".to_owned();
            found.push(damaged(SEGMENT_HEADER_BYTES, part.base().offset, what));
        }
        Ok(found)
    }

    fn keep_pace(&self, pace: &mut Pace, bytes: u64) -> Result<(), Stopped> {
        self.handle.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        pace.bytes += bytes;
        pace.since_step += bytes;
        if pace.since_step < STEP_BYTES {
            return Ok(());
        }
        pace.since_step = 0;
        let seconds = pace.bytes as f64 / self.options.bytes_per_second as f64;
        self.wait(pace.begun + Duration::from_secs_f64(seconds))
    }
}

#[cfg(test)]
mod alarms;
#[cfg(test)]
pub(super) mod tests;
