//! Damage under a running log (flipped bits, zeroed bytes, unreadable blocks, a file truncated under its writer, a
//! missing segment), and frames of a newer version. Every kind of read must serve all records outside of these frames,
//! and each error must name exactly which records are missing, and whether they are damaged.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::entries::entry;
use crate::storage::error::NewerFrame;
use crate::storage::format::entry::{Entry, u64_at};
use crate::storage::format::frame::{Header, Position, frame_bytes, set_kind};
use crate::storage::format::manifest::{MANIFEST, Manifest};
use crate::storage::format::payload;
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, segment_path};
use crate::storage::format::state::{Genesis, HardState, LogState};
use crate::storage::io::disk::Access;
use crate::storage::io::disk::sim::{Rng, Sim};
use crate::storage::read::damage::DamagedRange;
use crate::storage::read::error::ReadError;
use crate::storage::read::walk::Walk;
use crate::storage::verify::{Finding, Severity, verify};
use crate::storage::write::log::GroupLog;
use crate::storage::write::options::LogOptions;
use crate::types::{GroupId, LogIndex, Offset, ReplicaId, Term};

const GROUPS: &str = "/data/groups";
const GROUP: GroupId = GroupId(7);
const ENTRIES: u64 = 60;

/// Why records can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Damaged,
    Newer,
}

/// A frame, and its position.
struct Placed {
    file: u64,
    at: u64,
    end: u64,
    header: Header,
    /// The bytes that were written at the position.
    bytes: Vec<u8>,
    /// The frame of another kind that replaced them.
    newer: Option<Vec<u8>>,
    /// Why this frame can't be read.
    lost: Option<Lost>,
    /// Why reads of its records fail: see [`Holes::settle`].
    read: Option<Lost>,
}

struct Holes {
    sim: Sim,
    rng: Rng,
    log: GroupLog,
    entries: Vec<Entry>,
    /// The frames of `entries`.
    frames: Vec<Placed>,
    notes: Vec<Placed>,
    unreadable: Vec<(u64, Range<u64>)>,
    clock: u64,
}

impl Holes {
    fn new(seed: u64) -> Holes {
        let mut rng = Rng(seed);
        let sim = Sim::default();
        let options = LogOptions { segment_bytes: [1500, 4096, 20_000, 100_000][rng.below(4) as usize] };
        GroupLog::create(&sim.disk(), Path::new(GROUPS), GROUP, &options, Genesis::founder(ReplicaId(1)))
            .expect("made");
        let (log, _) = GroupLog::open(&sim.disk(), Path::new(GROUPS), GROUP, &options).expect("opened");
        let (entries, frames, unreadable) = (Vec::new(), Vec::new(), Vec::new());
        let notes = Vec::new();
        let mut holes = Holes { sim, rng, log, entries, frames, notes, unreadable, clock: 1 };
        (0..ENTRIES).for_each(|_| holes.append());
        holes.sync();
        holes
    }

    fn append(&mut self) {
        self.clock += self.rng.below(3);
        let next = entry(self.log.last, Term(1), &mut self.rng, false, self.clock);
        self.log.append(std::slice::from_ref(&next)).expect("appended");
        let header = Header::of_entry(&next, self.log.active.position()).expect("an entry");
        let placed = self.placed(header, next.payload().len());
        self.frames.push(placed);
        self.entries.push(next);
        if self.rng.once_in(4) {
            // A hard state between two entries: damage to it alone loses no entry.
            let hard_state = self.log.hard_state;
            self.log.append_hard_state(&hard_state).expect("appended");
            let (header, payload) = hard_state.to_frame(Position::default());
            let placed = self.placed(header, payload.len());
            self.notes.push(placed);
        }
    }

    /// Describes the frame that was just appended.
    fn placed(&self, header: Header, payload_bytes: usize) -> Placed {
        let Position { file, at: end } = self.log.active.position();
        let at = end - frame_bytes(payload_bytes) as u64;
        let bytes = self.sim.files()[&self.path(file)].clone().expect("a file")[at as usize..end as usize].to_vec();
        Placed { file, at, end, header, bytes, newer: None, lost: None, read: None }
    }

    fn sync(&mut self) {
        let job = self.log.begin_sync().expect("something to sync");
        job.perform(&self.sim.disk()).expect("synced");
        self.log.end_sync(job);
    }

