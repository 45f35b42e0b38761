from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Start(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    START_OFFSET: _ClassVar[Start]
    START_EARLIEST: _ClassVar[Start]
    START_LATEST: _ClassVar[Start]
    START_TIME: _ClassVar[Start]
START_OFFSET: Start
START_EARLIEST: Start
START_LATEST: Start
START_TIME: Start

class Record(_message.Message):
    __slots__ = ("value", "offset", "term", "type", "append_time_us", "key", "headers")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    APPEND_TIME_US_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    offset: int
    term: int
    type: int
    append_time_us: int
    key: bytes
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    def __init__(self, value: _Optional[bytes] = ..., offset: _Optional[int] = ..., term: _Optional[int] = ..., type: _Optional[int] = ..., append_time_us: _Optional[int] = ..., key: _Optional[bytes] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class ProduceRequest(_message.Message):
    __slots__ = ("record", "log", "records", "expected_offset", "producer_id", "sequence", "log_id")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_OFFSET_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    record: Record
    log: str
    records: _containers.RepeatedCompositeFieldContainer[Record]
    expected_offset: int
    producer_id: int
    sequence: int
    log_id: int
    def __init__(self, record: _Optional[_Union[Record, _Mapping]] = ..., log: _Optional[str] = ..., records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ..., expected_offset: _Optional[int] = ..., producer_id: _Optional[int] = ..., sequence: _Optional[int] = ..., log_id: _Optional[int] = ...) -> None: ...

class ProduceResponse(_message.Message):
    __slots__ = ("offset", "count", "term", "append_time_us", "log_id", "duplicate")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    APPEND_TIME_US_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    offset: int
    count: int
    term: int
    append_time_us: int
    log_id: int
    duplicate: bool
    def __init__(self, offset: _Optional[int] = ..., count: _Optional[int] = ..., term: _Optional[int] = ..., append_time_us: _Optional[int] = ..., log_id: _Optional[int] = ..., duplicate: bool = ...) -> None: ...

class ConsumeRequest(_message.Message):
    __slots__ = ("offset", "log", "start", "start_time_us", "max_records", "max_bytes", "wait_ms", "heartbeat_ms", "stop_at_end", "log_id")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    START_TIME_US_FIELD_NUMBER: _ClassVar[int]
    MAX_RECORDS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    STOP_AT_END_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    offset: int
    log: str
    start: Start
    start_time_us: int
    max_records: int
    max_bytes: int
    wait_ms: int
    heartbeat_ms: int
    stop_at_end: bool
    log_id: int
    def __init__(self, offset: _Optional[int] = ..., log: _Optional[str] = ..., start: _Optional[_Union[Start, str]] = ..., start_time_us: _Optional[int] = ..., max_records: _Optional[int] = ..., max_bytes: _Optional[int] = ..., wait_ms: _Optional[int] = ..., heartbeat_ms: _Optional[int] = ..., stop_at_end: bool = ..., log_id: _Optional[int] = ...) -> None: ...

class ConsumeResponse(_message.Message):
    __slots__ = ("record", "records", "first_offset", "next_offset", "log_id")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    record: Record
    records: _containers.RepeatedCompositeFieldContainer[Record]
    first_offset: int
    next_offset: int
    log_id: int
    def __init__(self, record: _Optional[_Union[Record, _Mapping]] = ..., records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ..., first_offset: _Optional[int] = ..., next_offset: _Optional[int] = ..., log_id: _Optional[int] = ...) -> None: ...

class GetServersRequest(_message.Message):
    __slots__ = ("log",)
    LOG_FIELD_NUMBER: _ClassVar[int]
    log: str
    def __init__(self, log: _Optional[str] = ...) -> None: ...

class GetServersResponse(_message.Message):
    __slots__ = ("servers", "cluster_id", "term")
    SERVERS_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    servers: _containers.RepeatedCompositeFieldContainer[Server]
    cluster_id: str
    term: int
    def __init__(self, servers: _Optional[_Iterable[_Union[Server, _Mapping]]] = ..., cluster_id: _Optional[str] = ..., term: _Optional[int] = ...) -> None: ...

class Server(_message.Message):
    __slots__ = ("id", "rpc_addr", "is_leader", "node_id", "is_voter")
    ID_FIELD_NUMBER: _ClassVar[int]
    RPC_ADDR_FIELD_NUMBER: _ClassVar[int]
    IS_LEADER_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    IS_VOTER_FIELD_NUMBER: _ClassVar[int]
    id: str
    rpc_addr: str
    is_leader: bool
    node_id: int
    is_voter: bool
    def __init__(self, id: _Optional[str] = ..., rpc_addr: _Optional[str] = ..., is_leader: bool = ..., node_id: _Optional[int] = ..., is_voter: bool = ...) -> None: ...

class GetLogRequest(_message.Message):
    __slots__ = ("log",)
    LOG_FIELD_NUMBER: _ClassVar[int]
    log: str
    def __init__(self, log: _Optional[str] = ...) -> None: ...

class GetLogResponse(_message.Message):
    __slots__ = ("log", "log_id", "first_offset", "next_offset", "first_append_time_us", "last_append_time_us", "record_bytes_max", "request_bytes_max", "stored_bytes")
    LOG_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    FIRST_APPEND_TIME_US_FIELD_NUMBER: _ClassVar[int]
    LAST_APPEND_TIME_US_FIELD_NUMBER: _ClassVar[int]
    RECORD_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    REQUEST_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    log: str
    log_id: int
    first_offset: int
    next_offset: int
    first_append_time_us: int
    last_append_time_us: int
    record_bytes_max: int
    request_bytes_max: int
    stored_bytes: int
    def __init__(self, log: _Optional[str] = ..., log_id: _Optional[int] = ..., first_offset: _Optional[int] = ..., next_offset: _Optional[int] = ..., first_append_time_us: _Optional[int] = ..., last_append_time_us: _Optional[int] = ..., record_bytes_max: _Optional[int] = ..., request_bytes_max: _Optional[int] = ..., stored_bytes: _Optional[int] = ...) -> None: ...
