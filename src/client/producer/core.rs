//! What the threads of a producer share: the queue, the unanswered requests and the stream.
//!
//! ```text
//!  callers ──► queue ──► requests ──► stream ──► node
//!     ▲                     │                      │
//!     └─── results ◄────────┴──────────────────────┘
//! ```
//!
//! A caller sends its record itself if nothing is unanswered. gRPC's thread, which receives an answer, sends what has
//! gathered meanwhile. So a record passes through no other thread. The worker opens streams, and decides after a
//! failure.
//!
//! While results are reported, callers do not send: the first one would send its next record alone, and all others would
//! wait for the answer to it. After the last report the callers run for a moment, and what they have queued is sent.
//!
//! Locks are taken in this order: `wire`, `completing`, `queue`. None is held while a thread waits.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::Sink as _;
use grpcio::{ClientDuplexSender, RpcStatusCode, WriteFlags};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::ack::{AckHandle, AckSlot};
use super::queue::{Ended, Entry, Limits, Queue};
use super::requests::{Request, Requests};
use crate::client::error::{Error, Result};
use crate::client::record::Record;
use crate::doorbell::Doorbell;
use crate::pb::v1::{self, ProduceRequest, ProduceResponse};
use crate::reason::Outcome;

/// How long callers may run before what they have queued is sent. A processor may be busy with other threads.
const GATHER_MAX: Duration = Duration::from_micros(500);

struct Link {
    sender: ClientDuplexSender<Arc<ProduceRequest>>,
    /// Wakes the receiver.
    waker: Waker,
}

/// The stream, and the requests for it.
pub(super) struct Wire {
    pub requests: Requests,
    link: Option<Link>,
    /// Distinguishes the current stream from earlier ones.
    generation: u64,
    /// Why the last stream ended, until the worker takes it.
    pub ended: Option<Error>,
    /// A request was answered, so the records that have gathered are sent.
    send_rest: bool,
}

impl Wire {
    pub fn has_stream(&self) -> bool {
        self.link.is_some()
    }
}

/// See the module.
pub(super) struct Core {
    pub queue: Mutex<Queue>,
    /// Of `queue`: records were answered, or no more are accepted.
    pub changed: Condvar,
    wire: Mutex<Wire>,
    /// Held while results are reported, so that they are reported in order.
    completing: Mutex<()>,
    /// Results are being reported, and what has gathered is sent afterwards.
    is_reporting: AtomicBool,
    /// The number of unanswered requests.
    in_flight: AtomicUsize,
    /// A caller wants to send, while another thread holds `wire`.
    is_wanted: AtomicBool,
    /// The limit of `queue`, for a check before a record is accepted.
    record_bytes_max: AtomicUsize,
    /// Wakes the worker.
    pub bell: Doorbell,
}

/// While it exists, results are being reported. A waker may panic.
struct Reporting<'a>(&'a AtomicBool);

impl Reporting<'_> {
    fn begin(is_reporting: &AtomicBool) -> Reporting<'_> {
        is_reporting.store(true, Ordering::SeqCst);
        Reporting(is_reporting)
    }
}

impl Drop for Reporting<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Core {
    pub fn new(queue: Queue, requests: Requests) -> Core {
        Core {
            record_bytes_max: AtomicUsize::new(queue.limits.record_bytes),
            queue: Mutex::new(queue),
            changed: Condvar::new(),
            wire: Mutex::new(Wire { requests, link: None, generation: 0, ended: None, send_rest: false }),
            completing: Mutex::new(()),
            is_reporting: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            is_wanted: AtomicBool::new(false),
            bell: Doorbell::default(),
        }
    }

    /// Returns true if a record of this size exceeds the limit of the log, as far as it is known.
    pub fn is_too_large(&self, bytes: usize) -> bool {
        bytes > self.record_bytes_max.load(Ordering::Relaxed)
    }

    /// Applies limits of the log that were read again.
    pub fn set_limits(&self, queue: &mut Queue, limits: Limits) {
        queue.limits = limits;
        self.record_bytes_max.store(limits.record_bytes, Ordering::Relaxed);
    }

