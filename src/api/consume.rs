//! `Consume`: one response, immediately or after a wait for the next record.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{Either, select};

use super::core::{Core, bounds};
use super::error::ApiError;
use super::limits::Permit;
use super::messages::{ConsumeReply, ReadState, Request};
use super::read::{Batching, ReadPosition, read_position, refused};
use super::read_request::{ReadMethod, ReadRequest};
use super::relay::Relay;
use super::service::{Call, Service};
use crate::logs::OpenLog;
use crate::replication::relay::RelayKind;
use crate::storage::payload::retag;
use crate::storage::reader::Slice;
use crate::types::LogName;
use crate::watermark::{Until, Visible};

/// The maximum wait of a `Consume`.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A wait ends this long before the deadline, so that the response arrives in time.
const HEAD_START: Duration = Duration::from_millis(50);

/// The maximum size of a response if the request does not set one.
const BYTES_DEFAULT: usize = 1 << 20;

/// Serves `Consume`.
///
/// # Errors
/// Those of [`super::status`].
pub async fn consume(
    service: Service,
    call: Call,
    request: Request,
) -> Result<(ConsumeReply, Option<Permit>), ApiError> {
    let principal = call.principal();
    let message = request;
    let request = ReadRequest::decode(&message, ReadMethod::Unary, call.package)?;
    let name = call.log_name(&request.log)?;
    // A request that waits counts as a stream.
    let _waits = if request.wait_ms > 0 { Some(service.limits.stream(&principal)?) } else { None };
    let core = service.core()?;
    let found = core.find(&name, &service.timers, call.deadline).await?;
    let Some(log) = found.replica.clone() else {
        let relay = Relay::of(&service, core, &call, &found);
        let bytes = relay.unary(RelayKind::Consume, &message).await?;
        // The permission may have been revoked while the other node waited.
        call.check_log(&name)?;
        let mut permit = service.limits.read(&principal, bytes.len())?;
        permit.resize(bytes.len())?;
        return Ok((ConsumeReply::of_bytes(bytes), Some(permit)));
    };
    let read = read_here(&service, core, &call, &request, &name, Arc::clone(&log)).await;
    read.map_err(|error| core.error_of(&log, error))
}

/// Reads from this node's replica.
async fn read_here(
    service: &Service,
    core: &Core,
    call: &Call,
    request: &ReadRequest,
    name: &LogName,
    log: Arc<OpenLog>,
) -> Result<(ConsumeReply, Option<Permit>), ApiError> {
    let principal = call.principal();
    let mut position = read_position(core, log, request, &service.timers, call.deadline).await?;
    let mut batching = Batching::of(request, BYTES_DEFAULT);
    if batching.one_by_one {
        batching.records_max = 1;
    }
    let mut until = wait_until(request.wait_ms, call.deadline);
    loop {
        let visible = position.log.watermark.get();
        if position.offset < visible.next_offset {
            let permit = service.limits.read(&principal, batching.bytes_max)?;
            let metrics = &service.metrics;
            if let Some((slice, permit)) = position.read(core, metrics, &visible, batching, permit).await? {
                metrics.read(slice.count, slice.bytes.len());
                let state = ReadState { resume: slice.next, ..state(request, &position, visible) };
                return Ok((reply_of(batching, slice, state), Some(permit)));
            }
        } else if position.confirmed.is_none() {
            position.confirmed = confirm(service, core, &position, call.deadline).await?;
        } else if position.offset > visible.next_offset {
            return Err(ApiError::OffsetPastEnd(bounds(&position.log, &visible), position.offset));
        } else if let Some(end) = until.take() {
            let wait = pin!(service.wait_visible(&position.log.watermark, position.offset, end));
            match select(wait, position.log.removal.wait()).await {
                Either::Left((waited, _)) => waited?,
                Either::Right(_) => return Err(core.removed(&position.log)),
            }
            // The permission may have been revoked during the wait, and another reader may have acquired the cursor.
            call.check_log(name)?;
            if let Some(fence) = request.fence() {
                fence.check(&position.log.tables.get()).map_err(|refusal| refused(&position.log, refusal))?;
            }
        } else if batching.one_by_one {
            return Err(ApiError::OffsetPastEnd(bounds(&position.log, &visible), position.offset));
        } else {
            return Ok((ConsumeReply::many(Vec::new(), state(request, &position, visible)), None));
        }
    }
}

/// Returns the visible range, which includes everything acknowledged before the request. `None` if the wanted record
/// became visible first.
async fn confirm(
    service: &Service,
    core: &Core,
    position: &ReadPosition,
    deadline: Option<Instant>,
) -> Result<Option<Visible>, ApiError> {
    let log = &position.log;
    let confirmed = core.catch_up(log.group, &log.watermark, &service.timers, deadline);
    let arrived = log.watermark.wait(Until::Visible(position.offset), &service.timers);
    match select(arrived, Box::pin(confirmed)).await {
        // This node's replica has stopped: the error of the read index contains the reason.
        Either::Left((Err(_), confirmed)) => confirmed.await.map(Some),
        Either::Left((Ok(_), _)) => Ok(None),
        Either::Right((visible, _)) => visible.map(Some),
    }
}

fn state(request: &ReadRequest, position: &ReadPosition, visible: Visible) -> ReadState {
    ReadState { package: request.package, visible, log_id: position.log.log_id, resume: position.offset }
}

fn reply_of(batching: Batching, mut slice: Slice, state: ReadState) -> ConsumeReply {
    if batching.one_by_one {
        retag(&mut slice.bytes);
        return ConsumeReply::one(slice.bytes);
    }
    ConsumeReply::many(slice.bytes, state)
}

/// Returns the end of a wait: after `wait_ms`, but early enough for a response before the deadline.
fn wait_until(wait_ms: u32, deadline: Option<Instant>) -> Option<Instant> {
    if wait_ms == 0 {
        return None;
    }
    let now = Instant::now();
    let end = now + Duration::from_millis(wait_ms.into()).min(WAIT_MAX);
    Some(deadline.map_or(end, |deadline| {
        let left = deadline.saturating_duration_since(now);
        end.min(now + left.saturating_sub(HEAD_START.min(left / 2)))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_before_the_deadline_and_after_a_minute_at_the_latest() {
        let now = Instant::now();
        assert_eq!(wait_until(0, None), None);
        let minute = wait_until(u32::MAX, None).expect("a wait") - now;
        assert!(minute >= WAIT_MAX && minute < WAIT_MAX + Duration::from_secs(1));
        let short = wait_until(u32::MAX, Some(now + Duration::from_secs(1))).expect("a wait") - now;
        assert!(short > Duration::from_millis(900) && short <= Duration::from_millis(960), "{short:?}");
        assert!(wait_until(10, Some(now)).expect("a wait") <= Instant::now());
    }
}
