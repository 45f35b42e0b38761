//! Who speaks to whom: the first message on every stream between peers.

use crate::types::{ClusterId, NodeId};

/// This node, as its peers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The cluster's name: what the certificates and mDNS carry.
    pub cluster_name: String,
    /// The cluster's id.
    pub cluster_id: ClusterId,
    /// This node's id.
    pub node_id: NodeId,
    /// Where peers reach this node, `host:port` (advertised).
    pub bind_addr: String,
}