    /// Accepts a record. Waits while the buffer is full.
    pub fn send(&self, record: Record, until: Option<Instant>) -> Result<AckHandle> {
        let bytes = record.content_bytes();
        let (record, slot) = (v1::Record::from(record), Arc::new(AckSlot::default()));
        let handle = AckHandle::new(slot.clone());
        let mut queue = self.queue.lock();
        loop {
            match &queue.ended {
                Some(Ended::Closing) => return Err(Error::closed("producer")),
                Some(Ended::Failed(error)) => return Err(error.with_outcome(Outcome::None)),
                None => {}
            }
            if bytes > queue.limits.record_bytes {
                return Err(too_large(bytes, queue.limits.record_bytes));
            }
            if queue.has_room(bytes) {
                break;
            }
            if !self.wait(&mut queue, until) {
                let text = format!("the buffer of the producer is full ({} records)", queue.unanswered());
                return Err(Error::local(RpcStatusCode::DEADLINE_EXCEEDED, text, Outcome::None));
            }
        }
        queue.push(record, bytes, slot, Instant::now());
        let is_full = queue.has_full_batch();
        drop(queue);
        let is_idle = || self.in_flight.load(Ordering::SeqCst) == 0 && !self.is_reporting.load(Ordering::SeqCst);
        if is_full || is_idle() {
            self.send_more();
        }
        Ok(handle)
    }

    /// Waits for a change of the queue. Returns false if the moment has come.
    fn wait(&self, queue: &mut MutexGuard<'_, Queue>, until: Option<Instant>) -> bool {
        queue.waiting += 1;
        let in_time = match until {
            None => {
                self.changed.wait(queue);
                true
            }
            Some(until) => !self.changed.wait_until(queue, until).timed_out(),
        };
        queue.waiting -= 1;
        in_time
    }

    /// Waits until every record that was accepted before is answered. Returns false if the moment has come.
    pub fn wait_settled(&self, until: Option<Instant>) -> bool {
        let mut queue = self.queue.lock();
        let target = queue.accepted();
        while queue.settled < target {
            if !self.wait(&mut queue, until) {
                return queue.settled >= target;
            }
        }
        true
    }

    /// Runs `act`, and then sends what callers wanted to send meanwhile.
    pub fn with_wire<T>(&self, act: impl FnOnce(&mut Wire) -> T) -> T {
        let mut wire = self.wire.lock();
        let result = act(&mut wire);
        self.release(wire);
        result
    }

    /// Releases the lock, and sends what callers wanted to send meanwhile.
    fn release(&self, wire: MutexGuard<'_, Wire>) {
        drop(wire);
        fence(Ordering::SeqCst);
        if self.is_wanted.load(Ordering::SeqCst) {
            self.send_more();
        }
    }

    /// Sends what can be sent. If another thread uses the stream, that one does it.
    fn send_more(&self) {
        self.is_wanted.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        while self.is_wanted.load(Ordering::SeqCst) {
            let Some(mut wire) = self.wire.try_lock() else { return };
            self.is_wanted.store(false, Ordering::SeqCst);
            self.pump(&mut wire);
            drop(wire);
            fence(Ordering::SeqCst);
        }
    }

    /// Sends unanswered requests that were not sent on this stream, and makes new ones.
    fn pump(&self, wire: &mut Wire) {
        loop {
            let Some(link) = &mut wire.link else { return self.bell.ring() };
            let mut context = Context::from_waker(&link.waker);
            // After the end of the stream, its status arrives at the receiver.
            let Poll::Ready(Ok(())) = Pin::new(&mut link.sender).poll_ready(&mut context) else { return };
            if wire.requests.next_to_send().is_none() && !self.make_request(wire) {
                return;
            }
            let (Some(link), Some(message)) = (&mut wire.link, wire.requests.next_to_send()) else { return };
            if Pin::new(&mut link.sender).start_send((message, WriteFlags::default())).is_err() {
                return;
            }
            wire.requests.mark_sent();
        }
    }

    fn make_request(&self, wire: &mut Wire) -> bool {
        let Some(room) = wire.requests.room() else { return false };
        let mut queue = self.queue.lock();
        if !wire.requests.is_empty() && !wire.send_rest && !queue.has_full_batch() {
            return false;
        }
        let batch = queue.take_batch(room);
        wire.send_rest &= !queue.is_empty();
        drop(queue);
        let Some(batch) = batch else { return false };
        wire.requests.push(batch);
        self.in_flight.store(wire.requests.len(), Ordering::SeqCst);
        true
    }

