//! A pipelined produce that reports the exact outcome of every record.
//!
//! Requests are sent without waiting for responses, up to a window that is smaller than the server's. If the stream
//! ends for a temporary reason (an election, a full queue, a node that stops, a lost connection), the pipeline opens a
//! new stream and sends the unanswered requests again, through any node. Each request has a sequence of the producer, so
//! one that was appended before is not appended again.
//!
//! Without a producer, requests are sent again only if the server reports that none of them was appended. Otherwise the
//! pipeline fails: a request with an unknown outcome is never sent again.
//!
//! Before it opens a stream, a node must have answered another request. If none answers, no produce request was sent,
//! so the outcome is known: nothing more was appended.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossbeam_channel::after;

use super::dialer::{ANSWER_MAX, Dialer, cannot_serve};
use crate::client::{Client, ClientError, Outcome, ProduceStream, Retry};
use crate::pb::v1::{ProduceRequest, ProduceResponse, Record};

/// The maximum of unanswered requests. The server stops reading at 256.
const REQUESTS_MAX: usize = 32;
/// The maximum of unanswered bytes. The server stops reading at 8 MiB.
const BYTES_MAX: usize = 6 << 20;
/// If the last response is older than this, the node is asked again before a stream is opened.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(1);
/// The time limit of one search over all addresses. The timeout is checked between searches.
const ROUND_MAX: Duration = Duration::from_secs(1);

/// The pause before a node that is starting or stopping is asked again.
const RETRY: Duration = Duration::from_millis(100);

/// The records that are known to be appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub records: u64,
    /// The bytes of input that these records were made from.
    pub bytes: u64,
    /// The offset of the first record.
    pub first_offset: u64,
    /// The offset after the last record.
    pub next_offset: u64,
}

/// Why a pipeline failed, and how many records have an unknown outcome.
#[derive(Clone, Debug)]
pub struct Failed {
    pub error: ClientError,
    /// The number of records after those of [`Pipeline::done`] whose outcome is unknown. If 0, nothing else was
    /// appended.
    pub unknown_records: u64,
}

struct Sent {
    request: ProduceRequest,
    bytes: usize,
}

/// The producer of a pipeline.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Its id.
    pub id: u64,
    /// Its epoch.
    pub epoch: u32,
    /// The sequence of its last request; 0 if there was none.
    pub last_sequence: u64,
}

/// Sends requests and counts responses.
pub struct Pipeline<'a> {
    client: Client,
    dialer: &'a Dialer,
    /// When the client's node last answered; `None` if the stream has ended since then.
    answered_at: Option<Instant>,
    log: String,
    log_id: Option<String>,
    /// The offset that the next request must get, if the user specified one.
    expected_offset: Option<u64>,
    producer: Option<Session>,
    /// An attempt to send the unanswered requests had an unknown outcome.
    is_uncertain: bool,
    stream: Option<ProduceStream>,
    /// The number of requests that were answered on the current stream.
    answered: u64,
    /// The current stream accepts no more requests, but its status is not read yet.
    broken: bool,
    unanswered: VecDeque<Sent>,
    unanswered_bytes: usize,
    progress: Instant,
    done: Done,
}

