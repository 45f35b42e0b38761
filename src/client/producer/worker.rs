//! The thread of a producer: opens its stream, decides after a failure, and watches the times.

use std::sync::Arc;
use std::time::{Duration, Instant};

use grpcio::RpcStatusCode;

use super::core::Core;
use super::queue::Limits;
use super::receiver;
use crate::client::error::{Advice, Error, Result};
use crate::client::nodes::{Node, Nodes};
use crate::client::route::{Operation, Route, call};
use crate::client::wait::Stop;
use crate::pb::v1::{GetLogRequest, InitProducerRequest, Producer};
use crate::reason::{ErrorReason, Outcome};
use crate::types::StreamId;

/// How long a producer that is closed waits for the end of its stream, after everything is answered.
const END_MAX: Duration = Duration::from_millis(500);

/// How a producer registers itself.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub log: String,
    /// Empty: an unnamed producer.
    pub name: String,
    pub owner: String,
}

/// Registers a producer. All attempts are the same request, so they register one.
pub(super) fn register(
    nodes: &Arc<Nodes>,
    identity: &Identity,
    log_id: Option<String>,
    operation: &Operation<'_>,
) -> Result<Producer> {
    let instance = StreamId::random()
        .map_err(|e| Error::local(RpcStatusCode::INTERNAL, format!("no random number: {e}"), Outcome::None))?;
    let request = InitProducerRequest {
        log: identity.log.clone(),
        log_id,
        producer: identity.name.clone(),
        instance: instance.0,
        owner: identity.owner.clone(),
        ..InitProducerRequest::default()
    };
    let response = call(nodes, operation, |node, option| node.stubs.init_producer_async_opt(&request, option))?;
    let producer = response.producer.unwrap_or_default();
    // The name as the caller uses it: an empty one means "default".
    Ok(Producer { log: identity.log.clone(), ..producer })
}

/// Returns the limits of a log.
pub(super) fn limits(nodes: &Arc<Nodes>, log: &str, log_id: &str, operation: &Operation<'_>) -> Result<Limits> {
    let log_id = Some(log_id.to_owned());
    let request = GetLogRequest { log: log.to_owned(), log_id, ..GetLogRequest::default() };
    let response = call(nodes, operation, |node, option| node.stubs.get_log_async_opt(&request, option))?;
    let config = response.log.unwrap_or_default().config.unwrap_or_default();
    let bytes = |limit: Option<u32>| limit.filter(|bytes| *bytes > 0).map_or(usize::MAX, |bytes| bytes as usize);
    Ok(Limits { record_bytes: bytes(config.max_record_bytes), request_bytes: bytes(config.max_request_bytes) })
}

/// What the worker does next.
enum Step {
    Wait(Instant),
    Open,
    /// The stream has ended.
    Ended(Error),
    /// The oldest request has no answer for the time of an attempt.
    Silent,
    /// The delivery timeout of the oldest record is over.
    Late,
}

/// See the module.
pub(super) struct Worker {
    pub core: Arc<Core>,
    pub nodes: Arc<Nodes>,
    pub stop: Arc<Stop>,
    pub identity: Identity,
    pub log_id: String,
    pub delivery_timeout: Duration,
    pub route: Route,
    /// The node of the current stream.
    pub node: Option<Arc<Node>>,
    /// No stream is opened before this moment.
    pub not_before: Instant,
    pub last_error: Option<Error>,
}

impl Worker {
    /// Runs until the producer is closed or dropped. Then everything that is left fails.
    pub fn run(mut self) -> std::result::Result<(), std::convert::Infallible> {
        self.core.bell.attach_current_thread();
        while !self.stop.is_stopped() {
            match self.next_step() {
                Step::Wait(until) => {
                    if let Some(node) = &self.node {
                        self.nodes.keep_members(node, &self.stop);
                    }
                    self.core.bell.wait_until(until);
                }
                Step::Open => self.open(),
                Step::Ended(error) => self.ended(&error),
                Step::Silent => self.silent(),
                Step::Late => self.late(),
            }
        }
        self.end_stream();
        self.core.fail_all(&Error::closed("producer"));
        Ok(())
    }

    fn next_step(&self) -> Step {
        let now = Instant::now();
        let attempt = self.nodes.options.attempt_timeout;
        self.core.with_wire(|wire| {
            if let Some(error) = wire.ended.take() {
                return Step::Ended(error);
            }
            let oldest = wire.requests.oldest().map(|sent| sent.at);
            let oldest = oldest.or_else(|| self.core.queue.lock().front().map(|entry| entry.at));
            let Some(oldest) = oldest else {
                // What is sent from now on is neither late nor unanswered before this moment.
                return Step::Wait(now + attempt.min(self.delivery_timeout));
            };
            let late = oldest + self.delivery_timeout;
            if late <= now {
                return Step::Late;
            }
            if !wire.has_stream() {
                return if self.not_before <= now { Step::Open } else { Step::Wait(self.not_before.min(late)) };
            }
            let silent = wire.requests.waits_since().map_or(now + attempt, |since| since + attempt);
            if silent <= now { Step::Silent } else { Step::Wait(silent.min(late)) }
        })
    }

