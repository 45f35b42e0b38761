//! `ConsumeStream`: sends the stored records, and then each record that is appended. It ends only with a status.
//!
//! A stream is a future. At the high watermark it waits until a record is appended, a heartbeat is due, the client is
//! gone, or the permission is revoked. It holds at most one read that is not sent yet, so a slow client delays only its
//! own stream.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, Either, poll_fn, select};
use futures::{FutureExt as _, Sink, SinkExt};
use grpcio::WriteFlags;

use super::core::{Core, bounds};
use super::error::ApiError;
use super::limits::Permit;
use super::messages::{ConsumeReply, ReadState, Request};
use super::package::Package;
use super::prelude::ServerStream;
use super::read::{Batching, ReadPosition, read_position, refused};
use super::read_request::{ReadMethod, ReadRequest};
use super::relay::Relay;
use super::service::{Call, Service, StreamEnd};
use crate::logs::OpenLog;
use crate::replication::relay::RelayKind;
use crate::security::identity::Principal;
use crate::storage::payload::{records, retag};
use crate::storage::reader::Slice;
use crate::types::Offset;
use crate::watermark::{Until, Visible};

/// The maximum size of a message if the request does not set one. A larger record is sent alone.
const BYTES_DEFAULT: usize = 1 << 20;

/// The size of one read, if the budget allows it: whole entries, which may become several messages. So the checksum of
/// an entry is verified once, and not for each message.
const READ_BYTES: usize = 600 << 10;