    fn path(&self, file: u64) -> PathBuf {
        segment_path(&Path::new(GROUPS).join(GROUP.to_string()), file)
    }

    /// Determines what is lost, and why reads of it fail. Between two readable entries of a segment it is unknown which
    /// unreadable frame contained which record, so all of the records are damaged if any of these frames is.
    fn settle(&mut self) {
        let files = self.sim.files();
        let why = |frame: &Placed| {
            let Placed { file, at, end, bytes, newer, .. } = frame;
            let now = files.get(&self.path(*file)).cloned().flatten().unwrap_or_default();
            let now = now.get(*at as usize..*end as usize);
            let unreadable = self.unreadable.iter().any(|(f, bad)| f == file && *at < bad.end && bad.start < *end);
            match now {
                _ if unreadable => Some(Lost::Damaged),
                Some(now) if now == bytes => None,
                Some(now) if newer.as_deref() == Some(now) => Some(Lost::Newer),
                Some(_) | None => Some(Lost::Damaged),
            }
        };
        let [frames, notes] = [&self.frames, &self.notes].map(|frames| frames.iter().map(why).collect::<Vec<_>>());
        let found = self.frames.iter_mut().zip(frames).chain(self.notes.iter_mut().zip(notes));
        found.for_each(|(frame, lost)| (frame.lost, frame.read) = (lost, None));
        let mut all: Vec<(&mut Placed, bool)> = self.frames.iter_mut().map(|frame| (frame, true)).collect();
        all.extend(self.notes.iter_mut().map(|note| (note, false)));
        all.sort_by_key(|(frame, _)| (frame.file, frame.at));
        let ends = |(frame, is_entry): &(&mut Placed, bool)| *is_entry && frame.lost.is_none();
        for segment in all.chunk_by_mut(|(before, _), (after, _)| before.file == after.file) {
            for run in segment.split_mut(ends) {
                let is_damaged = run.iter().any(|(frame, _)| frame.lost == Some(Lost::Damaged));
                for (frame, _) in run {
                    frame.read = frame.lost.map(|_| if is_damaged { Lost::Damaged } else { Lost::Newer });
                }
            }
        }
    }

    /// Turns a frame into one of a newer version, as that version would have written it.
    fn newer(&mut self) {
        let (is_note, kind) = (self.rng.once_in(4), [99, 100, 255][self.rng.below(3) as usize]);
        let frames = if is_note { &self.notes } else { &self.frames };
        let i = self.rng.below(frames.len() as u64) as usize;
        let Some(Placed { file, at, end, bytes, .. }) = frames.get(i) else { return };
        let path = self.path(*file);
        let Some(Some(mut segment)) = self.sim.files().get(&path).cloned() else { return };
        if segment.get(*at as usize..*end as usize) != Some(bytes) {
            return;
        }
        set_kind(&mut segment, *at, kind);
        let newer = segment[*at as usize..*end as usize].to_vec();
        self.sim.damage(&path, segment);
        let frames = if is_note { &mut self.notes } else { &mut self.frames };
        frames[i].newer = Some(newer);
    }

    fn damage(&mut self) {
        let frame = self.rng.below(self.frames.len() as u64) as usize;
        let Placed { file, at, end, .. } = self.frames[frame];
        let path = self.path(file);
        let bytes = self.sim.files().get(&path).cloned().flatten();
        let Some(mut bytes) = bytes.filter(|bytes| bytes.len() as u64 >= end) else { return };
        match self.rng.below(12) {
            0..=3 => {
                let byte = at + self.rng.below(end - at);
                bytes[byte as usize] ^= 1 << self.rng.below(8);
                self.sim.damage(&path, bytes);
            }
            4..=6 => {
                let from = at + self.rng.below(end - at);
                let until = (from + 1 + self.rng.below(2000)).min(bytes.len() as u64);
                bytes[from as usize..until as usize].iter_mut().for_each(|byte| *byte ^= 0x55);
                self.sim.damage(&path, bytes);
            }
            7 | 8 => {
                let from = at / 4096 * 4096;
                self.sim.unreadable(&path, from..from + 4096);
                self.unreadable.push((file, from..from + 4096));
            }
            9 if file != self.log.active.position().file => {
                self.log.disk.segment_cache().close_all();
                self.sim.lose(&path);
            }
            _ => {
                let newest = self.log.active.position();
                let path = self.path(newest.file);
                let Some(Some(mut bytes)) = self.sim.files().get(&path).cloned() else { return };
                let kept = SEGMENT_HEADER_BYTES + self.rng.below(newest.at - SEGMENT_HEADER_BYTES + 1);
                if (bytes.len() as u64) < kept {
                    return;
                }
                bytes.truncate(kept as usize);
                self.sim.damage(&path, bytes);
                // The stream continues after the damage.
                (0..self.rng.below(8)).for_each(|_| self.append());
            }
        }
    }

