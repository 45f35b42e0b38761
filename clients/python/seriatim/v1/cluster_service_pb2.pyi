import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from seriatim.v1 import log_service_pb2 as _log_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_STATE_UNSPECIFIED: _ClassVar[NodeState]
    NODE_STATE_JOINING: _ClassVar[NodeState]
    NODE_STATE_ACTIVE: _ClassVar[NodeState]
    NODE_STATE_DRAINED: _ClassVar[NodeState]
    NODE_STATE_REMOVING: _ClassVar[NodeState]

class DiskState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DISK_STATE_UNSPECIFIED: _ClassVar[DiskState]
    DISK_STATE_ENOUGH: _ClassVar[DiskState]
    DISK_STATE_LOW: _ClassVar[DiskState]
    DISK_STATE_FULL: _ClassVar[DiskState]

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_FOLLOWER: _ClassVar[Role]
    ROLE_CANDIDATE: _ClassVar[Role]
    ROLE_LEADER: _ClassVar[Role]
    ROLE_LEARNER: _ClassVar[Role]
NODE_STATE_UNSPECIFIED: NodeState
NODE_STATE_JOINING: NodeState
NODE_STATE_ACTIVE: NodeState
NODE_STATE_DRAINED: NodeState
NODE_STATE_REMOVING: NodeState
DISK_STATE_UNSPECIFIED: DiskState
DISK_STATE_ENOUGH: DiskState
DISK_STATE_LOW: DiskState
DISK_STATE_FULL: DiskState
ROLE_UNSPECIFIED: Role
ROLE_FOLLOWER: Role
ROLE_CANDIDATE: Role
ROLE_LEADER: Role
ROLE_LEARNER: Role

class GetClusterRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetClusterResponse(_message.Message):
    __slots__ = ("cluster",)
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    cluster: Cluster
    def __init__(self, cluster: _Optional[_Union[Cluster, _Mapping]] = ...) -> None: ...

