//! Damage under a running log: flipped bits, zeroed bytes, unreadable blocks, a file truncated under its writer, a missing segment.
//! Every kind of read serves all records outside damaged frames, and each error names exactly what is lost.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::model::entry;
use crate::storage::format::entry::Entry;
use crate::storage::format::frame::{Header, frame_bytes};
use crate::storage::format::payload;
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, segment_path};
use crate::storage::format::state::Genesis;
use crate::storage::io::disk::Access;
use crate::storage::io::disk::sim::{Rng, Sim};
use crate::storage::read::error::ReadError;
use crate::storage::read::walk::Walk;
use crate::storage::write::log::GroupLog;
use crate::storage::write::options::LogOptions;
use crate::types::{GroupId, LogIndex, NodeId, Offset, Term};

const GROUPS: &str = "/data/groups";
const GROUP: GroupId = GroupId(7);
const ENTRIES: u64 = 60;

/// A frame of an entry, and its position.
struct Placed {
    file: u64,
    at: u64,
    end: u64,
    header: Header,
    /// The bytes that were written there.
    bytes: Vec<u8>,
    lost: bool,
}

struct Holes {
    sim: Sim,
    rng: Rng,
    log: GroupLog,
    entries: Vec<Entry>,
    frames: Vec<Placed>,
    unreadable: Vec<(u64, Range<u64>)>,
    clock: u64,
}

impl Holes {
    fn new(seed: u64) -> Holes {
        let mut rng = Rng(seed);
        let sim = Sim::default();
        let options = LogOptions { segment_bytes: [1500, 4096, 20_000, 100_000][rng.below(4) as usize] };
        GroupLog::create(&sim.disk(), Path::new(GROUPS), GROUP, &options, Genesis::Founder(NodeId(1))).expect("made");
        let (log, _) = GroupLog::open(&sim.disk(), Path::new(GROUPS), GROUP, &options).expect("opened");
        let (entries, frames, unreadable) = (Vec::new(), Vec::new(), Vec::new());
        let mut holes = Holes { sim, rng, log, entries, frames, unreadable, clock: 1 };
        (0..ENTRIES).for_each(|_| holes.append());
        holes.sync();
        holes
    }

    fn append(&mut self) {
        self.clock += self.rng.below(3);
        let next = entry(self.log.last, Term(1), &mut self.rng, false, self.clock);
        self.log.append(std::slice::from_ref(&next)).expect("appended");
        let end = self.log.active.position();
        let at = end.at - frame_bytes(next.payload().len()) as u64;
        let header = Header::of_entry(&next, end).expect("an entry");
        let bytes =
            self.sim.files()[&self.path(end.file)].clone().expect("a file")[at as usize..end.at as usize].to_vec();
        self.frames.push(Placed { file: end.file, at, end: end.at, header, bytes, lost: false });
        self.entries.push(next);
        if self.rng.once_in(4) {
            // A hard state between two entries: damage to it alone loses no entry.
            let hard_state = self.log.hard_state;
            self.log.append_hard_state(&hard_state).expect("appended");
        }
    }

    fn sync(&mut self) {
        let job = self.log.begin_sync().expect("something to sync");
        job.perform(&self.sim.disk()).expect("synced");
        self.log.end_sync(job);
    }

    fn path(&self, file: u64) -> PathBuf {
        segment_path(&Path::new(GROUPS).join(GROUP.to_string()), file)
    }

