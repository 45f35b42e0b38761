//! The thread of a consumer: reads its stream, and opens it again after a failure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use grpcio::{CallOption, RpcStatusCode};

use super::buffer::Buffer;
use super::cursor::OwnCursor;
use super::start::StartAt;
use crate::client::error::{Advice, Error, Result};
use crate::client::error_kind::ErrorKind;
use crate::client::nodes::Nodes;
use crate::client::route::Route;
use crate::client::streams::Responses;
use crate::client::wait::{Stop, Waited, wait_for};
use crate::doorbell::Doorbell;
use crate::pb::v1::{ConsumeRequest, ConsumeResponse, Start};
use crate::reason::Outcome;

/// How many heartbeats may be missing before a stream counts as broken.
const HEARTBEATS_MAX: u32 = 3;

/// See the module.
pub(super) struct Reader {
    pub nodes: Arc<Nodes>,
    pub buffer: Arc<Buffer>,
    pub stop: Arc<Stop>,
    /// Rung when the buffer has room again.
    pub bell: Doorbell,
    pub log: String,
    pub start: StartAt,
    pub cursor: Option<Arc<OwnCursor>>,
    pub heartbeat: Duration,
    pub skip_trimmed: bool,
    pub max_silence: Option<Duration>,
    pub position: Position,
    pub route: Route,
    /// The nodes that have answered that the next record is damaged.
    pub damaged: Vec<String>,
    /// When a node last sent something.
    pub heard: Instant,
}

/// Where to continue. Known from the first message on.
#[derive(Debug, Default)]
pub(super) struct Position {
    pub log_id: Option<String>,
    pub next_offset: Option<u64>,
}

impl Reader {
    /// Runs until the consumer is closed, or an error can't be retried.
    pub fn run(mut self) -> std::result::Result<(), std::convert::Infallible> {
        self.bell.attach_current_thread();
        while !self.stop.is_stopped() {
            // A read has no effect.
            let Err(error) = self.read().map_err(|error| error.with_outcome(Outcome::None)) else { break };
            if self.stop.is_stopped() {
                break;
            }
            match self.decide(&error) {
                Ok(pause) => {
                    let pause_ends = Instant::now() + pause;
                    if self.silence_ends().is_some_and(|end| end <= pause_ends) || !self.stop.pause_until(pause_ends) {
                        self.buffer.end((!self.stop.is_stopped()).then_some(error));
                        break;
                    }
                }
                Err(error) => {
                    log::debug!("consumer ended log={} error={error}", self.log);
                    self.buffer.end(Some(error));
                    break;
                }
            }
        }
        Ok(())
    }

    /// Returns how long to wait before the stream is opened again, or the error that ends the consumer.
    fn decide(&mut self, error: &Error) -> Result<Duration> {
        let at = self.route.addr().to_owned();
        if error.kind() == ErrorKind::Trimmed
            && self.skip_trimmed
            && let Some(first) = error.status().number("first_offset")
        {
            let next = self.position.next_offset.unwrap_or(first);
            if next < first {
                log::info!("trimmed records skipped log={} from={next} to={first}", self.log);
                self.buffer.skip(first - next, first);
                self.position.next_offset = Some(first);
                return Ok(Duration::ZERO);
            }
        }
        if error.kind() == ErrorKind::DataLoss && error.advice() == Advice::Elsewhere {
            if !self.damaged.contains(&at) {
                self.damaged.push(at.clone());
            }
            if self.nodes.addrs().iter().all(|addr| self.damaged.contains(addr)) {
                return Err(error.clone());
            }
        }
        if error.advice() == Advice::GiveUp {
            return Err(error.clone());
        }
        let pause = self.route.failed(error, false);
        log::debug!("retried log={} node={at} next={} pause={pause:?} error={error}", self.log, self.route.addr());
        Ok(pause)
    }

    fn silence_ends(&self) -> Option<Instant> {
        self.max_silence.map(|max| self.heard + max)
    }

