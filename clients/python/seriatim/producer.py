"""The producer: batches, numbers and repeats requests, so that each record is appended once and in order."""

import collections
import concurrent.futures
import dataclasses
import logging
import os
import random
import socket
import threading
import time

import grpc

from .errors import Error, closed, timed_out
from .nodes import Attempts, Nodes, Route
from .record import Record
from .v1 import log_service_pb2 as pb

log = logging.getLogger("seriatim")

# What may be unanswered.
MAX_REQUESTS = 32
MAX_BYTES = 4 << 20
# What a record takes in memory beyond its content. It counts for the buffer only.
OVERHEAD = 64
# How long the limits of the log count as known, before a record is refused by them.
LIMITS_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Ack:
    """The acknowledgement of a record. Without an offset, it was appended, but the server does not know any more where."""

    offset: int | None
    # Whether an earlier attempt had appended it.
    duplicate: bool


@dataclasses.dataclass(slots=True)
class _Item:
    """A record that is not answered yet."""

    message: pb.Record
    size: int
    future: concurrent.futures.Future
    until: float


@dataclasses.dataclass(slots=True)
class _Request:
    """Records that are sent together, always with the same sequence."""

    sequence: int
    items: list[_Item]
    size: int
    # That of all attempts that have ended.
    outcome: str = "none"

    def note(self, outcome: str) -> None:
        """Notes the outcome of an attempt. A later one proves nothing about an earlier one."""
        if outcome == "done" or self.outcome == "none":
            self.outcome = outcome


class _Stream:
    """One call of ProduceStream."""

    def __init__(self):
        self.call = None
        # How many of the unanswered requests were sent on it.
        self.sent = 0
        # When it last made progress: an answer, or a request while none was unanswered.
        self.progress = 0.0
        # Set once it has ended. `error` is absent if it was cancelled.
        self.ended, self.error = False, None


class Producer:
    """Appends records to a log. All methods can be called by any thread."""

    def __init__(self, nodes: Nodes, of_log: str, **settings):
        self._core = _Core(nodes, of_log, **settings)

    @property
    def last_sequence(self) -> int:
        """The sequence of the last request of the process that had the name before. 0: none."""
        return self._core.registered.last_sequence

    @property
    def last_offset(self) -> int:
        """The offset of the last record of that request."""
        return self._core.registered.last_offset

    @property
    def records(self) -> int:
        """The number of records that all processes with the name had appended. A source continues after that many."""
        return self._core.registered.records

    def send(self, record: Record | bytes, timeout: float | None = None) -> "concurrent.futures.Future[Ack]":
        """Appends a record, and returns a future of its acknowledgement.

        Waits while the buffer is full, at most `timeout` seconds. Raises an error if the record can't be accepted: it
        is too large, the producer is closed or has failed. Before it is too large, the limit is read again, which takes
        at most the time of an attempt. Callbacks of the future must not block.
        """
        return self._core.send(record if isinstance(record, Record) else Record(record), timeout)

    def flush(self, timeout: float | None = None) -> None:
        """Waits until everything that was sent before is acknowledged. Raises the error if the producer has failed."""
        self._core.flush(timeout)

    def close(self, timeout: float | None = None) -> None:
        """Accepts no more records and flushes. What is not acknowledged in time fails, with its outcome.

        Raises the error if the producer has failed, or if records were left. A second call does nothing.
        """
        self._core.close(timeout)

    def __enter__(self) -> "Producer":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __del__(self):
        core = getattr(self, "_core", None)
        if core and not core.closing:
            log.warning("a producer was dropped without close log=%s unanswered=%d", core.log, core.count())
            core.abandon()