    /// Determines what is lost.
    fn settle(&mut self) {
        let files = self.sim.files();
        for i in 0..self.frames.len() {
            let Placed { file, at, end, bytes, .. } = &self.frames[i];
            let now = files.get(&self.path(*file)).cloned().flatten().unwrap_or_default();
            let unreadable = self.unreadable.iter().any(|(f, bad)| f == file && *at < bad.end && bad.start < *end);
            self.frames[i].lost = unreadable || now.get(*at as usize..*end as usize) != Some(bytes);
        }
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

    fn lost_offsets(&self) -> BTreeSet<u64> {
        let lost = self.frames.iter().filter(|frame| frame.lost);
        lost.flat_map(|f| f.header.base_offset.0..f.header.base_offset.0 + u64::from(f.header.count)).collect()
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
                    assert_eq!(lost.range(next.0..slice.next.0).next(), None, "served though damaged");
                    next = slice.next;
                }
                Err(ReadError::Damaged(range)) => {
                    let behind = range.next_offset.expect("where to go on");
                    assert_eq!(range.first_offset, next, "{range:?}");
                    assert!(behind > next && behind <= until, "{next}: {range:?}");
                    assert!((next.0..behind.0).all(|offset| lost.contains(&offset)), "{next}: {range:?}, {lost:?}");
                    assert!(behind == until || !lost.contains(&behind.0), "{next}: {range:?}, {lost:?}");
                    assert!(access == Access::Blocking);
                    (next, place) = (behind, None);
                }
                Err(other) => panic!("{next}: {other}"),
            }
        }
    }

    fn one_by_one(&mut self) {
        let (reader, lost) = (self.log.reader(), self.lost_offsets());
        let until = self.log.bounds().next_offset;
        for _ in 0..30 {
            let offset = Offset(self.rng.below(until.0));
            let read = reader.records(offset, until, 1, 0, Access::Blocking);
            assert_eq!(read.is_err(), lost.contains(&offset.0), "{offset}: {read:?}");
        }
    }

    /// Reads entries as raft does for a follower: the valid ones before the first bad one, and an error only if that is the first.
    fn entries(&mut self) {
        let reader = self.log.reader();
        for _ in 0..30 {
            let low = self.rng.below(self.entries.len() as u64) as usize;
            let high = low + 1 + self.rng.below(20) as usize;
            let first = self.entries[low].index;
            let read = reader.entries(first, LogIndex(first.0 + (high - low) as u64), u64::MAX, Access::Blocking);
            let sound = self.frames[low..].iter().take(high - low).take_while(|frame| !frame.lost).count();
            match read {
                // It may end before damage that contains no entry.
                Ok(read) => {
                    assert!(!read.is_empty() && read.len() <= sound, "{low} to {high}");
                    assert!(read == self.entries[low..low + read.len()], "{low} to {high}");
                }
                Err(ReadError::Damaged(_)) => assert_eq!(sound, 0, "{low} to {high}"),
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// The first record of a time, or the first lost one that may be it.
    fn by_time(&mut self) {
        let (reader, until) = (self.log.reader(), self.log.bounds().next_offset);
        for _ in 0..20 {
            let time = self.rng.below(self.clock + 2);
            let read = reader.first_not_before(time, Offset(0), until, Access::Blocking).expect("no damage stops it");
            let records = |frame: &&Placed| frame.header.kind.is_records();
            let older = |frame: &Placed| !frame.lost && frame.header.append_time_us < time;
            // No earlier record is newer than the time in a segment's header.
            let parts = reader.view().parts.clone();
            let begins = parts.iter().rev().find(|part| part.segment.header.time_before_us < time);
            let begins = begins.map_or(Offset(0), |part| part.base().offset);
            // An older record proves that what is before it is older; an index may contain another older entry.
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

    /// The position of each failed read is listed.
    fn listed(&self) {
        let list = self.log.reader().published().damages().list();
        for frame in self.frames.iter().filter(|frame| frame.lost && frame.header.count > 0) {
            let name = self.path(frame.file);
            let name = name.file_name().expect("a name").to_string_lossy();
            let told = |range: &&crate::storage::read::damage::DamagedRange| {
                range.file == name && range.position < frame.end && frame.at < range.position + range.bytes
            };
            assert!(list.iter().any(|range| told(&range)), "{name} byte {}: {list:?}", frame.at);
        }
    }
}

pub fn history(seed: u64) {
    let mut holes = Holes::new(seed);
    for _ in 0..1 + holes.rng.below(4) {
        holes.damage();
    }
    holes.settle();
    holes.stream(false);
    holes.listed();
    holes.stream(true);
    holes.one_by_one();
    holes.entries();
    holes.by_time();
}

/// One flipped bit hid all records up to the next index entry, and those before it in the same read. A segment that was truncated
/// under its writer hid everything that was appended later.
#[test]
fn valid_records_are_served() {
    super::by_seed(1500, history);
}

/// The header of a valid frame crosses the end of a block, and the block after the next can't be read.
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
            let placed = holes.frames.iter().any(|f| (f.file, f.at) == (header.number, at));
            assert_eq!(placed, frame.header.kind.is_entry());
        }
    }
}
