//! What every peer's thread, and the service, know of this node.

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
use crate::watermark::Watermark;

/// This node and its surroundings.
pub struct Node {
    /// Who it is.
    pub me: PeerIdentity,
    /// Makes channels.
    pub dialer: Dialer,
    /// The newest catalog.
    pub catalog: CatalogView,
    /// Where the others are.
    pub addresses: Addresses,
    /// Comes later: consensus is started after replication, to which it sends.
    pub consensus: Late<ConsensusHandle>,
    /// How far the catalog's group is applied here; what `catalog` shows is never older.
    pub catalog_watermark: Watermark,
    /// The logs that are open here.
    pub logs: Logs,
    /// Another cluster of the same name that answers; what it is and what to do.
    pub rival: Mutex<Option<String>>,
    /// Why the cluster rejects this node, once it does.
    pub excluded: OnceLock<Refusal>,
}

impl Node {
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

    /// Tells consensus what became of a snapshot.
    pub fn marker_sent(&self, peer: NodeId, group: GroupId, sent: bool) {
        if let Some(consensus) = self.consensus.get() {
            consensus.marker_sent(group, peer, sent);
        }
    }
}

/// The group of a snapshot, if the message is one.
pub fn marker_of(message: &RaftMessage) -> Option<GroupId> {
    message.snapshot.is_some().then_some(GroupId(message.group))
}
