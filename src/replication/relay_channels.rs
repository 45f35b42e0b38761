//! The channels over which this node relays requests of its clients.
//!
//! They are separate from those of the peers' threads, so that a large read does not delay messages of raft. A peer
//! accepts a limited number of streams on one connection, so another channel is created when all are used up.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::catalog::Catalog;
use crate::pb::peer_grpc::PeerClient;
use crate::replication::addresses::Addresses;
use crate::replication::dial::Dialer;
use crate::security::peer_names::Dialled;
use crate::types::NodeId;

/// The maximum number of relayed requests on one connection. The peer accepts 1,024 (`grpc/options.rs`).
const ON_ONE_CHANNEL: usize = 1000;
/// The maximum number of channels to one node. Together they allow as many streams as a node does by default.
const CHANNELS_MAX: usize = 17;
/// For this time, a node that could not be reached is tried after all others.
const SUSPECT_FOR: Duration = Duration::from_secs(5);

/// A channel to one node. Each open request holds it.
pub struct RelayChannel {
    /// Makes calls on the channel.
    pub client: PeerClient,
    generation: u64,
    /// `Dialer::authorities` when the channel was created.
    pub authorities: u64,
    has_answered: AtomicBool,
}

#[derive(Default)]
struct RelayPeer {
    channels: Vec<Arc<RelayChannel>>,
    /// The number of failed attempts since the last answer. Determines the address and the expected certificate.
    attempts: usize,
    failed: Option<Instant>,
}

#[derive(Default)]
struct RelayPeers {
    peers: HashMap<NodeId, RelayPeer>,
    stopped: bool,
}

/// The channels to all nodes.
#[derive(Default)]
pub struct RelayChannels(Mutex<RelayPeers>);

impl RelayChannels {
    /// Drops all channels. No other one is created.
    pub fn stop(&self) {
        let peers = {
            let mut all = self.0.lock();
            all.stopped = true;
            std::mem::take(&mut all.peers)
        };
        drop(peers);
    }

    /// Returns true if the node could not be reached a moment ago.
    pub fn is_suspect(&self, node: NodeId) -> bool {
        let all = self.0.lock();
        all.peers.get(&node).and_then(|peer| peer.failed).is_some_and(|failed| failed.elapsed() < SUSPECT_FOR)
    }

    /// Records that the node can't be reached, and drops its channels.
    pub fn failed(&self, node: NodeId) {
        let dropped = {
            let mut all = self.0.lock();
            let peer = all.peers.entry(node).or_default();
            peer.failed = Some(Instant::now());
            peer.attempts = peer.attempts.wrapping_add(1);
            std::mem::take(&mut peer.channels)
        };
        drop(dropped);
    }

    /// Records that the node answers on a channel.
    pub fn answered(&self, node: NodeId, channel: &RelayChannel) {
        channel.has_answered.store(true, Ordering::Relaxed);
        if let Some(peer) = self.0.lock().peers.get_mut(&node) {
            peer.failed = None;
        }
    }

    /// Drops a channel whose connection is lost. Each of its requests reports that, and only the first report has an
    /// effect.
    pub fn lost(&self, node: NodeId, channel: &Arc<RelayChannel>) {
        let mut all = self.0.lock();
        let Some(peer) = all.peers.get_mut(&node) else { return };
        let before = peer.channels.len();
        peer.channels.retain(|other| !Arc::ptr_eq(other, channel));
        if peer.channels.len() < before {
            peer.failed = Some(Instant::now());
            if !channel.has_answered.load(Ordering::Relaxed) {
                peer.attempts = peer.attempts.wrapping_add(1);
            }
        }
    }

    /// Returns a channel to the node with room for a request.
    ///
    /// # Errors
    /// If there is none, the reason in words.
    pub fn channel(
        &self,
        to: NodeId,
        dialer: &Dialer,
        addresses: &Addresses,
        catalog: &Catalog,
    ) -> Result<Arc<RelayChannel>, &'static str> {
        // Read before the channel is created: if they change in between, the channel is created once more.
        let (generation, authorities) = (dialer.generation(), dialer.authorities());
        let (known, expected) = (addresses.of(to), addresses.expected(to));
        let mut all = self.0.lock();
        if all.stopped {
            return Err("this node is stopping");
        }
        if expected.is_empty() {
            return Err("it has no certificate that is accepted here");
        }
        all.peers.retain(|id, _| *id == to || catalog.member(*id).is_some());
        let peer = all.peers.entry(to).or_default();
        peer.channels.retain(|channel| (channel.generation, channel.authorities) == (generation, authorities));
        let has_room = |channel: &&Arc<RelayChannel>| Arc::strong_count(channel) <= ON_ONE_CHANNEL;
        if let Some(channel) = peer.channels.iter().find(has_room) {
            let channel = Arc::clone(channel);
            // Drops channels that are not needed any more.
            peer.channels.retain(|other| Arc::strong_count(other) > 1);
            return Ok(channel);
        }
        if peer.channels.len() >= CHANNELS_MAX {
            return Err("too many requests are relayed to it");
        }
        let pairs: Vec<(&Dialled, &String)> =
            expected.iter().flat_map(|whom| known.iter().map(move |addr| (whom, addr))).collect();
        let (whom, addr) = pairs.get(peer.attempts % pairs.len().max(1)).ok_or("its address is not known")?;
        let channel = dialer.channel(addr, whom).ok_or("this node is stopping")?;
        let has_answered = AtomicBool::new(false);
        let channel =
            Arc::new(RelayChannel { client: PeerClient::new(channel), generation, authorities, has_answered });
        peer.channels.push(channel.clone());
        Ok(channel)
    }
}
