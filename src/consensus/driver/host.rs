//! Creates, opens and drops this node's replicas, and opens their logs for clients.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::catalog::policy::hosting::NewReplica;
use crate::catalog::{Catalog, LogMeta};
use crate::consensus::completions::ReplicaEpoch;
use crate::consensus::driver::lost::LostReplicas;
use crate::consensus::error::HostError;
use crate::consensus::group::{GroupConfig, ReplicaNodes, Rules};
use crate::consensus::groups::Groups;
use crate::consensus::replica::{Replica, ReplicaOrigin};
use crate::consensus::sinks::Sinks;
use crate::log_state::TablesView;
use crate::logs::{Logs, OpenLog, Removal};
use crate::storage::disk::Disk;
use crate::storage::log::{CatalogState, Genesis, GroupLog, LogOptions, Recovered, StorageError};
use crate::storage::node::{DataDir, NodeFile};
use crate::storage::readable::ReadableLog;
use crate::storage::replicas::{Files, give_up, take_up};
use crate::storage::scrub::ScrubHandle;
use crate::storage::space::SpaceState;
use crate::types::{GroupId, ReplicaId};
use crate::watermark::{HighWatermark, Visible};

/// The data directory, and the resources of the process that a replica needs.
pub struct Host {
    pub disk: Disk,
    pub data_dir: Arc<DataDir>,
    pub groups_dir: PathBuf,
    pub node_file: NodeFile,
    pub log_options: LogOptions,
    pub scrub: ScrubHandle,
    pub catalog_watermark: HighWatermark,
    pub logs: Logs,
    /// The epoch of the newest replica.
    pub epoch: ReplicaEpoch,
    pub lost: LostReplicas,
}

/// A replica that is recovered and not started yet.
pub struct StoredReplica {
    pub group: GroupId,
    pub me: ReplicaId,
    pub leads_at_first: bool,
    pub opened: (GroupLog, Recovered),
    /// The newest snapshot, for the catalog's group.
    pub catalog: Option<CatalogState>,
}

impl Host {
    /// Returns this node's replica of a group.
    pub fn replica_of(&self, group: GroupId) -> Option<ReplicaId> {
        self.node_file.groups.get(&group).copied()
    }

    /// Creates replicas. The order matters: first their directories are written and synced, then they are added to
    /// `node.toml`, and only then can their first messages be sent.
    pub fn create(
        &mut self,
        replicas: &BTreeMap<GroupId, NewReplica>,
        groups: &mut Groups,
        sinks: &Sinks,
    ) -> Result<(), HostError> {
        let new = replicas.iter().map(|(group, new)| (*group, new.replica, new.genesis.clone()));
        take_up(&self.data_dir, &mut self.node_file, new, &self.log_options)?;
        for (group, new) in replicas {
            let opened = GroupLog::open(&self.disk, &self.groups_dir, *group, &self.log_options)?;
            let stored =
                StoredReplica { group: *group, me: new.replica, leads_at_first: new.leads, opened, catalog: None };
            self.start(stored, groups, sinks)?;
        }
        Ok(())
    }

    /// Replaces a damaged log by an empty one. Only tests that break this rule do that.
    pub fn reset(&self, group: GroupId) -> Result<(GroupLog, Recovered), StorageError> {
        let dir = self.groups_dir.join(group.to_string());
        self.disk.remove_dir(&dir)?;
        GroupLog::create(&self.disk, &self.groups_dir, group, &self.log_options, Genesis::Blank)?;
        GroupLog::open(&self.disk, &self.groups_dir, group, &self.log_options)
    }

    /// Starts a replica.
    pub fn start(&mut self, stored: StoredReplica, groups: &mut Groups, sinks: &Sinks) -> Result<(), HostError> {
        let StoredReplica { group, me, leads_at_first, opened: (log, recovered), catalog } = stored;
        if group == GroupId::CATALOG {
            self.data_dir.check_catalog(catalog.as_ref(), &recovered.base)?;
        }
        let (watermark, data_dir) = match group {
            GroupId::CATALOG => (self.catalog_watermark.clone(), Some(self.data_dir.clone())),
            _ => (HighWatermark::default(), None),
        };
        let config = GroupConfig { id: group, me, leads_at_first, election_ticks: None, rules: Rules::default() };
        self.epoch = self.epoch.next();
        let origin = ReplicaOrigin { epoch: self.epoch, data_dir, catalog };
        let mut replica = Replica::start(config, log, recovered, watermark, sinks, origin)?;
        replica.group.set_space(self.disk.space().clone());
        self.scrub.add(group, replica.reader.clone());
        groups.insert(group, replica);
        Ok(())
    }

