"""Writes the golden messages of seriatim.v1: golden.py FOLDER.

Each message type, each enum value and each field occurs at least once.
"""

import json
import pathlib
import sys

from google.protobuf import descriptor, duration_pb2, field_mask_pb2, json_format, timestamp_pb2

from seriatim.v1 import cluster_service_pb2 as cluster
from seriatim.v1 import errors_pb2 as errors
from seriatim.v1 import log_service_pb2 as log

# The first integer that a double can't represent, and the largest ones.
ODD = 2**53 + 1
I63, U64, U32 = 2**63 - 1, 2**64 - 1, 2**32 - 1
UNICODE = "größe 大小 😀"
CONFIG = log.LogConfig(
    retention_age=duration_pb2.Duration(seconds=315_576_000_000, nanos=999_999_999),
    min_retained_bytes=U64,
    max_record_bytes=U32,
    max_request_bytes=1,
    replicas=U32,
    labels={"team": UNICODE, "cost-centre": "1"},
)
POSITION = log.LogPosition(
    first_offset=ODD, next_offset=I63, first_append_time_us=1, last_append_time_us=U64, stored_bytes=ODD
)
LAST_TIME = timestamp_pb2.Timestamp(seconds=253402300799, nanos=999999999)
INFO = log.LogInfo(
    name="a",
    log_id="018f-ü",
    config=CONFIG,
    position=POSITION,
    state=log.LOG_STATE_DELETED,
    revision=U64,
    create_time=timestamp_pb2.Timestamp(),
    delete_time=timestamp_pb2.Timestamp(seconds=1, nanos=1_000),
    purge_time=LAST_TIME,
    own_config=log.LogConfig(retention_age=duration_pb2.Duration(), replicas=0),
    restore=log.Restore(source_log_id="018f-ü", first_offset=ODD, end_offset=I63, digest=b"\xff\x00"),
)
LINK = log.ChainLink(
    offset=I63,
    count=U32,
    term=ODD,
    append_time_us=U64,
    content_hash=bytes(range(32)),
    previous_chain_hash=b"\x00" * 32,
    chain_hash=b"\xff" * 32,
)
STATEMENT = log.ReceiptStatement(
    cluster_name="c",
    cluster_id="018f-ü",
    log="a",
    log_id="018f-ü",
    link=LINK,
    node_name="n1",
    signed_time_us=U64,
)
RECEIPT = log.Receipt(
    statement=STATEMENT.SerializeToString(deterministic=True), signature=b"\x00\xff", certificates=[b"\x30", b""]
)
RECORD = log.Record(
    value=bytes(range(256)),
    offset=I63,
    term=ODD,
    type=U32,
    append_time_us=U64,
    key=b"",
    headers=[log.Header(name=UNICODE, value=b"\xff\x00"), log.Header(name=UNICODE), log.Header()],
    client_time_us=U64 - 1,
)
MEMBER = cluster.Node(
    node_id="id",
    name="n1",
    peer_addr="n1:8401",
    client_addr="n1:8400",
    state=cluster.NODE_STATE_REMOVING,
    is_heard=True,
    replicas=U32,
    logs_to_move=1,
    waits_for=UNICODE,
    replaced_by="by",
    may_be_replaced=True,
)
STATES = [cluster.Node(state=number) for number in cluster.NodeState.values()]
NODE = cluster.GetNodeResponse(
    name="n1",
    node_id="id",
    cluster_name="c",
    cluster_id="cid",
    version="1.2.3",
    feature_level=U32,
    min_feature_level=1,
    max_feature_level=2,
    waiting_for="w",
    another_cluster="x",
    disk=cluster.DiskStatus(
        state=cluster.DISK_STATE_FULL,
        free_bytes=1,
        total_bytes=U64,
        soft_bytes=ODD,
        hard_bytes=2,
        refused=3,
        reserve=True,
    ),
    groups=[
        cluster.GroupStatus(),
        cluster.GroupStatus(
            log="default",
            role=cluster.ROLE_LEADER,
            term=ODD,
            leader="n1",
            last_index=1,
            commit_index=2,
            applied_index=3,
            replicas=[
                cluster.Replica(node_id="id", name="n1", is_voter=True),
                cluster.Replica(
                    node_id="other",
                    catch_up=cluster.CatchUp(
                        entries_left=U64, bytes_left=ODD, bytes_per_second=1, time_left=duration_pb2.Duration(seconds=1)
                    ),
                ),
            ],
            first_offset=ODD,
            next_offset=I63,
            damage="d",
            stalled="s",
            config=CONFIG,
            stored_bytes=U64,
            unprotected_bytes=4,
            damaged_ranges=[
                cluster.DamagedRange(file="f", position=ODD, bytes=U64, first_offset=5, next_offset=0, what="torn"),
                cluster.DamagedRange(first_offset=6),
            ],
            last_append_time=LAST_TIME,
            append_time_ahead=duration_pb2.Duration(seconds=-61, nanos=-5000000),
        ),
    ],
    metrics=[
        cluster.Metric(name="counter", labels={"ä": "1", "log": UNICODE}, counter=U64),
        cluster.Metric(name="zero", counter=0),
        cluster.Metric(name="gauge", gauge=-ODD),
        cluster.Metric(name="lowest", gauge=-(2**63)),
        cluster.Metric(
            name="histogram",
            histogram=cluster.Histogram(
                count=ODD,
                sum=0.1,
                buckets=[
                    cluster.Bucket(upper_bound=5e-324, count=1),
                    cluster.Bucket(upper_bound=float("inf"), count=U64),
                ],
            ),
        ),
    ],
    deleted_logs=[
        cluster.DeletedLog(log="a", log_id="x", stored_bytes=U64, purge_time=LAST_TIME),
        cluster.DeletedLog(),
    ],
    deleted_bytes=U64 - 1,
)
CLUSTER = cluster.Cluster(
    name="c",
    cluster_id="id",
    feature_level=U32,
    settings=cluster.ClusterSettings(
        log_defaults=CONFIG,
        create_on_append=True,
        deleted_log_retention=duration_pb2.Duration(seconds=604_800),
        auto_replace_wiped=True,
    ),
    revision=U64,
)
PRODUCER = log.Producer(
    log="a",
    log_id="018f-ü",
    producer=UNICODE,
    producer_id=U64,
    epoch=U32,
    last_sequence=U64,
    last_offset=I63,
    last_append_time_us=U64 - 1,
    owner=UNICODE,
    records=ODD,
)
CURSOR = log.Cursor(
    log="a",
    log_id="018f-ü",
    cursor="billing",
    next_offset=I63,
    epoch=U64,
    revision=U64 - 1,
    owner=UNICODE,
    metadata=bytes(range(256)),
    commit_time_us=U64,
    lag=ODD,
    trimmed=ODD,
)

