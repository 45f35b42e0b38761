//! The `consensus` thread: one loop for all groups of this node.
//!
//! It receives requests, peers' messages, completions and ticks, passes them to the groups, and performs the groups'
//! effects. It never waits for the disk: it writes to the page cache, and the log-writer syncs. The only exception is
//! the creation of a replica, which is rare. On each tick the governor performs the actions that the catalog's policy
//! requests.

mod admission;
mod governor;
mod host;
mod lines;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::TryRecvError;

use self::admission::Admission;
use self::governor::Governor;
use self::host::Host;
use self::lines::GroupLines;
use super::completions::Completions;
use super::error::HostError;
use super::group::TICK_MS;
use super::handle::{ConsensusHandle, ConsensusMsg, INBOX_MESSAGES_MAX, ProposeError, ReadIndexError};
use super::metrics::ConsensusMetrics;
use super::peer_inbox::{PeerInbox, is_ordered};
use super::replica::Groups;
use super::sinks::{Outbound, Sinks};
use super::status::Statuses;
use crate::catalog::policy::facts::Now;
use crate::catalog::{CatalogView, Member};
use crate::clock::{PeerClocks, StampClock, wall_us};
use crate::doorbell::Doorbell;
use crate::inbox::{Inbox, inbox};
use crate::logs::Logs;
use crate::metrics::Registry;
use crate::pb::peer::RaftMessage;
use crate::reply::ReplySender;
use crate::storage::disk::Disk;
use crate::storage::log::LogOptions;
use crate::storage::node::{DataDir, NodeFile};
use crate::storage::reader::ReadersHandle;
use crate::storage::scrub::ScrubHandle;
use crate::thread::{FatalSender, Joiner, Progress, spawn};
use crate::types::{GroupId, NodeId};
use crate::watermark::HighWatermark;
use crate::writer::WriterHandle;

/// The number of messages taken from the inbox before their effects are performed: one fdatasync then covers them.
const DRAIN_MESSAGES_MAX: usize = 512;
/// The same limit in bytes, applied separately to clients' records and to peers' entries. More would delay the next
/// heartbeat.
const DRAIN_BYTES_MAX: usize = 8 << 20;
/// The longest time that a stop waits for the handover of leadership.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);

/// The time between the ticks of a node that leads all its groups and is their only replica.
const TICK_ALONE_MS: u64 = 250;

/// Consensus before its thread starts. Other components need its handles when they are created.
pub struct Consensus {
    inbox: Inbox<ConsensusMsg>,
    handle: ConsensusHandle,
    bell: Doorbell,
    completions: Completions,
    statuses: Arc<Statuses>,
    progress: Progress,
}

/// What the thread needs from the rest of the program.
pub struct ConsensusParts {
    /// This node, as the catalog should know it.
    pub me: Member,
    /// Access to the disk.
    pub disk: Disk,
    /// The data directory, locked.
    pub data_dir: Arc<DataDir>,
    /// `node.toml` of the data directory.
    pub node_file: NodeFile,
    /// The options of the logs on disk.
    pub log_options: LogOptions,
    /// Where consensus registers its metrics.
    pub metrics: Registry,
    /// The log-writer; it reports to [`Consensus::report`].
    pub writer: WriterHandle,
    /// The reader threads.
    pub readers: ReadersHandle,
    /// The scrub, which checks the disk in the background.
    pub scrub: ScrubHandle,
    /// The peers.
    pub outbound: Arc<dyn Outbound>,
    /// Where the catalog is published.
    pub catalog: CatalogView,
    /// The high watermark of the catalog's group. The published catalog is never older than it.
    pub catalog_watermark: HighWatermark,
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
    /// Returns the sending side of the inbox.
    pub fn handle(&self) -> ConsensusHandle {
        self.handle.clone()
    }

    /// Returns the function by which the log-writer reports persisted Readies.
    pub fn report(&self) -> Arc<dyn Fn(GroupId, u64) + Send + Sync> {
        let completions = self.completions.clone();
        Arc::new(move |group, ready| completions.persisted(group, ready))
    }

