//! Where a moment stands in a log: the first record that was appended then or later.
//!
//! Append times never go back within a log, so one record divides it. A segment's header says that no record before it is
//! newer than some time, and its index notes times: both only say where the search may begin. The index is checked by
//! the frame that it leads to, and everything from there on is read and compared.

use crate::storage::read::index::Key;
use crate::storage::read::reader::{Access, GroupReader, ReadError};
use crate::storage::read::visit::Visit;
use crate::types::Offset;

impl GroupReader {
    /// The first record in `from..until` whose append time (Unix microseconds) is not before `time_us`; `None` when all of
    /// them are older. If that record may be among damaged ones, the first of these. Records below `from` that are no longer stored
    /// count as older.
    ///
    /// # Errors
    /// [`ReadError`]; never `Trimmed`.
    pub fn first_not_before(
        &self,
        time_us: u64,
        from: Offset,
        until: Offset,
        access: Access,
    ) -> Result<Option<Offset>, ReadError> {
        self.read(|view| {
            let from = from.max(view.base.offset);
            let mut found = None;
            if from >= until {
                return Ok(found);
            }
            // The first damaged record that may be the result: no later frame shows yet that it is older.
            let mut lost = None;
            let ended = self.visit(view, Key::Time(time_us), access, |part, at, frame, hole| {
                let header = &frame.header;
                if !header.kind.is_entry() {
                    return Ok(Visit::Next);
                }
                if let Some(hole) = hole.filter(|hole| hole.first_offset < header.base_offset) {
                    lost = lost.or(Some(hole.first_offset));
                }
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
                && let Some(lost) = lost.or(ended.map(|hole| hole.first_offset))
            {
                found = Some(lost.max(from)).filter(|offset| *offset < until);
            }
            Ok(found)
        })
    }

    /// The base offset of the newest segment that was created at `local_us` or before, by the log's clock (`consensus/ages.rs`): all
    /// records below had arrived by then. `None` if there is no such segment. Reads nothing.
    pub fn arrived_by(&self, local_us: u64) -> Option<Offset> {
        let view = self.0.get();
        let arrived = |begun_us: u64| begun_us != 0 && begun_us <= local_us;
        let part = view.parts.iter().skip(1).rev().find(|part| arrived(part.segment.header.begun_us));
        part.map(|part| part.base().offset)
    }

    /// The latest time in the segments' headers, by the log's clock; 0 if it is unknown.
    pub fn begun_us(&self) -> u64 {
        self.0.get().begun_us()
    }

    /// The number of synced bytes at the log's end above the manifest's durable position (`sync.rs`).
    pub fn unprotected_bytes(&self) -> u64 {
        self.0.unprotected_bytes()
    }

    /// The first record to keep so that whole segments go and at least `bytes` stay; `None` when none can go. Reads nothing.
    pub fn first_within(&self, bytes: u64) -> Option<Offset> {
        let view = self.0.get();
        let mut stays = view.stored_bytes();
        let mut keep = None;
        for pair in view.parts.windows(2) {
            stays -= pair[0].bytes();
            if stays < bytes {
                break;
            }
            keep = Some(pair[1].base().offset);
        }
        keep
    }
}

#[cfg(test)]
mod tests;
