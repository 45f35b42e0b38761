//! The cursors of a log: named positions of readers.
//!
//! - A reader acquires a cursor, which starts a new epoch. Commits of earlier epochs are refused, so a reader that was
//!   replaced while it was suspended can't move the cursor.
//! - A commit sets the position. It moves back only if the reader says so.
//! - A cursor does not keep records from being trimmed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::faults::{Fault, broken};
use super::refusal::StateRefusal;
use crate::bucket_map::{BucketKey, BucketMap};
use crate::types::{CursorName, Offset};

/// The maximum number of cursors of a log.
pub const CURSORS_MAX: usize = 1024;
/// The maximum size of a cursor's metadata in bytes.
pub const METADATA_BYTES_MAX: usize = 4096;

impl BucketKey for CursorName {
    fn bucket(&self) -> u64 {
        crc32c::crc32c(self.as_str().as_bytes()).into()
    }
}

/// A named position in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which cursor of the log.
    pub name: CursorName,
    /// The next record to read.
    pub next_offset: Offset,
    /// Rises when a reader acquires the cursor; 0 if none has.
    pub epoch: u64,
    /// Increases with each change. Never 0.
    pub revision: u64,
    /// The process of the reader.
    pub instance: u64,
    /// What that process says about itself, for people.
    pub owner: String,
    /// What the reader has stored with the position.
    pub metadata: Vec<u8>,
    /// When the position was set, Unix microseconds by the leader's clock; 0 if never.
    pub commit_time_us: u64,
}

impl Cursor {
    /// Returns the number of records that the reader has still to read, if the log has records from `first_offset` to
    /// before `next_offset`.
    pub fn lag(&self, first_offset: Offset, next_offset: Offset) -> u64 {
        next_offset.0.saturating_sub(self.next_offset.max(first_offset).0)
    }

    /// Returns the number of records that were trimmed before the reader has read them.
    pub fn trimmed(&self, first_offset: Offset) -> u64 {
        first_offset.0.saturating_sub(self.next_offset.0)
    }
}

/// A reader takes a cursor over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcquireCursor {
    /// Which cursor of the log.
    pub name: CursorName,
    /// The process. A retry of the same process changes nothing.
    pub instance: u64,
    /// Only if the cursor has this epoch.
    pub expected_epoch: Option<u64>,
    /// The position of a new cursor.
    pub next_offset: Offset,
    /// What the process says about itself.
    pub owner: String,
}

/// A reader stores its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitCursor {
    /// Which cursor of the log.
    pub name: CursorName,
    /// The next record to read.
    pub next_offset: Offset,
    /// The epoch of the reader; 0 if nobody has acquired the cursor.
    pub epoch: u64,
    /// Only if the cursor has this revision; 0: only if it does not exist.
    pub expected_revision: Option<u64>,
    /// Whether the position may move back.
    pub allow_rewind: bool,
    /// Replaces the metadata.
    pub metadata: Vec<u8>,
}

/// A cursor is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteCursor {
    /// Which cursor of the log.
    pub name: CursorName,
    /// Only if the cursor has this epoch.
    pub epoch: Option<u64>,
    /// Only if the cursor has this revision.
    pub expected_revision: Option<u64>,
}

/// The cursors of a log. Clones share their contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursors {
    by_name: BucketMap<CursorName, Arc<Cursor>>,
    /// The number of changes. Epochs and revisions are taken from it, so that a cursor that is deleted and created again
    /// has none of those that it had before.
    changes: u64,
    owners: Owners,
}

/// The last change of an epoch, as a number that no other change in this process has. It tells whether readers must be woken,
/// and is not part of the state.
#[derive(Clone, Copy, Debug, Default)]
struct Owners(u64);

impl Owners {
    fn change(&mut self) {
        static LAST: AtomicU64 = AtomicU64::new(0);
        self.0 = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    }
}

impl PartialEq for Owners {
    fn eq(&self, _: &Owners) -> bool {
        true
    }
}

impl Eq for Owners {}

/// A cursor after a command; `None` if the command changes nothing.
type Changed = Result<Option<Cursor>, StateRefusal>;

impl Cursors {
    /// The number of cursors.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Returns true if there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Returns a cursor.
    pub fn get(&self, name: &CursorName) -> Option<&Cursor> {
        self.by_name.get(name).map(|cursor| &**cursor)
    }

    /// Iterates over the cursors, in no useful order.
    pub fn iter(&self) -> impl Iterator<Item = &Cursor> {
        self.by_name.iter().map(|(_, cursor)| &**cursor)
    }

