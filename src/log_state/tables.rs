//! The producers, the cursors and the hash chain of a log, and the commands that change them.

use protobuf::Message as _;

use super::cursors::{AcquireCursor, CommitCursor, Cursor, Cursors, DeleteCursor};
use super::faults::{Fault, broken};
use super::producers::{Answer, InitProducer, Producer, Producers};
use super::refusal::StateRefusal;
use crate::hash_chain::ChainHash;
use crate::pb::logstate as pb;
use crate::types::{BadName, CursorName, LogIndex, Offset, ProducerId, ProducerName, Term};

/// A change of the producers or the cursors of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateCommand {
    /// Registers a producer, or takes a named one over.
    InitProducer(InitProducer),
    /// Takes a cursor over.
    AcquireCursor(AcquireCursor),
    /// Stores the position of a reader.
    CommitCursor(CommitCursor),
    /// A reader needs its position no longer.
    DeleteCursor(DeleteCursor),
}

/// The bytes are not commands that this version knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadStateCommand {
    /// The bytes are not a message, or a field has an impossible value.
    #[error("a malformed command of the log state: {0}")]
    Malformed(&'static str),
    /// A newer version wrote them.
    #[error("a command of the log state, or a field of one, that is unknown to this version: {0}")]
    Unknown(u32),
}

impl From<BadName> for BadStateCommand {
    fn from(_: BadName) -> BadStateCommand {
        BadStateCommand::Malformed("a name")
    }
}

fn no_unknown(fields: &protobuf::SpecialFields) -> Result<(), BadStateCommand> {
    match fields.unknown_fields().iter().next() {
        Some((number, _)) => Err(BadStateCommand::Unknown(number)),
        None => Ok(()),
    }
}

fn offset(value: u64) -> Result<Offset, BadStateCommand> {
    Some(Offset(value)).filter(|offset| *offset <= Offset::MAX).ok_or(BadStateCommand::Malformed("an offset"))
}

impl StateCommand {
    /// Encodes the payload of an entry with this command. Payloads can be joined: the entry then has all their commands.
    pub fn encode(&self) -> Vec<u8> {
        use pb::command::Command as Is;
        let command = match self.clone() {
            StateCommand::InitProducer(init) => Is::InitProducer(pb::InitProducer {
                producer_id: init.id.0,
                name: init.name.map(|name| name.to_string()).unwrap_or_default(),
                instance: init.instance,
                expected_epoch: init.expected_epoch,
                owner: init.owner,
                ..pb::InitProducer::default()
            }),
            StateCommand::AcquireCursor(acquire) => Is::AcquireCursor(pb::AcquireCursor {
                name: acquire.name.to_string(),
                instance: acquire.instance,
                expected_epoch: acquire.expected_epoch,
                next_offset: acquire.next_offset.0,
                owner: acquire.owner,
                ..pb::AcquireCursor::default()
            }),
            StateCommand::CommitCursor(commit) => Is::CommitCursor(pb::CommitCursor {
                name: commit.name.to_string(),
                next_offset: commit.next_offset.0,
                epoch: commit.epoch,
                expected_revision: commit.expected_revision,
                allow_rewind: commit.allow_rewind,
                metadata: commit.metadata.into(),
                ..pb::CommitCursor::default()
            }),
            StateCommand::DeleteCursor(delete) => Is::DeleteCursor(pb::DeleteCursor {
                name: delete.name.to_string(),
                epoch: delete.epoch,
                expected_revision: delete.expected_revision,
                ..pb::DeleteCursor::default()
            }),
        };
        let command = pb::Command { command: Some(command), ..pb::Command::default() };
        let message = pb::Commands { commands: vec![command], ..pb::Commands::default() };
        message.write_to_bytes().unwrap_or_default()
    }

    /// Decodes the payload of an entry.
    ///
    /// # Errors
    /// [`BadStateCommand`].
    pub fn decode_all(payload: &[u8]) -> Result<Vec<StateCommand>, BadStateCommand> {
        let message: pb::Commands = crate::pb::parse(payload).map_err(|_| BadStateCommand::Malformed("no message"))?;
        no_unknown(&message.special_fields)?;
        if message.commands.is_empty() {
            return Err(BadStateCommand::Malformed("no command"));
        }
        message.commands.into_iter().map(StateCommand::load).collect()
    }

