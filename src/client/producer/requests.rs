//! The requests that are not answered, and what is known about each.
//!
//! A request keeps its records and its sequence until it is answered, however often it is sent. What became of an
//! attempt is learned when its stream ends ([`Requests::end_stream`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::ack::{Ack, AckSlot};
use super::queue::Entry;
use crate::client::error::{Error, combined};
use crate::pb::v1::{ProduceRequest, ProduceResponse, Producer};
use crate::reason::Outcome;

/// The maximum of unanswered requests. The server keeps the answers to 64, and stops reading at 256.
const REQUESTS_MAX: usize = 32;
/// The maximum size of unanswered requests. The server stops reading at 8 MiB.
const BYTES_MAX: usize = 4 << 20;

/// Where a record of a request reports its result.
#[derive(Debug)]
pub(super) struct Sent {
    pub number: u64,
    pub bytes: usize,
    pub at: Instant,
    pub slot: Arc<AckSlot>,
}

/// A request that is not answered.
#[derive(Debug)]
pub(super) struct Request {
    message: Arc<ProduceRequest>,
    pub records: Vec<Sent>,
    encoded_bytes: usize,
    /// What became of it in all attempts that have ended.
    fate: Outcome,
}

impl Request {
    /// Reports the answer to each record. Without an offset, the answer is lost for good.
    pub fn acknowledge(&self, offset: Option<u64>, duplicate: bool) {
        for (position, sent) in (0..).zip(&self.records) {
            sent.slot.complete(Ok(Ack { offset: offset.map(|offset| offset + position), duplicate }));
        }
    }

    /// Reports an error to each record, with the outcome of this request. If it is known to be done, it has succeeded.
    pub fn fail(&self, error: &Error) {
        if self.fate == Outcome::Done {
            return self.acknowledge(None, true);
        }
        let error = error.with_outcome(self.fate);
        self.records.iter().for_each(|sent| sent.slot.complete(Err(error.clone())));
    }

    fn into_entries(self) -> Vec<Entry> {
        let message = Arc::try_unwrap(self.message).unwrap_or_else(|shared| (*shared).clone());
        let both = message.records.into_iter().zip(self.records);
        let entry = |(record, sent): (_, Sent)| Entry {
            record,
            bytes: sent.bytes,
            number: sent.number,
            at: sent.at,
            slot: sent.slot,
        };
        both.map(entry).collect()
    }
}

/// The unanswered requests of a producer, in the order of their sequences.
#[derive(Debug)]
pub(super) struct Requests {
    log: String,
    log_id: String,
    producer_id: u64,
    epoch: u32,
    /// The sequence of the last request.
    sequence: u64,
    unanswered: VecDeque<Request>,
    encoded_bytes: usize,
    /// How many of them were sent on the current stream.
    sent: usize,
    /// The number of answers on the current stream.
    answered: u64,
    /// When the oldest request began to wait for its answer on the current stream.
    since: Instant,
}

impl Requests {
    pub fn new(producer: &Producer) -> Requests {
        Requests {
            log: producer.log.clone(),
            log_id: producer.log_id.clone(),
            producer_id: producer.producer_id,
            epoch: producer.epoch,
            sequence: producer.last_sequence,
            unanswered: VecDeque::new(),
            encoded_bytes: 0,
            sent: 0,
            answered: 0,
            since: Instant::now(),
        }
    }

    pub fn len(&self) -> usize {
        self.unanswered.len()
    }

