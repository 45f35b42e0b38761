//! This node's replica of a group: the state machine, its log on disk and its high watermark. Performs the group's
//! effects.

mod comparing;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use self::comparing::Comparing;
use super::compare::Compared;
use super::error::HostError;
use super::group::{Answer, Effects, EntryEnd, FETCH_BYTES, FetchRange, Group, GroupConfig, LogWrite};
use super::sinks::Sinks;
use super::{received, wire};
use crate::catalog::policy::facts::ReplicaFacts;
use crate::feature_level::FeatureRange;
use crate::pb::peer::RaftMessage;
use crate::storage::entry::Entry;
use crate::storage::log::{GroupLog, HardState, Recovered, SealAge, StorageError};
use crate::storage::reader::{Access, GroupReader, ReadError};
use crate::types::{GroupId, LogIndex, NodeId, Offset};
use crate::watermark::{HighWatermark, Visible};
use bytes::Bytes;

/// This node's replicas.
pub type Groups = BTreeMap<GroupId, Replica>;

/// This node's replica of one group.
pub struct Replica {
    /// The state machine.
    pub group: Group,
    /// The high watermark, for readers.
    pub watermark: HighWatermark,
    /// Reads the stored entries.
    pub reader: GroupReader,
    id: GroupId,
    log: Arc<Mutex<GroupLog>>,
    hard_state: HardState,
    /// The time in the header of the newest segment at the start, by the log's clock.
    begun_us: u64,
    /// True if the commit index in `hard_state` is not written yet. It is written with the next entries, before a
    /// sync, or at the next tick.
    commit_due: bool,
    held: Held,
    comparing: Comparing,
}

/// The new watermark and the answers. For the catalog they wait until its commands are applied.
#[derive(Default)]
struct Held {
    visible: Option<Visible>,
    answers: Vec<Answer>,
}

impl Replica {
    /// Starts the group of a recovered log. Blocks while it reads every entry that is not applied yet. The catalog is
    /// replayed from its first entry.
    ///
    /// # Errors
    /// If an entry can't be read, or the recovered state is inconsistent.
    pub fn start(
        config: GroupConfig,
        mut log: GroupLog,
        mut recovered: Recovered,
        watermark: HighWatermark,
        sinks: &Sinks,
    ) -> Result<Replica, HostError> {
        let id = config.id;
        if id == GroupId::CATALOG {
            recovered.applied = recovered.base.index;
            // The catalog's commands define which logs exist, so they are applied even before the replica is compared.
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
        let start = EntryEnd { index: recovered.applied, offset: before, append_time_us };
        let group = Group::new(config, &recovered, start, &tail).map_err(|e| HostError::State(id, e))?;
        watermark.advance(group.visible());
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
        let comparing = Comparing::new(id, log.clone(), reader.clone());
        Ok(Replica {
            group,
            watermark,
            begun_us: reader.begun_us(),
            reader,
            id,
            log,
            hard_state,
            commit_due: hard_state != recovered.hard_state,
            held: Held::default(),
            comparing,
        })
    }

    fn log(&self) -> MutexGuard<'_, GroupLog> {
        self.log.lock()
    }

    /// Performs all pending effects of the group. Returns the catalog's commands to apply, or `None` if there were no
    /// effects.
    ///
    /// # Errors
    /// If the log can't be written. Nothing is acknowledged after that.
    pub fn perform_ready(&mut self, sinks: &Sinks) -> Result<Option<Vec<Bytes>>, HostError> {
        let mut commands = None;
        while let Some(effects) = self.group.ready() {
            self.perform(effects, sinks, commands.get_or_insert_default())?;
        }
        self.comparing.look_up_digest(sinks);
        if self.group.differs() {
            self.watermark.withdraw();
            self.comparing.store_difference(&self.group, sinks);
        } else if self.comparing.is_proven_equal(&self.group) {
            self.comparing.clear_suspicion(&mut self.group, sinks);
            self.watermark.restore();
        } else if self.group.is_damaged() {
            // Visible records stay visible, but no more will become visible.
            self.watermark.close();
        }
        Ok(commands)
    }

