"""The consumer: reads a log without gaps and repetitions, across failures of nodes."""

import collections
import dataclasses
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Iterator

import grpc

from .errors import Error, closed
from .nodes import Attempts, Nodes, Route
from .record import Record
from .v1 import log_service_pb2 as pb

log = logging.getLogger("seriatim")

# What is read ahead. A message has at most 1,000 records and 1 MiB, except a single record that is larger.
AHEAD_RECORDS = 10_000
AHEAD_BYTES = 4 << 20
MESSAGE_RECORDS = 1000
MESSAGE_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Start:
    """Where reading starts: EARLIEST, LATEST, or at an offset, a time, or the last records."""

    kind: int
    offset: int = 0
    time_us: int = 0

    @staticmethod
    def at(offset: int) -> "Start":
        return Start(pb.START_OFFSET, offset=offset)

    @staticmethod
    def time(time_us: int) -> "Start":
        """At the first record that was appended at or after a time, in microseconds since 1970."""
        return Start(pb.START_TIME, time_us=time_us)

    @staticmethod
    def last(count: int) -> "Start":
        return Start(pb.START_LAST, offset=count)


Start.EARLIEST = Start(pb.START_EARLIEST)
Start.LATEST = Start(pb.START_LATEST)


@dataclasses.dataclass(slots=True)
class _Gap:
    """Records that were trimmed before they were read."""

    count: int


class _Stream:
    """One call of ConsumeStream."""

    def __init__(self, call):
        self.call = call
        # When the last message arrived. The time while the buffer is full does not count.
        self.heard = time.monotonic()
        self.is_waiting_for_room = self.has_answered = False
        self.ended, self.error = False, None


class Consumer:
    """Iterates over the records of a log. One thread reads at a time; any thread may commit and close."""

    def __init__(self, nodes: Nodes, of_log: str, start: Start, **settings):
        self._core = _Core(nodes, of_log, start, **settings)

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        record = self.poll(None)
        if record is None:
            raise StopIteration
        return record

    def poll(self, timeout: float | None) -> Record | None:
        """Waits for the next record. Returns None at the time-out, and once the consumer is closed."""
        return self._core.poll(timeout)

    @property
    def skipped(self) -> int:
        """How many records were trimmed before they could be read, up to the last record that was taken."""
        return self._core.skipped

    @property
    def position(self) -> int | None:
        """The offset after the last record that was taken. None: the start is not known yet."""
        return self._core.taken

    def commit(self, timeout: float | None = None) -> int:
        """Stores the position after the last record that was taken in the cursor, and returns it."""
        return self._core.commit(timeout)

    def close(self, timeout: float | None = None) -> None:
        """Ends the consumer. With auto_commit, the position is committed once more, within `timeout` seconds."""
        self._core.close(timeout)

    def __enter__(self) -> "Consumer":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __del__(self):
        core = getattr(self, "_core", None)
        if core and not core.stopped.is_set():
            log.warning("a consumer was dropped without close log=%s", core.log)
            core.stop()


