//! The `consensus` thread: one loop for all groups of this node.
//!
//! It receives requests, peers' messages, completions and ticks, passes them to the groups, and performs the groups'
//! effects. It never waits for the disk: it writes to the page cache, and the log-writer syncs. The only exception is
//! the creation of a replica, which is rare. On each tick the governor performs the actions that the catalog's policy
//! requests.

pub(super) mod admission;
mod campaigns;
mod damage;
pub(super) mod early;
mod followers;
mod governor;
mod host;
mod lines;
mod lost;
mod mending;
mod quiet;
mod receive;
mod run;
mod ticking;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::admission::Admission;
use self::early::EarlyMessages;
use self::followers::Followers;
use self::governor::Governor;
use self::host::Host;
use self::lines::GroupLines;
use self::lost::LostReplicas;
use self::mending::Mending;
use self::quiet::QuietGroups;
use self::ticking::Ticking;
use super::completions::{Completions, ReplicaEpoch};
use super::error::HostError;
use super::group::{self, cache_bytes_max};
use super::groups::Groups;
use super::handle::{ConsensusHandle, ConsensusMsg, INBOX_MESSAGES_MAX, ProposeError, ReadIndexError, TransferError};
use super::metrics::ConsensusMetrics;
use super::peer_inbox::PeerInbox;
use super::sinks::{Outbound, Sinks};
use super::status::Statuses;
use super::transfer::transfer;
use super::wake::ConsensusWaker;
use crate::catalog::policy::facts::Now;
use crate::catalog::{CatalogView, Member};
use crate::clock::{self, PeerClocks, StampClock, wall_us};
use crate::feature_level::Feature;
use crate::inbox::{Inbox, inbox};
use crate::logs::Logs;
use crate::metrics::Registry;
use crate::pb::peer::DamagedReplica;
use crate::reply::ReplySender;
use crate::storage::disk::Disk;
use crate::storage::log::LogOptions;
use crate::storage::node::{DataDir, NodeFile};
use crate::storage::reader::ReadersHandle;
use crate::storage::scrub::ScrubHandle;
use crate::storage::space::SpaceState;
use crate::thread::Progress;
use crate::types::GroupId;
use crate::watermark::HighWatermark;
use crate::writer::{Report, WriterHandle};

/// The longest time that a stop waits for the handover of leadership.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);

/// Consensus before its thread starts. Other components need its handles when they are created.
pub struct Consensus {
    inbox: Inbox<ConsensusMsg>,
    handle: ConsensusHandle,
    waker: ConsensusWaker,
    completions: Completions,
    statuses: Arc<Statuses>,
    progress: Progress,
    /// Differs after each start of the node.
    incarnation: u64,
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
        let waker = ConsensusWaker::default();
        let completions = Completions::new(waker.clone());
        let statuses = Arc::new(Statuses::default());
        let handle = ConsensusHandle::new(outbox, waker.clone(), statuses.clone());
        // The time differs from that of every earlier start, unless the clock was set back; then peers notice a restart
        // late.
        let incarnation = wall_us();
        Consensus { inbox, handle, waker, completions, statuses, progress: Progress::default(), incarnation }
    }
}

impl Consensus {
    /// Returns the sending side of the inbox.
    pub fn handle(&self) -> ConsensusHandle {
        self.handle.clone()
    }

    /// Returns the function by which the log-writer reports persisted Readies.
    pub fn report(&self) -> Report {
        let completions = self.completions.clone();
        let next = completions.clone();
        Report::new(
            move |group, ready| completions.persisted(group, ready),
            move |group, is_last| next.handle_next(group, is_last),
        )
    }

    /// Returns the thread's progress, for the watchdog.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    fn recover(self, parts: ConsensusParts) -> Result<Driver, HostError> {
        let mut driver = Driver {
            inbox: self.inbox,
            peers: self.handle.peer_inbox(),
            waker: self.waker,
            waits_until: clock::now(),
            not_here_before: clock::now(),
            gathers_until: clock::now(),
            left: None,
            stops: false,
            ticking: Ticking::new(clock::now()),
            ticks: 0,
            statuses: self.statuses.clone(),
            progress: self.progress,
            sinks: Sinks {
                writer: parts.writer,
                readers: parts.readers,
                outbound: parts.outbound,
                completions: self.completions,
            },
            host: Host {
                lost: LostReplicas::new(&parts.data_dir)?,
                groups_dir: parts.data_dir.groups_dir(),
                disk: parts.disk,
                data_dir: parts.data_dir,
                node_file: parts.node_file,
                log_options: parts.log_options,
                scrub: parts.scrub,
                catalog_watermark: parts.catalog_watermark,
                logs: parts.logs,
                epoch: ReplicaEpoch::default(),
            },
            groups: Groups::default(),
            quiet: QuietGroups::new(self.incarnation),
            early: EarlyMessages::default(),
            clock: StampClock::default(),
            peer_clocks: self.handle.peer_clocks().clone(),
            admission: Admission::default(),
            lines: GroupLines::default(),
            mending: Mending::new(ConsensusMetrics::repairs(&parts.metrics), parts.metrics.events().clone()),
            metrics: ConsensusMetrics::new(&parts.metrics, self.statuses),
            followers: Followers::new(&parts.metrics),
            governor: Governor::new(parts.me.clone(), parts.catalog, self.handle),
            me: parts.me,
            damaged: Vec::new(),
            handing_over: None,
        };
        let begun = clock::now();
        log::info!("recovery begins groups={}", driver.host.node_file.groups.len());
        let snapshot = driver.host.data_dir.load_catalog()?;
        if let Some(snapshot) = &snapshot {
            driver.governor.restore(snapshot)?;
        }
        driver.open_replicas(snapshot.as_ref())?;
        let dropped = driver.governor.host_all(&mut driver.groups, &mut driver.host, &driver.sinks)?;
        driver.statuses.remove(&dropped);
        driver.perform()?;
        lines::log_recovery(&driver.groups, driver.governor.catalog(), begun.elapsed());
        Ok(driver)
    }
}

