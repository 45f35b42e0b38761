"""Records as applications see them."""

import dataclasses

from .v1 import log_service_pb2 as pb


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """An entry of a log. `offset`, `append_time_us` and `term` are set when it is read, and ignored when it is sent."""

    value: bytes = b""
    # An absent key differs from an empty one.
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    type: int = 0
    # When the event happened, in microseconds since 1970. An absent time differs from 0.
    client_time_us: int | None = None
    offset: int = 0
    append_time_us: int = 0
    term: int = 0

    def size(self) -> int:
        """Returns the size that the limits of a log count."""
        headers = sum(len(name.encode()) + len(value) for name, value in self.headers)
        return len(self.value) + len(self.key or b"") + headers

    def to_message(self) -> pb.Record:
        headers = [pb.Header(name=name, value=value) for name, value in self.headers]
        return pb.Record(
            value=self.value, key=self.key, headers=headers, type=self.type, client_time_us=self.client_time_us
        )

    @classmethod
    def of_message(cls, message: pb.Record) -> "Record":
        return cls(
            value=message.value,
            key=message.key if message.HasField("key") else None,
            headers=tuple((header.name, header.value) for header in message.headers),
            type=message.type,
            client_time_us=message.client_time_us if message.HasField("client_time_us") else None,
            offset=message.offset,
            append_time_us=message.append_time_us,
            term=message.term,
        )
