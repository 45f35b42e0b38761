//! All peers of this node: one thread for each, started when there is something to send.

use std::sync::Arc;
use std::time::Instant;

use crate::catalog::CatalogView;
use crate::consensus::Outbound;
use crate::consensus::handle::{Appended, ConsensusHandle, Proposal, ProposeError, ReadIndexError};
use crate::pb::peer::RaftMessage;
use crate::replication::Late;
use crate::replication::dial::Dialer;
use crate::replication::hello::PeerIdentity;
use crate::reply::ReplyReceiver;
use crate::thread::FatalSender;
use crate::types::{GroupId, LogIndex, NodeId};

/// The threads of all peers. Dropping it stops and joins them.
pub struct Peers {
    handle: PeersHandle,
}

/// What others hold of [`Peers`].
#[derive(Clone)]
pub struct PeersHandle(Arc<Shared>);

struct Shared {}

impl Peers {
    /// Starts with no peer. `consensus` may be filled later; until then nothing arrives and losses are not reported.
    pub fn start(
        me: PeerIdentity,
        dialer: Dialer,
        catalog: CatalogView,
        consensus: Late<ConsensusHandle>,
        fatal: FatalSender,
    ) -> Peers {
        let _ = (me, dialer, catalog, consensus, fatal);
        todo!()
    }

    /// The handle.
    pub fn handle(&self) -> PeersHandle {
        self.handle.clone()
    }

    /// Ends and joins every peer's thread. What was not sent is answered as not appended, what was sent and not answered as unknown.
    pub fn stop(&self) {
        todo!()
    }
}

impl PeersHandle {
    /// This node.
    pub fn me(&self) -> &PeerIdentity {
        todo!()
    }

    /// Sends a proposal to the node that leads its group, once. See [`crate::replication`] for what the errors mean.
    pub fn propose(
        &self,
        to: NodeId,
        principal: &str,
        proposal: Proposal,
    ) -> ReplyReceiver<Result<Appended, ProposeError>> {
        let _ = (to, principal, proposal);
        todo!()
    }

    /// Asks the node that leads a group for a read index.
    pub fn read_index(
        &self,
        to: NodeId,
        group: GroupId,
        deadline: Option<Instant>,
    ) -> ReplyReceiver<Result<LogIndex, ReadIndexError>> {
        let _ = (to, group, deadline);
        todo!()
    }

    /// An address where `node` may be reached, from discovery: tried after those that are known better.
    pub fn suggest(&self, node: NodeId, bind_addr: &str) {
        let _ = (node, bind_addr, &self.0);
        todo!()
    }
}

impl Outbound for PeersHandle {
    fn send(&self, to: NodeId, message: RaftMessage) {
        let _ = (to, message);
        todo!()
    }
}