    /// Opens a stream and reads it. Returns when it has failed, or when the consumer is closed.
    fn read(&mut self) -> Result<()> {
        let attempt = self.nodes.options.attempt_timeout;
        let within = |reader: &Reader, time: Duration| {
            let until = Instant::now() + time;
            reader.silence_ends().map_or(until, |end| end.min(until))
        };
        let until = within(self, attempt);
        let node = self.nodes.visit(self.route.addr(), until, Some(&self.stop))?;
        let receiver = node.stubs.consume_stream_opt(&self.request(), CallOption::default())?;
        let mut responses = Responses::new(receiver);
        // The first message is sent at once.
        let mut time = attempt;
        loop {
            if !self.wait_for_room() {
                return Ok(());
            }
            let response = match wait_for(responses.next(), Some(within(self, time)), Some(&self.stop)) {
                Waited::Ready(Some(response)) => response.map_err(Error::from),
                Waited::Ready(None) => {
                    Err(Error::local(RpcStatusCode::UNAVAILABLE, "the node ended the stream", Outcome::None))
                }
                Waited::Stopped => return Ok(()),
                Waited::TimedOut => {
                    let text = format!("{} has sent nothing for {time:?}", node.addr);
                    Err(Error::local(RpcStatusCode::DEADLINE_EXCEEDED, text, Outcome::None))
                }
            };
            let response = response.inspect_err(|error| {
                if error.is_broken_connection() {
                    node.lost();
                }
            })?;
            self.heard = Instant::now();
            self.take(response)?;
            self.nodes.keep_members(&node, &self.stop);
            time = self.heartbeat * HEARTBEATS_MAX;
        }
    }

    fn request(&self) -> ConsumeRequest {
        let heartbeat_ms = u32::try_from(self.heartbeat.as_millis()).unwrap_or(u32::MAX);
        let (start, offset, start_time_us) = match self.position.next_offset {
            Some(next_offset) => (Start::START_OFFSET, next_offset, 0),
            None => self.start.fields(),
        };
        let cursor = self.cursor.as_ref();
        ConsumeRequest {
            log: self.log.clone(),
            log_id: self.position.log_id.clone(),
            start: start.into(),
            offset,
            start_time_us,
            heartbeat_ms,
            cursor: cursor.map(|cursor| cursor.name.clone()).unwrap_or_default(),
            cursor_epoch: cursor.map_or(0, |cursor| cursor.epoch),
            ..ConsumeRequest::default()
        }
    }

    /// Waits until the buffer has room. Returns false if the consumer is closed.
    fn wait_for_room(&mut self) -> bool {
        let mut waited = false;
        while !self.buffer.has_room() {
            if self.stop.is_stopped() {
                return false;
            }
            waited = true;
            self.bell.wait_until(Instant::now() + self.heartbeat);
        }
        if waited {
            // Nothing was read meanwhile, so nothing was heard.
            self.heard = Instant::now();
        }
        !self.stop.is_stopped()
    }

    /// Checks a message, and passes its records on.
    fn take(&mut self, response: ConsumeResponse) -> Result<()> {
        let mut next = self.position.next_offset.or_else(|| response.records.first().map(|record| record.offset));
        let wrong = |expected: u64, found: u64| {
            let text = format!("the node sent offset {found} where {expected} follows: report this as a bug");
            Err(Error::local(RpcStatusCode::INTERNAL, text, Outcome::None))
        };
        for record in &response.records {
            match next {
                Some(expected) if expected != record.offset => return wrong(expected, record.offset),
                _ => next = Some(record.offset + 1),
            }
        }
        if let Some(expected) = next
            && expected != response.resume_offset
        {
            return wrong(expected, response.resume_offset);
        }
        self.position.next_offset = Some(response.resume_offset);
        if self.position.log_id.is_none() {
            self.position.log_id = Some(response.log_id);
        }
        self.route.succeeded();
        if !response.records.is_empty() {
            self.damaged.clear();
            self.buffer.add(response.records.into_iter().map(Into::into));
        }
        Ok(())
    }
}