struct Driver {
    inbox: Inbox<ConsensusMsg>,
    peers: Arc<PeerInbox>,
    waker: ConsensusWaker,
    ticking: Ticking,
    /// The time until which the thread waits, if it does.
    waits_until: Instant,
    /// Until then only the thread runs the driver (`run.rs`).
    not_here_before: Instant,
    /// Until then requests may wait for others (`wake.rs`).
    gathers_until: Instant,
    /// A message that another thread has taken and left to this one.
    left: Option<ConsensusMsg>,
    /// True once the message to stop was taken.
    stops: bool,
    ticks: u64,
    statuses: Arc<Statuses>,
    progress: Progress,
    sinks: Sinks,
    host: Host,
    groups: Groups,
    quiet: QuietGroups,
    early: EarlyMessages,
    clock: StampClock,
    peer_clocks: PeerClocks,
    admission: Admission,
    lines: GroupLines,
    metrics: ConsensusMetrics,
    followers: Followers,
    mending: Mending,
    governor: Governor,
    me: Member,
    /// The damaged replicas of this node, for its heartbeats.
    damaged: Vec<DamagedReplica>,
    handing_over: Option<(ReplySender<()>, Instant)>,
}

impl Driver {
    /// Returns the number of ticks until the next one that must be on time.
    fn ticks_to_next(&self) -> u32 {
        let has_work = self.handing_over.is_some() || !self.damaged.is_empty();
        if has_work { 1 } else { self.quiet.ticks_to_next(self.ticks, &self.groups) }
    }

    fn handle(&mut self, message: ConsensusMsg) {
        let now = clock::now();
        let time_us = self.clock.now(wall_us(), now);
        match message {
            ConsensusMsg::Propose(mut proposal, reply) => {
                let checked = self.governor.check(&mut proposal, &self.groups, &self.sinks);
                match (self.quiet.wake(proposal.group, &mut self.groups), checked) {
                    (None, _) => reply.send(Err(self.host.lost.refusal(proposal.group))),
                    (Some(_), Err(refusal)) => reply.send(Err(refusal)),
                    (Some(replica), Ok(())) => {
                        replica.expect_reader();
                        replica.group.propose(proposal, now, time_us, reply);
                    }
                }
            }
            ConsensusMsg::Command(command, supported, reply) => {
                self.governor.command(&mut self.groups, &command, supported, now, time_us, reply);
            }
            ConsensusMsg::ReadIndex(group, deadline, reply) => match self.quiet.wake(group, &mut self.groups) {
                Some(replica) => {
                    replica.expect_reader();
                    replica.group.read_index(deadline, now, reply);
                }
                None => reply.send(Err(ReadIndexError::NoSuchGroup)),
            },
            // A quiet group sends no messages, so none was lost.
            ConsensusMsg::Unreachable(node) => self.messages_are_lost(node, self.groups.awake().clone()),
            ConsensusMsg::AppendDropped(group, node) => self.messages_are_lost(node, [group].into()),
            ConsensusMsg::SnapshotSent(group, node, arrived) => self.snapshot_sent(group, node, arrived),
            ConsensusMsg::HandOver(reply) => {
                self.hand_over_all();
                self.handing_over = Some((reply, now + HAND_OVER_MAX));
                self.ticking.hurry(now);
            }
            ConsensusMsg::Transfer(group, to, reply) => {
                let none = Err(TransferError::NotLeader { leader: None });
                let replica = self.quiet.wake(group, &mut self.groups);
                reply.send(replica.map_or(none, |replica| transfer(replica, to)));
            }
            ConsensusMsg::Stop => {}
        }
    }

    fn take_persisted(&mut self, persisted: BTreeMap<GroupId, u64>) {
        for (group, ticket) in persisted {
            if let Some(replica) = self.groups.get_mut(&group) {
                replica.synced(ticket);
            }
        }
    }

