"""The client library of Seriatim, a replicated commit log.

Start with `Client`: it connects to a cluster, and makes producers and consumers. All of them can be shared by threads.
"""

from .client import Client, Cursor, Options
from .consumer import Consumer, Start
from .errors import (
    CancelledError,
    ClosedError,
    DataLossError,
    Error,
    ExhaustedError,
    FencedError,
    InvalidError,
    MismatchError,
    NotAllowedError,
    NotFoundError,
    OtherError,
    OutcomeUnknownError,
    PastEndError,
    TimeoutError,
    TooLargeError,
    TrimmedError,
    UnavailableError,
)
from .producer import Ack, Producer
from .record import Record

__all__ = [
    "Ack",
    "CancelledError",
    "Client",
    "ClosedError",
    "Consumer",
    "Cursor",
    "DataLossError",
    "Error",
    "ExhaustedError",
    "FencedError",
    "InvalidError",
    "MismatchError",
    "NotAllowedError",
    "NotFoundError",
    "Options",
    "OtherError",
    "OutcomeUnknownError",
    "PastEndError",
    "Producer",
    "Record",
    "Start",
    "TimeoutError",
    "TooLargeError",
    "TrimmedError",
    "UnavailableError",
]
