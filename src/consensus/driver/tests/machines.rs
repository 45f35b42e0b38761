//! The machines of a simulated cluster: their clocks and disks, and the processes on them.

use super::cluster::{Cluster, id, this};
use super::network::{Outbox, outbox};
use super::*;
use crate::config::DiskSpace;
use crate::storage::disk::sim::Sim;
use crate::storage::reader::ReadersByHand;
use crate::storage::replicas::{retired_dirs, unlist_retired};
use crate::types::Offset;
use crate::writer::WriterByHand;

/// Appends are refused if less is free on a disk.
const FREE_BYTES_MIN: u64 = 1 << 20;
/// The wall clock when a simulation begins, Unix microseconds.
const BEGIN_US: u64 = 1_700_000_000_000_000;

pub struct Running {
    pub driver: Driver,
    pub writer: WriterByHand,
    pub readers: ReadersByHand,
    pub outbox: Arc<Outbox>,
}

/// How fast a disk syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    Usual,
    /// Each sync takes this many steps of the network.
    Slow(u8),
    /// No sync ends.
    Stuck,
}

/// A host: what is left of a node when its process has ended.
pub struct Machine {
    pub disk: Sim,
    pub pace: Pace,
    /// The steps until the sync in progress ends.
    syncing: u8,
    /// How far the wall clock is ahead of the others, microseconds.
    pub clock_ahead_us: i64,
    /// The process is suspended for this many rounds.
    pub paused: u32,
    /// Synced bytes were damaged: the node may refuse to start, and reads may fail.
    pub damaged: bool,
    /// Its damage is repaired while it runs.
    pub rots: bool,
    /// It refused to start.
    pub refused: bool,
    /// The disk was lost, or the node was removed. Another machine replaces it.
    pub gone: bool,
    /// Its process may end by itself: its disk fails.
    pub may_die: bool,
    /// It begins without a catalog, and joins.
    blank: bool,
}

impl Machine {
    pub fn new(disk: Sim) -> Machine {
        Machine {
            disk,
            pace: Pace::Usual,
            syncing: 0,
            clock_ahead_us: 0,
            paused: 0,
            damaged: false,
            rots: false,
            refused: false,
            gone: false,
            may_die: false,
            blank: false,
        }
    }

    /// Returns a machine that begins without a catalog.
    pub fn joining(disk: Sim) -> Machine {
        Machine { blank: true, ..Machine::new(disk) }
    }
}

impl Cluster {
    /// Returns a machine's wall clock.
    pub fn wall_us(&self, i: usize) -> u64 {
        let common = BEGIN_US + u64::try_from(self.elapsed.as_micros()).expect("a short time");
        common.saturating_add_signed(self.machines[i].clock_ahead_us)
    }

    /// Sets the clocks of the node that acts next.
    fn at(&self, i: usize) {
        clock::simulated::set(Some((self.now(), self.wall_us(i))));
    }

    pub fn start(&mut self, i: usize) {
        if self.running[i].is_some() || self.machines[i].gone || self.machines[i].refused {
            return;
        }
        self.starts += 1;
        self.at(i);
        self.machines[i].disk.die_after(None);
        self.machines[i].disk.fill_up(None);
        self.checks.restarted(i);
        match self.try_start(i) {
            Ok(running) => self.running[i] = Some(running),
            Err(error) => {
                assert!(self.machines[i].damaged, "node {i} does not start: {error}");
                self.machines[i].refused = true;
                self.machines[i].disk.kill();
                self.checks.trace.line(|| format!("node {i} refuses to start: {error}"));
            }
        }
        self.perform(i);
    }