    /// Sends on a new stream what is unanswered. Returns the number of the stream.
    pub fn begin_stream(&self, sender: ClientDuplexSender<Arc<ProduceRequest>>) -> u64 {
        self.with_wire(|wire| {
            wire.generation += 1;
            wire.ended = None;
            wire.requests.begin_stream();
            // The receiver replaces the waker when it is polled first, before anything can wait.
            wire.link = Some(Link { sender, waker: Waker::noop().clone() });
            wire.generation
        })
    }

    /// Ends a stream, if it is the current one.
    pub fn end_stream(&self, generation: u64, error: Error) {
        self.with_wire(|wire| {
            if wire.generation == generation {
                self.cancel_ended(wire, error);
            }
        });
    }

    /// Leaves it to the worker what the end of the stream means.
    fn cancel_ended(&self, wire: &mut Wire, error: Error) {
        self.cancel_stream(wire);
        wire.ended = Some(error);
        self.bell.ring();
    }

    /// Cancels the stream. Nothing that still arrives on it counts.
    pub fn cancel_stream(&self, wire: &mut Wire) {
        wire.generation += 1;
        // Dropping the sender cancels the call, and so the receiver ends.
        wire.link = None;
    }

    /// Closes the sending side, if everything is answered. Returns false if the stream need not be waited for.
    pub fn close_stream(&self) -> bool {
        self.with_wire(|wire| {
            let Some(link) = wire.link.as_mut().filter(|_| wire.requests.is_empty()) else { return false };
            let mut context = Context::from_waker(&link.waker);
            matches!(Pin::new(&mut link.sender).poll_close(&mut context), Poll::Pending | Poll::Ready(Ok(())))
        })
    }

    /// Takes what has arrived on a stream. Returns false if it is not the current one.
    pub fn arrived(&self, generation: u64, waker: &Waker, answers: Vec<ProduceResponse>, end: Option<Error>) -> bool {
        let mut done = Vec::with_capacity(answers.len());
        let mut wire = self.wire.lock();
        if wire.generation != generation {
            self.release(wire);
            return false;
        }
        let mut end = end;
        for answer in answers {
            match wire.requests.answer(&answer) {
                Some(request) => done.push((request, answer)),
                None => {
                    let text = "the node sent an answer that belongs to no request";
                    end = Some(Error::local(RpcStatusCode::INTERNAL, text, Outcome::Unknown));
                }
            }
        }
        if !done.is_empty() {
            self.in_flight.store(wire.requests.len(), Ordering::SeqCst);
            wire.send_rest = true;
        }
        match end {
            Some(error) => self.cancel_ended(&mut wire, error),
            None => {
                if let Some(link) = &mut wire.link
                    && !link.waker.will_wake(waker)
                {
                    link.waker = waker.clone();
                }
                self.pump(&mut wire);
            }
        }
        self.complete(wire, done, |(request, answer)| {
            request.acknowledge(Some(answer.offset), answer.duplicate);
            request
        });
        true
    }

    /// Reports the results of requests, in order, and releases their space.
    pub fn complete<T>(&self, wire: MutexGuard<'_, Wire>, done: Vec<T>, report: impl Fn(T) -> Request) {
        if done.is_empty() {
            return self.release(wire);
        }
        let (completing, oldest) = (self.completing.lock(), self.oldest(&wire));
        let reporting = Reporting::begin(&self.is_reporting);
        drop(wire);
        fence(Ordering::SeqCst);
        // With requests in flight only a full one is sent.
        if self.is_wanted.load(Ordering::SeqCst) && self.in_flight.load(Ordering::SeqCst) > 0 {
            self.send_more();
        }
        let (mut count, mut bytes) = (0, 0);
        for one in done {
            let request = report(one);
            count += request.records.len();
            bytes += request.records.iter().map(|sent| sent.bytes).sum::<usize>();
        }
        self.settle(count, bytes, oldest);
        if count > 1 && self.in_flight.load(Ordering::SeqCst) == 0 {
            self.gather();
        }
        drop((reporting, completing));
        self.send_more();
    }

