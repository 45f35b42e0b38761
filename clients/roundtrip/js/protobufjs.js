// Decodes and encodes the golden messages with the static code that protobufjs generates: protobufjs.js GOLDEN.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import protobuf from "protobufjs/minimal.js";
import Long from "long";
import generated from "./protobufjs-static.cjs";

protobuf.util.Long = Long; // Without it, 64-bit integers would be numbers, which have 53 bits.
protobuf.configure();

const { seriatim } = generated;
const { Role, DiskState } = seriatim.v1;
const string = (value) => value.toString();

// Reads some fields by their generated names.
const checks = {
  record_extreme(m) {
    const numbers = [m.offset, m.term, m.appendTimeUs, m.clientTimeUs].map(string);
    const max = ["18446744073709551615", "18446744073709551614"];
    assert.deepEqual(numbers, ["9223372036854775807", "9007199254740993", ...max]);
    assert.deepEqual([m.type, Object.hasOwn(m, "key"), m.key.length], [2 ** 32 - 1, true, 0]);
    assert.deepEqual(m.headers.map((header) => header.name), ["größe 大小 😀", "größe 大小 😀", ""]);
  },
  record_without_key(m) {
    assert.deepEqual(["key", "clientTimeUs"].map((name) => Object.hasOwn(m, name)), [false, false]);
    assert.equal(Buffer.from(m.value).toString(), "v");
  },
  get_node_response_full(m) {
    const gauge = m.metrics[2];
    assert.deepEqual([gauge.value, string(gauge.gauge)], ["gauge", "-9007199254740993"]);
    assert.equal(m.metrics[0].labels["ä"], "1");
    assert.equal(m.metrics[4].histogram.buckets[1].upperBound, Infinity);
    assert.deepEqual([m.groups[1].role, m.disk.state], [Role.ROLE_LEADER, DiskState.DISK_STATE_FULL]);
    assert.deepEqual(m.groups[1].damagedRanges.map((range) => Object.hasOwn(range, "nextOffset")), [true, false]);
  },
  update_log_request_full(m) {
    assert.deepEqual([m.logId, string(m.config.minRetainedBytes), m.updateMask.paths.length], ["", "0", 3]);
    assert.equal(Object.hasOwn(m.config, "maxRecordBytes"), false);
  },
  create_log_request_full(m) {
    assert.deepEqual([m.config.replicas, m.config.labels.team], [2 ** 32 - 1, "größe 大小 😀"]);
    assert.deepEqual([m.logId, m.validateOnly], ["018f-ü", true]);
  },
  update_cluster_request_full(m) {
    const present = ["createOnAppend", "deletedLogRetention"].map((name) => Object.hasOwn(m.settings, name));
    assert.deepEqual([...present, m.settings.createOnAppend, string(m.expectedRevision)], [true, true, false, "0"]);
    const defaults = ["replicas", "retentionAge"].map((name) => Object.hasOwn(m.settings.logDefaults, name));
    assert.deepEqual([...defaults, m.updateMask.paths[0]], [true, false, "log_defaults.retention_age"]);
  },
};

// protobufjs does not know the JSON of the types that have one of their own. Their fields, by names of seriatim.v1.
const fraction = (nanos) => (nanos ? `.${String(Math.abs(nanos)).padStart(9, "0").replace(/(000){1,2}$/, "")}` : "");
const special = {
  retentionAge: duration,
  appendTimeAhead: duration,
  deletedLogRetention: duration,
  purgeAfter: duration,
  timeLeft: duration,
  lastAppendTime: time,
  createTime: time,
  deleteTime: time,
  purgeTime: time,
  updateMask: ({ paths = [] }) => paths.map((p) => p.replace(/_(.)/g, (_, c) => c.toUpperCase())).join(","),
};

function duration({ seconds = "0", nanos = 0 }) {
  return `${seconds}${fraction(nanos)}s`;
}

function time({ seconds = 0, nanos = 0 }) {
  return new Date(Number(seconds) * 1000).toISOString().replace(".000Z", `${fraction(nanos)}Z`);
}

function json(value) {
  if (Array.isArray(value)) {
    return value.map(json);
  }
  if (typeof value !== "object") {
    return value;
  }
  // `toObject` adds the names of `oneof` only with the option `oneofs`.
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, (special[key] ?? json)(item)]));
}

const [golden] = process.argv.slice(2);
let checked = 0;
for (const line of fs.readFileSync(path.join(golden, "samples.txt"), "utf8").trim().split("\n")) {
  const [name, type] = line.split(" ");
  const generatedType = type.split(".").reduce((found, part) => found[part], generated);
  const message = generatedType.decode(fs.readFileSync(path.join(golden, `${name}.bin`)));
  if (checks[name]) {
    checks[name](message);
    checked += 1;
  }
  const bytes = Buffer.from(generatedType.encode(message).finish()).toString("hex");
  const object = generatedType.toObject(message, { longs: String, enums: String, bytes: String, json: true });
  console.log(JSON.stringify({ name, bytes, json: json(object) }));
}
assert.equal(checked, Object.keys(checks).length);
// Messages and services are functions.
for (const [name, type] of Object.entries(seriatim.v1).filter(([, type]) => typeof type === "object")) {
  const values = Object.entries(type).filter(([, number]) => typeof number === "number");
  console.log(JSON.stringify({ name: `seriatim.v1.${name}`, enum: Object.fromEntries(values) }));
}
