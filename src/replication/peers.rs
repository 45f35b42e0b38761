//! All peers of this node: one thread for each, started when there is something to send.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use crate::catalog::{CatalogView, Member};
use crate::consensus::Outbound;
use crate::consensus::handle::{Appended, ConsensusHandle, Proposal, ProposeError, ReadIndexError};
use crate::logs::Logs;
use crate::pb::peer::RaftMessage;
use crate::replication::Late;
use crate::replication::addresses::Addresses;
use crate::replication::dial::Dialer;
use crate::replication::forward::{Forward, NotSent, Work};
use crate::replication::hello::PeerIdentity;
use crate::replication::mailbox::Mailbox;
use crate::replication::node::{Node, marker_of};
use crate::replication::peer::Peer;
use crate::replication::refusal::Refusal;
use crate::reply::{ReplyReceiver, reply};
use crate::security::peer_names::PeerName;
use crate::thread::{FatalSender, Joiner, spawn};
use crate::types::{GroupId, LogIndex, NodeId};
use crate::watermark::Watermark;

/// The threads of all peers. Dropping it stops and joins them.
pub struct Peers {
    handle: PeersHandle,
}

/// What others hold of [`Peers`].
#[derive(Clone)]
pub struct PeersHandle(Arc<Shared>);

struct Shared {
    node: Arc<Node>,
    fatal: FatalSender,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    peers: HashMap<NodeId, (Arc<Mailbox>, Joiner)>,
    stopped: bool,
}

/// No thread takes it: this node is stopping, or the system can't make another thread.
struct NoThread;

impl Peers {
    /// Starts with no peer. `consensus` may be filled later; until then nothing arrives and losses are not reported.
    pub fn start(
        me: PeerIdentity,
        dialer: Dialer,
        catalog: CatalogView,
        catalog_watermark: Watermark,
        consensus: Late<ConsensusHandle>,
        logs: Logs,
        fatal: FatalSender,
    ) -> Peers {
        let addresses = Addresses::new(catalog.clone(), dialer.rules().clone());
        let excluded = OnceLock::new();
        let node = Arc::new(Node {
            me,
            dialer,
            catalog,
            addresses,
            consensus,
            catalog_watermark,
            logs,
            rival: Mutex::default(),
            excluded,
        });
        Peers { handle: PeersHandle(Arc::new(Shared { node, fatal, running: Mutex::default() })) }
    }

    /// The handle.
    pub fn handle(&self) -> PeersHandle {
        self.handle.clone()
    }

