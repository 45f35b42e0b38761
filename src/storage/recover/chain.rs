//! The chain of segments, followed backward from one of them, and the walk over the frames that a start has to read.

use std::collections::BTreeMap;

use crate::storage::error::{NewerFrame, StorageError};
use crate::storage::faults::{Fault, broken};
use crate::storage::format::checkpoints::{Checkpoints, RecentEnds};
use crate::storage::format::entry::TERM_TOO_LARGE;
use crate::storage::format::frame::{FrameKind, Header, NoteKind, Position};
use crate::storage::format::index::worth_noting;
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::storage::format::state::{Base, HardState};
use crate::storage::format::versioned::NUMBERS_MAX;
use crate::storage::io::disk::Access;
use crate::storage::io::group_files::GroupFiles;
use crate::storage::read::walk::{Walk, WalkError};
use crate::types::{LogIndex, Term};

/// Why a chain is not complete.
pub(crate) enum Break {
    /// It breaks at this position, for this reason.
    At(Position, &'static str),
    /// The disk could not be read.
    Refused(StorageError),
    /// A newer version wrote a frame.
    Newer(NewerFrame),
}

/// Segments, each the predecessor of the next. The first one is the first segment of the manifest.
pub(crate) struct Chain {
    headers: Vec<SegmentHeader>,
    numbers: Vec<u64>,
}

/// The end of a log, and what its frames contain.
pub(crate) struct Ended {
    /// The position of the end in the newest segment.
    pub(crate) at: u64,
    /// Why the log ends there.
    pub(crate) what: &'static str,
    pub(crate) last: Base,
    pub(crate) time_us: u64,
    pub(crate) hard_state: HardState,
    pub(crate) terms: Vec<(LogIndex, Term)>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) recent: RecentEnds,
    /// The manifest's applied index.
    applied: LogIndex,
    /// The highest durable position in the frames that were read.
    pub(crate) durable: Position,
    /// The position up to which the frames of each segment were read.
    pub(crate) read: BTreeMap<u64, u64>,
    /// The frames to put into the index of the newest segment, and their positions.
    pub(crate) noted: Vec<(Header, u64)>,
}

impl Chain {
    /// Reads the chain backward from the segment `newest`, then its frames.
    pub(crate) fn read(files: &GroupFiles, newest: u64) -> Result<(Chain, Ended), Break> {
        let chain = Chain::back(files, newest)?;
        let ended = chain.scan(files)?;
        Ok((chain, ended))
    }

    /// Reads the chain backward, by the headers alone.
    pub(crate) fn back(files: &GroupFiles, newest: u64) -> Result<Chain, Break> {
        let first = files.manifest.first_segment;
        let mut headers = Vec::new();
        let mut number = newest;
        loop {
            let at = |at| Position { file: number, at };
            let header = match files.headers.get(&number) {
                None => return Err(Break::At(at(0), "the segment is missing")),
                Some(None) => return Err(Break::At(at(0), "the segment has no valid header")),
                Some(Some(header)) => *header,
            };
            headers.push(header);
            if number == first {
                break;
            }
            let predecessor = header.predecessor;
            if predecessor.file < first || predecessor.file >= number || predecessor.at < SEGMENT_HEADER_BYTES {
                return Err(Break::At(at(40), "the segment does not continue the log"));
            }
            number = predecessor.file;
        }
        headers.reverse();
        if headers[0].base != files.manifest.base {
            return Err(Break::At(
                Position { file: first, at: 56 },
                "the first segment does not begin where the manifest says",
            ));
        }
        let numbers = headers.iter().map(|h| h.number).collect();
        Ok(Chain { headers, numbers })
    }

    /// All segments, each with the position where the next one continues; the newest ends at `end`.
    pub(crate) fn stretches(&self, end: u64) -> impl Iterator<Item = (SegmentHeader, u64)> {
        let newest = std::iter::once((*self.newest_header(), end));
        self.sealed().map(|(header, limit)| (*header, limit)).chain(newest)
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest_header().number
    }

    pub(crate) fn newest_header(&self) -> &SegmentHeader {
        &self.headers[self.headers.len() - 1]
    }

    /// True if the segment is part of the chain.
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.numbers.binary_search(&number).is_ok()
    }

    /// The segments except the newest, each with the position where the next one continues.
    pub(crate) fn sealed(&self) -> impl Iterator<Item = (&SegmentHeader, u64)> {
        self.headers.windows(2).map(|pair| (&pair[0], pair[1].predecessor.at))
    }

    /// Reads the frames from the segment that contains the manifest's durable position on, or only those of the newest
    /// segment if that one is older. Everything before is synced, and its terms are in the manifest.
    fn scan(&self, files: &GroupFiles) -> Result<Ended, Break> {
        let manifest = &files.manifest;
        let newest = self.headers.len() - 1;
        let start = self.numbers.partition_point(|n| *n < manifest.durable.file).min(newest);
        let header = &self.headers[start];
        let mut terms = manifest.terms.clone();
        terms.retain(|(first, _)| *first <= header.base.index);
        if terms.first() != Some(&(manifest.base.index, manifest.base.term))
            || terms.last().map(|(_, term)| *term) != Some(header.base.term)
        {
            let what = "the term before the segment is not the one in the manifest";
            return Err(Break::At(Position { file: header.number, at: 64 }, what));
        }
        let mut ended = Ended::before(header, terms);
        ended.applied = manifest.applied;
        ended.checkpoints = Checkpoints::up_to(&manifest.checkpoints, header.base.index);
        for i in start..=newest {
            let limit = self.headers.get(i + 1).map(|next| next.predecessor.at);
            ended.segment(files, &self.headers[i], limit)?;
        }
        Ok(ended)
    }
}

