//! The `consensus` thread: one loop for all groups of this node.
//!
//! It takes requests, peers' messages, completions and ticks, hands them to the groups, and performs what they want done.
//! It writes to the page cache and nothing slower; the log-writer syncs. Only making a group, which is rare, waits for the
//! disk here. The catalog's state machine runs here too: it says which groups this node carries.

mod admit;
mod govern;
mod tell;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::TryRecvError;

use self::admit::Strangers;
use self::tell::Told;
use super::Outbound;
use super::completions::Completions;
use super::group::{GroupConfig, Rules, TICK_MS};
use super::handle::{ConsensusHandle, ConsensusMsg, INBOX_MESSAGES_MAX, Proposal, ProposeError, ReadIndexError};
use super::joins::Joins;
use super::peer_inbox::{PeerInbox, keeps_its_place};
use super::replica::{HostError, Replica, Sinks};
use super::retention::Retention;
use super::status::Statuses;
use crate::catalog::{Catalog, CatalogView, Command, LogMeta, Member};
use crate::clock::{PeerClocks, StampClock, wall_us};
use crate::doorbell::Doorbell;
use crate::inbox::{Inbox, inbox};
use crate::logs::{Logs, OpenLog};
use crate::pb::peer::RaftMessage;
use crate::reply::ReplySender;
use crate::storage::disk::Disk;
use crate::storage::entry::{EntryKind, Unstamped};
use crate::storage::log::{Genesis, GroupLog, LogOptions};
use crate::storage::node::{DataDir, NodeFile};
use crate::storage::payload::{RecordFields, encode_record};
use crate::storage::reader::ReadersHandle;
use crate::storage::scrub::ScrubHandle;
use crate::thread::{FatalSender, Joiner, Progress, spawn};
use crate::types::{GroupId, NodeId};
use crate::watermark::Watermark;
use crate::writer::WriterHandle;

/// Messages taken from the inbox before their effects are performed: what one fdatasync then covers.
const DRAIN_MESSAGES_MAX: usize = 512;
/// The same in bytes, of clients' records and again of peers' entries: they are written before the next heartbeat is looked at.
const DRAIN_BYTES_MAX: usize = 8 << 20;
/// How long a hand-over of leadership may take before the stop goes on without it.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);

/// Between the ticks of a node that leads all its groups, alone.
const TICK_ALONE_MS: u64 = 250;

/// The inbox, before the thread exists: others are made with its sending sides.
pub struct Consensus {
    inbox: Inbox<ConsensusMsg>,
    handle: ConsensusHandle,
    bell: Doorbell,
    completions: Completions,
    statuses: Arc<Statuses>,
    progress: Progress,
}

/// What the thread works with.
pub struct ConsensusParts {
    /// This node, as the catalog should know it.
    pub me: Member,
    /// The door to the disk.
    pub disk: Disk,
    /// The data directory, locked.
    pub data_dir: Arc<DataDir>,
    /// What it says about this node.
    pub node_file: NodeFile,
    /// How logs are kept.
    pub log_options: LogOptions,
    /// The log-writer; it reports to [`Consensus::report`].
    pub writer: WriterHandle,
    /// The cold reads.
    pub readers: ReadersHandle,
    /// Checks what is on the disk.
    pub scrub: ScrubHandle,
    /// The peers.
    pub outbound: Arc<dyn Outbound>,
    /// Where the catalog is published.
    pub catalog: CatalogView,
    /// How far the catalog's group is applied here; what `catalog` shows is never older.
    pub catalog_watermark: Watermark,
    /// Where logs are opened for clients.
    pub logs: Logs,
}

impl Default for Consensus {
    fn default() -> Consensus {
        let (outbox, inbox) = inbox(INBOX_MESSAGES_MAX);
        let bell = Doorbell::default();
        let completions = Completions::new(bell.clone());
        let statuses = Arc::new(Statuses::default());
        let handle = ConsensusHandle::new(outbox, bell.clone(), statuses.clone());
        Consensus { inbox, handle, bell, completions, statuses, progress: Progress::default() }
    }
}

impl Consensus {
    /// The sending side of the inbox.
    pub fn handle(&self) -> ConsensusHandle {
        self.handle.clone()
    }

    /// Where the log-writer reports persisted Readies.
    pub fn report(&self) -> Arc<dyn Fn(GroupId, u64) + Send + Sync> {
        let completions = self.completions.clone();
        Arc::new(move |group, ready| completions.persisted(group, ready))
    }

