//! What a [`super::group::Group`] wants done: the values that cross from the pure machine to whoever performs them.

use raft::eraftpb::Message;

use super::adapter::Fetch;
use super::pending::Answer;
use crate::storage::entry::Entry;
use crate::storage::log::{ConfState, HardState, LogSnapshot};
use crate::types::{LogIndex, Offset};
use crate::watermark::Mark;

/// What is to be written to the group's log, in this order, into the page cache.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Write {
    /// The log begins anew behind this snapshot.
    pub snapshot: Option<LogSnapshot>,
    /// Entries from here on are replaced.
    pub truncate_from: Option<LogIndex>,
    /// New entries.
    pub entries: Vec<Entry>,
    /// The hard state, behind the entries.
    pub hard_state: Option<HardState>,
}

/// What a step of the machine wants done, in the order of the fields.
#[derive(Debug, Default)]
pub struct Effects {
    /// Written before anything else.
    pub write: Option<Write>,
    /// The log-writer is to report this Ready number once everything up to it is on disk.
    pub sync: Option<u64>,
    /// A new conf state, and the entry that it is as of: into the manifest.
    pub conf_state: Option<(ConfState, LogIndex)>,
    /// Records below this offset are gone, by the applied entry.
    pub trim: Option<(Offset, LogIndex)>,
    /// Messages to peers.
    pub messages: Vec<Message>,
    /// Values of records, applied in this order: the catalog's commands. Empty for other groups.
    pub commands: Vec<bytes::Bytes>,
    /// How far the group is applied now.
    pub mark: Option<Mark>,
    /// Answers, due after everything above.
    pub answers: Vec<Answer>,
    /// Old entries that raft waits for.
    pub fetches: Vec<Fetch>,
}

impl Effects {
    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.write.is_none()
            && self.sync.is_none()
            && self.conf_state.is_none()
            && self.trim.is_none()
            && self.messages.is_empty()
            && self.commands.is_empty()
            && self.mark.is_none()
            && self.answers.is_empty()
            && self.fetches.is_empty()
    }
}
