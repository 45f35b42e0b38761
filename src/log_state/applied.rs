//! Applies committed entries, one by one in the order of the log.

use thiserror::Error;

use std::sync::Arc;

use super::codec::LogState;
use super::producers::Answer;
use super::tables::{StateCommand, Tables};
use crate::hash_chain::ChainHash;
use crate::types::{LogIndex, Offset, ProducerId};

/// What readers may see of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visible {
    /// The last applied entry.
    pub applied: LogIndex,
    /// The first readable record. Trims raise it.
    pub first_offset: Offset,
    /// The high watermark: the first offset that is not visible yet.
    pub next_offset: Offset,
    /// The timestamp of the last visible record, Unix microseconds; 0 without records.
    pub last_append_time_us: u64,
}

/// The part of an entry that the log state depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateChange {
    /// Records of a client.
    Records {
        /// The offset after the last one.
        next_offset: Offset,
        /// The leader's clock, Unix microseconds.
        append_time_us: u64,
        /// The producer, and the sequence of its request and the answer to it.
        producer: Option<(ProducerId, u64, Answer)>,
        /// The hash chain after them, if they are chained.
        chain: Option<ChainHash>,
    },
    /// Changes of the producers or the cursors.
    Commands {
        /// They are applied in this order.
        commands: Vec<StateCommand>,
        /// The leader's clock, Unix microseconds.
        append_time_us: u64,
    },
    /// A new first offset.
    Trim(Offset),
    /// An entry that changes nothing here: a no-op, a conf change.
    Nothing,
}

/// What the caller must do after an entry was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Applied,
    /// The records below this offset may be deleted.
    Trimmed(Offset),
}

/// The error for a trim whose payload is not an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a malformed trim")]
pub struct BadTrim;

/// Encodes the payload of a trim: the first offset to keep.
pub fn encode_trim(first_offset: Offset) -> [u8; 8] {
    first_offset.0.to_le_bytes()
}

/// Decodes the output of [`encode_trim`].
///
/// # Errors
/// [`BadTrim`] for anything else.
pub fn decode_trim(bytes: &[u8]) -> Result<Offset, BadTrim> {
    bytes.try_into().map(|bytes| Offset(u64::from_le_bytes(bytes))).map_err(|_| BadTrim)
}

/// Applies the entry at `index` to the producers, the cursors and the hash chain.
pub fn apply_to_tables(tables: &mut Arc<Tables>, index: LogIndex, change: &StateChange) {
    match change {
        StateChange::Records { producer, chain, .. } => {
            if let Some((id, sequence, answer)) = producer {
                Arc::make_mut(tables).producers.appended(*id, *sequence, *answer);
            }
            if chain.is_some() {
                Arc::make_mut(tables).chain = *chain;
            }
        }
        StateChange::Commands { commands, append_time_us } => {
            let tables = Arc::make_mut(tables);
            commands.iter().for_each(|command| tables.apply(command, index, *append_time_us));
        }
        StateChange::Trim(_) | StateChange::Nothing => {}
    }
}

/// The applied position of a log, and its log state.
///
/// After a snapshot or a restart, the state may include later entries than the last applied one. The entries in
/// between are applied again, without changing the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    index: LogIndex,
    next_offset: Offset,
    state: LogState,
    as_of: LogIndex,
}

impl Applied {
    /// Creates the state at a start or after a snapshot: everything up to `index` is applied, and `state` includes
    /// the entries up to `as_of`. The next record gets `next_offset`.
    pub fn new(index: LogIndex, next_offset: Offset, state: LogState, as_of: LogIndex) -> Applied {
        Applied { index, next_offset, state, as_of }
    }

    /// Returns the state after a snapshot. Offsets never decrease, whatever the snapshot contains.
    #[must_use]
    pub fn after_snapshot(&self, snapshot: Applied) -> Applied {
        let first_offset = snapshot.state.first_offset.max(self.state.first_offset);
        let state = LogState { first_offset, ..snapshot.state };
        Applied { next_offset: snapshot.next_offset.max(self.next_offset), state, ..snapshot }
    }

