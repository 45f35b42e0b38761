//! How a read visits the frames of a log, from the position that an index returns, and skips what it can't read.
//!
//! An index is not trusted: if the position that it returns contains no valid frame, or a frame after the key, the walk
//! restarts at an earlier frame. Neither damage nor a frame of a newer version ends a walk: the offset of the next
//! valid entry shows which records are missing, and the visitor receives that entry together with the holes before it.

use super::error::{NewerRecords, ReadError};
use super::holes::{Hole, Holes};
use super::view::{Part, Published, View};
use super::walk::{Walk, WalkError};
use crate::storage::faults::{Fault, broken};
use crate::storage::format::frame::Frame;
use crate::storage::format::index::Key;
use crate::storage::format::segment_header::SEGMENT_HEADER_BYTES;
use crate::storage::io::disk::Access;
use crate::types::Offset;

/// What a visitor requests after a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Visit {
    Next,
    /// The next frame, unless there is a hole before it.
    NextSound,
    Done,
}

/// Walks from the last indexed frame at or before the key to the end of the log, or until the visitor is done. The
/// visitor receives each valid frame, and the holes between it and the last entry. Returns the holes after the last
/// entry.
pub(super) fn visit(
    log: &Published,
    view: &View,
    key: Key,
    access: Access,
    mut visitor: impl FnMut(&Part, u64, &Frame<'_>, &[Hole]) -> Result<Visit, ReadError>,
) -> Result<Vec<Hole>, ReadError> {
    let first = match key {
        Key::Index(index) => view.part_of_index(index),
        Key::Offset(offset) => view.part_of_offset(offset),
        Key::Time(time_us) => view.part_of_time(time_us),
    };
    let mut holes = Holes::new(log, access);
    // What the visitor requested after the last frame.
    let mut said = Visit::Next;
    for (i, part) in view.parts.iter().enumerate().skip(first) {
        let next_base = view.parts.get(i + 1).map(|next| next.base().offset);
        let index = if i == first { Some(part.segment.index(access)) } else { None };
        let index = match index {
            Some(Ok(None)) => return Err(ReadError::NotCached),
            Some(Ok(index)) => index,
            Some(Err(error)) if error.is_shortage() => return Err(ReadError::Shortage(error.to_string())),
            Some(Err(error)) if broken(Fault::IndexMustBeRead) => return Err(ReadError::Io(error.to_string())),
            // If the index can't be opened, the segment can't either.
            Some(Err(_)) | None => None,
        };
        let file = match part.segment.file(access) {
            Ok(Some(file)) => file,
            Ok(None) => return Err(ReadError::NotCached),
            Err(error) => {
                holes.damage(part, 0, part.base().offset, WalkError::Disk(error))?;
                if said == Visit::NextSound {
                    break;
                }
                holes.end(part, part.end(), next_base);
                continue;
            }
        };
        let end = part.end();
        let noted = index.as_ref().map_or(SEGMENT_HEADER_BYTES, |index| index.position(key));
        let mut start = noted.min(end);
        let mut walk = Walk::new(&file, part.segment.header.salt, start, end, access);
        // Whether a frame at or before the key was seen, how many indexed frames to go back, the offset after the last
        // entry.
        let (mut begun, mut back, mut next_offset) = (start == SEGMENT_HEADER_BYTES, 1, part.base().offset);
        loop {
            match walk.next() {
                // An index that returns a position after the key is wrong.
                Ok(Some((_, frame))) if !begun && is_after(&frame, key) && !broken(Fault::IndexTrusted) => {
                    part.segment.log_wrong_index();
                }
                Ok(Some((at, frame))) => {
                    begun = true;
                    let entry = frame.header.kind.is_entry();
                    if entry {
                        holes.end(part, at, Some(frame.header.base_offset));
                    }
                    said = visitor(part, at, &frame, &holes.pending)?;
                    if said == Visit::Done {
                        return Ok(holes.pending);
                    }
                    if entry {
                        holes.pending.clear();
                        let count = u64::from(frame.header.count);
                        next_offset = Offset(frame.header.base_offset.0.saturating_add(count));
                    }
                    continue;
                }
                // The end of the part. If no frame at or before the key was seen, the index is wrong, except that of
                // the newest segment, which this process built.
                Ok(None) if begun || part.limit.is_none() => break,
                // The index still contains frames above the end, which were truncated.
                Ok(None) if noted >= end => {}
                Ok(None) => part.segment.log_wrong_index(),
                Err(WalkError::NotCached) => return Err(ReadError::NotCached),
                // Either the index is wrong or the frame is bad: in the second case, a walk from an earlier frame
                // arrives here again. A newer version may have indexed a frame that this version can't read. Only an
                // earlier entry shows which records are in it.
                Err(WalkError::Bad { .. } | WalkError::Newer(_)) if !begun => {}
                Err(WalkError::Disk(error)) if !begun && !error.is_shortage() => {}
                Err(WalkError::Newer(newer)) => {
                    if said == Visit::NextSound {
                        return Ok(holes.pending);
                    }
                    walk.skip_newer(&newer);
                    holes.newer(part, next_offset, newer);
                    continue;
                }
                Err(error) => {
                    holes.damage(part, walk.position(), next_offset, error)?;
                    if said == Visit::NextSound {
                        return Ok(holes.pending);
                    }
                    match walk.skip_bad() {
                        Ok(true) => continue,
                        Ok(false) => break,
                        Err(error) => return Err(read_error(part, next_offset, error)),
                    }
                }
            }
            start = index.as_ref().map_or(SEGMENT_HEADER_BYTES, |index| index.before(start, back));
            begun = start == SEGMENT_HEADER_BYTES;
            back *= 2;
            walk = Walk::new(&file, part.segment.header.salt, start, end, access);
        }
        holes.end(part, end, next_base);
    }
    Ok(holes.pending)
}

fn is_after(frame: &Frame<'_>, key: Key) -> bool {
    match key {
        Key::Index(index) => !frame.header.kind.is_entry() || frame.header.index > index,
        Key::Offset(offset) => !frame.header.kind.is_entry() || frame.header.base_offset > offset,
        // A frame without a time proves nothing about earlier frames.
        Key::Time(time_us) => frame.header.append_time_us == 0 || frame.header.append_time_us >= time_us,
    }
}

/// The error of a search for the next frame.
fn read_error(part: &Part, next_offset: Offset, error: WalkError) -> ReadError {
    match error {
        WalkError::NotCached => ReadError::NotCached,
        WalkError::Newer(frame) => {
            ReadError::NewerFrame(NewerRecords { frame, first_offset: next_offset, next_offset: None })
        }
        WalkError::Bad { position, what } => ReadError::Damaged(part.damaged(position, what)),
        WalkError::Disk(error) if error.is_shortage() => ReadError::Shortage(error.to_string()),
        WalkError::Disk(error) => ReadError::Io(error.to_string()),
    }
}
