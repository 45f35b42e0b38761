//! What every handler starts from: who calls, until when, what the node can do now, and the ways to end a call.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::{Either, select};
use futures::{Sink, SinkExt};
use grpcio::{RpcContext, ServerStreamingSink, UnarySink};

use super::authorize::{Access, Caller};
use super::core::{Core, Me};
use super::deadline;
use super::errors::ApiError;
use super::in_flight::InFlight;
use super::limits::{LimitReached, Limits, Permit};
use super::methods::Request;
use super::refusals::count;
use super::state::{Phase, State};
use super::timers::TimersHandle;
use crate::grpc::spawn_guarded;
use crate::metrics::Metrics;
use crate::security::identity::Principal;
use crate::thread::FatalSender;
use crate::types::Offset;
use crate::watermark::{Until, Watermark};

/// Shared by all handlers; a clone is the same.
#[derive(Clone)]
pub struct Service {
    /// This node.
    pub me: Me,
    /// Callers and rights.
    pub access: Access,
    /// What each principal, and all, may hold.
    pub limits: Limits,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Serving or not.
    pub state: State,
    /// Time.
    pub timers: TimersHandle,
    /// Calls not ended yet.
    pub in_flight: InFlight,
    /// The rest of the node, once it is a member.
    pub late: Arc<OnceLock<Core>>,
    /// Where a panic goes.
    pub fatal: FatalSender,
}

/// A call as it came.
pub struct Call {
    caller: Result<Caller, ApiError>,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
}

/// How a streaming call ends before its sink is closed.
#[derive(Debug)]
pub enum End {
    /// With this status.
    Error(ApiError),
    /// The client is not there any more.
    Gone,
}

impl<E: Into<ApiError>> From<E> for End {
    fn from(error: E) -> End {
        End::Error(error.into())
    }
}

impl Call {
    /// Who calls.
    ///
    /// # Errors
    /// [`ApiError::NoIdentity`].
    pub fn caller(&self) -> Result<&Caller, ApiError> {
        self.caller.as_ref().map_err(Clone::clone)
    }
}

impl Service {
    /// Takes what a handler needs out of the call's context.
    pub fn call(&self, ctx: &RpcContext<'_>) -> Call {
        Call { caller: self.access.caller(ctx), deadline: deadline::of(ctx) }
    }

    /// Takes a request's bytes from its caller's limit. All who have no usable name share one.
    ///
    /// # Errors
    /// [`LimitReached`].
    pub fn permit(&self, call: &Call, request: &Request) -> Result<Permit, LimitReached> {
        let nobody = Principal::anonymous();
        self.limits.call(call.caller.as_ref().map_or(&nobody, Caller::principal), request.0.len())
    }

    /// The rest of the node.
    ///
    /// # Errors
    /// JOINING before there is one, STOPPING at the end.
    pub fn core(&self) -> Result<&Core, ApiError> {
        match self.state.now().phase {
            Phase::Stopping => Err(ApiError::Stopping),
            Phase::Joining | Phase::Serving | Phase::Leaving => self.late.get().ok_or(ApiError::Joining),
        }
    }

    /// Waits until a record is visible, until the time is over, or until the node stops. Look again which it was.
    ///
    /// # Errors
    /// STOPPING, or the log has stopped here.
    pub async fn visible(&self, watermark: &Watermark, offset: Offset, until: Instant) -> Result<(), ApiError> {
        let over = select(self.timers.at(until), self.stopping());
        match select(watermark.wait(Until::Visible(offset)), over).await {
            Either::Left((Ok(_), _)) | Either::Right((Either::Left(_), _)) => Ok(()),
            Either::Left((Err(_), _)) => Err(ApiError::ReplicaDamaged),
            Either::Right((Either::Right(_), _)) => Err(ApiError::Stopping),
        }
    }

    /// Resolves when the node stops.
    fn stopping(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let state = self.state.clone();
        Box::pin(async move {
            let mut seen = state.now();
            while seen.phase != Phase::Stopping {
                seen = state.changed(seen).await;
            }
        })
    }

    /// Runs a call that has one answer, within its principal's limits.
    pub fn answer<T: Send + 'static>(
        &self,
        ctx: &RpcContext<'_>,
        sink: UnarySink<T>,
        permit: Result<Permit, LimitReached>,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) {
        self.answer_holding(ctx, sink, permit, async move { work.await.map(|answer| (answer, None)) });
    }

    /// The same for an answer that holds bytes of its own until it is sent.
    pub fn answer_holding<T: Send + 'static>(
        &self,
        ctx: &RpcContext<'_>,
        sink: UnarySink<T>,
        permit: Result<Permit, LimitReached>,
        work: impl Future<Output = Result<(T, Option<Permit>), ApiError>> + Send + 'static,
    ) {
        let in_flight = self.in_flight.enter();
        let metrics = Arc::clone(&self.metrics);
        spawn_guarded(ctx, &self.fatal, async move {
            let result = match &permit {
                Ok(_) => work.await,
                Err(limit) => Err((*limit).into()),
            };
            // A failed send means that the client is gone, which is its own affair.
            let _ = match result {
                Ok((answer, _holds)) => sink.success(answer).await,
                Err(error) => {
                    count(&metrics, &error);
                    sink.fail(error.status()).await
                }
            };
            drop((permit, in_flight));
        });
    }
}

/// Ends a stream of answers with its status.
pub async fn end_stream<T>(metrics: &Metrics, mut sink: ServerStreamingSink<T>, result: Result<(), End>) {
    if let Err(End::Error(error)) = &result {
        count(metrics, error);
    }
    // A failed send means that the client is gone, which is its own affair.
    let _ = match result {
        Ok(()) => sink.close().await,
        Err(End::Error(error)) => sink.fail(error.status()).await,
        Err(End::Gone) => Ok(()),
    };
}

/// Ready when the client has gone away, for a stream that has nothing to send.
pub fn gone<T>(sink: &mut ServerStreamingSink<T>, cx: &mut Context<'_>) -> Poll<()> {
    match Pin::new(sink).poll_flush(cx) {
        Poll::Ready(Err(_)) => Poll::Ready(()),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}
