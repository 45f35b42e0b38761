//! The first message on every stream between peers: it names the sender and the receiver. A stream can be refused
//! because of it alone.

use crate::catalog::Catalog;
use crate::feature_level::ClusterLevel;
use crate::pb::peer::Hello;
pub use crate::replication::levels::PROTOCOL_VERSION;
use crate::replication::levels::{PeerLevels, levels_of, protocol_version_of};
use crate::replication::refusal::{Reason, Refusal};
use crate::types::{ClusterId, NodeId};

/// The identity with which this node addresses its peers.
#[derive(Clone, Debug)]
pub struct PeerIdentity {
    /// The cluster's name in certificates and in mDNS.
    pub cluster_name: String,
    /// The cluster's id. A hello with another id is refused.
    pub cluster_id: ClusterId,
    /// This node's id. A hello that is addressed to another node is refused.
    pub node_id: NodeId,
    /// The advertised address of the peer listener, `host:port`.
    pub bind_addr: String,
    /// The feature levels that this node supports, and the cluster's level.
    pub levels: ClusterLevel,
}

/// The node that opened a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPeer {
    /// Its id.
    pub node: NodeId,
    /// The feature levels that it supports.
    pub levels: PeerLevels,
}

impl PeerIdentity {
    /// Returns the hello with which this node opens a stream to `to`.
    pub fn hello(&self, to: NodeId) -> Hello {
        Hello {
            protocol_version: protocol_version_of(&self.levels),
            cluster_id: self.cluster_id.0,
            from: self.node_id.0,
            from_addr: self.bind_addr.clone(),
            to: to.0,
            levels: Some(levels_of(&self.levels)).into(),
            ..Hello::default()
        }
    }

    /// Checks a received hello, and returns its sender. A sender that the catalog does not contain is accepted: this
    /// node may lag and not know its new leader yet.
    ///
    /// # Errors
    /// The refusal, to be sent back.
    pub fn check(&self, hello: &Hello, catalog: &Catalog) -> Result<StreamPeer, Refusal> {
        let levels = PeerLevels::of_request(hello.protocol_version, hello.levels.as_ref())?;
        check_cluster_id(self.cluster_id, ClusterId(hello.cluster_id))?;
        let from = NodeId(hello.from);
        if hello.to != self.node_id.0 {
            let text = format!("this is node {}, not {}", self.node_id, NodeId(hello.to));
            return Err(Refusal::new(Reason::WrongNode, text));
        }
        if from.0 == 0 || from == self.node_id {
            return Err(Refusal::new(Reason::Malformed, format!("a peer can't have the id {from}")));
        }
        check_removed(from, catalog)?;
        let peer = StreamPeer { node: from, levels };
        peer.check_level(&self.levels, catalog)?;
        Ok(peer)
    }
}

impl StreamPeer {
    /// Refuses the peer if it does not support the cluster's feature level. Must be repeated while the stream is open.
    ///
    /// # Errors
    /// The refusal, to be sent back.
    pub fn check_level(&self, ours: &ClusterLevel, catalog: &Catalog) -> Result<(), Refusal> {
        self.levels.check(|| describe(self.node, catalog), ours)
    }
}

/// Returns a node's name and id, for messages.
pub(super) fn describe(node: NodeId, catalog: &Catalog) -> String {
    match catalog.member(node) {
        Some(member) => format!("node {} ({node})", member.name),
        None => format!("node {node}"),
    }
}

/// Refuses another cluster.
pub(super) fn check_cluster_id(ours: ClusterId, theirs: ClusterId) -> Result<(), Refusal> {
    if theirs == ours {
        return Ok(());
    }
    Err(Refusal::new(Reason::ClusterId, format!("this node belongs to cluster {ours}, not to {theirs}")))
}

/// Refuses a node that was removed.
pub(super) fn check_removed(node: NodeId, catalog: &Catalog) -> Result<(), Refusal> {
    if !catalog.is_removed(node) {
        return Ok(());
    }
    let text = format!("node {node} was removed from the cluster; to join again it needs a new data directory");
    Err(Refusal::new(Reason::Removed, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Command, Member};
    use crate::feature_level::{FeatureLevel, FeatureRange};
    use crate::types::NodeName;

    #[test]
    fn each_invalid_hello_is_refused_with_its_reason() {
        let me = |node: u64| PeerIdentity {
            cluster_name: "x".to_owned(),
            cluster_id: ClusterId(5),
            node_id: NodeId(node),
            bind_addr: "a:1".to_owned(),
            levels: ClusterLevel::default(),
        };
        let mut catalog = Catalog::default();
        let member = |id: u64, name: &str| {
            let name = NodeName::new(name).expect("a name");
            Member { id: NodeId(id), name, bind_addr: format!("a:{id}"), rpc_addr: format!("b:{id}") }
        };
        catalog.apply(&Command::AddNode(member(3, "gone")), 1);
        catalog.apply(&Command::RemoveNode(NodeId(3)), 1);
        catalog.apply(&Command::AddNode(member(4, "old")), 1);

        let check = |hello: &Hello| me(1).check(hello, &catalog).map(|peer| peer.node).map_err(|r| r.reason);
        assert_eq!(check(&me(2).hello(NodeId(1))), Ok(NodeId(2)), "an unknown id of the same cluster");
        assert_eq!(check(&me(2).hello(NodeId(9))), Err(Reason::WrongNode));
        assert_eq!(check(&me(1).hello(NodeId(1))), Err(Reason::Malformed));
        assert_eq!(check(&me(3).hello(NodeId(1))), Err(Reason::Removed));
        let foreign = PeerIdentity { cluster_id: ClusterId(6), ..me(2) };
        assert_eq!(check(&foreign.hello(NodeId(1))), Err(Reason::ClusterId));
        let before_levels = Hello { levels: None.into(), ..me(2).hello(NodeId(1)) };
        assert_eq!(check(&before_levels), Ok(NodeId(2)));
        let newer = Hello { protocol_version: PROTOCOL_VERSION + 1, ..before_levels };
        assert_eq!(check(&newer), Err(Reason::ProtocolVersion));

        let range = FeatureRange::new(FeatureLevel(1), FeatureLevel(2)).expect("a range");
        let raised = PeerIdentity { levels: ClusterLevel::new(range), ..me(1) };
        raised.levels.set(FeatureLevel(2));
        let old = PeerIdentity { levels: ClusterLevel::new(FeatureRange::FIRST), ..me(4) };
        let refusal = raised.check(&old.hello(NodeId(1)), &catalog).expect_err("too old");
        assert_eq!(refusal.reason, Reason::VersionTooOld);
        assert!(refusal.text.contains("and node old (0000000000000004) supports feature level 1"), "{refusal}");
    }
}
