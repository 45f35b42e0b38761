//! Creates and opens this node's replicas, and opens their logs for clients.

use std::path::PathBuf;
use std::sync::Arc;

use crate::catalog::LogMeta;
use crate::consensus::error::HostError;
use crate::consensus::group::{GroupConfig, Rules};
use crate::consensus::replica::{Groups, Replica};
use crate::consensus::sinks::Sinks;
use crate::logs::{Logs, OpenLog};
use crate::storage::disk::Disk;
use crate::storage::log::{Genesis, GroupLog, LogOptions};
use crate::storage::node::{DataDir, NodeFile};
use crate::storage::scrub::ScrubHandle;
use crate::types::{GroupId, NodeId};
use crate::watermark::HighWatermark;

/// The data directory, and the resources of the process that a replica needs.
pub struct Host {
    pub me: NodeId,
    pub disk: Disk,
    pub data_dir: Arc<DataDir>,
    pub groups_dir: PathBuf,
    pub node_file: NodeFile,
    pub log_options: LogOptions,
    pub scrub: ScrubHandle,
    pub catalog_watermark: HighWatermark,
    pub logs: Logs,
}

impl Host {
    /// Creates a replica. The order matters: first its directory is written and synced, then it is added to
    /// `node.toml`, and only then can its first message be sent.
    pub fn create(
        &mut self,
        group: GroupId,
        genesis: Genesis,
        groups: &mut Groups,
        sinks: &Sinks,
    ) -> Result<(), HostError> {
        if !self.node_file.groups.contains(&group) {
            GroupLog::create(&self.disk, &self.groups_dir, group, &self.log_options, genesis)?;
            self.node_file.groups.push(group);
            self.data_dir.store(&self.node_file)?;
        }
        self.open(group, groups, sinks)
    }

    /// Opens and starts an existing replica.
    pub fn open(&self, group: GroupId, groups: &mut Groups, sinks: &Sinks) -> Result<(), HostError> {
        let (log, recovered) = GroupLog::open(&self.disk, &self.groups_dir, group, &self.log_options)?;
        let watermark = match group {
            GroupId::CATALOG => self.catalog_watermark.clone(),
            _ => HighWatermark::default(),
        };
        let config = GroupConfig { id: group, me: self.me, election_ticks: None, rules: Rules::default() };
        let mut replica = Replica::start(config, log, recovered, watermark, sinks)?;
        replica.group.set_space(self.disk.space().clone());
        self.scrub.add(group, replica.reader.clone());
        groups.insert(group, replica);
        Ok(())
    }

    /// Makes a log available to clients, with its present limits.
    pub fn serve(&self, log: &LogMeta, replica: &Replica) {
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
}
