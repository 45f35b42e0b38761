"""A client of Seriatim: produces, consumes and tails on any node, over mutual TLS.

Written against log.proto only. Prints records as JSON, one per line, and bytes as UTF-8. README.md has examples.
"""

import argparse
import json
import pathlib
import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from log.v1 import log_pb2 as pb
from log.v1 import log_pb2_grpc

CALL_SECONDS = 10
# A tail may be silent for hours. Keepalive pings distinguish that from a dead node.
KEEPALIVE = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
]


def connect(addr: str, certs: pathlib.Path, user: str) -> grpc.Channel:
    """Returns a channel with the client certificate of `user`, from a folder of `seriatim certs`."""
    ca, key, cert = ((certs / f"{name}.pem").read_bytes() for name in ("ca", f"client-{user}-key", f"client-{user}"))
    return grpc.secure_channel(addr, grpc.ssl_channel_credentials(ca, key, cert), KEEPALIVE)


def describe(error: grpc.RpcError) -> str:
    """Returns `CODE (REASON): message {metadata}`; the reason is that of ErrorInfo, which never changes."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            metadata = f" {dict(sorted(info.metadata.items()))}" if info.metadata else ""
            return f"{error.code().name} ({info.reason}): {error.details()}{metadata}"
    return f"{error.code().name}: {error.details()}"


def show(record: pb.Record) -> None:
    line = {"offset": record.offset, "value": text(record.value), "type": record.type}
    # An absent key differs from an empty one.
    line["key"] = text(record.key) if record.HasField("key") else None
    line["headers"] = [[header.name, text(header.value)] for header in record.headers]
    line |= {"term": record.term, "append_time_us": record.append_time_us}
    print(json.dumps(line), flush=True)


def text(value: bytes) -> str:
    return value.decode(errors="replace")


def produce(log: log_pb2_grpc.LogStub, args: argparse.Namespace) -> None:
    """Appends the values as one batch, all or nothing, and prints the offset of each."""
    key = None if args.key is None else args.key.encode()
    headers = [pb.Header(name=name, value=value.encode()) for name, _, value in (h.partition("=") for h in args.header)]
    records = [pb.Record(value=value.encode(), type=args.type, key=key, headers=headers) for value in args.value]
    response = log.Produce(pb.ProduceRequest(log=args.log, records=records), timeout=CALL_SECONDS)
    for offset in range(response.offset, response.offset + response.count):
        print(offset)


def pipe(log: log_pb2_grpc.LogStub, args: argparse.Namespace) -> None:
    """Sends each line of stdin as a record, without waiting for responses. Prints the offset of each."""
    lines = (line.removesuffix(b"\n") for line in sys.stdin.buffer)
    requests = (pb.ProduceRequest(log=args.log, record=pb.Record(value=line)) for line in lines)
    for response in log.ProduceStream(requests):
        print(response.offset, flush=True)


def get(log: log_pb2_grpc.LogStub, args: argparse.Namespace) -> None:
    """Prints one record."""
    show(log.Consume(pb.ConsumeRequest(log=args.log, offset=args.offset), timeout=CALL_SECONDS).record)


def consume(log: log_pb2_grpc.LogStub, args: argparse.Namespace) -> None:
    """Prints the records from an offset (by default the first); `tail` then waits for more."""
    start = pb.START_EARLIEST if args.start is None else pb.START_OFFSET
    request = pb.ConsumeRequest(log=args.log, start=start, offset=args.start or 0, max_records=args.max_records)
    request.stop_at_end = args.command == "consume"
    for response in log.ConsumeStream(request):
        # With `max_records` 0, a message contains one record, in another field.
        for record in response.records if args.max_records else [response.record]:
            show(record)


def servers(log: log_pb2_grpc.LogStub, args: argparse.Namespace) -> None:
    """Prints the members of the cluster, and which of them leads the log."""
    for server in log.GetServers(pb.GetServersRequest(log=args.log), timeout=CALL_SECONDS).servers:
        line = {"id": server.id, "rpc_addr": server.rpc_addr, "leader": server.is_leader, "voter": server.is_voter}
        print(json.dumps(line))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A client of Seriatim.")
    parser.add_argument("--addr", default="localhost:8400", help="any node [%(default)s]")
    parser.add_argument("--certs", default="certs", type=pathlib.Path, help="ca.pem, client-USER.pem [%(default)s]")
    parser.add_argument("--user", default="root", help="the user whose certificate to use [%(default)s]")
    parser.add_argument("--log", default="", help="the log [default]")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(run, name: str = "", about: str = "") -> argparse.ArgumentParser:
        added = commands.add_parser(name or run.__name__, help=about or run.__doc__)
        added.set_defaults(run=run)
        return added

    added = command(produce)
    added.add_argument("--key")
    added.add_argument("--header", action="append", default=[], metavar="NAME=VALUE")
    added.add_argument("--type", type=int, default=0)
    added.add_argument("value", nargs="+")
    command(pipe)
    command(get).add_argument("offset", type=int)
    for added in (command(consume), command(consume, "tail", "Like consume, then print new records.")):
        added.add_argument("--from", type=int, dest="start", metavar="OFFSET")
        added.add_argument("--max-records", type=int, default=1000, help="per message; 0: single records [%(default)s]")
    command(servers)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    try:
        with connect(args.addr, args.certs, args.user) as channel:
            args.run(log_pb2_grpc.LogStub(channel), args)
    except grpc.RpcError as error:
        sys.exit(f"error: {describe(error)}")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
