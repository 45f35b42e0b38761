"""A server of seriatim.v1 that answers what a test says, to test what clients do with an error."""

import concurrent.futures
import dataclasses
import subprocess

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from cluster import ENV, SERIATIM
from seriatim.v1 import log_service_pb2 as pb
from seriatim.v1 import log_service_pb2_grpc


@dataclasses.dataclass
class Fails:
    """An answer that is an error."""

    code: grpc.StatusCode
    # The metadata of ErrorInfo. None: the error contains no ErrorInfo.
    metadata: dict[str, str] | None = None
    reason: str = "INVENTED"
    # RetryInfo.
    pause_seconds: float | None = None
    # What a stream sends before it.
    messages: tuple[pb.ConsumeResponse, ...] = ()

    def abort(self, context):
        details = []
        if self.metadata is not None:
            details.append(error_details_pb2.ErrorInfo(domain="seriatim", reason=self.reason, metadata=self.metadata))
        if self.pause_seconds is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.pause_seconds * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=self.code.value[0], message="it says")
        for detail in details:
            status.details.append(any_pb2.Any())
            status.details[-1].Pack(detail)
        context.abort_with_status(rpc_status.to_status(status))


class FakeNode(log_service_pb2_grpc.LogServiceServicer):
    """Answers one request after the other with the next of `answers`, and keeps the requests.

    An answer is a message, a list of messages, `Fails`, or for a stream also a function that yields messages.
    """

    def __init__(self, certs, answers):
        self.answers, self.requests = list(answers), []
        # One thread: a request is answered completely before the next.
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=1))
        log_service_pb2_grpc.add_LogServiceServicer_to_server(self, self.server)
        pem = [(certs / name).read_bytes() for name in ("ca.pem", "server-key.pem", "server.pem")]
        credentials = grpc.ssl_server_credentials([(pem[1], pem[2])], pem[0], require_client_auth=True)
        self.addr = f"127.0.0.1:{self.server.add_secure_port('127.0.0.1:0', credentials)}"
        self.server.start()

    def stop(self):
        self.server.stop(grace=None).wait()

    def _next(self, request, context):
        self.requests.append(request)
        if not self.answers:
            Fails(grpc.StatusCode.INTERNAL, {}, "THE_TEST_EXPECTS_NO_MORE_REQUESTS").abort(context)
        return self.answers.pop(0)

    def _unary(self, request, context):
        answer = self._next(request, context)
        if isinstance(answer, Fails):
            answer.abort(context)
        return answer

    Produce = Consume = GetServers = _unary

    def ConsumeStream(self, request, context):  # noqa: N802 The name of the method.
        answer = self._next(request, context)
        if isinstance(answer, Fails):
            yield from answer.messages
            answer.abort(context)
        yield from answer(request, context) if callable(answer) else answer


def certificates(folder):
    """Writes certificates into `folder`/certs, and returns that."""
    certs = folder / "certs"
    command = [SERIATIM, "certs", "--out", certs, "--hosts", "localhost,127.0.0.1", "--clients", "root"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ENV)
    return certs
