//! `grpc.health.v1.Health`: does this node take calls?

use std::pin::pin;
use std::time::{Duration, Instant};

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

/// The service whose health depends on a majority.
const LOG: &str = "log.v1.Log";
/// What can be asked after; the empty name is the process, for liveness.
const SERVICES: [&str; 3] = ["", LOG, "seriatim.v1.Admin"];
/// How often a watch of the log's health looks.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Serves one `Check`.
///
/// # Errors
/// NOT_FOUND for a service that is not here.
pub async fn check(service: Service, request: Request) -> Result<HealthCheckResponse, ApiError> {
    let request: HealthCheckRequest = decode(&request)?;
    if !SERVICES.contains(&request.service.as_str()) {
        return Err(ApiError::NoSuchService);
    }
    Ok(response(status(&service, &request.service, service.state.now().phase).await))
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
        call.check_certificate()?;
        let status = match known {
            true => status(service, &request.service, seen.phase).await,
            false => ServingStatus::SERVICE_UNKNOWN,
        };
        if told != Some(status) {
            sink.send((response(status), WriteFlags::default())).await.map_err(|_| End::Gone)?;
            told = Some(status);
        }
        if seen.phase == Phase::Stopping {
            return Err(End::Error(ApiError::Stopping));
        }
        let mut gone = pin!(poll_fn(|cx| gone(sink, cx)));
        let mut next = call.next_look();
        if request.service == LOG {
            next = next.min(Instant::now() + WATCH_EVERY);
        }
        let mut look_again = pin!(service.timers.at(next));
        let changed = select(service.state.changed(seen), &mut look_again);
        seen = match select(changed, &mut gone).await {
            Either::Left((Either::Left((seen, _)), _)) => seen,
            Either::Left((Either::Right(_), _)) => service.state.now(),
            Either::Right(_) => return Err(End::Gone),
        };
    }
}

async fn status(service: &Service, name: &str, phase: Phase) -> ServingStatus {
    let status = serving(phase);
    match service.core() {
        Ok(core) if name == LOG && status == ServingStatus::SERVING => {
            match service.availability.serves(core, &service.timers).await {
                true => status,
                false => ServingStatus::NOT_SERVING,
            }
        }
        Ok(_) | Err(_) => status,
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