    /// The thread's progress mark, for the watchdog.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Recovers every group of this node, then starts the thread. Blocks for the recovery.
    ///
    /// # Errors
    /// When a group can't be recovered, or the thread not be made.
    pub fn start(self, parts: ConsensusParts, fatal: &FatalSender) -> Result<Joiner, HostError> {
        let driver = self.recover(parts)?;
        spawn("consensus", fatal, move || driver.run()).map_err(HostError::Thread)
    }

    fn recover(self, parts: ConsensusParts) -> Result<Driver, HostError> {
        let mut driver = Driver {
            inbox: self.inbox,
            peers: self.handle.peer_inbox(),
            bell: self.bell,
            next_tick: Instant::now(),
            statuses: self.statuses,
            progress: self.progress,
            groups_dir: parts.data_dir.groups_dir(),
            sinks: Sinks {
                writer: parts.writer,
                readers: parts.readers,
                outbound: parts.outbound,
                completions: self.completions,
            },
            me: parts.me,
            disk: parts.disk,
            data_dir: parts.data_dir,
            node_file: parts.node_file,
            scrub: parts.scrub,
            log_options: parts.log_options,
            view: parts.catalog,
            catalog_watermark: parts.catalog_watermark,
            logs: parts.logs,
            catalog: Catalog::default(),
            groups: BTreeMap::new(),
            clock: StampClock::default(),
            peer_clocks: self.handle.peer_clocks().clone(),
            strangers: Strangers::default(),
            told: Told::default(),
            retention: Retention::new(self.handle),
            joins: Joins::default(),
            handing_over: None,
        };
        let begun = Instant::now();
        let groups = driver.node_file.groups.clone();
        log::info!("recovery of {} groups begins", groups.len());
        for group in groups {
            driver.open(group)?;
        }
        driver.perform()?;
        driver.tell_recovery(begun.elapsed());
        Ok(driver)
    }
}

/// What wakes the thread.
enum Event {
    Message(ConsensusMsg),
    /// Of the log-writer or a reader; or a peer has sent something.
    Completed,
    Tick,
    Stop,
}

struct Driver {
    inbox: Inbox<ConsensusMsg>,
    peers: Arc<PeerInbox>,
    bell: Doorbell,
    next_tick: Instant,
    statuses: Arc<Statuses>,
    progress: Progress,
    groups_dir: PathBuf,
    sinks: Sinks,
    me: Member,
    disk: Disk,
    data_dir: Arc<DataDir>,
    node_file: NodeFile,
    scrub: ScrubHandle,
    log_options: LogOptions,
    view: CatalogView,
    catalog_watermark: Watermark,
    logs: Logs,
    catalog: Catalog,
    groups: BTreeMap<GroupId, Replica>,
    clock: StampClock,
    peer_clocks: PeerClocks,
    strangers: Strangers,
    told: Told,
    retention: Retention,
    joins: Joins,
    handing_over: Option<(ReplySender<()>, Instant)>,
}

impl Driver {
    fn run(mut self) -> Result<(), HostError> {
        self.bell.answer_here();
        loop {
            let event = self.next_event();
            for (from, message) in self.peers.take(DRAIN_BYTES_MAX) {
                self.step(from, message);
            }
            match event {
                Event::Message(message) => {
                    let mut bytes = message.bytes();
                    self.handle(message);
                    for message in self.inbox.clone().try_iter().take(DRAIN_MESSAGES_MAX) {
                        if matches!(message, ConsensusMsg::Stop) {
                            return self.stop();
                        }
                        bytes += message.bytes();
                        self.handle(message);
                        if bytes > DRAIN_BYTES_MAX {
                            break;
                        }
                    }
                }
                Event::Completed => {}
                Event::Tick => self.tick()?,
                Event::Stop => return self.stop(),
            }
            self.take_completions();
            self.perform()?;
            self.disk.space().kept();
            self.progress.mark();
        }
    }

    fn next_event(&mut self) -> Event {
        loop {
            // Ticks first: a flood of requests must not stop time. Those that are late are not made up for.
            let now = Instant::now();
            if now >= self.next_tick {
                if now - self.next_tick > Duration::from_millis(2 * TICK_MS) {
                    self.groups.values_mut().for_each(|replica| replica.group.was_late());
                }
                self.next_tick = now + self.tick_every();
                return Event::Tick;
            }
            match self.inbox.try_recv() {
                Ok(ConsensusMsg::Stop) | Err(TryRecvError::Disconnected) => return Event::Stop,
                Ok(message) => return Event::Message(message),
                Err(TryRecvError::Empty) => {}
            }
            if !self.sinks.completions.is_empty() || !self.peers.is_empty() {
                return Event::Completed;
            }
            self.bell.wait_until(self.next_tick);
        }
    }

