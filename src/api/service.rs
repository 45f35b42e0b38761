//! What every handler starts from: who calls, until when, what the node can do now, and the ways to end a call.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use futures::future::{Either, select};
use futures::{FutureExt as _, Sink, SinkExt, StreamExt};
use grpcio::{ClientStreamingSink, DuplexSink, RequestStream, RpcContext};

use super::authorize::{Access, Caller, next_look};
use super::availability::Availability;
use super::core::{Core, Me};
use super::deadline;
use super::errors::{ApiError, Invalid};
use super::in_flight::InFlight;
use super::limits::{Limits, Permit};
use super::methods::Request;
use super::refusals::count;
use super::state::{Phase, State};
use super::tarpit::Tarpit;
use crate::grpc::received::Account;
use crate::grpc::{Received, spawn_guarded};
use crate::metrics::Metrics;
use crate::security::identity::{NoIdentity, Principal};
use crate::security::tls::Standing;
use crate::thread::FatalSender;
use crate::timers::TimersHandle;
use crate::types::Offset;
use crate::waiting::WaitingFor;
use crate::watermark::{Until, Watermark};

/// A call's message has to be whole by then.
const REQUEST_MAX: Duration = Duration::from_secs(60);

/// How often a call that waits for a record looks whether its client is still there.
const LOOK_FOR_CLIENT: Duration = Duration::from_secs(1);

/// Shared by all handlers; a clone is the same.
#[derive(Clone)]
pub struct Service {
    /// This node.
    pub me: Me,
    /// Callers and rights.
    pub access: Access,
    /// What each principal, and all, may hold.
    pub limits: Limits,
    /// When refusals of large requests are due.
    pub tarpit: Arc<Tarpit>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Why the node does not take calls yet.
    pub waiting: WaitingFor,
    /// How much of what connections send are messages.
    pub received: Received,
    /// Serving or not.
    pub state: State,
    /// Whether a majority answers.
    pub availability: Availability,
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
    standing: Result<Standing, NoIdentity>,
    caller: Result<Caller, ApiError>,
    /// Its connection's.
    pub account: Arc<Account>,
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

    /// Checks the certificate alone, whatever name it has.
    ///
    /// # Errors
    /// [`ApiError::NoIdentity`].
    pub fn check_certificate(&self) -> Result<(), ApiError> {
        Ok(self.standing.as_ref().map_err(Clone::clone)?.check(SystemTime::now())?)
    }

    /// When an open stream checks its certificate again.
    pub fn next_look(&self) -> Instant {
        next_look(self.standing.as_ref().ok().and_then(Standing::expires))
    }

    /// Whose limits it counts for: all who have no usable name share one's.
    pub fn principal(&self) -> Principal {
        self.caller.as_ref().map_or_else(|_| Principal::anonymous(), |caller| caller.principal().clone())
    }
}

impl Service {
    /// Takes what a handler needs out of the call's context.
    pub fn call(&self, ctx: &RpcContext<'_>) -> Call {
        let standing = self.access.standing(ctx);
        let caller = standing.clone().map_err(ApiError::from).and_then(|standing| self.access.caller(ctx, standing));
        Call { standing, caller, account: self.received.account(ctx), deadline: deadline::of(ctx) }
    }

    /// Reads the one message of a call. Until it is whole, the call is one of those that its caller may have unanswered.
    ///
    /// # Errors
    /// The limit, the certificate, no message, or one that is not whole after a minute; or the client is gone.
    pub async fn receive(&self, call: &Call, requests: &mut RequestStream<Request>) -> Result<(Request, Permit), End> {
        let permit = self.limits.call(&call.principal(), 0)?;
        let request = match select(requests.next(), self.timers.at(Instant::now() + REQUEST_MAX)).await {
            Either::Left((Some(Ok(request)), _)) => request,
            Either::Left((Some(Err(_)), _)) => return Err(End::Gone),
            Either::Left((None, _)) => return Err(Invalid::Malformed.into()),
            Either::Right(_) => return Err(ApiError::DeadlinePassed.into()),
        };
        call.account.add(request.0.len());
        // It may have taken a minute to come.
        call.check_certificate()?;
        Ok((request, permit))
    }

    /// The rest of the node.
    ///
    /// # Errors
    /// JOINING before there is one, STOPPING at the end.
    pub fn core(&self) -> Result<&Core, ApiError> {
        match self.state.now().phase {
            Phase::Stopping => Err(ApiError::Stopping),
            Phase::Joining | Phase::Serving | Phase::Leaving => {
                self.late.get().ok_or_else(|| ApiError::NotReady { waiting_for: self.waiting.get() })
            }
        }
    }

    /// Waits until a record is visible, until the time is over, or until the node stops. Look again which it was.
    ///
    /// # Errors
    /// STOPPING, or the log has stopped here.
    pub async fn visible(&self, watermark: &Watermark, offset: Offset, until: Instant) -> Result<(), ApiError> {
        let over = select(self.timers.at(until), self.stopping());
        match select(watermark.wait(Until::Visible(offset), &self.timers), over).await {
            Either::Left((Ok(_), _)) | Either::Right((Either::Left(_), _)) => Ok(()),
            Either::Left((Err(_), _)) => Err(ApiError::ReplicaDamaged),
            Either::Right((Either::Right(_), _)) => Err(ApiError::Stopping),
        }
    }