    /// Returns the thread's progress, for the watchdog.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Recovers every group of this node, then starts the thread. Blocks for the recovery.
    ///
    /// # Errors
    /// A group can't be recovered, or the thread can't be created.
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
            ticks: 0,
            statuses: self.statuses,
            progress: self.progress,
            sinks: Sinks {
                writer: parts.writer,
                readers: parts.readers,
                outbound: parts.outbound,
                completions: self.completions,
            },
            host: Host {
                me: parts.me.id,
                groups_dir: parts.data_dir.groups_dir(),
                disk: parts.disk,
                data_dir: parts.data_dir,
                node_file: parts.node_file,
                log_options: parts.log_options,
                scrub: parts.scrub,
                catalog_watermark: parts.catalog_watermark,
                logs: parts.logs,
            },
            groups: Groups::new(),
            clock: StampClock::default(),
            peer_clocks: self.handle.peer_clocks().clone(),
            admission: Admission::default(),
            lines: GroupLines::default(),
            metrics: ConsensusMetrics::new(&parts.metrics),
            governor: Governor::new(parts.me.clone(), parts.catalog, self.handle),
            me: parts.me,
            handing_over: None,
        };
        let begun = Instant::now();
        let groups = driver.host.node_file.groups.clone();
        log::info!("recovery begins groups={}", groups.len());
        for group in groups {
            driver.host.open(group, &mut driver.groups, &driver.sinks)?;
        }
        driver.perform()?;
        lines::log_recovery(&driver.groups, driver.governor.catalog(), begun.elapsed());
        Ok(driver)
    }
}

/// What the thread handles in one iteration of its loop.
enum Event {
    Message(ConsensusMsg),
    /// The log-writer or a reader has completed something, or a peer has sent messages.
    Completed,
    Tick,
    Stop,
}

struct Driver {
    inbox: Inbox<ConsensusMsg>,
    peers: Arc<PeerInbox>,
    bell: Doorbell,
    next_tick: Instant,
    ticks: u64,
    statuses: Arc<Statuses>,
    progress: Progress,
    sinks: Sinks,
    host: Host,
    groups: Groups,
    clock: StampClock,
    peer_clocks: PeerClocks,
    admission: Admission,
    lines: GroupLines,
    metrics: ConsensusMetrics,
    governor: Governor,
    me: Member,
    handing_over: Option<(ReplySender<()>, Instant)>,
}