    /// A node alone has no heartbeat to send and no election to hold; what its ticks do besides has time, and an idle
    /// machine sleeps.
    fn tick_every(&self) -> Duration {
        let alone = self.groups.values().all(|replica| replica.group.leads_alone());
        Duration::from_millis(if alone { TICK_ALONE_MS } else { TICK_MS })
    }

    fn handle(&mut self, message: ConsensusMsg) {
        let now = Instant::now();
        let time_us = self.clock.now(wall_us(), now);
        match message {
            ConsensusMsg::Propose(proposal, reply) => {
                let refused = self.refuses(&proposal);
                match self.groups.get_mut(&proposal.group) {
                    Some(_) if refused => reply.send(Err(ProposeError::Dropped)),
                    Some(replica) => replica.group.propose(proposal, now, time_us, reply),
                    None => reply.send(Err(ProposeError::NoSuchGroup)),
                }
            }
            ConsensusMsg::Command(command, reply) => self.command(&command, now, time_us, reply),
            ConsensusMsg::ReadIndex(group, deadline, reply) => match self.groups.get_mut(&group) {
                Some(replica) => replica.group.read_index(deadline, now, reply),
                None => reply.send(Err(ReadIndexError::NoSuchGroup)),
            },
            ConsensusMsg::Unreachable(node) => {
                self.groups.values_mut().for_each(|replica| replica.group.unreachable(node));
            }
            ConsensusMsg::MarkerSent(group, node, arrived) => {
                if let Some(replica) = self.groups.get_mut(&group) {
                    replica.group.marker_sent(node, arrived);
                }
            }
            ConsensusMsg::HandOver(reply) => {
                for replica in self.groups.values_mut() {
                    replica.group.hand_over();
                }
                self.handing_over = Some((reply, now + HAND_OVER_MAX));
                self.next_tick = now;
            }
            ConsensusMsg::Stop => {}
        }
    }

    /// A peer's message. Those for groups that this node does not carry (yet) are dropped: raft sends again.
    fn step(&mut self, from: NodeId, message: RaftMessage) {
        if message.from != from.0 || message.to != self.me.id.0 {
            let text = format!("a message of {} to {}", NodeId(message.from), NodeId(message.to));
            return self.tell_refused(from, &text);
        }
        if !self.admits(from, &message) {
            return;
        }
        self.heard(from);
        let group = GroupId(message.group);
        let Some(replica) = self.groups.get_mut(&group) else { return };
        if keeps_its_place(&message) && replica.group.is_behind_with_syncs() {
            return self.peers.count_dropped();
        }
        if let Err(what) = replica.step(message) {
            let what = format!("group {group}: {what}");
            self.tell_refused(from, &what);
        }
    }

    fn take_completions(&mut self) {
        let (persisted, fetched) = self.sinks.completions.take();
        for (group, ready) in persisted {
            if let Some(replica) = self.groups.get_mut(&group) {
                replica.group.persisted(ready);
            }
        }
        for (group, low, entries) in fetched {
            if let Some(replica) = self.groups.get_mut(&group) {
                replica.fetched(low, entries);
            }
        }
    }

    fn tick(&mut self) -> Result<(), HostError> {
        let now = Instant::now();
        let wall_us = wall_us();
        self.clock.look(&self.clocks_of_voters(now), wall_us, now);
        let time_us = self.clock.now(wall_us, now);
        for replica in self.groups.values_mut() {
            replica.group.tick(now);
            replica.write_commit()?;
            // What has changed without an effect to perform: damage.
            self.statuses.publish(replica.group.status());
        }
        self.tell_leaders(now);
        self.govern(now, time_us)?;
        let leads = self.groups.values().any(|replica| replica.group.leads() && replica.group.has_other_voters());
        if let Some((reply, _)) = self.handing_over.take_if(|(_, until)| !leads || *until <= now) {
            reply.send(());
        }
        Ok(())
    }

    /// Performs what all groups want done, until none wants anything.
    fn perform(&mut self) -> Result<(), HostError> {
        loop {
            let mut commands = Vec::new();
            for replica in self.groups.values_mut() {
                if let Some(more) = replica.perform_ready(&self.sinks)? {
                    commands.extend(more);
                    self.statuses.publish(replica.group.status());
                }
            }
            let done = commands.is_empty();
            if !done {
                self.apply_commands(&commands)?;
            }
            if let Some(catalog) = self.groups.get_mut(&GroupId::CATALOG) {
                catalog.release();
            }
            if done {
                return Ok(());
            }
        }
    }

