//! A pipelined produce that reports the exact outcome of every record.
//!
//! Requests are sent without waiting for responses, up to a window that is smaller than the server's. If the stream ends for a
//! temporary reason (an election, a full queue, a node that stops) **and** the server states that no unanswered request was
//! appended, a new stream starts with the first unanswered request. Otherwise the pipeline fails: a request with an unknown outcome is
//! never sent again.
//!
//! Before a stream starts, a node must answer another request. If none answers, nothing was sent, and the outcome stays known: a
//! refused connection after a request that was certainly not appended is a certain failure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossbeam_channel::after;
use grpcio::RpcStatusCode;

use super::connect::{ANSWER_MAX, ConnectArgs};
use crate::client::{Client, ClientError, Fate, ProduceStream};
use crate::pb::log::{ProduceRequest, ProduceResponse, Record};

/// Unanswered requests. The server stops reading at 256.
const REQUESTS_MAX: usize = 32;
/// Unanswered bytes. The server stops reading at 8 MiB.
const BYTES_MAX: usize = 6 << 20;
/// A response that is older does not show that the node still runs.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(1);
/// The limit of one round over all addresses: the timeout is checked between rounds.
const ROUND_MAX: Duration = Duration::from_secs(1);

/// Between two attempts at a node that stops or starts.
const RETRY: Duration = Duration::from_millis(100);

/// What is known to be appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub records: u64,
    /// Bytes of the input that the records were made from.
    pub bytes: u64,
    /// The offset of the first record.
    pub first_offset: u64,
    /// The offset after the last record.
    pub next_offset: u64,
}

/// The reason why a pipeline failed, and what is unknown.
#[derive(Clone, Debug)]
pub struct Failed {
    pub error: ClientError,
    /// The number of records after [`Pipeline::done`] that may have been appended or not. 0: nothing else was appended.
    pub unknown_records: u64,
}

struct Sent {
    request: ProduceRequest,
    bytes: usize,
}

fn is_starting_or_stopping(error: &ClientError) -> bool {
    error.status().is_some_and(|status| matches!(status.reason.as_str(), "STOPPING" | "JOINING"))
}

/// Sends requests and counts responses.
pub struct Pipeline<'a> {
    client: Client,
    connect: &'a ConnectArgs,
    /// When the client's node last answered; `None` if the connection broke since.
    answered_at: Option<Instant>,
    log: String,
    log_id: Option<u64>,
    /// The offset that the next request must get.
    expected_offset: Option<u64>,
    stream: Option<ProduceStream>,
    /// Requests that the current stream has answered.
    answered: u64,
    /// The current stream accepts no more requests; its status was not read yet.
    broken: bool,
    unanswered: VecDeque<Sent>,
    unanswered_bytes: usize,
    progress: Instant,
    done: Done,
}

impl<'a> Pipeline<'a> {
    /// Creates a pipeline that appends to `log`, if it has this id.
    pub fn new(client: Client, connect: &'a ConnectArgs, log: &str, log_id: Option<u64>) -> Pipeline<'a> {
        Pipeline {
            client,
            connect,
            answered_at: Some(Instant::now()),
            log: log.to_owned(),
            log_id,
            expected_offset: None,
            stream: None,
            answered: 0,
            broken: false,
            unanswered: VecDeque::new(),
            unanswered_bytes: 0,
            progress: Instant::now(),
            done: Done::default(),
        }
    }

    /// Requires that the first request gets this offset, and each other one the offset after the one before.
    pub fn expect_offset(&mut self, first: Option<u64>) {
        self.expected_offset = first;
    }

    /// The address of the current node.
    pub fn addr(&self) -> &str {
        self.client.addr()
    }

    /// The records that are known to be appended.
    pub fn done(&self) -> Done {
        self.done
    }

    /// Whether every request is answered.
    pub fn is_settled(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// Sends records that were made from `bytes` bytes of input. Waits while the window is full.
    ///
    /// # Errors
    /// [`Failed`], about this or an earlier request.
    pub fn send(&mut self, records: Vec<Record>, bytes: usize) -> Result<(), Failed> {
        while !self.unanswered.is_empty()
            && (self.unanswered.len() >= REQUESTS_MAX || self.unanswered_bytes + bytes > BYTES_MAX)
        {
            self.settle_one()?;
        }
        if self.unanswered.is_empty() {
            self.progress = Instant::now();
            // A stream that ended while it was idle can't carry this request.
            if self.stream.as_mut().is_some_and(ProduceStream::has_ended) {
                (self.stream, self.answered_at) = (None, None);
            }
        }
        let count = records.len() as u64;
        let request = ProduceRequest {
            log: self.log.clone(),
            log_id: self.log_id,
            expected_offset: self.expected_offset,
            records,
            ..ProduceRequest::default()
        };
        self.expected_offset = self.expected_offset.map(|offset| offset.saturating_add(count));
        self.unanswered.push_back(Sent { request: request.clone(), bytes });
        self.unanswered_bytes += bytes;
        self.transmit(request)?;
        while self.broken {
            self.settle_one()?;
        }
        Ok(())
    }

    /// Waits for the response to the oldest request.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn settle_one(&mut self) -> Result<(), Failed> {
        let answer = self.stream.as_mut().and_then(ProduceStream::answer);
        match answer {
            Some(Ok(answer)) => self.take(&answer),
            Some(Err(error)) => self.begin_again(error),
            None => {
                Err(self.failed(ClientError::Local("the stream ended before every request was answered".to_owned())))
            }
        }
    }

    /// Waits for all responses.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn finish(&mut self) -> Result<(), Failed> {
        while !self.is_settled() {
            self.settle_one()?;
        }
        if let Some(mut stream) = self.stream.take() {
            stream.close();
            // Every request is answered, so the status of the stream does not matter.
            let _ = stream.answer();
        }
        Ok(())
    }