    fn try_start(&mut self, i: usize) -> Result<Running, HostError> {
        let disk = self.machines[i].disk.disk();
        let data_dir = Arc::new(DataDir::open(&disk, "/n".as_ref())?);
        let space = DiskSpace {
            disk_free_soft_bytes: Some(2 * FREE_BYTES_MIN),
            disk_free_hard_bytes: Some(FREE_BYTES_MIN),
            disk_reserve_bytes: Some(0),
        };
        disk.watch_space("/n".as_ref(), &space)?;
        let log_options = LogOptions { segment_bytes: self.segment_bytes };
        let mut node_file = match data_dir.load()? {
            Some(node_file) => node_file,
            None => {
                let mut voters: Vec<ReplicaId> = (0..self.machines.len()).map(|i| ReplicaId::of_node(id(i))).collect();
                voters.sort_unstable();
                let genesis = if self.machines[i].blank { Genesis::Blank } else { Genesis::Voters(voters, Offset(0)) };
                GroupLog::create(&disk, &data_dir.groups_dir(), GroupId::CATALOG, &log_options, genesis)?;
                let node_file = NodeFile::new(id(i), this(i).name).with_group(GroupId::CATALOG);
                NodeFile { cluster_id: Some(crate::types::ClusterId(7)), ..node_file }
            }
        };
        unlist_retired(&data_dir, &mut node_file)?;
        data_dir.store(&node_file)?;
        let consensus = Consensus { incarnation: self.starts, ..Consensus::default() };
        let writer = WriterByHand::new(&disk, consensus.report());
        for retired in retired_dirs(&data_dir)? {
            writer.handle().remove_directory(retired);
        }
        let readers = ReadersByHand::new(64);
        let outbox = outbox();
        let parts = ConsensusParts {
            metrics: crate::metrics::Registry::default(),
            me: this(i),
            disk,
            data_dir,
            node_file,
            log_options,
            writer: writer.handle(),
            readers: readers.handle(),
            scrub: ScrubHandle::default(),
            outbound: outbox.clone(),
            catalog: CatalogView::default(),
            catalog_watermark: HighWatermark::default(),
            logs: Logs::default(),
        };
        let driver = consensus.recover(parts)?;
        driver.waker.attach_current_thread();
        Ok(Running { driver, writer, readers, outbox })
    }

    pub fn start_all(&mut self) {
        (0..self.running.len()).for_each(|i| self.start(i));
    }

    /// Cuts the power of a node.
    pub fn crash(&mut self, i: usize) {
        if self.running[i].take().is_some() {
            self.machines[i].disk.power_cut(&mut self.disk_rng);
            self.network.lose(id(i));
            self.checks.restarted(i);
            self.machines[i].paused = 0;
        }
    }

    /// Kills the process of a node. Its page cache stays.
    pub fn kill(&mut self, i: usize) {
        if self.running[i].take().is_some() {
            self.machines[i].disk.kill();
            self.network.lose(id(i));
            self.checks.restarted(i);
            self.machines[i].paused = 0;
        }
    }

    /// Sets the free space of a machine's disk.
    pub fn set_free_bytes(&mut self, i: usize, bytes: u64) {
        self.machines[i].disk.set_free_bytes(bytes);
        if let Some(Running { driver, .. }) = &self.running[i] {
            driver.host.disk.space().look();
        }
    }

    /// Syncs everything of a node, and writes its manifests.
    pub fn flush(&mut self, i: usize) {
        for _ in 0..2 {
            self.perform(i);
            self.act(i, |running| Ok(running.writer.quiet(false)?));
        }
    }

    /// Stops a node as SIGTERM does, without the wait for the handover.
    pub fn stop(&mut self, i: usize) {
        self.perform(i);
        self.at(i);
        let Some(Running { driver, mut writer, .. }) = self.running[i].take() else { return };
        let stopped = driver.stop().and_then(|()| Ok(writer.quiet(true)?));
        drop(writer);
        self.network.lose(id(i));
        self.checks.restarted(i);
        self.machines[i].disk.kill();
        if let Err(error) = stopped {
            assert!(self.machines[i].may_die || self.machines[i].damaged, "node {i} fails to stop: {error}");
        }
    }

    fn died(&mut self, i: usize, error: &str) {
        self.checks.trace.line(|| format!("node {i} ends: {error}"));
        assert!(self.machines[i].may_die || self.machines[i].damaged, "node {i} ends: {error}");
        match self.one_in(2) {
            true => self.crash(i),
            false => self.kill(i),
        }
    }

