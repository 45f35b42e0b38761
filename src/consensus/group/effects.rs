//! What a group wants done: the values that cross from the pure machine to its executor.

use raft::eraftpb::Message;

use super::adapter::FetchRange;
use super::pending::Answer;
use crate::storage::entry::Entry;
use crate::storage::log::{ConfState, HardState, LogSnapshot};
use crate::types::{LogIndex, Offset};
use crate::watermark::Visible;

/// What is to be written to the group's log, in this order, into the page cache.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogWrite {
    /// The log begins anew after this snapshot.
    pub snapshot: Option<LogSnapshot>,
    /// Entries from this one on are replaced.
    pub truncate_from: Option<LogIndex>,
    pub entries: Vec<Entry>,
    /// Written after the entries.
    pub hard_state: Option<HardState>,
}

/// What a step of the machine wants done, in the order of the fields.
#[derive(Debug, Default)]
pub struct Effects {
    /// Written before anything else.
    pub write: Option<LogWrite>,
    /// The log-writer is to report this Ready number once everything up to it is on disk.
    pub sync: Option<u64>,
    /// A new conf state, and the entry that it is as of: into the manifest.
    pub conf_state: Option<(ConfState, LogIndex)>,
    /// The applied entry at this index trims the records below this offset.
    pub trim: Option<(Offset, LogIndex)>,
    pub messages: Vec<Message>,
    /// Values of records, applied in this order: the catalog's commands. Empty for other groups.
    pub commands: Vec<bytes::Bytes>,
    /// What readers may see now.
    pub visible: Option<Visible>,
    /// Answers, due after everything above.
    pub answers: Vec<Answer>,
    /// Old entries that raft waits for.
    pub fetches: Vec<FetchRange>,
}

impl Effects {
    /// True if nothing is to be done.
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