    /// Counts the refusal of a request of so many bytes, and holds it back.
    async fn refuse(&self, caller: &Principal, error: &ApiError, bytes: usize, deadline: Option<Instant>) {
        count(&self.metrics, error);
        self.hold_back(caller, error, bytes, deadline).await;
    }

    /// Waits until the refusal of a request of so many bytes is due, or the node stops.
    pub async fn hold_back(&self, caller: &Principal, error: &ApiError, bytes: usize, deadline: Option<Instant>) {
        if let Some(due) = self.tarpit.due(caller, error, bytes, Instant::now(), deadline) {
            select(self.timers.at(due), self.stopping()).await;
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

    /// Resolves soon after the client took the call back, or its connection broke. gRPC's binding wakes nobody for that in a
    /// call with one answer, but tells who asks for the next message.
    async fn taken_back(&self, requests: &mut RequestStream<Request>) {
        loop {
            self.timers.at(Instant::now() + LOOK_FOR_CLIENT).await;
            // A second message, which is none of such a call's, is thrown away: one with each look.
            if let Some(Some(Err(_))) = requests.next().now_or_never() {
                return;
            }
        }
    }

    /// Runs a call that has one answer, within its principal's limits.
    pub fn answer<T: Send + 'static, F>(
        &self,
        ctx: &RpcContext<'_>,
        requests: RequestStream<Request>,
        sink: ClientStreamingSink<T>,
        work: impl FnOnce(Service, Call, Request) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        let work = |service, call, request| {
            let answer = work(service, call, request);
            async move { answer.await.map(|answer| (answer, None)) }
        };
        self.run(ctx, requests, sink, false, work);
    }

    /// The same for a call that may wait long, and whose answer holds bytes of its own until it is sent. When its client goes
    /// away it ends, and holds nothing any more.
    pub fn answer_waiting<T: Send + 'static, F>(
        &self,
        ctx: &RpcContext<'_>,
        requests: RequestStream<Request>,
        sink: ClientStreamingSink<T>,
        work: impl FnOnce(Service, Call, Request) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(T, Option<Permit>), ApiError>> + Send + 'static,
    {
        self.run(ctx, requests, sink, true, work);
    }

    fn run<T: Send + 'static, F>(
        &self,
        ctx: &RpcContext<'_>,
        mut requests: RequestStream<Request>,
        sink: ClientStreamingSink<T>,
        waits: bool,
        work: impl FnOnce(Service, Call, Request) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(T, Option<Permit>), ApiError>> + Send + 'static,
    {
        let call = self.call(ctx);
        let service = self.clone();
        spawn_guarded(ctx, &self.fatal, async move {
            let received = service.receive(&call, &mut requests).await;
            // A call that is not here yet is not waited for by a drain.
            let in_flight = service.in_flight.enter();
            let (principal, deadline) = (call.principal(), call.deadline);
            let (result, bytes, permit) = match received {
                Ok((request, permit)) => {
                    let bytes = request.0.len();
                    let work = pin!(service.work(call, request, work));
                    let result = if waits {
                        // In this order: most have their answer at once, and need no look.
                        match select(work, pin!(service.taken_back(&mut requests))).await {
                            Either::Left((result, _)) => result,
                            Either::Right(((), _)) => return,
                        }
                    } else {
                        work.await
                    };
                    (result, bytes, Some(permit))
                }
                Err(End::Error(error)) => (Err(error), 0, None),
                Err(End::Gone) => return,
            };
            if let Err(error) = &result {
                service.refuse(&principal, error, bytes, deadline).await;
            }
            drop(permit);
            // Whoever makes unary calls sends the end with the message. Not looked at, it would be a call to cancel, below.
            let _ = requests.next().now_or_never();
            // A failed send means that the client is gone, which is its own affair.
            let _ = match result {
                Ok((answer, _holds)) => sink.success(answer).await,
                Err(error) => sink.fail(error.status()).await,
            };
            // Dropped before the status is out, it would cancel the call.
            drop(requests);
            drop(in_flight);
        });
    }

    /// Ends a stream of answers to a request of so many bytes with its status.
    pub async fn end_stream<T>(&self, call: &Call, bytes: usize, mut sink: DuplexSink<T>, result: Result<(), End>) {
        // A failed send means that the client is gone, which is its own affair.
        let _ = match result {
            Ok(()) => sink.close().await,
            Err(End::Error(error)) => {
                self.refuse(&call.principal(), &error, bytes, call.deadline).await;
                sink.fail(error.status()).await
            }
            Err(End::Gone) => Ok(()),
        };
    }

    async fn work<T, F>(
        &self,
        call: Call,
        request: Request,
        work: impl FnOnce(Service, Call, Request) -> F,
    ) -> Result<(T, Option<Permit>), ApiError>
    where
        F: Future<Output = Result<(T, Option<Permit>), ApiError>>,
    {
        let _bytes = self.limits.bytes(&call.principal(), request.0.len())?;
        work(self.clone(), call, request).await
    }
}

/// Ready when the client has gone away, for a stream that has nothing to send.
pub fn gone<T>(sink: &mut DuplexSink<T>, cx: &mut Context<'_>) -> Poll<()> {
    match Pin::new(sink).poll_flush(cx) {
        Poll::Ready(Err(_)) => Poll::Ready(()),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}