    /// Lets a node act, and ends its process if it fails.
    pub fn act(&mut self, i: usize, act: impl FnOnce(&mut Running) -> Result<(), HostError>) {
        self.at(i);
        let Some(running) = &mut self.running[i] else { return };
        if let Err(error) = act(running) {
            // What it answered before is true.
            self.checks.observe(i, &running.driver, true);
            self.died(i, &error.to_string());
        }
    }

    /// Does what the thread does after an event.
    pub fn perform(&mut self, i: usize) {
        let now = self.now();
        self.act(i, |Running { driver, .. }| {
            driver.lose_nodes();
            driver.take_completions();
            driver.quiet.campaign(&mut driver.groups, now);
            driver.perform()?;
            driver.quiet.obey(&mut driver.groups, &driver.host.lost);
            driver.host.disk.space().kept();
            Ok(())
        });
        let Some(Running { driver, outbox, .. }) = &self.running[i] else { return };
        let sent = outbox.take();
        self.checks.observe(i, driver, self.machines[i].damaged);
        let clock_us = self.wall_us(i);
        for (to, sent) in sent {
            self.checks.send(&sent);
            self.network.send(self.weather, &mut self.rng, id(i), to, sent, clock_us);
        }
    }

    /// Changes the bytes of a file of a stopped node, or removes the file or directory.
    pub fn damage(&self, i: usize, path: &str, change: Option<fn(&mut Vec<u8>)>) {
        let (disk, path) = (&self.machines[i].disk, std::path::Path::new("/n").join(path));
        let Some(change) = change else { return disk.lose(&path) };
        let mut bytes = disk.files().remove(&path).flatten().expect("a file");
        change(&mut bytes);
        disk.damage(&path, bytes);
    }

    /// Returns the bytes of a node's file.
    pub fn file(&self, i: usize, path: &str) -> Option<Vec<u8>> {
        self.machines[i].disk.files().remove(&std::path::Path::new("/n").join(path)).flatten()
    }

    /// Returns the names of the directories of a node's groups.
    pub fn group_dirs(&self, i: usize) -> Vec<String> {
        let files = self.machines[i].disk.files().into_iter().filter(|(_, bytes)| bytes.is_none());
        files.filter_map(|(path, _)| Some(path.strip_prefix("/n/groups").ok()?.display().to_string())).collect()
    }

    /// Hands a message of a client to a node.
    pub fn handle(&mut self, i: usize, message: ConsensusMsg) {
        self.act(i, |running| {
            running.driver.handle(message);
            Ok(())
        });
        self.perform(i);
    }

    pub fn tick(&mut self, i: usize) {
        if self.machines[i].paused > 0 {
            self.machines[i].paused -= 1;
            if self.machines[i].paused > 0 {
                return;
            }
            self.act(i, |running| {
                running.driver.ticks_are_late();
                Ok(())
            });
        }
        let (looks, quiet) = (self.one_in(20), self.one_in(16));
        let quiet = quiet && self.machines[i].pace == Pace::Usual;
        self.act(i, |running| {
            if looks {
                running.driver.host.disk.space().look();
            }
            running.driver.tick()?;
            if quiet {
                running.writer.quiet(false)?;
            }
            Ok(())
        });
        self.perform(i);
    }

    /// Lets a disk and the readers of a node proceed.
    pub fn sync(&mut self, i: usize) {
        if self.machines[i].paused > 0 || self.running[i].is_none() {
            return;
        }
        let busy = self.weather.busy;
        let (begins, ends) = (!busy || !self.one_in(3), !busy || self.one_in(2));
        let machine = &mut self.machines[i];
        let ends = match machine.pace {
            Pace::Usual => ends,
            Pace::Stuck => false,
            Pace::Slow(steps) if machine.syncing == 0 => {
                machine.syncing = steps;
                false
            }
            Pace::Slow(_) => {
                machine.syncing -= 1;
                machine.syncing == 0
            }
        };
        self.act(i, |Running { writer, readers, .. }| {
            if begins {
                writer.begin();
            }
            if ends {
                writer.end()?;
                readers.run();
            }
            Ok(())
        });
        self.perform(i);
    }
}
