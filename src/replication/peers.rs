//! All peers of this node, with one thread each. A peer's thread is started when there is something to send to it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use crate::catalog::{CatalogView, Member};
use crate::consensus::Outbound;
use crate::consensus::handle::{Appended, ConsensusHandle, Proposal, ProposeError, ReadIndexError};
use crate::feature_level::FeatureRange;
use crate::logs::Logs;
use crate::metrics::{Counter, Registry};
use crate::pb::peer::RaftMessage;
use crate::replication::Late;
use crate::replication::addresses::Addresses;
use crate::replication::bulk_rate::BulkRate;
use crate::replication::dial::Dialer;
use crate::replication::direct::{DirectSender, SendQueue};
use crate::replication::forward::{Forward, NotSent, Work};
use crate::replication::hello::{PeerIdentity, StreamPeer};
use crate::replication::node::{HeardStreams, LocalNode, Relays, snapshot_group};
use crate::replication::peer::Peer;
use crate::replication::refusal::Refusal;
use crate::replication::relay::{RelayServer, RelayedRequest};
use crate::replication::relay_answer::RelayAnswer;
use crate::reply::{ReplyReceiver, reply};
use crate::security::peer_names::PeerName;
use crate::thread::{FatalSender, Joiner, spawn};
use crate::types::{GroupId, LogIndex, NodeId};
use crate::watermark::HighWatermark;

/// The threads of all peers. Dropping it stops and joins them.
pub struct Peers {
    handle: PeersHandle,
}

/// The interface of [`Peers`] for other threads.
#[derive(Clone)]
pub struct PeersHandle(Arc<PeersState>);

struct PeersState {
    node: Arc<LocalNode>,
    fatal: FatalSender,
    running: Mutex<PeerThreads>,
    /// Messages that were dropped because the queue of their peer was full.
    dropped: Counter,
}

#[derive(Default)]
struct PeerThreads {
    peers: HashMap<NodeId, PeerThread>,
    stopped: bool,
}

struct PeerThread {
    inbox: PeerSenders,
    joiner: Joiner,
}

/// How to reach a peer's thread, and its stream.
#[derive(Clone)]
struct PeerSenders {
    queue: Arc<SendQueue>,
    direct: Arc<DirectSender>,
}

/// The error if a peer has no thread: this node is stopping, or the system can't create another thread.
struct NoThread;

impl Peers {
    /// Starts without any peer. `consensus` may be set later. Until then every call from a peer is refused, and lost
    /// messages are not reported.
    pub fn start(
        me: PeerIdentity,
        dialer: Dialer,
        (catalog, catalog_watermark): (CatalogView, HighWatermark),
        consensus: Late<ConsensusHandle>,
        logs: Logs,
        bulk_rate: BulkRate,
        fatal: FatalSender,
    ) -> Peers {
        let addresses = Addresses::new(catalog.clone(), dialer.rules().clone());
        let excluded = OnceLock::new();
        let node = Arc::new(LocalNode {
            me,
            dialer,
            catalog,
            addresses,
            consensus,
            catalog_watermark,
            logs,
            relays: Relays::default(),
            heard: HeardStreams::default(),
            bulk_rate,
            rival: Mutex::default(),
            excluded,
        });
        Peers {
            handle: PeersHandle(Arc::new(PeersState {
                node,
                fatal,
                running: Mutex::default(),
                dropped: Counter::default(),
            })),
        }
    }

    /// Registers the metrics of all peers.
    pub fn observe(&self, registry: &Registry) {
        let dropped = self.handle.0.dropped.clone();
        registry.observe_counter(
            "messages_to_peers_dropped",
            "Messages to peers that were dropped because their queue was full",
            move || dropped.get(),
        );
    }

    /// Returns a handle for other threads.
    pub fn handle(&self) -> PeersHandle {
        self.handle.clone()
    }