    /// Opens a stream at the leader, or at a node that answers.
    fn open(&mut self) {
        let now = Instant::now();
        let until = self.deadline().min(now + self.nodes.options.attempt_timeout);
        let stop = self.stop.clone();
        let visited = self.nodes.visit_for(self.route.addr(), &self.identity.log, until, Some(&stop));
        let node = visited.and_then(|(node, leader)| match leader {
            Some(leader) if self.route.prefer(&leader) => self.nodes.visit(&leader, until, Some(&stop)),
            _ => Ok(node),
        });
        let opened = node.and_then(|node| receiver::open(&self.core, &node).map(|()| node));
        match opened {
            Ok(node) => {
                log::debug!("stream opened log={} node={}", self.identity.log, node.addr);
                self.node = Some(node);
            }
            Err(_) if self.stop.is_stopped() => {}
            Err(error) if error.advice() == Advice::GiveUp => self.fail(&error),
            Err(error) => self.retry(&error),
        }
    }

    /// Decides what a failed stream means for the producer.
    fn ended(&mut self, error: &Error) {
        if error.is_broken_connection()
            && let Some(node) = &self.node
        {
            node.lost();
        }
        let is_unknown = error.reason() == ErrorReason::ProducerUnknown.code() && self.identity.name.is_empty();
        enum Next {
            Idle,
            Register,
            Resize,
            Done,
            Decide,
        }
        let (has_answers, next) = self.core.with_wire(|wire| {
            let has_answers = wire.requests.has_answers();
            if wire.requests.is_empty() {
                return (has_answers, Next::Idle);
            }
            if is_unknown && wire.requests.are_certain() {
                wire.requests.end_unknown_stream();
                return (has_answers, Next::Register);
            }
            wire.requests.end_stream(error);
            let next = match wire.requests.first_fate() {
                Some(Outcome::Done) if error.outcome() == Outcome::Done && error.advice() == Advice::GiveUp => {
                    Next::Done
                }
                Some(Outcome::None) if is_size(error) && wire.requests.are_certain() => Next::Resize,
                _ => Next::Decide,
            };
            (has_answers, next)
        });
        if has_answers {
            self.route.succeeded();
        }
        match next {
            // If it concerns the producer, the next record gets the error.
            Next::Idle if error.advice() == Advice::GiveUp => {}
            Next::Register => self.register_anew(),
            Next::Resize => self.resize(error),
            Next::Done => self.acknowledge_done(),
            Next::Decide if error.advice() == Advice::GiveUp => self.fail(error),
            Next::Idle | Next::Decide => self.retry(error),
        }
    }

    /// Acknowledges the oldest requests that were appended, and whose answers are lost for good.
    fn acknowledge_done(&self) {
        let mut wire = self.core.lock_wire();
        let done = wire.requests.take_done();
        self.core.complete(wire, done, |request| {
            request.acknowledge(None, true);
            request
        });
    }

    fn register_anew(&mut self) {
        log::info!("producer registered anew log={}", self.identity.log);
        self.acknowledge_done();
        let stop = self.stop.clone();
        let operation = Operation { until: self.deadline(), reads: false, stop: Some(&stop) };
        match register(&self.nodes, &self.identity, Some(self.log_id.clone()), &operation) {
            Ok(producer) => self.core.with_wire(|wire| wire.requests.renumber(&producer)),
            Err(_) if stop.is_stopped() => {}
            Err(error) => self.fail(&error.with_outcome(Outcome::None)),
        }
    }

    /// The limits of the log have changed.
    fn resize(&mut self, error: &Error) {
        let stop = self.stop.clone();
        let operation = Operation { until: self.deadline(), reads: true, stop: Some(&stop) };
        match limits(&self.nodes, &self.identity.log, &self.log_id, &operation) {
            Ok(limits) => {
                let position = error.status().number("position").and_then(|at| usize::try_from(at).ok());
                if !self.core.form_anew(limits, position) {
                    self.fail(error);
                }
            }
            Err(_) if stop.is_stopped() => {}
            Err(error) => self.fail(&error),
        }
    }

    fn silent(&mut self) {
        let text = "the node has not answered in time";
        let error = Error::local(RpcStatusCode::DEADLINE_EXCEEDED, text, Outcome::Unknown);
        self.core.with_wire(|wire| self.core.cancel_stream(wire));
        self.ended(&error);
    }

    fn late(&mut self) {
        let why = self.last_error.as_ref().map_or_else(|| "no answer".to_owned(), Error::to_string);
        let text = format!("not acknowledged within {:?}: {why}", self.delivery_timeout);
        let error = Error::local(RpcStatusCode::DEADLINE_EXCEEDED, text, Outcome::Unknown);
        self.fail(&error);
    }

    fn fail(&self, error: &Error) {
        log::info!("producer failed log={} error={error}", self.identity.log);
        self.core.fail_all(error);
    }

    fn retry(&mut self, error: &Error) {
        let pause = self.route.failed(error, true);
        log::debug!("retried log={} next={} pause={pause:?} error={error}", self.identity.log, self.route.addr());
        self.not_before = Instant::now() + pause;
        self.last_error = Some(error.clone());
    }

    /// Returns when the delivery timeout of the oldest record is over.
    fn deadline(&self) -> Instant {
        let in_request = self.core.with_wire(|wire| wire.requests.oldest().map(|sent| sent.at));
        let oldest = in_request.or_else(|| self.core.queue.lock().front().map(|entry| entry.at));
        oldest.unwrap_or_else(Instant::now) + self.delivery_timeout
    }

    /// Ends the stream, so that the node sees no cancelled call.
    fn end_stream(&self) {
        if !self.core.close_stream() {
            return;
        }
        let until = Instant::now() + END_MAX;
        while self.core.with_wire(|wire| wire.has_stream()) && Instant::now() < until {
            self.core.bell.wait_until(until);
        }
    }
}

fn is_size(error: &Error) -> bool {
    let reasons = [ErrorReason::RecordTooLarge, ErrorReason::RequestTooLarge];
    reasons.iter().any(|reason| error.reason() == reason.code())
}