impl Ended {
    /// The state at the beginning of a segment, from its header.
    pub(crate) fn before(header: &SegmentHeader, terms: Vec<(LogIndex, Term)>) -> Ended {
        Ended {
            at: SEGMENT_HEADER_BYTES,
            what: "the log ends",
            last: header.base,
            time_us: header.time_before_us,
            hard_state: header.hard_state,
            terms,
            checkpoints: Checkpoints::default(),
            recent: RecentEnds::default(),
            applied: LogIndex(0),
            durable: Position::default(),
            read: BTreeMap::new(),
            noted: Vec::new(),
        }
    }

    /// Reads one more segment, up to where the next one continues; without a limit, to its last valid frame.
    fn segment(&mut self, files: &GroupFiles, header: &SegmentHeader, limit: Option<u64>) -> Result<(), Break> {
        let number = header.number;
        if header.base != self.last {
            return Err(Break::At(Position { file: number, at: 56 }, "the segment does not continue the log"));
        }
        self.hard_state = header.hard_state;
        self.time_us = self.time_us.max(header.time_before_us);
        let Some(file) = files.open.get(&number) else {
            // This segment is older than the durable position. The caller detects that the durable position is not in
            // the chosen segment.
            return Ok(());
        };
        let end = match limit {
            Some(limit) => limit,
            None => file.len().map_err(Break::Refused)?,
        };
        self.noted.clear();
        let mut walk = Walk::new(file, header.salt, SEGMENT_HEADER_BYTES, end, Access::Blocking);
        loop {
            let (at, what) = match walk.next() {
                Ok(None) => (end, "the file ends"),
                Ok(Some((at, frame))) => match self.frame(&frame) {
                    Ok(()) => {
                        self.durable = self.durable.max(frame.header.durable);
                        if worth_noting(self.noted.last().map(|(_, at)| *at), &frame.header, at) {
                            self.noted.push((frame.header, at));
                        }
                        continue;
                    }
                    Err(what) => (at, what),
                },
                Err(WalkError::Bad { position, what }) => (position, what),
                Err(WalkError::Disk(error)) => return Err(Break::Refused(error)),
                // This is not the end of the log: it continues with a frame that this version can't read.
                Err(WalkError::Newer(newer)) => return Err(Break::Newer(newer)),
                Err(WalkError::NotCached) => (walk.position(), "the segment can't be read"),
            };
            self.read.insert(number, at);
            return match limit {
                Some(limit) if at == limit || broken(Fault::PredecessorEndIgnored) => Ok(()),
                Some(_) => Err(Break::At(Position { file: number, at }, what)),
                None => {
                    (self.at, self.what) = (at, what);
                    Ok(())
                }
            };
        }
    }

    /// Checks that a frame continues the log, and adds its contents.
    pub(crate) fn frame(&mut self, frame: &crate::storage::format::frame::Frame<'_>) -> Result<(), &'static str> {
        let header = &frame.header;
        match header.kind {
            FrameKind::Entry(_) => {
                if header.index.0 > NUMBERS_MAX {
                    return Err("the entry has an impossible index");
                }
                if header.term > Term::MAX {
                    return Err(TERM_TOO_LARGE.0);
                }
                let next = self.last.then_frame(header, frame.payload).map_err(|bad| bad.0)?;
                let continues = header.index == self.last.index.next()
                    && header.term >= self.last.term
                    && header.base_offset == self.last.offset;
                if !continues && !broken(Fault::HoleAccepted) {
                    return Err("the entry does not continue the log");
                }
                if header.term > self.last.term {
                    self.terms.push((header.index, header.term));
                }
                self.last = next;
                self.checkpoints.note(next);
                self.recent.note(next, self.applied);
                self.time_us = self.time_us.max(header.append_time_us);
            }
            FrameKind::Note(NoteKind::HardState) => {
                self.hard_state = HardState::of_frame(frame).map_err(|bad| bad.0)?
            }
            FrameKind::Note(NoteKind::Synced | NoteKind::Filler) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::format::entry::{EntryKind, OFFSET_TOO_LARGE};
    use crate::storage::format::frame::Frame;
    use crate::types::Offset;

    /// A frame with a correct checksum may still contain impossible numbers. It is refused with an error that names
    /// them, and no addition overflows.
    #[test]
    fn refuses_entries_with_impossible_numbers_by_name() {
        let golden = include_bytes!("../../../tests/golden/segment-header-v2.bin");
        let header = SegmentHeader::decode(golden).expect("a header");
        let read = |base_offset: Offset, term, count| {
            let mut ended = Ended::before(&header, Vec::new());
            ended.last.offset = base_offset;
            let kind = FrameKind::Entry(EntryKind::Records);
            let note = Header::of_note(NoteKind::Filler, Position::default());
            let header = Header { kind, count, term, index: ended.last.index.next(), base_offset, ..note };
            ended.frame(&Frame { header, payload: &[] }).map(|()| ended.last.offset)
        };
        let last = Offset(Offset::MAX.0 - 1);
        assert_eq!(read(last, Term::MAX, 1), Ok(Offset::MAX));
        assert_eq!(read(last, Term::MAX, 2), Err(OFFSET_TOO_LARGE.0));
        assert_eq!(read(Offset(u64::MAX), Term::MAX, 1), Err(OFFSET_TOO_LARGE.0));
        assert_eq!(read(last, Term(1 << 63), 1), Err(TERM_TOO_LARGE.0));
    }
}
