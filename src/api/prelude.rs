//! What runs around every handler, for every RPC the same:
//!
//! 1. before the message is received: the certificate, and the RPC's right to some log ([`AccessChecker`])
//! 2. identity, deadline and the account of the connection ([`Call::new`])
//! 3. until the message is complete: one of the principal's unanswered requests, and a time limit
//! 4. the certificate again, as the message may have taken a minute
//! 5. from here on the request counts as in flight: a drain waits for it
//! 6. the size of the message, the right to every log where the RPC needs it, and the budget: the request's bytes, or an open
//!    stream
//! 7. the handler, which checks the right to the log that the message names ([`Call::log_name`])
//! 8. a failure is counted; if a large request fails whenever it is sent, its status is sent late
//!
//! Every method is a stream of requests to gRPC's binding, also where its client sends a single one: the bytes on the
//! wire are the same. A method of one request takes one of 1,024 slots until its message has arrived, so a client that sends a byte
//! a second could block the service for all (`tests/e2e/hostile.rs`); and the message is received before its sender's right
//! is checked.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, Either, select};
use futures::{FutureExt as _, SinkExt, StreamExt};
use grpcio::{
    CheckResult, ClientStreamingSink, DuplexSink, RequestStream, RpcContext, RpcStatus, RpcStatusCode, ServerChecker,
};

use super::access::{AccessControl, Right};
use super::error::{ApiError, Invalid};
use super::limits::Permit;
use super::messages::Request;
use super::metrics::RequestMetrics;
use super::service::{Call, RequestFailure, Service, StreamEnd};
use super::status::{FailedAt, Retry, classify, status_of, stream_status_of};
use crate::grpc::{guarded, spawn_guarded};
use crate::security::acl::Action;
use crate::security::identity::Principal;
use crate::thread::FatalSender;

/// The message of a request must be complete after this time.
const REQUEST_MAX: Duration = Duration::from_secs(60);

/// How often a request that waits for a record checks that its client is still there.
const CLIENT_CHECK: Duration = Duration::from_secs(1);

/// The prelude of one RPC.
#[derive(Clone)]
pub struct Prelude {
    /// The parts that the handler works with.
    pub service: Service,
    /// What the RPC requires.
    pub right: Right,
    /// The largest message that the RPC allows.
    pub request_bytes_max: usize,
}

/// What a handler of one request and many responses gets.
pub struct ServerStream<'a, T> {
    /// The node's shared parts.
    pub service: &'a Service,
    /// The request's identity and deadline.
    pub call: &'a Call,
    /// The message, not decoded yet.
    pub request: &'a Request,
    /// Responses are sent here, in their order.
    pub sink: &'a mut DuplexSink<T>,
}

/// What a handler of many requests and many responses gets.
pub struct DuplexStream<'a, T> {
    /// The node's shared parts.
    pub service: &'a Service,
    /// The stream's identity and deadline.
    pub call: &'a Call,
    /// The requests. The handler counts each of them for the connection ([`Call::account`]).
    pub requests: &'a mut RequestStream<Request>,
    /// Responses are sent here, in their order.
    pub sink: &'a mut DuplexSink<T>,
}

impl Prelude {
    /// Reads the one message of a request. Until it is complete, it is one of the principal's unanswered requests.
    async fn receive(
        &self,
        call: &Call,
        requests: &mut RequestStream<Request>,
    ) -> Result<(Request, Permit), StreamEnd> {
        let service = &self.service;
        let permit = service.limits.call(&call.principal(), 0)?;
        let request = match select(requests.next(), service.timers.at(Instant::now() + REQUEST_MAX)).await {
            Either::Left((Some(Ok(request)), _)) => request,
            Either::Left((Some(Err(_)), _)) => return Err(StreamEnd::Gone),
            Either::Left((None, _)) => return Err(Invalid::Malformed.into()),
            Either::Right(_) => return Err(ApiError::DeadlinePassed.into()),
        };
        call.account.add(request.0.len());
        call.check_certificate()?;
        Ok((request, permit))
    }

    /// Checks what does not depend on the contents of the message.
    fn admit(&self, call: &Call, request: &Request) -> Result<(), ApiError> {
        if request.0.len() > self.request_bytes_max {
            return Err(Invalid::MessageTooLarge { bytes_max: self.request_bytes_max }.into());
        }
        call.check_every_log()
    }

    /// Counts a failure, and delays it if it is one of many large requests that fail whenever they are sent.
    async fn refuse(&self, principal: &Principal, deadline: Option<Instant>, failure: &RequestFailure) {
        let service = &self.service;
        service.metrics.failed(&failure.error);
        if classify(&failure.error).retry != Retry::Useless {
            return;
        }
        let (now, bytes) = (Instant::now(), failure.request_bytes);
        if let Some(due) = service.limits.refusal_due(principal, bytes, now, deadline) {
            select(service.timers.at(due), service.stopping()).await;
        }
    }

