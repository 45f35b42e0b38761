//! The stream of bulk messages to one peer. `bulk_rate.rs` has the rate limit of all such streams.
//!
//! - It has a connection of its own. On a shared connection, a heartbeat would wait for the bulk bytes that the
//!   system's send buffer already holds: megabytes, which take seconds on a slow network.
//! - It is opened when the first bulk message is queued, after the peer has accepted the other stream.
//! - Its receiver reads it only as fast as it can write (`consensus/peer_inbox.rs`). Until then the messages wait in the
//!   mailbox, and each follower has a bounded number of them in flight.

use std::task::{Context, Poll};
use std::time::Instant;

use protobuf::Message as _;

use crate::pb::peer::{ReplicateRequest, ReplicateResponse};
use crate::pb::peer_grpc::PeerClient;
use crate::replication::bulk_rate::BulkRate;
use crate::replication::link::{Link, Lost, WELCOME_MAX};
use crate::replication::mailbox::Mailbox;
use crate::replication::node::LocalNode;
use crate::types::NodeId;

/// The approximate size of a request. Smaller ones let the peer read other streams in between.
const REQUEST_BYTES: usize = 512 << 10;

/// What a peer's thread does next with its bulk stream.
pub enum BulkStep {
    /// Call [`BulkStream::open`].
    Open,
    /// Call [`BulkStream::send`].
    Send,
    /// The connection has failed.
    Lost(Lost),
    /// Nothing before this time, unless it is woken.
    Wait(Option<Instant>),
}

/// The stream, which may not be open yet.
pub struct BulkStream {
    // Dropped, and so cancelled, before its channel.
    link: Option<Link<ReplicateRequest, ReplicateResponse>>,
    client: PeerClient,
}

impl BulkStream {
    /// Nothing is sent on the channel yet.
    pub fn new(client: PeerClient) -> BulkStream {
        BulkStream { link: None, client }
    }

    /// Returns the next step. `is_queued`: the mailbox contains bulk messages.
    pub fn next(&mut self, cx: &mut Context<'_>, is_queued: bool, peer: NodeId, node: &LocalNode) -> BulkStep {
        let Some(link) = &mut self.link else {
            return if is_queued { BulkStep::Open } else { BulkStep::Wait(None) };
        };
        // The welcome is the only response on this stream.
        if let Poll::Ready(Err(lost)) = link.poll_response(cx) {
            return BulkStep::Lost(lost);
        }
        if let Some(lost) = node.refused_peer(peer, link.welcome().map(|w| w.levels.as_ref())) {
            return BulkStep::Lost(lost);
        }
        let now = Instant::now();
        if !link.is_welcome() {
            let until = link.opened() + WELCOME_MAX;
            return if now < until { BulkStep::Wait(Some(until)) } else { BulkStep::Lost(Lost::because("no answer")) };
        }
        match node.bulk_rate.waits_until(now) {
            _ if !is_queued => BulkStep::Wait(None),
            Some(until) => BulkStep::Wait(Some(until)),
            None if link.poll_ready(cx) => BulkStep::Send,
            None => BulkStep::Wait(None),
        }
    }

    /// Opens the stream.
    ///
    /// # Errors
    /// [`Lost`] if the call can't be made.
    pub fn open(&mut self, hello: ReplicateRequest) -> Result<(), Lost> {
        self.link = Some(Link::open(self.client.replicate(), hello)?);
        Ok(())
    }

    /// Sends the next request. Must be called only after [`BulkStream::next`] returned `Send`.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn send(&mut self, mailbox: &Mailbox, rate: &BulkRate) -> Result<(), Lost> {
        let Some(link) = &mut self.link else { return Ok(()) };
        // Without a clock: it would arrive late.
        let request = ReplicateRequest { messages: mailbox.take_bulk(REQUEST_BYTES), ..ReplicateRequest::default() };
        rate.count(request.compute_size(), Instant::now());
        link.send(request)
    }
}