class _Core:
    """What the threads of a consumer share. It does not know the `Consumer`, which can be dropped."""

    def __init__(self, nodes, of_log, start, *, cursor, skip_trimmed, auto_commit, heartbeat, max_silence):
        if auto_commit is not None and not cursor:
            raise ValueError("auto_commit needs a cursor")
        self.nodes, self.log, self.start = nodes, of_log, start
        self.cursor, self.skip_trimmed, self.auto_commit = cursor, skip_trimmed, auto_commit
        self.heartbeat, self.max_silence = heartbeat, max_silence
        # Guards everything below. Notified of every change.
        self.changed = threading.Condition()
        self.ahead: collections.deque[Record | _Gap] = collections.deque()
        self.ahead_bytes = 0
        # Where the next stream starts. None: at `start`.
        self.resume: int | None = None
        self.log_id: str | None = None
        self.failure: Error | None = None
        self.stopped = threading.Event()
        self.heard = time.monotonic()
        # The positions after the last record that was taken, and after the last one whose successor was asked for.
        self.taken: int | None = None
        self.done: int | None = None
        self.skipped = 0
        # Held during a commit.
        self.committing = threading.Lock()
        self.committed: int | None = None
        self.epoch = 0
        # The nodes that answered with RECORD_DAMAGED since the last record.
        self.damaged: set[str] = set()
        if cursor:
            self._acquire()
        self.threads = [self._thread(self._run, "consumer")]
        if auto_commit is not None:
            self.threads.append(self._thread(self._commit_regularly, "commits"))

    def _thread(self, run, what):
        thread = threading.Thread(target=run, name=f"seriatim-{what}-{self.log}", daemon=True)
        thread.start()
        return thread

    # --- For applications ---

    def poll(self, timeout):
        until = None if timeout is None else time.monotonic() + timeout
        with self.changed:
            self.done = self.taken
            while True:
                if self.stopped.is_set():
                    return None
                if self.failure and self.failure.kind == "fenced":
                    # What was read ahead belongs to the other process.
                    raise self.failure
                if self.ahead:
                    item = self.ahead.popleft()
                    if isinstance(item, _Gap):
                        self.skipped += item.count
                        continue
                    self.ahead_bytes -= item.size()
                    self.taken = item.offset + 1
                    self.changed.notify_all()
                    return item
                if self.failure:
                    raise self.failure
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self.changed.wait(left)

    def commit(self, timeout):
        if not self.cursor:
            raise ValueError("the consumer has no cursor")
        with self.changed:
            if self.stopped.is_set():
                raise closed("consumer")
        return self._commit(lambda: self.taken, timeout)

    def _must_commit(self):
        """Returns whether auto_commit has something to do. The application may have committed more."""
        with self.changed:
            return self.done > self.committed

    def _commit(self, position, timeout=None, stop=None):
        """Commits what `position` returns once no other commit is in flight. The cursor never moves back."""
        with self.committing:
            if self.failure and self.failure.kind == "fenced":
                raise self.failure
            with self.changed:
                position = max(position(), self.committed)
            request = pb.CommitCursorRequest(log=self.log, cursor=self.cursor, next_offset=position, epoch=self.epoch)
            request.log_id = self.log_id
            call = lambda stub, seconds: stub.CommitCursor(request, timeout=seconds)  # noqa: E731
            try:
                response = Attempts(self.nodes, "CommitCursor", timeout).run(call, is_read=False, stop=stop)
            except Error as error:
                if error.kind == "fenced":
                    self._fail(error)
                raise
            self.committed = response.cursor.next_offset
            return self.committed

    def close(self, timeout):
        with self.changed:
            if self.stopped.is_set():
                return
        self.stop()
        for thread in self.threads:
            thread.join()
        is_fenced = self.failure and self.failure.kind == "fenced"
        if self.auto_commit is not None and not is_fenced and self._must_commit():
            self._commit(lambda: self.done, timeout)

    def stop(self):
        with self.changed:
            self.stopped.set()
            self.changed.notify_all()

    # --- The cursor ---

    def _acquire(self):
        request = pb.AcquireCursorRequest(log=self.log, cursor=self.cursor, start=self.start.kind)
        request.instance = random.SystemRandom().randrange(1, 1 << 64)
        request.offset, request.start_time_us = self.start.offset, self.start.time_us
        request.owner = f"{socket.gethostname()} {os.getpid()}"[:255]
        call = lambda stub, seconds: stub.AcquireCursor(request, timeout=seconds)  # noqa: E731
        acquired = Attempts(self.nodes, "AcquireCursor", None).run(call, is_read=False).cursor
        self.resume = self.taken = self.done = self.committed = acquired.next_offset
        self.log_id, self.epoch = acquired.log_id, acquired.epoch

    def _commit_regularly(self):
        while not self.stopped.wait(self.auto_commit):
            try:
                if self._must_commit():
                    self._commit(lambda: self.done, stop=self.stopped)
            except Error as error:
                if self.stopped.is_set():
                    return
                log.warning("commit failed log=%s cursor=%s error=%s", self.log, self.cursor, error)
                if error.kind == "fenced":
                    return
                if not error.is_retryable() and error.kind != "timeout":
                    self._fail(error)
                    return

    # --- The stream ---

    def _fail(self, error):
        with self.changed:
            if not self.failure and not self.stopped.is_set():
                self.failure = error
                level = logging.WARNING if error.kind == "fenced" else logging.INFO
                log.log(level, "ended log=%s error=%s", self.log, error)
            self.changed.notify_all()

    def _request(self):
        request = pb.ConsumeRequest(log=self.log, heartbeat_ms=int(self.heartbeat * 1000))
        request.max_records, request.max_bytes = MESSAGE_RECORDS, MESSAGE_BYTES
        if self.cursor:
            request.cursor, request.cursor_epoch = self.cursor, self.epoch
        if self.resume is None:
            request.start, request.offset = self.start.kind, self.start.offset
            request.start_time_us = self.start.time_us
        else:
            request.start, request.offset = pb.START_OFFSET, self.resume
        if self.log_id is not None:
            request.log_id = self.log_id
        return request

    def _run(self):
        """The controller: opens streams, watches for silence, decides after errors."""
        try:
            route = Route(self.nodes)
            while not self.stopped.is_set() and not self.failure:
                route.choose()
                error = self._read(route)
                if error and not self.stopped.is_set():
                    self._recover(error, route)
        except Error as error:
            self._fail(error)
        except Exception as bug:  # noqa: BLE001 The consumer fails with it.
            log.exception("a bug log=%s", self.log)
            self._fail(Error.make("INTERNAL", repr(bug)))

    def _read(self, route):
        """Reads from one node until that fails, and returns the error. None: the consumer was stopped."""
        try:
            stub = self.nodes.stub(route.addr)
            stream = _Stream(stub.ConsumeStream(self._request()))
        except grpc.RpcError as rpc_error:
            return self._error(rpc_error)
        except ValueError:  # The channel was closed.
            raise closed("client") from None
        reader = threading.Thread(target=self._take, args=(stream, route), name="seriatim-reader", daemon=True)
        reader.start()
        try:
            with self.changed:
                while not stream.ended and not self.stopped.is_set() and not self.failure:
                    if stream.is_waiting_for_room:
                        self.changed.wait()
                        continue
                    # The first message comes at once, and later ones at least as often as heartbeats.
                    limit = 3 * self.heartbeat if stream.has_answered else self.nodes.options.attempt
                    silent = time.monotonic() - stream.heard
                    if silent >= limit:
                        message = f"no message within {limit} s"
                        return Error.make("UNAVAILABLE", message, broken=True)
                    self.changed.wait(limit - silent)
                return stream.error
        finally:
            with self.changed:
                stream.ended = True
                self.changed.notify_all()
            stream.call.cancel()
            reader.join()

    @staticmethod
    def _error(rpc_error):
        error = Error.of(rpc_error)
        # Nothing is done by reading.
        return error.with_outcome("none") if error.broken else error

    def _take(self, stream, route):
        """Takes the messages of a stream, and waits while enough is read ahead."""
        error = None
        try:
            for message in stream.call:
                with self.changed:
                    if stream.ended:
                        return
                    self._accept(message, route)
                    stream.heard = self.heard = time.monotonic()
                    stream.has_answered = True
                    route.succeeded()
                    self.changed.notify_all()
                    stream.is_waiting_for_room = not self._has_room()
                    self.changed.wait_for(lambda: stream.ended or self._has_room())
                    stream.is_waiting_for_room = False
                    stream.heard = self.heard = time.monotonic()
                    self.changed.notify_all()
            error = Error.make("UNAVAILABLE", "the stream has ended", broken=True)
        except grpc.RpcError as rpc_error:
            error = self._error(rpc_error)
        except Error as refused:
            error = refused
        except Exception as bug:  # noqa: BLE001 The consumer fails with it.
            log.exception("a bug log=%s", self.log)
            error = Error.make("INTERNAL", repr(bug))
        with self.changed:
            if not stream.ended:
                stream.ended, stream.error = True, error
            self.changed.notify_all()

    def _has_room(self):
        return len(self.ahead) <= AHEAD_RECORDS - MESSAGE_RECORDS and self.ahead_bytes <= AHEAD_BYTES - MESSAGE_BYTES

    def _accept(self, message, route):
        """Takes a message, unless its records do not continue those before."""
        expected = self.resume
        for record in message.records:
            if expected is not None and record.offset != expected:
                text = f"node {route.addr} sent offset {record.offset} instead of {expected} of log {self.log}"
                raise Error.make("DATA_LOSS", text)
            expected = record.offset + 1
        if expected is not None and message.resume_offset != expected:
            text = f"node {route.addr} sent the resume offset {message.resume_offset} instead of {expected}"
            raise Error.make("DATA_LOSS", f"{text} of log {self.log}")
        if self.taken is None:
            first = message.records[0].offset if message.records else message.resume_offset
            self.taken = self.done = first
        for record in map(Record.of_message, message.records):
            self.ahead.append(record)
            self.ahead_bytes += record.size()
        self.resume = message.resume_offset
        self.log_id = self.log_id or message.log_id
        if message.records:
            self.damaged.clear()

    # --- After an error ---

    def _recover(self, error, route):
        """Prepares the next attempt after an error, or raises it."""
        if error.reason == "OFFSET_TRIMMED" and self.skip_trimmed:
            first = error.metadata.get("first_offset", "")
            position = self.resume if self.resume is not None else self.start.offset
            if first.isdigit() and int(first) > position:
                with self.changed:
                    self.ahead.append(_Gap(int(first) - position))
                    self.resume = int(first)
                log.warning("trimmed log=%s from=%d to=%s", self.log, position, first)
                return
        if error.reason == "RECORD_DAMAGED":
            self.damaged.add(route.addr)
            if self.damaged.issuperset(self.nodes.addrs()):
                raise error
        if not error.is_retryable():
            raise error
        pause = route.failed(error)
        if self.max_silence is not None and time.monotonic() + pause - self.heard > self.max_silence:
            raise error
        log.info("retry log=%s node=%s pause=%.3f error=%s", self.log, route.addr, pause, error)
        self.stopped.wait(pause)