    /// Stops and joins every peer's thread. Unsent jobs are answered with "not appended", and unanswered ones with
    /// "outcome unknown".
    pub fn stop(&self) {
        let peers = {
            let mut running = self.handle.lock();
            running.stopped = true;
            std::mem::take(&mut running.peers)
        };
        self.handle.0.node.relays.stop();
        peers.values().for_each(|peer| peer.inbox.queue.mailbox.stop());
        peers.into_values().for_each(|peer| peer.joiner.join());
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl PeersHandle {
    fn lock(&self) -> MutexGuard<'_, PeerThreads> {
        self.0.running.lock()
    }

    /// Returns the shared state of this node.
    pub(super) fn node(&self) -> &LocalNode {
        &self.0.node
    }

    /// Returns this node's identity.
    pub fn me(&self) -> &PeerIdentity {
        &self.0.node.me
    }

    /// Returns the catalog as applied on this node.
    pub fn catalog(&self) -> &CatalogView {
        &self.0.node.catalog
    }

    /// Returns why the cluster rejects this node, if it does: it was removed, its version is too old, a second
    /// process runs with its id, or it has the name of another member. This is final: the node no longer takes part
    /// in any group, so its own catalog may never show the reason.
    pub fn excluded(&self) -> Option<&Refusal> {
        self.0.node.excluded.get()
    }

    /// Returns which other cluster of the same name answers, if one does. Meanwhile this node refuses appends.
    pub fn rival(&self) -> Option<String> {
        self.0.node.rival.lock().clone()
    }

    /// Records that another cluster of the same name answers, or that none does. Returns whether this is a change.
    pub fn set_rival(&self, what: Option<String>) -> bool {
        let mut rival = self.0.node.rival.lock();
        let is_new = rival.is_some() != what.is_some();
        *rival = what;
        is_new
    }

    /// Records that the cluster rejects this node.
    pub fn exclude(&self, refusal: Refusal) {
        // The first reason is kept.
        let _ = self.0.node.excluded.set(refusal);
    }

    /// Returns how to reach a peer. Starts the peer's thread if it is not running yet.
    fn senders(&self, peer: NodeId) -> Result<PeerSenders, NoThread> {
        let mut running = self.lock();
        if running.stopped {
            return Err(NoThread);
        }
        if let Some(thread) = running.peers.get(&peer) {
            return Ok(thread.inbox.clone());
        }
        let queue = Arc::new(SendQueue { node: self.0.node.clone(), peer, mailbox: Arc::default() });
        let inbox = PeerSenders { queue, direct: Arc::default() };
        let looped = Peer::new(inbox.queue.clone(), inbox.direct.clone(), self.0.fatal.clone());
        let name = self.catalog().get().member(peer).map_or_else(|| peer.to_string(), |m| m.name.to_string());
        let joiner = spawn(&format!("peer-{name}"), &self.0.fatal, move || {
            looped.run();
            Ok::<(), Infallible>(())
        });
        match joiner {
            Ok(joiner) => {
                running.peers.insert(peer, PeerThread { inbox: inbox.clone(), joiner });
                Ok(inbox)
            }
            Err(error) => {
                log::error!("no thread for peer {peer}: {error}");
                Err(NoThread)
            }
        }
    }

    /// Sends a proposal once to the node that leads its group. The answer is `Dropped` if the proposal was not
    /// sent, `NotLeader` with the leader that the peer knows if it does not lead, and `OutcomeUnknown` if the link is
    /// lost after it was sent and no later log shows the outcome.
    pub fn propose(
        &self,
        to: NodeId,
        principal: &str,
        proposal: Proposal,
    ) -> ReplyReceiver<Result<Appended, ProposeError>> {
        let (tx, rx) = reply();
        self.forward(to, Forward { principal: principal.to_owned(), work: Work::Propose(proposal, tx) });
        rx
    }

    /// Requests a read index from the node that leads a group. The answer is `NotLeader` if it does not lead, with
    /// the leader that it knows, and `Unconfirmed` if it can't be reached. A retry is always safe.
    pub fn read_index(
        &self,
        to: NodeId,
        group: GroupId,
        deadline: Option<Instant>,
    ) -> ReplyReceiver<Result<LogIndex, ReadIndexError>> {
        let (tx, rx) = reply();
        self.forward(to, Forward { principal: String::new(), work: Work::ReadIndex(group, deadline, tx) });
        rx
    }

    /// Relays a request to a node that has a replica of its log. The first part of the answer says whether it has.
    pub fn relay(&self, to: NodeId, request: &RelayedRequest) -> RelayAnswer {
        RelayAnswer::open(to, self.0.node.clone(), request)
    }

    /// Returns true if a node of this cluster has an open stream of messages to this one.
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.0.node.heard.is_open(node)
    }

