import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
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
    START_LAST: _ClassVar[Start]
    START_CURSOR: _ClassVar[Start]

class LogState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOG_STATE_UNSPECIFIED: _ClassVar[LogState]
    LOG_STATE_CREATING: _ClassVar[LogState]
    LOG_STATE_ACTIVE: _ClassVar[LogState]
    LOG_STATE_RESTORING: _ClassVar[LogState]
    LOG_STATE_DELETED: _ClassVar[LogState]
START_OFFSET: Start
START_EARLIEST: Start
START_LATEST: Start
START_TIME: Start
START_LAST: Start
START_CURSOR: Start
LOG_STATE_UNSPECIFIED: LogState
LOG_STATE_CREATING: LogState
LOG_STATE_ACTIVE: LogState
LOG_STATE_RESTORING: LogState
LOG_STATE_DELETED: LogState

class Record(_message.Message):
    __slots__ = ("value", "offset", "term", "type", "append_time_us", "key", "headers", "client_time_us")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    APPEND_TIME_US_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_TIME_US_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    offset: int
    term: int
    type: int
    append_time_us: int
    key: bytes
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    client_time_us: int
    def __init__(self, value: _Optional[bytes] = ..., offset: _Optional[int] = ..., term: _Optional[int] = ..., type: _Optional[int] = ..., append_time_us: _Optional[int] = ..., key: _Optional[bytes] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ..., client_time_us: _Optional[int] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class ProduceRequest(_message.Message):
    __slots__ = ("log", "records", "expected_offset", "producer_id", "sequence", "log_id", "producer_epoch", "restored_append_time_us", "receipt")
    LOG_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_OFFSET_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    RESTORED_APPEND_TIME_US_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    log: str
    records: _containers.RepeatedCompositeFieldContainer[Record]
    expected_offset: int
    producer_id: int
    sequence: int
    log_id: str
    producer_epoch: int
    restored_append_time_us: int
    receipt: bool
    def __init__(self, log: _Optional[str] = ..., records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ..., expected_offset: _Optional[int] = ..., producer_id: _Optional[int] = ..., sequence: _Optional[int] = ..., log_id: _Optional[str] = ..., producer_epoch: _Optional[int] = ..., restored_append_time_us: _Optional[int] = ..., receipt: bool = ...) -> None: ...

class ProduceResponse(_message.Message):
    __slots__ = ("offset", "count", "term", "append_time_us", "log_id", "duplicate", "receipt")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    APPEND_TIME_US_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    offset: int
    count: int
    term: int
    append_time_us: int
    log_id: str
    duplicate: bool
    receipt: Receipt
    def __init__(self, offset: _Optional[int] = ..., count: _Optional[int] = ..., term: _Optional[int] = ..., append_time_us: _Optional[int] = ..., log_id: _Optional[str] = ..., duplicate: bool = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("statement", "signature", "certificates")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    statement: bytes
    signature: bytes
    certificates: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, statement: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., certificates: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ReceiptStatement(_message.Message):
    __slots__ = ("cluster_name", "cluster_id", "log", "log_id", "link", "node_name", "signed_time_us")
    CLUSTER_NAME_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    SIGNED_TIME_US_FIELD_NUMBER: _ClassVar[int]
    cluster_name: str
    cluster_id: str
    log: str
    log_id: str
    link: ChainLink
    node_name: str
    signed_time_us: int
    def __init__(self, cluster_name: _Optional[str] = ..., cluster_id: _Optional[str] = ..., log: _Optional[str] = ..., log_id: _Optional[str] = ..., link: _Optional[_Union[ChainLink, _Mapping]] = ..., node_name: _Optional[str] = ..., signed_time_us: _Optional[int] = ...) -> None: ...

class ChainLink(_message.Message):
    __slots__ = ("offset", "count", "term", "append_time_us", "content_hash", "previous_chain_hash", "chain_hash")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    APPEND_TIME_US_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_CHAIN_HASH_FIELD_NUMBER: _ClassVar[int]
    CHAIN_HASH_FIELD_NUMBER: _ClassVar[int]
    offset: int
    count: int
    term: int
    append_time_us: int
    content_hash: bytes
    previous_chain_hash: bytes
    chain_hash: bytes
    def __init__(self, offset: _Optional[int] = ..., count: _Optional[int] = ..., term: _Optional[int] = ..., append_time_us: _Optional[int] = ..., content_hash: _Optional[bytes] = ..., previous_chain_hash: _Optional[bytes] = ..., chain_hash: _Optional[bytes] = ...) -> None: ...

class ConsumeRequest(_message.Message):
    __slots__ = ("offset", "log", "start", "start_time_us", "max_records", "max_bytes", "wait_ms", "heartbeat_ms", "stop_at_end", "log_id", "cursor", "cursor_epoch")
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
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    CURSOR_EPOCH_FIELD_NUMBER: _ClassVar[int]
    offset: int
    log: str
    start: Start
    start_time_us: int
    max_records: int
    max_bytes: int
    wait_ms: int
    heartbeat_ms: int
    stop_at_end: bool
    log_id: str
    cursor: str
    cursor_epoch: int
    def __init__(self, offset: _Optional[int] = ..., log: _Optional[str] = ..., start: _Optional[_Union[Start, str]] = ..., start_time_us: _Optional[int] = ..., max_records: _Optional[int] = ..., max_bytes: _Optional[int] = ..., wait_ms: _Optional[int] = ..., heartbeat_ms: _Optional[int] = ..., stop_at_end: bool = ..., log_id: _Optional[str] = ..., cursor: _Optional[str] = ..., cursor_epoch: _Optional[int] = ...) -> None: ...

class ConsumeResponse(_message.Message):
    __slots__ = ("records", "first_offset", "next_offset", "log_id", "resume_offset")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_OFFSET_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[Record]
    first_offset: int
    next_offset: int
    log_id: str
    resume_offset: int
    def __init__(self, records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ..., first_offset: _Optional[int] = ..., next_offset: _Optional[int] = ..., log_id: _Optional[str] = ..., resume_offset: _Optional[int] = ...) -> None: ...

class GetServersRequest(_message.Message):
    __slots__ = ("log",)
    LOG_FIELD_NUMBER: _ClassVar[int]
    log: str
    def __init__(self, log: _Optional[str] = ...) -> None: ...

class GetServersResponse(_message.Message):
    __slots__ = ("servers", "cluster_id", "term", "feature_level", "version")
    SERVERS_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    FEATURE_LEVEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    servers: _containers.RepeatedCompositeFieldContainer[Server]
    cluster_id: str
    term: int
    feature_level: int
    version: str
    def __init__(self, servers: _Optional[_Iterable[_Union[Server, _Mapping]]] = ..., cluster_id: _Optional[str] = ..., term: _Optional[int] = ..., feature_level: _Optional[int] = ..., version: _Optional[str] = ...) -> None: ...

class Server(_message.Message):
    __slots__ = ("id", "rpc_addr", "is_leader", "node_id", "is_voter", "is_replica")
    ID_FIELD_NUMBER: _ClassVar[int]
    RPC_ADDR_FIELD_NUMBER: _ClassVar[int]
    IS_LEADER_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    IS_VOTER_FIELD_NUMBER: _ClassVar[int]
    IS_REPLICA_FIELD_NUMBER: _ClassVar[int]
    id: str
    rpc_addr: str
    is_leader: bool
    node_id: str
    is_voter: bool
    is_replica: bool
    def __init__(self, id: _Optional[str] = ..., rpc_addr: _Optional[str] = ..., is_leader: bool = ..., node_id: _Optional[str] = ..., is_voter: bool = ..., is_replica: bool = ...) -> None: ...

class LogInfo(_message.Message):
    __slots__ = ("name", "log_id", "config", "position", "state", "revision", "create_time", "delete_time", "purge_time", "own_config", "restore")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    DELETE_TIME_FIELD_NUMBER: _ClassVar[int]
    PURGE_TIME_FIELD_NUMBER: _ClassVar[int]
    OWN_CONFIG_FIELD_NUMBER: _ClassVar[int]
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    name: str
    log_id: str
    config: LogConfig
    position: LogPosition
    state: LogState
    revision: int
    create_time: _timestamp_pb2.Timestamp
    delete_time: _timestamp_pb2.Timestamp
    purge_time: _timestamp_pb2.Timestamp
    own_config: LogConfig
    restore: Restore
    def __init__(self, name: _Optional[str] = ..., log_id: _Optional[str] = ..., config: _Optional[_Union[LogConfig, _Mapping]] = ..., position: _Optional[_Union[LogPosition, _Mapping]] = ..., state: _Optional[_Union[LogState, str]] = ..., revision: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., delete_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., purge_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., own_config: _Optional[_Union[LogConfig, _Mapping]] = ..., restore: _Optional[_Union[Restore, _Mapping]] = ...) -> None: ...

class Restore(_message.Message):
    __slots__ = ("source_log_id", "first_offset", "end_offset", "digest")
    SOURCE_LOG_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    source_log_id: str
    first_offset: int
    end_offset: int
    digest: bytes
    def __init__(self, source_log_id: _Optional[str] = ..., first_offset: _Optional[int] = ..., end_offset: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class LogConfig(_message.Message):
    __slots__ = ("retention_age", "min_retained_bytes", "max_record_bytes", "max_request_bytes", "replicas", "labels", "hash_chain")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    RETENTION_AGE_FIELD_NUMBER: _ClassVar[int]
    MIN_RETAINED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_RECORD_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    HASH_CHAIN_FIELD_NUMBER: _ClassVar[int]
    retention_age: _duration_pb2.Duration
    min_retained_bytes: int
    max_record_bytes: int
    max_request_bytes: int
    replicas: int
    labels: _containers.ScalarMap[str, str]
    hash_chain: bool
    def __init__(self, retention_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., min_retained_bytes: _Optional[int] = ..., max_record_bytes: _Optional[int] = ..., max_request_bytes: _Optional[int] = ..., replicas: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., hash_chain: bool = ...) -> None: ...

class LogPosition(_message.Message):
    __slots__ = ("first_offset", "next_offset", "first_append_time_us", "last_append_time_us", "stored_bytes")
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    FIRST_APPEND_TIME_US_FIELD_NUMBER: _ClassVar[int]
    LAST_APPEND_TIME_US_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    first_offset: int
    next_offset: int
    first_append_time_us: int
    last_append_time_us: int
    stored_bytes: int
    def __init__(self, first_offset: _Optional[int] = ..., next_offset: _Optional[int] = ..., first_append_time_us: _Optional[int] = ..., last_append_time_us: _Optional[int] = ..., stored_bytes: _Optional[int] = ...) -> None: ...

class CreateLogRequest(_message.Message):
    __slots__ = ("log", "config", "log_id", "validate_only", "restore")
    LOG_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    log: str
    config: LogConfig
    log_id: str
    validate_only: bool
    restore: Restore
    def __init__(self, log: _Optional[str] = ..., config: _Optional[_Union[LogConfig, _Mapping]] = ..., log_id: _Optional[str] = ..., validate_only: bool = ..., restore: _Optional[_Union[Restore, _Mapping]] = ...) -> None: ...

class CreateLogResponse(_message.Message):
    __slots__ = ("log",)
    LOG_FIELD_NUMBER: _ClassVar[int]
    log: LogInfo
    def __init__(self, log: _Optional[_Union[LogInfo, _Mapping]] = ...) -> None: ...

class GetLogRequest(_message.Message):
    __slots__ = ("log", "log_id")
    LOG_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    log: str
    log_id: str
    def __init__(self, log: _Optional[str] = ..., log_id: _Optional[str] = ...) -> None: ...

class GetLogResponse(_message.Message):
    __slots__ = ("log",)
    LOG_FIELD_NUMBER: _ClassVar[int]
    log: LogInfo
    def __init__(self, log: _Optional[_Union[LogInfo, _Mapping]] = ...) -> None: ...

class FinishRestoreRequest(_message.Message):
    __slots__ = ("log", "log_id")
    LOG_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    log: str
    log_id: str
    def __init__(self, log: _Optional[str] = ..., log_id: _Optional[str] = ...) -> None: ...

class FinishRestoreResponse(_message.Message):
    __slots__ = ("log",)
    LOG_FIELD_NUMBER: _ClassVar[int]
    log: LogInfo
    def __init__(self, log: _Optional[_Union[LogInfo, _Mapping]] = ...) -> None: ...

class ListLogsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "prefix", "show_deleted", "with_position")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    SHOW_DELETED_FIELD_NUMBER: _ClassVar[int]
    WITH_POSITION_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    prefix: str
    show_deleted: bool
    with_position: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., prefix: _Optional[str] = ..., show_deleted: bool = ..., with_position: bool = ...) -> None: ...

class ListLogsResponse(_message.Message):
    __slots__ = ("logs", "next_page_token")
    LOGS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    logs: _containers.RepeatedCompositeFieldContainer[LogInfo]
    next_page_token: str
    def __init__(self, logs: _Optional[_Iterable[_Union[LogInfo, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateLogRequest(_message.Message):
    __slots__ = ("log", "config", "update_mask", "log_id", "validate_only", "expected_revision")
    LOG_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    log: str
    config: LogConfig
    update_mask: _field_mask_pb2.FieldMask
    log_id: str
    validate_only: bool
    expected_revision: int
    def __init__(self, log: _Optional[str] = ..., config: _Optional[_Union[LogConfig, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., log_id: _Optional[str] = ..., validate_only: bool = ..., expected_revision: _Optional[int] = ...) -> None: ...

class UpdateLogResponse(_message.Message):
    __slots__ = ("log",)
    LOG_FIELD_NUMBER: _ClassVar[int]
    log: LogInfo
    def __init__(self, log: _Optional[_Union[LogInfo, _Mapping]] = ...) -> None: ...

class DeleteLogRequest(_message.Message):
    __slots__ = ("log", "log_id", "expected_revision", "purge_after")
    LOG_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    PURGE_AFTER_FIELD_NUMBER: _ClassVar[int]
    log: str
    log_id: str
    expected_revision: int
    purge_after: _duration_pb2.Duration
    def __init__(self, log: _Optional[str] = ..., log_id: _Optional[str] = ..., expected_revision: _Optional[int] = ..., purge_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class DeleteLogResponse(_message.Message):
    __slots__ = ("log",)
    LOG_FIELD_NUMBER: _ClassVar[int]
    log: LogInfo
    def __init__(self, log: _Optional[_Union[LogInfo, _Mapping]] = ...) -> None: ...

class UndeleteLogRequest(_message.Message):
    __slots__ = ("log", "log_id")
    LOG_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    log: str
    log_id: str
    def __init__(self, log: _Optional[str] = ..., log_id: _Optional[str] = ...) -> None: ...

class UndeleteLogResponse(_message.Message):
    __slots__ = ("log",)
    LOG_FIELD_NUMBER: _ClassVar[int]
    log: LogInfo
    def __init__(self, log: _Optional[_Union[LogInfo, _Mapping]] = ...) -> None: ...

class TrimLogRequest(_message.Message):
    __slots__ = ("log", "first_offset", "log_id")
    LOG_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    log: str
    first_offset: int
    log_id: str
    def __init__(self, log: _Optional[str] = ..., first_offset: _Optional[int] = ..., log_id: _Optional[str] = ...) -> None: ...

class TrimLogResponse(_message.Message):
    __slots__ = ("log", "trimmed_records")
    LOG_FIELD_NUMBER: _ClassVar[int]
    TRIMMED_RECORDS_FIELD_NUMBER: _ClassVar[int]
    log: LogInfo
    trimmed_records: int
    def __init__(self, log: _Optional[_Union[LogInfo, _Mapping]] = ..., trimmed_records: _Optional[int] = ...) -> None: ...

class Producer(_message.Message):
    __slots__ = ("log", "log_id", "producer", "producer_id", "epoch", "last_sequence", "last_offset", "last_append_time_us", "owner", "records")
    LOG_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LAST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LAST_APPEND_TIME_US_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    log: str
    log_id: str
    producer: str
    producer_id: int
    epoch: int
    last_sequence: int
    last_offset: int
    last_append_time_us: int
    owner: str
    records: int
    def __init__(self, log: _Optional[str] = ..., log_id: _Optional[str] = ..., producer: _Optional[str] = ..., producer_id: _Optional[int] = ..., epoch: _Optional[int] = ..., last_sequence: _Optional[int] = ..., last_offset: _Optional[int] = ..., last_append_time_us: _Optional[int] = ..., owner: _Optional[str] = ..., records: _Optional[int] = ...) -> None: ...

class InitProducerRequest(_message.Message):
    __slots__ = ("log", "producer", "instance", "expected_epoch", "log_id", "owner")
    LOG_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_EPOCH_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    log: str
    producer: str
    instance: int
    expected_epoch: int
    log_id: str
    owner: str
    def __init__(self, log: _Optional[str] = ..., producer: _Optional[str] = ..., instance: _Optional[int] = ..., expected_epoch: _Optional[int] = ..., log_id: _Optional[str] = ..., owner: _Optional[str] = ...) -> None: ...

class InitProducerResponse(_message.Message):
    __slots__ = ("producer",)
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    producer: Producer
    def __init__(self, producer: _Optional[_Union[Producer, _Mapping]] = ...) -> None: ...

class GetProducerRequest(_message.Message):
    __slots__ = ("log", "producer", "producer_id")
    LOG_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    log: str
    producer: str
    producer_id: int
    def __init__(self, log: _Optional[str] = ..., producer: _Optional[str] = ..., producer_id: _Optional[int] = ...) -> None: ...

class GetProducerResponse(_message.Message):
    __slots__ = ("producer",)
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    producer: Producer
    def __init__(self, producer: _Optional[_Union[Producer, _Mapping]] = ...) -> None: ...

class ListProducersRequest(_message.Message):
    __slots__ = ("log",)
    LOG_FIELD_NUMBER: _ClassVar[int]
    log: str
    def __init__(self, log: _Optional[str] = ...) -> None: ...

class ListProducersResponse(_message.Message):
    __slots__ = ("producers",)
    PRODUCERS_FIELD_NUMBER: _ClassVar[int]
    producers: _containers.RepeatedCompositeFieldContainer[Producer]
    def __init__(self, producers: _Optional[_Iterable[_Union[Producer, _Mapping]]] = ...) -> None: ...

class Cursor(_message.Message):
    __slots__ = ("log", "log_id", "cursor", "next_offset", "epoch", "revision", "owner", "metadata", "commit_time_us", "lag", "trimmed")
    LOG_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    COMMIT_TIME_US_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    TRIMMED_FIELD_NUMBER: _ClassVar[int]
    log: str
    log_id: str
    cursor: str
    next_offset: int
    epoch: int
    revision: int
    owner: str
    metadata: bytes
    commit_time_us: int
    lag: int
    trimmed: int
    def __init__(self, log: _Optional[str] = ..., log_id: _Optional[str] = ..., cursor: _Optional[str] = ..., next_offset: _Optional[int] = ..., epoch: _Optional[int] = ..., revision: _Optional[int] = ..., owner: _Optional[str] = ..., metadata: _Optional[bytes] = ..., commit_time_us: _Optional[int] = ..., lag: _Optional[int] = ..., trimmed: _Optional[int] = ...) -> None: ...

class AcquireCursorRequest(_message.Message):
    __slots__ = ("log", "cursor", "log_id", "instance", "expected_epoch", "start", "offset", "start_time_us", "owner")
    LOG_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_EPOCH_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    START_TIME_US_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    log: str
    cursor: str
    log_id: str
    instance: int
    expected_epoch: int
    start: Start
    offset: int
    start_time_us: int
    owner: str
    def __init__(self, log: _Optional[str] = ..., cursor: _Optional[str] = ..., log_id: _Optional[str] = ..., instance: _Optional[int] = ..., expected_epoch: _Optional[int] = ..., start: _Optional[_Union[Start, str]] = ..., offset: _Optional[int] = ..., start_time_us: _Optional[int] = ..., owner: _Optional[str] = ...) -> None: ...

class AcquireCursorResponse(_message.Message):
    __slots__ = ("cursor",)
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    cursor: Cursor
    def __init__(self, cursor: _Optional[_Union[Cursor, _Mapping]] = ...) -> None: ...

class CommitCursorRequest(_message.Message):
    __slots__ = ("log", "cursor", "log_id", "next_offset", "epoch", "expected_revision", "allow_rewind", "metadata")
    LOG_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    ALLOW_REWIND_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    log: str
    cursor: str
    log_id: str
    next_offset: int
    epoch: int
    expected_revision: int
    allow_rewind: bool
    metadata: bytes
    def __init__(self, log: _Optional[str] = ..., cursor: _Optional[str] = ..., log_id: _Optional[str] = ..., next_offset: _Optional[int] = ..., epoch: _Optional[int] = ..., expected_revision: _Optional[int] = ..., allow_rewind: bool = ..., metadata: _Optional[bytes] = ...) -> None: ...

class CommitCursorResponse(_message.Message):
    __slots__ = ("cursor",)
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    cursor: Cursor
    def __init__(self, cursor: _Optional[_Union[Cursor, _Mapping]] = ...) -> None: ...

class GetCursorRequest(_message.Message):
    __slots__ = ("log", "cursor")
    LOG_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    log: str
    cursor: str
    def __init__(self, log: _Optional[str] = ..., cursor: _Optional[str] = ...) -> None: ...

class GetCursorResponse(_message.Message):
    __slots__ = ("cursor",)
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    cursor: Cursor
    def __init__(self, cursor: _Optional[_Union[Cursor, _Mapping]] = ...) -> None: ...

class ListCursorsRequest(_message.Message):
    __slots__ = ("log",)
    LOG_FIELD_NUMBER: _ClassVar[int]
    log: str
    def __init__(self, log: _Optional[str] = ...) -> None: ...

class ListCursorsResponse(_message.Message):
    __slots__ = ("cursors",)
    CURSORS_FIELD_NUMBER: _ClassVar[int]
    cursors: _containers.RepeatedCompositeFieldContainer[Cursor]
    def __init__(self, cursors: _Optional[_Iterable[_Union[Cursor, _Mapping]]] = ...) -> None: ...

class DeleteCursorRequest(_message.Message):
    __slots__ = ("log", "cursor", "log_id", "expected_revision", "epoch")
    LOG_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    log: str
    cursor: str
    log_id: str
    expected_revision: int
    epoch: int
    def __init__(self, log: _Optional[str] = ..., cursor: _Optional[str] = ..., log_id: _Optional[str] = ..., expected_revision: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class DeleteCursorResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadChainRequest(_message.Message):
    __slots__ = ("log", "offset", "max_links", "log_id", "receipt")
    LOG_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    MAX_LINKS_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    log: str
    offset: int
    max_links: int
    log_id: str
    receipt: bool
    def __init__(self, log: _Optional[str] = ..., offset: _Optional[int] = ..., max_links: _Optional[int] = ..., log_id: _Optional[str] = ..., receipt: bool = ...) -> None: ...

class ReadChainResponse(_message.Message):
    __slots__ = ("links", "log_id", "resume_offset", "first_offset", "next_offset", "receipt")
    LINKS_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_OFFSET_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    links: _containers.RepeatedCompositeFieldContainer[ChainLink]
    log_id: str
    resume_offset: int
    first_offset: int
    next_offset: int
    receipt: Receipt
    def __init__(self, links: _Optional[_Iterable[_Union[ChainLink, _Mapping]]] = ..., log_id: _Optional[str] = ..., resume_offset: _Optional[int] = ..., first_offset: _Optional[int] = ..., next_offset: _Optional[int] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...
