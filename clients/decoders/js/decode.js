// Prints the golden responses as protobufjs decodes them: decode.js GOLDEN PROTO.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const protobuf = require("protobufjs");
const Long = require("long");

protobuf.util.Long = Long; // Without it, 64-bit integers would be numbers, which have 53 bits.
protobuf.configure();

const [golden, proto] = process.argv.slice(2);
const root = new protobuf.Root();
root.resolvePath = (_, target) => path.join(proto, target);
const files = ["log/v1/log.proto", "seriatim/v1/log_service.proto", "seriatim/v1/cluster_service.proto"];
files.push("grpc/health/v1/health.proto", "google/rpc/status.proto", "google/rpc/error_details.proto");
root.loadSync(files, { keepCase: true });
root.resolveAll();

function one(field, value) {
  if (field.resolvedType instanceof protobuf.Type) {
    return text(field.resolvedType, value);
  }
  if (field.type === "bytes") {
    return Buffer.from(value).toString("hex");
  }
  return field.type === "string" || field.type === "bool" ? value : value.toString();
}

function text(type, message) {
  if (type.fullName === ".google.protobuf.Any") {
    const inner = root.lookupType(message.type_url.split("/").pop());
    return { "@type": message.type_url, ...text(inner, inner.decode(message.value)) };
  }
  const fields = {};
  for (const field of type.fieldsArray) {
    if (!Object.hasOwn(message, field.name)) {
      continue;
    }
    const value = message[field.name];
    if (field.map) {
      const entries = Object.entries(value).map(([key, item]) => [key, one(field, item)]);
      if (entries.length > 0) {
        fields[field.name] = Object.fromEntries(entries);
      }
    } else if (field.repeated) {
      if (value.length > 0) {
        fields[field.name] = value.map((item) => one(field, item));
      }
    } else {
      // A field without presence that has its default value counts as absent.
      const shown = one(field, value);
      const hasPresence = field.partOf || field.resolvedType instanceof protobuf.Type;
      if (hasPresence || !["0", "", false].includes(shown)) {
        fields[field.name] = shown;
      }
    }
  }
  return fields;
}

for (const line of fs.readFileSync(path.join(golden, "samples.txt"), "utf8").trim().split("\n")) {
  const [name, typeName] = line.split(" ");
  const type = root.lookupType(typeName);
  const read = type.decode(fs.readFileSync(path.join(golden, `${name}.bin`)));
  console.log(JSON.stringify({ name, value: text(type, read) }));
}