    /// The lost records, and why a read of each of them fails.
    fn lost_offsets(&self) -> BTreeMap<u64, Lost> {
        let offsets = |f: &Placed| f.header.base_offset.0..f.header.base_offset.0 + u64::from(f.header.count);
        self.frames
            .iter()
            .filter_map(|f| Some((offsets(f), f.read?)))
            .flat_map(|(o, why)| o.map(move |o| (o, why)))
            .collect()
    }

    fn records(&self) -> Vec<Vec<u8>> {
        let payloads: Vec<Vec<u8>> = self.entries.iter().map(|entry| entry.payload().to_vec()).collect();
        let records = self.entries.iter().zip(&payloads).filter(|(entry, _)| entry.stamp().expect("a stamp").count > 0);
        records.flat_map(|(_, payload)| payload::records(payload).map(|r| r.expect("a record").to_vec())).collect()
    }

    /// Reads everything as a stream does that continues after each loss.
    fn stream(&mut self, by_blocks: bool) {
        let (reader, lost, records) = (self.log.reader(), self.lost_offsets(), self.records());
        let until = self.log.bounds().next_offset;
        let (mut next, mut place) = (Offset(0), None);
        while next < until {
            let bytes_max = [1, 700, usize::MAX][self.rng.below(3) as usize];
            let access = if self.rng.once_in(3) { Access::Cached } else { Access::Blocking };
            let read = if by_blocks {
                reader.block(next, until, bytes_max.min(1 << 20), access, place).map(|(slice, behind)| {
                    place = behind;
                    slice
                })
            } else {
                reader.records(next, until, u32::MAX, bytes_max, access)
            };
            match read {
                Err(ReadError::NotCached) if access == Access::Cached => {}
                Ok(slice) => {
                    assert!(slice.next > next, "something at {next}");
                    let wanted: Vec<u8> = records[next.0 as usize..slice.next.0 as usize].concat();
                    assert!(slice.bytes == wanted, "{next} to {}", slice.next);
                    assert_eq!(lost.range(next.0..slice.next.0).next(), None, "served though it is lost");
                    next = slice.next;
                }
                Err(error) => {
                    assert!(access == Access::Blocking || matches!(error, ReadError::NewerFrame(_)), "{next}: {error}");
                    next = refused(error, next, &lost, until);
                    place = None;
                }
            }
        }
    }

    /// Checks that every offset from `first` on is either a readable record, damaged, of a newer version, or out of
    /// range.
    fn exact(&self, first: Offset) {
        let (reader, lost, records) = (self.log.reader(), self.lost_offsets(), self.records());
        let until = self.log.bounds().next_offset;
        for offset in (0..=until.0 + 1).map(Offset) {
            let read = reader.records(offset, until, 1, 0, Access::Blocking);
            match (read, lost.get(&offset.0)) {
                (Err(ReadError::Trimmed { first_offset }), _) => assert!(offset < first && first_offset == first),
                (Err(error), _) => drop(refused(error, offset, &lost, until)),
                (Ok(slice), None) if offset < until => {
                    assert_eq!((slice.count, &slice.bytes), (1, &records[offset.0 as usize]), "{offset}");
                }
                (Ok(slice), why) => assert!(offset >= until && slice.count == 0, "{offset}: {why:?}"),
            }
        }
    }

