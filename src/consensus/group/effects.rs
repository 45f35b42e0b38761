//! The effects of a group: what the pure state machine asks its executor to do.

use raft::eraftpb::Message;

use super::adapter::FetchRange;
use super::pending::Answer;
use crate::storage::entry::Entry;
use crate::storage::log::{ConfState, HardState, LogSnapshot};
use crate::types::{LogIndex, Offset};
use crate::watermark::Visible;

/// A write to the group's log, into the page cache. Its parts are written in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogWrite {
    /// Replaces the log: it restarts, empty, after this snapshot.
    pub snapshot: Option<LogSnapshot>,
    /// Truncates the log: this entry and all later ones are dropped.
    pub truncate_from: Option<LogIndex>,
    pub entries: Vec<Entry>,
    /// Written after the entries.
    pub hard_state: Option<HardState>,
}

/// A command of the catalog that is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedCommand {
    /// The entry that contains it.
    pub index: LogIndex,
    /// When the entry was appended, Unix microseconds.
    pub append_time_us: u64,
    /// The value of its record.
    pub bytes: bytes::Bytes,
}

/// What a step of the state machine asks for. `write` is performed first; the sync is requested after the conf state
/// and the trim; messages, commands, the new watermark and the answers follow.
#[derive(Debug, Default)]
pub struct Effects {
    /// Performed before everything else.
    pub write: Option<LogWrite>,
    /// Requests a sync: the log-writer reports this Ready number once everything up to it is on disk.
    pub sync: Option<u64>,
    /// A new conf state for the manifest, and the index of the conf change that produced it.
    pub conf_state: Option<(ConfState, LogIndex)>,
    /// The applied entry at this index trims the records below this offset.
    pub trim: Option<(Offset, LogIndex)>,
    pub messages: Vec<Message>,
    /// The catalog's commands, applied in this order. Empty for other groups.
    pub commands: Vec<CommittedCommand>,
    /// What readers may see now.
    pub visible: Option<Visible>,
    /// Answers. They are sent after everything above is done.
    pub answers: Vec<Answer>,
    /// Old entries to read from the disk, which raft waits for.
    pub fetches: Vec<FetchRange>,
}

impl Effects {
    /// Returns true if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.write.is_none()
            && self.sync.is_none()
            && self.conf_state.is_none()
            && self.trim.is_none()
            && self.messages.is_empty()
            && self.commands.is_empty()
            && self.visible.is_none()
            && self.answers.is_empty()
            && self.fetches.is_empty()
    }
}