    /// Returns the cursor after a reader has acquired it.
    ///
    /// # Errors
    /// [`StateRefusal`].
    pub fn acquired(&self, acquire: &AcquireCursor) -> Changed {
        let existing = self.get(&acquire.name);
        if existing.is_some_and(|cursor| cursor.instance == acquire.instance && cursor.epoch > 0) {
            return Ok(None);
        }
        let epoch = existing.map_or(0, |cursor| cursor.epoch);
        if acquire.expected_epoch.is_some_and(|expected| expected != epoch) {
            return Err(StateRefusal::CursorEpoch(epoch));
        }
        let mut cursor = match existing {
            Some(cursor) => cursor.clone(),
            None => self.new_cursor(&acquire.name, acquire.next_offset)?,
        };
        cursor.epoch = self.changes + 1;
        cursor.revision = self.changes + 1;
        cursor.instance = acquire.instance;
        cursor.owner.clone_from(&acquire.owner);
        Ok(Some(cursor))
    }

    /// Returns the cursor after a commit at the given time.
    ///
    /// # Errors
    /// [`StateRefusal`].
    pub fn committed(&self, commit: &CommitCursor, time_us: u64) -> Changed {
        let existing = self.get(&commit.name);
        let (epoch, revision) = existing.map_or((0, 0), |cursor| (cursor.epoch, cursor.revision));
        if existing.is_none() && (commit.epoch > 0 || commit.expected_revision.is_some_and(|expected| expected > 0)) {
            return Err(StateRefusal::NoSuchCursor(0));
        }
        if commit.epoch != epoch && !broken(Fault::CursorEpochIgnored) {
            return Err(StateRefusal::CursorFenced(epoch));
        }
        let is_same = |cursor: &Cursor| {
            let is_at = cursor.next_offset == commit.next_offset && cursor.metadata == commit.metadata;
            is_at && cursor.commit_time_us > 0
        };
        // Before the revision is compared: a retry finds the one after its own commit.
        if existing.is_some_and(is_same) {
            return Ok(None);
        }
        let is_other = commit.expected_revision.is_some_and(|expected| expected != revision);
        if is_other && !broken(Fault::RevisionIgnored) {
            return Err(StateRefusal::CursorRevision(revision));
        }
        let mut cursor = match existing {
            Some(cursor) => cursor.clone(),
            None => self.new_cursor(&commit.name, commit.next_offset)?,
        };
        if commit.next_offset < cursor.next_offset && !commit.allow_rewind {
            return Err(StateRefusal::CursorBehind(cursor.next_offset.0));
        }
        cursor.next_offset = commit.next_offset;
        cursor.metadata.clone_from(&commit.metadata);
        cursor.commit_time_us = time_us.max(1);
        cursor.revision = self.changes + 1;
        Ok(Some(cursor))
    }

    /// Checks whether a cursor can be deleted. Returns false if it does not exist.
    ///
    /// # Errors
    /// [`StateRefusal`].
    pub fn check_delete(&self, delete: &DeleteCursor) -> Result<bool, StateRefusal> {
        let Some(cursor) = self.get(&delete.name) else { return Ok(false) };
        if delete.epoch.is_some_and(|epoch| epoch != cursor.epoch) {
            return Err(StateRefusal::CursorFenced(cursor.epoch));
        }
        if delete.expected_revision.is_some_and(|revision| revision != cursor.revision) {
            return Err(StateRefusal::CursorRevision(cursor.revision));
        }
        Ok(true)
    }

    /// Stores a cursor after a change.
    pub fn set(&mut self, cursor: Cursor) {
        self.changes = self.changes.max(cursor.revision);
        if self.get(&cursor.name).is_none_or(|before| before.epoch != cursor.epoch) {
            self.owners.change();
        }
        self.by_name.insert(cursor.name.clone(), Arc::new(cursor));
    }

    /// Deletes a cursor, if the command fits.
    pub fn delete(&mut self, delete: &DeleteCursor) {
        if self.check_delete(delete) == Ok(true) {
            self.by_name.remove(&delete.name);
            self.owners.change();
        }
    }

    /// Returns false if a cursor may have another epoch in these tables than in the others.
    pub fn have_the_same_owners(&self, others: &Cursors) -> bool {
        self.owners.0 == others.owners.0
    }

    /// The number of changes, to be stored.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Sets the number of changes that was stored.
    pub fn restore_changes(&mut self, changes: u64) {
        self.changes = self.changes.max(changes);
    }

    /// Adds a cursor that was stored. Returns false if its name is there already, or there are too many.
    #[must_use]
    pub fn restore(&mut self, cursor: Cursor) -> bool {
        let fits = self.get(&cursor.name).is_none() && self.len() < CURSORS_MAX;
        if fits {
            self.set(cursor);
        }
        fits
    }

    fn new_cursor(&self, name: &CursorName, next_offset: Offset) -> Result<Cursor, StateRefusal> {
        if self.len() >= CURSORS_MAX {
            return Err(StateRefusal::CursorsFull(CURSORS_MAX as u64));
        }
        Ok(Cursor {
            name: name.clone(),
            next_offset,
            epoch: 0,
            revision: 0,
            instance: 0,
            owner: String::new(),
            metadata: Vec::new(),
            commit_time_us: 0,
        })
    }
}
