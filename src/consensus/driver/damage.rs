//! Opens this node's replicas, and handles those that are damaged.

use super::Driver;
use super::host::StoredReplica;
use super::mending::serving::serve;
use super::quiet::QuietGroups;
use crate::catalog::faults::{Fault, broken};
use crate::consensus::damage::report;
use crate::consensus::error::HostError;
use crate::consensus::replica::Replica;
use crate::feature_level::Feature;
use crate::pb::peer::RaftMessage;
use crate::storage::log::{CatalogState, GroupLog};
use crate::storage::readable::open_readable;
use crate::types::{GroupId, NodeId, ReplicaId};

/// The damage of the node's replicas is checked once in this many ticks.
const CHECK_TICKS: u64 = 20;

impl Driver {
    /// Opens the replicas that `node.toml` lists. A damaged one of a log is left as it is.
    ///
    /// # Errors
    /// If the catalog's replica can't be opened, or another one for another reason than damage.
    pub(super) fn open_replicas(&mut self, snapshot: Option<&CatalogState>) -> Result<(), HostError> {
        let groups = self.host.node_file.groups.clone();
        let (disk, dir, options) = (&self.host.disk, &self.host.groups_dir, &self.host.log_options);
        let logs = GroupLog::open_all(disk, dir, groups.keys().copied(), options);
        for ((group, me), opened) in groups.into_iter().zip(logs) {
            let opened = match opened {
                Err(error) if error.is_damage() && broken(Fault::DamagedReplicaReset) => self.host.reset(group),
                other => other,
            };
            let catalog = snapshot.filter(|_| group == GroupId::CATALOG).cloned();
            let started = opened.map_err(HostError::from).and_then(|opened| {
                let leads_at_first = broken(Fault::LeadsAgain);
                let stored = StoredReplica { group, me, leads_at_first, opened, catalog };
                self.host.start(stored, &mut self.groups, &self.sinks)
            });
            match started {
                Err(error) if error.is_damage_of_replica() && group != GroupId::CATALOG => {
                    let what = error.damage();
                    log::error!(
                        "group {group}: {what}. This replica takes no part, and its files are not changed; the other logs of this \
                         node are not affected"
                    );
                    self.statuses.set_lost(group, &what);
                    self.metrics.lost(group, &what, self.governor.catalog());
                    let (disk, dir, options) = (&self.host.disk, &self.host.groups_dir, &self.host.log_options);
                    let readable = open_readable(disk, dir, group, options);
                    self.host.lost.insert(group, me, readable);
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Continues repairs. Now and then, updates what this node reports about its damaged replicas, and deletes what is
    /// not needed any more.
    ///
    /// # Errors
    /// If a file can't be written.
    pub(super) fn check_damage(&mut self) -> Result<(), HostError> {
        let asks = self.governor.allows(Feature::Membership);
        let Driver { mending, groups, quiet, sinks, .. } = self;
        if let Some(file) = mending.tick(self.ticks, groups, quiet, sinks, asks)? {
            self.write_again(&file)?;
        }
        if !self.ticks.is_multiple_of(CHECK_TICKS) && self.ticks > 1 {
            return Ok(());
        }
        self.governor.reported.forget(&self.silent());
        // A replica that differs may be the only one with some records: its operator decides.
        let can_repair = |replica: &Replica| replica.group.differs() || replica.group.is_repairing();
        let gives_up = self.groups.iter().filter(|(_, r)| r.group.is_damaged() && !can_repair(r));
        let running = gives_up.map(|(group, replica)| (*group, replica.group.me()));
        let lost = self.host.lost.iter();
        let of_log = |(group, _): &(GroupId, ReplicaId)| *group != GroupId::CATALOG;
        let reports = self.governor.allows(Feature::Membership);
        self.damaged = report(lost.chain(running).filter(|id| reports && of_log(id)));
        let space = self.host.disk.space().state();
        let catalog = self.governor.catalog();
        self.host.lost.delete_replaced(&self.groups, catalog, self.me.id, space, &self.sinks.writer);
        Ok(())
    }

    /// Writes a damaged file of the node again, from memory.
    fn write_again(&mut self, file: &str) -> Result<(), HostError> {
        let data_dir = &self.host.data_dir;
        if data_dir.path().join(file) != data_dir.catalog_path() {
            return Ok(data_dir.store(&self.host.node_file)?);
        }
        if let Some(catalog) = self.groups.get_mut(&GroupId::CATALOG) {
            catalog.snapshot_catalog(self.governor.snapshot(), &self.sinks)?;
        }
        Ok(())
    }

    /// Handles a message of a repair. Returns the message if it is another one.
    pub(super) fn take_repair(&mut self, from: NodeId, mut message: RaftMessage) -> Option<RaftMessage> {
        if let Some(request) = message.repair_request.take() {
            if let Some(replica) = self.groups.get(&GroupId(message.group)) {
                serve(from, &message, &request, replica, &self.mending.serving, &self.sinks);
            }
            return None;
        }
        if message.repair_answer.is_none() {
            return Some(message);
        }
        let Driver { mending, groups, quiet, sinks, .. } = self;
        mending.answer(from, message, self.ticks, groups, quiet, sinks);
        None
    }

    /// Handles a message for a replica that could not be opened: it is dropped. Returns false if it is for another one.
    pub(super) fn drops_message(&mut self, from: NodeId, message: &RaftMessage) -> bool {
        let group = GroupId(message.group);
        if self.host.lost.get(group) != Some(ReplicaId(message.to)) {
            return false;
        }
        // Like every replica, it is woken by a message and follows the leader's announcement. Otherwise the digests of
        // the two nodes would differ, and they would wake their groups again and again.
        match QuietGroups::announced(message) {
            Some(announced) => self.quiet.follow(group, from, announced),
            None => drop(self.quiet.wake(group, &mut self.groups)),
        }
        true
    }
}
