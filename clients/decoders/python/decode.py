"""Prints the golden responses as google.protobuf decodes them: decode.py IMPLEMENTATION GOLDEN DESCRIPTORS."""

import json
import pathlib
import sys

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import api_implementation

POOL = descriptor_pool.DescriptorPool()


def message_class(name):
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


def one(field, value):
    if field.message_type:
        return text(value)
    if field.type == field.TYPE_BYTES:
        return value.hex()
    return value if field.type in (field.TYPE_STRING, field.TYPE_BOOL) else str(value)


def is_map(field):
    return field.message_type and field.message_type.GetOptions().map_entry


def text(message):
    if message.DESCRIPTOR.full_name == "google.protobuf.Any":
        inner = message_class(message.type_url.rpartition("/")[2]).FromString(message.value)
        return {"@type": message.type_url} | text(inner)
    fields = {}
    for field, value in message.ListFields():
        if is_map(field):
            fields[field.name] = {key: one(field.message_type.fields_by_name["value"], value[key]) for key in value}
        elif field.label == field.LABEL_REPEATED:
            fields[field.name] = [one(field, item) for item in value]
        else:
            fields[field.name] = one(field, value)
    return fields


def main():
    implementation, golden, descriptors = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    if api_implementation.Type() != implementation:
        sys.exit(f"this is the implementation {api_implementation.Type()}, not {implementation}")
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes()).file:
        POOL.AddSerializedFile(file.SerializeToString())
    for line in (golden / "samples.txt").read_text().splitlines():
        name, message = line.split()
        read = message_class(message).FromString((golden / f"{name}.bin").read_bytes())
        print(json.dumps({"name": name, "value": text(read)}))


main()
