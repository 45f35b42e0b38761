"""Errors, and what they say about the request. Written against proto/seriatim/v1/errors.proto.

What to do after an error is decided by `outcome` and `retry`. The reason only chooses the class of the exception.
"""

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# By reason. Other errors get their kind from the outcome and the code.
_KIND_OF_REASON = {
    "NO_SUCH_LOG": "not_found",
    "LOG_DELETED": "not_found",
    "NO_SUCH_PRODUCER": "not_found",
    "NO_SUCH_CURSOR": "not_found",
    "EXPECTED_OFFSET_MISMATCH": "mismatch",
    "REVISION_MISMATCH": "mismatch",
    "EPOCH_MISMATCH": "mismatch",
    "LOG_ID_MISMATCH": "mismatch",
    "CURSOR_BEHIND": "mismatch",
    "CLUSTER_CHANGED": "mismatch",
    "PRODUCER_FENCED": "fenced",
    "CURSOR_FENCED": "fenced",
    "RECORD_TOO_LARGE": "too_large",
    "REQUEST_TOO_LARGE": "too_large",
    "OFFSET_TRIMMED": "trimmed",
    "OFFSET_PAST_END": "past_end",
    "RECORD_DAMAGED": "data_loss",
}
_KIND_OF_CODE = {
    "PERMISSION_DENIED": "not_allowed",
    "UNAUTHENTICATED": "not_allowed",
    "UNAVAILABLE": "unavailable",
    "RESOURCE_EXHAUSTED": "exhausted",
    "INVALID_ARGUMENT": "invalid",
    "UNIMPLEMENTED": "invalid",
    "DEADLINE_EXCEEDED": "timeout",
    "CANCELLED": "cancelled",
    "NOT_FOUND": "not_found",
    "OUT_OF_RANGE": "past_end",
    "DATA_LOSS": "data_loss",
}
# Errors of gRPC itself, or of a check before the request was read, after which nothing was done.
_NOTHING_WAS_DONE = ("UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED")
# Errors of gRPC itself that mean that the connection or the attempt failed. An idempotent request is sent again, elsewhere.
_BROKEN = ("UNAVAILABLE", "UNKNOWN", "INTERNAL", "CANCELLED", "DEADLINE_EXCEEDED")
_CLASSES: dict[str, type["Error"]] = {}


class Error(Exception):
    """A request that failed. Its class tells the kind."""

    kind = "other"
    # gRPC's name of the code, for example "UNAVAILABLE".
    code: str
    # The reason of ErrorInfo, or "".
    reason: str
    message: str
    metadata: dict[str, str]
    # What became of the request, over all attempts: "none", "done" or "unknown".
    outcome: str
    # Whether the same request can succeed: "no", "same" (the same node), "elsewhere", "later" (after a person acted).
    retry: str
    # How long the server asks to wait, in seconds.
    pause: float
    # Whether the connection broke, so that no node has answered.
    broken: bool

    def __init_subclass__(cls):
        _CLASSES[cls.kind] = cls

    @staticmethod
    def make(
        code: str,
        message: str,
        *,
        reason: str = "",
        metadata: dict[str, str] | None = None,
        outcome: str = "none",
        retry: str = "no",
        pause: float = 0,
        broken: bool = False,
        kind: str = "",
    ) -> "Error":
        """Returns an error of the class that its kind demands."""
        if reason in _KIND_OF_REASON:
            kind = _KIND_OF_REASON[reason]
        elif outcome == "unknown":
            kind = "outcome_unknown"
        kind = kind or _KIND_OF_CODE.get(code, "other")
        error = _CLASSES[kind]()
        error.code, error.reason, error.message = code, reason, message
        error.metadata = dict(metadata or {})
        error.outcome, error.retry, error.pause, error.broken = outcome, retry, pause, broken
        error.args = (message,)
        return error

    @staticmethod
    def of(rpc_error: grpc.RpcError) -> "Error":
        """Reads the error of a call."""
        code, message = rpc_error.code().name, rpc_error.details() or ""
        info, delay = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        pause = 0.0
        try:
            status = rpc_status.from_call(rpc_error)
            for detail in status.details if status else ():
                if not detail.Unpack(info) and detail.Unpack(delay):
                    pause = delay.retry_delay.ToTimedelta().total_seconds()
        except (ValueError, DecodeError):
            # They are malformed, or contradict the status, because gRPC replaced it: they count as missing.
            info.Clear()
        if info.domain == "seriatim":
            metadata = dict(info.metadata)
            outcome, retry = metadata.pop("outcome", ""), metadata.pop("retry", "")
            # A value that is not known here counts as the one that promises less.
            outcome = outcome if outcome in ("none", "done") else "unknown"
            retry = retry if retry in ("same", "elsewhere", "later") else "no"
            return Error.make(
                code, message, reason=info.reason, metadata=metadata, outcome=outcome, retry=retry, pause=pause
            )
        outcome = "none" if code in _NOTHING_WAS_DONE else "unknown"
        broken = code in _BROKEN
        if broken and code not in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            code, message = "UNAVAILABLE", f"{code}: {message}"
        retry = "elsewhere" if broken else "no"
        return Error.make(code, message, outcome=outcome, retry=retry, pause=pause, broken=broken)

    def with_outcome(self, outcome: str) -> "Error":
        """Returns the same error with another outcome, which may be of another class."""
        kind = self.kind if self.kind in ("closed", "timeout") else ""
        return Error.make(
            self.code,
            self.message,
            reason=self.reason,
            metadata=self.metadata,
            outcome=outcome,
            retry=self.retry,
            pause=self.pause,
            broken=self.broken,
            kind=kind,
        )

    def may_have_been_done(self) -> bool:
        """Returns whether the request may have had an effect."""
        return self.outcome != "none"

    def is_retryable(self) -> bool:
        return self.broken or self.retry != "no"

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.code}{reason}: {self.message} [outcome {self.outcome}, retry {self.retry}]"


class NotFoundError(Error):
    kind = "not_found"


class MismatchError(Error):
    """An expected offset, revision, epoch, log id or cluster id is not the present one."""

    kind = "mismatch"


class FencedError(Error):
    """Another process has taken the producer or the cursor over."""

    kind = "fenced"


class TooLargeError(Error):
    kind = "too_large"


class TrimmedError(Error):
    """The record was trimmed. `metadata["first_offset"]` is the first one that exists."""

    kind = "trimmed"


class PastEndError(Error):
    kind = "past_end"


class NotAllowedError(Error):
    kind = "not_allowed"


class UnavailableError(Error):
    kind = "unavailable"


class ExhaustedError(Error):
    kind = "exhausted"


class DataLossError(Error):
    kind = "data_loss"


class OutcomeUnknownError(Error):
    """The request may have been done, or may be done later."""

    kind = "outcome_unknown"


class InvalidError(Error):
    kind = "invalid"


class TimeoutError(Error, TimeoutError):  # noqa: A001 It is the built-in exception, too.
    kind = "timeout"


class CancelledError(Error):
    kind = "cancelled"


class ClosedError(Error):
    """The client, the producer or the consumer was closed."""

    kind = "closed"


class OtherError(Error):
    kind = "other"


def closed(what: str) -> Error:
    return Error.make("CANCELLED", f"the {what} is closed", kind="closed")


def timed_out(what: str, seconds: float, cause: BaseException | None = None, outcome: str = "none") -> Error:
    detail = f"; the last error was {cause}" if cause else ""
    error = Error.make("DEADLINE_EXCEEDED", f"{what} within {seconds:.3g} s{detail}", outcome=outcome, kind="timeout")
    error.__cause__ = cause
    return error