NAMED = {
    "record_extreme": RECORD,
    "record_without_key": log.Record(value=b"v", offset=0, headers=[log.Header(name="n", value=b"v")]),
    "record_empty": log.Record(),
    "record_at_0": log.Record(client_time_us=0),
    "get_node_response_full": NODE,
    "update_log_request_full": log.UpdateLogRequest(
        log="a",
        config=log.LogConfig(min_retained_bytes=0, retention_age=duration_pb2.Duration()),
        update_mask=field_mask_pb2.FieldMask(paths=["retention_age", "min_retained_bytes", "max_record_bytes"]),
        log_id="",
        validate_only=True,
        expected_revision=U64,
    ),
    "create_log_request_full": log.CreateLogRequest(log="a", config=CONFIG, log_id="018f-ü", validate_only=True),
    "update_cluster_request_full": cluster.UpdateClusterRequest(
        settings=cluster.ClusterSettings(
            log_defaults=log.LogConfig(replicas=0), create_on_append=False, deleted_log_retention=duration_pb2.Duration()
        ),
        update_mask=field_mask_pb2.FieldMask(
            paths=["log_defaults.retention_age", "create_on_append", "deleted_log_retention"]
        ),
        expected_revision=0,
        validate_only=True,
    ),
}
OTHERS = [
    RECORD.headers[0],
    log.ProduceRequest(log="a", records=[RECORD, log.Record()], expected_offset=0, log_id="018f-ü"),
    log.ProduceRequest(records=[log.Record(value=b"only")]),
    log.ProduceRequest(records=[log.Record()], producer_id=U64, sequence=U64, producer_epoch=U32),
    log.ProduceResponse(offset=I63, count=U32, term=ODD, append_time_us=U64, log_id="018f-ü"),
    log.ProduceResponse(duplicate=True),
    *(log.ConsumeRequest(offset=ODD, start=start) for start in log.Start.values()),
    log.ConsumeRequest(
        offset=I63,
        log="a",
        start=log.START_TIME,
        start_time_us=U64,
        max_records=U32,
        max_bytes=1,
        wait_ms=60_000,
        heartbeat_ms=1_000,
        stop_at_end=True,
        log_id="",
    ),
    log.ConsumeRequest(start=log.START_CURSOR, cursor="billing", cursor_epoch=U64),
    log.ConsumeResponse(records=[RECORD], first_offset=ODD, next_offset=I63, log_id="x", resume_offset=I63),
    log.ConsumeResponse(resume_offset=1),
    log.GetServersRequest(log="a"),
    log.GetServersResponse(
        servers=[
            log.Server(
                id="n1", rpc_addr="[::1]:8400", is_leader=True, node_id="id", is_voter=True, is_replica=True
            ),
            log.Server(id="n2"),
        ],
        cluster_id="c",
        term=ODD,
        feature_level=1,
        version="1.2.3",
    ),
    log.Server(id="n1"),
    INFO,
    CONFIG,
    log.LogConfig(min_retained_bytes=0, max_record_bytes=0, max_request_bytes=0),
    POSITION,
    log.GetLogRequest(log="a", log_id="x"),
    log.GetLogResponse(log=INFO),
    log.ListLogsRequest(page_size=-(2**31), page_token="t", prefix="p", show_deleted=True, with_position=True),
    log.ListLogsRequest(page_size=2**31 - 1),
    log.ListLogsResponse(logs=[INFO, log.LogInfo()], next_page_token=UNICODE),
    log.UpdateLogResponse(log=INFO),
    log.TrimLogRequest(log="a", first_offset=I63, log_id="x"),
    log.TrimLogResponse(log=INFO, trimmed_records=U64),
    PRODUCER,
    log.Producer(),
    log.InitProducerRequest(
        log="a", producer="source", instance=U64, expected_epoch=U32, log_id="018f-ü", owner=UNICODE
    ),
    log.InitProducerRequest(instance=ODD, expected_epoch=0, log_id=""),
    log.InitProducerResponse(producer=PRODUCER),
    log.GetProducerRequest(log="a", producer="source"),
    log.GetProducerRequest(producer=""),
    log.GetProducerRequest(producer_id=U64),
    log.GetProducerRequest(producer_id=0),
    log.GetProducerResponse(producer=PRODUCER),
    log.ListProducersRequest(log="a"),
    log.ListProducersResponse(producers=[PRODUCER, log.Producer()]),
    CURSOR,
    log.Cursor(),
    log.AcquireCursorRequest(
        log="a",
        cursor="billing",
        log_id="018f-ü",
        instance=U64,
        expected_epoch=U64,
        start=log.START_TIME,
        offset=I63,
        start_time_us=U64,
        owner=UNICODE,
    ),
    log.AcquireCursorRequest(instance=ODD, expected_epoch=0, log_id=""),
    log.AcquireCursorResponse(cursor=CURSOR),
    log.CommitCursorRequest(
        log="a",
        cursor="billing",
        log_id="018f-ü",
        next_offset=I63,
        epoch=U64,
        expected_revision=U64,
        allow_rewind=True,
        metadata=b"\x00\xff",
    ),
    log.CommitCursorRequest(expected_revision=0, log_id=""),
    log.CommitCursorResponse(cursor=CURSOR),
    log.GetCursorRequest(log="a", cursor="billing"),
    log.GetCursorResponse(cursor=CURSOR),
    log.ListCursorsRequest(log="a"),
    log.ListCursorsResponse(cursors=[CURSOR, log.Cursor()]),
    log.DeleteCursorRequest(log="a", cursor="billing", log_id="018f-ü", expected_revision=U64, epoch=U64),
    log.DeleteCursorRequest(log_id="", expected_revision=0, epoch=0),
    log.DeleteCursorResponse(),
    LINK,
    STATEMENT,
    RECEIPT,
    log.ProduceResponse(offset=1, count=1, receipt=RECEIPT),
    log.ReadChainRequest(log="a", offset=I63, max_links=U32, log_id="018f-ü", receipt=True),
    log.ReadChainRequest(log_id=""),
    log.ReadChainResponse(
        links=[LINK, log.ChainLink()],
        log_id="018f-ü",
        resume_offset=I63,
        first_offset=ODD,
        next_offset=I63,
        receipt=RECEIPT,
    ),
    log.LogConfig(hash_chain=True),
    log.LogConfig(hash_chain=False),
    cluster.GetClusterRequest(),
    cluster.GetClusterResponse(cluster=CLUSTER),
    cluster.Cluster(name="c"),
    cluster.RaiseFeatureLevelRequest(level=U32),
    cluster.RaiseFeatureLevelResponse(cluster=cluster.Cluster(), previous_level=1),
    cluster.WhoAmIRequest(),
    cluster.WhoAmIResponse(
        principal="anonymous", permissions=[cluster.Permission(log="*", action="admin"), cluster.Permission()]
    ),
    cluster.Permission(log="a*", action="produce"),
    cluster.GetNodeRequest(),
    NODE.metrics[0],
    NODE.metrics[4].histogram,
    NODE.metrics[4].histogram.buckets[1],
    *(cluster.DiskStatus(state=state) for state in cluster.DiskState.values()),
    *(cluster.GroupStatus(role=role) for role in cluster.Role.values()),
    NODE.groups[1].replicas[0],
    NODE.groups[1].replicas[1].catch_up,
    NODE.groups[1].damaged_ranges[0],
    *(log.LogInfo(state=state) for state in log.LogState.values()),
    log.CreateLogRequest(log="a"),
    log.CreateLogRequest(log_id=""),
    log.CreateLogRequest(log="a", restore=INFO.restore),
    log.Restore(source_log_id="x", end_offset=1),
    log.FinishRestoreRequest(log="a", log_id="x"),
    log.FinishRestoreResponse(log=INFO),
    log.ProduceRequest(records=[log.Record()], expected_offset=ODD, restored_append_time_us=U64),
    log.ProduceRequest(log="a", records=[log.Record()], receipt=True),
    log.CreateLogResponse(log=INFO),
    log.DeleteLogRequest(log="a", log_id="x", expected_revision=0, purge_after=duration_pb2.Duration()),
    log.DeleteLogRequest(expected_revision=U64, purge_after=duration_pb2.Duration(seconds=1, nanos=1)),
    log.DeleteLogRequest(log="a", log_id="x"),
    log.DeleteLogResponse(log=INFO),
    log.UndeleteLogRequest(log="a", log_id="x"),
    log.UndeleteLogResponse(log=INFO),
    log.UpdateLogRequest(expected_revision=0),
    cluster.ClusterSettings(create_on_append=False, deleted_log_retention=duration_pb2.Duration()),
    CLUSTER.settings,
    cluster.UpdateClusterRequest(settings=CLUSTER.settings, expected_revision=U64),
    cluster.UpdateClusterRequest(),
    cluster.UpdateClusterResponse(cluster=CLUSTER),
    MEMBER,
    *STATES,
    cluster.ListNodesRequest(),
    cluster.ListNodesResponse(nodes=[MEMBER, cluster.Node(), *STATES], balancing=True),
    cluster.DrainNodeRequest(node_id="id"),
    cluster.DrainNodeResponse(node=MEMBER),
    cluster.UndrainNodeRequest(node_id="id"),
    cluster.UndrainNodeResponse(node=MEMBER),
    cluster.RemoveNodeRequest(node_id="id"),
    cluster.RemoveNodeResponse(node=MEMBER),
    cluster.ReplaceNodeRequest(node_id="id", by_node_id="by"),
    cluster.ReplaceNodeResponse(node=MEMBER),
    cluster.BalanceClusterRequest(stop=True),
    cluster.BalanceClusterResponse(balancing=True),
    cluster.TransferLeadershipRequest(log="a", to_node_id="id"),
    cluster.TransferLeadershipResponse(leader_node_id="id"),
    NODE.deleted_logs[0],
]


