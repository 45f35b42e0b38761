//! How a read goes over the frames of a log, from the place that an index says, and past what is damaged.
//!
//! An index is not trusted: where it leads to no sound frame, or behind the key, the walk begins at an earlier frame. What is
//! damaged ends no walk: the next sound frame behind tells, by its offset, which records are lost, and the visitor sees both.

use std::sync::Arc;

use super::damage::DamagedRange;
use super::faults::{Fault, broken};
use super::frame::Frame;
use super::index::Key;
use super::reader::{Access, GroupReader, ReadError};
use super::segment::SEGMENT_HEADER_BYTES;
use super::view::{Part, View};
use super::walk::{Walk, WalkError};
use crate::types::Offset;

/// What a visitor of frames says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Visit {
    Next,
    /// The next one, too, if no damage lies before it.
    NextSound,
    Done,
}

impl GroupReader {
    /// Walks from the last indexed frame that is not behind the key to the end of the log, or until the visitor is done. Damage
    /// is passed over: the visitor sees the next sound frame, and what lies between it and the last entry that it saw. Gives
    /// the damage behind the last entry, if there is some.
    pub(super) fn visit(
        &self,
        view: &View,
        key: Key,
        access: Access,
        mut visitor: impl FnMut(&Part, u64, &Frame<'_>, Option<&DamagedRange>) -> Result<Visit, ReadError>,
    ) -> Result<Option<DamagedRange>, ReadError> {
        let first = match key {
            Key::Index(index) => view.part_of_index(index),
            Key::Offset(offset) => view.part_of_offset(offset),
            Key::Time(time_us) => view.part_of_time(time_us),
        };
        let mut holes = Holes { reader: self, access, said: Visit::Next, open: None, pending: None };
        for (i, part) in view.parts.iter().enumerate().skip(first) {
            let behind = view.parts.get(i + 1).map(|next| next.base().offset);
            let index = if i == first { Some(part.segment.index(access)) } else { None };
            let index = match index {
                Some(Ok(None)) => return Err(ReadError::NotCached),
                Some(Ok(index)) => index,
                Some(Err(error)) if error.is_shortage() => return Err(ReadError::Shortage(error.to_string())),
                Some(Err(error)) if broken(Fault::IndexMustBeRead) => return Err(ReadError::Io(error.to_string())),
                // Then its segment can't be opened either.
                Some(Err(_)) | None => None,
            };
            let file = match part.segment.file(access) {
                Ok(Some(file)) => file,
                Ok(None) => return Err(ReadError::NotCached),
                Err(error) => {
                    if !holes.begin(part, 0, part.base().offset, WalkError::Disk(error))? {
                        break;
                    }
                    holes.end(part, part.end(), behind);
                    continue;
                }
            };
            let end = part.end();
            let noted = index.as_ref().map_or(SEGMENT_HEADER_BYTES, |index| index.position(key));
            let mut start = noted.min(end);
            let mut walk = Walk::new(&file, part.segment.header.salt, start, end, access);
            // Whether a frame was seen that may be believed, how many steps back are next, and what comes behind the last entry.
            let (mut begun, mut back, mut next_offset) = (start == SEGMENT_HEADER_BYTES, 1, part.base().offset);
            loop {
                match walk.next() {
                    // An index that leads behind the key is wrong, and so is one that leads to no frame.
                    Ok(Some((_, frame))) if !begun && is_behind(&frame, key) && !broken(Fault::IndexTrusted) => {
                        part.segment.tell_wrong_index();
                    }
                    Ok(Some((at, frame))) => {
                        begun = true;
                        let entry = frame.header.kind.is_entry();
                        if entry {
                            holes.end(part, at, Some(frame.header.base_offset));
                        }
                        holes.said = visitor(part, at, &frame, holes.pending.as_ref())?;
                        if holes.said == Visit::Done {
                            return Ok(holes.pending);
                        }
                        if entry {
                            holes.pending = None;
                            let count = u64::from(frame.header.count);
                            next_offset = Offset(frame.header.base_offset.0.saturating_add(count));
                        }
                        continue;
                    }
                    // Nor does one lead to where the log goes on in the next segment. (The newest's was made by this process.)
                    Ok(None) if begun || part.limit.is_none() => break,
                    // It still notes what stood behind the end before that was cut off.
                    Ok(None) if noted >= end => {}
                    Ok(None) => part.segment.tell_wrong_index(),
                    Err(WalkError::NotCached) => return Err(ReadError::NotCached),
                    // It may be the index that is wrong: from an earlier frame the walk comes here again.
                    Err(WalkError::Bad { .. }) if !begun => {}
                    Err(WalkError::Disk(error)) if !begun && !error.is_shortage() => {}
                    Err(error) => {
                        if !holes.begin(part, walk.position(), next_offset, error)? {
                            return Ok(holes.pending);
                        }
                        match walk.skip_bad() {
                            Ok(true) => continue,
                            Ok(false) => break,
                            Err(error) => return Err(read_error(part, error)),
                        }
                    }
                }
                start = index.as_ref().map_or(SEGMENT_HEADER_BYTES, |index| index.before(start, back));
                begun = start == SEGMENT_HEADER_BYTES;
                back *= 2;
                walk = Walk::new(&file, part.segment.header.salt, start, end, access);
            }
            holes.end(part, end, behind);
        }
        Ok(holes.pending)
    }

    /// Is this position part of the log, now that something was found there? It may have been trimmed or cut meanwhile.
    pub(super) fn still_there(&self, part: &Part, position: u64) -> bool {
        let view = self.0.get();
        let now = view.parts.iter().find(|now| Arc::ptr_eq(&now.segment, &part.segment));
        now.is_some_and(|now| position < now.end())
    }
}

/// The damage that a walk has met.
struct Holes<'a> {
    reader: &'a GroupReader,
    access: Access,
    /// What the visitor said last.
    said: Visit,
    /// Where the walk is now, if nothing sound was seen since.
    open: Option<DamagedRange>,
    /// The first since the last entry.
    pending: Option<DamagedRange>,
}

