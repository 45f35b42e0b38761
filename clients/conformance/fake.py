"""Fake nodes of seriatim.v1 that share one model of a log, and fail where a test says.

`FakeCluster` starts the nodes. Each is a gRPC server behind a small TCP proxy, so that a test can really break or freeze its
connections. `Model` is what a correct cluster does: offsets, producers with deduplication, cursors. A `Fault` changes what one node
does with one request. Everything that a node receives is kept in `FakeCluster.seen`.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import queue
import socket
import threading
import time
from collections.abc import Callable

import grpc
from google.protobuf import any_pb2, duration_pb2, text_format, unknown_fields
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from driver import show
from seriatim.v1 import log_service_pb2 as pb
from seriatim.v1 import log_service_pb2_grpc

# How long a condition may take on a busy machine. A passing test does not wait that long.
TIMEOUT = 30.0
# The server keeps the answers to that many requests of a producer.
KEPT_ANSWERS = 64
CODES = {code.name: code for code in grpc.StatusCode}


class Refused(Exception):
    """The status of a request that fails. Without `reason` it has no ErrorInfo. `trailer` replaces its details."""

    def __init__(self, code, reason="", outcome=None, retry=None, metadata=None, retry_ms=None, message="", trailer=b""):
        super().__init__(reason or code)
        self.code, self.reason, self.retry_ms, self.trailer = CODES[code], reason, retry_ms, trailer
        self.metadata = {name: str(value) for name, value in (metadata or {}).items()}
        self.has_info = bool(reason)
        if outcome:
            self.metadata |= {"outcome": outcome, "retry": retry}
        self.message = message or f"{reason or code} of the fake"

    def abort(self, context, **more):
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        details = []
        if self.has_info:
            metadata = self.metadata | {name: str(value) for name, value in more.items()}
            details.append(error_details_pb2.ErrorInfo(domain="seriatim", reason=self.reason, metadata=metadata))
        if self.retry_ms is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(self.retry_ms)
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        if not details:
            # gRPC's own statuses have no trailer with a status.
            if self.trailer:
                context.set_trailing_metadata([("grpc-status-details-bin", self.trailer)])
            context.abort(self.code, self.message)
        for detail in details:
            status.details.append(any_pb2.Any())
            status.details[-1].Pack(detail)
        context.abort_with_status(rpc_status.to_status(status))


# --- Faults ---------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Refuse:
    """Answers with an error. With `applied`, the request is done nevertheless."""

    error: Refused
    applied: bool = False


@dataclasses.dataclass
class Break:
    """Breaks all connections of the node instead of an answer."""

    applied: bool = False


@dataclasses.dataclass
class Silent:
    """Never answers."""

    applied: bool = False


@dataclasses.dataclass
class Answer:
    """Answers with a message, and does nothing."""

    message: object
    applied = False


@dataclasses.dataclass
class Fault:
    """Applies `action` to the requests of a method: after `skip` of them, to `times`, at `node` (None: at any)."""

    method: str
    action: object
    node: int | None = None
    times: float = 1
    skip: int = 0
    when: Callable = lambda request: True

    def takes(self, method, node, request):
        if method != self.method or self.node not in (None, node) or self.times <= 0 or not self.when(request):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclasses.dataclass
class Seen:
    """A request that a node has received. A stream of ProduceStream has one for each of its requests."""

    time: float
    node: int
    method: str
    request: object
    # Counts the calls, so that requests of the same stream can be told apart from others.
    call: int


# --- The model ------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class ProducerState:
    producer_id: int
    name: str
    instance: int
    epoch: int = 1
    last_sequence: int = 0
    last_offset: int = 0
    records: int = 0
    # By sequence: the answer, and the records of the request.
    answers: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class CursorState:
    next_offset: int
    epoch: int = 0
    revision: int = 1
    instance: int = 0
    owner: str = ""
    metadata: bytes = b""
    commit_time_us: int = 0

    def acquire(self):
        """Begins an epoch. It rises, not necessarily by one."""
        self.revision += 1
        self.epoch = self.revision


class Log:
    """A log with its producers and cursors. Guarded by the lock of the cluster."""

    def __init__(self, name):
        self.name, self.log_id = name, f"id-of-{name}"
        self.first_offset, self.records = 0, []
        self.max_record_bytes, self.max_request_bytes = 1 << 20, 4 << 20
        self.producers: dict[int, ProducerState] = {}
        self.cursors: dict[str, CursorState] = {}
        self.ids = itertools.count(0xFEDC_BA98_7654_3210)
        # What a correct client never does: described for the test, which fails.
        self.violations = []

    @property
    def next_offset(self):
        return self.first_offset + len(self.records)

    def values(self):
        return [record.value.decode("latin-1") for record in self.records]

    def append(self, *values):
        """Appends records that no client has sent."""
        return self._append([pb.Record(value=v.encode("latin-1") if isinstance(v, str) else v) for v in values])

    def _append(self, records):
        offset, now = self.next_offset, time.time_ns() // 1000
        for at, record in enumerate(records):
            stored = pb.Record()
            stored.CopyFrom(record)
            stored.offset, stored.term, stored.append_time_us = offset + at, 1, now
            self.records.append(stored)
        return offset

    def trim(self, first_offset):
        self.records = self.records[first_offset - self.first_offset :]
        self.first_offset = first_offset

    def check_id(self, request):
        if request.HasField("log_id") and request.log_id != self.log_id:
            raise self._refused("FAILED_PRECONDITION", "LOG_ID_MISMATCH", log_id=self.log_id)

    def _refused(self, code, reason, outcome="none", retry="no", **metadata):
        return Refused(code, reason, outcome, retry, {"log": self.name} | metadata)

    def produce(self, request):
        self.check_id(request)
        if not request.records:
            raise self._refused("INVALID_ARGUMENT", "INVALID_REQUEST")
        sizes = list(map(record_bytes, request.records))
        for position, size in enumerate(sizes):
            if size > self.max_record_bytes:
                limit = {"limit": "max_record_bytes", "max": self.max_record_bytes, "position": position}
                raise self._refused("INVALID_ARGUMENT", "RECORD_TOO_LARGE", **limit)
        if sum(sizes) > self.max_request_bytes:
            limit = {"limit": "max_request_bytes", "max": self.max_request_bytes}
            raise self._refused("INVALID_ARGUMENT", "REQUEST_TOO_LARGE", **limit)
        producer = self._producer(request)
        if producer and request.sequence <= producer.last_sequence:
            return self._duplicate(producer, request)
        if request.HasField("expected_offset") and request.expected_offset != self.next_offset:
            raise self._refused("FAILED_PRECONDITION", "EXPECTED_OFFSET_MISMATCH", next_offset=self.next_offset)
        offset, count = self._append(request.records), len(request.records)
        answer = pb.ProduceResponse(offset=offset, count=count, term=1, log_id=self.log_id)
        answer.append_time_us = self.records[-1].append_time_us
        if producer:
            producer.last_sequence, producer.last_offset = request.sequence, offset + count - 1
            producer.records += count
            producer.answers[request.sequence] = (answer, list(request.records))
            producer.answers.pop(request.sequence - KEPT_ANSWERS, None)
        return answer

    def _producer(self, request):
        if not request.producer_id:
            if request.sequence or request.producer_epoch:
                raise self._refused("INVALID_ARGUMENT", "INVALID_REQUEST")
            return None
        producer = self.producers.get(request.producer_id)
        if not producer:
            raise self._refused("FAILED_PRECONDITION", "PRODUCER_UNKNOWN", "unknown")
        if request.producer_epoch != producer.epoch:
            raise self._refused("FAILED_PRECONDITION", "PRODUCER_FENCED", "unknown", epoch=producer.epoch)
        if request.sequence > producer.last_sequence + 1 or request.sequence == 0:
            self.violations.append(f"sequence {request.sequence} after {producer.last_sequence}")
            raise self._refused("FAILED_PRECONDITION", "SEQUENCE_GAP", last_sequence=producer.last_sequence)
        return producer

    def _duplicate(self, producer, request):
        if request.sequence not in producer.answers:
            last = producer.last_sequence
            raise self._refused("FAILED_PRECONDITION", "SEQUENCE_TOO_OLD", "done", last_sequence=last)
        answer, records = producer.answers[request.sequence]
        if list(request.records) != records:
            self.violations.append(f"sequence {request.sequence} was sent again with other records")
        if len(request.records) != len(records):
            raise self._refused("INVALID_ARGUMENT", "SEQUENCE_REUSED")
        again = pb.ProduceResponse()
        again.CopyFrom(answer)
        again.duplicate = True
        return again

    def init_producer(self, request):
        self.check_id(request)
        if not request.instance:
            raise self._refused("INVALID_ARGUMENT", "INVALID_REQUEST")
        name = request.producer
        same = (p for p in self.producers.values() if (p.name == name if name else p.instance == request.instance))
        producer = next(same, None)
        epoch = producer.epoch if producer else 0
        is_repeat = producer and producer.instance == request.instance
        if request.HasField("expected_epoch") and request.expected_epoch != epoch - bool(is_repeat):
            raise self._refused("FAILED_PRECONDITION", "EPOCH_MISMATCH", epoch=epoch)
        if not producer:
            producer = ProducerState(next(self.ids), name, request.instance)
            self.producers[producer.producer_id] = producer
        elif not is_repeat:
            producer.instance = request.instance
            producer.epoch += 1
        made = pb.Producer(log=self.name, log_id=self.log_id, producer=name, owner=request.owner)
        for field in ("producer_id", "epoch", "last_sequence", "last_offset", "records"):
            setattr(made, field, getattr(producer, field))
        return pb.InitProducerResponse(producer=made)

    def fence_producers(self):
        """Another process takes all producers over."""
        for producer in self.producers.values():
            producer.instance, producer.epoch = 1, producer.epoch + 1

    def evict_producers(self):
        self.producers.clear()

    def start_of(self, start, offset, time_us):
        """Returns the offset at which reading starts."""
        if start == pb.START_OFFSET:
            return offset
        if start == pb.START_LATEST:
            return self.next_offset
        if start == pb.START_TIME:
            return next((r.offset for r in self.records if r.append_time_us >= time_us), self.next_offset)
        if start == pb.START_LAST:
            return max(self.first_offset, self.next_offset - offset)
        return self.first_offset

    def consume_start(self, request):
        self.check_id(request)
        if request.start == pb.START_CURSOR:
            offset = self.cursor(request.cursor).next_offset
        else:
            offset = self.start_of(request.start, request.offset, request.start_time_us)
        self.check_offset(offset)
        self.check_cursor(request)
        return offset

    def check_offset(self, offset):
        where = {"log_id": self.log_id, "first_offset": self.first_offset, "next_offset": self.next_offset}
        if offset < self.first_offset:
            raise self._refused("OUT_OF_RANGE", "OFFSET_TRIMMED", **where)
        if offset > self.next_offset:
            raise self._refused("OUT_OF_RANGE", "OFFSET_PAST_END", **where)

    def check_cursor(self, request):
        """Fails if the reader was fenced."""
        if request.cursor_epoch and self.cursor(request.cursor).epoch != request.cursor_epoch:
            epoch = self.cursors[request.cursor].epoch
            raise self._refused("FAILED_PRECONDITION", "CURSOR_FENCED", epoch=epoch)

    def read(self, offset, request):
        """Returns the message of a stream or of Consume that begins at an offset."""
        most, most_bytes = request.max_records or 1000, request.max_bytes or 1 << 20
        records, size = [], 0
        for record in self.records[offset - self.first_offset : offset - self.first_offset + most]:
            size += record_bytes(record)
            if records and size > most_bytes:
                break
            records.append(record)
        message = pb.ConsumeResponse(records=records, log_id=self.log_id, resume_offset=offset + len(records))
        message.first_offset, message.next_offset = self.first_offset, self.next_offset
        return message

    def cursor(self, name):
        if name not in self.cursors:
            raise self._refused("NOT_FOUND", "NO_SUCH_CURSOR")
        return self.cursors[name]

    def describe_cursor(self, name):
        state = self.cursor(name)
        made = pb.Cursor(log=self.name, log_id=self.log_id, cursor=name)
        for field in ("next_offset", "epoch", "revision", "owner", "metadata", "commit_time_us"):
            setattr(made, field, getattr(state, field))
        made.lag = self.next_offset - max(state.next_offset, self.first_offset)
        made.trimmed = max(0, self.first_offset - state.next_offset)
        return made

    def acquire_cursor(self, request):
        self.check_id(request)
        if not request.cursor or not request.instance or request.start == pb.START_CURSOR:
            raise self._refused("INVALID_ARGUMENT", "INVALID_REQUEST")
        state = self.cursors.get(request.cursor)
        is_repeat = state and state.instance == request.instance
        epoch = state.epoch if state else 0
        if request.HasField("expected_epoch") and request.expected_epoch != epoch - bool(is_repeat):
            raise self._refused("FAILED_PRECONDITION", "EPOCH_MISMATCH", epoch=epoch)
        if not state:
            offset = self.start_of(request.start, request.offset, request.start_time_us)
            state = self.cursors[request.cursor] = CursorState(offset, revision=0)
        if not is_repeat:
            state.instance, state.owner = request.instance, request.owner
            state.acquire()
        return pb.AcquireCursorResponse(cursor=self.describe_cursor(request.cursor))

    def fence_cursor(self, name):
        """Another process takes the cursor over."""
        state = self.cursors[name]
        state.instance = 1
        state.acquire()

    def commit_cursor(self, request):
        self.check_id(request)
        state = self.cursors.get(request.cursor)
        if state is None and request.epoch == 0:
            state = self.cursors[request.cursor] = CursorState(self.first_offset)
        if state is None:
            raise self._refused("NOT_FOUND", "NO_SUCH_CURSOR")
        if state.epoch != request.epoch:
            raise self._refused("FAILED_PRECONDITION", "CURSOR_FENCED", epoch=state.epoch)
        if request.HasField("expected_revision") and request.expected_revision != state.revision:
            raise self._refused("FAILED_PRECONDITION", "REVISION_MISMATCH", revision=state.revision)
        if request.next_offset > self.next_offset:
            where = {"log_id": self.log_id, "first_offset": self.first_offset, "next_offset": self.next_offset}
            raise self._refused("OUT_OF_RANGE", "OFFSET_PAST_END", **where)
        if request.next_offset < state.next_offset and not request.allow_rewind:
            raise self._refused("FAILED_PRECONDITION", "CURSOR_BEHIND", next_offset=state.next_offset)
        if (state.next_offset, state.metadata) != (request.next_offset, request.metadata):
            state.next_offset, state.metadata = request.next_offset, request.metadata
            state.revision += 1
            state.commit_time_us = time.time_ns() // 1000
        return pb.CommitCursorResponse(cursor=self.describe_cursor(request.cursor))

    def get_log(self, request):
        self.check_id(request)
        config = pb.LogConfig(max_record_bytes=self.max_record_bytes, max_request_bytes=self.max_request_bytes)
        position = pb.LogPosition(first_offset=self.first_offset, next_offset=self.next_offset)
        info = pb.LogInfo(name=self.name, log_id=self.log_id, config=config, position=position)
        info.state = pb.LOG_STATE_ACTIVE
        return pb.GetLogResponse(log=info)


def record_bytes(record):
    headers = sum(len(header.name.encode()) + len(header.value) for header in record.headers)
    return len(record.value) + len(record.key) + headers


# --- Nodes ----------------------------------------------------------------------------------------------------------------------


class Pings:
    """Finds the pings that a client sends in the bytes of an HTTP/2 connection."""

    PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    PING, ACK = 6, 1

    def __init__(self):
        # How many bytes to skip before the next header of a frame, and the bytes of that header so far.
        self.skip, self.header = self.PREFACE, b""

    def count(self, data):
        """Returns how many pings begin in the next bytes."""
        found, at = 0, 0
        while at < len(data):
            skipped = min(self.skip, len(data) - at)
            self.skip -= skipped
            at += skipped
            wanted = 9 - len(self.header)
            if self.skip == 0 and at < len(data):
                self.header += data[at : at + wanted]
                at += wanted
                if len(self.header) == 9:
                    found += self.header[3] == self.PING and not self.header[4] & self.ACK
                    self.skip, self.header = int.from_bytes(self.header[:3], "big"), b""
        return found


class Proxy:
    """Passes bytes between clients and the server of a node. Its port stays the same, and is reserved while it refuses."""

    def __init__(self, target, changed):
        self.target, self.lock, self.changed = target, threading.Lock(), changed
        # When a client has sent a ping.
        self.pings = []
        # Reserves the port while nobody listens.
        self.reservation = self._bind(0)
        self.port = self.reservation.getsockname()[1]
        self.listener = None
        self.pairs, self.threads, self.accepted = set(), [], 0
        self.flows = threading.Event()
        self.flows.set()

    @staticmethod
    def _bind(port):
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(("127.0.0.1", port))
        return bound

    def up(self):
        """Accepts connections."""
        with self.lock:
            self.listener = self._bind(self.port)
            self.listener.listen(64)
            self._run(self._accept, self.listener)

    def down(self):
        """Breaks all connections, and refuses new ones."""
        with self.lock:
            listener, self.listener = self.listener, None
        if listener:
            # A thread waits in accept: this wakes it.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.break_connections()

    def break_connections(self):
        with self.lock:
            for pair in self.pairs:
                for end in pair:
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)

    def freeze(self):
        """Passes no byte on, in either direction, and keeps the connections."""
        self.flows.clear()

    def thaw(self):
        self.flows.set()

    def close(self):
        self.thaw()
        self.down()
        self.reservation.close()
        for thread in self.threads:
            thread.join(TIMEOUT)

    def _run(self, target, *args):
        thread = threading.Thread(target=target, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                if self.listener is not listener:
                    client.close()
                    return
                self.accepted += 1
                server = socket.create_connection(("127.0.0.1", self.target))
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                pair = (client, server)
                self.pairs.add(pair)
                # Each direction ends both. The second one closes the sockets.
                left = [2]
                self._run(self._pump, pair, client, server, left, Pings())
                self._run(self._pump, pair, server, client, left, None)

    def _pump(self, pair, source, sink, left, pings):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if pings and pings.count(data):
                    with self.changed:
                        self.pings.append(time.monotonic())
                        self.changed.notify_all()
                self.flows.wait()
                sink.sendall(data)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self.lock:
            left[0] -= 1
            if not left[0]:
                self.pairs.discard(pair)
                for end in pair:
                    end.close()
        with self.changed:
            self.changed.notify_all()


class Call:
    """A call that a node serves. Wakes its threads when the client is gone."""

    def __init__(self, cluster, node, context):
        self.cluster, self.node, self.context = cluster, node, context
        self.number = next(cluster.calls)
        self.is_over = not context.add_callback(self._end)

    def _end(self):
        with self.cluster.changed:
            self.is_over = True
            self.cluster.changed.notify_all()

    def never(self):
        """Waits until the client is gone."""
        with self.cluster.changed:
            self.cluster.changed.wait_for(lambda: self.is_over)
        self.context.abort(grpc.StatusCode.CANCELLED, "the client is gone")

    def lose(self):
        """Breaks the connections of the node."""
        self.cluster.nodes[self.node].proxy.break_connections()
        self.never()

    def finish(self, outcome, **more):
        """Returns a message, or ends the call as a fault says."""
        if isinstance(outcome, Refuse):
            outcome.error.abort(self.context, **more)
        elif isinstance(outcome, Break):
            self.lose()
        elif isinstance(outcome, Silent):
            self.never()
        return outcome


UNARY = "InitProducer GetLog Produce Consume AcquireCursor CommitCursor GetCursor".split()


class FakeNode(log_service_pb2_grpc.LogServiceServicer):
    """A node, number `index` of its cluster."""

    def __init__(self, cluster, index):
        self.cluster, self.index = cluster, index
        self.cluster_id = "the-cluster"
        # Keepalive pings of clients are welcome.
        options = [
            ("grpc.max_receive_message_length", 16 << 20),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
            ("grpc.http2.max_ping_strikes", 0),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.so_reuseport", 0),
        ]
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=100), options=options)
        log_service_pb2_grpc.add_LogServiceServicer_to_server(self, self.server)
        self.proxy = Proxy(self.server.add_insecure_port("127.0.0.1:0"), cluster.changed)
        self.addr = f"127.0.0.1:{self.proxy.port}"
        self.server.start()

    def stop(self):
        self.proxy.close()
        self.server.stop(grace=None).wait(TIMEOUT)

    def _unary(self, method, request, context):
        call = Call(self.cluster, self.index, context)
        fault = self.cluster.receive(call, method, request)
        self.cluster.pass_gate(method, call)
        if fault is None or fault.applied:
            with self.cluster.changed:
                try:
                    done = self._do(method, request)
                except Refused as refused:
                    done = Refuse(refused)
                self.cluster.changed.notify_all()
            fault = fault or done
        fault = fault.message if isinstance(fault, Answer) else fault
        return call.finish(fault)

    def _do(self, method, request):
        if method == "GetServers":
            return self._get_servers(request)
        log = self.cluster.log_of(request.log)
        return {
            "InitProducer": log.init_producer,
            "GetLog": log.get_log,
            "Produce": log.produce,
            "Consume": lambda request: log.read(log.consume_start(request), request),
            "AcquireCursor": log.acquire_cursor,
            "CommitCursor": log.commit_cursor,
            "GetCursor": lambda request: pb.GetCursorResponse(cursor=log.describe_cursor(request.cursor)),
        }[method](request)

    def _get_servers(self, request):
        cluster = self.cluster
        servers = []
        for index, addr in enumerate(cluster.members or [node.addr for node in cluster.nodes]):
            is_leader = bool(request.log) and cluster.leader == index
            is_replica = bool(request.log)
            server = pb.Server(id=f"n{index + 1}", node_id=f"node-{index + 1}", rpc_addr=addr, is_leader=is_leader)
            server.is_voter = server.is_replica = is_replica
            servers.append(server)
        return pb.GetServersResponse(
            servers=servers, cluster_id=self.cluster_id, term=1, feature_level=3, version="fake"
        )

    def ProduceStream(self, requests, context):  # noqa: N802 The name of the method.
        call = Call(self.cluster, self.index, context)
        # What becomes of each request: a message or a fault.
        outcomes = queue.Queue()
        with self.cluster.changed:
            self.cluster.produce_streams.append(outcomes)
        threading.Thread(target=self._receive, args=(call, requests, outcomes), daemon=True).start()
        answered = 0
        while (outcome := outcomes.get()) is not None:
            self.cluster.pass_gate("ProduceStream", call)
            if isinstance(outcome, Refuse):
                self.cluster.answered(call, outcome)
            answer = call.finish(outcome, failed_request=answered)
            # Counted before it is sent: the client may send more as soon as it has it.
            self.cluster.answered(call, answer)
            yield answer
            answered += 1

    def _receive(self, call, requests, outcomes):
        """Takes the requests of a ProduceStream, in order. After one that fails, none is done."""
        failed = False
        log = None
        try:
            for request in requests:
                fault = self.cluster.receive(call, "ProduceStream", request)
                if failed:
                    continue
                outcome = fault
                if fault is None or fault.applied:
                    with self.cluster.changed:
                        try:
                            name = request.log or (log.name if log else "")
                            log = log or self.cluster.log_of(name)
                            if (name or "default") != log.name:
                                raise Refused("INVALID_ARGUMENT", "INVALID_REQUEST", "none", "no")
                            done = log.produce(request)
                            outcome = done if fault is None else fault
                        except Refused as refused:
                            outcome = Refuse(refused)
                        self.cluster.changed.notify_all()
                failed = not isinstance(outcome, pb.ProduceResponse)
                outcomes.put(outcome.message if isinstance(outcome, Answer) else outcome)
        except Exception:  # noqa: BLE001 The client is gone: gRPC raises different types.
            pass
        outcomes.put(None)

    def ConsumeStream(self, request, context):  # noqa: N802 The name of the method.
        call = Call(self.cluster, self.index, context)
        cluster = self.cluster
        fault = cluster.receive(call, "ConsumeStream", request)
        with cluster.changed:
            cluster.open_streams += 1
            cluster.changed.notify_all()
        try:
            call.finish(fault)
            if request.wait_ms or (request.heartbeat_ms and request.heartbeat_ms < 1000):
                Refused("INVALID_ARGUMENT", "INVALID_REQUEST", "none", "no").abort(context)
            yield from self._stream(call, request)
        finally:
            with cluster.changed:
                cluster.open_streams -= 1
                cluster.changed.notify_all()

    def _stream(self, call, request):
        cluster = self.cluster
        heartbeat = (request.heartbeat_ms or 10_000) / 1000
        offset, first = None, True
        while True:
            with cluster.changed:
                try:
                    log = cluster.log_of(request.log)
                    offset = log.consume_start(request) if offset is None else offset

                    def is_due():
                        fenced = request.cursor_epoch and log.cursor(request.cursor).epoch != request.cursor_epoch
                        return call.is_over or fenced or log.next_offset > offset or log.first_offset > offset

                    if not first:
                        cluster.changed.wait_for(is_due, heartbeat)
                    if call.is_over:
                        return
                    log.check_cursor(request)
                    log.check_offset(offset)
                    message = log.read(offset, request)
                except Refused as refused:
                    error = refused
                else:
                    error = None
            if error:
                error.abort(call.context)
            fault = cluster.take("ConsumeStream.message", self.index, message)
            message = fault.message if isinstance(fault, Answer) else call.finish(fault) or message
            cluster.stream_sends(message)
            yield message
            offset, first = message.resume_offset, False


for _method in (*UNARY, "GetServers"):

    def _serve(self, request, context, _method=_method):
        return self._unary(_method, request, context)

    setattr(FakeNode, _method, _serve)


class FakeCluster:
    """`count` nodes with one log, "default". Use it as a context manager."""

    def __init__(self, count=3):
        # Guards everything below, and is notified of every change.
        self.changed = threading.Condition(threading.RLock())
        self.calls = itertools.count(1)
        self.log = Log("default")
        self.logs = {"default": self.log}
        self.leader = 0
        # Addresses that GetServers returns instead of those of the nodes.
        self.members = None
        self.seen: list[Seen] = []
        self.faults: list[Fault] = []
        # Methods whose answers wait.
        self.gates = set()
        # The outcomes that each ProduceStream still has to send.
        self.produce_streams = []
        # By call: the numbers of requests and answers of a ProduceStream.
        self.unanswered = collections.Counter()
        self.unanswered_bytes = collections.defaultdict(collections.deque)
        self.max_unanswered = self.max_unanswered_bytes = 0
        self.open_streams = self.streamed_bytes = self.streamed_messages = 0
        self.nodes = [FakeNode(self, index) for index in range(count)]
        for node in self.nodes:
            node.proxy.up()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self.changed:
            self.gates.clear()
            self.faults.clear()
            self.changed.notify_all()
        for node in self.nodes:
            node.stop()

    @property
    def addrs(self):
        return [node.addr for node in self.nodes]

    def log_of(self, name):
        name = name or "default"
        if name not in self.logs:
            raise Refused("NOT_FOUND", "NO_SUCH_LOG", "none", "no", {"log": name})
        return self.logs[name]

    # --- For tests ---

    def fault(self, method, action, **more):
        """Registers a fault, and returns it."""
        with self.changed:
            self.faults.append(fault := Fault(method, action, **more))
        return fault

    def clear_faults(self):
        with self.changed:
            self.faults.clear()

    def end_produce_streams(self, error):
        """Ends them with an error, once what they have received is answered."""
        with self.changed:
            for outcomes in self.produce_streams:
                outcomes.put(error)

    def hold(self, method):
        """Answers to a method wait until `release`. The requests are done, and counted."""
        with self.changed:
            self.gates.add(method)

    def release(self, method):
        with self.changed:
            self.gates.discard(method)
            self.changed.notify_all()

    def requests(self, method, node=None):
        """Returns the requests of a method that were received, in order."""
        with self.changed:
            return [seen for seen in self.seen if seen.method == method and node in (None, seen.node)]

    def wait(self, what, condition, timeout=TIMEOUT):
        """Waits until a condition of the cluster is true, and returns its value."""
        with self.changed:
            if not (value := self.changed.wait_for(condition, timeout)):
                raise AssertionError(f"not within {timeout} s: {what}")
            return value

    def wait_requests(self, method, count, node=None):
        """Waits until a method was received so often."""
        got = lambda: self.requests(method, node)  # noqa: E731
        self.wait(f"{count} requests of {method}", lambda: len(got()) >= count)
        return got()

    def change(self, act):
        """Changes the log, and wakes the streams."""
        with self.changed:
            result = act(self.log)
            self.changed.notify_all()
            return result

    # --- For the nodes ---

    def receive(self, call, method, request):
        with self.changed:
            if len(unknown_fields.UnknownFieldSet(request)):
                self.log.violations.append(f"{method} with an unknown field")
            self.seen.append(Seen(time.monotonic(), call.node, method, request, call.number))
            if method == "ProduceStream":
                self.unanswered_bytes[call.number].append(request.ByteSize())
                self.max_unanswered = max(self.max_unanswered, len(self.unanswered_bytes[call.number]))
                size = sum(self.unanswered_bytes[call.number])
                self.max_unanswered_bytes = max(self.max_unanswered_bytes, size)
            self.changed.notify_all()
            fault = self.take(method, call.node, request)
            show(f"   n{call.node + 1} {method} {text_format.MessageToString(request, as_one_line=True)}", f"{fault or ''}")
            return fault

    def take(self, method, node, request):
        with self.changed:
            fault = next((f for f in self.faults if f.takes(method, node, request)), None)
            return fault.action if fault else None

    def pass_gate(self, method, call):
        with self.changed:
            self.changed.wait_for(lambda: method not in self.gates or call.is_over)

    def answered(self, call, _answer):
        with self.changed:
            if self.unanswered_bytes[call.number]:
                self.unanswered_bytes[call.number].popleft()

    def stream_sends(self, message):
        with self.changed:
            self.streamed_bytes += message.ByteSize()
            self.streamed_messages += 1
            self.changed.notify_all()