    /// Lets the callers run that a report has woken, as long as they send more.
    fn gather(&self) {
        let until = Instant::now() + GATHER_MAX;
        let mut before = None;
        while Instant::now() < until {
            let accepted = Some(self.queue.lock().accepted());
            if accepted == before {
                return;
            }
            before = accepted;
            std::thread::yield_now();
        }
    }

    pub fn lock_wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock()
    }

    /// Returns the number of the oldest record that is not answered.
    fn oldest(&self, wire: &Wire) -> u64 {
        let in_request = wire.requests.oldest().map(|sent| sent.number);
        in_request.unwrap_or_else(|| {
            let queue = self.queue.lock();
            queue.front().map_or(queue.accepted(), |entry| entry.number)
        })
    }

    fn settle(&self, count: usize, bytes: usize, oldest: u64) {
        let mut queue = self.queue.lock();
        queue.release(count, bytes);
        queue.settled = queue.settled.max(oldest);
        if queue.waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// Fails all records, in order, each with its own outcome, and accepts no more.
    pub fn fail_all(&self, error: &Error) {
        let mut wire = self.wire.lock();
        self.cancel_stream(&mut wire);
        // What was sent on it, and was not answered, may be appended.
        wire.requests.end_stream(&Error::local(RpcStatusCode::CANCELLED, "cancelled", Outcome::Unknown));
        let completing = self.completing.lock();
        let requests = wire.requests.take_all();
        self.in_flight.store(0, Ordering::SeqCst);
        let mut queue = self.queue.lock();
        // What is left when the application closes the producer is not a failure of the producer.
        if !error.is_closed() && !matches!(queue.ended, Some(Ended::Failed(_))) {
            queue.ended = Some(Ended::Failed(error.clone()));
        }
        let entries = queue.take_all();
        let (count, bytes, all) = (queue.unanswered(), queue.buffered_bytes(), queue.accepted());
        drop((queue, wire));
        requests.iter().for_each(|request| request.fail(error));
        fail(&entries, error);
        // The receiver may have taken answered records, whose space it releases before this.
        self.settle(count, bytes, all);
        self.changed.notify_all();
        drop(completing);
    }

    /// Forms the requests anew with other limits of the log, none of which may have been appended. Records that exceed the
    /// limits, or the one at `position` of the first request, fail alone. Returns whether this changes anything.
    pub fn form_anew(&self, limits: Limits, position: Option<usize>) -> bool {
        let record_bytes = limits.record_bytes;
        let wire = &mut self.wire.lock();
        let completing = self.completing.lock();
        let mut queue = self.queue.lock();
        let entries = wire.requests.dissolve();
        let named = position.and_then(|position| Some(entries.get(position)?.number));
        queue.put_back(entries);
        let before = queue.limits;
        self.set_limits(&mut queue, limits);
        let mut out = queue.extract(|entry| entry.bytes > record_bytes);
        if out.is_empty() && before == queue.limits {
            out = queue.extract(|entry| Some(entry.number) == named);
        }
        let changes = !out.is_empty() || before != queue.limits;
        let oldest = queue.front().map_or(queue.accepted(), |entry| entry.number);
        drop(queue);
        self.in_flight.store(0, Ordering::SeqCst);
        let bytes = out.iter().map(|entry| entry.bytes).sum();
        for entry in &out {
            entry.slot.complete(Err(too_large(entry.bytes, record_bytes)));
        }
        self.settle(out.len(), bytes, oldest);
        drop(completing);
        changes
    }
}

fn fail(entries: &[Entry], error: &Error) {
    let error = error.with_outcome(Outcome::None);
    entries.iter().for_each(|entry| entry.slot.complete(Err(error.clone())));
}

fn too_large(bytes: usize, max: usize) -> Error {
    let text = format!("record of {bytes} bytes exceeds max_record_bytes of the log ({max} bytes)");
    let limit = [("limit", "max_record_bytes".to_owned()), ("max", max.to_string())];
    Error::found(RpcStatusCode::INVALID_ARGUMENT, "RECORD_TOO_LARGE", text, &limit)
}
