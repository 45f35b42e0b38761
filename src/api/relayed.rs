//! Serves the requests that other nodes relay to this one, because they have no replica of the log.
//!
//! The handlers are those of this node's own clients. The relaying node has checked the rights of the client; the
//! principal counts for the limits of this node, too.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use futures::future::{BoxFuture, Either, poll_fn, select};
use futures::{FutureExt as _, Sink, SinkExt as _};
use grpcio::WriteFlags;
use protobuf::Message;

use super::chain::read_chain;
use super::consume::consume;
use super::consume_stream::tail;
use super::core::Core;
use super::cursors::{acquire_cursor, commit_cursor, delete_cursor, get_cursor, list_cursors};
use super::error::ApiError;
use super::logs::{get_log, get_log_log_v1};
use super::messages::{ConsumeReply, Request};
use super::node::get_node;
use super::package::Package;
use super::producers::{get_producer, init_producer, list_producers};
use super::service::{Call, RequestFailure, Service, StreamEnd};
use super::status::{classify, status_of};
use super::trim::trim_log;
use crate::replication::relay::{
    RelayEnd, RelayFailure, RelayGone, RelayKind, RelayPackage, RelayServer, RelaySink, RelayedRequest,
};
use crate::security::identity::Principal;
use crate::types::{LogId, LogName};

/// Serves relayed requests.
pub struct RelayedRequests {
    service: Service,
}

impl RelayedRequests {
    /// Serves them with the parts of this node.
    pub fn new(service: Service) -> RelayedRequests {
        RelayedRequests { service }
    }

    async fn run(&self, request: RelayedRequest, sink: &mut RelaySink<'_>, call: Call) -> Result<(), StreamEnd> {
        let service = &self.service;
        let principal = call.principal();
        let (kind, message) = (request.kind, Request(request.request));
        if kind == RelayKind::ConsumeStream {
            let _stream = service.limits.stream(&principal)?;
            return tail(service, &call, &message, &mut Replies(sink)).await;
        }
        // Boxed, because otherwise each stream would reserve memory for it.
        Box::pin(self.answer(kind, message, sink, call)).await
    }

    /// Serves a request with one response.
    async fn answer(
        &self,
        kind: RelayKind,
        message: Request,
        sink: &mut RelaySink<'_>,
        call: Call,
    ) -> Result<(), StreamEnd> {
        let service = &self.service;
        let principal = call.principal();
        let _held = service.limits.call(&principal, message.0.len())?;
        let work = async {
            let service = service.clone();
            let (reply, permit) = match (kind, call.package) {
                (RelayKind::Consume | RelayKind::ConsumeStream, _) => {
                    let (reply, permit) = consume(service, call, message).await?;
                    (reply.into_bytes(), permit)
                }
                (RelayKind::GetLog, Package::LogV1) => (encoded(get_log_log_v1(service, call, message)).await?, None),
                (RelayKind::GetLog, Package::SeriatimV1) => (encoded(get_log(service, call, message)).await?, None),
                (RelayKind::TrimLog, _) => (encoded(trim_log(service, call, message)).await?, None),
                (RelayKind::InitProducer, _) => (encoded(init_producer(service, call, message)).await?, None),
                (RelayKind::GetProducer, _) => (encoded(get_producer(service, call, message)).await?, None),
                (RelayKind::ListProducers, _) => (encoded(list_producers(service, call, message)).await?, None),
                (RelayKind::AcquireCursor, _) => (encoded(acquire_cursor(service, call, message)).await?, None),
                (RelayKind::CommitCursor, _) => (encoded(commit_cursor(service, call, message)).await?, None),
                (RelayKind::GetCursor, _) => (encoded(get_cursor(service, call, message)).await?, None),
                (RelayKind::ListCursors, _) => (encoded(list_cursors(service, call, message)).await?, None),
                (RelayKind::ReadChain, _) => (encoded(read_chain(service, call, message)).await?, None),
                (RelayKind::GetNode, _) => (encoded(get_node(service, call, message)).await?, None),
                (RelayKind::DeleteCursor, _) => (encoded(delete_cursor(service, call, message)).await?, None),
            };
            Ok::<_, ApiError>((reply, permit))
        };
        let done = match select(pin!(work), poll_fn(|cx| poll_relay_gone(sink, cx))).await {
            Either::Left((done, _)) => done,
            Either::Right(_) => return Err(StreamEnd::Gone),
        };
        let (bytes, _permit) = done?;
        sink.send(bytes).await.map_err(|RelayGone| StreamEnd::Gone)
    }
}

impl RelayServer for RelayedRequests {
    fn has_replica(&self, log: &LogName, log_id: LogId) -> bool {
        let core = self.service.member.get();
        let is_here = |core: &Core| {
            let log = core.logs.get(log).filter(|log| log.log_id == log_id);
            log.is_some_and(|log| core.consensus.lost(log.group).is_none())
        };
        core.is_some_and(is_here)
    }

    fn serve<'a>(&'a self, request: RelayedRequest, responses: &'a mut RelaySink<'_>) -> BoxFuture<'a, RelayEnd> {
        async move {
            // A stopping node waits for it.
            let _in_flight = self.service.in_flight.enter();
            let package = match request.package {
                RelayPackage::LogV1 => Package::LogV1,
                RelayPackage::SeriatimV1 => Package::SeriatimV1,
            };
            let principal = Principal::new(&request.principal).unwrap_or_else(|_| Principal::anonymous());
            let call = Call::relayed(package, principal, request.deadline);
            let context = call.context();
            match self.run(request, responses, call).await {
                Ok(()) => RelayEnd::Complete,
                Err(StreamEnd::Gone) => RelayEnd::Gone,
                Err(StreamEnd::Failed(RequestFailure { error, at, .. })) => {
                    let reason = classify(&error).reason.code().to_owned();
                    let status = status_of(&error, &context.of_status(&self.service, at));
                    RelayEnd::Failed(RelayFailure { reason, status: status.details().to_vec() })
                }
            }
        }
        .boxed()
    }
}

/// Encodes the response of a handler.
async fn encoded<M: Message>(response: impl Future<Output = Result<M, ApiError>>) -> Result<Vec<u8>, ApiError> {
    response.await?.write_to_bytes().map_err(|_| ApiError::Internal("a response can't be encoded"))
}

fn poll_relay_gone(sink: &mut RelaySink<'_>, cx: &mut Context<'_>) -> Poll<()> {
    match Pin::new(sink).poll_flush(cx) {
        Poll::Ready(Err(RelayGone)) => Poll::Ready(()),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}

/// Takes the responses of a tail.
struct Replies<'a, 'b>(&'a mut RelaySink<'b>);

impl Sink<(ConsumeReply, WriteFlags)> for Replies<'_, '_> {
    type Error = RelayGone;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), RelayGone>> {
        Pin::new(&mut *self.0).poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, (reply, _): (ConsumeReply, WriteFlags)) -> Result<(), RelayGone> {
        Pin::new(&mut *self.0).start_send(reply.into_bytes())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), RelayGone>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), RelayGone>> {
        Pin::new(&mut *self.0).poll_close(cx)
    }
}
