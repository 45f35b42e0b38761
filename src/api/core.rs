//! The parts of the node that the API uses. They exist once the node is a member; until then requests fail with
//! JOINING.

use std::sync::Arc;
use std::time::Instant;

use super::error::{ApiError, LogBounds};
use super::forward::Forward;
use super::leaders::LeaderHints;
use crate::catalog::meta::Deletion;
use crate::catalog::{Catalog, CatalogView, LogMeta};
use crate::consensus::handle::ConsensusHandle;
use crate::feature_level::Feature;
use crate::logs::{Logs, OpenLog};
use crate::storage::reader::ReadersHandle;
use crate::storage::scrub::ScrubHandle;
use crate::storage::space::Space;
use crate::timers::TimersHandle;
use crate::types::{ClusterId, GroupId, LogId, LogName, NodeId, NodeName, Offset};
use crate::watermark::{HighWatermark, Visible};

/// This node's identity, known from its start.
#[derive(Clone, Debug)]
pub struct Me {
    /// The node's id in every Raft group.
    pub node_id: NodeId,
    /// The configured name, which is unique in the cluster.
    pub node_name: NodeName,
    /// The name of the cluster.
    pub cluster_name: String,
}

/// The parts that handlers use. Available once the node is a member of a cluster.
#[derive(Clone)]
pub struct Core {
    /// This node's identity.
    pub me: Me,
    /// The id of the cluster.
    pub cluster_id: ClusterId,
    /// Sends proposals and read indexes to the `consensus` thread.
    pub consensus: ConsensusHandle,
    /// The logs of which this node has replicas.
    pub logs: Logs,
    /// Members and logs of the cluster.
    pub catalog: CatalogView,
    /// The high watermark of the catalog's group on this node. `catalog` is never older.
    pub catalog_watermark: HighWatermark,
    /// Sends work to a leader on another node, and relays requests to replicas.
    pub forward: Arc<dyn Forward>,
    /// The leaders of groups of which this node has no replica, as far as it has learned.
    pub leaders: LeaderHints,
    /// Perform reads that are not in the page cache.
    pub readers: ReadersHandle,
    /// The damaged ranges that the scrub found.
    pub scrub: ScrubHandle,
    /// The free space on this node's disk.
    pub space: Space,
}

/// A log that exists, as this node's catalog has it.
#[derive(Clone)]
pub struct FoundLog {
    /// The name by which clients address it.
    pub name: LogName,
    /// The Raft group that replicates it.
    pub group: GroupId,
    /// Differs from that of an earlier log with the same name.
    pub log_id: LogId,
    /// The maximum size of a record in bytes.
    pub record_bytes_max: u32,
    /// The maximum size of a request in bytes.
    pub request_bytes_max: u32,
    /// Its entries contain a hash chain.
    pub hash_chain: bool,
    /// The end of its backup, until all records of it are restored.
    pub restoring_to: Option<Offset>,
    /// `None` if other nodes serve it, and this node does not.
    pub replica: Option<Arc<OpenLog>>,
}

impl FoundLog {
    /// Creates the description of a log that this node serves.
    pub fn here(log: Arc<OpenLog>) -> FoundLog {
        FoundLog {
            name: log.name.clone(),
            group: log.group,
            log_id: log.log_id,
            record_bytes_max: log.record_bytes_max,
            request_bytes_max: log.request_bytes_max,
            hash_chain: log.hash_chain,
            restoring_to: log.restoring_to,
            replica: Some(log),
        }
    }

    /// Returns the bounds of the log, for errors. Without a replica they are not known.
    pub fn bounds(&self) -> LogBounds {
        match &self.replica {
            Some(log) => bounds(log, &log.watermark.get()),
            None => LogBounds {
                log: self.name.clone(),
                log_id: self.log_id,
                first_offset: Offset::default(),
                next_offset: Offset::default(),
            },
        }
    }
}

