// Decodes and encodes the golden messages with the code that protobuf-es generates: protobuf-es.js GOLDEN.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { createRegistry, fromBinary, toBinary, toJson } from "@bufbuild/protobuf";
import * as log from "./es/seriatim/v1/log_service_pb.js";
import * as cluster from "./es/seriatim/v1/cluster_service_pb.js";
import * as errors from "./es/seriatim/v1/errors_pb.js";

const files = [log.file_seriatim_v1_log_service, cluster.file_seriatim_v1_cluster_service, errors.file_seriatim_v1_errors];
const registry = createRegistry(...files);

// Reads some fields by their generated names.
const checks = {
  record_extreme(m) {
    assert.deepEqual([m.offset, m.term, m.appendTimeUs], [2n ** 63n - 1n, 2n ** 53n + 1n, 2n ** 64n - 1n]);
    assert.deepEqual([m.type, m.key?.length, m.clientTimeUs], [2 ** 32 - 1, 0, 2n ** 64n - 2n]);
    assert.deepEqual(m.headers.map((header) => header.name), ["größe 大小 😀", "größe 大小 😀", ""]);
  },
  record_without_key(m) {
    assert.deepEqual([m.key, m.clientTimeUs, Buffer.from(m.value).toString()], [undefined, undefined, "v"]);
  },
  get_node_response_full(m) {
    assert.deepEqual(m.metrics[2].value, { case: "gauge", value: -(2n ** 53n) - 1n });
    assert.equal(m.metrics[0].labels["ä"], "1");
    assert.equal(m.metrics[4].value.value.buckets[1].upperBound, Infinity);
    assert.deepEqual([m.groups[1].role, m.disk.state], [cluster.Role.LEADER, cluster.DiskState.FULL]);
    assert.deepEqual(m.groups[1].damagedRanges.map((range) => range.nextOffset), [0n, undefined]);
  },
  update_log_request_full(m) {
    assert.deepEqual([m.logId, m.config.minRetainedBytes, m.config.maxRecordBytes], ["", 0n, undefined]);
    assert.equal(m.updateMask.paths.length, 3);
  },
  create_log_request_full(m) {
    assert.deepEqual([m.config.replicas, m.config.labels.team], [2 ** 32 - 1, "größe 大小 😀"]);
    assert.deepEqual([m.logId, m.validateOnly], ["018f-ü", true]);
  },
  update_cluster_request_full(m) {
    const { createOnAppend, deletedLogRetention, logDefaults } = m.settings;
    assert.deepEqual([createOnAppend, deletedLogRetention?.seconds, m.expectedRevision], [false, 0n, 0n]);
    assert.deepEqual([logDefaults.replicas, logDefaults.retentionAge], [0, undefined]);
    assert.equal(m.updateMask.paths[0], "log_defaults.retention_age");
  },
};

const [golden] = process.argv.slice(2);
let checked = 0;
for (const line of fs.readFileSync(path.join(golden, "samples.txt"), "utf8").trim().split("\n")) {
  const [name, type] = line.split(" ");
  const schema = registry.getMessage(type);
  const message = fromBinary(schema, fs.readFileSync(path.join(golden, `${name}.bin`)));
  if (checks[name]) {
    checks[name](message);
    checked += 1;
  }
  const bytes = Buffer.from(toBinary(schema, message)).toString("hex");
  console.log(JSON.stringify({ name, bytes, json: toJson(schema, message) }));
}
assert.equal(checked, Object.keys(checks).length);
for (const file of files) {
  for (const type of file.enums) {
    const values = type.values.map((value) => [value.name, value.number]);
    console.log(JSON.stringify({ name: type.typeName, enum: Object.fromEntries(values) }));
  }
}
// The generated enum has the values without their prefix, where all have one.
assert.equal(errors.Reason.COMMITTED_NOT_APPLIED, 32);
assert.equal(log.Start.LAST, 4);