    pub fn is_empty(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// Returns the first record that is not answered.
    pub fn oldest(&self) -> Option<&Sent> {
        self.unanswered.front()?.records.first()
    }

    /// Returns when the oldest request began to wait for its answer.
    pub fn waits_since(&self) -> Option<Instant> {
        (!self.unanswered.is_empty()).then_some(self.since)
    }

    /// Returns true if the current stream has answered a request.
    pub fn has_answers(&self) -> bool {
        self.answered > 0
    }

    /// Returns how many bytes another request may have. `None`: there are too many requests.
    pub fn room(&self) -> Option<usize> {
        match self.unanswered.len() {
            0 => Some(usize::MAX),
            1..REQUESTS_MAX => Some(BYTES_MAX.saturating_sub(self.encoded_bytes)),
            REQUESTS_MAX.. => None,
        }
    }

    /// Makes the next request.
    pub fn push(&mut self, entries: Vec<Entry>) {
        if self.unanswered.is_empty() {
            self.since = Instant::now();
        }
        self.sequence += 1;
        let encoded_bytes = 128 + self.log.len() + entries.iter().map(Entry::encoded_bytes).sum::<usize>();
        let mut records = Vec::with_capacity(entries.len());
        let mut sent = Vec::with_capacity(entries.len());
        for Entry { record, bytes, number, at, slot } in entries {
            records.push(record);
            sent.push(Sent { number, bytes, at, slot });
        }
        let message = ProduceRequest {
            log: self.log.clone(),
            log_id: Some(self.log_id.clone()),
            records,
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            sequence: self.sequence,
            ..ProduceRequest::default()
        };
        self.encoded_bytes += encoded_bytes;
        self.unanswered.push_back(Request {
            message: Arc::new(message),
            records: sent,
            encoded_bytes,
            fate: Outcome::None,
        });
    }

    /// Returns the first request that was not sent on the current stream.
    pub fn next_to_send(&self) -> Option<Arc<ProduceRequest>> {
        self.unanswered.get(self.sent).map(|request| request.message.clone())
    }

    pub fn mark_sent(&mut self) {
        self.sent += 1;
    }

    /// Nothing is sent on the new stream yet.
    pub fn begin_stream(&mut self) {
        (self.sent, self.answered, self.since) = (0, 0, Instant::now());
    }

    /// Removes the request that an answer belongs to. Returns `None` if none was sent.
    pub fn answer(&mut self, answer: &ProduceResponse) -> Option<Request> {
        let sent = self.sent.checked_sub(1)?;
        let count = self.unanswered.front()?.records.len();
        if answer.count as usize != count {
            return None;
        }
        self.sent = sent;
        self.answered += 1;
        self.pop()
    }

    fn pop(&mut self) -> Option<Request> {
        self.since = Instant::now();
        let request = self.unanswered.pop_front()?;
        self.encoded_bytes -= request.encoded_bytes;
        Some(request)
    }

    /// Learns from the end of the stream what became of the requests that were sent on it.
    pub fn end_stream(&mut self, error: &Error) {
        let number = |key| error.status().number(key);
        let position = |number: u64| number.checked_sub(self.answered).and_then(|at| usize::try_from(at).ok());
        let failed = number("failed_request").map(position);
        // The answers to the requests before the failed one are lost.
        let uncertain = match (error.outcome(), failed) {
            (Outcome::None | Outcome::Done, Some(Some(failed))) => failed,
            (Outcome::Unknown, Some(Some(failed))) => {
                number("unknown_through").and_then(position).unwrap_or(failed).saturating_add(1)
            }
            // The stream as a whole was refused.
            (Outcome::None, None) if self.answered == 0 => 0,
            _ => self.sent,
        };
        let uncertain = uncertain.min(self.sent);
        for request in self.unanswered.iter_mut().take(uncertain) {
            request.fate = combined(request.fate, Outcome::Unknown);
        }
        if let (Outcome::Done, Some(Some(failed))) = (error.outcome(), failed)
            && failed < self.sent
            && let Some(request) = self.unanswered.get_mut(failed)
        {
            request.fate = Outcome::Done;
        }
        (self.sent, self.answered) = (0, 0);
    }

    /// The stream ended because the server does not know the producer: nothing was appended by this attempt.
    pub fn end_unknown_stream(&mut self) {
        (self.sent, self.answered) = (0, 0);
    }

    /// Returns true if it is known of every unanswered request whether it was appended.
    pub fn are_certain(&self) -> bool {
        self.unanswered.iter().all(|request| request.fate != Outcome::Unknown)
    }

    /// Returns what became of the oldest request.
    pub fn first_fate(&self) -> Option<Outcome> {
        Some(self.unanswered.front()?.fate)
    }

    /// Removes the oldest requests as far as they are done.
    pub fn take_done(&mut self) -> Vec<Request> {
        let mut done = Vec::new();
        while self.first_fate() == Some(Outcome::Done) {
            done.extend(self.pop());
        }
        done
    }

    /// Sends the requests as another producer, from its first sequence on. None of them may have been appended.
    pub fn renumber(&mut self, producer: &Producer) {
        (self.producer_id, self.epoch) = (producer.producer_id, producer.epoch);
        self.sequence = producer.last_sequence;
        for request in &mut self.unanswered {
            self.sequence += 1;
            let message = Arc::make_mut(&mut request.message);
            (message.producer_id, message.producer_epoch) = (self.producer_id, self.epoch);
            message.sequence = self.sequence;
        }
    }

    /// Dissolves all requests, so that their records can form others with the same sequences. None of them may have
    /// been appended.
    pub fn dissolve(&mut self) -> Vec<Entry> {
        self.sequence -= self.unanswered.len() as u64;
        self.take_all().into_iter().flat_map(Request::into_entries).collect()
    }

    pub fn take_all(&mut self) -> Vec<Request> {
        (self.encoded_bytes, self.sent) = (0, 0);
        self.unanswered.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use grpcio::RpcStatusCode as Code;

    use super::*;
    use crate::client::error_kind::ErrorKind;
    use crate::client::producer::ack::AckHandle;
    use crate::client::status::{ClientError, Status};
    use crate::pb::v1::Record;
    use crate::reason::Retry;
    use Outcome::{Done, None as Nothing, Unknown};

    /// Requests of two records each, of which the first `sent` were sent.
    fn requests(count: u64, sent: usize) -> (Requests, Vec<Arc<AckSlot>>) {
        let mut requests = Requests::new(&Producer { producer_id: 9, last_sequence: 4, ..Producer::default() });
        let mut slots = Vec::new();
        for number in 0..count {
            let entry = |number| {
                let slot = Arc::new(AckSlot::default());
                slots.push(slot.clone());
                Entry { record: Record::default(), bytes: 0, number, at: Instant::now(), slot }
            };
            requests.push([2 * number, 2 * number + 1].map(entry).into());
        }
        requests.begin_stream();
        (0..sent).for_each(|_| requests.mark_sent());
        (requests, slots)
    }

    fn status(outcome: Outcome, more: &[(&str, &str)]) -> Error {
        let keys = [("outcome", outcome.code()), ("retry", Retry::No.code())];
        let metadata = keys.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ClientError::Status(Status::local(Code::ABORTED, "INVENTED", String::new(), metadata.collect())).into()
    }

    fn fates(requests: &Requests) -> Vec<Outcome> {
        requests.unanswered.iter().map(|request| request.fate).collect()
    }

    fn answer(offset: u64) -> ProduceResponse {
        ProduceResponse { offset, count: 2, ..ProduceResponse::default() }
    }

    #[test]
    fn a_broken_connection_makes_every_request_uncertain_that_was_sent() {
        let (mut requests, _) = requests(3, 2);
        requests.end_stream(&Error::local(Code::UNAVAILABLE, "", Unknown));
        assert_eq!(fates(&requests), [Unknown, Unknown, Nothing]);
        // Later refusals prove nothing about it.
        requests.begin_stream();
        (0..3).for_each(|_| requests.mark_sent());
        requests.end_stream(&status(Nothing, &[("failed_request", "0")]));
        assert_eq!(fates(&requests), [Unknown, Unknown, Nothing]);
    }

    #[test]
    fn the_end_of_a_stream_tells_which_requests_are_uncertain() {
        let after = |error: &Error| {
            let (mut requests, _) = requests(4, 4);
            requests.answer(&answer(0)).expect("one is answered");
            requests.end_stream(error);
            fates(&requests)
        };
        assert_eq!(after(&status(Nothing, &[("failed_request", "1")])), [Nothing; 3]);
        assert_eq!(
            after(&status(Nothing, &[("failed_request", "2")])),
            [Unknown, Nothing, Nothing],
            "an answer is lost"
        );
        let through = [("failed_request", "1"), ("unknown_through", "2")];
        assert_eq!(after(&status(Unknown, &through)), [Unknown, Unknown, Nothing]);
        assert_eq!(after(&status(Unknown, &[("failed_request", "1")])), [Unknown, Nothing, Nothing]);
        assert_eq!(after(&status(Done, &[("failed_request", "1")])), [Done, Nothing, Nothing]);
        assert_eq!(after(&status(Nothing, &[])), [Unknown; 3]);
        assert_eq!(after(&status(Unknown, &[])), [Unknown; 3]);
        assert_eq!(after(&status(Nothing, &[("failed_request", "0")])), [Unknown; 3], "it contradicts the answers");
    }

    #[test]
    fn a_stream_that_is_refused_as_a_whole_appends_nothing() {
        let (mut requests, slots) = requests(2, 2);
        let error = status(Nothing, &[]);
        requests.end_stream(&error);
        assert_eq!(fates(&requests), [Nothing; 2]);
        requests.take_all().iter().for_each(|request| request.fail(&error));
        let results = slots.iter().map(|slot| AckHandle::new(slot.clone()).result());
        let errors: Vec<Error> = results.map(|result| result.expect("a result").expect_err("failed")).collect();
        assert!(errors.iter().all(|error| !error.may_have_been_done() && error.kind() == ErrorKind::Other));
    }

    #[test]
    fn requests_keep_their_sequences_until_they_are_renumbered_or_dissolved() {
        let (mut requests, _) = requests(3, 0);
        let sequences = |requests: &Requests| -> Vec<u64> {
            requests.unanswered.iter().map(|request| request.message.sequence).collect()
        };
        assert_eq!(sequences(&requests), [5, 6, 7]);
        requests.renumber(&Producer { producer_id: 10, ..Producer::default() });
        assert_eq!(sequences(&requests), [1, 2, 3]);
        let entries = requests.dissolve();
        assert_eq!(entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        requests.push(entries);
        assert_eq!(sequences(&requests), [1]);
    }
}