impl Core {
    /// Returns the log with this name, unless it is being restored. LOG_RESTORING is returned only after this node has
    /// caught up with the catalog, so once a restore is finished, no node returns it.
    ///
    /// # Errors
    /// [`ApiError::LogRestoring`], and those of [`Core::find_any`].
    pub async fn find(
        &self,
        name: &LogName,
        timers: &TimersHandle,
        deadline: Option<Instant>,
    ) -> Result<FoundLog, ApiError> {
        let mut found = self.find_any(name, timers, deadline).await?;
        if found.restoring_to.is_some() {
            // Perhaps another node knows already that the restore is finished.
            self.catch_up(GroupId::CATALOG, &self.catalog_watermark, timers, deadline).await?;
            found = self.find_any(name, timers, deadline).await?;
        }
        match found.restoring_to {
            Some(_) => Err(ApiError::LogRestoring { log: found.name, log_id: found.log_id }),
            None => Ok(found),
        }
    }

    /// Returns the log with this name, served by this node or by others. NO_SUCH_LOG and LOG_DELETED are returned only
    /// after this node has caught up with the catalog.
    ///
    /// # Errors
    /// If the log does not exist or is deleted, this node can't catch up with the catalog, or no node serves the log
    /// yet.
    pub async fn find_any(
        &self,
        name: &LogName,
        timers: &TimersHandle,
        deadline: Option<Instant>,
    ) -> Result<FoundLog, ApiError> {
        if let Some(found) = self.find_now(name) {
            return Ok(found);
        }
        self.catch_up(GroupId::CATALOG, &self.catalog_watermark, timers, deadline).await?;
        let found = self.find_now(name);
        found.ok_or_else(|| match (missing(&self.catalog.get(), name), self.is_lost(name)) {
            (ApiError::Joining(_), true) => ApiError::ReplicaDamaged,
            (error, _) => error,
        })
    }

    /// Returns true if this node's replica of a log could not be opened, because it is damaged.
    fn is_lost(&self, name: &LogName) -> bool {
        self.catalog.get().log_named(name).is_some_and(|meta| self.consensus.lost(meta.group).is_some())
    }

    fn find_now(&self, name: &LogName) -> Option<FoundLog> {
        if let Some(log) = self.logs.get(name).filter(|log| self.consensus.lost(log.group).is_none()) {
            return Some(FoundLog::here(log));
        }
        // A damaged replica serves what can be read of it only if no other node answers.
        let is_only_here = |log: &Arc<OpenLog>| !self.is_served_elsewhere(log.group);
        let here = self.logs.get(name);
        if let Some(log) = here.as_ref().filter(|log| is_only_here(log)) {
            return Some(FoundLog::here(log.clone()));
        }
        self.find_elsewhere(name).or_else(|| here.map(FoundLog::here))
    }

    /// Returns a log that other nodes serve. This one has no replica, or a damaged one, of which it can perhaps read
    /// some records.
    fn find_elsewhere(&self, name: &LogName) -> Option<FoundLog> {
        // Below that level every node has a replica of every log, or gets one soon.
        if !self.catalog.level().allows(Feature::ManyLogs) {
            return None;
        }
        let catalog = self.catalog.get();
        let meta = catalog.log_named(name).filter(|meta| meta.deletion.is_none())?;
        meta.placements().find(|placement| placement.node != self.me.node_id)?;
        let settings = catalog.settings_of(meta);
        Some(FoundLog {
            name: meta.name.clone(),
            group: meta.group,
            log_id: meta.log_id,
            record_bytes_max: settings.record_bytes_max,
            request_bytes_max: settings.request_bytes_max,
            hash_chain: settings.hash_chain,
            restoring_to: meta.restoring_to(),
            replica: None,
        })
    }

    /// Returns the error of a request whose log failed with `error`: it may have been deleted meanwhile. If a disk is
    /// full, the error contains what deleted logs hold.
    pub fn error_of(&self, log: &OpenLog, error: ApiError) -> ApiError {
        match error {
            ApiError::ReplicaDamaged | ApiError::Joining(_) if log.removal.is_over() => self.removed(log),
            ApiError::DiskFull { .. } => ApiError::DiskFull {
                deleted_bytes: self.logs.deleted().iter().map(|log| log.reader.stored_bytes()).sum(),
            },
            other => other,
        }
    }

