//! A pipelined produce that says exactly what became of every record.
//!
//! Requests are sent without waiting for responses, up to a window below the server's own. If the stream ends because of
//! something that passes (an election, a full queue, a node that stops) **and** the server says that nothing unanswered was
//! appended, a new stream begins with the first unanswered request. Otherwise it ends: nothing of unknown outcome is ever
//! sent again.
//!
//! Before a stream begins, a node is asked for something else. If none answers, nothing was sent, so what is known stays
//! known: a refused connection after a certain refusal is a certain failure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossbeam_channel::after;
use grpcio::RpcStatusCode;

use super::connect::{ANSWER_TURN, ConnectArgs};
use crate::client::{Client, ClientError, Fate, ProduceStream};
use crate::pb::log::{ProduceRequest, ProduceResponse, Record};

/// Unanswered requests; the server stops reading at 256.
const REQUESTS_MAX: usize = 32;
/// Unanswered bytes; the server stops reading at 8 MiB.
const BYTES_MAX: usize = 6 << 20;
/// An answer that is older says nothing about whether the node still runs.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(1);
/// How long one round over all addresses takes at most, so that the patience is looked at in between.
const ROUND_MAX: Duration = Duration::from_secs(1);

/// Between two questions for a node that stops or starts.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What is known to be appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Records.
    pub records: u64,
    /// Bytes of their input.
    pub bytes: u64,
    /// The first record's offset.
    pub first_offset: u64,
    /// Behind the last record's offset.
    pub next_offset: u64,
}

/// Why it ended.
#[derive(Clone, Debug)]
pub struct Failed {
    /// The status.
    pub error: ClientError,
    /// This many records, right after those that are done, may have been appended or not. 0: nothing else was appended.
    pub unknown_records: u64,
}

struct Sent {
    request: ProduceRequest,
    bytes: usize,
}

fn passes_at_a_start(error: &ClientError) -> bool {
    error.status().is_some_and(|status| matches!(status.reason.as_str(), "STOPPING" | "JOINING"))
}

/// Sends requests and counts answers.
pub struct Pipeline<'a> {
    client: Client,
    connect: &'a ConnectArgs,
    /// When the client's node last answered; `None` if its connection broke since.
    answered_at: Option<Instant>,
    log: String,
    log_id: Option<u64>,
    /// Where the next request has to come to stand.
    expected_offset: Option<u64>,
    stream: Option<ProduceStream>,
    /// Requests that the current stream has answered.
    answered: u64,
    /// The current stream takes no more; its status is still to be read.
    broken: bool,
    unanswered: VecDeque<Sent>,
    unanswered_bytes: usize,
    progress: Instant,
    done: Done,
}

impl<'a> Pipeline<'a> {
    /// Into `log`, and only as long as it has that id.
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

    /// Each request is appended only right behind the one before, and the first at this offset.
    pub fn expect_offset(&mut self, first: Option<u64>) {
        self.expected_offset = first;
    }

    /// The address of the node that it sends to.
    pub fn addr(&self) -> &str {
        self.client.addr()
    }

    /// What is known to be appended so far.
    pub fn done(&self) -> Done {
        self.done
    }

    /// True when every request is answered.
    pub fn is_settled(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// Sends records that came from `bytes` bytes of input; waits while the window is full.
    ///
    /// # Errors
    /// [`Failed`], about any request.
    pub fn send(&mut self, records: Vec<Record>, bytes: usize) -> Result<(), Failed> {
        while !self.unanswered.is_empty()
            && (self.unanswered.len() >= REQUESTS_MAX || self.unanswered_bytes + bytes > BYTES_MAX)
        {
            self.settle_one()?;
        }
        if self.unanswered.is_empty() {
            self.progress = Instant::now();
            // A stream that ended while there was no input has not got this request.
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

    /// Waits for the answer of the oldest request.
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

    /// Waits for every answer.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn finish(&mut self) -> Result<(), Failed> {
        while !self.is_settled() {
            self.settle_one()?;
        }
        if let Some(mut stream) = self.stream.take() {
            stream.close();
            // Everything is answered: what the stream says now can't change that.
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
            return Err(self.failed(ClientError::Local("the node answered more requests than it got".to_owned())));
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
        let passes = matches!(status.code, RpcStatusCode::UNAVAILABLE | RpcStatusCode::RESOURCE_EXHAUSTED);
        let certain = status.fate() == Fate::NotAppended
            && status.number("failed_request") == Some(self.answered)
            && status.number("unknown_through").is_none();
        if !passes || !certain || self.progress.elapsed() > self.connect.timeout() {
            return Err(self.failed(error));
        }
        let stops = status.reason == "STOPPING";
        log::info!("{status}; trying again from the first request that was not appended");
        let wait = status.retry_after.unwrap_or(Duration::from_millis(200)).min(Duration::from_secs(2));
        // A timer: nothing tells when the cluster takes records again.
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

    /// Makes sure that a node answers: the client's, or another one of the given addresses. The one at `stops` is asked last.
    ///
    /// # Errors
    /// [`Failed`], if none answers within the timeout: nothing was sent.
    fn find_node(&mut self, stops: Option<&str>) -> Result<(), Failed> {
        if stops.is_some() {
            self.reconnect(stops);
        }
        loop {
            // Every node answers that, whatever the client may do.
            let error = match self.client.within(ANSWER_TURN).get_servers("") {
                Err(error) if !error.is_answer() || passes_at_a_start(&error) => error,
                Ok(_) | Err(_) => {
                    self.answered_at = Some(Instant::now());
                    return Ok(());
                }
            };
            if self.progress.elapsed() > self.connect.timeout() {
                return Err(Failed { error, unknown_records: 0 });
            }
            if error.is_answer() {
                // A timer: nothing tells when it has stopped, or started.
                let _ = after(ASK_AGAIN).recv();
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
