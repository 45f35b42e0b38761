//! `ProduceStream`: pipelined requests, and their responses in the same order.
//!
//! ```text
//!  requests ──decode, check, limits──► proposed in order ──► window of unanswered ones ──oldest first──► responses
//! ```
//!
//! The first request that fails ends the stream, after every earlier response has been sent. No later request is
//! appended: the leader rejects those that have already been sent to it (`consensus/group/sequences.rs`). So exactly
//! the requests with a response are acknowledged. Only if the outcome of the first failure is unknown, later requests
//! may also be in the log; the status contains the last such request.
//!
//! All unanswered proposals of a stream were sent to the same node, so that they can't overtake each other. Another
//! node is chosen only while no proposal is unanswered. Then a new run begins, with its own id.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, Either, join_all, poll_fn, select};
use futures::{FutureExt, Sink, SinkExt, Stream};
use grpcio::{DuplexSink, RequestStream, WriteFlags};

use super::append_request::AppendRequest;
use super::core::{Core, FoundLog};
use super::error::{ApiError, Invalid};
use super::limits::Permit;
use super::messages::{ProduceReply, Request};
use super::prelude::DuplexStream;
use super::produce::{SentProposal, check_rights, open_for_append, propose_error};
use super::router::{Route, outcome, proposal_deadline};
use super::service::{Call, RequestFailure, Service, StreamEnd};
use super::status::FailedAt;
use crate::consensus::handle::{Appended, Proposal, ProposeError, StreamPosition};
use crate::log_state::StateRefusal;
use crate::reply::ReplyReceiver;
use crate::security::identity::Principal;
use crate::types::StreamId;

/// The maximum number of unanswered requests. The server then stops reading.
const WINDOW_REQUESTS: usize = 256;

/// The maximum size of the unanswered requests. The server then stops reading.
const WINDOW_BYTES: usize = 8 << 20;

/// The maximum wait of a failed stream for the outcomes of the requests after the failed one.
const SETTLE_MAX: Duration = Duration::from_secs(1);

type Requests = RequestStream<Request>;
type Out = DuplexSink<ProduceReply>;

/// Serves `ProduceStream`.
pub fn produce_stream(stream: DuplexStream<'_, ProduceReply>) -> BoxFuture<'_, Result<(), StreamEnd>> {
    serve(stream).boxed()
}

/// A request that was proposed and is not answered yet.
struct UnansweredRequest {
    sent: SentProposal,
    answer: ReplyReceiver<Result<Appended, ProposeError>>,
    _permit: Permit,
}

/// The next step of a stream.
enum StreamEvent {
    Request(Request),
    NoMoreRequests,
    Answer(Result<Appended, ProposeError>),
    /// The permission was revoked, the certificate is no longer accepted, or the node stops. No further request is
    /// accepted.
    Ends(ApiError),
}

async fn serve(duplex: DuplexStream<'_, ProduceReply>) -> Result<(), StreamEnd> {
    let DuplexStream { service, call, requests, sink } = duplex;
    sink.enhance_batch(true);
    // The first message names the log.
    let must_end = call.must_end(service, None)?;
    let first = match select(pin!(next(requests)), pin!(must_end)).await {
        Either::Left((Ok(Some(first)), _)) => first,
        Either::Left((Ok(None), _)) => return Ok(()),
        Either::Left((Err(gone), _)) => return Err(gone),
        Either::Right((error, _)) => return Err(error.into()),
    };
    let Ok(run) = StreamId::random() else {
        return Err(ApiError::Internal("the system returned no random number").into());
    };
    let request_bytes = first.0.len();
    call.account.add(request_bytes);
    let opened = open(service, call, first).await;
    let (core, log, proposal, permit) =
        opened.map_err(|error| StreamEnd::Failed(RequestFailure { error, request_bytes, at: None }))?;
    let mut stream = AppendStream {
        service,
        core,
        call,
        principal: call.principal(),
        must_end: Box::pin(end_of(service, core, call, &log)?),
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
    stream.propose(proposal, permit);
    stream.run(requests, sink).await
}

/// Resolves when the stream must end, also because its log is deleted.
fn end_of<'a>(
    service: &Service,
    core: &'a Core,
    call: &Call,
    log: &FoundLog,
) -> Result<impl Future<Output = ApiError> + Send + use<'a>, ApiError> {
    let not_allowed = call.must_end(service, Some(log.name.clone()))?;
    let log = log.replica.clone();
    Ok(async move {
        let Some(log) = log else { return not_allowed.await };
        match select(pin!(not_allowed), pin!(log.removal.wait())).await {
            Either::Left((error, _)) => error,
            Either::Right(_) => core.removed(&log),
        }
    })
}

