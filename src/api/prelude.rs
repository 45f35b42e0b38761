//! The steps before and after the handler, the same for every RPC:
//!
//! 1. Before the message is received, the certificate is checked, and the permission on at least one log ([`AccessChecker`]).
//! 2. Identity, deadline and the account of the connection are determined ([`Call::new`]).
//! 3. Until the message is complete, the request counts as one of the principal's unanswered requests. There is a time limit.
//! 4. The certificate is checked again, because receiving the message may have taken a minute.
//! 5. From now on the request counts as in flight: a drain waits for it.
//! 6. The size of the message is checked, the permission on every log if the RPC requires it, and the budget: the bytes of the
//!    request, or an open stream.
//! 7. The handler runs. It checks the permission on the log that the message names ([`Call::log_name`]).
//! 8. A failure is counted. The status of a large request that fails whenever it is sent is sent late.
//!
//! Every method is registered with gRPC's binding as a stream of requests, even if clients send only one; the bytes on the wire are
//! the same. A method that is registered with one request would occupy one of 1,024 slots until its message has arrived, so that
//! a client that sends a byte per second could block the service (`tests/e2e/hostile.rs`). Its message would also be received
//! before the permission of its sender is checked.

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
use super::in_flight::Entered;
use super::limits::Permit;
use super::messages::Request;
use super::metrics::RequestMetrics;
use super::package::Package;
use super::service::{Call, RequestFailure, Service, StreamEnd};
use super::status::{FailedAt, StatusContext, classify, status_of};
use crate::grpc::{guarded, spawn_guarded};
use crate::security::acl::Action;
use crate::security::identity::Principal;
use crate::thread::FatalSender;

/// The time limit for receiving the message of a request.
const REQUEST_MAX: Duration = Duration::from_secs(60);

/// The interval in which a request that waits for a record checks whether its client is gone.
const CLIENT_CHECK: Duration = Duration::from_secs(1);

/// The prelude of one RPC.
#[derive(Clone)]
pub struct Prelude {
    /// The parts that the handler works with.
    pub service: Service,
    /// The package of the method.
    pub package: Package,
    /// The permission that the RPC requires.
    pub right: Right,
    /// The maximum size of a message.
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

    /// Performs the checks that do not depend on the contents of the message.
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
        if !classify(&failure.error).always_fails() {
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
        let call = Call::new(&self.service, ctx, self.right, self.package);
        let prelude = self.clone();
        spawn_guarded(ctx, &self.service.fatal, async move {
            let service = &prelude.service;
            let received = prelude.receive(&call, &mut requests).await;
            let in_flight = service.in_flight.enter();
            let (principal, deadline, context) = (call.principal(), call.deadline, call.context());
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
                Err(failure) => sink.fail(status_of(&failure.error, &context.of_status(service, failure.at))).await,
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
        requests: RequestStream<Request>,
        sink: DuplexSink<T>,
        handle: for<'a> fn(ServerStream<'a, T>) -> BoxFuture<'a, Result<(), StreamEnd>>,
    ) {
        let mut open = OpenStream::new(self, ctx, requests, sink);
        spawn_guarded(ctx, &self.service.fatal, async move {
            let result = open.answer_one(handle).await;
            // Boxed, because an open stream would keep room for a second and a third `OpenStream`.
            Box::pin(open.end(result)).await;
        });
    }

    /// Runs a stream of requests and of responses.
    pub fn duplex<T: Send + 'static>(
        &self,
        ctx: &RpcContext<'_>,
        requests: RequestStream<Request>,
        sink: DuplexSink<T>,
        handle: for<'a> fn(DuplexStream<'a, T>) -> BoxFuture<'a, Result<(), StreamEnd>>,
    ) {
        let mut open = OpenStream::new(self, ctx, requests, sink);
        open.in_flight = Some(self.service.in_flight.enter());
        spawn_guarded(ctx, &self.service.fatal, async move {
            let result = open.answer_each(handle).await;
            // Boxed, because an open stream would keep room for a second and a third `OpenStream`.
            Box::pin(open.end(result)).await;
        });
    }
}

/// A stream from its first message to its status.
struct OpenStream<T> {
    prelude: Prelude,
    call: Call,
    requests: RequestStream<Request>,
    sink: DuplexSink<T>,
    /// A drain waits for the stream.
    in_flight: Option<Entered>,
    /// It is one of its principal's open streams.
    permit: Option<Permit>,
}

