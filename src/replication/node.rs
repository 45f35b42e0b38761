//! The state that the threads of peers and the service of the peer listener share.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::catalog::CatalogView;
use crate::consensus::handle::ConsensusHandle;
use crate::logs::Logs;
use crate::pb::peer::{FeatureLevels, RaftMessage};
use crate::replication::Late;
use crate::replication::addresses::Addresses;
use crate::replication::bulk_rate::BulkRate;
use crate::replication::dial::Dialer;
use crate::replication::hello::{PeerIdentity, describe};
use crate::replication::levels::PeerLevels;
use crate::replication::link::Lost;
use crate::replication::refusal::Refusal;
use crate::replication::relay::RelayServer;
use crate::replication::relay_channels::RelayChannels;
use crate::types::{GroupId, LogIndex, NodeId, Term};
use crate::watermark::HighWatermark;

/// This node, and what it knows about the cluster.
pub struct LocalNode {
    /// This node's identity.
    pub me: PeerIdentity,
    /// Creates channels to other nodes.
    pub dialer: Dialer,
    /// The catalog as applied on this node.
    pub catalog: CatalogView,
    /// What is known about other nodes.
    pub addresses: Addresses,
    /// Set later, because consensus needs replication and is started after it.
    pub consensus: Late<ConsensusHandle>,
    /// The high watermark of the catalog's group. `catalog` is never older than it.
    pub catalog_watermark: HighWatermark,
    /// The logs of this node's replicas.
    pub logs: Logs,
    /// The requests that this node relays, and those that others relay to it.
    pub relays: Relays,
    /// The streams of messages that other nodes have opened to this one.
    pub heard: HeardStreams,
    /// The rate limit of bulk messages.
    pub bulk_rate: BulkRate,
    /// Set while another cluster of the same name answers: a text that names it and says what to do.
    pub rival: Mutex<Option<String>>,
    /// Set once the cluster has rejected this node.
    pub excluded: OnceLock<Refusal>,
}

/// The two sides of relayed requests.
#[derive(Default)]
pub struct Relays {
    /// The channels to nodes that have replicas.
    pub channels: RelayChannels,
    server: Mutex<Option<Arc<dyn RelayServer>>>,
}

impl Relays {
    /// Sets what serves the requests that other nodes relay to this one.
    pub fn set_server(&self, server: Arc<dyn RelayServer>) {
        *self.server.lock() = Some(server);
    }

    /// Returns what serves them, if it was set.
    pub fn server(&self) -> Option<Arc<dyn RelayServer>> {
        self.server.lock().clone()
    }

    /// Drops the channels and the server, which would otherwise keep this node's parts alive.
    pub fn stop(&self) {
        self.channels.stop();
        let server = self.server.lock().take();
        drop(server);
    }
}

/// Counts the open streams of messages from each node.
#[derive(Clone, Default)]
pub struct HeardStreams(Arc<Mutex<HashMap<NodeId, usize>>>);

/// An open stream; it counts until it is dropped.
pub struct HeardStream {
    streams: HeardStreams,
    node: NodeId,
}

impl HeardStreams {
    /// Counts a stream of an accepted node.
    pub fn open(&self, node: NodeId) -> HeardStream {
        *self.0.lock().entry(node).or_default() += 1;
        HeardStream { streams: self.clone(), node }
    }

    /// Returns true if a stream of the node is open.
    pub fn is_open(&self, node: NodeId) -> bool {
        self.0.lock().contains_key(&node)
    }
}

impl Drop for HeardStream {
    fn drop(&mut self) {
        let mut open = self.streams.0.lock();
        if let Some(count) = open.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.node);
            }
        }
    }
}

impl LocalNode {
    /// Informs consensus that the process of a peer has ended.
    pub fn gone(&self, peer: NodeId) {
        if let Some(consensus) = self.consensus.get() {
            consensus.gone(peer);
        }
    }

    /// Informs consensus that messages to a peer were lost.
    pub fn unreachable(&self, peer: NodeId) {
        if let Some(consensus) = self.consensus.get() {
            consensus.unreachable(peer);
        }
    }

    /// Informs consensus that an append of a group was dropped, although the peer is reachable.
    pub fn append_dropped(&self, peer: NodeId, group: GroupId) {
        if let Some(consensus) = self.consensus.get() {
            consensus.append_dropped(group, peer);
        }
    }

    /// If the peer leads the group, as far as this node knows, returns its term and the last index applied here.
    pub fn led_by(&self, peer: NodeId, group: GroupId) -> Option<(Term, LogIndex)> {
        let status = self.consensus.get()?.status(group)?;
        (status.leader == Some(peer)).then_some((status.term, status.applied_index))
    }

    /// Returns why this node must drop a stream after its welcome, if it must: the peer does not support the cluster's
    /// feature level, which may have risen meanwhile.
    pub fn refused_peer(&self, peer: NodeId, welcome: Option<Option<&FeatureLevels>>) -> Option<Lost> {
        let levels = PeerLevels::of_response(welcome?);
        let checked = levels.and_then(|levels| {
            self.addresses.set_levels(peer, levels.range);
            levels.check(|| describe(peer, &self.catalog.get()), &self.me.levels)
        });
        checked.err().map(Lost::PeerRefused)
    }

    /// Informs consensus whether a snapshot was sent.
    pub fn snapshot_sent(&self, peer: NodeId, group: GroupId, sent: bool) {
        if let Some(consensus) = self.consensus.get() {
            consensus.snapshot_sent(group, peer, sent);
        }
    }
}

/// Returns the group of the message, if it is a snapshot.
pub fn snapshot_group(message: &RaftMessage) -> Option<GroupId> {
    message.snapshot.is_some().then_some(GroupId(message.group))
}
