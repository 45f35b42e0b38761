//! What the API needs of the rest of the node. It is there once the node is a member: until then calls say JOINING.

use std::sync::Arc;
use std::time::Instant;

use super::errors::{ApiError, Bounds};
use super::router::Forward;
use crate::catalog::CatalogView;
use crate::consensus::handle::ConsensusHandle;
use crate::logs::{Logs, OpenLog};
use crate::storage::reader::ReadersHandle;
use crate::storage::scrub::ScrubHandle;
use crate::storage::space::Space;
use crate::timers::TimersHandle;
use crate::types::{ClusterId, GroupId, LogName, NodeId, NodeName};
use crate::watermark::{Mark, Watermark};

/// Who this node is, known from its start.
#[derive(Clone, Debug)]
pub struct Me {
    /// Its id.
    pub node_id: NodeId,
    /// Its name.
    pub node_name: NodeName,
    /// What the cluster is called.
    pub cluster_name: String,
}

/// The parts that a call works with, known once the node is a member of a cluster.
#[derive(Clone)]
pub struct Core {
    /// This node.
    pub me: Me,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The `consensus` thread.
    pub consensus: ConsensusHandle,
    /// The logs that this node carries.
    pub logs: Logs,
    /// Members and logs of the cluster.
    pub catalog: CatalogView,
    /// How far the catalog's group is applied here. What `catalog` shows is never older.
    pub catalog_watermark: Watermark,
    /// The way to a leader elsewhere.
    pub forward: Arc<dyn Forward>,
    /// For what is not in the page cache.
    pub readers: ReadersHandle,
    /// What was found damaged on the disk.
    pub scrub: ScrubHandle,
    /// The room on this node's disk.
    pub space: Space,
}

impl Core {
    /// The log of that name. That there is none is said only once this node has caught up with the catalog.
    ///
    /// # Errors
    /// No such log; or it can't be known; or this node does not carry it (yet).
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
        // A cluster in its first second has no log yet, and is about to have one.
        if catalog.logs().next().is_none() {
            Err(ApiError::Joining("the cluster is being founded and has no log yet"))
        } else if catalog.log_named(name).is_some() {
            Err(ApiError::Joining("this node does not carry the log yet: the log's leader has still to add it"))
        } else {
            Err(ApiError::NoSuchLog(name.clone()))
        }
    }
}

/// What of the log there is, for errors.
pub fn bounds(log: &OpenLog, mark: &Mark) -> Bounds {
    Bounds { log: log.name.clone(), log_id: log.log_id, first_offset: mark.first_offset, next_offset: mark.next_offset }
}

/// Checks the log id that a request insists on.
///
/// # Errors
/// [`ApiError::LogIdMismatch`].
pub fn check_log_id(log: &OpenLog, wanted: Option<u64>) -> Result<(), ApiError> {
    match wanted {
        Some(id) if id != log.log_id.0 => Err(ApiError::LogIdMismatch { log: log.name.clone(), log_id: log.log_id }),
        Some(_) | None => Ok(()),
    }
}