    /// Runs a request that has one response.
    pub fn unary<T: Send + 'static, F>(
        &self,
        ctx: &RpcContext<'_>,
        requests: RequestStream<Request>,
        sink: ClientStreamingSink<T>,
        handle: fn(Service, Call, Request) -> F,
    ) where
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        let handle = move |service, call, request| {
            let response = handle(service, call, request);
            async move { response.await.map(|response| (response, None)) }
        };
        self.run(ctx, requests, sink, false, handle);
    }

    /// The same for a request that may wait long, and whose response holds bytes of its own until it is sent. When its client
    /// disconnects the request ends and releases what it holds.
    pub fn long_poll<T: Send + 'static, F>(
        &self,
        ctx: &RpcContext<'_>,
        requests: RequestStream<Request>,
        sink: ClientStreamingSink<T>,
        handle: fn(Service, Call, Request) -> F,
    ) where
        F: Future<Output = Result<(T, Option<Permit>), ApiError>> + Send + 'static,
    {
        self.run(ctx, requests, sink, true, handle);
    }

    fn run<T: Send + 'static, F>(
        &self,
        ctx: &RpcContext<'_>,
        mut requests: RequestStream<Request>,
        sink: ClientStreamingSink<T>,
        waits: bool,
        handle: impl FnOnce(Service, Call, Request) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(T, Option<Permit>), ApiError>> + Send + 'static,
    {
        let call = Call::new(&self.service, ctx, self.right);
        let prelude = self.clone();
        spawn_guarded(ctx, &self.service.fatal, async move {
            let service = &prelude.service;
            let received = prelude.receive(&call, &mut requests).await;
            let in_flight = service.in_flight.enter();
            let (principal, deadline) = (call.principal(), call.deadline);
            let (result, permit) = match received {
                Ok((request, permit)) => {
                    let request_bytes = request.0.len();
                    let work = pin!(prelude.work(call, request, handle));
                    let result = if waits {
                        // In this order: most requests are answered at once, and need no check.
                        match select(work, pin!(cancelled(service, &mut requests))).await {
                            Either::Left((result, _)) => result,
                            Either::Right(((), _)) => return,
                        }
                    } else {
                        work.await
                    };
                    (result.map_err(|error| RequestFailure { error, request_bytes, at: None }), Some(permit))
                }
                Err(StreamEnd::Failed(failure)) => (Err(failure), None),
                Err(StreamEnd::Gone) => return,
            };
            if let Err(failure) = &result {
                prelude.refuse(&principal, deadline, failure).await;
            }
            drop(permit);
            // A client of a unary method sends the end with the message. If it is not read, dropping the stream below cancels
            // the request.
            let _ = requests.next().now_or_never();
            // A failed send means that the client is gone.
            let _ = match result {
                Ok((response, _holds)) => sink.success(response).await,
                Err(failure) => sink.fail(status_of(&failure.error)).await,
            };
            // Dropped before the status is sent, it would cancel the request.
            drop(requests);
            drop(in_flight);
        });
    }

    async fn work<T, F>(
        &self,
        call: Call,
        request: Request,
        handle: impl FnOnce(Service, Call, Request) -> F,
    ) -> Result<(T, Option<Permit>), ApiError>
    where
        F: Future<Output = Result<(T, Option<Permit>), ApiError>>,
    {
        let _bytes = self.service.limits.bytes(&call.principal(), request.0.len())?;
        self.admit(&call, &request)?;
        handle(self.service.clone(), call, request).await
    }

    /// Runs a request that has a stream of responses.
    pub fn server_stream<T: Send + 'static>(
        &self,
        ctx: &RpcContext<'_>,
        mut requests: RequestStream<Request>,
        mut sink: DuplexSink<T>,
        handle: for<'a> fn(ServerStream<'a, T>) -> BoxFuture<'a, Result<(), StreamEnd>>,
    ) {
        let call = Call::new(&self.service, ctx, self.right);
        let prelude = self.clone();
        spawn_guarded(ctx, &self.service.fatal, async move {
            let service = &prelude.service;
            let received = prelude.receive(&call, &mut requests).await;
            let in_flight = service.in_flight.enter();
            let mut open_stream = None;
            let result = match received {
                Ok((request, unanswered)) => {
                    drop(unanswered);
                    let work = async {
                        prelude.admit(&call, &request)?;
                        open_stream = Some(service.limits.stream(&call.principal())?);
                        handle(ServerStream { service, call: &call, request: &request, sink: &mut sink }).await
                    };
                    work.await.map_err(|end| match end {
                        StreamEnd::Failed(failure) => {
                            StreamEnd::Failed(RequestFailure { request_bytes: request.0.len(), ..failure })
                        }
                        StreamEnd::Gone => StreamEnd::Gone,
                    })
                }
                Err(end) => Err(end),
            };
            prelude.end_stream(&call, sink, result).await;
            // Dropped before the status is sent, it would cancel the request.
            drop(requests);
            drop((in_flight, open_stream));
        });
    }

    /// Runs a stream of requests and of responses.
    pub fn duplex<T: Send + 'static>(
        &self,
        ctx: &RpcContext<'_>,
        mut requests: RequestStream<Request>,
        mut sink: DuplexSink<T>,
        handle: for<'a> fn(DuplexStream<'a, T>) -> BoxFuture<'a, Result<(), StreamEnd>>,
    ) {
        let call = Call::new(&self.service, ctx, self.right);
        let in_flight = self.service.in_flight.enter();
        let prelude = self.clone();
        spawn_guarded(ctx, &self.service.fatal, async move {
            let service = &prelude.service;
            let mut open_stream = None;
            let work = async {
                open_stream = Some(service.limits.stream(&call.principal())?);
                handle(DuplexStream { service, call: &call, requests: &mut requests, sink: &mut sink }).await
            };
            let result = work.await.map_err(|end| match end {
                StreamEnd::Failed(RequestFailure { error, request_bytes, at }) => {
                    let first = FailedAt { failed_request: 0, unknown_through: None };
                    StreamEnd::Failed(RequestFailure { error, request_bytes, at: at.or(Some(first)) })
                }
                StreamEnd::Gone => StreamEnd::Gone,
            });
            prelude.end_stream(&call, sink, result).await;
            // Dropped before the status is sent, it would cancel the stream.
            drop(requests);
            drop((in_flight, open_stream));
        });
    }

    async fn end_stream<T>(&self, call: &Call, mut sink: DuplexSink<T>, result: Result<(), StreamEnd>) {
        // A failed send means that the client is gone.
        let _ = match result {
            Ok(()) => sink.close().await,
            Err(StreamEnd::Failed(failure)) => {
                self.refuse(&call.principal(), call.deadline, &failure).await;
                let status = match failure.at {
                    Some(at) => stream_status_of(&failure.error, at),
                    None => status_of(&failure.error),
                };
                sink.fail(status).await
            }
            Err(StreamEnd::Gone) => Ok(()),
        };
    }
}