    fn load(message: pb::Command) -> Result<StateCommand, BadStateCommand> {
        use pb::command::Command as Is;
        no_unknown(&message.special_fields)?;
        Ok(match message.command.ok_or(BadStateCommand::Malformed("no command"))? {
            Is::InitProducer(init) => {
                no_unknown(&init.special_fields)?;
                let name = (!init.name.is_empty()).then(|| ProducerName::new(&init.name)).transpose()?;
                StateCommand::InitProducer(InitProducer {
                    id: ProducerId(init.producer_id),
                    name,
                    instance: init.instance,
                    expected_epoch: init.expected_epoch,
                    owner: init.owner,
                })
            }
            Is::AcquireCursor(acquire) => {
                no_unknown(&acquire.special_fields)?;
                StateCommand::AcquireCursor(AcquireCursor {
                    name: CursorName::new(&acquire.name)?,
                    instance: acquire.instance,
                    expected_epoch: acquire.expected_epoch,
                    next_offset: offset(acquire.next_offset)?,
                    owner: acquire.owner,
                })
            }
            Is::CommitCursor(commit) => {
                no_unknown(&commit.special_fields)?;
                StateCommand::CommitCursor(CommitCursor {
                    name: CursorName::new(&commit.name)?,
                    next_offset: offset(commit.next_offset)?,
                    epoch: commit.epoch,
                    expected_revision: commit.expected_revision,
                    allow_rewind: commit.allow_rewind,
                    metadata: commit.metadata.to_vec(),
                })
            }
            Is::DeleteCursor(delete) => {
                no_unknown(&delete.special_fields)?;
                StateCommand::DeleteCursor(DeleteCursor {
                    name: CursorName::new(&delete.name)?,
                    epoch: delete.epoch,
                    expected_revision: delete.expected_revision,
                })
            }
        })
    }
}

/// The producers, the cursors and the hash chain of a log. Clones share their contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// The requests that are recognized when they are sent again.
    pub producers: Producers,
    /// The positions of readers.
    pub cursors: Cursors,
    /// The hash chain after the last chained entry; `None` if there is none.
    pub chain: Option<ChainHash>,
}

impl Tables {
    /// Returns true if nothing was ever stored in them.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty() && self.cursors.is_empty() && self.cursors.changes() == 0 && self.chain.is_none()
    }

    /// Returns whether a command would change anything. Checked by the leader, with the state after all earlier entries.
    ///
    /// # Errors
    /// [`StateRefusal`] if it does not fit.
    pub fn would_change(&self, command: &StateCommand) -> Result<bool, StateRefusal> {
        match command {
            StateCommand::InitProducer(init) => self.producers.check_init(init),
            StateCommand::AcquireCursor(acquire) => self.cursors.acquired(acquire).map(|cursor| cursor.is_some()),
            StateCommand::CommitCursor(commit) => self.cursors.committed(commit, 1).map(|cursor| cursor.is_some()),
            StateCommand::DeleteCursor(delete) => self.cursors.check_delete(delete),
        }
    }

    /// Applies a command of the entry at `index`, which was appended at `time_us`. One that does not fit has no effect.
    ///
    /// Entries of any age are applied again after a restart, so what a command does must never change: a new meaning needs
    /// a new command.
    pub fn apply(&mut self, command: &StateCommand, index: LogIndex, time_us: u64) {
        match command {
            StateCommand::InitProducer(init) => {
                if broken(Fault::EvictedByTime) {
                    self.producers.forget_older(time_us.saturating_sub(60_000_000));
                }
                self.producers.init(init, index);
            }
            StateCommand::AcquireCursor(acquire) => {
                if let Ok(Some(cursor)) = self.cursors.acquired(acquire) {
                    self.cursors.set(cursor);
                }
            }
            StateCommand::CommitCursor(commit) => {
                if let Ok(Some(cursor)) = self.cursors.committed(commit, time_us) {
                    self.cursors.set(cursor);
                }
            }
            StateCommand::DeleteCursor(delete) => self.cursors.delete(delete),
        }
    }

    /// Returns about the length of [`Tables::encode`], without encoding anything.
    pub fn encoded_bytes(&self) -> u64 {
        let producer = |producer: &Producer| 160 + 40 * producer.answers.len();
        let cursor = |cursor: &Cursor| 200 + cursor.metadata.len();
        let bytes: usize = self.producers.iter().map(producer).chain(self.cursors.iter().map(cursor)).sum();
        bytes as u64 + self.chain.map_or(0, |chain| chain.0.len() as u64)
    }

    /// Encodes the tables. Equal tables have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut producers: Vec<&Producer> = self.producers.iter().collect();
        producers.sort_unstable_by_key(|producer| producer.id);
        let kept = |_: &&Cursor| !broken(Fault::CursorsNotInSnapshot);
        let mut cursors: Vec<&Cursor> = self.cursors.iter().filter(kept).collect();
        cursors.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let message = pb::Tables {
            producers: producers.into_iter().map(store_producer).collect(),
            cursors: cursors.into_iter().map(store_cursor).collect(),
            cursor_changes: self.cursors.changes(),
            chain: self
                .chain
                .filter(|_| !broken(Fault::ChainNotInSnapshot))
                .map(|chain| chain.0.to_vec().into())
                .unwrap_or_default(),
            ..pb::Tables::default()
        };
        message.write_to_bytes().unwrap_or_default()
    }

    /// Decodes the output of [`Tables::encode`].
    ///
    /// # Errors
    /// [`BadStateCommand`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Tables, BadStateCommand> {
        let message: pb::Tables = crate::pb::parse(bytes).map_err(|_| BadStateCommand::Malformed("no message"))?;
        no_unknown(&message.special_fields)?;
        let mut tables = Tables::default();
        for producer in message.producers {
            if !tables.producers.restore(load_producer(producer)?) {
                return Err(BadStateCommand::Malformed("two producers with the same id or name, or too many"));
            }
        }
        for cursor in message.cursors {
            if !tables.cursors.restore(load_cursor(cursor)?) {
                return Err(BadStateCommand::Malformed("two cursors with the same name, or too many"));
            }
        }
        tables.cursors.restore_changes(message.cursor_changes);
        if !message.chain.is_empty() {
            let chain = ChainHash::try_from(&message.chain[..]);
            tables.chain = Some(chain.map_err(|_| BadStateCommand::Malformed("a hash chain"))?);
        }
        Ok(tables)
    }
}