class _Core:
    """What the threads of a producer share. It does not know the `Producer`, which can be dropped."""

    def __init__(self, nodes, of_log, *, name, batch_records, batch_bytes, buffer_bytes, delivery_timeout):
        self.nodes, self.log, self.name = nodes, of_log, name
        self.batch_records, self.batch_bytes, self.buffer_bytes = batch_records, batch_bytes, buffer_bytes
        self.delivery_timeout = nodes.options.operation if delivery_timeout is None else delivery_timeout
        # Guards everything below. Notified of every change.
        self.changed = threading.Condition()
        # Records that are in no request yet, and the size of those.
        self.pending: collections.deque[_Item] = collections.deque()
        self.pending_bytes = 0
        self.unanswered: collections.deque[_Request] = collections.deque()
        self.unanswered_bytes = 0
        self.buffered = 0
        # A request was answered since the pending records began to gather.
        self.due = False
        # Counts records, for flush.
        self.accepted = self.answered = 0
        # No more records are accepted.
        self.closing = False
        # Why the producer has failed, and whether `close` has raised that.
        self.failure: Error | None = None
        # The threads end.
        self.stopped = threading.Event()
        # The last one, since the last answer.
        self.last_error: Error | None = None
        self.max_record_bytes = self.max_request_bytes = 0
        # Empty: not known yet.
        self.log_id = ""
        # Held while the limits are read again, and when that ended last.
        self.reading_limits = threading.Lock()
        self.limits_read = -LIMITS_SECONDS
        self.instance = random.SystemRandom().randrange(1, 1 << 64)
        self.next_sequence = 0
        self.registered = self._register(None)
        self.thread = threading.Thread(target=self._run, name=f"seriatim-producer-{of_log}", daemon=True)
        self.thread.start()

    # --- For applications ---

    def send(self, record, timeout):
        message, size = record.to_message(), record.size()
        now = time.monotonic()
        item = _Item(message, size, concurrent.futures.Future(), now + self.delivery_timeout)
        # It can't be cancelled.
        item.future.set_running_or_notify_cancel()
        if size > self.max_record_bytes:
            self._read_limits_again()
        fits = lambda: not self.buffered or self.buffered + size + OVERHEAD <= self.buffer_bytes  # noqa: E731
        with self.changed:
            if not self.changed.wait_for(lambda: self.failure or self.closing or fits(), timeout):
                raise timed_out("the buffer of the producer had no room", timeout)
            self._check_open()
            if size > self.max_record_bytes:
                raise self._too_large(size)
            item.until = time.monotonic() + self.delivery_timeout
            self.pending.append(item)
            self.pending_bytes += size
            self.buffered += size + OVERHEAD
            self.accepted += 1
            # Between these, the next answer wakes the threads.
            if len(self.pending) == 1 or self._is_full():
                self.changed.notify_all()
        return item.future

    def _read_limits_again(self):
        """An admin may have raised them. If no node answers in the time of an attempt, the known ones apply."""
        with self.changed:
            self._check_open()
        with self.reading_limits:
            if time.monotonic() - self.limits_read < LIMITS_SECONDS:
                return
            try:
                self._read_limits(self.nodes.options.attempt)
            except Error as error:
                log.info("the limits could not be read again log=%s error=%s", self.log, error)
            self.limits_read = time.monotonic()

    def _check_open(self):
        if self.failure:
            raise self.failure.with_outcome("none")
        if self.closing:
            raise closed("producer")

    def _too_large(self, size):
        limit = self.max_record_bytes
        metadata = {"limit": "max_record_bytes", "max": str(limit), "log": self.log}
        message = f"record of {size} bytes exceeds max_record_bytes ({limit}) of log {self.log}"
        return Error.make("INVALID_ARGUMENT", message, reason="RECORD_TOO_LARGE", metadata=metadata)

    def flush(self, timeout):
        with self.changed:
            if self.failure:
                raise self.failure
            target = self.accepted
            if not self.changed.wait_for(lambda: self.answered >= target, timeout):
                raise timed_out(f"{target - self.answered} records were not acknowledged", timeout)
            if self.failure:
                raise self.failure

    def close(self, timeout):
        with self.changed:
            if self.closing:
                return
            self.closing = True
            self.changed.notify_all()
            timeout = self.delivery_timeout if timeout is None else timeout
            if not self.changed.wait_for(lambda: self.answered >= self.accepted, timeout):
                message = f"the producer was closed before {self.accepted - self.answered} records were acknowledged"
                self.failure = self.failure or Error.make("CANCELLED", message, kind="closed")
        self.abandon()
        self.thread.join()
        if self.failure:
            raise self.failure

    def abandon(self):
        """Ends the threads. What is left fails."""
        self.closing = True
        self.stopped.set()
        with self.changed:
            self.changed.notify_all()

    def count(self):
        with self.changed:
            return self.accepted - self.answered

    # --- Registration ---

    def _register(self, until):
        """Registers the producer, and reads the limits of the log."""
        timeout = None if until is None else max(0.0, until - time.monotonic())
        self._read_limits(timeout)
        owner = f"{socket.gethostname()} {os.getpid()}"[:255]
        request = pb.InitProducerRequest(log=self.log, producer=self.name, instance=self.instance, owner=owner)
        request.log_id = self.log_id
        call = lambda stub, seconds: stub.InitProducer(request, timeout=seconds)  # noqa: E731
        attempts = Attempts(self.nodes, "InitProducer", timeout, self.log)
        registered = attempts.run(call, is_read=False, stop=self.stopped).producer
        self.producer_id, self.epoch = registered.producer_id, registered.epoch
        self.next_sequence = registered.last_sequence + 1
        return registered

    def _read_limits(self, timeout):
        request = pb.GetLogRequest(log=self.log, log_id=self.log_id or None)
        call = lambda stub, seconds: stub.GetLog(request, timeout=seconds)  # noqa: E731
        info = Attempts(self.nodes, "GetLog", timeout, self.log).run(call, is_read=True, stop=self.stopped).log
        with self.changed:
            self.max_record_bytes = info.config.max_record_bytes
            self.max_request_bytes = info.config.max_request_bytes
            self.log_id = info.log_id

    # --- Requests ---

    def _next_request(self, stream):
        """Waits for the next request of a stream, and returns it. None: the stream has ended."""
        with self.changed:
            while True:
                if stream.ended or self.stopped.is_set():
                    return None
                if stream.sent < len(self.unanswered):
                    request = self.unanswered[stream.sent]
                elif not (request := self._form()):
                    self.changed.wait()
                    continue
                stream.sent += 1
                if stream.sent == 1:
                    stream.progress = time.monotonic()
                    # The controller watches the time from now on.
                    self.changed.notify_all()
                return self._message(request)

    def _is_full(self):
        most_bytes = min(self.batch_bytes, self.max_request_bytes)
        return len(self.pending) >= self.batch_records or self.pending_bytes >= most_bytes

    def _form(self):
        """Makes the next request of the records that wait, if it is due and within the limits."""
        if not self.pending or (self.unanswered and not self.due and not self._is_full()):
            return None
        most_bytes = min(self.batch_bytes, self.max_request_bytes)
        if self.unanswered:
            room = MAX_BYTES - self.unanswered_bytes
            if len(self.unanswered) >= MAX_REQUESTS or min(self.pending_bytes, most_bytes) > room:
                return None
        items, size = [], 0
        while self.pending and len(items) < self.batch_records:
            if items and size + self.pending[0].size > most_bytes:
                break
            items.append(item := self.pending.popleft())
            size += item.size
        self.pending_bytes -= size
        self.due = self.due and bool(self.pending)
        request = _Request(self.next_sequence, items, size)
        self.next_sequence += 1
        self.unanswered.append(request)
        self.unanswered_bytes += size
        return request

    def _message(self, request):
        return pb.ProduceRequest(
            log=self.log,
            records=[item.message for item in request.items],
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            sequence=request.sequence,
            log_id=self.log_id,
        )

    def _take_apart(self):
        """Returns the records of all unanswered requests to those that wait. No attempt may have appended any."""
        if self.unanswered:
            self.next_sequence = self.unanswered[0].sequence
        for request in reversed(self.unanswered):
            self.pending.extendleft(reversed(request.items))
            self.pending_bytes += request.size
        self.unanswered.clear()
        self.unanswered_bytes = 0
        self.due = True

    def _pop(self):
        """Removes the first unanswered request, and returns it. The lock is held."""
        request = self.unanswered.popleft()
        self.unanswered_bytes -= request.size
        self.buffered -= request.size + OVERHEAD * len(request.items)
        self.due = bool(self.pending)
        self.last_error = None
        self.changed.notify_all()
        return request

    def _complete(self, request, response):
        """Completes the futures of a request. Without a response, it was appended at an unknown offset.

        The lock is not held: callbacks of the futures may use the producer.
        """
        for at, item in enumerate(request.items):
            item.future.set_result(Ack(response.offset + at, response.duplicate) if response else Ack(None, True))
        self._count(len(request.items))

    def _count(self, answered):
        with self.changed:
            self.answered += answered
            self.changed.notify_all()

    # --- The stream ---

    def _open(self, route):
        """Opens a stream at a node. Its threads send requests and take answers."""
        stream = _Stream()
        stub = self.nodes.stub(route.addr, self.log, min(self.nodes.options.attempt, self._patience()))

        def requests():
            while (message := self._next_request(stream)) is not None:
                yield message

        stream.call = stub.ProduceStream(requests())
        args = (stream, route)
        threading.Thread(target=self._take_answers, args=args, name="seriatim-acks", daemon=True).start()
        return stream

    def _take_answers(self, stream, route):
        error = None
        try:
            for response in stream.call:
                with self.changed:
                    if stream.ended:
                        break
                    if not stream.sent or response.count != len(self.unanswered[0].items):
                        raise ValueError("the server answered a request that was not sent")
                    request = self._pop()
                    stream.sent -= 1
                    stream.progress = time.monotonic()
                    route.succeeded()
                self._complete(request, response)
            else:
                # The server has ended the stream without a status of its own.
                error = Error.make("UNAVAILABLE", "the stream has ended", outcome="unknown", broken=True)
        except grpc.RpcError as rpc_error:
            error = Error.of(rpc_error)
        except Exception as bug:  # noqa: BLE001 The producer fails with it.
            log.exception("a bug log=%s", self.log)
            error = Error.make("INTERNAL", repr(bug), outcome="unknown")
        with self.changed:
            if not stream.ended:
                stream.ended, stream.error = True, error
            self.changed.notify_all()
        stream.call.cancel()

    def _run(self):
        """The controller: opens streams, watches times, decides after errors."""
        try:
            self._control()
        except Error as error:
            with self.changed:
                self.failure = self.failure or error
        except Exception as bug:  # noqa: BLE001 The producer fails with it.
            log.exception("a bug log=%s", self.log)
            with self.changed:
                self.failure = self.failure or Error.make("INTERNAL", repr(bug), outcome="unknown")
        self._fail()

    def _control(self):
        route = Route(self.nodes, self.log)
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.pending or self.unanswered or self.stopped.is_set())
                self._check_times()
            if self.stopped.is_set():
                return
            route.choose()
            error = None
            try:
                stream = self._open(route)
            except grpc.RpcError as rpc_error:
                # GetServers failed: no request was sent.
                error = Error.of(rpc_error).with_outcome("none")
            except ValueError:  # The channel was closed.
                raise closed("client") from None
            if not error:
                error = self._watch(stream)
            if error:
                self._recover(error, route)

    def _watch(self, stream):
        """Waits until the stream ends, and returns its error. None: the producer was stopped."""
        attempt = self.nodes.options.attempt
        try:
            with self.changed:
                try:
                    while not stream.ended:
                        self._check_times(stream)
                        if self.stopped.is_set():
                            self._note_sent(stream)
                            return None
                        wait = self._patience() if self.unanswered or self.pending else None
                        if stream.sent:
                            silent = time.monotonic() - stream.progress
                            if silent >= attempt:
                                message = f"no answer within {attempt} s"
                                stream.error = Error.make("UNAVAILABLE", message, outcome="unknown", broken=True)
                                break
                            wait = min(wait or attempt, attempt - silent)
                        self.changed.wait(wait)
                    self._note_outcome(stream)
                    return stream.error
                finally:
                    # Under the same lock: what is sent after the outcomes were noted would have none.
                    stream.ended = True
                    self.changed.notify_all()
        finally:
            stream.call.cancel()

    def _check_times(self, stream=None):
        """Fails the producer if its oldest record has waited too long."""
        oldest = self._oldest()
        if oldest and time.monotonic() >= oldest.until:
            if stream:
                self._note_sent(stream)
            raise timed_out("the record was not acknowledged", self.delivery_timeout, self.last_error)

    def _oldest(self):
        return self.unanswered[0].items[0] if self.unanswered else self.pending[0] if self.pending else None

    def _patience(self):
        """Returns how long the oldest record may wait."""
        oldest = self._oldest()
        return max(0.001, oldest.until - time.monotonic()) if oldest else self.delivery_timeout

    def _note_sent(self, stream):
        """Notes that everything that was sent on the stream may have been appended."""
        for at in range(min(stream.sent, len(self.unanswered))):
            self.unanswered[at].note("unknown")

    def _note_outcome(self, stream):
        """Notes which of the requests of a stream that has failed may have been appended."""
        error = stream.error
        if error is None:
            return
        if error.reason == "PRODUCER_UNKNOWN":
            # The error answers the failed request, and no later one was appended.
            return
        if error.outcome != "unknown":
            if stream.sent:
                self.unanswered[0].note(error.outcome)
            return
        first = error.metadata.get("failed_request", "")
        if first.isdigit():
            last = error.metadata.get("unknown_through", "")
            later = int(last) - int(first) if last.isdigit() else 0
            stream.sent = min(stream.sent, later + 1)
        self._note_sent(stream)

    # --- After an error ---

    def _recover(self, error, route):
        """Prepares the next attempt after an error, or raises it."""
        with self.changed:
            unknown = any(request.outcome != "none" for request in self.unanswered)
            first = self.unanswered[0] if self.unanswered else None
            is_idle = not first and not self.pending
        if is_idle:
            # No record has failed. The next one opens a stream.
            route.failed(error)
            return
        self.last_error = error
        if error.outcome == "done" and not error.is_retryable() and first:
            # The request succeeded, and its answer is lost.
            with self.changed:
                self._pop()
            self._complete(first, None)
            return
        if error.reason == "PRODUCER_UNKNOWN" and not self.name and not unknown:
            log.info("the server does not know the producer any more, it registers again log=%s", self.log)
            with self.changed:
                self._take_apart()
            try:
                self._register(time.monotonic() + self._patience())
            except Error as refused:
                # Whatever became of the registration, no record was appended.
                raise refused.with_outcome("none") from error
            return
        if error.reason in ("RECORD_TOO_LARGE", "REQUEST_TOO_LARGE") and first and not unknown:
            self._shrink(error, first)
            return
        if not error.is_retryable():
            raise error
        pause = route.failed(error)
        log.info("retry log=%s node=%s pause=%.3f error=%s", self.log, route.addr, pause, error)
        until = time.monotonic() + pause
        with self.changed:
            while not self.stopped.is_set() and (left := until - time.monotonic()) > 0:
                self._check_times()
                self.changed.wait(min(left, self._patience()))

    def _shrink(self, error, request):
        """Reads the limits of the log again, after it has refused a request that was within the earlier ones."""
        self._read_limits(self._patience())
        with self.changed:
            # The node that answers GetLog may not know yet what the leader knows.
            limit, most = error.metadata.get("limit", ""), error.metadata.get("max", "")
            if most.isdigit() and limit in ("max_record_bytes", "max_request_bytes"):
                setattr(self, limit, min(getattr(self, limit), int(most)))
            is_fine = all(item.size <= self.max_record_bytes for item in request.items)
            if is_fine and request.size <= min(self.batch_bytes, self.max_request_bytes):
                raise error
            self._take_apart()
            large = [item for item in self.pending if item.size > self.max_record_bytes]
            if large:
                self.pending = collections.deque(i for i in self.pending if i.size <= self.max_record_bytes)
                self.pending_bytes -= sum(item.size for item in large)
                self.buffered -= sum(item.size + OVERHEAD for item in large)
        for item in large:
            item.future.set_exception(self._too_large(item.size))
        self._count(len(large))

    def _fail(self):
        """Fails what is left, in order, each record with its own outcome."""
        with self.changed:
            self.stopped.set()
            if not self.failure and (self.unanswered or self.pending):
                self.failure = closed("producer")
            if self.failure and self.failure.kind != "closed":
                fenced = self.failure.kind == "fenced"
                log.log(logging.WARNING if fenced else logging.ERROR, "failed log=%s error=%s", self.log, self.failure)
            requests, failed = list(self.unanswered), []
            for request in requests:
                outcome = request.outcome
                if outcome == "none" and request is requests[0]:
                    outcome = self.failure.outcome
                failed += [(item, outcome) for item in request.items]
            failed += [(item, "none") for item in self.pending]
            self.unanswered.clear()
            self.pending.clear()
            self.buffered = self.pending_bytes = self.unanswered_bytes = 0
            self.changed.notify_all()
        for item, outcome in failed:
            if outcome == "done":
                item.future.set_result(Ack(None, True))
            else:
                item.future.set_exception(self.failure.with_outcome(outcome))
        self._count(len(failed))
