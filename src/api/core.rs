//! What the API needs of the rest of the node. It is there once the node is a member: until then calls say JOINING.

use std::sync::Arc;

use super::router::Forward;
use crate::catalog::CatalogView;
use crate::consensus::handle::ConsensusHandle;
use crate::logs::Logs;
use crate::types::{ClusterId, NodeId, NodeName};
use crate::watermark::Watermark;

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
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The `consensus` thread.
    pub consensus: ConsensusHandle,
    /// The logs that this node carries.
    pub logs: Logs,
    /// Members and logs of the cluster.
    pub catalog: CatalogView,
    /// How far the catalog's group is applied here: "no such log" waits for it.
    pub catalog_watermark: Watermark,
    /// The way to a leader elsewhere.
    pub forward: Arc<dyn Forward>,
}
