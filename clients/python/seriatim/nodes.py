"""The nodes of a cluster: connections, members, leaders, and which node gets the next attempt."""

import dataclasses
import logging
import random
import threading
import time
from collections.abc import Callable

import grpc

from .errors import Error, closed, timed_out
from .v1 import log_service_pb2 as pb
from .v1 import log_service_pb2_grpc as rpc

log = logging.getLogger("seriatim")

MEMBERS_SECONDS = 300


@dataclasses.dataclass(frozen=True)
class Options:
    """Times of a client, in seconds."""

    # Of an attempt, in addition to the time that the request asks the server to wait.
    attempt: float = 5
    # Of an operation with all its attempts.
    operation: float = 120
    # Of a connection.
    connect: float = 3
    # The first pause between attempts, and the longest.
    backoff_min: float = 0.1
    backoff_max: float = 5


class Nodes:
    """Connections to the nodes, by address. All methods can be called by any thread."""

    def __init__(self, addrs: list[str], credentials: grpc.ChannelCredentials | None, options: Options):
        if not addrs or not all(addrs):
            raise ValueError("a client needs at least one address, host:port")
        self.options, self._credentials = options, credentials
        self._given, self._members = list(dict.fromkeys(addrs)), []
        self._channels: dict[str, grpc.Channel] = {}
        self._lock = threading.Lock()
        self._cluster_id = ""
        # Set once: another cluster answers.
        self._failure: Error | None = None
        # By address: when the node was asked for the members. A node is asked before it is used, so that no request
        # reaches another cluster.
        self._checked: dict[str, float] = {}
        self._leaders: dict[str, str] = {}
        # The node that answered last.
        self._last = self._given[0]
        self.closing = threading.Event()
        # Asks for the members again while no request does.
        self._refresher: threading.Thread | None = None

    def addrs(self) -> list[str]:
        """Returns all known addresses. They start with that of the node that answered last."""
        with self._lock:
            return list(dict.fromkeys([self._last, *self._given, *self._members]))

    def leader(self, of_log: str) -> str | None:
        with self._lock:
            return self._leaders.get(of_log)

    def learn_leader(self, of_log: str, addr: str) -> None:
        with self._lock:
            self._leaders[of_log] = addr

    def lost(self, addr: str, error: Error) -> None:
        """Notes that a connection has failed."""
        log.info("lost node=%s error=%s", addr, error)
        with self._lock:
            self._checked.pop(addr, None)
            self._leaders = {name: leader for name, leader in self._leaders.items() if leader != addr}

    def stub(self, addr: str, of_log: str = "", timeout: float | None = None) -> rpc.LogServiceStub:
        """Returns a stub for a node, after it was checked that the node belongs to the cluster.

        With the name of a log, its leader is looked up if it is unknown. Raises grpc.RpcError if the node does not
        answer, and Error if it belongs to another cluster.
        """
        stub = rpc.LogServiceStub(self._channel(addr))
        with self._lock:
            if self._failure:
                raise self._failure
            checked = time.monotonic() - self._checked.get(addr, -MEMBERS_SECONDS) < MEMBERS_SECONDS
            if checked and (not of_log or of_log in self._leaders):
                return stub
        response = stub.GetServers(pb.GetServersRequest(log=of_log), timeout=timeout or self.options.attempt)
        self._learn(addr, of_log, response)
        return stub

    def _learn(self, addr: str, of_log: str, response: pb.GetServersResponse) -> None:
        with self._lock:
            if self._failure:
                raise self._failure
            if self._cluster_id and response.cluster_id != self._cluster_id:
                message = f"node {addr} belongs to cluster {response.cluster_id}, and not to {self._cluster_id}"
                metadata = {"cluster_id": response.cluster_id}
                self._failure = Error.make("FAILED_PRECONDITION", message, reason="CLUSTER_CHANGED", metadata=metadata)
                raise self._failure
            self._cluster_id = response.cluster_id
            self._members = [server.rpc_addr for server in response.servers if server.rpc_addr]
            if addr not in self._checked:
                log.info("connected node=%s cluster_id=%s", addr, response.cluster_id)
            self._checked[addr], self._last = time.monotonic(), addr
            leaders = [server.rpc_addr for server in response.servers if server.is_leader]
            if of_log and leaders and leaders[0]:
                self._leaders[of_log] = leaders[0]
            if not self._refresher:
                self._refresher = threading.Thread(target=self._refresh, name="seriatim-members", daemon=True)
                self._refresher.start()

    def _refresh(self) -> None:
        while not self.closing.wait(MEMBERS_SECONDS):
            for addr in self.addrs():
                stub = rpc.LogServiceStub(self._channel(addr))
                try:
                    response = stub.GetServers(pb.GetServersRequest(), timeout=self.options.attempt)
                    self._learn(addr, "", response)
                    break
                except grpc.RpcError as error:
                    log.info("no answer node=%s error=%s", addr, Error.of(error))
                except Error as error:
                    log.error("another cluster: %s", error)
                    return

    def _channel(self, addr: str) -> grpc.Channel:
        ms = {name: int(1000 * seconds) for name, seconds in dataclasses.asdict(self.options).items()}
        options = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            # The time-out of a connection. The pauses between attempts are chosen by Route.
            ("grpc.min_reconnect_backoff_ms", ms["connect"]),
            ("grpc.initial_reconnect_backoff_ms", ms["backoff_min"]),
            ("grpc.max_reconnect_backoff_ms", ms["backoff_max"]),
            ("grpc.max_receive_message_length", 16 << 20),
            ("grpc.max_send_message_length", 16 << 20),
            # Clients of one process do not share connections.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.primary_user_agent", "seriatim-python"),
        ]
        with self._lock:
            if self.closing.is_set():
                raise closed("client")
            if addr not in self._channels:
                if self._credentials:
                    self._channels[addr] = grpc.secure_channel(addr, self._credentials, options)
                else:
                    self._channels[addr] = grpc.insecure_channel(addr, options)
            return self._channels[addr]

    def close(self) -> None:
        with self._lock:
            self.closing.set()
            channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            channel.close()


