//! `ProduceStream`: requests one behind the other, answers in their order.
//!
//! ```text
//!  requests ──decode, check, limits──► proposed in order ──► window of unanswered ones ──front first──► answers
//! ```
//!
//! The first request that fails ends the stream, once every earlier answer has gone out; behind it nothing is appended:
//! what is on its way there already, whoever leads refuses (`consensus/sequences.rs`). So answers received = requests
//! acknowledged. Only where the first failure is "outcome unknown" may those behind it stand in the log too: the status
//! says through which request.
//!
//! All proposals that are unanswered at a time went to the same node, so they can't overtake each other: where they go is
//! chosen anew only when none is on its way. Then a new run begins, with an id of its own.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::{Either, join_all, poll_fn, select};
use futures::{FutureExt, Sink, SinkExt, Stream};
use grpcio::{DuplexSink, RequestStream, RpcContext, WriteFlags};

use super::authorize::Caller;
use super::batch::Batch;
use super::core::Core;
use super::errors::{ApiError, Broken, Invalid};
use super::limits::Permit;
use super::methods::Request;
use super::produce::{Sent, proposal, propose_error, response};
use super::refusals::count;
use super::router::{Route, outcome};
use super::service::{Call, Service};
use crate::consensus::handle::{Appended, ProposeError, StreamPosition};
use crate::grpc::received::Account;
use crate::grpc::spawn_guarded;
use crate::logs::OpenLog;
use crate::pb::log::ProduceResponse;
use crate::reply::ReplyReceiver;
use crate::security::acl::Action;
use crate::types::StreamId;

/// At this many unanswered requests the server stops reading.
const WINDOW_REQUESTS: usize = 256;

/// At this many unanswered bytes the server stops reading.
const WINDOW_BYTES: usize = 8 << 20;

/// How long a broken stream waits to learn what became of the requests behind the failed one.
const SETTLE_MAX: Duration = Duration::from_secs(1);

type Requests = RequestStream<Request>;
type Out = DuplexSink<ProduceResponse>;

/// Serves one `ProduceStream`.
pub fn produce_stream(service: Service, ctx: &RpcContext<'_>, call: Call, mut requests: Requests, mut sink: Out) {
    let in_flight = service.in_flight.enter();
    let fatal = service.fatal.clone();
    spawn_guarded(ctx, &fatal, async move {
        sink.enhance_batch(true);
        // A failed send means that the client is gone, which is its own affair.
        let _ = match serve(&service, &call, &mut requests, &mut sink).await {
            Ok(Served::Whole) => sink.close().await,
            Ok(Served::Broken(error, broken)) => {
                count(&service.metrics, &error);
                sink.fail(error.stream_status(broken)).await
            }
            Err(Gone) => Ok(()),
        };
        // Dropped before the status is out, it would cancel the call.
        drop(requests);
        drop(in_flight);
    });
}

/// How a stream ended.
enum Served {
    /// The client said that nothing more comes, and everything is answered.
    Whole,
    /// A request failed.
    Broken(ApiError, Broken),
}

/// The client is not there any more.
struct Gone;

/// A request on its way.
struct Unanswered {
    sent: Sent,
    answer: ReplyReceiver<Result<Appended, ProposeError>>,
    _permit: Permit,
}

/// What happens next.
enum Event {
    Request(Request),
    NoMoreRequests,
    Answer(Result<Appended, ProposeError>),
    /// Rights, certificate or node: nothing more is taken.
    Ends(ApiError),
}

async fn serve(service: &Service, call: &Call, requests: &mut Requests, sink: &mut Out) -> Result<Served, Gone> {
    let before_the_first = |error| Ok(Served::Broken(error, Broken { failed_request: 0, unknown_through: None }));
    let (caller, _stream) = match call.caller().and_then(|c| Ok((c, service.limits.stream(c.principal())?))) {
        Ok(both) => both,
        Err(error) => return before_the_first(error),
    };
    // Until the first message names the log, nothing but it is waited for.
    let (state, timers) = (service.state.clone(), service.timers.clone());
    let ends = caller.clone().broken(None, Action::Produce, state.clone(), timers.clone());
    let first = match select(pin!(next(requests)), pin!(ends)).await {
        Either::Left((Ok(Some(first)), _)) => first,
        Either::Left((Ok(None), _)) => return Ok(Served::Whole),
        Either::Left((Err(gone), _)) => return Err(gone),
        Either::Right((error, _)) => return before_the_first(error),
    };
    let Ok(run) = StreamId::random() else {
        return before_the_first(ApiError::Internal("the system has no randomness to give"));
    };
    let bytes = first.0.len();
    call.account.add(bytes);
    let (core, log, batch, permit) = match open(service, call, caller, first).await {
        Ok(opened) => opened,
        Err(error) => {
            service.hold_back(caller.principal(), &error, bytes, call.deadline).await;
            return before_the_first(error);
        }
    };
    let mut run = Run {
        service,
        core,
        caller,
        account: &call.account,
        deadline: call.deadline,
        broken: Box::pin(caller.clone().broken(Some(log.name.clone()), Action::Produce, state, timers)),
        log,
        run,
        proposed: 0,
        route: Route::Here,
        unanswered: VecDeque::new(),
        unanswered_bytes: 0,
        answered: 0,
        held: None,
        failed: None,
        all_read: false,
    };
    run.propose(batch, permit);
    run.run(requests, sink).await
}

