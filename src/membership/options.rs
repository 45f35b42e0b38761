//! The settings of membership.

use crate::feature_level::ClusterLevel;

/// The settings by which this node finds its cluster.
#[derive(Clone, Debug)]
pub struct MembershipOptions {
    /// Only nodes of the cluster with this name are asked.
    pub cluster_name: String,
    /// Peer addresses that may belong to members, `host:port`.
    pub join: Vec<String>,
    /// True if mDNS is used to find nodes and to announce this node.
    pub mdns: bool,
    /// The feature levels that this node supports, and the cluster's level.
    pub levels: ClusterLevel,
}
