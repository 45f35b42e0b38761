"""Produces, consumes and tails: a client made from nothing but log.proto (log/v1/ is generated, see clients/generate.sh).

    python3 clients/python/example.py --addr 127.0.0.1:8400 --certs certs
"""

import argparse
import pathlib
import queue
import threading
import uuid

import grpc

from log.v1 import log_pb2 as pb
from log.v1 import log_pb2_grpc


def connect(addr, certs, user="root"):
    """A channel with mutual TLS, from the files that `seriatim certs` makes."""
    read = lambda name: (pathlib.Path(certs) / name).read_bytes()
    credentials = grpc.ssl_channel_credentials(
        root_certificates=read("ca.pem"),
        private_key=read(f"client-{user}-key.pem"),
        certificate_chain=read(f"client-{user}.pem"),
    )
    return grpc.secure_channel(addr, credentials)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--addr", default="127.0.0.1:8400")
    parser.add_argument("--certs", default="certs")
    args = parser.parse_args()
    mine = uuid.uuid4().hex.encode()
    with connect(args.addr, args.certs) as channel:
        log = log_pb2_grpc.LogStub(channel)

        # One record, and read at once.
        produced = log.Produce(pb.ProduceRequest(record=pb.Record(value=b"one " + mine)), timeout=10)
        record = log.Consume(pb.ConsumeRequest(offset=produced.offset), timeout=10).record
        assert (record.value, record.offset) == (b"one " + mine, produced.offset), record

        # A tail from there on, which sees what a stream of batches appends.
        seen = queue.Queue()
        tail = log.ConsumeStream(pb.ConsumeRequest(offset=produced.offset, max_records=100), timeout=30)

        def follow():
            try:
                for answer in tail:
                    for record in answer.records:
                        seen.put(record)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.CANCELLED:
                    raise

        follower = threading.Thread(target=follow)
        follower.start()
        batches = [
            pb.ProduceRequest(records=[pb.Record(value=b"%d %d " % (batch, n) + mine) for n in range(10)])
            for batch in range(10)
        ]
        answers = list(log.ProduceStream(iter(batches), timeout=10))
        assert [a.count for a in answers] == [10] * 10, answers

        expected = [b"one " + mine] + [r.value for request in batches for r in request.records]
        found, offsets = [], []
        while len(found) < len(expected):
            record = seen.get(timeout=10)
            offsets.append(record.offset)
            if record.value.endswith(mine):
                found.append(record.value)
        tail.cancel()
        follower.join()
        assert found == expected, (found, expected)
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets))), "offsets have no gap"

        # Past the end is a clear error.
        end = log.GetLog(pb.GetLogRequest(), timeout=10).next_offset
        try:
            log.Consume(pb.ConsumeRequest(offset=end + 1000), timeout=10)
            raise AssertionError("there is nothing at that offset")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.OUT_OF_RANGE, error

        leader = [server.id for server in log.GetServers(pb.GetServersRequest(), timeout=10).servers if server.is_leader]
        print(f"python: {len(found)} records produced, consumed and tailed; the leader is {leader}")


if __name__ == "__main__":
    main()