    /// Writes the commit index, if it is not written yet. Called on each tick and at a stop.
    ///
    /// # Errors
    /// If the log can't be written.
    pub fn write_commit(&mut self) -> Result<(), HostError> {
        if std::mem::take(&mut self.commit_due) {
            self.log().append_hard_state(&self.hard_state)?;
        }
        Ok(())
    }

    /// Returns the facts about this replica that the catalog's policy uses. `is_searched`: a search for expired
    /// records is running.
    pub fn facts(&self, is_searched: bool) -> ReplicaFacts {
        ReplicaFacts { begun_us: self.begun_us, is_searched, ..self.group.facts() }
    }

    /// Sets the time of the log's clock, for the header of the next segment. Seals the newest segment if it is at
    /// least as old as `seal`.
    ///
    /// # Errors
    /// If the log can't be written.
    pub fn keep_time(&self, local_us: u64, seal: Option<SealAge>, sinks: &Sinks) -> Result<(), HostError> {
        let mut log = self.log();
        log.set_local_time(local_us);
        let sealed = match seal {
            Some(age) => log.end_old_segment(age)?,
            None => false,
        };
        drop(log);
        if sealed {
            sinks.writer.sync(self.id, 0);
        }
        Ok(())
    }

    fn perform(&mut self, effects: Effects, sinks: &Sinks, commands: &mut Vec<Bytes>) -> Result<(), HostError> {
        if let Some(write) = &effects.write {
            self.write(write)?;
        }
        if !self.comparing.compare_written(&mut self.group) {
            // The replica differs, so the rest of the effects is dropped. The answers are sent, because they do not
            // depend on the entries that were just written.
            effects.answers.into_iter().for_each(Answer::send);
            return Ok(());
        }
        // A sync for a conf change or a trim must cover the commit index.
        if effects.sync.is_some() || effects.conf_state.is_some() || effects.trim.is_some() {
            self.write_commit()?;
        }
        let mut sync = effects.sync;
        if let Some((conf_state, as_of)) = effects.conf_state {
            self.log().set_conf_state(conf_state, as_of);
            sync = sync.or(Some(0));
        }
        if let Some(visible) = effects.visible {
            self.note_applied(visible);
        }
        if let Some((first_offset, applied)) = effects.trim {
            // The watermark advances before the files are removed. Otherwise a response could contain a first offset
            // whose record no longer exists.
            if self.id != GroupId::CATALOG {
                effects.visible.into_iter().for_each(|visible| self.watermark.advance(visible));
            }
            self.trim(first_offset, applied)?;
            sync = sync.or(Some(0));
        }
        if let Some(ready) = sync {
            sinks.writer.sync(self.id, ready);
        }
        for message in effects.messages {
            let claim = self.comparing.claim_with(&self.group, &message);
            let (to, mut message) = (NodeId(message.to), wire::message_to_pb(self.id, message));
            message.claim = claim.as_ref().map(wire::claim_to_pb).into();
            sinks.outbound.send(to, message);
        }
        commands.extend(effects.commands);
        self.held.visible = effects.visible.or(self.held.visible);
        self.held.answers.extend(effects.answers);
        if self.id != GroupId::CATALOG {
            self.release();
        }
        for fetch in effects.fetches {
            self.fetch(fetch, sinks);
        }
        Ok(())
    }

    /// Steps a peer's message. `supported` are the feature levels of this node.
    ///
    /// # Errors
    /// Why the message is dropped. No correct peer of this version sends such a message.
    pub fn step(&mut self, mut message: RaftMessage, supported: FeatureRange) -> Result<(), String> {
        let claim = message.claim.take().map(|claim| wire::claim_from_pb(&claim));
        let message = wire::message_from_pb(message).map_err(|e| e.to_string())?;
        received::check(self.id, &message, supported).map_err(|e| e.to_string())?;
        let mut compared = Compared::Equal;
        // The claim of a node that does not lead proves nothing; `step_with` rejects its message.
        let compares = self.group.compares() && !self.group.leads_another(&message);
        if message.term >= self.group.term().0 && compares {
            let leader = NodeId(message.from);
            let digest_at = |index| self.log().known_at(index).map(|ours| ours.digest);
            if self.group.acknowledges_others(&message, claim.as_ref(), digest_at) {
                return Err(format!("an acknowledgement of entries up to {} that are different here", message.index));
            }
            if let Some(claim) = &claim {
                self.comparing.compare(&mut self.group, leader, claim);
            }
            if !self.group.is_damaged() {
                let before = claim.as_ref().and_then(|claim| claim.before.as_ref());
                compared = self.comparing.compare_entries(&mut self.group, &message, before);
            }
        }
        let claimed_last = claim.map(|claim| claim.last_index);
        self.group.step_with(message, claimed_last, compared).map_err(|e| e.to_string())
    }

