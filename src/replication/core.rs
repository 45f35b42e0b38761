//! This node as a member of its cluster: the components that a peer's call needs once this node is admitted.

use crate::consensus::handle::ConsensusHandle;
use crate::replication::Late;
use crate::replication::peers::PeersHandle;
use crate::replication::refusal::{Reason, Refusal};

/// The peers and the consensus of this node, for one call.
pub(super) struct MemberCore {
    pub(super) peers: PeersHandle,
    pub(super) consensus: ConsensusHandle,
}

impl MemberCore {
    /// Returns both, if they were started.
    ///
    /// # Errors
    /// [`Reason::NotReady`] until this node is a member and consensus runs.
    pub(super) fn of(late: &Late<PeersHandle>) -> Result<MemberCore, Refusal> {
        let core = late.get().and_then(|peers| {
            peers
                .node()
                .consensus
                .get()
                .map(|consensus| MemberCore { peers: peers.clone(), consensus: consensus.clone() })
        });
        core.ok_or_else(|| Refusal::new(Reason::NotReady, "this node is not a member of a cluster yet"))
    }
}
