//! This node's replica of a group: the state machine, its log on disk and its high watermark. Performs the group's
//! effects.

mod comparing;
mod facts;
mod tail;

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use raft::eraftpb::{Message, MessageType};

use self::comparing::Comparing;
use self::tail::read_tail;
use super::compare::Compared;
use super::completions::{Fetched, ReplicaEpoch};
use super::error::HostError;
use super::group::{
    Answer, CommittedCommand, Effects, EntryEnd, FETCH_BYTES, FetchRange, Group, GroupConfig, LogWrite,
};
use super::group::{bulk, quiet};
use super::sinks::Sinks;
use super::{received, wire};
use crate::feature_level::FeatureRange;
use crate::log_state::TablesView;
use crate::pb::peer::RaftMessage;
use crate::storage::log::{CatalogState, GroupLog, HardState, Recovered, SealAge, StorageError};
use crate::storage::node::DataDir;
use crate::storage::reader::{Access, GroupReader, ReadError};
use crate::types::{GroupId, LogIndex, Offset, ReplicaId};
use crate::watermark::{HighWatermark, Visible};

/// This node's replica of one group.
pub struct Replica {
    pub group: Group,
    /// The high watermark, for readers.
    pub watermark: HighWatermark,
    /// Reads the stored entries.
    pub reader: GroupReader,
    /// The applied producers and cursors.
    pub tables: TablesView,
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
    /// True while the last heartbeats before the group is quiet are sent.
    announces_quiet: bool,
    sent: u64,
    epoch: ReplicaEpoch,
    data_dir: Option<Arc<DataDir>>,
    /// True while the log is deleted.
    reads_ended: bool,
}

/// Where a replica comes from.
#[derive(Clone, Default)]
pub struct ReplicaOrigin {
    /// Differs from the epochs of earlier replicas of the group in this process.
    pub epoch: ReplicaEpoch,
    /// Only for the catalog's group: where snapshots of the catalog are stored.
    pub data_dir: Option<Arc<DataDir>>,
    /// Only for the catalog's group: the newest snapshot of the catalog.
    pub catalog: Option<CatalogState>,
}

/// A change of the catalog.
pub enum CatalogInput {
    /// A command was committed.
    Command(CommittedCommand),
    /// The leader's snapshot replaces the catalog.
    Snapshot(CatalogState),
}

/// The new watermark and the answers. For the catalog they wait until its commands are applied.
#[derive(Default)]
struct Held {
    visible: Option<Visible>,
    answers: Vec<Answer>,
}

