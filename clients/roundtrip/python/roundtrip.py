"""Decodes and encodes the golden messages with Python's generated code: roundtrip.py GOLDEN."""

import json
import pathlib
import sys

from google.protobuf import json_format

from seriatim.v1 import cluster_service_pb2 as cluster
from seriatim.v1 import errors_pb2 as errors
from seriatim.v1 import log_service_pb2 as log

FILES = (log.DESCRIPTOR, cluster.DESCRIPTOR, errors.DESCRIPTOR)
TYPES = {type_.full_name: type_._concrete_class for file in FILES for type_ in file.message_types_by_name.values()}


def equal(got, expected):
    if got != expected:
        sys.exit(f"{got!r} instead of {expected!r}")


def check(name, message):
    """Reads some fields by their generated names."""
    if name == "record_extreme":
        equal((message.offset, message.term, message.append_time_us), (2**63 - 1, 2**53 + 1, 2**64 - 1))
        equal((message.HasField("key"), message.key, message.type), (True, b"", 2**32 - 1))
        equal(message.client_time_us, 2**64 - 2)
        equal([h.name for h in message.headers], ["größe 大小 😀"] * 2 + [""])
    elif name == "record_without_key":
        equal((message.HasField("key"), message.HasField("client_time_us"), message.value), (False, False, b"v"))
    elif name == "get_node_response_full":
        equal([m.WhichOneof("value") for m in message.metrics], ["counter", "counter", "gauge", "gauge", "histogram"])
        equal((message.metrics[2].gauge, message.metrics[0].labels["ä"]), (-(2**53) - 1, "1"))
        equal(message.metrics[4].histogram.buckets[1].upper_bound, float("inf"))
        equal((message.groups[1].role, message.disk.state), (cluster.ROLE_LEADER, cluster.DISK_STATE_FULL))
        equal([r.HasField("next_offset") for r in message.groups[1].damaged_ranges], [True, False])
    elif name == "update_log_request_full":
        equal((message.HasField("log_id"), message.config.HasField("min_retained_bytes")), (True, True))
        equal((message.config.HasField("max_record_bytes"), len(message.update_mask.paths)), (False, 3))
    elif name == "create_log_request_full":
        equal((message.config.HasField("replicas"), message.config.labels["team"]), (True, "größe 大小 😀"))
        equal((message.HasField("log_id"), message.validate_only), (True, True))
    elif name == "update_cluster_request_full":
        settings = message.settings
        equal((settings.HasField("create_on_append"), settings.create_on_append), (True, False))
        equal((settings.HasField("deleted_log_retention"), message.HasField("expected_revision")), (True, True))
        equal((settings.log_defaults.HasField("replicas"), settings.log_defaults.HasField("retention_age")), (True, False))
        equal(list(message.update_mask.paths)[0], "log_defaults.retention_age")
    else:
        return 0
    return 1


def main():
    golden = pathlib.Path(sys.argv[1])
    checked = 0
    for line in (golden / "samples.txt").read_text().splitlines():
        name, type_ = line.split()
        message = TYPES[type_].FromString((golden / f"{name}.bin").read_bytes())
        checked += check(name, message)
        encoded = message.SerializeToString(deterministic=True).hex()
        print(json.dumps({"name": name, "bytes": encoded, "json": json_format.MessageToDict(message)}))
    equal(checked, 6)
    for file in FILES:
        for enum in file.enum_types_by_name.values():
            print(json.dumps({"name": enum.full_name, "enum": {v.name: v.number for v in enum.values}}))


main()
