//! Reads of entries, to send them to followers and to compute the end of the log as of an entry.

use super::damage::DamagedRange;
use super::error::ReadError;
use super::holes::Hole;
use super::view::{Part, Published, View};
use super::visit::{Visit, visit};
use crate::storage::error::StorageError;
use crate::storage::faults::{Fault, broken};
use crate::storage::format::entry::Entry;
use crate::storage::format::frame::frame_bytes;
use crate::storage::format::index::Key;
use crate::storage::format::state::Base;
use crate::storage::io::disk::Access;
use crate::types::LogIndex;

/// Returns entries from `low` up to but excluding `high`, at most `bytes_max` bytes, but at least one entry. Returns
/// fewer or none if the log is shorter, because it may have been truncated meanwhile, and stops before an entry that
/// can't be read. A caller that needs entries of one consistent log checks their terms.
///
/// # Errors
/// [`ReadError`]; `Trimmed` if `low` is not above the base; `Damaged` or `NewerFrame` if the first entry can't be read.
pub(super) fn entries(
    log: &Published,
    low: LogIndex,
    high: LogIndex,
    bytes_max: u64,
    access: Access,
) -> Result<Vec<Entry>, ReadError> {
    log.read(|view| {
        if low <= view.base.index {
            return Err(ReadError::Trimmed { first_offset: view.base.offset });
        }
        let mut entries: Vec<Entry> = Vec::new();
        if low >= high {
            return Ok(entries);
        }
        let mut wanted = low;
        let mut bytes = 0;
        let ended = visit(log, view, Key::Index(low), access, |part, at, frame, holes| {
            let go_on = if entries.is_empty() { Visit::Next } else { Visit::NextSound };
            if !frame.header.kind.is_entry() || frame.header.index < wanted {
                return Ok(go_on);
            }
            if frame.header.index > wanted {
                if !entries.is_empty() && !broken(Fault::SoundWithheld) {
                    return Ok(Visit::Done);
                }
                return Err(missing(part, at, holes));
            }
            let Some(entry) = frame.entry() else { return Ok(go_on) };
            bytes += entry.data.len() as u64;
            if bytes > bytes_max && !entries.is_empty() {
                return Ok(Visit::Done);
            }
            entries.push(entry);
            wanted = wanted.next();
            Ok(if wanted >= high { Visit::Done } else { Visit::NextSound })
        })?;
        match ended.into_iter().next() {
            Some(hole) if entries.is_empty() => Err(hole.into()),
            _ => Ok(entries),
        }
    })
}

/// The error for the entries that are missing before this position.
fn missing(part: &Part, at: u64, holes: &[Hole]) -> ReadError {
    let hole = holes.first().cloned();
    hole.map_or_else(|| ReadError::Damaged(part.damaged(at, "the entry before this one is missing")), ReadError::from)
}

/// Returns the end of the log as of an entry. Reads forward from `near`, an entry at or before this one whose digest is
/// known, or from the beginning of the entry's segment. May wait for the disk.
///
/// # Errors
/// [`StorageError`], also if the entry is not stored.
pub(super) fn end_at(log: &Published, index: LogIndex, near: Option<Base>) -> Result<Base, StorageError> {
    let view = log.view();
    if index == view.base.index { Ok(view.base) } else { Ok(locate(log, &view, index, near)?.2) }
}

/// Locates an entry above the base. Returns the number of its part in the view, the end of its frame, and the end of
/// the log as of the entry. Reads forward from `near`, an entry at or before this one whose digest is known, or from
/// the beginning of the segment.
pub(crate) fn locate(
    log: &Published,
    view: &View,
    index: LogIndex,
    near: Option<Base>,
) -> Result<(usize, u64, Base), StorageError> {
    let mut found = None;
    let part = view.part_of_index(index);
    let first = view.parts[part].base();
    let mut last = near.filter(|near| near.index > first.index && near.index <= index).unwrap_or(first);
    let mut wanted = index.min(last.index.next());
    let visited = visit(log, view, Key::Index(wanted), Access::Blocking, |part, at, frame, holes| {
        let header = &frame.header;
        if !header.kind.is_entry() || header.index < wanted {
            return Ok(Visit::Next);
        }
        if header.index != wanted {
            return Err(missing(part, at, holes));
        }
        if wanted > last.index {
            match last.then_frame(header, frame.payload) {
                Ok(next) => last = next,
                Err(bad) => return Err(ReadError::Damaged(part.damaged(at, bad.0))),
            }
        }
        if wanted < index {
            wanted = wanted.next();
            return Ok(Visit::Next);
        }
        found = Some((at + frame_bytes(frame.payload.len()) as u64, last));
        Ok(Visit::Done)
    });
    let path = view.parts[part].segment.path();
    let error = match (visited, found) {
        (Ok(_), Some((end, last))) => return Ok((part, end, last)),
        (Ok(holes), None) => {
            let missing = || ReadError::Damaged(view.parts[part].damaged(view.parts[part].end(), "it is missing"));
            holes.into_iter().next().map_or_else(missing, ReadError::from)
        }
        (Err(error), _) => error,
    };
    Err(match error {
        ReadError::Io(what) | ReadError::Shortage(what) => StorageError::io("read", &path, std::io::Error::other(what)),
        ReadError::NewerFrame(newer) => newer.frame.into(),
        ReadError::Damaged(DamagedRange { position, what, .. }) => {
            StorageError::damaged(&path, position, format!("entry {index} can't be read: {what}"))
        }
        error @ (ReadError::NotCached | ReadError::Trimmed { .. } | ReadError::Gone) => {
            StorageError::damaged(&path, 0, format!("entry {index} can't be read: {error}"))
        }
    })
}
