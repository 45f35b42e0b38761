import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { broken, SeriatimError } from "../src/errors.js";
import { Fifo } from "../src/fifo.js";
import { Item, Queue } from "../src/queue.js";
import { OutgoingRecord } from "../src/record.js";
import { ProduceRequestSchema } from "../src/v1.js";

const ID = { log: "orders", logId: "id", producerId: (2n ** 64n - 1n).toString(), producerEpoch: 2 ** 32 - 1 };
const SETTLE = { resolve() {}, reject() {} };

function queueOf(values: string[], maxRecords = 1000, maxBytes = 512 << 10): Queue {
  const queue = new Queue(maxRecords, maxBytes);
  values.forEach((value, number) => add(queue, value, number));
  return queue;
}

function add(queue: Queue, value: string, number = 0): void {
  const record = new OutgoingRecord(value);
  queue.add(record, new Item(number, record.size, record.encodedSize, SETTLE), () => 0);
}

function send(queue: Queue): { sequence: bigint; values: string[] } {
  assert.ok(queue.peek(), "nothing may be sent");
  const request = fromBinary(ProduceRequestSchema, queue.send(ID));
  const { log, logId, producerId, producerEpoch, sequence } = request;
  assert.deepEqual({ log, logId, producerId, producerEpoch }, ID);
  return { sequence, values: request.records.map(({ value }) => Buffer.from(value).toString()) };
}

function sendAll(queue: Queue) {
  const sent = [];
  while (queue.peek()) sent.push(send(queue));
  return sent;
}

const outcomes = (queue: Queue) => queue.batches.map(({ outcome }) => outcome);

test("an idle queue sends at once, and a busy one gathers", () => {
  const queue = queueOf(["a"]);
  assert.deepEqual(send(queue), { sequence: 1n, values: ["a"] });
  add(queue, "b");
  add(queue, "c");
  assert.equal(queue.peek(), undefined);
  queue.pop();
  assert.deepEqual(send(queue), { sequence: 2n, values: ["b", "c"] });
});

test("full requests do not wait, up to 32 and 4 MiB", () => {
  assert.equal(sendAll(queueOf(Array(100).fill("x"), 1)).length, 32);
  const value = "x".repeat(500_000);
  const sent = sendAll(queueOf(Array(20).fill(value), 1)).length;
  assert.equal(sent, 8);
});

test("a request that is sent again is the same", () => {
  const queue = queueOf(["a", "b"], 1);
  const first = sendAll(queue);
  queue.failed(broken("lost", "unknown"), 0);
  add(queue, "c");
  assert.deepEqual(sendAll(queue), [...first, { sequence: 3n, values: ["c"] }]);
});

test("the failed request and unknown_through decide about the others", () => {
  const fail = (metadata: Record<string, string>, outcome: "none" | "unknown" | "done" = "unknown", answered = 0) => {
    const queue = queueOf(["a", "b", "c", "d"], 1);
    sendAll(queue);
    const at = queue.failed(new SeriatimError({ code: "UNKNOWN", message: "", metadata, outcome }), answered);
    assert.equal(queue.sent, 0);
    return [at, ...outcomes(queue)];
  };
  assert.deepEqual(fail({}), [0, "unknown", "unknown", "unknown", "unknown"]);
  assert.deepEqual(fail({ failed_request: "0" }), [0, "unknown", "none", "none", "none"]);
  assert.deepEqual(fail({ failed_request: "5", unknown_through: "7" }, "unknown", 5), [
    0,
    "unknown",
    "unknown",
    "unknown",
    "none",
  ]);
  assert.deepEqual(fail({ failed_request: "1" }, "none"), [1, "unknown", "none", "none", "none"]);
  assert.deepEqual(fail({ failed_request: "9" }, "none"), [0, "none", "none", "none", "none"]);
  assert.deepEqual(fail({}, "done"), [0, "done", "unknown", "unknown", "unknown"]);
  assert.deepEqual(fail({ failed_request: "99999999999999999999" }, "none"), [0, "none", "none", "none", "none"]);
});

test("an unknown outcome stays", () => {
  const queue = queueOf(["a"]);
  send(queue);
  assert.equal(queue.mayHaveBeenDone, false);
  queue.failed(broken("lost", "unknown"), 0);
  assert.equal(queue.mayHaveBeenDone, true);
  send(queue);
  queue.failed(new SeriatimError({ code: "PERMISSION_DENIED", message: "" }), 0);
  assert.deepEqual(outcomes(queue), ["unknown"]);
});

test("rebuilding takes records out, and uses their sequences again", () => {
  const queue = queueOf(["a", "large", "b", "c", "larger", "d"], 2);
  assert.deepEqual(
    sendAll(queue).map(({ sequence }) => sequence),
    [1n, 2n, 3n],
  );
  queue.failed(new SeriatimError({ code: "INVALID_ARGUMENT", message: "" }), 0);
  const refused = queue.rebuild(({ size }) => size > 1);
  assert.deepEqual(
    refused.map(({ number }) => number),
    [1, 4],
  );
  assert.deepEqual(sendAll(queue), [
    { sequence: 1n, values: ["a", "b"] },
    { sequence: 2n, values: ["c", "d"] },
  ]);
});

test("rebuilding splits requests that exceed a new limit", () => {
  const values = Array.from({ length: 10 }, (_, n) => `${n}`.repeat(100));
  const queue = queueOf(values);
  assert.equal(sendAll(queue).length, 1);
  queue.failed(new SeriatimError({ code: "INVALID_ARGUMENT", message: "" }), 0);
  queue.maxBytes = 250;
  queue.rebuild();
  const sent = sendAll(queue);
  assert.deepEqual(
    sent.flatMap((request) => request.values),
    values.slice(0, sent.length * 2),
  );
  assert.ok(sent.every((request) => request.values.length === 2));
});

test("a record larger than a request gets one of its own", () => {
  const queue = queueOf(["a", "x".repeat(5000), "b"], 1000, 1000);
  assert.deepEqual(
    queue.batches.map(({ items }) => items.length),
    [1, 1, 1],
  );
  assert.equal(send(queue).values.length, 1);
});

test("a fifo keeps the order through its compactions", () => {
  const fifo = new Fifo<number>();
  let next = 0;
  for (let n = 0; n < 10_000; n++) {
    fifo.push(n);
    if (n % 3 > 0) assert.equal(fifo.shift(), next++);
  }
  while (fifo.length > 0) assert.equal(fifo.shift(), next++);
  assert.deepEqual([next, fifo.shift(), fifo.first], [10_000, undefined, undefined]);
});