fn store_producer(producer: &Producer) -> pb::Producer {
    let answer = |answer: &Answer| pb::Answer {
        offset: answer.offset.0,
        count: answer.count,
        term: answer.term.0,
        append_time_us: answer.append_time_us,
        index: answer.index.0,
        ..pb::Answer::default()
    };
    pb::Producer {
        producer_id: producer.id.0,
        name: producer.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        epoch: producer.epoch,
        instance: producer.instance,
        owner: producer.owner.clone(),
        last_sequence: producer.last_sequence,
        records: producer.records,
        used_index: producer.used.0,
        answers: producer.answers.iter().map(answer).collect(),
        ..pb::Producer::default()
    }
}

fn load_producer(message: pb::Producer) -> Result<Producer, BadStateCommand> {
    no_unknown(&message.special_fields)?;
    let answer = |message: &pb::Answer| {
        no_unknown(&message.special_fields)?;
        Ok(Answer {
            offset: offset(message.offset)?,
            count: message.count,
            term: Term(message.term),
            append_time_us: message.append_time_us,
            index: LogIndex(message.index),
        })
    };
    let kept = message.answers.len();
    if kept > super::producers::ANSWERS_MAX || kept as u64 > message.last_sequence || message.producer_id == 0 {
        return Err(BadStateCommand::Malformed("a producer"));
    }
    Ok(Producer {
        id: ProducerId(message.producer_id),
        name: (!message.name.is_empty()).then(|| ProducerName::new(&message.name)).transpose()?,
        epoch: message.epoch,
        instance: message.instance,
        owner: message.owner,
        last_sequence: message.last_sequence,
        records: message.records,
        used: LogIndex(message.used_index),
        answers: message.answers.iter().map(answer).collect::<Result<_, BadStateCommand>>()?,
    })
}

fn store_cursor(cursor: &Cursor) -> pb::Cursor {
    pb::Cursor {
        name: cursor.name.to_string(),
        next_offset: cursor.next_offset.0,
        epoch: cursor.epoch,
        revision: cursor.revision,
        instance: cursor.instance,
        owner: cursor.owner.clone(),
        metadata: cursor.metadata.clone().into(),
        commit_time_us: cursor.commit_time_us,
        ..pb::Cursor::default()
    }
}

fn load_cursor(message: pb::Cursor) -> Result<Cursor, BadStateCommand> {
    no_unknown(&message.special_fields)?;
    Ok(Cursor {
        name: CursorName::new(&message.name)?,
        next_offset: offset(message.next_offset)?,
        epoch: message.epoch,
        revision: message.revision,
        instance: message.instance,
        owner: message.owner,
        metadata: message.metadata.to_vec(),
        commit_time_us: message.commit_time_us,
    })
}