    fn transmit(&mut self, request: ProduceRequest) -> Result<(), Failed> {
        if self.stream.is_none() {
            if self.answered_at.is_none_or(|at| at.elapsed() > ANSWER_AGE_MAX) {
                self.find_node(None)?;
            }
            match self.client.produce_stream() {
                Ok(stream) => self.stream = Some(stream),
                Err(error) => return Err(self.failed(error)),
            }
            self.answered = 0;
            self.broken = false;
        }
        if let Some(stream) = &mut self.stream {
            self.broken |= self.broken || !stream.send(request);
        }
        Ok(())
    }

    fn take(&mut self, answer: &ProduceResponse) -> Result<(), Failed> {
        let Some(sent) = self.unanswered.pop_front() else {
            return Err(self.failed(ClientError::Local("the node answered more requests than it received".to_owned())));
        };
        self.unanswered_bytes -= sent.bytes;
        self.answered += 1;
        self.progress = Instant::now();
        self.answered_at = Some(self.progress);
        if self.done.records == 0 {
            self.done.first_offset = answer.offset;
        }
        let count = sent.request.records.len() as u64;
        self.done.next_offset = answer.offset + count;
        self.done.records += count;
        self.done.bytes += sent.bytes as u64;
        Ok(())
    }

    fn begin_again(&mut self, error: ClientError) -> Result<(), Failed> {
        let Some(status) = error.status() else { return Err(self.failed(error)) };
        let is_temporary = matches!(status.code, RpcStatusCode::UNAVAILABLE | RpcStatusCode::RESOURCE_EXHAUSTED);
        let certain = status.fate() == Fate::NotAppended
            && status.number("failed_request") == Some(self.answered)
            && status.number("unknown_through").is_none();
        if !is_temporary || !certain || self.progress.elapsed() > self.connect.timeout() {
            return Err(self.failed(error));
        }
        let stops = status.reason == "STOPPING";
        log::info!("{status}; trying again from the first request that was not appended");
        let wait = status.retry_after.unwrap_or(Duration::from_millis(200)).min(Duration::from_secs(2));
        // Nothing notifies a client when the cluster accepts records again.
        let _ = after(wait).recv();
        self.stream = None;
        let refused = self.client.addr().to_owned();
        self.find_node(Some(&refused).filter(|_| stops).map(String::as_str))?;
        let again: Vec<ProduceRequest> = self.unanswered.iter().map(|sent| sent.request.clone()).collect();
        for request in again {
            self.transmit(request)?;
        }
        Ok(())
    }

    /// Finds a node that answers: the current one, or one of the other addresses. The one at `stops` is tried last.
    ///
    /// # Errors
    /// [`Failed`], if none answers within the timeout; nothing was sent.
    fn find_node(&mut self, stops: Option<&str>) -> Result<(), Failed> {
        if stops.is_some() {
            self.reconnect(stops);
        }
        loop {
            // Every node answers this request, whatever the client's rights are.
            let error = match self.client.within(ANSWER_MAX).get_servers("") {
                Err(error) if !error.is_answer() || is_starting_or_stopping(&error) => error,
                Ok(_) | Err(_) => {
                    self.answered_at = Some(Instant::now());
                    return Ok(());
                }
            };
            if self.progress.elapsed() > self.connect.timeout() {
                return Err(Failed { error, unknown_records: 0 });
            }
            if error.is_answer() {
                // Nothing notifies a client when the node has stopped or started.
                let _ = after(RETRY).recv();
            }
            let here = self.client.addr().to_owned();
            self.reconnect(Some(&here));
        }
    }

    fn reconnect(&mut self, last: Option<&str>) {
        if let Ok(client) = self.connect.connect_within(ROUND_MAX, last) {
            self.client = client;
        }
    }

    fn failed(&self, error: ClientError) -> Failed {
        let through = error.status().and_then(|status| status.number("unknown_through"));
        let requests = match (error.fate(), through) {
            (_, Some(through)) => (through + 1).saturating_sub(self.answered) as usize,
            (Fate::NotAppended, None) => 0,
            (Fate::Unknown, None) => self.unanswered.len(),
        };
        let unknown_records = self.unanswered.iter().take(requests).map(|s| s.request.records.len() as u64).sum();
        Failed { error, unknown_records }
    }
}