    fn take_completions(&mut self) {
        let (persisted, fetched) = self.sinks.completions.take();
        self.take_persisted(persisted);
        for fetched in fetched {
            if let Some(replica) = self.groups.get_mut(&fetched.group) {
                replica.fetched(fetched);
            }
        }
    }

    fn tick(&mut self) -> Result<(), HostError> {
        let now = clock::now();
        self.ticks += 1;
        self.check_damage()?;
        let wall_us = wall_us();
        self.clock.observe(&self.clocks_of_voters(now), wall_us, now);
        let time_us = self.clock.now(wall_us, now);
        let allows_quiet = self.governor.allows(Feature::ManyLogs);
        if allows_quiet {
            self.send_heartbeats();
            self.quiet.tick(self.ticks, &mut self.groups);
            self.publish_silent();
            let is_full = self.host.disk.space().state() == SpaceState::Full;
            if self.handing_over.is_none() {
                self.quiet.set_full(is_full, self.ticks, &mut self.groups);
            }
        }
        let awake = self.groups.awake().clone();
        for group in &awake {
            let Some(replica) = self.groups.get_mut(group) else { continue };
            group::quiet::bound_cache(&mut replica.group, cache_bytes_max(awake.len()));
            replica.group.tick(now);
            replica.watermark.tick();
            self.metrics.sent_again.inc_by(group::bulk::take_sent_again(&mut replica.group));
            replica.write_commit()?;
            // Damage changes the status, but is not an effect.
            self.statuses.publish(replica.status());
        }
        // Collected once, for all that follows.
        let statuses = self.statuses.of(&awake);
        let due = self.groups.due(self.ticks);
        self.governor.observe(&self.groups, due.iter().copied());
        self.quiet.correct_activity(&self.groups, &due, self.governor.facts_mut());
        self.lines.log_leaders(&statuses, self.governor.catalog(), &self.me, now);
        self.metrics.tick(self.ticks, &statuses, self.governor.facts(), &self.groups, self.governor.catalog());
        self.followers.tick(self.ticks, now, &mut self.groups, &self.statuses, self.governor.catalog());
        if self.handing_over.is_none() {
            let now = Now { tick: self.ticks, at: now, wall_us: time_us };
            self.governor.tick(&mut self.groups, &due, &self.sinks, now)?;
            if allows_quiet {
                self.quiet.let_rest(&awake, self.ticks, &mut self.groups, &self.sinks)?;
                self.quiet.balance(self.ticks, &mut self.groups);
                due.difference(&awake).for_each(|group| self.quiet.recheck(*group, &mut self.groups));
            }
            if let Some(snapshot) = self.governor.due_snapshot()
                && let Some(catalog) = self.groups.get_mut(&GroupId::CATALOG)
            {
                catalog.snapshot_catalog(snapshot, &self.sinks)?;
            }
        }
        let leads = |group: &GroupId| {
            self.groups.get(group).is_some_and(|replica| replica.group.leads() && replica.group.has_other_voters())
        };
        let leads = self.groups.awake().iter().any(leads);
        if let Some((reply, _)) = self.handing_over.take_if(|(_, until)| !leads || *until <= now) {
            reply.send(());
        }
        Ok(())
    }

    /// Performs the effects of all touched groups, until no group has any.
    fn perform(&mut self) -> Result<(), HostError> {
        loop {
            let mut inputs = Vec::new();
            let touched = self.groups.take_touched();
            if touched.is_empty() {
                return Ok(());
            }
            for group in touched {
                let Some(replica) = self.groups.get_quietly(&group) else { continue };
                let sent = replica.sent();
                if let Some(more) = replica.perform_ready(&self.sinks)? {
                    inputs.extend(more);
                    self.statuses.publish(replica.status());
                    let (leads, more_sent) = (replica.group.leads(), replica.sent() > sent);
                    if leads && more_sent && !self.groups.awake().contains(&group) {
                        self.quiet.wake(group, &mut self.groups);
                    }
                    self.groups.count_unanswered(group);
                    self.quiet.recheck(group, &mut self.groups);
                }
            }
            if !inputs.is_empty() {
                let dropped = self.governor.apply(inputs, &mut self.groups, &mut self.host, &self.sinks)?;
                self.quiet.forget(&dropped);
                self.statuses.remove(&dropped);
                self.mending.forget(&dropped);
                for (from, message) in self.early.take(|group| self.groups.contains_key(&group)) {
                    self.step(from, message);
                }
            }
            if let Some(catalog) = self.groups.get_quietly(&GroupId::CATALOG) {
                catalog.release();
            }
        }
    }

    /// Fails all waiting requests, so that every caller gets a response. The log-writer syncs the written entries
    /// later.
    fn stop(mut self) -> Result<(), HostError> {
        self.peers.end();
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
                ConsensusMsg::Transfer(_, _, reply) => reply.send(Err(TransferError::Stopping)),
                ConsensusMsg::Unreachable(_)
                | ConsensusMsg::AppendDropped(..)
                | ConsensusMsg::SnapshotSent(..)
                | ConsensusMsg::Stop => {}
            }
        }
        Ok(())
    }
}
