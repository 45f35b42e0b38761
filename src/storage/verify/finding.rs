//! One finding of `data verify`: a file, a byte range, and the entries and records in it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::storage::format::state::Base;
use crate::storage::read::damage::span;
use crate::types::{LogIndex, Offset};

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Harmless, or repaired by the next start.
    Note,
    /// Written, but never known to be synced: the next start cuts it off.
    Torn,
    /// Written by a version with another format: this version can't check it, and does not start on it.
    Format,
    /// Synced, and different from what was written: the next start, or a read of it, fails.
    Damage,
}

/// Entries and records that can't be read because of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The first entry.
    pub first_index: LogIndex,
    /// The first entry after them.
    pub next_index: LogIndex,
    /// The first record.
    pub first_offset: Offset,
    /// The first record after them.
    pub next_offset: Offset,
    /// True if later entries may be unreadable too, and nothing on the disk shows how many.
    pub and_more: bool,
}

impl Unreadable {
    /// The entries and records between two places in the log.
    pub(super) fn between(before: &Base, after: &Base) -> Unreadable {
        // A damaged manifest or frame may contain any number.
        let next = |base: &Base| LogIndex(base.index.0.saturating_add(1));
        Unreadable {
            first_index: next(before),
            next_index: next(after).max(next(before)),
            first_offset: before.offset,
            next_offset: after.offset.max(before.offset),
            and_more: false,
        }
    }

    /// Everything after a place in the log.
    pub(super) fn after(before: &Base) -> Unreadable {
        Unreadable { and_more: true, ..Unreadable::between(before, before) }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, offset) = (self.first_index, self.first_offset);
        if self.next_index <= index {
            return match self.and_more {
                true => write!(f, "possibly entries from {index} on, records from {offset} on"),
                false => f.write_str("no entries"),
            };
        }
        let entries = span("entry", "entries", index.0, self.next_index.0);
        let records = match self.next_offset > offset {
            true => span("record", "records", offset.0, self.next_offset.0),
            false => "no records".to_owned(),
        };
        let more = if self.and_more { ", possibly more" } else { "" };
        write!(f, "{entries}, {records}{more}")
    }
}

/// Something that differs from a sound data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The path of the file concerned.
    pub file: PathBuf,
    /// The first byte.
    pub position: u64,
    /// The first byte after it; `None` if it concerns the whole file.
    pub end: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// The entries and records that can't be read because of it; `None` if that is unknown or does not apply.
    pub unreadable: Option<Unreadable>,
}

impl Finding {
    pub(super) fn new(severity: Severity, file: &Path, position: u64, what: impl Into<String>) -> Finding {
        Finding { severity, file: file.to_owned(), position, end: None, what: what.into(), unreadable: None }
    }

    pub(super) fn up_to(self, end: u64) -> Finding {
        Finding { end: Some(end).filter(|end| *end > self.position), ..self }
    }

    pub(super) fn with(self, unreadable: Option<Unreadable>) -> Finding {
        Finding { unreadable, ..self }
    }
}

impl fmt::Display for Finding {
    /// Everything except the severity and the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            Some(end) => f.write_str(&span("byte", "bytes", self.position, end))?,
            None => write!(f, "byte {}", self.position)?,
        }
        write!(f, ": {}", self.what)?;
        match self.unreadable {
            Some(unreadable) => write!(f, "; unreadable: {unreadable}"),
            None => Ok(()),
        }
    }
}