impl Holes<'_> {
    /// Something at `position` is no frame, or can't be read; `next_offset` is the record that should follow. `false`: the
    /// visitor wants nothing behind it.
    fn begin(&mut self, part: &Part, position: u64, next_offset: Offset, error: WalkError) -> Result<bool, ReadError> {
        let what = match error {
            WalkError::Bad { what, .. } => what.to_owned(),
            WalkError::Disk(error) if !error.is_shortage() => error.to_string(),
            WalkError::Disk(_) | WalkError::NotCached => return Err(read_error(part, error)),
        };
        // What it is and how far it goes is for who may wait for the disk to find out.
        if self.access == Access::Cached {
            return Err(ReadError::NotCached);
        }
        let range = DamagedRange { first_offset: next_offset, next_offset: None, ..part.damaged(position, &what) };
        if broken(Fault::NothingBehindDamage) {
            return Err(ReadError::Damaged(range));
        }
        self.open.get_or_insert_with(|| range.clone());
        self.pending.get_or_insert(range);
        Ok(self.said != Visit::NextSound)
    }

    /// What is open ends at `position`; there the log goes on with a record, if that is known.
    fn end(&mut self, part: &Part, position: u64, next_offset: Option<Offset>) {
        if let Some(pending) = &mut self.pending {
            pending.next_offset = next_offset;
        }
        if let Some(mut range) = self.open.take() {
            range.bytes = position.saturating_sub(range.position);
            range.next_offset = next_offset;
            if let Some(pending) = self.pending.as_mut().filter(|pending| pending.is_at(&range)) {
                pending.clone_from(&range);
            }
            if self.reader.still_there(part, range.position) {
                self.reader.0.damages().tell(part.segment.header.group, &range);
            }
        }
    }
}

fn is_behind(frame: &Frame<'_>, key: Key) -> bool {
    match key {
        Key::Index(index) => !frame.header.kind.is_entry() || frame.header.index > index,
        Key::Offset(offset) => !frame.header.kind.is_entry() || frame.header.base_offset > offset,
        // No time proves nothing of the frames before.
        Key::Time(time_us) => frame.header.append_time_us == 0 || frame.header.append_time_us >= time_us,
    }
}

fn read_error(part: &Part, error: WalkError) -> ReadError {
    match error {
        WalkError::NotCached => ReadError::NotCached,
        WalkError::Bad { position, what } => ReadError::Damaged(part.damaged(position, what)),
        WalkError::Disk(error) if error.is_shortage() => ReadError::Shortage(error.to_string()),
        WalkError::Disk(error) => ReadError::Io(error.to_string()),
    }
}
