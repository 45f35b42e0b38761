//! Checks the node that makes a call, when the call begins and while it is open.

use crate::pb::peer::Hello;
use crate::replication::core::MemberCore;
use crate::replication::guard::AuthorizedPeer;
use crate::replication::hello::{StreamPeer, check_removed};
use crate::replication::refusal::{Reason, Refusal};

/// Checks the first request of a stream, and records the peer's address. `alone`: the request contains only the hello.
pub(super) fn welcome(
    core: &MemberCore,
    caller: &AuthorizedPeer,
    hello: Option<&Hello>,
    alone: bool,
) -> Result<StreamPeer, Refusal> {
    let hello = hello.filter(|_| alone);
    let hello =
        hello.ok_or_else(|| Refusal::new(Reason::Malformed, "the first request does not contain a hello alone"))?;
    let peer = core.peers.me().check(hello, &core.peers.catalog().get())?;
    caller.speaks_for(peer.node, &core.peers.node().addresses)?;
    if !core.peers.record_hello(&peer, &hello.from_addr, caller.name()) {
        return Err(Refusal::new(Reason::TooMany, "too many nodes that the catalog does not contain"));
    }
    Ok(peer)
}

/// Refuses a peer that, since it opened its stream, was removed, lost its permission, turned out to be another node,
/// or became too old for the cluster's feature level.
pub(super) fn still_welcome(core: &MemberCore, caller: &mut AuthorizedPeer, peer: &StreamPeer) -> Result<(), Refusal> {
    caller.check()?;
    caller.speaks_for(peer.node, &core.peers.node().addresses)?;
    let catalog = core.peers.catalog().get();
    check_removed(peer.node, &catalog)?;
    peer.check_level(&core.peers.me().levels, &catalog)
}
