"""The client of a cluster."""

import contextlib
import dataclasses
import datetime
import os
import pathlib
import weakref

import grpc

from .consumer import Consumer, Start
from .nodes import Attempts, Nodes, Options
from .producer import Producer
from .v1 import log_service_pb2 as pb

Pem = str | os.PathLike | bytes


@dataclasses.dataclass(frozen=True)
class Cursor:
    """The stored position of a reader."""

    # The next record to read.
    next_offset: int
    epoch: int
    # How many records follow.
    lag: int
    owner: str
    # When the position was stored. None: it is the one at which the cursor was created.
    commit_time: datetime.datetime | None


class Client:
    """Connects to a cluster when it is first used. Use one for a process, and close it at the end."""

    def __init__(
        self,
        addrs: str | list[str],
        *,
        ca: Pem | None = None,
        cert: Pem | None = None,
        key: Pem | None = None,
        options: Options | None = None,
    ):
        """`addrs` are one or more of the nodes (`host:port`). `ca`, `cert` and `key` are paths of PEM files or their
        content; without them, the connection is not encrypted."""
        credentials = None
        if any(pem is not None for pem in (ca, cert, key)):
            if ca is None or (cert is None) != (key is None):
                raise ValueError("TLS needs `ca`, and both or none of `cert` and `key`")
            credentials = grpc.ssl_channel_credentials(_read(ca), _read(key), _read(cert))
        self._nodes = Nodes([addrs] if isinstance(addrs, str) else list(addrs), credentials, options or Options())
        self._open: weakref.WeakSet = weakref.WeakSet()

    def ready(self, timeout: float = 30) -> None:
        """Waits until a node answers."""
        call = lambda stub, seconds: stub.GetServers(pb.GetServersRequest(), timeout=seconds)  # noqa: E731
        Attempts(self._nodes, "ready", timeout).run(call, is_read=True)

    def producer(
        self,
        log: str = "",
        *,
        name: str = "",
        batch_records: int = 1000,
        batch_bytes: int = 512 << 10,
        buffer_bytes: int = 32 << 20,
        delivery_timeout: float | None = None,
    ) -> Producer:
        """Registers a producer of a log. One with a name continues after the process that had the name before."""
        limits = {"batch_records": batch_records, "batch_bytes": batch_bytes, "buffer_bytes": buffer_bytes}
        producer = Producer(self._nodes, log or "default", name=name, delivery_timeout=delivery_timeout, **limits)
        self._open.add(producer)
        return producer

    def consumer(
        self,
        log: str = "",
        start: Start = Start.EARLIEST,
        *,
        cursor: str = "",
        skip_trimmed: bool = False,
        auto_commit: float | None = None,
        heartbeat: float = 10,
        max_silence: float | None = None,
    ) -> Consumer:
        """Reads a log. With a cursor, it continues where the cursor is, and `start` applies to a new one."""
        settings = {"skip_trimmed": skip_trimmed, "auto_commit": auto_commit}
        times = {"heartbeat": heartbeat, "max_silence": max_silence}
        consumer = Consumer(self._nodes, log or "default", start, cursor=cursor, **settings, **times)
        self._open.add(consumer)
        return consumer

    def cursor(self, log: str, cursor: str, timeout: float | None = None) -> Cursor:
        """Returns a cursor."""
        request = pb.GetCursorRequest(log=log, cursor=cursor)
        call = lambda stub, seconds: stub.GetCursor(request, timeout=seconds)  # noqa: E731
        found = Attempts(self._nodes, "GetCursor", timeout).run(call, is_read=True).cursor
        time = None
        if found.commit_time_us:
            time = datetime.datetime.fromtimestamp(found.commit_time_us / 1e6, datetime.UTC)
        return Cursor(found.next_offset, found.epoch, found.lag, found.owner, time)

    def close(self) -> None:
        """Closes all producers and consumers, then the connections. Raises an error if one of them does."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._nodes.close)
            for opened in list(self._open):
                stack.callback(opened.close)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _read(pem: Pem | None) -> bytes | None:
    return pem if pem is None or isinstance(pem, bytes) else pathlib.Path(pem).read_bytes()
