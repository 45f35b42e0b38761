import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { SeriatimError } from "../src/index.js";
import { uint64 } from "../src/options.js";
import { type NewRecord, OutgoingRecord } from "../src/record.js";
import { ProduceRequestSchema } from "../src/v1.js";

function encode(...records: (NewRecord | string | Uint8Array)[]): Buffer {
  const outgoing = records.map((record) => new OutgoingRecord(record));
  const buffer = Buffer.alloc(outgoing.reduce((sum, { encodedSize }) => sum + encodedSize, 0));
  let at = 0;
  for (const record of outgoing) at = record.writeTo(buffer, at);
  assert.equal(at, buffer.length);
  return buffer;
}

function decode(record: NewRecord | string | Uint8Array) {
  const [decoded] = fromBinary(ProduceRequestSchema, encode(record)).records;
  return decoded!;
}

const text = (bytes: Uint8Array | undefined) => bytes && Buffer.from(bytes).toString();

test("a record is encoded as the generated code expects", () => {
  const headers = [
    { name: "größe 😀", value: Buffer.from([0, 255]) },
    { name: "", value: "" },
  ];
  const found = decode({ value: "wert ü", key: "", headers, type: 2 ** 32 - 1, clientTime: 2n ** 64n - 1n });
  assert.deepEqual([text(found.value), found.key?.length, found.type], ["wert ü", 0, 2 ** 32 - 1]);
  assert.equal(found.clientTimeUs, 2n ** 64n - 1n);
  assert.deepEqual(
    found.headers.map(({ name, value }) => [name, [...value]]),
    [
      ["größe 😀", [0, 255]],
      ["", []],
    ],
  );
});

test("absent fields stay absent", () => {
  for (const record of ["", {}, new Uint8Array(), { value: "" }]) {
    const found = decode(record);
    assert.deepEqual([found.value.length, found.key, found.clientTimeUs, found.headers], [0, undefined, undefined, []]);
  }
  assert.equal(decode({ clientTime: new Date(0) }).clientTimeUs, 0n);
  assert.equal(decode({ clientTime: new Date(1_700_000_000_123) }).clientTimeUs, 1_700_000_000_123_000n);
});

test("records of every length of a length are encoded", () => {
  for (const size of [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152]) {
    const value = Buffer.alloc(size, 7);
    assert.deepEqual(Buffer.from(decode({ value, key: value }).key!), value);
  }
  assert.equal(fromBinary(ProduceRequestSchema, encode("a", Buffer.from([0xff]), { value: "c" })).records.length, 3);
});

test("the size is what the limits of a log count", () => {
  const headers = [{ name: "nü", value: "vv" }];
  assert.equal(new OutgoingRecord({ value: "wü", key: Buffer.alloc(5), headers, type: 7 }).size, 3 + 5 + 3 + 2);
});

test("half a surrogate pair is replaced, and does not shift what follows", () => {
  const found = decode({ value: "\ud800", key: "k" });
  assert.deepEqual([text(found.value), text(found.key)], ["\ufffd", "k"]);
});

test("wrong records are refused", () => {
  const wrong = [{ type: -1 }, { type: 2 ** 32 }, { type: 1.5 }, { clientTime: -1n }, { clientTime: new Date(NaN) }];
  for (const record of [...wrong, { clientTime: new Date(-1) }, { clientTime: 2n ** 64n }]) {
    assert.throws(() => new OutgoingRecord(record), { kind: "invalid", outcome: "none" });
  }
  for (const record of [null, 7, { value: 7 }, { key: {} }, { headers: [{ name: 1, value: "" }] }, { clientTime: 7 }]) {
    assert.throws(() => new OutgoingRecord(record as NewRecord), TypeError);
  }
});

test("a number that has lost digits is no offset", () => {
  assert.equal(uint64(2 ** 53 - 1, "offset"), 2n ** 53n - 1n);
  assert.equal(uint64(2n ** 63n - 1n, "offset"), 2n ** 63n - 1n);
  for (const offset of [2 ** 53, -1, 0.5, NaN, -1n, 2n ** 64n]) {
    assert.throws(
      () => uint64(offset, "offset"),
      (error) => error instanceof SeriatimError && error.kind === "invalid",
    );
  }
});