async fn next(requests: &mut Requests) -> Result<Option<Request>, StreamEnd> {
    match poll_fn(|cx| Pin::new(&mut *requests).poll_next(cx)).await {
        None => Ok(None),
        Some(Ok(request)) => Ok(Some(request)),
        Some(Err(_)) => Err(StreamEnd::Gone),
    }
}

/// Checks the first request, which names the log.
async fn open<'a>(
    service: &'a Service,
    call: &Call,
    first: Request,
) -> Result<(&'a Core, FoundLog, Proposal, Permit), ApiError> {
    let permit = service.limits.bytes(&call.principal(), first.0.len())?;
    let append = AppendRequest::decode(&first.0, call.package)?;
    append.check_in_stream()?;
    check_rights(call, &append)?;
    let core = service.core()?;
    core.check_rival()?;
    let log = open_for_append(service, core, call, &append).await?;
    let proposal = append.for_log(&log, core.catalog.level(), call.deadline)?;
    if log.replica.is_none() && core.known_leader(log.group).is_none() {
        // All requests of a run go to one node, and none of them is sent again. If none is found, the first request
        // fails.
        let until = proposal_deadline(call.deadline);
        if let Err(error) = core.find_leader(log.group, until).await {
            return Err(core.append_error(&log, error, &service.timers, call.deadline).await);
        }
    }
    Ok((core, log, proposal, permit))
}

/// A stream whose log is known. The front of `unanswered` is request number `answered`.
struct AppendStream<'a> {
    service: &'a Service,
    core: &'a Core,
    call: &'a Call,
    principal: Principal,
    must_end: Pin<Box<dyn Future<Output = ApiError> + Send + 'a>>,
    log: FoundLog,
    /// The current run. A run begins when no request is unanswered.
    run: StreamId,
    /// The number of the run's proposals, and so the position of the next one.
    proposed: u64,
    route: Route,
    unanswered: VecDeque<UnansweredRequest>,
    unanswered_bytes: usize,
    answered: u64,
    /// A request that was read, but would exceed its principal's limit of bytes now. It waits until a response releases
    /// bytes; until then no request is read.
    held: Option<Request>,
    /// Why the request after those in `unanswered` was not proposed, and its size. No further request is read.
    failed: Option<(ApiError, usize)>,
    all_read: bool,
}

