//! The settings of membership.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::feature_level::ClusterLevel;
use crate::forming::FormingHandle;
use crate::storage::node::DataDir;

/// The settings by which this node finds its cluster.
#[derive(Clone, Debug)]
pub struct MembershipOptions {
    /// Only nodes of the cluster with this name are asked.
    pub cluster_name: String,
    /// Peer addresses that may belong to members, `host:port`.
    pub join: Vec<String>,
    /// If mDNS is used to find nodes and to announce this node: the address whose interface it uses. All interfaces, if
    /// it is unspecified.
    pub mdns: Option<IpAddr>,
    /// The feature levels that this node supports, and the cluster's level.
    pub levels: ClusterLevel,
    /// Set for a blank node that forms a cluster with other ones.
    pub forming: Option<FormingOptions>,
}

/// How a blank node forms a cluster with other ones.
#[derive(Clone)]
pub struct FormingOptions {
    /// What this node has seen, and its pledge.
    pub state: FormingHandle,
    /// Where the pledge is stored.
    pub data_dir: Arc<DataDir>,
}

impl fmt::Debug for FormingOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FormingOptions").field("data_dir", &self.data_dir.path()).finish_non_exhaustive()
    }
}