    /// Drops a replica. Requests that wait for it fail, and its files are deleted later. `log` is the log of the group,
    /// if it exists: then the files of a damaged replica are kept for now.
    pub fn drop_replica(
        &mut self,
        group: GroupId,
        groups: &mut Groups,
        sinks: &Sinks,
        log: Option<&LogMeta>,
    ) -> Result<(), HostError> {
        let Some(replica) = self.replica_of(group) else { return Ok(()) };
        log::info!("group {group}: dropping replica {replica}, which has left the group");
        let is_damaged = self.lost.contains(group) || groups.get(&group).is_some_and(|r| r.group.is_damaged());
        let has_room = self.disk.space().state() == SpaceState::Enough;
        let keeps = is_damaged && has_room && log.is_some_and(|log| log.deletion.is_none());
        if let Some(mut dropped) = groups.remove(group) {
            dropped.reader.give_up();
            dropped.group.stop();
            dropped.perform_ready(sinks)?;
            dropped.release();
            dropped.watermark.withdraw();
        }
        sinks.writer.unregister(group);
        self.scrub.remove(group);
        let files = if keeps { Files::KeepAside } else { Files::Delete };
        if let Some(retired) = give_up(&self.data_dir, &mut self.node_file, group, files)? {
            sinks.writer.remove_directory(retired);
        }
        self.lost.dropped(&self.data_dir, group, &sinks.writer)?;
        Ok(())
    }

    /// Makes a log available to clients with its present limits, or unavailable if it is deleted.
    pub fn serve(&self, catalog: &Catalog, log: &LogMeta, replica: &mut Replica) {
        let open = self.logs.get(&log.name).filter(|open| open.group == log.group);
        let settings = catalog.settings_of(log);
        let opened = |replica: &Replica| OpenLog {
            name: log.name.clone(),
            group: log.group,
            log_id: log.log_id,
            record_bytes_max: settings.record_bytes_max,
            request_bytes_max: settings.request_bytes_max,
            hash_chain: settings.hash_chain,
            restoring_to: log.restoring_to(),
            watermark: replica.watermark.clone(),
            tables: replica.tables.clone(),
            reader: replica.reader.clone(),
            removal: Removal::default(),
        };
        if log.deletion.is_some() {
            match open {
                Some(_) => self.logs.remove(&log.name),
                None => self.logs.insert_deleted(opened(replica)),
            }
            return replica.end_reads();
        }
        let rules = (settings.record_bytes_max, settings.request_bytes_max, log.restoring_to());
        replica.allow_reads();
        if open.is_none_or(|open| (open.record_bytes_max, open.request_bytes_max, open.restoring_to) != rules) {
            self.logs.insert(opened(replica));
        }
    }

    /// Makes what can be read of a damaged log available to clients. Nothing more becomes visible.
    pub fn serve_lost(&self, catalog: &Catalog, log: &LogMeta) {
        let readable = self.lost.readable(log.group).filter(|_| log.deletion.is_none());
        let Some(readable) = readable else { return self.withdraw(log.group) };
        if self.logs.get(&log.name).is_some_and(|open| open.group == log.group) {
            return;
        }
        let settings = catalog.settings_of(log);
        let watermark = HighWatermark::default();
        let &ReadableLog { first_offset, next_offset, applied, last_append_time_us, .. } = readable;
        watermark.advance(Visible { applied, first_offset, next_offset, last_append_time_us });
        watermark.close();
        self.logs.insert(OpenLog {
            name: log.name.clone(),
            group: log.group,
            log_id: log.log_id,
            record_bytes_max: settings.record_bytes_max,
            request_bytes_max: settings.request_bytes_max,
            hash_chain: settings.hash_chain,
            restoring_to: log.restoring_to(),
            watermark,
            tables: TablesView::default(),
            reader: readable.reader.clone(),
            removal: Removal::default(),
        });
    }

    /// Stops serving the log of a group that this node has no replica of.
    pub fn withdraw(&self, group: GroupId) {
        self.logs.remove_group(group);
    }
}

/// Returns the nodes of a log's replicas.
pub fn nodes_of(log: &LogMeta) -> ReplicaNodes {
    ReplicaNodes::Listed(log.placements().map(|placement| (placement.replica, placement.node)).collect())
}
