//! Reads of entries, for followers and for the end of the log as of an entry.

use super::damage::DamagedRange;
use super::error::ReadError;
use super::view::{Published, View};
use super::visit::{Visit, visit};
use crate::storage::error::StorageError;
use crate::storage::faults::{Fault, broken};
use crate::storage::format::entry::Entry;
use crate::storage::format::frame::frame_bytes;
use crate::storage::format::index::Key;
use crate::storage::format::state::Base;
use crate::storage::io::disk::Access;
use crate::types::LogIndex;

/// Entries from `low` on and below `high`, up to `bytes_max`, but at least one. Fewer, or none, if the log is shorter: it may
/// have been truncated since. Also fewer before damage. A caller that needs them to be of one log checks their terms.
///
/// # Errors
/// [`ReadError`]; `Trimmed` if `low` is not above the base; `Damaged` if the first entry is damaged.
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
        let ended = visit(log, view, Key::Index(low), access, |part, at, frame, hole| {
            let go_on = if entries.is_empty() { Visit::Next } else { Visit::NextSound };
            if !frame.header.kind.is_entry() || frame.header.index < wanted {
                return Ok(go_on);
            }
            if frame.header.index > wanted {
                if !entries.is_empty() && !broken(Fault::SoundWithheld) {
                    return Ok(Visit::Done);
                }
                let range = hole.cloned();
                let range = range.unwrap_or_else(|| part.damaged(at, "the entry before this one is missing"));
                return Err(ReadError::Damaged(range));
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
        match ended {
            Some(range) if entries.is_empty() => Err(ReadError::Damaged(range)),
            _ => Ok(entries),
        }
    })
}

/// The end of the log as of an entry. Reads from `near` on, an entry up to this one whose digest is known, or from the
/// beginning of the entry's segment; blocks.
///
/// # Errors
/// [`StorageError`], also if the entry is not stored.
pub(super) fn end_at(log: &Published, index: LogIndex, near: Option<Base>) -> Result<Base, StorageError> {
    let view = log.view();
    if index == view.base.index { Ok(view.base) } else { Ok(locate(log, &view, index, near)?.2) }
}

/// The place of an entry after the base: the number of its part in the view, the end of its frame, and the end of the log as of
/// that entry. Reads from `near` on, an entry up to this one whose digest is known, or from the beginning of the segment.
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
    let visited = visit(log, view, Key::Index(wanted), Access::Blocking, |part, at, frame, hole| {
        let header = &frame.header;
        if !header.kind.is_entry() || header.index < wanted {
            return Ok(Visit::Next);
        }
        let damaged = |what| Err(ReadError::Damaged(hole.cloned().unwrap_or_else(|| part.damaged(at, what))));
        if header.index != wanted {
            return damaged("the entry before this one is missing");
        }
        if wanted > last.index {
            match last.then_frame(header, frame.payload) {
                Ok(next) => last = next,
                Err(bad) => return damaged(bad.0),
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
    match (visited, found) {
        (Ok(_), Some((end, last))) => Ok((part, end, last)),
        (Ok(hole), None) => {
            let missing = || view.parts[part].damaged(view.parts[part].end(), "it is missing");
            let DamagedRange { position, what, .. } = hole.unwrap_or_else(missing);
            Err(StorageError::damaged(&path, position, format!("entry {index} can't be read: {what}")))
        }
        (Err(ReadError::Io(what) | ReadError::Shortage(what)), _) => {
            Err(StorageError::io("read", &path, std::io::Error::other(what)))
        }
        (Err(ReadError::NewerFrame(newer)), _) => Err(newer.into()),
        (Err(other @ (ReadError::Damaged(_) | ReadError::NotCached | ReadError::Trimmed { .. })), _) => {
            Err(StorageError::damaged(&path, 0, format!("entry {index} can't be read: {other}")))
        }
    }
}