impl<T> OpenStream<T> {
    fn new(
        prelude: &Prelude,
        ctx: &RpcContext<'_>,
        requests: RequestStream<Request>,
        sink: DuplexSink<T>,
    ) -> OpenStream<T> {
        let call = Call::new(&prelude.service, ctx, prelude.right, prelude.package);
        OpenStream { prelude: prelude.clone(), call, requests, sink, in_flight: None, permit: None }
    }

    /// Takes one of the principal's streams.
    fn take(&mut self) -> Result<(), ApiError> {
        self.permit = Some(self.prelude.service.limits.stream(&self.call.principal())?);
        Ok(())
    }

    /// The handler's stream begins when the one message is complete.
    async fn answer_one(
        &mut self,
        handle: for<'a> fn(ServerStream<'a, T>) -> BoxFuture<'a, Result<(), StreamEnd>>,
    ) -> Result<(), StreamEnd> {
        let received = self.prelude.receive(&self.call, &mut self.requests).await;
        self.in_flight = Some(self.prelude.service.in_flight.enter());
        let (request, unanswered) = received?;
        drop(unanswered);
        let work = async {
            self.prelude.admit(&self.call, &request)?;
            self.take()?;
            let OpenStream { prelude: Prelude { service, .. }, call, sink, .. } = self;
            handle(ServerStream { service, call, request: &request, sink }).await
        };
        let of_request = |failure| RequestFailure { request_bytes: request.0.len(), ..failure };
        work.await.map_err(|end| end.map(of_request))
    }

    /// The handler takes the messages from the beginning.
    async fn answer_each(
        &mut self,
        handle: for<'a> fn(DuplexStream<'a, T>) -> BoxFuture<'a, Result<(), StreamEnd>>,
    ) -> Result<(), StreamEnd> {
        let work = async {
            self.take()?;
            let OpenStream { prelude: Prelude { service, .. }, call, requests, sink, .. } = self;
            handle(DuplexStream { service, call, requests, sink }).await
        };
        let first = FailedAt { failed_request: 0, unknown_through: None };
        let at_first = |failure: RequestFailure| RequestFailure { at: failure.at.or(Some(first)), ..failure };
        work.await.map_err(|end| end.map(at_first))
    }

    /// Sends the status.
    async fn end(self, result: Result<(), StreamEnd>) {
        let OpenStream { prelude, call, requests, mut sink, in_flight, permit } = self;
        // A failed send means that the client is gone.
        let _ = match result {
            Ok(()) => sink.close().await,
            Err(StreamEnd::Failed(failure)) => {
                prelude.refuse(&call.principal(), call.deadline, &failure).await;
                let context = call.context().of_status(&prelude.service, failure.at);
                sink.fail(status_of(&failure.error, &context)).await
            }
            Err(StreamEnd::Gone) => Ok(()),
        };
        // Dropped before the status is sent, it would cancel the stream.
        drop(requests);
        drop((in_flight, permit));
    }
}

/// Resolves soon after the client has cancelled the request, or its connection has broken. For a request with one response,
/// gRPC's binding wakes no future then, but a read of the next message fails.
async fn cancelled(service: &Service, requests: &mut RequestStream<Request>) {
    loop {
        service.timers.at(Instant::now() + CLIENT_CHECK).await;
        // Such a request must not have a second message. If it has more, each check drops one.
        if let Some(Some(Err(_))) = requests.next().now_or_never() {
            return;
        }
    }
}

/// Rejects a request before its message is received.
#[derive(Clone)]
pub struct AccessChecker {
    access: AccessControl,
    /// The permission for each full method name.
    rights: Arc<HashMap<&'static str, Right>>,
    metrics: RequestMetrics,
    fatal: FatalSender,
}

impl AccessChecker {
    /// Creates the check, which rejects requests without the permission for their method.
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
        // gRPC itself rejects an unknown method after this check.
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
                let package = Package::SeriatimV1;
                CheckResult::Abort(status_of(&error, &StatusContext { package, leader: None, at: None }))
            }
            None => CheckResult::Abort(RpcStatus::new(RpcStatusCode::INTERNAL)),
        }
    }

    fn box_clone(&self) -> Box<dyn ServerChecker> {
        Box::new(self.clone())
    }
}