/// Serves `ConsumeStream`, from this node's replica or from that of another node.
pub fn consume_stream(stream: ServerStream<'_, ConsumeReply>) -> BoxFuture<'_, Result<(), StreamEnd>> {
    serve(stream).boxed()
}

async fn serve(stream: ServerStream<'_, ConsumeReply>) -> Result<(), StreamEnd> {
    let ServerStream { service, call, request: message, sink } = stream;
    let request = ReadRequest::decode(message, ReadMethod::Stream, call.package)?;
    let name = call.log_name(&request.log)?;
    request.heartbeat()?;
    let core = service.core()?;
    let must_end = call.must_end(service, Some(name.clone()))?;
    let work = async {
        let found = core.find(&name, &service.timers, call.deadline).await?;
        match &found.replica {
            Some(log) => {
                if request.one_by_one {
                    // Small messages that are ready at the same time share a write.
                    sink.enhance_batch(true);
                }
                read(service, call, &request, Arc::clone(log), sink).await
            }
            None => {
                let relay = Relay::of(service, core, call, &found);
                // Boxed, because otherwise each stream that this node serves would reserve memory for it.
                Box::pin(relay.stream(RelayKind::ConsumeStream, message, sink)).await
            }
        }
    };
    match select(pin!(must_end), pin!(work)).await {
        Either::Left((error, _)) => Err(error.into()),
        Either::Right((result, _)) => result,
    }
}

/// Serves a `ConsumeStream` that another node relays.
///
/// # Errors
/// Those of [`super::status`].
pub async fn tail<S: TailSink>(
    service: &Service,
    call: &Call,
    message: &Request,
    sink: &mut S,
) -> Result<(), StreamEnd> {
    let request = ReadRequest::decode(message, ReadMethod::Stream, call.package)?;
    let name = call.log_name(&request.log)?;
    let must_end = call.must_end(service, Some(name.clone()))?;
    let work = async {
        // It had a replica when it accepted the request.
        let log = service.core()?.logs.get(&name).ok_or(ApiError::ReplicaLost)?;
        read(service, call, &request, log, sink).await
    };
    match select(pin!(must_end), pin!(work)).await {
        Either::Left((error, _)) => Err(error.into()),
        Either::Right((result, _)) => result,
    }
}

/// Where the messages of a tail go: to the client, or to the node that relays its request. At most one of them is not
/// sent yet.
pub trait TailSink: Sink<(ConsumeReply, WriteFlags)> + Send + Unpin {}

impl<S: Sink<(ConsumeReply, WriteFlags)> + Send + Unpin> TailSink for S {}

/// Becomes ready when the client has disconnected. For a tail that has nothing to send.
fn poll_sink_gone<S: TailSink>(sink: &mut S, cx: &mut Context<'_>) -> Poll<()> {
    match Pin::new(sink).poll_flush(cx) {
        Poll::Ready(Err(_)) => Poll::Ready(()),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}

/// Reads from this node's replica until the end that the request sets.
async fn read<S: TailSink>(
    service: &Service,
    call: &Call,
    request: &ReadRequest,
    log: Arc<OpenLog>,
    sink: &mut S,
) -> Result<(), StreamEnd> {
    let (core, principal) = (service.core()?, call.principal());
    let heartbeat = request.heartbeat()?;
    let opened = Arc::clone(&log);
    let read = async {
        let position = read_position(core, log, request, &service.timers, call.deadline).await?;
        let batching = Batching::of(request, BYTES_DEFAULT);
        let read_bytes = if request.bytes_max == 0 { READ_BYTES } else { READ_BYTES.max(batching.bytes_max) };
        let package = request.package;
        let mut tail = Tail { service, core, principal, package, position, batching, read_bytes, heartbeat, end: None };
        let Some(fence) = request.fence() else { return tail.run(request, call.deadline, sink).await };
        // Only now, because this node may have lagged before.
        let fenced = opened.tables.wait_fenced(&fence);
        match select(fenced, pin!(tail.run(request, call.deadline, sink))).await {
            Either::Left((refusal, _)) => Err(refused(&opened, refusal).into()),
            Either::Right((result, _)) => result,
        }
    };
    match select(opened.removal.wait(), pin!(read)).await {
        Either::Left(_) => Err(core.removed(&opened).into()),
        Either::Right((result, _)) => result,
    }
}

/// The state of a stream. `position.offset` is the next record.
struct Tail<'a> {
    service: &'a Service,
    core: &'a Core,
    principal: Principal,
    package: Package,
    position: ReadPosition,
    batching: Batching,
    /// The size of one read.
    read_bytes: usize,
    heartbeat: Option<Duration>,
    /// The offset to stop at. `None` if the stream continues with new records.
    end: Option<Offset>,
}

impl Tail<'_> {
    /// Checks an offset that is not visible on this node, and determines the end for `stop_at_end`. Both depend on the
    /// leader's log, not on this node's.
    async fn find_end(&mut self, request: &ReadRequest, deadline: Option<Instant>) -> Result<(), ApiError> {
        let log = Arc::clone(&self.position.log);
        let past_end = |offset: Offset| offset > log.watermark.get().next_offset;
        if self.position.confirmed.is_none() && (request.stop_at_end || past_end(self.position.offset)) {
            let visible = self.core.catch_up(log.group, &log.watermark, &self.service.timers, deadline).await?;
            self.position.confirmed = Some(visible);
        }
        if past_end(self.position.offset) {
            return Err(ApiError::OffsetPastEnd(bounds(&log, &log.watermark.get()), self.position.offset));
        }
        if request.stop_at_end {
            self.end = self.position.confirmed.map(|visible| visible.next_offset);
        }
        Ok(())
    }

    /// The state after the records that were sent so far.
    fn state(&self, visible: Visible) -> ReadState {
        ReadState { package: self.package, visible, log_id: self.position.log.log_id, resume: self.position.offset }
    }

    async fn run<S: TailSink>(
        &mut self,
        request: &ReadRequest,
        deadline: Option<Instant>,
        sink: &mut S,
    ) -> Result<(), StreamEnd> {
        self.find_end(request, deadline).await?;
        match self.package {
            Package::LogV1 => {}
            // Tells where the stream begins, so that a client whose connection breaks before the first record can
            // resume there.
            Package::SeriatimV1 => {
                let visible = self.position.log.watermark.get();
                if self.position.offset < visible.first_offset {
                    self.position.skip_trimmed(&visible, visible.first_offset)?;
                }
                send_all([ConsumeReply::many(Vec::new(), self.state(visible))], sink).await?;
            }
        }
        let mut last_sent = Instant::now();
        while self.end.is_none_or(|end| self.position.offset < end) {
            let mut visible = self.position.log.watermark.get();
            if let Some(end) = self.end {
                visible.next_offset = visible.next_offset.min(end);
            }
            if self.position.offset < visible.next_offset {
                let permit = self.read_permit(sink).await?;
                let (position, metrics) = (&mut self.position, &self.service.metrics);
                let read = position.read_next(self.core, metrics, &visible, self.read_bytes, permit).await?;
                if let Some((slice, _permit)) = read {
                    metrics.read(slice.count, slice.bytes.len());
                    self.send(slice, sink).await?;
                    last_sent = Instant::now();
                }
                continue;
            }
            let beat = self.heartbeat.map(|every| last_sent + every);
            if !self.wait(sink, beat).await? {
                let nothing = ConsumeReply::many(Vec::new(), self.state(visible));
                send_all([nothing], sink).await?;
                last_sent = Instant::now();
            }
        }
        Ok(())
    }

    /// Waits until the budget allows the next read, or the client is gone.
    async fn read_permit<S: TailSink>(&self, sink: &mut S) -> Result<Permit, StreamEnd> {
        let permit = pin!(self.service.limits.queue_read(&self.principal, self.read_bytes, &self.service.timers));
        match select(permit, poll_fn(|cx| poll_sink_gone(sink, cx))).await {
            Either::Left((permit, _)) => Ok(permit?),
            Either::Right(_) => Err(StreamEnd::Gone),
        }
    }

    /// Waits. Returns true at the next record, false when a heartbeat is due, and an error if the client is gone.
    async fn wait<S: TailSink>(&self, sink: &mut S, beat: Option<Instant>) -> Result<bool, StreamEnd> {
        let more = self.position.log.watermark.wait(Until::Visible(self.position.offset), &self.service.timers);
        let quiet = pin!(self.service.timers.at_or_never(beat));
        match select(select(more, poll_fn(|cx| poll_sink_gone(sink, cx))), quiet).await {
            Either::Left((Either::Left((Ok(_), _)), _)) => Ok(true),
            Either::Left((Either::Left((Err(_), _)), _)) => Err(ApiError::ReplicaDamaged.into()),
            Either::Left((Either::Right(_), _)) => Err(StreamEnd::Gone),
            Either::Right(_) => Ok(false),
        }
    }

    /// Sends records that were read, in messages of the requested size. Messages that are ready at the same time share
    /// writes.
    async fn send<S: TailSink>(&mut self, slice: Slice, sink: &mut S) -> Result<(), StreamEnd> {
        let Slice { bytes, count, next } = slice;
        let Batching { one_by_one, records_max, bytes_max } = self.batching;
        if !one_by_one && count <= records_max && bytes.len() <= bytes_max {
            let visible = self.position.log.watermark.get();
            self.position.offset = next;
            return send_all([ConsumeReply::many(bytes, self.state(visible))], sink).await;
        }
        let mut at = 0;
        while at < bytes.len() {
            let (end, count) = self.message(&bytes, at)?;
            self.position.offset.0 += u64::from(count);
            let reply = if one_by_one {
                let mut record = bytes[at..end].to_vec();
                retag(&mut record);
                ConsumeReply::one(record)
            } else {
                let visible = self.position.log.watermark.get();
                ConsumeReply::part(&bytes[at..end], self.state(visible))
            };
            sink.feed((reply, WriteFlags::default())).await.map_err(|_| StreamEnd::Gone)?;
            at = end;
        }
        sink.flush().await.map_err(|_| StreamEnd::Gone)
    }

    /// Returns the end of the next message, and the number of its records: as many as allowed, and at least one.
    fn message(&self, bytes: &[u8], at: usize) -> Result<(usize, u32), ApiError> {
        let (mut end, mut count) = (at, 0);
        let records_max = if self.batching.one_by_one { 1 } else { self.batching.records_max };
        for record in records(&bytes[at..]) {
            let record = record.map_err(|_| ApiError::Damaged {
                log: self.position.log.name.clone(),
                offset: Offset(self.position.offset.0 + u64::from(count)),
                resume: None,
                what: "what was read is not a sequence of records".to_owned(),
            })?;
            if count == records_max || count > 0 && end - at + record.len() > self.batching.bytes_max {
                break;
            }
            end += record.len();
            count += 1;
        }
        Ok((end, count))
    }
}

async fn send_all<S: TailSink, const N: usize>(replies: [ConsumeReply; N], sink: &mut S) -> Result<(), StreamEnd> {
    for reply in replies {
        sink.feed((reply, WriteFlags::default())).await.map_err(|_| StreamEnd::Gone)?;
    }
    sink.flush().await.map_err(|_| StreamEnd::Gone)
}