    /// Applies the entry at `index`.
    pub fn apply(&mut self, index: LogIndex, change: StateChange) -> Outcome {
        let is_new = index > self.as_of;
        let mut outcome = Outcome::Applied;
        if is_new {
            apply_to_tables(&mut self.state.tables, index, &change);
        }
        match change {
            StateChange::Records { next_offset, append_time_us, .. } => {
                self.next_offset = next_offset;
                if is_new {
                    self.state.last_append_time_us = self.state.last_append_time_us.max(append_time_us);
                }
            }
            StateChange::Trim(first_offset) => {
                if is_new {
                    self.state.first_offset = first_offset.min(self.next_offset).max(self.state.first_offset);
                    outcome = Outcome::Trimmed(self.state.first_offset);
                }
            }
            StateChange::Commands { .. } | StateChange::Nothing => {}
        }
        self.index = index;
        self.as_of = self.as_of.max(index);
        outcome
    }

    /// Returns the last applied entry.
    pub fn index(&self) -> LogIndex {
        self.index
    }

    /// Returns the log state, and the index of the last entry that it includes.
    pub fn log_state(&self) -> (&LogState, LogIndex) {
        (&self.state, self.as_of)
    }

    /// Returns the producers and the cursors.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.state.tables
    }

    /// Returns what readers may see.
    pub fn visible(&self) -> Visible {
        Visible {
            applied: self.index,
            first_offset: self.state.first_offset,
            next_offset: self.next_offset,
            last_append_time_us: self.state.last_append_time_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(next_offset: u64, append_time_us: u64) -> StateChange {
        StateChange::Records { next_offset: Offset(next_offset), append_time_us, producer: None, chain: None }
    }

    fn visible(applied: u64, first_offset: u64, next_offset: u64, last_append_time_us: u64) -> Visible {
        Visible {
            applied: LogIndex(applied),
            first_offset: Offset(first_offset),
            next_offset: Offset(next_offset),
            last_append_time_us,
        }
    }

    #[test]
    fn a_trim_moves_the_first_offset_forward_and_not_beyond_the_end() {
        let mut log = Applied::new(LogIndex(1), Offset(0), LogState::default(), LogIndex(1));
        let trim = |log: &mut Applied, index, first| log.apply(LogIndex(index), StateChange::Trim(Offset(first)));
        assert_eq!(log.apply(LogIndex(2), records(10, 70)), Outcome::Applied);
        assert_eq!(trim(&mut log, 3, 4), Outcome::Trimmed(Offset(4)));
        assert_eq!(trim(&mut log, 4, 2), Outcome::Trimmed(Offset(4)));
        assert_eq!(trim(&mut log, 5, 99), Outcome::Trimmed(Offset(10)));
        assert_eq!(log.apply(LogIndex(6), StateChange::Nothing), Outcome::Applied);
        assert_eq!(log.visible(), visible(6, 10, 10, 70));
    }

    #[test]
    fn entries_that_the_state_contains_do_not_change_it_again() {
        let state = LogState { first_offset: Offset(5), last_append_time_us: 90, ..LogState::default() };
        let mut log = Applied::new(LogIndex(1), Offset(0), state.clone(), LogIndex(4));
        log.apply(LogIndex(2), records(8, 80));
        assert_eq!(log.apply(LogIndex(3), StateChange::Trim(Offset(5))), Outcome::Applied);
        log.apply(LogIndex(4), records(9, 90));
        assert_eq!((log.log_state(), log.visible()), ((&state, LogIndex(4)), visible(4, 5, 9, 90)));
        log.apply(LogIndex(5), records(10, 95));
        assert_eq!(log.log_state(), (&LogState { last_append_time_us: 95, ..state }, LogIndex(5)));
        log.apply(LogIndex(6), records(11, 94));
        assert_eq!(log.visible(), visible(6, 5, 11, 95));
    }

    #[test]
    fn offsets_do_not_go_back_with_a_snapshot() {
        let state =
            |first, time| LogState { first_offset: Offset(first), last_append_time_us: time, ..LogState::default() };
        let before = Applied::new(LogIndex(5), Offset(20), state(10, 7), LogIndex(5));
        let older = Applied::new(LogIndex(9), Offset(15), state(8, 6), LogIndex(12));
        assert_eq!(before.after_snapshot(older).visible(), visible(9, 10, 20, 6));
        let newer = Applied::new(LogIndex(9), Offset(30), state(25, 8), LogIndex(12));
        assert_eq!(before.after_snapshot(newer.clone()), newer);
    }
}