impl AppendStream<'_> {
    async fn run(&mut self, requests: &mut Requests, sink: &mut Out) -> Result<(), StreamEnd> {
        loop {
            if self.unanswered.is_empty() {
                if let Some((error, request_bytes)) = self.failed.take() {
                    sink.flush().await.map_err(|_| StreamEnd::Gone)?;
                    let at = Some(FailedAt { failed_request: self.answered, unknown_through: None });
                    return Err(StreamEnd::Failed(RequestFailure { error, request_bytes, at }));
                }
                if self.all_read {
                    sink.flush().await.map_err(|_| StreamEnd::Gone)?;
                    return Ok(());
                }
            }
            match poll_fn(|cx| self.poll_event(cx, requests, sink)).await? {
                StreamEvent::Request(request) => {
                    self.call.account.add(request.0.len());
                    self.accept(request);
                }
                StreamEvent::NoMoreRequests => self.all_read = true,
                StreamEvent::Ends(error) => self.failed = Some((error, 0)),
                StreamEvent::Answer(Ok(appended)) => {
                    let response =
                        ProduceReply { package: self.call.package, appended, log_id: self.log.log_id, receipt: None };
                    if let Some(front) = self.pop() {
                        self.service.metrics.appended(&response.appended, front.sent.bytes, front.sent.at);
                    }
                    self.answered += 1;
                    if self.failed.is_none()
                        && let Some(held) = self.held.take()
                    {
                        self.accept(held);
                    }
                    sink.feed((response, WriteFlags::default())).await.map_err(|_| StreamEnd::Gone)?;
                }
                StreamEvent::Answer(Err(error)) => {
                    sink.flush().await.map_err(|_| StreamEnd::Gone)?;
                    return Err(self.fail_at_front(error).await);
                }
            }
        }
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        sink: &mut Out,
    ) -> Poll<Result<StreamEvent, StreamEnd>> {
        if let Some(front) = self.unanswered.front_mut()
            && let Poll::Ready(answer) = front.answer.poll_unpin(cx)
        {
            return Poll::Ready(Ok(StreamEvent::Answer(outcome(answer))));
        }
        if self.failed.is_none() && !self.all_read {
            if let Poll::Ready(error) = self.must_end.poll_unpin(cx) {
                return Poll::Ready(Ok(StreamEvent::Ends(error)));
            }
            if self.has_room() {
                match Pin::new(requests).poll_next(cx) {
                    Poll::Ready(Some(Ok(request))) => return Poll::Ready(Ok(StreamEvent::Request(request))),
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(StreamEnd::Gone)),
                    Poll::Ready(None) => return Poll::Ready(Ok(StreamEvent::NoMoreRequests)),
                    Poll::Pending => {}
                }
            }
        }
        // Nothing to do: flushes the responses, and notices if the client is gone.
        match Pin::new(sink).poll_flush(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(Err(StreamEnd::Gone)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    fn has_room(&self) -> bool {
        self.held.is_none() && self.unanswered.len() < WINDOW_REQUESTS && self.unanswered_bytes < WINDOW_BYTES
    }

    fn accept(&mut self, request: Request) {
        let permit = match self.service.limits.bytes(&self.principal, request.0.len()) {
            Ok(permit) => permit,
            // The response to an unanswered request will release bytes.
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
            Ok(proposal) => self.propose(proposal, permit),
            Err(error) => self.failed = Some((error, request.0.len())),
        }
    }

    fn check(&self, request: &Request) -> Result<Proposal, ApiError> {
        let append = AppendRequest::decode(&request.0, self.call.package)?;
        append.check_in_stream()?;
        append.check_same_log(&self.log.name)?;
        // An open stream checks only the permission to append.
        if append.restores() != self.log.restoring_to.is_some() {
            return Err(Invalid::NotRestoring.into());
        }
        append.for_log(&self.log, self.core.catalog.level(), self.call.deadline)
    }

    fn propose(&mut self, proposal: Proposal, permit: Permit) {
        if self.unanswered.is_empty() {
            self.route = self.core.route(self.log.group);
            self.run = self.run.next();
            self.proposed = 0;
        }
        let position = StreamPosition { stream: self.run, sequence: self.proposed };
        self.proposed += 1;
        let proposal = Proposal { in_stream: Some(position), ..proposal };
        let sent = SentProposal::new(&proposal);
        let answer = self.core.hand_over(self.route, self.principal.as_str(), proposal);
        self.unanswered_bytes += sent.bytes;
        self.unanswered.push_back(UnansweredRequest { sent, answer, _permit: permit });
    }

    fn pop(&mut self) -> Option<UnansweredRequest> {
        let front = self.unanswered.pop_front()?;
        self.unanswered_bytes -= front.sent.bytes;
        Some(front)
    }

    /// Ends the stream because the front request failed. If its outcome is unknown, later ones may be appended, so this
    /// waits some time for their outcomes.
    async fn fail_at_front(&mut self, error: ProposeError) -> StreamEnd {
        let failed_request = self.answered;
        let error = self.core.learn_from(self.log.group, self.route, error);
        let unknown = error == ProposeError::OutcomeUnknown;
        let error = match self.pop() {
            Some(front) => {
                let error = propose_error(error, &front.sent, &self.log);
                let (timers, deadline) = (&self.service.timers, self.call.deadline);
                self.core.append_error(&self.log, error, timers, deadline).await
            }
            None => ApiError::Internal("an answer without a request"),
        };
        let failure = |unknown_through| {
            let at = Some(FailedAt { failed_request, unknown_through });
            StreamEnd::Failed(RequestFailure { error, request_bytes: 0, at })
        };
        if !unknown {
            return failure(None);
        }
        let mut unknown_through = Some(failed_request);
        let later: Vec<_> = std::mem::take(&mut self.unanswered)
            .into_iter()
            .map(|request| request.answer.map(|answer| !surely_not_appended(&outcome(answer))).shared())
            .collect();
        let settle = self.service.timers.at(Instant::now() + SETTLE_MAX);
        select(join_all(later.iter().cloned()), settle).await;
        for (number, settled) in (failed_request + 1..).zip(later) {
            // A request that is not settled yet may still be appended.
            if settled.peek().copied().unwrap_or(true) {
                unknown_through = Some(number);
            }
        }
        failure(unknown_through)
    }
}

fn surely_not_appended(outcome: &Result<Appended, ProposeError>) -> bool {
    match outcome {
        Ok(_) | Err(ProposeError::OutcomeUnknown) => false,
        // An earlier attempt may have been.
        Err(ProposeError::State(
            StateRefusal::ProducerUnknown(_) | StateRefusal::ProducerFenced(_) | StateRefusal::SequenceTooOld(_),
        )) => false,
        Err(
            ProposeError::NotLeader { .. }
            | ProposeError::QueueFull
            | ProposeError::DiskFull
            | ProposeError::TooLarge
            | ProposeError::Dropped
            | ProposeError::DeadlinePassed
            | ProposeError::ExpectedOffset { .. }
            | ProposeError::PastEnd { .. }
            | ProposeError::State(_)
            | ProposeError::LevelUnsupported { .. }
            | ProposeError::MemberSilent { .. }
            | ProposeError::NodeNeeded { .. }
            | ProposeError::NoSuchGroup
            | ProposeError::Damaged
            | ProposeError::Stopping,
        ) => true,
    }
}
