//! When a log's producers and cursors are written to a new state file, and which entries are kept until then.
//!
//! A restart gets the tables from the state file that the manifest names, and applies the entries after its index again.
//! So these entries must be stored, and there must not be too many of them:
//!
//! - A manifest from which a restart would lack one of them names a new state file. That is so after a trim and after a
//!   snapshot. The file is synced before the manifest is written, and the entries are deleted after it.
//! - Otherwise a new file is due once [`REPLAY_BYTES`] were appended, or a multiple of the size of the tables.
//! - A log without producers and cursors has no file: the tables are known to be empty up to the last applied entry.
//!
//! A trim of a log with large tables waits until it frees more than a state file takes. Otherwise a client that trims
//! after every few records would make each node write megabytes each time.

use crate::log_state::{LogState, TablesOrigin};
use crate::storage::faults::{Fault, broken};
use crate::storage::format::state_file::StateFile;
use crate::storage::io::space::{Space, SpaceState};
use crate::types::{GroupId, LogIndex};

/// A new state file is due once this many bytes of frames, or a segment if that is less, were appended since the last
/// one. A restart reads about as much.
pub(crate) const REPLAY_BYTES: u64 = 64 << 20;
/// But not before this many times the size of the tables was appended, so that state files take a small part of what is
/// written.
const TABLES_PART: u64 = if cfg!(test) { 1 } else { 8 };

/// What must be left on a disk with little space after a state file was written that could also be written later.
const ROOM_LEFT: u64 = 16 << 20;

/// A trim on a disk with little space that frees so much is not put off.
const FREED_MIN: u64 = 1 << 20;

/// The state files of a log.
pub(crate) struct StateFiles {
    /// The tables in the newest state file, or the last empty ones.
    origin: TablesOrigin,
    /// True if the entries after `origin` are not those of this log, or the file is damaged.
    is_void: bool,
    /// About how many bytes of frames were appended after `origin`.
    replay_bytes: u64,
    /// The size of the newest state file.
    file_bytes: u64,
    /// As long as fewer bytes are to be replayed, the tables are too large for a new state file.
    not_before: u64,
}

/// What is known of the disk when a state file may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskRoom {
    /// Not watched, or above the soft limit.
    Enough,
    /// So many bytes are free, below the soft limit.
    Little(u64),
}

impl DiskRoom {
    /// What is known of the space.
    pub(crate) fn of(space: &Space) -> DiskRoom {
        match space.free_bytes() {
            Some(free) if space.state() != SpaceState::Enough => DiskRoom::Little(free),
            Some(_) | None => DiskRoom::Enough,
        }
    }

    /// Returns true if a file of this size can be written, and space for other writes is left.
    pub(crate) fn has(self, bytes: u64) -> bool {
        match self {
            DiskRoom::Enough => true,
            DiskRoom::Little(free) => free >= bytes.saturating_mul(2).saturating_add(ROOM_LEFT),
        }
    }
}

impl StateFiles {
    /// The state at a start. `replay_bytes` is the size of the entries after `origin`.
    pub(crate) fn new(origin: TablesOrigin, replay_bytes: u64, file_bytes: u64) -> StateFiles {
        StateFiles { origin, is_void: false, replay_bytes, file_bytes, not_before: 0 }
    }

    /// The newest tables that are on the disk once the next manifest is written.
    pub(crate) fn origin(&self) -> TablesOrigin {
        self.origin
    }

    /// Records that frames were appended.
    pub(crate) fn appended(&mut self, bytes: u64) {
        self.replay_bytes += bytes;
    }

    /// Records a new log state, which includes the entries up to `as_of`.
    pub(crate) fn applied(&mut self, log_state: &LogState, as_of: LogIndex) {
        if log_state.tables.is_empty() {
            *self = StateFiles::new(TablesOrigin { index: as_of, in_file: false }, 0, 0);
        }
    }

    /// Records that no state file continues in this log: it was replaced by a snapshot, or the file is damaged.
    pub(crate) fn set_void(&mut self) {
        self.is_void = true;
    }

    /// Returns true if the next manifest must name a new state file, whatever was appended.
    pub(crate) fn is_void(&self) -> bool {
        self.is_void
    }

    /// Returns up to which entry a trim drops entries, if it may drop those up to `seen`. `freed` returns how many bytes
    /// it frees with a limit.
    pub(crate) fn trim_limit(
        &self,
        seen: LogIndex,
        log_state: &LogState,
        room: DiskRoom,
        freed: impl Fn(LogIndex) -> u64,
    ) -> LogIndex {
        let without_file = seen.min(self.origin.index);
        let more = freed(seen) - freed(without_file);
        if more == 0 {
            return without_file;
        }
        let new_bytes = log_state.tables.encoded_bytes();
        // On a full disk the trim has to free what it can: the new file replaces the old one.
        let is_needed =
            matches!(room, DiskRoom::Little(free) if free >= new_bytes + FREED_MIN && more >= new_bytes.min(FREED_MIN));
        if is_needed || more >= self.file_bytes.max(new_bytes) { seen } else { without_file }
    }

    /// Returns true if the next manifest should name a new state file. The log begins after `base`.
    pub(crate) fn is_due(
        &mut self,
        base: LogIndex,
        segment_bytes: u64,
        room: DiskRoom,
        log_state: &LogState,
        as_of: LogIndex,
    ) -> bool {
        if log_state.tables.is_empty() || as_of == self.origin.index && !self.is_void {
            return false;
        }
        if self.is_void || base > self.origin.index && !broken(Fault::TrimBeyondState) {
            return true;
        }
        if self.replay_bytes < REPLAY_BYTES.min(segment_bytes).max(self.not_before) {
            return false;
        }
        // Seldom, because it looks at each producer and each cursor.
        let bytes = log_state.tables.encoded_bytes();
        self.not_before = TABLES_PART.saturating_mul(bytes);
        // This file only makes the next start faster, so it must not take space that other writes need.
        self.replay_bytes >= self.not_before && room.has(bytes)
    }

    /// Begins a new state file, which the next manifest names.
    pub(crate) fn begin(&mut self, group: GroupId, log_state: &LogState, index: LogIndex) -> Option<StateFile> {
        let tables = log_state.tables.clone();
        if self.is_void && broken(Fault::SnapshotWithoutState) {
            *self = StateFiles::new(TablesOrigin { index, in_file: false }, 0, 0);
            return None;
        }
        *self = StateFiles::new(TablesOrigin { index, in_file: true }, 0, tables.encoded_bytes());
        Some(StateFile { group, index, tables })
    }
}
