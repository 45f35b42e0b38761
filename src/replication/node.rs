//! This node and its surroundings, as the threads of peers and the service of the peer listener share them.

use std::sync::OnceLock;

use parking_lot::Mutex;

use crate::catalog::CatalogView;
use crate::consensus::handle::ConsensusHandle;
use crate::logs::Logs;
use crate::pb::peer::RaftMessage;
use crate::replication::Late;
use crate::replication::addresses::Addresses;
use crate::replication::dial::Dialer;
use crate::replication::hello::PeerIdentity;
use crate::replication::refusal::Refusal;
use crate::types::{GroupId, LogIndex, NodeId, Term};
use crate::watermark::HighWatermark;

/// This node, and what it knows of the cluster.
pub struct LocalNode {
    /// As its peers know it.
    pub me: PeerIdentity,
    /// For channels to other nodes.
    pub dialer: Dialer,
    /// The catalog as applied here.
    pub catalog: CatalogView,
    /// What is known of other nodes.
    pub addresses: Addresses,
    /// Set later: consensus sends to replication, so it is started after it.
    pub consensus: Late<ConsensusHandle>,
    /// How far the catalog's group is applied here. `catalog` is never older.
    pub catalog_watermark: HighWatermark,
    /// The logs of this node's replicas.
    pub logs: Logs,
    /// Set while another cluster of the same name answers: which one, and what to do.
    pub rival: Mutex<Option<String>>,
    /// Set once the cluster has rejected this node.
    pub excluded: OnceLock<Refusal>,
}

impl LocalNode {
    /// Tells consensus that messages to a peer were lost.
    pub fn unreachable(&self, peer: NodeId) {
        if let Some(consensus) = self.consensus.get() {
            consensus.unreachable(peer);
        }
    }

    /// The term of a group that the peer leads, as far as this node knows, and the last entry applied here.
    pub fn led_by(&self, peer: NodeId, group: GroupId) -> Option<(Term, LogIndex)> {
        let status = self.consensus.get()?.status(group)?;
        (status.leader == Some(peer)).then_some((status.term, status.applied_index))
    }

    /// Tells consensus whether a snapshot was sent.
    pub fn snapshot_sent(&self, peer: NodeId, group: GroupId, sent: bool) {
        if let Some(consensus) = self.consensus.get() {
            consensus.snapshot_sent(group, peer, sent);
        }
    }
}

/// The group of a snapshot, if the message is one.
pub fn snapshot_group(message: &RaftMessage) -> Option<GroupId> {
    message.snapshot.is_some().then_some(GroupId(message.group))
}
