from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    NO_IDENTITY: _ClassVar[Reason]
    NOT_ALLOWED: _ClassVar[Reason]
    INVALID_REQUEST: _ClassVar[Reason]
    UNKNOWN_FIELD: _ClassVar[Reason]
    NOT_IMPLEMENTED: _ClassVar[Reason]
    RECORD_TOO_LARGE: _ClassVar[Reason]
    REQUEST_TOO_LARGE: _ClassVar[Reason]
    NO_SUCH_LOG: _ClassVar[Reason]
    NO_SUCH_SERVICE: _ClassVar[Reason]
    LOG_ID_MISMATCH: _ClassVar[Reason]
    EXPECTED_OFFSET_MISMATCH: _ClassVar[Reason]
    FEATURE_LEVEL_UNSUPPORTED: _ClassVar[Reason]
    OFFSET_PAST_END: _ClassVar[Reason]
    OFFSET_TRIMMED: _ClassVar[Reason]
    QUEUE_FULL: _ClassVar[Reason]
    LIMIT_REACHED: _ClassVar[Reason]
    DISK_FULL: _ClassVar[Reason]
    SHORTAGE: _ClassVar[Reason]
    LEADER_CHANGED: _ClassVar[Reason]
    NO_LEADER: _ClassVar[Reason]
    JOINING: _ClassVar[Reason]
    STOPPING: _ClassVar[Reason]
    ANOTHER_CLUSTER: _ClassVar[Reason]
    REPLICA_DAMAGED: _ClassVar[Reason]
    LEADER_DAMAGED: _ClassVar[Reason]
    RECORD_DAMAGED: _ClassVar[Reason]
    RECORD_UNSUPPORTED: _ClassVar[Reason]
    DEADLINE_PASSED: _ClassVar[Reason]
    OUTCOME_UNKNOWN: _ClassVar[Reason]
    ANSWER_LOST: _ClassVar[Reason]
    INTERNAL_ERROR: _ClassVar[Reason]
    COMMITTED_NOT_APPLIED: _ClassVar[Reason]
REASON_UNSPECIFIED: Reason
NO_IDENTITY: Reason
NOT_ALLOWED: Reason
INVALID_REQUEST: Reason
UNKNOWN_FIELD: Reason
NOT_IMPLEMENTED: Reason
RECORD_TOO_LARGE: Reason
REQUEST_TOO_LARGE: Reason
NO_SUCH_LOG: Reason
NO_SUCH_SERVICE: Reason
LOG_ID_MISMATCH: Reason
EXPECTED_OFFSET_MISMATCH: Reason
FEATURE_LEVEL_UNSUPPORTED: Reason
OFFSET_PAST_END: Reason
OFFSET_TRIMMED: Reason
QUEUE_FULL: Reason
LIMIT_REACHED: Reason
DISK_FULL: Reason
SHORTAGE: Reason
LEADER_CHANGED: Reason
NO_LEADER: Reason
JOINING: Reason
STOPPING: Reason
ANOTHER_CLUSTER: Reason
REPLICA_DAMAGED: Reason
LEADER_DAMAGED: Reason
RECORD_DAMAGED: Reason
RECORD_UNSUPPORTED: Reason
DEADLINE_PASSED: Reason
OUTCOME_UNKNOWN: Reason
ANSWER_LOST: Reason
INTERNAL_ERROR: Reason
COMMITTED_NOT_APPLIED: Reason