/// Resolves soon after the client cancelled the request, or its connection broke. gRPC's binding wakes nothing for that in a
/// request with one response, but returns it when the next message is read.
async fn cancelled(service: &Service, requests: &mut RequestStream<Request>) {
    loop {
        service.timers.at(Instant::now() + CLIENT_CHECK).await;
        // A second message, which such a request must not have, is dropped: one with each check.
        if let Some(Some(Err(_))) = requests.next().now_or_never() {
            return;
        }
    }
}

/// Rejects a request before its message is received.
#[derive(Clone)]
pub struct AccessChecker {
    access: AccessControl,
    /// By full method name.
    rights: Arc<HashMap<&'static str, Right>>,
    metrics: RequestMetrics,
    fatal: FatalSender,
}

impl AccessChecker {
    /// Rejects requests without the right of their method.
    pub fn new(service: &Service, rights: HashMap<&'static str, Right>) -> AccessChecker {
        AccessChecker {
            access: service.access.clone(),
            rights: Arc::new(rights),
            metrics: service.metrics.clone(),
            fatal: service.fatal.clone(),
        }
    }

    fn right(&self, method: &[u8]) -> Right {
        let known = std::str::from_utf8(method).ok().and_then(|method| self.rights.get(method));
        // gRPC rejects an unknown method after this.
        known.copied().unwrap_or(Right::EveryLog(Action::Admin))
    }
}

impl ServerChecker for AccessChecker {
    fn check(&mut self, ctx: &RpcContext<'_>) -> CheckResult {
        let right = self.right(ctx.method());
        match guarded(&self.fatal, || self.access.check_before_message(ctx, right)) {
            Some(Ok(())) => CheckResult::Continue,
            // gRPC's binding sends the status without its details.
            Some(Err(error)) => {
                self.metrics.failed(&error);
                CheckResult::Abort(status_of(&error))
            }
            None => CheckResult::Abort(RpcStatus::new(RpcStatusCode::INTERNAL)),
        }
    }

    fn box_clone(&self) -> Box<dyn ServerChecker> {
        Box::new(self.clone())
    }
}
