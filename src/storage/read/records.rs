//! Reads of records. They may begin and end inside an entry.

use super::damage::DamagedRange;
use super::error::{NewerRecords, ReadError};
use super::holes::Hole;
use super::view::Published;
use super::visit::{Visit, visit};
use crate::storage::faults::{Fault, broken};
use crate::storage::format::index::Key;
use crate::storage::format::payload;
use crate::storage::format::segment_header::SEGMENT_HEADER_BYTES;
use crate::storage::io::disk::Access;
use crate::types::Offset;

/// Records as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The encoded fields `records` = 3, concatenated.
    pub bytes: Vec<u8>,
    /// The number of records.
    pub count: u32,
    /// The offset after the last record; the start of the read if it returned none.
    pub next: Offset,
}

/// Returns records from `from` up to but excluding `until`, the high watermark. Stops before `records_max` or
/// `bytes_max` is exceeded, but returns at least one record, of any size, if one exists; also stops before a record
/// that can't be read. Each call checks whole frames, so a caller that needs single records reads many at once and
/// splits them with [`payload::records`].
///
/// # Errors
/// [`ReadError`]; `Damaged` or `NewerFrame` if the first record can't be read.
pub(super) fn records(
    log: &Published,
    from: Offset,
    until: Offset,
    records_max: u32,
    bytes_max: usize,
    access: Access,
) -> Result<Slice, ReadError> {
    log.read(|view| {
        let mut slice = Slice { next: from, ..Slice::default() };
        if from < view.base.offset {
            return Err(ReadError::Trimmed { first_offset: view.base.offset });
        }
        if from >= until || records_max == 0 {
            return Ok(slice);
        }
        // The holes since the last record; one of them contains the requested record.
        let mut met: Vec<Hole> = Vec::new();
        let ended = visit(log, view, Key::Offset(from), access, |part, at, frame, holes| {
            // Once the slice contains a record, it ends at the next hole, even if there is a note between them.
            let go_on = if slice.count > 0 && !broken(Fault::SoundWithheld) { Visit::NextSound } else { Visit::Next };
            if !frame.header.kind.is_entry() {
                return Ok(go_on);
            }
            let (base, count) = (frame.header.base_offset, frame.header.count);
            let bad = |next: Offset, what: &str| {
                let range = part.damaged(at, what);
                Err(ReadError::Damaged(DamagedRange { first_offset: from, next_offset: Some(next), ..range }))
            };
            let Some(end) = base.0.checked_add(u64::from(count)) else { return bad(until, "offsets overflow") };
            if end < slice.next.0 || end == slice.next.0 && base < slice.next {
                return Ok(go_on);
            }
            if base >= until {
                return Ok(Visit::Done);
            }
            if base > slice.next {
                if slice.count > 0 && !broken(Fault::SoundWithheld) {
                    return Ok(Visit::Done);
                }
                met.extend_from_slice(holes);
                if !frame.header.kind.is_records() {
                    // The next record shows where reading can continue.
                    return Ok(go_on);
                }
                if !broken(Fault::LossSkipped) {
                    let hole = Hole::at(&met, from, base);
                    return hole
                        .map_or_else(|| bad(base, "the record before this one is missing"), |hole| Err(hole.into()));
                }
                slice.next = base;
            }
            if !frame.header.kind.is_records() {
                return Ok(go_on);
            }
            let records = frame.records();
            let fits = count <= records_max - slice.count && slice.bytes.len() + records.len() <= bytes_max;
            if base == slice.next && end <= until.0 && fits {
                slice.bytes.extend_from_slice(records);
                slice.count += count;
                slice.next = Offset(end);
            } else {
                let skipped = (slice.next.0 - base.0) as usize;
                for record in payload::records(records).skip(skipped) {
                    let record = match record {
                        Ok(record) => record,
                        Err(_) if slice.count > 0 => return Ok(Visit::Done),
                        Err(malformed) => return bad(Offset(end), malformed.0),
                    };
                    let fits = slice.count < records_max && slice.bytes.len() + record.len() <= bytes_max;
                    if slice.next >= until || slice.count > 0 && !fits {
                        return Ok(Visit::Done);
                    }
                    slice.bytes.extend_from_slice(record);
                    slice.count += 1;
                    slice.next.0 += 1;
                }
                if slice.next.0 != end {
                    return bad(Offset(end), "a count of records that is not theirs");
                }
            }
            let full = slice.count >= records_max || slice.bytes.len() >= bytes_max || slice.next >= until;
            Ok(if full { Visit::Done } else { Visit::NextSound })
        })?;
        if slice.count == 0 {
            met.extend(ended);
            let last = &view.parts[view.parts.len() - 1];
            return Err(Hole::at(&met, from, until).map_or_else(
                || {
                    let range = last.damaged(last.end(), &format!("record {from} is missing"));
                    ReadError::Damaged(DamagedRange { first_offset: from, next_offset: Some(until), ..range })
                },
                ReadError::from,
            ));
        }
        Ok(slice)
    })
}

/// Returns the append time (Unix microseconds) of the record at `offset`; `None` if that is not below `until`. For a
/// record that can't be read, returns the time of the next readable one, if a few attempts find it.
///
/// # Errors
/// [`ReadError`].
pub(super) fn append_time_us(
    log: &Published,
    offset: Offset,
    until: Offset,
    access: Access,
) -> Result<Option<u64>, ReadError> {
    let mut from = offset;
    let mut tries = 0;
    let slice = loop {
        match records(log, from, until, 1, 0, access) {
            Err(
                ReadError::Damaged(DamagedRange { next_offset: Some(next), .. })
                | ReadError::NewerFrame(NewerRecords { next_offset: Some(next), .. }),
            ) if next < until && tries < 8 => {
                (from, tries) = (next, tries + 1);
            }
            other => break other?,
        }
    };
    let time = payload::records(&slice.bytes).next().map(|r| r.and_then(payload::record_time_us)).transpose();
    time.map_err(|bad| {
        let view = log.view();
        let part = &view.parts[view.part_of_offset(offset)];
        let range = part.damaged(SEGMENT_HEADER_BYTES, &format!("record {offset}: {bad}"));
        let next_offset = Some(Offset(offset.0.saturating_add(1)));
        ReadError::Damaged(DamagedRange { first_offset: offset, next_offset, ..range })
    })
}
