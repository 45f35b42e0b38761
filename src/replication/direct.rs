//! Sends small messages to a peer on the thread that queues them. To wake the peer's thread would take longer than to
//! send them.
//!
//! The peer's thread opens and closes the stream, and sends what can't be sent at once: larger messages, and those that
//! are queued while the stream still writes the previous request. Both threads take messages from the mailbox while they
//! hold the link's lock, so messages keep their order.

use std::sync::{Arc, Weak};
use std::task::{Context, Waker};

use parking_lot::Mutex;

use crate::clock::wall_us;
use crate::pb::peer::{ReplicateRequest, ReplicateResponse};
use crate::replication::link::{Link, Lost};
use crate::replication::mailbox::Mailbox;
use crate::replication::node::{LocalNode, snapshot_group};
use crate::types::{GroupId, NodeId};

/// The approximate size of a request with several messages. A larger message is sent alone.
const REQUEST_BYTES: usize = 1 << 20;

/// The stream of messages to a peer.
pub type MessageLink = Link<ReplicateRequest, ReplicateResponse>;

/// The sending side of one peer.
pub struct SendQueue {
    pub node: Arc<LocalNode>,
    pub peer: NodeId,
    /// What is queued for it.
    pub mailbox: Arc<Mailbox>,
}

impl SendQueue {
    /// Sends what is queued. Does nothing while the link writes the previous request; `waker` is woken at its end.
    ///
    /// # Errors
    /// [`Lost`]; the messages are lost.
    pub fn send(&self, link: &mut MessageLink, waker: &Waker) -> Result<(), Lost> {
        if !link.poll_ready(&mut Context::from_waker(waker)) {
            return Ok(());
        }
        let messages = self.mailbox.take_messages(REQUEST_BYTES);
        if messages.is_empty() {
            return Ok(());
        }
        let snapshots: Vec<GroupId> = messages.iter().filter_map(snapshot_group).collect();
        let sent = link.send(ReplicateRequest { messages, clock_us: wall_us(), ..ReplicateRequest::default() });
        for group in snapshots {
            self.node.snapshot_sent(self.peer, group, sent.is_ok());
        }
        sent
    }

    /// Drops raft's messages after a failed attempt to connect: they are outdated, and raft sends new ones.
    pub fn drop_messages(&self) {
        drop(self.mailbox.take_bulk(usize::MAX));
        loop {
            let messages = self.mailbox.take_messages(usize::MAX);
            if messages.is_empty() {
                return;
            }
            let snapshots = messages.iter().filter_map(snapshot_group);
            snapshots.for_each(|group| self.node.snapshot_sent(self.peer, group, false));
        }
    }
}

/// The open stream of a peer's thread, for other threads.
#[derive(Default)]
pub struct DirectSender(Mutex<Option<OpenStream>>);

#[derive(Clone)]
struct OpenStream {
    link: Weak<Mutex<MessageLink>>,
    waker: Waker,
    /// [`Dialer::generation`](crate::replication::dial::Dialer::generation) when its connection was created.
    generation: u64,
}

impl DirectSender {
    /// Sets the stream, the generation of its connection, and what wakes the peer's thread. The thread ends the stream by
    /// dropping it.
    pub fn set(&self, link: &Arc<Mutex<MessageLink>>, generation: u64, waker: Waker) {
        *self.0.lock() = Some(OpenStream { link: Arc::downgrade(link), waker, generation });
    }

    /// Forgets the stream.
    pub fn clear(&self) {
        *self.0.lock() = None;
    }

    /// Sends what is queued, if the stream is idle. Returns false if the peer's thread must be woken. Never blocks.
    pub fn send(&self, queue: &SendQueue) -> bool {
        let Some(OpenStream { link, waker, generation }) = self.0.lock().clone() else { return false };
        let Some(link) = link.upgrade() else { return false };
        let Some(mut link) = link.try_lock() else { return false };
        let Some(welcome) = link.welcome() else { return false };
        // The thread ends such a stream.
        let (node, peer) = (&queue.node, queue.peer);
        let is_accepted = node.dialer.generation() == generation
            && !node.addresses.is_denied(peer)
            && node.refused_peer(peer, Some(welcome.levels.as_ref())).is_none();
        is_accepted && queue.send(&mut link, &waker).is_ok() && !link.has_failed()
    }
}
