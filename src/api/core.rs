//! The parts of the node that the API uses. They exist once the node is a member; until then requests fail with JOINING.

use std::sync::Arc;
use std::time::Instant;

use super::error::{ApiError, LogBounds};
use super::forward::Forward;
use crate::catalog::CatalogView;
use crate::consensus::handle::ConsensusHandle;
use crate::logs::{Logs, OpenLog};
use crate::storage::reader::ReadersHandle;
use crate::storage::scrub::ScrubHandle;
use crate::storage::space::Space;
use crate::timers::TimersHandle;
use crate::types::{ClusterId, GroupId, LogName, NodeId, NodeName};
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
    /// Sends work to a leader on another node.
    pub forward: Arc<dyn Forward>,
    /// Perform reads that are not in the page cache.
    pub readers: ReadersHandle,
    /// The damaged ranges that the scrub found.
    pub scrub: ScrubHandle,
    /// The free space on this node's disk.
    pub space: Space,
}

impl Core {
    /// Returns the log with this name. NO_SUCH_LOG is returned only after this node has caught up with the catalog.
    ///
    /// # Errors
    /// If the log does not exist, this node can't catch up with the catalog, or it has no replica of the log yet.
    pub async fn log(
        &self,
        name: &LogName,
        timers: &TimersHandle,
        deadline: Option<Instant>,
    ) -> Result<Arc<OpenLog>, ApiError> {
        if let Some(log) = self.logs.get(name) {
            return Ok(log);
        }
        self.catch_up(GroupId::CATALOG, &self.catalog_watermark, timers, deadline).await?;
        if let Some(log) = self.logs.get(name) {
            return Ok(log);
        }
        let catalog = self.catalog.get();
        // A new cluster has no log at first.
        if catalog.logs().next().is_none() {
            Err(ApiError::Joining("the cluster is being created and has no log yet"))
        } else if catalog.log_named(name).is_some() {
            Err(ApiError::Joining("this node has no replica of the log yet: the leader of the log adds it soon"))
        } else {
            Err(ApiError::NoSuchLog(name.clone()))
        }
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

/// Checks the log id that a request requires.
///
/// # Errors
/// [`ApiError::LogIdMismatch`].
pub fn check_log_id(log: &OpenLog, wanted: Option<u64>) -> Result<(), ApiError> {
    match wanted {
        Some(id) if id != log.log_id.0 => Err(ApiError::LogIdMismatch { log: log.name.clone(), log_id: log.log_id }),
        Some(_) | None => Ok(()),
    }
}