impl Replica {
    /// Starts the group of a recovered log. Blocks while it reads every entry that is not applied yet. The catalog is
    /// replayed from its newest snapshot on.
    ///
    /// # Errors
    /// If an entry can't be read, or the recovered state is inconsistent.
    pub fn start(
        config: GroupConfig,
        mut log: GroupLog,
        mut recovered: Recovered,
        watermark: HighWatermark,
        sinks: &Sinks,
        origin: ReplicaOrigin,
    ) -> Result<Replica, HostError> {
        let id = config.id;
        if id == GroupId::CATALOG {
            let snapshot = origin.catalog.as_ref().map_or(LogIndex(0), |catalog| catalog.index);
            if snapshot < recovered.base.index && recovered.base.index > LogIndex(1) {
                let base = recovered.base.index;
                let what = format!(
                    "the log begins after entry {base}, but the snapshot of the catalog ends with entry {snapshot}: its file is \
                     missing, or an older copy"
                );
                return Err(HostError::State(id, what));
            }
            // The snapshot may include entries whose commit index was not synced, or that were never here. Those after
            // the commit index may even be others, of a leader that was replaced.
            let committed = recovered.hard_state.commit.min(recovered.last_index);
            recovered.applied = snapshot.min(committed).max(recovered.base.index);
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
        let mut group = Group::new(config, &recovered, start, &tail).map_err(|e| HostError::State(id, e))?;
        if let Some(catalog) = origin.catalog {
            group.set_catalog(catalog);
        }
        let tables = TablesView::default();
        tables.publish(&group.log_state().0.tables);
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
            tables,
            id,
            log,
            hard_state,
            commit_due: hard_state != recovered.hard_state,
            held: Held::default(),
            comparing,
            announces_quiet: false,
            sent: 0,
            epoch: origin.epoch,
            data_dir: origin.data_dir,
            reads_ended: false,
        })
    }

    pub fn log(&self) -> MutexGuard<'_, GroupLog> {
        self.log.lock()
    }

    /// Performs all pending effects of the group. Returns the catalog's commands to apply, or `None` if there were no
    /// effects.
    ///
    /// # Errors
    /// If the log can't be written. Nothing is acknowledged after that.
    pub fn perform_ready(&mut self, sinks: &Sinks) -> Result<Option<Vec<CatalogInput>>, HostError> {
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
            if !self.reads_ended {
                self.watermark.restore();
            }
        } else if self.group.is_damaged() && !self.group.is_repairing() {
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
            sinks.writer.sync(self.id, self.epoch.ticket(0));
        }
        Ok(())
    }

    fn perform(&mut self, effects: Effects, sinks: &Sinks, commands: &mut Vec<CatalogInput>) -> Result<(), HostError> {
        if let Some(write) = &effects.write {
            if let Some(catalog) = write.snapshot.as_ref().and_then(|snapshot| snapshot.catalog.as_ref()) {
                // Stored first: a log that begins after entry n needs a snapshot that includes it.
                self.store_catalog(catalog)?;
                commands.push(CatalogInput::Snapshot(catalog.clone()));
            }
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
            sinks.writer.sync(self.id, self.epoch.ticket(ready));
        }
        for message in effects.messages {
            self.send(message, sinks);
        }
        commands.extend(effects.commands.into_iter().map(CatalogInput::Command));
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

    /// Stores a snapshot of the catalog, and trims the catalog's log up to it. Blocks for a sync.
    ///
    /// # Errors
    /// If the snapshot or the log can't be written.
    pub fn snapshot_catalog(&mut self, catalog: CatalogState, sinks: &Sinks) -> Result<(), HostError> {
        self.store_catalog(&catalog)?;
        let index = catalog.index;
        self.group.set_catalog(catalog);
        self.trim(Offset::MAX, index)?;
        sinks.writer.sync(self.id, self.epoch.ticket(0));
        Ok(())
    }

    fn store_catalog(&self, catalog: &CatalogState) -> Result<(), HostError> {
        match &self.data_dir {
            Some(data_dir) => Ok(data_dir.store_catalog(catalog)?),
            None => Ok(()),
        }
    }

    /// Ends the waits of readers, because the log was deleted.
    pub fn end_reads(&mut self) {
        if !std::mem::replace(&mut self.reads_ended, true) {
            self.watermark.close();
        }
    }

    /// Reverts [`Replica::end_reads`], unless the replica is damaged.
    pub fn allow_reads(&mut self) {
        let sound = !self.group.is_damaged() && self.group.suspect().is_none();
        if std::mem::take(&mut self.reads_ended) && sound {
            self.watermark.restore();
        }
    }

    /// Called for each request. If this replica follows, the request is forwarded, and then waits here for the commit.
    pub fn expect_reader(&self) {
        if !self.group.leads() {
            self.watermark.expect_reader();
        }
    }

    /// Records that the log-writer has synced what a ticket stands for.
    pub fn synced(&mut self, ticket: u64) {
        if let Some(ready) = self.epoch.ready_of(ticket) {
            self.group.persisted(ready);
        }
    }

    fn send(&mut self, message: Message, sinks: &Sinks) {
        let replica = ReplicaId(message.to);
        let Some(node) = self.group.nodes().node_of(replica) else {
            log::debug!("group {}: a message to replica {replica} is dropped: its node is not known", self.id);
            return;
        };
        let claim = self.comparing.claim_with(&self.group, &message);
        let is_bulk = bulk::is_bulk(&mut self.group, &message);
        let is_heartbeat = message.get_msg_type() == MessageType::MsgHeartbeat;
        let quiet = self.announces_quiet && is_heartbeat && message.commit == self.group.last_index().0;
        let mut message = wire::message_to_pb(self.id, message);
        message.claim = claim.as_ref().map(wire::claim_to_pb).into();
        message.quiet = quiet;
        message.bulk = is_bulk;
        message.commit_may_wait = !self.group.leads() && !self.watermark.has_readers();
        self.sent += 1;
        sinks.outbound.send(node, message);
    }

    /// Returns the number of messages sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Tells the followers that the group is quiet, in a last heartbeat.
    ///
    /// # Errors
    /// If the log can't be written.
    pub fn announce_quiet(&mut self, sinks: &Sinks) -> Result<(), HostError> {
        self.write_commit()?;
        quiet::send_heartbeats(&mut self.group);
        self.announces_quiet = true;
        let performed = self.perform_ready(sinks);
        self.announces_quiet = false;
        performed.map(|inputs| assert!(inputs.is_none_or(|i| i.is_empty()), "a group at rest has nothing to apply"))
    }

    /// Returns true if the commit index is in the log's files.
    pub fn is_written(&self) -> bool {
        !self.commit_due
    }

    /// Steps a peer's message. `supported` are the feature levels of this node.
    ///
    /// # Errors
    /// Why the message is dropped. No correct peer of this version sends such a message.
    pub fn step(&mut self, mut message: RaftMessage, supported: FeatureRange) -> Result<(), String> {
        let (claim, may_wait) =
            (message.claim.take().map(|claim| wire::claim_from_pb(&claim)), message.commit_may_wait);
        let message = wire::message_from_pb(message).map_err(|e| e.to_string())?;
        received::check(self.id, &message, supported).map_err(|e| e.to_string())?;
        let mut compared = Compared::Equal;
        // The claim of a node that does not lead proves nothing; `step_with` rejects its message.
        let compares = self.group.compares() && !self.group.leads_another(&message);
        if message.term >= self.group.term().0 && compares {
            let leader = ReplicaId(message.from);
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
        let from = ReplicaId(message.from);
        self.group.step_with(message, claimed_last, compared).map_err(|e| e.to_string())?;
        self.group.set_commit_may_wait(from, may_wait);
        Ok(())
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
        self.tables.publish(&log_state.tables);
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
    pub fn fetched(&mut self, fetched: Fetched) {
        let Fetched { epoch, low, entries, .. } = fetched;
        if epoch != self.epoch {
            return;
        }
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
            Err(ReadError::Trimmed { .. } | ReadError::NotCached | ReadError::Shortage(_) | ReadError::Gone) => {
                self.group.fetched(low, &[]);
            }
        }
    }

    /// Fetches old entries on a reader thread. If all reader threads are busy, raft asks again later.
    fn fetch(&self, fetch: FetchRange, sinks: &Sinks) {
        let (group, epoch, low) = (self.id, self.epoch, fetch.low);
        let (reader, completions) = (self.reader.clone(), sinks.completions.clone());
        let job = Box::new(move || {
            let entries = reader.entries(low, fetch.high, FETCH_BYTES, Access::Blocking);
            completions.fetched(Fetched { group, epoch, low, entries });
        });
        if sinks.readers.run_own(job).is_err() {
            sinks.completions.fetched(Fetched { group, epoch, low, entries: Ok(Vec::new()) });
        }
    }
}
