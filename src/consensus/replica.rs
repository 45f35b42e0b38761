//! A group on this node: the machine, its log on disk, its watermark. Performs the machine's effects.

mod comparing;

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use self::comparing::Comparing;
use super::Outbound;
use super::compare::Compared;
use super::completions::Completions;
use super::group::{Answer, Effects, End, FETCH_BYTES, Fetch, Group, GroupConfig, Write};
use super::{received, wire};
use crate::catalog::BadCommand;
use crate::pb::peer::RaftMessage;
use crate::storage::entry::Entry;
use crate::storage::log::{GroupLog, HardState, Recovered, SealAge, StorageError};
use crate::storage::reader::{Access, GroupReader, ReadError, ReadersHandle};
use crate::types::{GroupId, LogIndex, NodeId, Offset};
use crate::watermark::{Mark, Watermark};
use crate::writer::WriterHandle;
use bytes::Bytes;

/// What every group's effects go to.
pub struct Sinks {
    /// The log-writer.
    pub writer: WriterHandle,
    /// The cold reads.
    pub readers: ReadersHandle,
    /// The peers.
    pub outbound: Arc<dyn Outbound>,
    /// Back to this thread.
    pub completions: Completions,
}

/// A group could not be opened, or its log not written.
#[derive(Debug)]
pub enum HostError {
    /// The storage says why.
    Storage(StorageError),
    /// An entry that is needed for the start could not be read.
    Read(GroupId, ReadError),
    /// The recovered state is impossible.
    State(GroupId, String),
    /// The catalog says what this version does not understand.
    Catalog(BadCommand),
    /// The system gives no thread.
    Thread(std::io::Error),
}

impl std::fmt::Display for HostError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HostError::Storage(error) => error.fmt(f),
            HostError::Read(group, error) => write!(f, "group {group}: {error:?}"),
            HostError::State(group, what) => write!(f, "group {group}: {what}"),
            HostError::Catalog(error) => write!(f, "{error}; start a newer version of the program"),
            HostError::Thread(error) => write!(f, "no thread for consensus: {error}"),
        }
    }
}

impl std::error::Error for HostError {}

impl From<StorageError> for HostError {
    fn from(error: StorageError) -> HostError {
        HostError::Storage(error)
    }
}

impl HostError {
    /// True when starting the same program again will not help.
    pub fn is_config(&self) -> bool {
        match self {
            HostError::Storage(error) => error.is_config(),
            HostError::Catalog(_) | HostError::Read(_, ReadError::NewerFrame(_)) => true,
            HostError::Read(..) | HostError::State(..) | HostError::Thread(_) => false,
        }
    }

    /// True when what is on the disk is not what was written there.
    pub fn is_damage(&self) -> bool {
        match self {
            HostError::Storage(error) => error.is_damage(),
            HostError::Read(_, ReadError::Damaged(_)) | HostError::State(..) => true,
            HostError::Read(
                _,
                ReadError::NotCached
                | ReadError::Trimmed { .. }
                | ReadError::NewerFrame(_)
                | ReadError::Io(_)
                | ReadError::Shortage(_),
            )
            | HostError::Catalog(_)
            | HostError::Thread(_) => false,
        }
    }
}

/// One group on this node.
pub struct Replica {
    /// The machine.
    pub group: Group,
    /// How far it is applied.
    pub watermark: Watermark,
    /// Its stored bytes.
    pub reader: GroupReader,
    id: GroupId,
    log: Arc<Mutex<GroupLog>>,
    hard_state: HardState,
    /// A commit index that is not written yet: it goes behind the next entries, with a sync, or at the next tick.
    commit_due: bool,
    /// The catalog's watermark and answers, until its commands are applied.
    held: Held,
    comparing: Comparing,
}

#[derive(Default)]
struct Held {
    mark: Option<Mark>,
    answers: Vec<Answer>,
}

impl Replica {
    /// Takes a recovered log and starts its group. Reads every entry that is not applied yet; may block, as only a start may.
    /// The catalog is replayed from its first entry.
    ///
    /// # Errors
    /// When an entry can't be read, or the state is impossible.
    pub fn start(
        config: GroupConfig,
        mut log: GroupLog,
        mut recovered: Recovered,
        watermark: Watermark,
        sinks: &Sinks,
    ) -> Result<Replica, HostError> {
        let id = config.id;
        if id == GroupId::CATALOG {
            recovered.applied = recovered.base.index;
            // Its commands say which logs there are, and are applied again until it is compared.
            recovered.differing = None;
        }
        let reader = log.reader();
        let tail = read_tail(id, &reader, &recovered)?;
        log.note_tail(recovered.applied, &tail);
        let before = match tail.first() {
            Some(first) => first.stamp().map_err(|e| HostError::State(id, e.to_string()))?.base_offset,
            None => recovered.next_offset,
        };
        let append_time_us = recovered.log_state.last_append_time_us;
        let start = End { index: recovered.applied, offset: before, append_time_us };
        let group = Group::new(config, &recovered, start, &tail).map_err(|e| HostError::State(id, e))?;
        watermark.advance(group.mark());
        if let Some(index) = group.suspect() {
            log::warn!(
                "group {id}: this replica differed from the leader's at entry {index} or before: no record is served until it is \
                 compared again"
            );
            watermark.withdraw();
        }
        let log = Arc::new(Mutex::new(log));
        sinks.writer.register(id, log.clone());
        let hard_state = group.hard_state();
        Ok(Replica {
            group,
            watermark,
            reader,
            id,
            log,
            hard_state,
            commit_due: hard_state != recovered.hard_state,
            held: Held::default(),
            comparing: Comparing::default(),
        })
    }