    fn apply_commands(&mut self, commands: &[Bytes]) -> Result<(), HostError> {
        for bytes in commands {
            let command = Command::decode(bytes).map_err(HostError::Catalog)?;
            log::debug!("catalog: {command:?}");
            self.catalog.apply(command);
        }
        self.host_logs()?;
        self.view.publish(self.catalog.clone());
        Ok(())
    }

    /// Makes the groups that this node should carry and does not, and opens founded logs for clients.
    fn host_logs(&mut self) -> Result<(), HostError> {
        let member = self.catalog.member(self.me.id).is_some();
        let logs: Vec<LogMeta> = self.catalog.logs().cloned().collect();
        for log in logs {
            let founds = log.founder == self.me.id && !log.founded;
            if !self.groups.contains_key(&log.group) && (founds || (member && log.founded)) {
                let genesis = if founds { Genesis::Founder(self.me.id) } else { Genesis::Blank };
                self.make(log.group, genesis)?;
            }
            if let Some(replica) = self.groups.get(&log.group).filter(|_| log.founded) {
                self.open_for_clients(&log, replica);
            }
        }
        Ok(())
    }

    fn open_for_clients(&self, log: &LogMeta, replica: &Replica) {
        let limits = (log.record_bytes_max, log.request_bytes_max);
        if self.logs.get(&log.name).is_none_or(|open| (open.record_bytes_max, open.request_bytes_max) != limits) {
            self.logs.insert(OpenLog {
                name: log.name.clone(),
                group: log.group,
                log_id: log.log_id,
                record_bytes_max: log.record_bytes_max,
                request_bytes_max: log.request_bytes_max,
                watermark: replica.watermark.clone(),
                reader: replica.reader.clone(),
            });
        }
    }

    /// A group is made in this order: its directory complete and synced, then `node.toml` lists it, then its first message leaves.
    fn make(&mut self, group: GroupId, genesis: Genesis) -> Result<(), HostError> {
        if !self.node_file.groups.contains(&group) {
            GroupLog::create(&self.disk, &self.groups_dir, group, &self.log_options, genesis)?;
            self.node_file.groups.push(group);
            self.data_dir.store(&self.node_file)?;
        }
        self.open(group)
    }

    fn open(&mut self, group: GroupId) -> Result<(), HostError> {
        let (log, recovered) = GroupLog::open(&self.disk, &self.groups_dir, group, &self.log_options)?;
        let watermark = match group {
            GroupId::CATALOG => self.catalog_watermark.clone(),
            _ => Watermark::default(),
        };
        let config = GroupConfig { id: group, me: self.me.id, election_ticks: None, rules: Rules::default() };
        let mut replica = Replica::start(config, log, recovered, watermark, &self.sinks)?;
        replica.group.set_space(self.disk.space().clone());
        self.scrub.add(group, replica.reader.clone());
        self.groups.insert(group, replica);
        Ok(())
    }

    /// Fails what waits, so that every caller has an answer; the log-writer syncs what is written.
    fn stop(mut self) -> Result<(), HostError> {
        self.groups.values_mut().for_each(|replica| replica.group.stop());
        // As always: what the catalog's watermark shows, the published catalog shows too.
        self.perform()?;
        for replica in self.groups.values_mut() {
            replica.write_commit()?;
            replica.watermark.close();
        }
        for message in self.inbox.try_iter() {
            match message {
                ConsensusMsg::Propose(_, reply) | ConsensusMsg::Command(_, reply) => {
                    reply.send(Err(ProposeError::Stopping));
                }
                ConsensusMsg::ReadIndex(_, _, reply) => reply.send(Err(ReadIndexError::Stopping)),
                ConsensusMsg::HandOver(reply) => reply.send(()),
                ConsensusMsg::Unreachable(_) | ConsensusMsg::MarkerSent(..) | ConsensusMsg::Stop => {}
            }
        }
        Ok(())
    }
}

/// A change of the catalog as an entry: one record, whose value is the command.
pub fn command_proposal(command: &Command) -> Proposal {
    let value = command.encode();
    let mut payload = Unstamped::room(value.len() + 64);
    encode_record(&mut payload, &RecordFields { value: &value, kind: 0, key: None, headers: &[] });
    Proposal::new(GroupId::CATALOG, EntryKind::Records, 1, Unstamped::new(payload))
}