impl Driver {
    fn run(mut self) -> Result<(), HostError> {
        self.bell.attach_current_thread();
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
            self.host.disk.space().kept();
            self.progress.mark();
        }
    }

    fn next_event(&mut self) -> Event {
        loop {
            // Ticks come first, so that a flood of requests can't stop time. Missed ticks are skipped.
            let now = Instant::now();
            if now >= self.next_tick {
                if now - self.next_tick > Duration::from_millis(2 * TICK_MS) {
                    self.groups.values_mut().for_each(|replica| replica.group.tick_is_late());
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

    /// Returns the time between two ticks. A node that is the only replica of its groups sends no heartbeats and
    /// holds no elections. It ticks less often, so that an idle machine can sleep.
    fn tick_every(&self) -> Duration {
        let alone = self.groups.values().all(|replica| replica.group.leads_alone());
        Duration::from_millis(if alone { TICK_ALONE_MS } else { TICK_MS })
    }

    fn handle(&mut self, message: ConsensusMsg) {
        let now = Instant::now();
        let time_us = self.clock.now(wall_us(), now);
        match message {
            ConsensusMsg::Propose(proposal, reply) => {
                let checked = self.governor.check(&proposal, &self.groups, &self.sinks);
                match (self.groups.get_mut(&proposal.group), checked) {
                    (None, _) => reply.send(Err(ProposeError::NoSuchGroup)),
                    (Some(_), Err(refusal)) => reply.send(Err(refusal)),
                    (Some(replica), Ok(())) => replica.group.propose(proposal, now, time_us, reply),
                }
            }
            ConsensusMsg::Command(command, supported, reply) => {
                self.governor.command(&mut self.groups, &command, supported, now, time_us, reply);
            }
            ConsensusMsg::ReadIndex(group, deadline, reply) => match self.groups.get_mut(&group) {
                Some(replica) => replica.group.read_index(deadline, now, reply),
                None => reply.send(Err(ReadIndexError::NoSuchGroup)),
            },
            ConsensusMsg::Unreachable(node) => {
                self.groups.values_mut().for_each(|replica| replica.group.unreachable(node));
            }
            ConsensusMsg::SnapshotSent(group, node, arrived) => {
                if let Some(replica) = self.groups.get_mut(&group) {
                    replica.group.snapshot_sent(node, arrived);
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

    /// Steps a peer's message. Messages for groups of which this node has no replica yet are dropped: raft sends them
    /// again.
    fn step(&mut self, from: NodeId, message: RaftMessage) {
        if message.from != from.0 || message.to != self.me.id.0 {
            let text = format!("a message of {} to {}", NodeId(message.from), NodeId(message.to));
            return self.admission.log_dropped(from, &text);
        }
        let catalog = self.governor.catalog();
        if !self.admission.admits(from, &message, &self.groups, catalog) {
            return;
        }
        self.lines.record_heard(from, &self.groups, catalog);
        let group = GroupId(message.group);
        let Some(replica) = self.groups.get_mut(&group) else { return };
        if is_ordered(&message) && replica.group.is_behind_with_syncs() {
            return self.peers.count_dropped();
        }
        if let Err(what) = replica.step(message, self.governor.supported()) {
            self.admission.log_dropped(from, &format!("group {group}: {what}"));
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
        self.ticks += 1;
        let wall_us = wall_us();
        self.clock.observe(&self.clocks_of_voters(now), wall_us, now);
        let time_us = self.clock.now(wall_us, now);
        for replica in self.groups.values_mut() {
            replica.group.tick(now);
            replica.write_commit()?;
            // Damage changes the status, but is not an effect.
            self.statuses.publish(replica.group.status());
        }
        // Collected once, for all that follows.
        let (statuses, replicas) = (self.statuses.all(), self.governor.facts(&self.groups));
        self.lines.log_leaders(&statuses, self.governor.catalog(), &self.me, now);
        self.metrics.tick(self.ticks, &statuses, &replicas, self.governor.catalog(), self.me.id);
        if self.handing_over.is_none() {
            let now = Now { tick: self.ticks, at: now, wall_us: time_us };
            self.governor.tick(&mut self.groups, &replicas, &self.sinks, now)?;
        }
        let leads = self.groups.values().any(|replica| replica.group.leads() && replica.group.has_other_voters());
        if let Some((reply, _)) = self.handing_over.take_if(|(_, until)| !leads || *until <= now) {
            reply.send(());
        }
        Ok(())
    }

    /// Performs the effects of all groups, until no group has any.
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
                self.governor.apply(&commands, &mut self.groups, &mut self.host, &self.sinks)?;
            }
            if let Some(catalog) = self.groups.get_mut(&GroupId::CATALOG) {
                catalog.release();
            }
            if done {
                return Ok(());
            }
        }
    }

    /// Returns the clocks of voters only: one faulty host could send the clocks of any number of other ids.
    fn clocks_of_voters(&self, now: Instant) -> Vec<(NodeId, u64)> {
        let catalog = self.groups.get(&GroupId::CATALOG);
        let mut clocks = self.peer_clocks.now(now);
        clocks.retain(|(node, _)| catalog.is_some_and(|catalog| catalog.group.votes(*node)));
        clocks
    }

    /// Fails all waiting requests, so that every caller gets a response. The log-writer syncs the written entries
    /// later.
    fn stop(mut self) -> Result<(), HostError> {
        self.groups.values_mut().for_each(|replica| replica.group.stop());
        // Also at a stop, the published catalog must not be older than the catalog's watermark.
        self.perform()?;
        for replica in self.groups.values_mut() {
            replica.write_commit()?;
            replica.watermark.close();
        }
        for message in self.inbox.try_iter() {
            match message {
                ConsensusMsg::Propose(_, reply) | ConsensusMsg::Command(_, _, reply) => {
                    reply.send(Err(ProposeError::Stopping));
                }
                ConsensusMsg::ReadIndex(_, _, reply) => reply.send(Err(ReadIndexError::Stopping)),
                ConsensusMsg::HandOver(reply) => reply.send(()),
                ConsensusMsg::Unreachable(_) | ConsensusMsg::SnapshotSent(..) | ConsensusMsg::Stop => {}
            }
        }
        Ok(())
    }
}
