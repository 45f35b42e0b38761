//! The settings of membership.

use crate::feature_level::ClusterLevel;

/// How this node looks for its cluster.
#[derive(Clone, Debug)]
pub struct MembershipOptions {
    /// Only nodes of the cluster with this name are asked.
    pub cluster_name: String,
    /// Peer addresses that may belong to members, `host:port`.
    pub join: Vec<String>,
    /// Whether to find nodes, and to be found, by mDNS.
    pub mdns: bool,
    /// What this node supports, and the cluster's feature level.
    pub levels: ClusterLevel,
}