    /// Returns true if relayed requests did not reach the node a moment ago.
    pub fn is_suspect(&self, node: NodeId) -> bool {
        self.0.node.relays.channels.is_suspect(node)
    }

    /// Records that the node did not answer a relayed request in time.
    pub fn suspect(&self, node: NodeId) {
        self.0.node.relays.channels.failed(node);
    }

    /// Sets what serves the requests that other nodes relay to this one. Until then they are refused.
    pub fn serve_relays(&self, server: Arc<dyn RelayServer>) {
        self.0.node.relays.set_server(server);
    }

    fn forward(&self, to: NodeId, forward: Forward) {
        match self.senders(to) {
            Ok(senders) => {
                if let Err((forward, stopped)) = senders.queue.mailbox.put_forward(forward) {
                    forward.refuse(if stopped { NotSent::Stopping } else { NotSent::QueueFull });
                }
            }
            Err(NoThread) => forward.refuse(NotSent::Stopping),
        }
    }

    /// Returns the feature levels of a peer's binary, from its last accepted hello. `None` if this node has not heard
    /// from it since its own start.
    pub fn levels_of(&self, peer: NodeId) -> Option<FeatureRange> {
        if peer == self.me().node_id {
            return Some(self.me().levels.range());
        }
        self.0.node.addresses.levels_of(peer)
    }

    /// Records the members at the time of this node's admission.
    pub fn set_admission_members(&self, members: Vec<Member>) {
        self.0.node.addresses.set_admission_members(members);
    }

    /// Records an address of `node` that discovery found. It is tried after the addresses from better sources.
    pub fn suggest(&self, node: NodeId, bind_addr: &str) {
        self.0.node.addresses.suggest(node, bind_addr);
    }

    /// Records the new address of a member that asks to change it. The peer's thread tries it without waiting for its
    /// backoff, after the addresses from better sources.
    pub(super) fn record_changed_address(&self, node: NodeId, bind_addr: &str) {
        if node != self.me().node_id && !self.0.node.addresses.of(node).iter().any(|known| known == bind_addr) {
            log::info!("member {node} says that it is reached at {bind_addr} now");
            self.0.node.addresses.suggest(node, bind_addr);
            if let Some(thread) = self.lock().peers.get(&node) {
                thread.inbox.queue.mailbox.poke();
            }
        }
    }

    /// Records an accepted hello: the peer is running at `bind_addr` and supports these levels. Returns false if the
    /// catalog does not contain the peer and too many such nodes are known.
    pub(super) fn record_hello(&self, peer: &StreamPeer, bind_addr: &str, certificate: &PeerName) -> bool {
        let (peer, range) = (peer.node, peer.levels.range);
        let recorded = self.0.node.addresses.record_hello(peer, bind_addr, certificate, range);
        if recorded && let Some(thread) = self.lock().peers.get(&peer) {
            thread.inbox.queue.mailbox.poke();
        }
        recorded
    }
}

impl Outbound for PeersHandle {
    fn send(&self, to: NodeId, message: RaftMessage) {
        let lost = match self.senders(to) {
            Ok(PeerSenders { queue, direct }) => {
                queue.mailbox.put_message(message, || direct.send(&queue)).err().map(|m| *m)
            }
            Err(NoThread) => Some(message),
        };
        if let Some(message) = lost {
            self.0.dropped.inc();
            log::debug!("a message to {to} is dropped: its queue is full, or this node is stopping");
            if let Some(group) = snapshot_group(&message) {
                self.0.node.snapshot_sent(to, group, false);
            }
            match message.bulk {
                true => self.0.node.append_dropped(to, GroupId(message.group)),
                false => self.0.node.unreachable(to),
            }
        }
    }

    fn propose(&self, to: NodeId, proposal: Proposal) {
        // The answer is ignored: the caller proposes again if nothing was applied.
        drop(PeersHandle::propose(self, to, "", proposal));
    }

    fn read_index(&self, to: NodeId, group: GroupId) -> ReplyReceiver<Result<LogIndex, ReadIndexError>> {
        PeersHandle::read_index(self, to, group, None)
    }

    fn levels_of(&self, node: NodeId) -> Option<FeatureRange> {
        PeersHandle::levels_of(self, node)
    }
}
