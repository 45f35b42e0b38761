"""A client of Seriatim: produces, consumes and tails on any node, over mutual TLS.

Written against proto/seriatim/v1 only. Prints records as JSON, one per line, and bytes as UTF-8. README.md has examples.
"""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Callable

import grpc

from failure import Failure
from seriatim.v1 import log_service_pb2 as pb
from seriatim.v1 import log_service_pb2_grpc

# A request that fails is sent again, if the error allows it, until so much time has passed.
CALL_SECONDS = 10
# The pause if the error names none.
PAUSE_SECONDS = 0.2
# A tail may be silent for a while. Keepalive pings distinguish that from a dead node.
KEEPALIVE = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
]


class Nodes:
    """The nodes of a cluster. Requests are sent to one of them."""

    def __init__(self, addrs: list[str], certs: pathlib.Path, user: str):
        """Uses the client certificate of `user`, from a folder of `seriatim certs`."""
        ca, key, cert = ((certs / f"{name}.pem").read_bytes() for name in ("ca", f"client-{user}-key", f"client-{user}"))
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        self.channels = [grpc.secure_channel(addr, credentials, KEEPALIVE) for addr in addrs]
        self.now = 0
        # How many nodes failed one after another.
        self.failed = 0

    def stub(self) -> log_service_pb2_grpc.LogServiceStub:
        return log_service_pb2_grpc.LogServiceStub(self.channels[self.now])

    def may_repeat(self, failure: Failure, until: float, *, is_read: bool) -> bool:
        """Returns whether the same request can be sent again before `until`; then it has paused, and chosen the node."""
        pause = failure.pause or PAUSE_SECONDS
        if failure.retry == "elsewhere" or (is_read and failure.connection_broke):
            self.now = (self.now + 1) % len(self.channels)
            self.failed += 1
            # Every node is asked once without a pause.
            pause = 0 if self.failed % len(self.channels) else pause
        elif failure.retry != "same":
            return False
        if time.monotonic() + pause > until:
            return False
        time.sleep(pause)
        return True

    def call(self, method: str, request, *, is_read: bool = True):
        """Sends a request with one response."""
        until = time.monotonic() + CALL_SECONDS
        while True:
            try:
                return getattr(self.stub(), method)(request, timeout=max(until - time.monotonic(), 0))
            except grpc.RpcError as error:
                if not self.may_repeat(Failure.of(error), until, is_read=is_read):
                    raise


def show(record: pb.Record) -> None:
    line = {"offset": record.offset, "value": text(record.value), "type": record.type}
    # An absent key differs from an empty one.
    line["key"] = text(record.key) if record.HasField("key") else None
    line["headers"] = [[header.name, text(header.value)] for header in record.headers]
    line |= {"term": record.term, "append_time_us": record.append_time_us}
    print(json.dumps(line), flush=True)


def text(value: bytes) -> str:
    return value.decode(errors="replace")


def produce(nodes: Nodes, args: argparse.Namespace) -> None:
    """Appends the values as one batch, all or nothing, and prints the offset of each."""
    key = None if args.key is None else args.key.encode()
    headers = [pb.Header(name=name, value=value.encode()) for name, _, value in (h.partition("=") for h in args.header)]
    records = [pb.Record(value=value.encode(), type=args.type, key=key, headers=headers) for value in args.value]
    response = nodes.call("Produce", pb.ProduceRequest(log=args.log, records=records), is_read=False)
    for offset in range(response.offset, response.offset + response.count):
        print(offset)


def pipe(nodes: Nodes, args: argparse.Namespace) -> None:
    """Sends each line of stdin as a record, without waiting for responses. Prints the offset of each.

    It sends nothing again: that needs the requests that have no response yet, and `failed_request` of the error.
    """
    lines = (line.removesuffix(b"\n") for line in sys.stdin.buffer)
    requests = (pb.ProduceRequest(log=args.log, records=[pb.Record(value=line)]) for line in lines)
    for response in nodes.stub().ProduceStream(requests):
        print(response.offset, flush=True)


def get(nodes: Nodes, args: argparse.Namespace) -> None:
    """Prints one record."""
    response = nodes.call("Consume", pb.ConsumeRequest(log=args.log, offset=args.offset, max_records=1))
    if not response.records:
        raise ValueError(f"there is no record at offset {args.offset} yet: it is the next one")
    show(response.records[0])


def consume(nodes: Nodes, args: argparse.Namespace) -> None:
    """Prints the existing records."""
    read(nodes, args, stop_at_end=True)


def tail(nodes: Nodes, args: argparse.Namespace) -> None:
    """Prints the existing records, then new ones."""
    read(nodes, args, stop_at_end=False)


def read(nodes: Nodes, args: argparse.Namespace, *, stop_at_end: bool) -> None:
    starts = {"earliest": pb.START_EARLIEST, "latest": pb.START_LATEST}
    start = starts.get(args.start, pb.START_OFFSET)
    request = pb.ConsumeRequest(log=args.log, start=start, max_records=args.max_records, stop_at_end=stop_at_end)
    if start == pb.START_OFFSET:
        request.offset = int(args.start)
    until = None
    while True:
        try:
            for message, response in enumerate(nodes.stub().ConsumeStream(request)):
                for record in response.records:
                    show(record)
                # Where to continue after an error. The first message has no records if there are none; it says this too.
                request.start, request.offset = pb.START_OFFSET, response.resume_offset
                if not request.HasField("log_id"):
                    request.log_id = response.log_id
                # A node sends the first message before it has read anything: that is not a success yet.
                if message > 0:
                    until = None
                    nodes.failed = 0
            return
        except grpc.RpcError as error:
            until = until or time.monotonic() + CALL_SECONDS
            if not nodes.may_repeat(Failure.of(error), until, is_read=True):
                raise


def servers(nodes: Nodes, args: argparse.Namespace) -> None:
    """Prints the members of the cluster, and which of them leads the log."""
    for server in nodes.call("GetServers", pb.GetServersRequest(log=args.log or "default")).servers:
        line = {"id": server.id, "rpc_addr": server.rpc_addr, "leader": server.is_leader, "voter": server.is_voter}
        print(json.dumps(line))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A client of Seriatim.")
    parser.add_argument("--addr", default="localhost:8400", metavar="HOST:PORT,...", help="nodes [%(default)s]")
    parser.add_argument("--certs", default="certs", type=pathlib.Path, help="ca.pem, client-USER.pem [%(default)s]")
    parser.add_argument("--user", default="root", help="the user whose certificate to use [%(default)s]")
    parser.add_argument("--log", default="", help="the log [default]")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(run: Callable[[Nodes, argparse.Namespace], None]) -> argparse.ArgumentParser:
        added = commands.add_parser(run.__name__, help=run.__doc__)
        added.set_defaults(run=run)
        return added

    added = command(produce)
    added.add_argument("--key")
    added.add_argument("--header", action="append", default=[], metavar="NAME=VALUE")
    added.add_argument("--type", type=int, default=0)
    added.add_argument("value", nargs="+")
    command(pipe)
    command(get).add_argument("offset", type=int)
    for added in (command(consume), command(tail)):
        added.add_argument("--from", default="earliest", dest="start", help="an offset, earliest or latest [%(default)s]")
        added.add_argument("--max-records", type=int, default=0, help="per message; 0: the server decides [%(default)s]")
    command(servers)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    try:
        args.run(Nodes(args.addr.split(","), args.certs, args.user), args)
    except grpc.RpcError as error:
        sys.exit(f"error: {Failure.of(error)}")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
