//! Who speaks to whom: the first message on every stream between peers, and what is refused by it alone.

use crate::catalog::Catalog;
use crate::pb::peer::Hello;
use crate::replication::refusal::{Reason, Refusal};
use crate::types::{ClusterId, NodeId};

/// The version of everything that peers say to each other. Another one is refused. Records of version 1 had ten bytes for an
/// offset and for a term.
pub const PROTOCOL_VERSION: u32 = 2;

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

impl PeerIdentity {
    /// What this node says when it opens a stream to another.
    pub fn hello(&self, to: NodeId) -> Hello {
        Hello {
            protocol_version: PROTOCOL_VERSION,
            cluster_id: self.cluster_id.0,
            from: self.node_id.0,
            from_addr: self.bind_addr.clone(),
            to: to.0,
            ..Hello::default()
        }
    }

    /// Who opens a stream to this node. An id that the catalog does not know is let through: a node that lags does not
    /// know its new leader yet.
    ///
    /// # Errors
    /// The refusal, to be sent back.
    pub fn check(&self, hello: &Hello, catalog: &Catalog) -> Result<NodeId, Refusal> {
        check_version(hello.protocol_version)?;
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
        Ok(from)
    }
}

/// Refuses another version of the protocol.
pub(super) fn check_version(theirs: u32) -> Result<(), Refusal> {
    if theirs == PROTOCOL_VERSION {
        return Ok(());
    }
    let text = format!("this node speaks version {PROTOCOL_VERSION} of the peers' protocol, not {theirs}");
    Err(Refusal::new(Reason::ProtocolVersion, text))
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
    use crate::types::NodeName;

    #[test]
    fn each_way_to_be_wrong_has_its_reason() {
        let me = |node: u64| PeerIdentity {
            cluster_name: "x".to_owned(),
            cluster_id: ClusterId(5),
            node_id: NodeId(node),
            bind_addr: "a:1".to_owned(),
        };
        let mut catalog = Catalog::default();
        let name = NodeName::new("gone").expect("a name");
        let member = Member { id: NodeId(3), name, bind_addr: "a:1".to_owned(), rpc_addr: "a:2".to_owned() };
        catalog.apply(Command::AddNode(member));
        catalog.apply(Command::RemoveNode(NodeId(3)));

        let check = |hello: &Hello| me(1).check(hello, &catalog).map_err(|r| r.reason);
        assert_eq!(check(&me(2).hello(NodeId(1))), Ok(NodeId(2)), "an unknown id of the same cluster");
        assert_eq!(check(&me(2).hello(NodeId(9))), Err(Reason::WrongNode));
        assert_eq!(check(&me(1).hello(NodeId(1))), Err(Reason::Malformed));
        assert_eq!(check(&me(3).hello(NodeId(1))), Err(Reason::Removed));
        let foreign = PeerIdentity { cluster_id: ClusterId(6), ..me(2) };
        assert_eq!(check(&foreign.hello(NodeId(1))), Err(Reason::ClusterId));
        let newer = Hello { protocol_version: PROTOCOL_VERSION + 1, ..me(2).hello(NodeId(1)) };
        assert_eq!(check(&newer), Err(Reason::ProtocolVersion));
    }
}
