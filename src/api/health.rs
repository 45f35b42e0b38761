//! `grpc.health.v1.Health`: does this node take calls?

use std::pin::pin;

use futures::SinkExt;
use futures::future::{Either, poll_fn, select};
use grpcio::{DuplexSink, RequestStream, RpcContext, WriteFlags};

use super::errors::ApiError;
use super::methods::{Request, decode};
use super::service::{Call, End, Service, gone};
use super::state::Phase;
use crate::grpc::spawn_guarded;
use crate::pb::health::health_check_response::ServingStatus;
use crate::pb::health::{HealthCheckRequest, HealthCheckResponse};
use crate::security::identity::Principal;

/// What can be asked after; the empty name is the whole node.
const SERVICES: [&str; 3] = ["", "log.v1.Log", "seriatim.v1.Admin"];

/// Serves one `Check`.
///
/// # Errors
/// NOT_FOUND for a service that is not here.
pub async fn check(service: Service, request: Request) -> Result<HealthCheckResponse, ApiError> {
    let request: HealthCheckRequest = decode(&request)?;
    if !SERVICES.contains(&request.service.as_str()) {
        return Err(ApiError::NoSuchService);
    }
    Ok(response(serving(service.state.now().phase)))
}

/// Serves one `Watch`.
pub fn watch(
    service: Service,
    ctx: &RpcContext<'_>,
    call: Call,
    mut requests: RequestStream<Request>,
    mut sink: DuplexSink<HealthCheckResponse>,
) {
    let fatal = service.fatal.clone();
    spawn_guarded(ctx, &fatal, async move {
        let received = service.receive(&call, &mut requests).await;
        let in_flight = service.in_flight.enter();
        let (result, bytes) = match received {
            Ok((request, as_a_call)) => {
                drop(as_a_call);
                (tell(&service, &call, &request, &mut sink).await, request.0.len())
            }
            Err(end) => (Err(end), 0),
        };
        service.end_stream(&call, bytes, sink, result).await;
        // Dropped before the status is out, it would cancel the call.
        drop(requests);
        drop(in_flight);
    });
}

async fn tell(
    service: &Service,
    call: &Call,
    request: &Request,
    sink: &mut DuplexSink<HealthCheckResponse>,
) -> Result<(), End> {
    let request: HealthCheckRequest = decode(request)?;
    // Who has no usable name may still ask, and all such share one limit.
    let nobody = Principal::anonymous();
    let _stream = service.limits.stream(call.caller().map_or(&nobody, |caller| caller.principal()))?;
    let known = SERVICES.contains(&request.service.as_str());
    let mut seen = service.state.now();
    let mut told = None;
    loop {
        let status = if known { serving(seen.phase) } else { ServingStatus::SERVICE_UNKNOWN };
        if told != Some(status) {
            sink.send((response(status), WriteFlags::default())).await.map_err(|_| End::Gone)?;
            told = Some(status);
        }
        if seen.phase == Phase::Stopping {
            return Err(End::Error(ApiError::Stopping));
        }
        let mut gone = pin!(poll_fn(|cx| gone(sink, cx)));
        seen = match select(service.state.changed(seen), &mut gone).await {
            Either::Left((seen, _)) => seen,
            Either::Right(_) => return Err(End::Gone),
        };
    }
}

fn serving(phase: Phase) -> ServingStatus {
    match phase {
        Phase::Serving => ServingStatus::SERVING,
        Phase::Joining | Phase::Leaving | Phase::Stopping => ServingStatus::NOT_SERVING,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    let mut response = HealthCheckResponse::new();
    response.status = status.into();
    response
}