class Cluster(_message.Message):
    __slots__ = ("name", "cluster_id", "feature_level", "settings", "revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    FEATURE_LEVEL_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    cluster_id: str
    feature_level: int
    settings: ClusterSettings
    revision: int
    def __init__(self, name: _Optional[str] = ..., cluster_id: _Optional[str] = ..., feature_level: _Optional[int] = ..., settings: _Optional[_Union[ClusterSettings, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class ClusterSettings(_message.Message):
    __slots__ = ("log_defaults", "create_on_append", "deleted_log_retention", "auto_replace_wiped")
    LOG_DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    CREATE_ON_APPEND_FIELD_NUMBER: _ClassVar[int]
    DELETED_LOG_RETENTION_FIELD_NUMBER: _ClassVar[int]
    AUTO_REPLACE_WIPED_FIELD_NUMBER: _ClassVar[int]
    log_defaults: _log_service_pb2.LogConfig
    create_on_append: bool
    deleted_log_retention: _duration_pb2.Duration
    auto_replace_wiped: bool
    def __init__(self, log_defaults: _Optional[_Union[_log_service_pb2.LogConfig, _Mapping]] = ..., create_on_append: bool = ..., deleted_log_retention: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., auto_replace_wiped: bool = ...) -> None: ...

class UpdateClusterRequest(_message.Message):
    __slots__ = ("settings", "update_mask", "expected_revision", "validate_only")
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    settings: ClusterSettings
    update_mask: _field_mask_pb2.FieldMask
    expected_revision: int
    validate_only: bool
    def __init__(self, settings: _Optional[_Union[ClusterSettings, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., expected_revision: _Optional[int] = ..., validate_only: bool = ...) -> None: ...

class UpdateClusterResponse(_message.Message):
    __slots__ = ("cluster",)
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    cluster: Cluster
    def __init__(self, cluster: _Optional[_Union[Cluster, _Mapping]] = ...) -> None: ...

class RaiseFeatureLevelRequest(_message.Message):
    __slots__ = ("level",)
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    level: int
    def __init__(self, level: _Optional[int] = ...) -> None: ...

class RaiseFeatureLevelResponse(_message.Message):
    __slots__ = ("cluster", "previous_level")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_LEVEL_FIELD_NUMBER: _ClassVar[int]
    cluster: Cluster
    previous_level: int
    def __init__(self, cluster: _Optional[_Union[Cluster, _Mapping]] = ..., previous_level: _Optional[int] = ...) -> None: ...

class WhoAmIRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WhoAmIResponse(_message.Message):
    __slots__ = ("principal", "permissions")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    principal: str
    permissions: _containers.RepeatedCompositeFieldContainer[Permission]
    def __init__(self, principal: _Optional[str] = ..., permissions: _Optional[_Iterable[_Union[Permission, _Mapping]]] = ...) -> None: ...

class Permission(_message.Message):
    __slots__ = ("log", "action")
    LOG_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    log: str
    action: str
    def __init__(self, log: _Optional[str] = ..., action: _Optional[str] = ...) -> None: ...

class GetNodeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetNodeResponse(_message.Message):
    __slots__ = ("name", "node_id", "cluster_name", "cluster_id", "version", "feature_level", "min_feature_level", "max_feature_level", "waiting_for", "another_cluster", "disk", "groups", "metrics", "deleted_logs", "deleted_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_NAME_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FEATURE_LEVEL_FIELD_NUMBER: _ClassVar[int]
    MIN_FEATURE_LEVEL_FIELD_NUMBER: _ClassVar[int]
    MAX_FEATURE_LEVEL_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    ANOTHER_CLUSTER_FIELD_NUMBER: _ClassVar[int]
    DISK_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DELETED_LOGS_FIELD_NUMBER: _ClassVar[int]
    DELETED_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    node_id: str
    cluster_name: str
    cluster_id: str
    version: str
    feature_level: int
    min_feature_level: int
    max_feature_level: int
    waiting_for: str
    another_cluster: str
    disk: DiskStatus
    groups: _containers.RepeatedCompositeFieldContainer[GroupStatus]
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    deleted_logs: _containers.RepeatedCompositeFieldContainer[DeletedLog]
    deleted_bytes: int
    def __init__(self, name: _Optional[str] = ..., node_id: _Optional[str] = ..., cluster_name: _Optional[str] = ..., cluster_id: _Optional[str] = ..., version: _Optional[str] = ..., feature_level: _Optional[int] = ..., min_feature_level: _Optional[int] = ..., max_feature_level: _Optional[int] = ..., waiting_for: _Optional[str] = ..., another_cluster: _Optional[str] = ..., disk: _Optional[_Union[DiskStatus, _Mapping]] = ..., groups: _Optional[_Iterable[_Union[GroupStatus, _Mapping]]] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ..., deleted_logs: _Optional[_Iterable[_Union[DeletedLog, _Mapping]]] = ..., deleted_bytes: _Optional[int] = ...) -> None: ...

class DeletedLog(_message.Message):
    __slots__ = ("log", "log_id", "stored_bytes", "purge_time")
    LOG_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PURGE_TIME_FIELD_NUMBER: _ClassVar[int]
    log: str
    log_id: str
    stored_bytes: int
    purge_time: _timestamp_pb2.Timestamp
    def __init__(self, log: _Optional[str] = ..., log_id: _Optional[str] = ..., stored_bytes: _Optional[int] = ..., purge_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListNodesResponse(_message.Message):
    __slots__ = ("nodes", "balancing")
    NODES_FIELD_NUMBER: _ClassVar[int]
    BALANCING_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    balancing: bool
    def __init__(self, nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., balancing: bool = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("node_id", "name", "peer_addr", "client_addr", "state", "is_heard", "replicas", "logs_to_move", "waits_for", "replaced_by", "may_be_replaced")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PEER_ADDR_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ADDR_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    IS_HEARD_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    LOGS_TO_MOVE_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    REPLACED_BY_FIELD_NUMBER: _ClassVar[int]
    MAY_BE_REPLACED_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    name: str
    peer_addr: str
    client_addr: str
    state: NodeState
    is_heard: bool
    replicas: int
    logs_to_move: int
    waits_for: str
    replaced_by: str
    may_be_replaced: bool
    def __init__(self, node_id: _Optional[str] = ..., name: _Optional[str] = ..., peer_addr: _Optional[str] = ..., client_addr: _Optional[str] = ..., state: _Optional[_Union[NodeState, str]] = ..., is_heard: bool = ..., replicas: _Optional[int] = ..., logs_to_move: _Optional[int] = ..., waits_for: _Optional[str] = ..., replaced_by: _Optional[str] = ..., may_be_replaced: bool = ...) -> None: ...

class DrainNodeRequest(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    def __init__(self, node_id: _Optional[str] = ...) -> None: ...

class DrainNodeResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: Node
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...

class UndrainNodeRequest(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    def __init__(self, node_id: _Optional[str] = ...) -> None: ...

class UndrainNodeResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: Node
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...

class RemoveNodeRequest(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    def __init__(self, node_id: _Optional[str] = ...) -> None: ...

class RemoveNodeResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: Node
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...

class ReplaceNodeRequest(_message.Message):
    __slots__ = ("node_id", "by_node_id")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    BY_NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    by_node_id: str
    def __init__(self, node_id: _Optional[str] = ..., by_node_id: _Optional[str] = ...) -> None: ...

class ReplaceNodeResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: Node
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...

class BalanceClusterRequest(_message.Message):
    __slots__ = ("stop",)
    STOP_FIELD_NUMBER: _ClassVar[int]
    stop: bool
    def __init__(self, stop: bool = ...) -> None: ...

class BalanceClusterResponse(_message.Message):
    __slots__ = ("balancing",)
    BALANCING_FIELD_NUMBER: _ClassVar[int]
    balancing: bool
    def __init__(self, balancing: bool = ...) -> None: ...

class TransferLeadershipRequest(_message.Message):
    __slots__ = ("log", "to_node_id")
    LOG_FIELD_NUMBER: _ClassVar[int]
    TO_NODE_ID_FIELD_NUMBER: _ClassVar[int]
    log: str
    to_node_id: str
    def __init__(self, log: _Optional[str] = ..., to_node_id: _Optional[str] = ...) -> None: ...

class TransferLeadershipResponse(_message.Message):
    __slots__ = ("leader_node_id",)
    LEADER_NODE_ID_FIELD_NUMBER: _ClassVar[int]
    leader_node_id: str
    def __init__(self, leader_node_id: _Optional[str] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "labels", "counter", "gauge", "histogram")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    GAUGE_FIELD_NUMBER: _ClassVar[int]
    HISTOGRAM_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.ScalarMap[str, str]
    counter: int
    gauge: int
    histogram: Histogram
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., counter: _Optional[int] = ..., gauge: _Optional[int] = ..., histogram: _Optional[_Union[Histogram, _Mapping]] = ...) -> None: ...

class Histogram(_message.Message):
    __slots__ = ("count", "sum", "buckets")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    BUCKETS_FIELD_NUMBER: _ClassVar[int]
    count: int
    sum: float
    buckets: _containers.RepeatedCompositeFieldContainer[Bucket]
    def __init__(self, count: _Optional[int] = ..., sum: _Optional[float] = ..., buckets: _Optional[_Iterable[_Union[Bucket, _Mapping]]] = ...) -> None: ...

class Bucket(_message.Message):
    __slots__ = ("upper_bound", "count")
    UPPER_BOUND_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    upper_bound: float
    count: int
    def __init__(self, upper_bound: _Optional[float] = ..., count: _Optional[int] = ...) -> None: ...

class DiskStatus(_message.Message):
    __slots__ = ("state", "free_bytes", "total_bytes", "soft_bytes", "hard_bytes", "refused", "reserve")
    STATE_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    SOFT_BYTES_FIELD_NUMBER: _ClassVar[int]
    HARD_BYTES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    RESERVE_FIELD_NUMBER: _ClassVar[int]
    state: DiskState
    free_bytes: int
    total_bytes: int
    soft_bytes: int
    hard_bytes: int
    refused: int
    reserve: bool
    def __init__(self, state: _Optional[_Union[DiskState, str]] = ..., free_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ..., soft_bytes: _Optional[int] = ..., hard_bytes: _Optional[int] = ..., refused: _Optional[int] = ..., reserve: bool = ...) -> None: ...

class GroupStatus(_message.Message):
    __slots__ = ("log", "role", "term", "leader", "last_index", "commit_index", "applied_index", "replicas", "first_offset", "next_offset", "damage", "stalled", "config", "stored_bytes", "unprotected_bytes", "damaged_ranges", "last_append_time", "append_time_ahead")
    LOG_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    COMMIT_INDEX_FIELD_NUMBER: _ClassVar[int]
    APPLIED_INDEX_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    DAMAGE_FIELD_NUMBER: _ClassVar[int]
    STALLED_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    UNPROTECTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_RANGES_FIELD_NUMBER: _ClassVar[int]
    LAST_APPEND_TIME_FIELD_NUMBER: _ClassVar[int]
    APPEND_TIME_AHEAD_FIELD_NUMBER: _ClassVar[int]
    log: str
    role: Role
    term: int
    leader: str
    last_index: int
    commit_index: int
    applied_index: int
    replicas: _containers.RepeatedCompositeFieldContainer[Replica]
    first_offset: int
    next_offset: int
    damage: str
    stalled: str
    config: _log_service_pb2.LogConfig
    stored_bytes: int
    unprotected_bytes: int
    damaged_ranges: _containers.RepeatedCompositeFieldContainer[DamagedRange]
    last_append_time: _timestamp_pb2.Timestamp
    append_time_ahead: _duration_pb2.Duration
    def __init__(self, log: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ..., term: _Optional[int] = ..., leader: _Optional[str] = ..., last_index: _Optional[int] = ..., commit_index: _Optional[int] = ..., applied_index: _Optional[int] = ..., replicas: _Optional[_Iterable[_Union[Replica, _Mapping]]] = ..., first_offset: _Optional[int] = ..., next_offset: _Optional[int] = ..., damage: _Optional[str] = ..., stalled: _Optional[str] = ..., config: _Optional[_Union[_log_service_pb2.LogConfig, _Mapping]] = ..., stored_bytes: _Optional[int] = ..., unprotected_bytes: _Optional[int] = ..., damaged_ranges: _Optional[_Iterable[_Union[DamagedRange, _Mapping]]] = ..., last_append_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., append_time_ahead: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Replica(_message.Message):
    __slots__ = ("node_id", "name", "is_voter", "catch_up")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    IS_VOTER_FIELD_NUMBER: _ClassVar[int]
    CATCH_UP_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    name: str
    is_voter: bool
    catch_up: CatchUp
    def __init__(self, node_id: _Optional[str] = ..., name: _Optional[str] = ..., is_voter: bool = ..., catch_up: _Optional[_Union[CatchUp, _Mapping]] = ...) -> None: ...

class CatchUp(_message.Message):
    __slots__ = ("entries_left", "bytes_left", "bytes_per_second", "time_left")
    ENTRIES_LEFT_FIELD_NUMBER: _ClassVar[int]
    BYTES_LEFT_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_FIELD_NUMBER: _ClassVar[int]
    entries_left: int
    bytes_left: int
    bytes_per_second: int
    time_left: _duration_pb2.Duration
    def __init__(self, entries_left: _Optional[int] = ..., bytes_left: _Optional[int] = ..., bytes_per_second: _Optional[int] = ..., time_left: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class DamagedRange(_message.Message):
    __slots__ = ("file", "position", "bytes", "first_offset", "next_offset", "what")
    FILE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    file: str
    position: int
    bytes: int
    first_offset: int
    next_offset: int
    what: str
    def __init__(self, file: _Optional[str] = ..., position: _Optional[int] = ..., bytes: _Optional[int] = ..., first_offset: _Optional[int] = ..., next_offset: _Optional[int] = ..., what: _Optional[str] = ...) -> None: ...
