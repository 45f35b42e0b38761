//! Reading on and on: whole frames in one block, from where the last read ended.
//!
//! A stream reads megabytes: it needs no index once it knows its place, each frame's checksum is checked once, and the
//! payloads are moved together in the buffer that they were read into. What is not simple (a beginning inside a frame, a
//! watermark inside one, a place that is not there any more, a bad frame) is left to [`GroupReader::records`].

use crate::storage::format::frame::{self, HEADER_BYTES, Position};
use crate::storage::read::ahead::AHEAD_BYTES;
use crate::storage::read::index::Key;
use crate::storage::read::reader::{Access, GroupReader, ReadError, Slice};
use crate::storage::read::segment::SEGMENT_HEADER_BYTES;
use crate::storage::read::view::{Part, View};
use crate::types::Offset;

/// A frame up to this size is read whole, also where fewer bytes were wanted.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// What is read besides the payloads that are wanted: their headers, and notes between them.
const SLACK_BYTES: usize = 8 << 10;
/// What an answer appends to the records.
const ANSWER_ENDS_BYTES: usize = 64;

/// Where a read ended, for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The frame that comes next.
    pub position: Position,
    /// How long it is, as its header says; 0 where that was not read.
    frame_bytes: usize,
}

/// What a read gave, and the place behind it.
pub type Block = (Slice, Option<Place>);

impl GroupReader {
    /// Records from an offset on and below `until`, the watermark, about `bytes_max` of them: whole frames, where that can
    /// be. `place` is where the last read ended, if there was one.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn block(
        &self,
        from: Offset,
        until: Offset,
        bytes_max: usize,
        access: Access,
        place: Option<Place>,
    ) -> Result<Block, ReadError> {
        let view = self.view();
        if let Some(place) = place.or_else(|| start(&view, from, access)) {
            match frames(&view, place, from, until, bytes_max, access) {
                Frames::Some(block) => return Ok(block),
                Frames::NotCached => return Err(ReadError::NotCached),
                Frames::NotSimple => {}
            }
        }
        Ok((self.records(from, until, u32::MAX, bytes_max, access)?, None))
    }
}

enum Frames {
    Some(Block),
    NotCached,
    NotSimple,
}

/// By the index, a place before the record.
fn start(view: &View, from: Offset, access: Access) -> Option<Place> {
    let part = &view.parts[view.part_of_offset(from)];
    let at = part.segment.index(access).ok()??.position(Key::Offset(from)).min(part.end());
    Some(Place { position: Position { file: part.segment.header.number, at }, frame_bytes: 0 })
}

fn frames(view: &View, place: Place, from: Offset, until: Offset, bytes_max: usize, access: Access) -> Frames {
    let Some(first) = view.parts.iter().position(|part| part.segment.header.number == place.position.file) else {
        return Frames::NotSimple;
    };
    let (mut at, mut frame_bytes) = (place.position.at, place.frame_bytes);
    for part in &view.parts[first..] {
        if at < part.end() {
            match frames_of(part, at, frame_bytes, from, until, bytes_max, access) {
                Frames::Some((slice, _)) if slice.count == 0 => {}
                other => return other,
            }
        }
        (at, frame_bytes) = (SEGMENT_HEADER_BYTES, 0);
    }
    Frames::NotSimple
}

/// The frames of one segment from a place on; no record when the segment has none there.
fn frames_of(
    part: &Part,
    start: u64,
    frame_bytes: usize,
    from: Offset,
    until: Offset,
    bytes_max: usize,
    access: Access,
) -> Frames {
    let Ok(Some(file)) = part.segment.file(access) else { return Frames::NotSimple };
    let left = usize::try_from(part.end().saturating_sub(start)).unwrap_or(usize::MAX);
    let salt = part.segment.header.salt;
    // Reads on until so many bytes are there, where they are.
    let read_on = |room: usize, buffer: &mut Vec<u8>| {
        let (position, more) = (start + buffer.len() as u64, room - buffer.len());
        match access {
            Access::Cached => file.append_cached_at(position, more, buffer).map(|read| read.unwrap_or(0)),
            Access::Blocking | Access::Disk => {
                file.will_need(position + more as u64, AHEAD_BYTES);
                file.append_at(position, more, buffer)
            }
        }
    };
    // Those behind it are likely as long: of one that does not fit any more nothing needs to be read but its header.
    let likely = match bytes_max.checked_div(frame_bytes) {
        Some(frames) if frame_bytes <= FRAME_BYTES_MAX => frames.max(1) * frame_bytes,
        _ => bytes_max,
    };
    let mut room = likely.saturating_add(SLACK_BYTES).min(left);
    let mut buffer = Vec::new();
    if read_on(room, &mut buffer).is_err() {
        return Frames::NotSimple;
    }
    let mut slice = Slice { next: from, ..Slice::default() };
    // Frames are read at `at`, and their payloads stand together below `filled`, which is never above it.
    let (mut at, mut filled) = (0, 0);
    while at < left {
        let position = start + at as u64;
        let head = buffer.get(at..).and_then(|b| b.first_chunk::<HEADER_BYTES>());
        let bytes = match head.map(|head| frame::peek_bytes(head, salt, position)) {
            Some(Ok(bytes)) => bytes,
            // What is sound before a bad frame is served; which records are lost in it is found out behind that.
            Some(Err(_)) if slice.count > 0 => break,
            Some(Err(_)) => return Frames::NotSimple,
            None => HEADER_BYTES,
        };
        if head.is_none() || at + bytes > buffer.len() {
            if slice.count > 0 {
                break;
            }
            if at + bytes <= room {
                // It was not read although there was room for it.
                return if access == Access::Cached { Frames::NotCached } else { Frames::NotSimple };
            }
            if bytes > FRAME_BYTES_MAX || at + bytes > left {
                return Frames::NotSimple;
            }
            room = at + bytes;
            if read_on(room, &mut buffer).is_err() {
                return Frames::NotSimple;
            }
            continue;
        }
        let frame = match frame::decode(&buffer[at..at + bytes], salt, position) {
            Ok(frame) => frame,
            Err(_) if slice.count > 0 => break,
            Err(_) => return Frames::NotSimple,
        };
        let (header, payload_bytes) = (frame.header, frame.payload.len());
        let base = header.base_offset;
        let end = Offset(base.0.saturating_add(u64::from(header.count)));
        if header.kind.is_records() && end > slice.next {
            if filled > 0 && filled + payload_bytes > bytes_max || slice.next >= until {
                break;
            }
            if base != slice.next || end > until {
                if slice.count > 0 {
                    break;
                }
                return Frames::NotSimple;
            }
            let payload = at + HEADER_BYTES;
            buffer.copy_within(payload..payload + payload_bytes, filled);
            filled += payload_bytes;
            slice.count += header.count;
            slice.next = end;
        }
        at += bytes;
    }
    let position = Position { file: part.segment.header.number, at: start + at as u64 };
    let head = buffer.get(at..).and_then(|b| b.first_chunk::<HEADER_BYTES>());
    let frame_bytes = head.and_then(|head| frame::peek_bytes(head, salt, position.at).ok()).unwrap_or(0);
    buffer.truncate(filled);
    if buffer.capacity() > 2 * filled + ANSWER_ENDS_BYTES {
        // It may wait long for its client, and only the records are charged for.
        buffer.shrink_to(filled + ANSWER_ENDS_BYTES);
    }
    slice.bytes = buffer;
    Frames::Some((slice, Some(Place { position, frame_bytes })))
}

#[cfg(test)]
mod tests;
