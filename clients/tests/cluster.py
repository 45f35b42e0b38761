"""Three real nodes for the tests of clients: certificates, processes, and helpers that wait.

Ports come from binding port 0. Nothing is waited for by time: conditions are asked for until a deadline.
"""

import contextlib
import os
import pathlib
import select
import subprocess
import tempfile
import threading
import time
import unittest

import grpc

from seriatim.v1 import log_service_pb2 as pb
from seriatim.v1 import log_service_pb2_grpc

REPO = pathlib.Path(__file__).resolve().parents[2]
SERIATIM = os.environ["SERIATIM"]
# How long a condition may take on a busy machine. A passing test does not wait that long.
TIMEOUT = 60.0
# Settings and proxies of the environment must not reach nodes and clients. A JVM prints its settings to stderr.
JAVA_SETTINGS = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")
ENV = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("SERIATIM") and not name.lower().endswith("_proxy") and name not in JAVA_SETTINGS
}


def eventually(what, ask):
    """Calls it until the result is true, and returns that."""
    until = time.monotonic() + TIMEOUT
    interval = threading.Event()
    while True:
        try:
            if result := ask():
                return result
            last = "no"
        except grpc.RpcError as error:
            last = error
        if time.monotonic() > until:
            raise AssertionError(f"not within {TIMEOUT} s: {what}: {last}")
        interval.wait(0.02)


class Node:
    """A node that runs as a process."""

    def __init__(self, site, name, more):
        certs = site / "certs"
        args = {
            "node-name": name,
            "data-dir": site / name,
            "bind-addr": "127.0.0.1:0",
            "http-addr": "off",
            "rpc-addr": "127.0.0.1:0",
            "acl-policy-file": site / "policy.csv",
            "client-ca-file": certs / "ca.pem",
            "server-cert-file": certs / "server.pem",
            "server-key-file": certs / "server-key.pem",
            "peer-cert-file": certs / name / "peer.pem",
            "peer-key-file": certs / name / "peer-key.pem",
        }
        self.name, self.args = name, args
        self.log = site / f"{name}.log"
        self._start(more)
        # After a restart it has the same ports.
        args["bind-addr"], args["rpc-addr"] = self.bind_addr, self.rpc_addr

    def _start(self, more=()):
        command = [SERIATIM, "serve", *(f"--{arg}={value}" for arg, value in self.args.items()), *more]
        with self.log.open("a") as stderr:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=ENV)
        readable, _, _ = select.select([self.process.stdout], [], [], TIMEOUT)
        line = self.process.stdout.readline().split() if readable else []
        if line[:1] != ["ready"]:
            self.stop()
            raise AssertionError(f"{self.name} is not ready: {line}\n{self.log.read_text()}")
        ready = dict(word.split("=", 1) for word in line[1:])
        self.bind_addr, self.rpc_addr = ready["bind_addr"], ready["rpc_addr"]

    def kill(self):
        """Sends SIGKILL."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def restart(self):
        """Starts the node again, after it was stopped or killed, with the same directory and ports."""
        self._start()

    def stop(self):
        """Sends SIGTERM, and SIGKILL if that does not end it."""
        if self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Cluster:
    """Three nodes that are all voters. Call `stop` at the end."""

    def __init__(self):
        with contextlib.ExitStack() as stack:
            self.site = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            certs = ["certs", "--out", self.site / "certs", "--peers", "n1,n2,n3", "--clients", "root,guest,nobody"]
            subprocess.run([SERIATIM, *certs], check=True, stdout=subprocess.DEVNULL, env=ENV)
            policy = (REPO / "acl/policy.csv").read_text()
            if "commit" not in policy:
                policy += "p, role:admin, *, commit\n"
            (self.site / "policy.csv").write_text(f"{policy}\np, guest, default, consume\n")
            self.nodes, self.channels = [], []
            for name in ("n1", "n2", "n3"):
                more = [f"--join={self.nodes[0].bind_addr}"] if self.nodes else ["--bootstrap"]
                node = Node(self.site, name, more)
                stack.callback(node.stop)
                self.nodes.append(node)
                self.channels.append(stack.enter_context(self._channel(node)))
            self.stubs = [log_service_pb2_grpc.LogServiceStub(channel) for channel in self.channels]
            self.wait_ready()
            self._stack = stack.pop_all()

    def _channel(self, node):
        ca, key, cert = (
            (self.site / "certs" / f"{name}.pem").read_bytes() for name in ("ca", "client-root-key", "client-root")
        )
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 500)]
        return grpc.secure_channel(node.rpc_addr, grpc.ssl_channel_credentials(ca, key, cert), options)

    @staticmethod
    def _complete(stub):
        servers = stub.GetServers(pb.GetServersRequest(log="default"), timeout=10).servers
        stub.GetLog(pb.GetLogRequest(), timeout=10)
        return sum(s.is_voter for s in servers) == 3 and sum(s.is_leader for s in servers) == 1

    def leader(self):
        """Waits for a leader of the log "default" that a majority knows, and returns its node."""
        addr = eventually("two nodes name the same leader", self._leader)
        return next(node for node in self.nodes if node.rpc_addr == addr)

    def _leader(self):
        named = []
        for stub in self.stubs:
            try:
                servers = stub.GetServers(pb.GetServersRequest(log="default"), timeout=2).servers
            except grpc.RpcError:
                continue
            named += [server.rpc_addr for server in servers if server.is_leader]
        return next((addr for addr in named if named.count(addr) >= 2), None)

    def wait_ready(self):
        """Waits until every node serves the log and knows all voters and the leader."""
        eventually("every node lists three voters and a leader", lambda: all(map(self._complete, self.stubs)))

    def stop(self):
        """Stops the nodes and returns their exit codes."""
        self._stack.close()
        return [node.process.returncode for node in self.nodes]


class ClusterTest(unittest.TestCase):
    """Tests with three nodes."""

    cluster: Cluster

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()

    @classmethod
    def tearDownClass(cls):
        exit_codes = cls.cluster.stop()
        assert exit_codes == [0] * 3, f"the nodes do not exit cleanly after SIGTERM: {exit_codes}"
