//! The search by time: the first record that was appended at a time or later.
//!
//! Append times never decrease within a log. The time in a segment's header, which no earlier record exceeds, and the
//! times in its index only determine where the search begins. If the frame at that position is not older than the
//! searched time, the search begins at an earlier one. Every frame from there on is read and compared.

use super::error::ReadError;
use super::holes::Hole;
use super::view::Published;
use super::visit::{Visit, visit};
use crate::storage::format::index::Key;
use crate::storage::io::disk::Access;
use crate::types::Offset;

/// Returns the first record in `from..until` whose append time (Unix microseconds) is at or after `time_us`; `None` if
/// all of them are older. If an unreadable record may be that record, returns the first such one. Trimmed records count
/// as older.
///
/// # Errors
/// [`ReadError`]; never `Trimmed`.
pub(super) fn first_not_before(
    log: &Published,
    time_us: u64,
    from: Offset,
    until: Offset,
    access: Access,
) -> Result<Option<Offset>, ReadError> {
    log.read(|view| {
        let from = from.max(view.base.offset);
        let mut found = None;
        if from >= until {
            return Ok(found);
        }
        // The first unreadable record that may be the result. A later frame with an older time rules it out.
        let mut lost = None;
        let ended = visit(log, view, Key::Time(time_us), access, |part, at, frame, holes| {
            let header = &frame.header;
            if !header.kind.is_entry() {
                return Ok(Visit::Next);
            }
            let mut missing = holes.iter().map(Hole::first_offset).filter(|offset| *offset < header.base_offset);
            lost = lost.or_else(|| missing.next());
            if !header.kind.is_records() {
                return Ok(Visit::Next);
            }
            let Some(end) = header.base_offset.0.checked_add(u64::from(header.count)) else {
                return Err(ReadError::Damaged(part.damaged(at, "offsets overflow")));
            };
            if header.append_time_us < time_us || end <= from.0 {
                lost = None;
                return Ok(Visit::Next);
            }
            // The records of an entry share one time.
            found = Some(lost.take().unwrap_or(header.base_offset).max(from)).filter(|offset| *offset < until);
            Ok(Visit::Done)
        })?;
        if found.is_none()
            && let Some(lost) = lost.or_else(|| ended.first().map(Hole::first_offset))
        {
            found = Some(lost.max(from)).filter(|offset| *offset < until);
        }
        Ok(found)
    })
}

#[cfg(test)]
mod tests;
