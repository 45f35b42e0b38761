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
use crate::types::{ClusterId, GroupId, LogId, LogName, NodeId, NodeName};
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

impl Core {
    /// Returns the client address of the leader of a log, if it is another node, as far as this node knows.
    pub fn leader_addr(&self, log: &LogName) -> Option<String> {
        let catalog = self.catalog.get();
        let group = catalog.log_named(log)?.group;
        let leader = self.consensus.status(group)?.leader.filter(|leader| *leader != self.me.node_id)?;
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
        match self {
            WantedLogId::Any => Ok(()),
            WantedLogId::Exactly(id) if id == log.log_id => Ok(()),
            WantedLogId::Exactly(_) | WantedLogId::NoLog => {
                Err(ApiError::LogIdMismatch { log: log.name.clone(), log_id: log.log_id })
            }
        }
    }
}
