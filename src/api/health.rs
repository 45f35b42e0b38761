//! `grpc.health.v1.Health`: returns whether this node serves requests.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, Either, poll_fn, select};
use futures::{FutureExt as _, SinkExt};
use grpcio::WriteFlags;

use super::error::ApiError;
use super::lifecycle::Phase;
use super::messages::{Request, decode_known};
use super::prelude::ServerStream;
use super::service::{Call, Service, StreamEnd, poll_gone};
use crate::pb::health::health_check_response::ServingStatus;
use crate::pb::health::{HealthCheckRequest, HealthCheckResponse};

/// The services whose health depends on a majority.
const LOGS: [&str; 2] = ["seriatim.v1.LogService", "log.v1.Log"];
/// The interval in which a watch checks the health of the logs.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Serves `Check`.
///
/// # Errors
/// NOT_FOUND for a service that this node does not have.
pub async fn check(service: Service, _call: Call, request: Request) -> Result<HealthCheckResponse, ApiError> {
    let request: HealthCheckRequest = decode_known(&request)?;
    if !service.services.contains(&request.service.as_str()) {
        return Err(ApiError::NoSuchService);
    }
    Ok(response(status(&service, &request.service, service.lifecycle.now().phase).await))
}

/// Serves `Watch`.
pub fn watch(stream: ServerStream<'_, HealthCheckResponse>) -> BoxFuture<'_, Result<(), StreamEnd>> {
    serve(stream).boxed()
}

async fn serve(stream: ServerStream<'_, HealthCheckResponse>) -> Result<(), StreamEnd> {
    let ServerStream { service, call, request, sink } = stream;
    let request: HealthCheckRequest = decode_known(request)?;
    let known = service.services.contains(&request.service.as_str());
    let mut seen = service.lifecycle.now();
    let mut sent = None;
    loop {
        call.check_certificate()?;
        let status = match known {
            true => status(service, &request.service, seen.phase).await,
            false => ServingStatus::SERVICE_UNKNOWN,
        };
        if sent != Some(status) {
            sink.send((response(status), WriteFlags::default())).await.map_err(|_| StreamEnd::Gone)?;
            sent = Some(status);
        }
        if seen.phase == Phase::Stopping {
            return Err(ApiError::Stopping.into());
        }
        let mut gone = pin!(poll_fn(|cx| poll_gone(sink, cx)));
        let mut next = call.next_check();
        if LOGS.contains(&request.service.as_str()) {
            next = next.min(Instant::now() + WATCH_EVERY);
        }
        let mut check_again = pin!(service.timers.at(next));
        let changed = select(service.lifecycle.changed(seen), &mut check_again);
        seen = match select(changed, &mut gone).await {
            Either::Left((Either::Left((seen, _)), _)) => seen,
            Either::Left((Either::Right(_), _)) => service.lifecycle.now(),
            Either::Right(_) => return Err(StreamEnd::Gone),
        };
    }
}

async fn status(service: &Service, name: &str, phase: Phase) -> ServingStatus {
    let status = serving(phase);
    match service.core() {
        Ok(core) if LOGS.contains(&name) && status == ServingStatus::SERVING => {
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