    fn log(&self) -> MutexGuard<'_, GroupLog> {
        // A panic while it was held has already stopped the process.
        self.log.lock()
    }

    /// Performs everything that the machine wants done now. Gives the catalog's commands that were applied; `None` when
    /// nothing was to be done.
    ///
    /// # Errors
    /// When the log can't be written: nothing is acknowledged after that.
    pub fn perform_ready(&mut self, sinks: &Sinks) -> Result<Option<Vec<Bytes>>, HostError> {
        let mut commands = None;
        while let Some(effects) = self.group.ready() {
            self.perform(effects, sinks, commands.get_or_insert_default())?;
        }
        self.look_up_digest(sinks);
        if self.group.differs() {
            self.watermark.withdraw();
            self.store_difference(sinks);
        } else if self.is_proven_equal() {
            self.clear_suspicion(sinks);
        } else if self.group.is_damaged() {
            // What is visible stays so; nothing more will be.
            self.watermark.close();
        }
        Ok(commands)
    }

    /// Writes a commit index that nothing else took along. For every tick, and the end.
    ///
    /// # Errors
    /// When the log can't be written.
    pub fn write_commit(&mut self) -> Result<(), HostError> {
        if std::mem::take(&mut self.commit_due) {
            self.log().append_hard_state(&self.hard_state)?;
        }
        Ok(())
    }

    /// Sets the log's clock, for the header of the next segment.
    pub fn set_local_time(&self, local_us: u64) {
        self.log().set_local_time(local_us);
    }

    /// Seals the newest segment if it is at least this old.
    ///
    /// # Errors
    /// When the log can't be written.
    pub fn end_old_segment(&self, age: SealAge, sinks: &Sinks) -> Result<(), HostError> {
        if self.log().end_old_segment(age)? {
            sinks.writer.sync(self.id, 0);
        }
        Ok(())
    }

    fn perform(&mut self, effects: Effects, sinks: &Sinks, commands: &mut Vec<Bytes>) -> Result<(), HostError> {
        if let Some(write) = &effects.write {
            self.write(write)?;
        }
        if !self.compare_written() {
            // Nothing of it is acknowledged or shown. A client's answer was decided by other entries.
            effects.answers.into_iter().for_each(Answer::send);
            return Ok(());
        }
        // Whoever wants a sync may want the commit on the disk: conf changes and trims do.
        if effects.sync.is_some() || effects.conf_state.is_some() || effects.trim.is_some() {
            self.write_commit()?;
        }
        let mut sync = effects.sync;
        if let Some((conf_state, as_of)) = effects.conf_state {
            self.log().set_conf_state(conf_state, as_of);
            sync = sync.or(Some(0));
        }
        if let Some(mark) = effects.mark {
            self.note_applied(mark);
        }
        if let Some((first_offset, applied)) = effects.trim {
            // First what is shown, then the files: otherwise an answer has a first offset before the records that are there.
            if self.id != GroupId::CATALOG {
                effects.mark.into_iter().for_each(|mark| self.watermark.advance(mark));
            }
            self.trim(first_offset, applied)?;
            sync = sync.or(Some(0));
        }
        if let Some(ready) = sync {
            sinks.writer.sync(self.id, ready);
        }
        for message in effects.messages {
            let claim = self.claim_with(&message);
            let (to, mut message) = (NodeId(message.to), wire::message_to_pb(self.id, message));
            message.claim = claim.as_ref().map(wire::claim_to_pb).into();
            sinks.outbound.send(to, message);
        }
        commands.extend(effects.commands);
        self.held.mark = effects.mark.or(self.held.mark);
        self.held.answers.extend(effects.answers);
        if self.id != GroupId::CATALOG {
            self.release();
        }
        for fetch in effects.fetches {
            self.fetch(fetch, sinks);
        }
        Ok(())
    }

    /// Takes a peer's message.
    ///
    /// # Errors
    /// What is wrong with a message that no sound peer of this version sends; it is dropped.
    pub fn step(&mut self, mut message: RaftMessage) -> Result<(), String> {
        let claim = message.claim.take().map(|claim| wire::claim_from_pb(&claim));
        let message = wire::message_from_pb(message).map_err(|e| e.to_string())?;
        received::check(self.id, &message).map_err(|e| e.to_string())?;
        let mut compared = Compared::Equal;
        // `step_with` refuses a message of a node that does not lead; its claim proves nothing.
        let compares = self.group.compares() && !self.group.leads_another(&message);
        if message.term >= self.group.term().0 && compares {
            let leader = NodeId(message.from);
            let digest_at = |index| self.log().known_at(index).map(|ours| ours.digest);
            if self.group.acknowledges_others(&message, claim.as_ref(), digest_at) {
                return Err(format!("an acknowledgement of entries up to {} that are others here", message.index));
            }
            if let Some(claim) = &claim {
                self.compare(leader, claim);
            }
            if !self.group.is_damaged() {
                compared = self.compare_entries(&message, claim.as_ref().and_then(|claim| claim.before.as_ref()));
            }
        }
        let claimed_last = claim.map(|claim| claim.last_index);
        self.group.step_with(message, claimed_last, compared).map_err(|e| e.to_string())
    }

    /// Moves the watermark and sends the answers that are due. For the catalog the driver calls it once the commands are
    /// applied: whoever sees its watermark, or has an answer, sees their effect.
    pub fn release(&mut self) {
        let held = std::mem::take(&mut self.held);
        if let Some(mark) = held.mark {
            self.watermark.advance(mark);
        }
        held.answers.into_iter().for_each(Answer::send);
    }

    /// A commit index alone is only remembered: a client's answer does not wait for it, as no promise needs it, and with the
    /// next entries it costs nothing.
    fn write(&mut self, write: &Write) -> Result<(), StorageError> {
        if let Some(hard_state) = &write.hard_state {
            let commit = hard_state.commit;
            let commit_alone = HardState { commit, ..self.hard_state } == *hard_state;
            self.hard_state = *hard_state;
            self.commit_due = true;
            if commit_alone && write.snapshot.is_none() && write.truncate_from.is_none() && write.entries.is_empty() {
                return Ok(());
            }
        }
        let mut log = self.log.lock();
        if let Some(snapshot) = &write.snapshot {
            log.install_marker(snapshot, &self.hard_state)?;
        }
        if let Some(from) = write.truncate_from {
            log.truncate_suffix(from)?;
        }
        let hard_state = std::mem::take(&mut self.commit_due).then_some(&self.hard_state);
        log.append_ready(&write.entries, hard_state)
    }

    /// After a snapshot the log state may be as of a later entry than the applied one.
    fn note_applied(&self, mark: Mark) {
        let (log_state, as_of) = self.group.log_state();
        let mut log = self.log();
        log.set_log_state(log_state, as_of);
        log.set_applied(mark.applied);
    }

    fn trim(&mut self, first_offset: Offset, applied: LogIndex) -> Result<(), StorageError> {
        let base = self.log().trim(first_offset, applied)?;
        self.group.trimmed(base);
        Ok(())
    }

    /// Takes the entries that a `reader` fetched for a follower. Damage is logged once for each entry; the leader then hands over
    /// to a node that can serve the follower (`Group::tick`).
    pub fn fetched(&mut self, low: LogIndex, entries: Result<Vec<Entry>, ReadError>) {
        match entries {
            Ok(entries) => self.group.fetched(low, &entries),
            Err(error @ (ReadError::Damaged(_) | ReadError::NewerFrame(_) | ReadError::Io(_))) => {
                if self.group.set_unreadable(low) {
                    // The damage itself was logged as an error by the read.
                    log::warn!("group {}: entry {low} can't be read for a follower: {error}", self.id);
                }
                self.group.fetched(low, &[]);
            }
            // The follower is sent a snapshot, or raft asks again.
            Err(ReadError::Trimmed { .. } | ReadError::NotCached | ReadError::Shortage(_)) => {
                self.group.fetched(low, &[]);
            }
        }
    }

    /// Has a `reader` fetch old entries. When the readers are busy raft asks again.
    fn fetch(&self, fetch: Fetch, sinks: &Sinks) {
        let (id, reader, completions) = (self.id, self.reader.clone(), sinks.completions.clone());
        let job = Box::new(move || {
            let entries = reader.entries(fetch.low, fetch.high, FETCH_BYTES, Access::Blocking);
            completions.fetched((id, fetch.low, entries));
        });
        if sinks.readers.run_own(job).is_err() {
            sinks.completions.fetched((id, fetch.low, Ok(Vec::new())));
        }
    }
}

/// Every entry behind the applied one.
fn read_tail(id: GroupId, reader: &GroupReader, recovered: &Recovered) -> Result<Vec<Entry>, HostError> {
    let mut tail: Vec<Entry> = Vec::new();
    let end = recovered.last_index.next();
    let mut low = recovered.applied.next();
    while low < end {
        let more = reader.entries(low, end, FETCH_BYTES, Access::Blocking).map_err(|e| HostError::Read(id, e))?;
        let Some(last) = more.last() else {
            return Err(HostError::State(
                id,
                format!("entry {low} is not there, the last one is {}", recovered.last_index),
            ));
        };
        low = last.index.next();
        tail.extend(more);
    }
    Ok(tail)
}