    /// Like [`Core::error_of`], for an append. Without a replica here, the catalog says whether the log was deleted.
    pub async fn append_error(
        &self,
        log: &FoundLog,
        error: ApiError,
        timers: &TimersHandle,
        deadline: Option<Instant>,
    ) -> ApiError {
        let error = match &log.replica {
            Some(here) => return self.error_of(here, error),
            None => error,
        };
        if !matches!(error, ApiError::NoLeader | ApiError::LeaderChanged) {
            return error;
        }
        if self.catch_up(GroupId::CATALOG, &self.catalog_watermark, timers, deadline).await.is_err() {
            return error;
        }
        let catalog = self.catalog.get();
        match catalog.log(log.group) {
            Some(meta) => meta.deletion.map_or(error, |deletion| deleted(meta, deletion)),
            None => ApiError::NoSuchLog(log.name.clone()),
        }
    }

    /// Returns the error of a request whose log was removed from the logs that this node serves.
    pub fn removed(&self, log: &OpenLog) -> ApiError {
        match self.catalog.get().log(log.group) {
            Some(meta) => match meta.deletion {
                Some(deletion) => deleted(meta, deletion),
                None => ApiError::ReplicaLost,
            },
            None => ApiError::NoSuchLog(log.name.clone()),
        }
    }
}

/// Returns the error of a request for a log that this node does not serve. The catalog must be caught up.
pub fn missing(catalog: &Catalog, name: &LogName) -> ApiError {
    match catalog.log_named(name) {
        Some(meta) => match meta.deletion {
            Some(deletion) => deleted(meta, deletion),
            None => ApiError::Joining("this node does not serve the log yet: it was created a moment ago"),
        },
        // A new cluster has no log at first.
        None if !catalog.had_logs() => ApiError::Joining("the cluster is being created and has no log yet"),
        None => ApiError::NoSuchLog(name.clone()),
    }
}

/// Returns the error of a request for a deleted log.
pub fn deleted(meta: &LogMeta, deletion: Deletion) -> ApiError {
    ApiError::LogDeleted { log: meta.name.clone(), log_id: meta.log_id, purge_us: deletion.purge_us }
}

impl Core {
    /// Returns the client address of the leader of a log, if it is another node, as far as this node knows.
    pub fn leader_addr(&self, log: &LogName) -> Option<String> {
        let catalog = self.catalog.get();
        let group = catalog.log_named(log)?.group;
        let leader = self.known_leader(group).filter(|leader| *leader != self.me.node_id)?;
        catalog.member(leader).map(|member| member.rpc_addr.clone())
    }
}

/// Returns the bounds of a log, for errors.
pub fn bounds(log: &OpenLog, visible: &Visible) -> LogBounds {
    LogBounds {
        log: log.name.clone(),
        log_id: log.log_id,
        first_offset: visible.first_offset,
        next_offset: visible.next_offset,
    }
}

/// The log id that a request requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedLogId {
    /// The request requires none.
    Any,
    /// This one.
    Exactly(LogId),
    /// A text that is not the id of any log.
    NoLog,
}

impl WantedLogId {
    /// The id in a request of `log.v1`.
    pub fn of_number(id: Option<u64>) -> WantedLogId {
        id.map_or(WantedLogId::Any, |id| WantedLogId::Exactly(LogId(id)))
    }

    /// The id in a request of `seriatim.v1`: the text that responses contain.
    pub fn of_text(id: Option<&str>) -> WantedLogId {
        let Some(text) = id else { return WantedLogId::Any };
        match text.parse::<LogId>() {
            Ok(id) if id.to_string() == text => WantedLogId::Exactly(id),
            Ok(_) | Err(_) => WantedLogId::NoLog,
        }
    }

    /// Checks the id of a log.
    ///
    /// # Errors
    /// [`ApiError::LogIdMismatch`].
    pub fn check(self, log: &OpenLog) -> Result<(), ApiError> {
        self.check_id(&log.name, log.log_id)
    }

    /// Checks the id of a log that this node may not serve.
    ///
    /// # Errors
    /// [`ApiError::LogIdMismatch`].
    pub fn check_id(self, log: &LogName, log_id: LogId) -> Result<(), ApiError> {
        match self {
            WantedLogId::Any => Ok(()),
            WantedLogId::Exactly(id) if id == log_id => Ok(()),
            WantedLogId::Exactly(_) | WantedLogId::NoLog => Err(ApiError::LogIdMismatch { log: log.clone(), log_id }),
        }
    }
}