def snake(name):
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")


def named():
    messages, seen = dict(NAMED), {}
    for message in OTHERS:
        name = snake(message.DESCRIPTOR.name)
        seen[name] = seen.get(name, 0) + 1
        messages[f"{name}_{seen[name]}"] = message
    return messages


def walk(message):
    """Yields each field that is set, and each value of an enum, in a message and within it."""
    for field, value in message.ListFields():
        yield field.full_name
        is_map = field.message_type and field.message_type.GetOptions().map_entry
        values = [] if is_map else value if field.is_repeated else [value]
        for item in values:
            if field.enum_type:
                yield f"{field.enum_type.full_name} {item}"
            elif field.message_type:
                yield from walk(item)


def missing(messages):
    """Returns the message types, fields and enum values that do not occur. The zero value of an enum is not on the wire."""
    occurs = {m.DESCRIPTOR.full_name for m in messages} | {what for m in messages for what in walk(m)}
    expected = set()
    for file in (log.DESCRIPTOR, cluster.DESCRIPTOR):
        for enum in file.enum_types_by_name.values():
            expected |= {f"{enum.full_name} {value.number}" for value in enum.values if value.number}
        for type_ in file.message_types_by_name.values():
            expected |= {type_.full_name} | {field.full_name for field in type_.fields}
    return expected - occurs


def enums():
    files: list[descriptor.FileDescriptor] = [log.DESCRIPTOR, cluster.DESCRIPTOR, errors.DESCRIPTOR]
    for file in files:
        for enum in file.enum_types_by_name.values():
            yield {"name": enum.full_name, "enum": {value.name: value.number for value in enum.values}}


def main():
    folder, messages = pathlib.Path(sys.argv[1]), named()
    if lacking := missing(messages.values()):
        sys.exit(f"golden.py has no message with: {', '.join(sorted(lacking))}")
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, message in messages.items():
        (folder / f"{name}.bin").write_bytes(message.SerializeToString(deterministic=True))
        lines.append({"name": name, "json": json_format.MessageToDict(message)})
    lines += enums()
    names = [f"{name} {message.DESCRIPTOR.full_name}\n" for name, message in messages.items()]
    (folder / "samples.txt").write_text("".join(names))
    text = [json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n" for line in lines]
    (folder / "expected.jsonl").write_text("".join(text), encoding="utf-8")


main()