    /// Ends and joins every peer's thread. What was not sent is answered as not appended, what was sent and not answered as unknown.
    pub fn stop(&self) {
        let peers = {
            let mut running = self.handle.lock();
            running.stopped = true;
            std::mem::take(&mut running.peers)
        };
        peers.values().for_each(|(mailbox, _)| mailbox.stop());
        peers.into_values().for_each(|(_, joiner)| joiner.join());
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl PeersHandle {
    fn lock(&self) -> MutexGuard<'_, Running> {
        // Every critical section leaves the map whole.
        self.0.running.lock()
    }

    /// This node and its surroundings.
    pub(super) fn node(&self) -> &Node {
        &self.0.node
    }

    /// This node.
    pub fn me(&self) -> &PeerIdentity {
        &self.0.node.me
    }

    /// The newest catalog.
    pub fn catalog(&self) -> &CatalogView {
        &self.0.node.catalog
    }

    /// Why the cluster rejects this node: it was removed, runs a second time, or has the name of another member. This is final:
    /// the node no longer takes part in any group, although its own catalog may never show the reason.
    pub fn excluded(&self) -> Option<&Refusal> {
        self.0.node.excluded.get()
    }

    /// What is known of another cluster of the same name, while one answers: this node takes no appends.
    pub fn rival(&self) -> Option<String> {
        self.0.node.rival.lock().clone()
    }

    /// Records that another cluster of the same name answers, or that none does. Returns whether that was not known.
    pub fn set_rival(&self, what: Option<String>) -> bool {
        // A value that is replaced whole.
        let mut rival = self.0.node.rival.lock();
        let is_new = rival.is_some() != what.is_some();
        *rival = what;
        is_new
    }

    /// Records that the cluster rejects this node.
    pub fn exclude(&self, refusal: Refusal) {
        // What was said first stays.
        let _ = self.0.node.excluded.set(refusal);
    }

    /// The mailbox of a peer, whose thread is started if it has none yet.
    fn mailbox(&self, peer: NodeId) -> Result<Arc<Mailbox>, NoThread> {
        let mut running = self.lock();
        if running.stopped {
            return Err(NoThread);
        }
        if let Some((mailbox, _)) = running.peers.get(&peer) {
            return Ok(mailbox.clone());
        }
        let mailbox = Arc::new(Mailbox::default());
        let looped = Peer::new(peer, self.0.node.clone(), mailbox.clone());
        let name = self.catalog().get().member(peer).map_or_else(|| peer.to_string(), |m| m.name.to_string());
        let joiner = spawn(&format!("peer-{name}"), &self.0.fatal, move || {
            looped.run();
            Ok::<(), Infallible>(())
        });
        match joiner {
            Ok(joiner) => {
                running.peers.insert(peer, (mailbox.clone(), joiner));
                Ok(mailbox)
            }
            Err(error) => {
                log::error!("no thread for peer {peer}: {error}");
                Err(NoThread)
            }
        }
    }

    /// Sends a proposal to the node that leads its group, once. Not sent, or the peer does not lead: `Dropped`. Sent and
    /// the link lost before the answer: `OutcomeUnknown`.
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

    /// Asks the node that leads a group for a read index. `NotLeader` when it does not lead, `Unconfirmed` when it can't
    /// be reached; asking again is always safe.
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

    fn forward(&self, to: NodeId, forward: Forward) {
        match self.mailbox(to) {
            Ok(mailbox) => {
                if let Err((forward, stopped)) = mailbox.put_forward(forward) {
                    forward.refuse(if stopped { NotSent::Stopping } else { NotSent::QueueFull });
                }
            }
            Err(NoThread) => forward.refuse(NotSent::Stopping),
        }
    }

    /// The members, as whoever admitted this node named them.
    pub fn told(&self, members: Vec<Member>) {
        self.0.node.addresses.told(members);
    }

    /// An address where `node` may be reached, from discovery: tried after those that are known better.
    pub fn suggest(&self, node: NodeId, bind_addr: &str) {
        self.0.node.addresses.suggested(node, bind_addr);
    }

    /// A member itself says where it may be reached, when it asks to be moved: tried after the addresses that are known better, at once.
    pub(super) fn hint(&self, node: NodeId, bind_addr: &str) {
        if node != self.me().node_id && !self.0.node.addresses.of(node).iter().any(|known| known == bind_addr) {
            log::info!("member {node} says that it is reached at {bind_addr} now");
            self.0.node.addresses.suggested(node, bind_addr);
            if let Some((mailbox, _)) = self.lock().peers.get(&node) {
                mailbox.poke();
            }
        }
    }

    /// A peer's hello was accepted: it is up, and this is where it is reached. False for a stranger too many.
    pub(super) fn heard_from(&self, peer: NodeId, bind_addr: &str, certificate: &PeerName) -> bool {
        let noted = self.0.node.addresses.said(peer, bind_addr, certificate);
        if noted && let Some((mailbox, _)) = self.lock().peers.get(&peer) {
            mailbox.poke();
        }
        noted
    }
}

impl Outbound for PeersHandle {
    fn send(&self, to: NodeId, message: RaftMessage) {
        let lost = match self.mailbox(to) {
            Ok(mailbox) => mailbox.put_message(message).err().map(|m| *m),
            Err(NoThread) => Some(message),
        };
        if let Some(message) = lost {
            log::debug!("a message to {to} is dropped: its queue is full, or this node is stopping");
            if let Some(group) = marker_of(&message) {
                self.0.node.marker_sent(to, group, false);
            }
            self.0.node.unreachable(to);
        }
    }
}