    /// Advances the watermark and sends the held answers. For the catalog, the driver calls this after it has applied
    /// the commands, so that readers of the watermark and receivers of answers see their effect.
    pub fn release(&mut self) {
        let held = std::mem::take(&mut self.held);
        if let Some(visible) = held.visible {
            self.watermark.advance(visible);
        }
        held.answers.into_iter().for_each(Answer::send);
    }

    /// Writes to the page cache. If only the commit index has changed, the write is deferred to the next entries,
    /// where it costs nothing: no promise depends on the commit index being on disk.
    fn write(&mut self, write: &LogWrite) -> Result<(), StorageError> {
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
            log.install_snapshot(snapshot, &self.hard_state)?;
        }
        if let Some(from) = write.truncate_from {
            log.truncate_suffix(from)?;
        }
        let hard_state = std::mem::take(&mut self.commit_due).then_some(&self.hard_state);
        log.append_ready(&write.entries, hard_state)
    }

    /// Passes the log state and the applied index to the log. After a snapshot, the log state may include later
    /// entries than the applied one.
    fn note_applied(&self, visible: Visible) {
        let (log_state, as_of) = self.group.log_state();
        let mut log = self.log();
        log.set_log_state(log_state, as_of);
        log.set_applied(visible.applied);
    }

    fn trim(&mut self, first_offset: Offset, applied: LogIndex) -> Result<(), StorageError> {
        let base = self.log().trim(first_offset, applied)?;
        self.group.trimmed(base);
        Ok(())
    }

    /// Passes on the entries that a reader thread fetched for a follower. An unreadable entry is logged once. The
    /// leader then hands over leadership to a node that has the entry (`Group::tick`).
    pub fn fetched(&mut self, low: LogIndex, entries: Result<Vec<Entry>, ReadError>) {
        match entries {
            Ok(entries) => self.group.fetched(low, &entries),
            Err(error @ (ReadError::Damaged(_) | ReadError::NewerFrame(_) | ReadError::Io(_))) => {
                if self.group.set_unreadable(low) {
                    // The read has logged the damage as an error.
                    log::warn!("group {}: entry {low} can't be read for a follower: {error}", self.id);
                }
                self.group.fetched(low, &[]);
            }
            // Either the follower gets a snapshot, or raft asks again.
            Err(ReadError::Trimmed { .. } | ReadError::NotCached | ReadError::Shortage(_)) => {
                self.group.fetched(low, &[]);
            }
        }
    }

    /// Fetches old entries on a reader thread. If all reader threads are busy, raft asks again later.
    fn fetch(&self, fetch: FetchRange, sinks: &Sinks) {
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

/// Reads every entry after the applied one.
fn read_tail(id: GroupId, reader: &GroupReader, recovered: &Recovered) -> Result<Vec<Entry>, HostError> {
    let mut tail: Vec<Entry> = Vec::new();
    let end = recovered.last_index.next();
    let mut low = recovered.applied.next();
    while low < end {
        let more = reader.entries(low, end, FETCH_BYTES, Access::Blocking).map_err(|e| HostError::Read(id, e))?;
        let Some(last) = more.last() else {
            return Err(HostError::State(
                id,
                format!("entry {low} is missing, the last one is {}", recovered.last_index),
            ));
        };
        low = last.index.next();
        tail.extend(more);
    }
    Ok(tail)
}