async fn next(requests: &mut Requests) -> Result<Option<Request>, Gone> {
    match poll_fn(|cx| Pin::new(&mut *requests).poll_next(cx)).await {
        None => Ok(None),
        Some(Ok(request)) => Ok(Some(request)),
        Some(Err(_)) => Err(Gone),
    }
}

async fn open<'a>(
    service: &'a Service,
    call: &Call,
    caller: &Caller,
    first: Request,
) -> Result<(&'a Core, Arc<OpenLog>, Batch, Permit), ApiError> {
    let permit = service.limits.bytes(caller.principal(), first.0.len())?;
    let batch = Batch::decode(&first.0)?;
    caller.check(&batch.log, Action::Produce)?;
    let core = service.core()?;
    core.check_rival()?;
    let log = core.log(&batch.log, &service.timers, call.deadline).await?;
    batch.check(&log)?;
    Ok((core, log, batch, permit))
}

/// A stream whose log is known. Request `answered` is the front of `unanswered`.
struct Run<'a> {
    service: &'a Service,
    core: &'a Core,
    caller: &'a Caller,
    account: &'a Account,
    deadline: Option<Instant>,
    broken: Pin<Box<dyn Future<Output = ApiError> + Send + 'a>>,
    log: Arc<OpenLog>,
    /// The run that began when nothing was unanswered.
    run: StreamId,
    /// The position of the next proposal in the run.
    proposed: u64,
    route: Route,
    unanswered: VecDeque<Unanswered>,
    unanswered_bytes: usize,
    answered: u64,
    /// Read, but for now over its principal's limit of bytes. Then something is unanswered, and nothing is read.
    held: Option<Request>,
    /// Why the request behind all of `unanswered` was not proposed, and its bytes. Nothing is read any more.
    failed: Option<(ApiError, usize)>,
    all_read: bool,
}

