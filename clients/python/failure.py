"""What an error of Seriatim tells a client to do.

Written against proto/seriatim/v1/errors.proto. It decides by the keys `outcome` and `retry` of ErrorInfo and by RetryInfo. It knows
no reason, because newer servers may send others.
"""

import dataclasses

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# An error without ErrorInfo comes from gRPC itself, or from a check before the request was read.
NOTHING_WAS_DONE = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
)


@dataclasses.dataclass
class Failure:
    """A failed call."""

    code: grpc.StatusCode
    message: str
    # What became of the request: "none", "done" or "unknown".
    outcome: str = "unknown"
    # Whether the same request can succeed: "no", "same" (the same node), "elsewhere" (another one), "later" (after a person acted).
    retry: str = "no"
    # The pause that RetryInfo asks for, in seconds.
    pause: float | None = None
    # For people: the reason of ErrorInfo, and the other keys.
    reason: str = ""
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    # Whether the connection broke or none was made. Only a read may then be sent again: it changes nothing.
    connection_broke: bool = False

    @classmethod
    def of(cls, error: grpc.RpcError) -> "Failure":
        failure = cls(error.code(), error.details() or "")
        info, retry_info = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        try:
            status = rpc_status.from_call(error)
        except ValueError:  # The details contradict the status, because gRPC replaced it: they count as missing.
            status = None
        for detail in status.details if status else ():
            if detail.Unpack(info):
                failure.reason, failure.metadata = info.reason, dict(sorted(info.metadata.items()))
            elif detail.Unpack(retry_info):
                failure.pause = retry_info.retry_delay.ToTimedelta().total_seconds()
        if info.domain == "seriatim":
            failure.outcome = failure.metadata.pop("outcome", "unknown")
            failure.retry = failure.metadata.pop("retry", "no")
        elif failure.code in NOTHING_WAS_DONE:
            failure.outcome = "none"
        else:
            failure.connection_broke = failure.code == grpc.StatusCode.UNAVAILABLE
        return failure

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        metadata = f" {self.metadata}" if self.metadata else ""
        return f"{self.code.name}{reason}: {self.message}{metadata} [outcome {self.outcome}, retry {self.retry}]"