class Route:
    """Where the next attempt of an operation goes, and after which pause. Used by one thread at a time."""

    def __init__(self, nodes: Nodes, of_log: str = ""):
        """With the name of a log, its leader comes first."""
        self._nodes, self._log = nodes, of_log
        self.addr = nodes.addrs()[0]
        # The nodes that failed since the last pause.
        self._tried: set[str] = set()
        self._failures = 0

    def choose(self) -> str:
        """Chooses the node for the next attempt."""
        leader = self._nodes.leader(self._log) if self._log else None
        addrs = self._nodes.addrs()
        # The members may have changed since the last failure.
        if self._tried.issuperset(addrs):
            self._tried.clear()
        order = [leader, self.addr, *addrs]
        self.addr = next(addr for addr in order if addr and addr not in self._tried)
        return self.addr

    def succeeded(self) -> None:
        self._tried.clear()
        self._failures = 0

    def failed(self, error: Error) -> float:
        """Notes an error after which another attempt is made, and returns the pause before it."""
        if error.broken:
            self._nodes.lost(self.addr, error)
        leader = error.metadata.get("leader")
        if self._log and leader:
            self._nodes.learn_leader(self._log, leader)
        if error.broken or error.retry == "elsewhere":
            self._tried.add(self.addr)
            if not self._tried.issuperset(self._nodes.addrs()):
                return 0.0
        self._tried.clear()
        options = self._nodes.options
        pause = min(options.backoff_min * 2**self._failures, options.backoff_max) * random.uniform(0.5, 1.5)
        self._failures = min(self._failures + 1, 30)
        return max(pause, error.pause)


class Attempts:
    """The attempts of one operation, with its deadline."""

    def __init__(self, nodes: Nodes, what: str, timeout: float | None, of_log: str = ""):
        self._nodes, self._what = nodes, what
        self._seconds = nodes.options.operation if timeout is None else min(timeout, nodes.options.operation)
        self._until = time.monotonic() + self._seconds
        self.route = Route(nodes, of_log)
        self._log = of_log
        # Whether an attempt may have been done.
        self._unknown = False

    def run(self, call: Callable, *, is_read: bool, stop: threading.Event | None = None):
        """Calls `call(stub, timeout)` until it succeeds."""
        while True:
            self.route.choose()
            timeout = max(0.001, min(self._nodes.options.attempt, self._until - time.monotonic()))
            try:
                stub = self._nodes.stub(self.route.addr, self._log, timeout)
                try:
                    return call(stub, timeout)
                except grpc.RpcError as rpc_error:
                    error = Error.of(rpc_error)
                    self._unknown |= error.outcome == "unknown" and not is_read
            except grpc.RpcError as rpc_error:
                # The request was not sent.
                error = Error.of(rpc_error).with_outcome("none")
            except ValueError as value_error:  # The channel was closed meanwhile.
                if self._nodes.closing.is_set():
                    raise closed("client").with_outcome("unknown" if self._unknown else "none") from value_error
                raise
            outcome = "unknown" if self._unknown else "none" if is_read else error.outcome
            if not error.is_retryable():
                raise error.with_outcome(outcome) if self._unknown else error
            pause = self.route.failed(error)
            if time.monotonic() + pause >= self._until:
                raise timed_out(f"{self._what} did not succeed", self._seconds, error, outcome)
            if pause:
                log.info("retry what=%s node=%s pause=%.3f error=%s", self._what, self.route.addr, pause, error)
            if (stop or self._nodes.closing).wait(pause) or self._nodes.closing.is_set():
                ended = closed("client" if self._nodes.closing.is_set() else f"caller of {self._what}")
                raise ended.with_outcome(outcome)