impl<'a> Pipeline<'a> {
    /// Creates a pipeline that appends to `log`. If `log_id` is set, the log must have this id.
    pub fn new(client: Client, dialer: &'a Dialer, log: &str, log_id: Option<String>) -> Pipeline<'a> {
        Pipeline {
            client,
            dialer,
            answered_at: Some(Instant::now()),
            log: log.to_owned(),
            log_id,
            expected_offset: None,
            producer: None,
            is_uncertain: false,
            stream: None,
            answered: 0,
            broken: false,
            unanswered: VecDeque::new(),
            unanswered_bytes: 0,
            progress: Instant::now(),
            done: Done::default(),
        }
    }

    /// Requires that the first request gets this offset, and each further request the offset after the previous one.
    pub fn expect_offset(&mut self, first: Option<u64>) {
        self.expected_offset = first;
    }

    /// Sends the requests as this producer.
    pub fn use_producer(&mut self, producer: Option<Session>) {
        self.producer = producer;
    }

    /// Returns the address of the current node.
    pub fn addr(&self) -> &str {
        self.client.addr()
    }

    /// Returns which records are known to be appended.
    pub fn done(&self) -> Done {
        self.done
    }

    /// Returns true if every request is answered.
    pub fn is_settled(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// Sends records that were made from `bytes` bytes of input. Waits while the window is full.
    ///
    /// # Errors
    /// [`Failed`], if this or an earlier request failed.
    pub fn send(&mut self, records: Vec<Record>, bytes: usize) -> Result<(), Failed> {
        while !self.unanswered.is_empty()
            && (self.unanswered.len() >= REQUESTS_MAX || self.unanswered_bytes + bytes > BYTES_MAX)
        {
            self.settle_one()?;
        }
        if self.unanswered.is_empty() {
            self.progress = Instant::now();
            // If the stream has ended while it was idle, a new one is needed.
            if self.stream.as_mut().is_some_and(ProduceStream::has_ended) {
                (self.stream, self.answered_at) = (None, None);
            }
        }
        let count = records.len() as u64;
        if let Some(producer) = &mut self.producer {
            producer.last_sequence += 1;
        }
        let producer = self.producer;
        let request = ProduceRequest {
            producer_id: producer.map_or(0, |producer| producer.id),
            producer_epoch: producer.map_or(0, |producer| producer.epoch),
            sequence: producer.map_or(0, |producer| producer.last_sequence),
            log: self.log.clone(),
            log_id: self.log_id.clone(),
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

    /// Waits for the response to the oldest request. If the stream ends instead, and it is safe, sends the unanswered
    /// requests again.
    ///
    /// # Errors
    /// [`Failed`], if a request failed and can't be retried.
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

    /// Waits for all responses, and closes the stream.
    ///
    /// # Errors
    /// [`Failed`], if a request failed and can't be retried.
    pub fn finish(&mut self) -> Result<(), Failed> {
        while !self.is_settled() {
            self.settle_one()?;
        }
        if let Some(mut stream) = self.stream.take() {
            stream.close();
            // All requests are answered, so the status of the stream does not matter.
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
        self.is_uncertain &= !self.unanswered.is_empty();
        self.done.records += count;
        self.done.bytes += sent.bytes as u64;
        Ok(())
    }

    fn begin_again(&mut self, error: ClientError) -> Result<(), Failed> {
        let Some(status) = error.status() else { return Err(self.failed(error)) };
        // A lost connection says nothing about the request.
        let is_temporary = status.retry() != Retry::No || self.producer.is_some() && !error.is_answer();
        let certain = status.outcome() == Outcome::None
            && status.number("failed_request") == Some(self.answered)
            && status.number("unknown_through").is_none();
        let may_send_again = certain || self.producer.is_some();
        if !is_temporary || !may_send_again || self.progress.elapsed() > self.dialer.timeout {
            return Err(self.failed(error));
        }
        self.is_uncertain |= !certain;
        let stops = status.retry() == Retry::Elsewhere || !error.is_answer();
        log::info!("{status}; trying again from the first request without an answer");
        let wait = status.retry_after.unwrap_or(Duration::from_millis(200)).min(Duration::from_secs(2));
        // Clients are not notified when the cluster accepts records again.
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

    /// Finds a node that answers: the current one, or one of the other addresses. The node at `stops` is tried last,
    /// because it is stopping.
    ///
    /// # Errors
    /// [`Failed`], if none answers within the timeout. Then no produce request was sent.
    fn find_node(&mut self, stops: Option<&str>) -> Result<(), Failed> {
        if stops.is_some() {
            self.reconnect(stops);
        }
        loop {
            // Every node answers this request, whatever the client's permissions are.
            let error = match self.client.within(ANSWER_MAX).get_servers("") {
                Err(error) if !error.is_answer() || cannot_serve(&error) => error,
                Ok(_) | Err(_) => {
                    self.answered_at = Some(Instant::now());
                    return Ok(());
                }
            };
            if self.progress.elapsed() > self.dialer.timeout {
                let unanswered = self.unanswered.iter().map(|sent| sent.request.records.len() as u64).sum();
                return Err(Failed { error, unknown_records: if self.is_uncertain { unanswered } else { 0 } });
            }
            if error.is_answer() {
                // Clients are not notified when the node has stopped or started.
                let _ = after(RETRY).recv();
            }
            let current = self.client.addr().to_owned();
            self.reconnect(Some(&current));
        }
    }

    fn reconnect(&mut self, last: Option<&str>) {
        if let Ok(client) = self.dialer.connect_within(ROUND_MAX, last) {
            self.client = client;
        }
    }

    fn failed(&self, error: ClientError) -> Failed {
        let through = error.status().and_then(|status| status.number("unknown_through"));
        let requests = match (error.outcome(), through) {
            _ if self.is_uncertain => self.unanswered.len(),
            (_, Some(through)) => (through + 1).saturating_sub(self.answered) as usize,
            (Outcome::None, None) => 0,
            (Outcome::Unknown | Outcome::Done, None) => self.unanswered.len(),
        };
        let unknown_records = self.unanswered.iter().take(requests).map(|s| s.request.records.len() as u64).sum();
        Failed { error, unknown_records }
    }
}