    /// Reads entries as raft does for a follower. Expects the valid entries before the first bad one, and an error only
    /// if that is the first one.
    fn entries(&mut self) {
        let reader = self.log.reader();
        for _ in 0..30 {
            let low = self.rng.below(self.entries.len() as u64) as usize;
            let high = low + 1 + self.rng.below(20) as usize;
            let first = self.entries[low].index;
            let read = reader.entries(first, LogIndex(first.0 + (high - low) as u64), u64::MAX, Access::Blocking);
            let sound = self.frames[low..].iter().take(high - low).take_while(|frame| frame.lost.is_none()).count();
            match read {
                // A read may also end before damage that contains no entry.
                Ok(read) => {
                    assert!(!read.is_empty() && read.len() <= sound, "{low} to {high}");
                    assert!(read == self.entries[low..low + read.len()], "{low} to {high}");
                }
                Err(ReadError::Damaged(_)) => assert_eq!(self.frames[low].read, Some(Lost::Damaged), "{low} to {high}"),
                Err(ReadError::NewerFrame(_)) => {
                    assert_eq!(self.frames[low].read, Some(Lost::Newer), "{low} to {high}")
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// Searches by time. Expects the first record at or after a time, or the first lost one that may be it.
    fn by_time(&mut self) {
        let (reader, until) = (self.log.reader(), self.log.bounds().next_offset);
        for _ in 0..20 {
            let time = self.rng.below(self.clock + 2);
            let read = reader.first_not_before(time, Offset(0), until, Access::Blocking).expect("no damage stops it");
            let records = |frame: &&Placed| frame.header.kind.is_records();
            let older = |frame: &Placed| frame.lost.is_none() && frame.header.append_time_us < time;
            // No earlier record is newer than the time in a segment's header.
            let parts = reader.view().parts.clone();
            let begins = parts.iter().rev().find(|part| part.segment.header.time_before_us < time);
            let begins = begins.map_or(Offset(0), |part| part.base().offset);
            // A readable older record proves that everything before it is older. If the index contains an older entry
            // without records, that may prove it too.
            let expected = |proves: &dyn Fn(&Placed) -> bool| {
                let behind_older = self.frames.iter().rposition(|frame| older(frame) && proves(frame));
                let frames = self.frames[behind_older.map_or(0, |i| i + 1)..].iter().filter(records);
                let mut first = frames.map(|frame| frame.header.base_offset);
                first.find(|offset| *offset >= begins).unwrap_or(until)
            };
            let (read, from) = (read.unwrap_or(until), expected(&|frame| frame.header.kind.is_records()));
            assert!(from <= read && read <= expected(&|_| true), "time {time}: {read}");
        }
    }

    /// Checks that the position of each failed read is listed if it is damaged, and logged if a newer version wrote it.
    fn listed(&self) {
        let reader = self.log.reader();
        let (list, newer) = (reader.published().damages().list(), reader.published().damages().newer());
        for frame in self.frames.iter().filter(|frame| frame.header.count > 0) {
            let path = self.path(frame.file);
            let name = path.file_name().expect("a name").to_string_lossy();
            let told = |range: &DamagedRange| {
                range.file == name && range.position < frame.end && frame.at < range.position + range.bytes
            };
            let is_newer =
                |newer: &NewerFrame| (&newer.file, newer.position, newer.end) == (&path, frame.at, frame.end);
            let listed = (list.iter().any(told), newer.iter().any(is_newer));
            let expected = (frame.lost == Some(Lost::Damaged), frame.lost == Some(Lost::Newer));
            assert!(listed == expected || frame.lost.is_none(), "{name} byte {}: {list:?}, {newer:?}", frame.at);
        }
    }

    /// Checks that `data verify` names each frame of a newer version, and does not report it as damaged.
    fn verified(&self) {
        let report = verify(&self.sim.disk(), Path::new("/data")).expect("a report");
        let whole = self.unreadable.is_empty() && report.more == 0;
        let durable = self.known_durable();
        for frame in self.frames.iter().chain(&self.notes).filter(|frame| frame.lost == Some(Lost::Newer)) {
            let path = self.path(frame.file);
            let of_file = || report.findings.iter().filter(|finding| finding.file == path);
            let is_named =
                |f: &Finding| f.severity == Severity::Format && (f.position, f.end) == (frame.at, Some(frame.end));
            let is_called_damaged = |f: &Finding| {
                let end = f.end.unwrap_or(f.position + 1);
                f.severity == Severity::Damage && f.position < frame.end && frame.at < end
            };
            // Bytes that are not known to be synced may be after the end of the log.
            let is_durable = Position { file: frame.file, at: frame.end } <= durable;
            assert!(!whole || !is_durable || of_file().any(is_named), "{path:?} {}: {report:?}", frame.at);
            assert!(!of_file().any(is_called_damaged), "{path:?} {}: {report:?}", frame.at);
        }
    }

    /// The durable position, as the manifest and the readable frames show it.
    fn known_durable(&self) -> Position {
        let path = Path::new(GROUPS).join(GROUP.to_string()).join(MANIFEST);
        let bytes = self.sim.files()[&path].clone().expect("a file");
        let noted = Manifest::decode(&bytes, &path).expect("a manifest").durable;
        let sound = self.frames.iter().chain(&self.notes).filter(|frame| frame.lost.is_none());
        let durable = |frame: &Placed| Position { file: u64_at(&frame.bytes, 64), at: u64_at(&frame.bytes, 72) };
        sound.map(durable).fold(noted, Ord::max)
    }

    /// Drops whole segments at the front.
    fn trim(&mut self) -> Offset {
        let last = self.log.bounds();
        let hard_state = HardState { term: Term(1), vote: None, commit: last.last_index };
        self.log.append_hard_state(&hard_state).expect("appended");
        self.log.set_applied(last.last_index);
        let first_offset = Offset(self.rng.below(last.next_offset.0));
        self.log.set_log_state(
            LogState { first_offset, last_append_time_us: self.clock, ..LogState::default() },
            last.last_index,
        );
        self.log.trim(first_offset, last.last_index).expect("trimmed").offset
    }
}

/// Checks the error of a read at an offset; returns where reading can continue.
fn refused(error: ReadError, from: Offset, lost: &BTreeMap<u64, Lost>, until: Offset) -> Offset {
    let told = error.to_string();
    let (first, resume, why) = match error {
        ReadError::Damaged(range) => (range.first_offset, range.next_offset, Lost::Damaged),
        ReadError::NewerFrame(newer) => (newer.first_offset, newer.next_offset, Lost::Newer),
        other => panic!("{from}: {other}"),
    };
    let resume = resume.expect("where to continue");
    assert_eq!((first, lost.get(&from.0)), (from, Some(&why)), "{told}: {lost:?}");
    // The error names all adjacent records that are lost for the same reason, and no others.
    let ends = (from.0 + 1..).find(|offset| lost.get(offset) != Some(&why)).expect("an end");
    assert_eq!(resume, until.min(Offset(ends)), "{from} {why:?}: {told}: {lost:?}");
    resume
}

fn read_all(holes: &mut Holes) {
    holes.settle();
    holes.stream(false);
    holes.listed();
    holes.stream(true);
    holes.exact(Offset(0));
    holes.entries();
    holes.by_time();
}

pub fn history(seed: u64) {
    let mut holes = Holes::new(seed);
    for _ in 0..1 + holes.rng.below(4) {
        holes.damage();
    }
    read_all(&mut holes);
}

/// As [`history`], with frames of a newer version, and damage near some of them.
pub fn newer_history(seed: u64) {
    let mut holes = Holes::new(seed);
    for _ in 0..1 + holes.rng.below(8) {
        if holes.rng.once_in(4) { holes.damage() } else { holes.newer() }
    }
    read_all(&mut holes);
    holes.verified();
    let first = holes.trim();
    // The trim has written to the newest segment, so a frame that was truncated within its zero padding is complete
    // again.
    holes.settle();
    holes.exact(first);
}

/// Once, one flipped bit hid all records up to the next index entry, and those before it in the same read. A segment
/// that was truncated under its writer hid everything that was appended later.
#[test]
fn valid_records_are_served() {
    super::by_seed(1500, history);
}

/// Once, a frame of a newer version hid all records up to the next index entry, and any damage before it.
#[test]
fn records_around_frames_of_a_newer_version_are_served() {
    super::by_seed(1500, newer_history);
}

/// The header of a valid frame crosses the end of a block, and the second block after that can't be read.
#[test]
fn a_header_that_crosses_a_block_is_found() {
    history(990_005_603);
}

/// A walk over a damaged log skips exactly what is lost.
#[test]
fn a_walk_skips_exactly_what_is_lost() {
    let holes = Holes::new(1);
    for part in &holes.log.reader().view().parts {
        let file = part.segment.file(Access::Blocking).expect("opened").expect("open");
        let header = &part.segment.header;
        let mut walk = Walk::new(&file, header.salt, SEGMENT_HEADER_BYTES, part.end(), Access::Blocking);
        while let Some((at, frame)) = walk.next().expect("sound") {
            let placed = if frame.header.kind.is_entry() { &holes.frames } else { &holes.notes };
            assert!(placed.iter().any(|f| (f.file, f.at) == (header.number, at)));
        }
    }
}
