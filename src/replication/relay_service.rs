//! The call `Relay`: serves a request that another node relays.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::{Sink, SinkExt as _};
use grpcio::{ServerStreamingSink, WriteFlags};

use crate::feature_level::Feature;
use crate::pb::peer::{RelayRequest, RelayResponse};
use crate::replication::core::MemberCore;
use crate::replication::guard::AuthorizedPeer;
use crate::replication::hello::StreamPeer;
use crate::replication::refusal::{Reason, Refusal};
use crate::replication::relay::{RelayEnd, RelayGone, RelayedRequest, failure, response};
use crate::replication::welcome::{still_welcome, welcome};

/// How the call ends.
pub(super) enum CallEnd {
    Complete,
    Gone,
    Refused(Refusal),
}

/// The responses to the relaying node. The node is checked again before each of them is sent.
struct Responses<'a> {
    sink: &'a mut ServerStreamingSink<RelayResponse>,
    core: &'a MemberCore,
    caller: AuthorizedPeer,
    peer: StreamPeer,
    refused: Option<Refusal>,
}

/// Serves a request of another node's client. Leaves `sink` open: the caller ends it.
pub(super) async fn relay(
    caller: AuthorizedPeer,
    core: &MemberCore,
    mut request: RelayRequest,
    sink: &mut ServerStreamingSink<RelayResponse>,
) -> CallEnd {
    let hello = request.hello.take();
    let peer = match welcome(core, &caller, hello.as_ref(), true) {
        Ok(peer) => peer,
        Err(refusal) => return CallEnd::Refused(refusal),
    };
    if !core.peers.catalog().level().allows(Feature::ManyLogs) {
        let text = "this node does not know yet that the cluster is at feature level 2";
        return CallEnd::Refused(Refusal::new(Reason::NotReady, text));
    }
    let request = match RelayedRequest::of_message(request, Instant::now()) {
        Ok(request) => request,
        Err(bad) => return CallEnd::Refused(Refusal::new(Reason::Malformed, bad.to_string())),
    };
    let Some(server) = core.peers.node().relays.server() else {
        return CallEnd::Refused(Refusal::new(Reason::NotReady, "this node does not serve clients yet"));
    };
    if request.kind.needs_replica() && !server.has_replica(&request.log, request.log_id) {
        let text = format!("this node has no replica of log {} ({})", request.log, request.log_id);
        return CallEnd::Refused(Refusal::new(Reason::NoReplica, text));
    }
    let mut responses = Responses { sink, core, caller, peer, refused: None };
    if responses.sink.send((RelayResponse::default(), WriteFlags::default())).await.is_err() {
        return CallEnd::Gone;
    }
    let end = server.serve(request, &mut responses).await;
    let Responses { sink, refused, .. } = responses;
    if let Some(refusal) = refused {
        return CallEnd::Refused(refusal);
    }
    match end {
        RelayEnd::Complete => CallEnd::Complete,
        RelayEnd::Gone => CallEnd::Gone,
        RelayEnd::Failed(failed) => match sink.send((failure(failed), WriteFlags::default())).await {
            Ok(()) => CallEnd::Complete,
            Err(_) => CallEnd::Gone,
        },
    }
}

impl Sink<Vec<u8>> for Responses<'_> {
    type Error = RelayGone;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), RelayGone>> {
        Pin::new(&mut *self.sink).poll_ready(cx).map_err(|_| RelayGone)
    }

    fn start_send(mut self: Pin<&mut Self>, bytes: Vec<u8>) -> Result<(), RelayGone> {
        let this = &mut *self;
        if let Err(refusal) = still_welcome(this.core, &mut this.caller, &this.peer) {
            this.refused = Some(refusal);
            return Err(RelayGone);
        }
        Pin::new(&mut *this.sink).start_send((response(bytes), WriteFlags::default())).map_err(|_| RelayGone)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), RelayGone>> {
        Pin::new(&mut *self.sink).poll_flush(cx).map_err(|_| RelayGone)
    }

    /// Only flushes: the call is closed by its owner.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), RelayGone>> {
        self.poll_flush(cx)
    }
}