impl Run<'_> {
    async fn run(&mut self, requests: &mut Requests, sink: &mut Out) -> Result<Served, Gone> {
        loop {
            if self.unanswered.is_empty() {
                if let Some((error, bytes)) = self.failed.take() {
                    sink.flush().await.map_err(|_| Gone)?;
                    self.service.hold_back(self.caller.principal(), &error, bytes, self.deadline).await;
                    let broken = Broken { failed_request: self.answered, unknown_through: None };
                    return Ok(Served::Broken(error, broken));
                }
                if self.all_read {
                    sink.flush().await.map_err(|_| Gone)?;
                    return Ok(Served::Whole);
                }
            }
            match poll_fn(|cx| self.poll_event(cx, requests, sink)).await? {
                Event::Request(request) => {
                    self.account.add(request.0.len());
                    self.take(request);
                }
                Event::NoMoreRequests => self.all_read = true,
                Event::Ends(error) => self.failed = Some((error, 0)),
                Event::Answer(Ok(appended)) => {
                    let response = response(&appended, &self.log);
                    self.pop();
                    self.answered += 1;
                    if self.failed.is_none()
                        && let Some(held) = self.held.take()
                    {
                        self.take(held);
                    }
                    sink.feed((response, WriteFlags::default())).await.map_err(|_| Gone)?;
                }
                Event::Answer(Err(error)) => {
                    sink.flush().await.map_err(|_| Gone)?;
                    return Ok(self.broken_at_front(error).await);
                }
            }
        }
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        sink: &mut Out,
    ) -> Poll<Result<Event, Gone>> {
        if let Some(front) = self.unanswered.front_mut()
            && let Poll::Ready(answer) = front.answer.poll_unpin(cx)
        {
            return Poll::Ready(Ok(Event::Answer(outcome(answer))));
        }
        if self.failed.is_none() && !self.all_read {
            if let Poll::Ready(error) = self.broken.poll_unpin(cx) {
                return Poll::Ready(Ok(Event::Ends(error)));
            }
            if self.has_room() {
                match Pin::new(requests).poll_next(cx) {
                    Poll::Ready(Some(Ok(request))) => return Poll::Ready(Ok(Event::Request(request))),
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Gone)),
                    Poll::Ready(None) => return Poll::Ready(Ok(Event::NoMoreRequests)),
                    Poll::Pending => {}
                }
            }
        }
        // Nothing to do: what was fed goes out, and a client that went away is noticed.
        match Pin::new(sink).poll_flush(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(Err(Gone)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    fn has_room(&self) -> bool {
        self.held.is_none() && self.unanswered.len() < WINDOW_REQUESTS && self.unanswered_bytes < WINDOW_BYTES
    }

    fn take(&mut self, request: Request) {
        let permit = match self.service.limits.bytes(self.caller.principal(), request.0.len()) {
            Ok(permit) => permit,
            // An answer on its way gives bytes back.
            Err(_) if !self.unanswered.is_empty() => {
                self.held = Some(request);
                return;
            }
            Err(limit) => {
                self.failed = Some((limit.into(), request.0.len()));
                return;
            }
        };
        match self.check(&request) {
            Ok(batch) => self.propose(batch, permit),
            Err(error) => self.failed = Some((error, request.0.len())),
        }
    }

    fn check(&self, request: &Request) -> Result<Batch, ApiError> {
        let batch = Batch::decode(&request.0)?;
        if batch.log != self.log.name {
            return Err(Invalid::LogChanged.into());
        }
        batch.check(&self.log)?;
        Ok(batch)
    }

    fn propose(&mut self, batch: Batch, permit: Permit) {
        if self.unanswered.is_empty() {
            self.route = self.core.route(self.log.group);
            self.run = self.run.next();
            self.proposed = 0;
        }
        let place = StreamPosition { stream: self.run, sequence: self.proposed };
        self.proposed += 1;
        let (proposal, sent) = proposal(batch, &self.log, Some(place), self.deadline);
        let answer = self.core.hand_over(self.route, self.caller.principal().as_str(), proposal);
        self.unanswered_bytes += sent.bytes;
        self.unanswered.push_back(Unanswered { sent, answer, _permit: permit });
    }

    fn pop(&mut self) -> Option<Unanswered> {
        let front = self.unanswered.pop_front()?;
        self.unanswered_bytes -= front.sent.bytes;
        Some(front)
    }

    /// The front request failed. Only if its outcome is unknown may those behind it be appended: waits a moment to know.
    async fn broken_at_front(&mut self, error: ProposeError) -> Served {
        let failed_request = self.answered;
        let unknown = error == ProposeError::OutcomeUnknown;
        let error = match self.pop() {
            Some(front) => propose_error(error, &front.sent, &self.log),
            None => ApiError::Internal("an answer without a request"),
        };
        if !unknown {
            return Served::Broken(error, Broken { failed_request, unknown_through: None });
        }
        let mut unknown_through = Some(failed_request);
        let behind: Vec<_> = std::mem::take(&mut self.unanswered)
            .into_iter()
            .map(|request| {
                let settled = request.answer.map(|answer| !surely_not_appended(&outcome(answer)));
                settled.shared()
            })
            .collect();
        let settle = self.service.timers.at(Instant::now() + SETTLE_MAX);
        select(join_all(behind.iter().cloned()), settle).await;
        for (number, settled) in (failed_request + 1..).zip(behind) {
            // One that is not settled yet may still be appended.
            if settled.peek().copied().unwrap_or(true) {
                unknown_through = Some(number);
            }
        }
        Served::Broken(error, Broken { failed_request, unknown_through })
    }
}

fn surely_not_appended(outcome: &Result<Appended, ProposeError>) -> bool {
    match outcome {
        Ok(_) | Err(ProposeError::OutcomeUnknown) => false,
        Err(
            ProposeError::NotLeader { .. }
            | ProposeError::QueueFull
            | ProposeError::DiskFull
            | ProposeError::TooLarge
            | ProposeError::Dropped
            | ProposeError::DeadlinePassed
            | ProposeError::ExpectedOffset { .. }
            | ProposeError::PastEnd { .. }
            | ProposeError::NoSuchGroup
            | ProposeError::Damaged
            | ProposeError::Stopping,
        ) => true,
    }
}
