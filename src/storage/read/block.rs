//! Sequential reads: a stream continues where its last read ended, and receives whole entries.
//!
//! Such a read returns megabytes. It searches no index once the stream's position is known, and it moves the payloads
//! together inside the buffer that they were read into. All other cases are read record by record ([`super::records`]):
//! a first record or a high watermark inside an entry, a position that no longer exists, a bad frame.

use super::error::ReadError;
use super::records::{Slice, records};
use super::view::{Part, Published, View};
use super::walk::{Walk, WalkError};
#[cfg(test)]
use crate::storage::format::frame::HEADER_BYTES;
use crate::storage::format::frame::Position;
use crate::storage::format::index::Key;
use crate::storage::format::segment_header::SEGMENT_HEADER_BYTES;
use crate::storage::io::disk::Access;
use crate::types::Offset;

/// A frame of at most this size is read whole, even if the caller requested fewer bytes.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes to read in addition to the requested payloads: their headers, and the notes between them.
const SLACK_BYTES: usize = 8 << 10;
/// Room for the fields that a response appends to the records.
const RESPONSE_END_BYTES: usize = 64;
/// The number of bytes that are requested in advance once a read has waited for the disk.
pub(crate) const AHEAD_BYTES: u64 = 8 << 20;

/// Where a sequential read ended and the next one continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// The next frame.
    pub position: Position,
    /// The length of that frame according to its header; 0 if the header was not read.
    frame_bytes: usize,
}

/// Records, and the position after them; `None` if the read ended inside an entry.
pub type Block = (Slice, Option<ResumePoint>);

/// Reads about `bytes_max` bytes of records, in whole entries if possible, from `from` up to but excluding `until`, the
/// high watermark. `resume` is where the previous read ended, if there was one.
///
/// # Errors
/// [`ReadError`].
pub(super) fn block(
    log: &Published,
    from: Offset,
    until: Offset,
    bytes_max: usize,
    access: Access,
    resume: Option<ResumePoint>,
) -> Result<Block, ReadError> {
    let view = log.view();
    if let Some(start) = resume.or_else(|| start(&view, from, access)) {
        let wanted = Wanted { from, until, bytes_max, access };
        match sequential(&view, start, wanted) {
            Sequential::Some(block) => return Ok(block),
            Sequential::NotCached => return Err(ReadError::NotCached),
            Sequential::NotSimple => {}
        }
    }
    Ok((records(log, from, until, u32::MAX, bytes_max, access)?, None))
}

#[derive(Clone, Copy)]
struct Wanted {
    from: Offset,
    until: Offset,
    bytes_max: usize,
    access: Access,
}

enum Sequential {
    Some(Block),
    NotCached,
    NotSimple,
}

/// Returns the position of a frame at or before the record, from the index.
fn start(view: &View, from: Offset, access: Access) -> Option<ResumePoint> {
    let part = &view.parts[view.part_of_offset(from)];
    let at = part.segment.index(access).ok()??.position(Key::Offset(from)).min(part.end());
    Some(ResumePoint { position: Position { file: part.segment.header.number, at }, frame_bytes: 0 })
}

fn sequential(view: &View, start: ResumePoint, wanted: Wanted) -> Sequential {
    let Some(first) = view.parts.iter().position(|part| part.segment.header.number == start.position.file) else {
        return Sequential::NotSimple;
    };
    let (mut at, mut frame_bytes) = (start.position.at, start.frame_bytes);
    for part in &view.parts[first..] {
        if at < part.end() {
            match sequential_in(part, at, frame_bytes, wanted) {
                Sequential::Some((slice, _)) if slice.count == 0 => {}
                other => return other,
            }
        }
        (at, frame_bytes) = (SEGMENT_HEADER_BYTES, 0);
    }
    Sequential::NotSimple
}

/// Reads records of one segment, starting at a frame; returns none if the rest of the segment contains none.
fn sequential_in(part: &Part, start: u64, frame_bytes: usize, wanted: Wanted) -> Sequential {
    let Wanted { from, until, bytes_max, access } = wanted;
    let Ok(Some(file)) = part.segment.file(access) else { return Sequential::NotSimple };
    // Entries are likely as large as the previous one, so read only as many as fit. Of the first entry that does not
    // fit, only the header is needed.
    let likely = match bytes_max.checked_div(frame_bytes) {
        Some(frames) if frame_bytes <= FRAME_BYTES_MAX => frames.max(1) * frame_bytes,
        _ => bytes_max,
    };
    let left = usize::try_from(part.end().saturating_sub(start)).unwrap_or(usize::MAX);
    let first_read = likely.saturating_add(SLACK_BYTES).min(left);
    if access != Access::Cached {
        file.will_need(start + first_read as u64, AHEAD_BYTES);
    }
    let salt = part.segment.header.salt;
    let mut walk = Walk::new(&file, salt, start, part.end(), access).with_first_read(first_read);
    let mut slice = Slice { next: from, ..Slice::default() };
    let mut bytes = 0;
    let (position, frame_bytes) = loop {
        let position = walk.position();
        // After the first record nothing more is read from the file.
        let is_first = slice.count == 0;
        if is_first
            && let Ok(Some(frame_bytes)) = walk.next_frame_bytes()
            && frame_bytes > FRAME_BYTES_MAX
            && !walk.has_buffered(frame_bytes)
        {
            return Sequential::NotSimple;
        }
        let (header, records_bytes) = match walk.next() {
            Ok(Some((_, frame))) => (frame.header, frame.records().len()),
            Ok(None) => break (position, 0),
            // Return the records before the bad frame; the next read determines which records are lost.
            Err(_) if !is_first => break (position, walk.next_frame_bytes().ok().flatten().unwrap_or(0)),
            Err(WalkError::NotCached) => return Sequential::NotCached,
            Err(_) => return Sequential::NotSimple,
        };
        let frame_bytes = (walk.position() - position) as usize;
        let base = header.base_offset;
        let end = Offset(base.0.saturating_add(u64::from(header.count)));
        if !header.kind.is_records() || end <= slice.next {
            continue;
        }
        if bytes > 0 && bytes + records_bytes > bytes_max || slice.next >= until {
            break (position, frame_bytes);
        }
        if base != slice.next || end > until {
            if is_first {
                return Sequential::NotSimple;
            }
            break (position, frame_bytes);
        }
        // What follows the records in the payload is not for clients.
        walk.keep_payload(position, records_bytes);
        bytes += records_bytes;
        slice.count += header.count;
        slice.next = end;
    };
    slice.bytes = walk.into_kept();
    if slice.bytes.capacity() > 2 * bytes + RESPONSE_END_BYTES {
        // The response may wait a long time for its client, and the stream's budget is charged only for the records.
        slice.bytes.shrink_to(bytes + RESPONSE_END_BYTES);
    }
    let position = Position { file: part.segment.header.number, at: position };
    Sequential::Some((slice, Some(ResumePoint { position, frame_bytes })))
}

#[cfg(test)]
mod tests;
