import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { afterEach, beforeEach, test } from "node:test";
import { promisify } from "node:util";
import { status } from "@grpc/grpc-js";
import { Client, type Producer, SeriatimError } from "../src/index.js";
import { Start } from "../src/v1.js";
import { eventually, FakeNode, message } from "./fake.js";

const LAST = 2n ** 63n - 1n;
const REFUSED = { code: status.PERMISSION_DENIED, details: "no" };

let node: FakeNode;
let client: Client;
beforeEach(async () => {
  node = await FakeNode.start();
  client = node.client({ backoffMinMs: 10, backoffMaxMs: 50 });
});
afterEach(async () => {
  await client.close({ timeoutMs: 100 }).catch(() => {});
  node.stop();
});

/** Runs a program in a process of its own, with the address of the node. */
async function run(program: string, ...flags: string[]) {
  const index = new URL("../src/index.js", import.meta.url);
  const source = `import { Client } from ${JSON.stringify(index.href)}; const addr = ${JSON.stringify(node.addr)};\n${program}`;
  const args = [...flags, "--input-type=module", "--eval", source];
  return promisify(execFile)(process.execPath, args, { timeout: 20_000 });
}

const kindOf = (promise: Promise<unknown>) =>
  promise.then(
    () => "no error",
    (error: SeriatimError) => error.kind,
  );

// --- Offsets ---

test("the largest offsets and times keep their digits", async () => {
  node.nextOffset = LAST - 2n;
  const producer = await client.producer();
  const acks = await Promise.all([producer.send("a"), producer.send("b")]);
  assert.deepEqual(acks, [
    { offset: LAST - 2n, duplicate: false, appendTimeUs: 2n ** 64n - 1n },
    { offset: LAST - 1n, duplicate: false, appendTimeUs: 2n ** 64n - 1n },
  ]);
  const cursor = await client.cursor("", "k");
  assert.deepEqual([cursor.nextOffset, cursor.lag, cursor.epoch], [LAST, LAST, 2n ** 64n - 1n]);

  const starts: unknown[] = [];
  node.consume = (call) => {
    const { start, offset, startTimeUs } = call.request;
    starts.push([start, start === Start.TIME ? startTimeUs : offset]);
    call.write(message(LAST, [Buffer.from("z")]));
  };
  for (const start of [{ offset: LAST }, { last: LAST }, { time: 2n ** 64n - 1n }, { time: new Date(5) }]) {
    const consumer = client.consumer({ start });
    assert.equal((await consumer.poll())!.offset, LAST);
    assert.equal(consumer.position, LAST + 1n);
    await consumer.close();
  }
  assert.deepEqual(starts, [
    [Start.OFFSET, LAST],
    [Start.LAST, LAST],
    [Start.TIME, 2n ** 64n - 1n],
    [Start.TIME, 5000n],
  ]);
});

// --- Producer ---

test("records that are sent in the same turn of the event loop share a request", async () => {
  const producer = await client.producer();
  await Promise.all(Array.from({ length: 10 }, (_, n) => producer.send(`${n}`)));
  assert.equal(node.produced.length, 1);
});

test("a rejection that nobody handles does not end the process, and flush and close reject", async () => {
  node.refusal = REFUSED;
  const { stdout } = await run(`
    const client = new Client(addr);
    const producer = await client.producer();
    for (let n = 0; n < 5; n++) producer.send("x");
    await producer.flush().catch(() => {});
    // Node.js ends the process before the next turn of the event loop.
    await new Promise(setImmediate);
    for (const call of [producer.flush(), producer.close(), producer.close(), client.close()]) {
      console.log(await call.then(() => "fine", (error) => error.kind));
    }
  `);
  assert.deepEqual(stdout.trim().split("\n"), ["not_allowed", "not_allowed", "not_allowed", "fine"]);
});

test("a close that nobody handles does not end the process", async () => {
  node.isHeld = true;
  const { stdout } = await run(`
    const client = new Client(addr);
    const producer = await client.producer();
    producer.send("x");
    producer.close({ timeoutMs: 10 });
    console.log(await client.close().then(() => "fine", (error) => error.kind));
  `);
  assert.equal(stdout.trim(), "closed");
});

test("nothing keeps the process of a client that was closed", async () => {
  node.consume = (call) => call.write(message(call.request.offset, [Buffer.from("a")]));
  await run(`
    const client = new Client([addr, "127.0.0.1:1"]);
    await client.ready();
    const producer = await client.producer();
    await producer.send("x");
    for await (const record of client.consumer({ cursor: "k", autoCommitMs: 50, maxSilenceMs: 60_000 })) break;
    client.consumer();
    await client.close();
  `);
});

test("sends keep their order through a full buffer, and one that gives up leaves no gap", async () => {
  // Two of the large records fit, and a small one would fit beside them.
  const producer = await client.producer({ bufferBytes: 1300, batchRecords: 1 });
  node.isHeld = true;
  const sent = Array.from({ length: 8 }, (_, n) => producer.send(`${n}`.repeat(300)));
  await eventually("two records are sent", () => node.produced.length === 2);
  assert.equal(producer.isFull, true);
  const controller = new AbortController();
  const late = producer.send("late", { timeoutMs: 20 });
  const aborted = producer.send("aborted", { signal: controller.signal });
  const dated = producer.send("dated", { signal: AbortSignal.timeout(10) });
  const last = producer.send("last");
  const room = producer.room();
  controller.abort(new Error("enough"));
  assert.deepEqual(
    [await kindOf(late), await kindOf(aborted), await kindOf(dated)],
    ["timeout", "cancelled", "timeout"],
  );
  await assert.rejects(aborted, { outcome: "none", cause: controller.signal.reason });
  assert.equal(await kindOf(producer.room({ timeoutMs: 10 })), "timeout");
  node.release();
  const acks = await Promise.all([...sent, last]);
  await room;
  assert.deepEqual(
    acks.map(({ offset }) => Number(offset)),
    [0, 1, 2, 3, 4, 5, 6, 7, 8],
  );
  assert.deepEqual(
    node.values.map((value) => value[0]),
    ["0", "1", "2", "3", "4", "5", "6", "7", "l"],
  );
});

test("an abort after a record was accepted does not reject it", async () => {
  const producer = await client.producer();
  node.isHeld = true;
  const controller = new AbortController();
  const sent = producer.send("a", { signal: controller.signal, timeoutMs: 1 });
  await eventually("it is sent", () => node.produced.length === 1);
  controller.abort();
  node.release();
  assert.equal((await sent).offset, 0n);
});

test("close fails the sends that wait, and what is not answered in time", async () => {
  const producer = await client.producer({ bufferBytes: 1100, batchRecords: 1 });
  node.isHeld = true;
  const sent = Array.from({ length: 6 }, (_, n) => producer.send(`${n}`.repeat(300)));
  const room = producer.room();
  await eventually("two records are sent", () => node.produced.length === 2);
  const closing = producer.close({ timeoutMs: 50 });
  assert.equal(await kindOf(room), "closed");
  const outcomes = (await Promise.allSettled(sent)).map((result) => (result as PromiseRejectedResult).reason.outcome);
  assert.deepEqual(outcomes, ["unknown", "unknown", "none", "none", "none", "none"]);
  assert.equal(await kindOf(closing), "closed");
  assert.equal(await kindOf(producer.send("x")), "closed");
});

test("flush waits for the records that wait for the buffer, and not for later ones", async () => {
  const producer = await client.producer({ bufferBytes: 600, batchRecords: 1 });
  node.isHeld = true;
  const before = Array.from({ length: 4 }, (_, n) => producer.send(`${n}`.repeat(300)));
  const flush = producer.flush();
  assert.equal(await kindOf(producer.flush({ timeoutMs: 10 })), "timeout");
  node.release();
  await flush;
  node.isHeld = true;
  const after = producer.send("after");
  assert.equal((await Promise.all(before)).length, 4);
  assert.equal(await kindOf(producer.flush({ timeoutMs: 10 })), "timeout");
  node.release();
  await after;
  await producer.flush();
});

test("a record of a wrong type is an error that is not hidden", async () => {
  const producer = await client.producer();
  await assert.rejects(producer.send(7 as never), TypeError);
  await assert.rejects(producer.send({ type: -1 }), { kind: "invalid" });
  await producer.send("a");
  assert.deepEqual(node.values, ["a"]);
});

test("a send may be made by who waits for another one, also after the producer has failed", async () => {
  const producer = await client.producer();
  node.refusal = REFUSED;
  const chained = producer.send("a").catch(() => producer.send("b"));
  assert.equal(await kindOf(chained), "not_allowed");
});

test("a delivery timeout fails the producer although the node answers nothing", async () => {
  const producer = await client.producer({ deliveryTimeoutMs: 100 });
  node.isHeld = true;
  await assert.rejects(producer.send("a"), { kind: "outcome_unknown", code: "DEADLINE_EXCEEDED", outcome: "unknown" });
});

test("a producer that was dropped warns, but not while somebody waits for its records", async () => {
  const warnings: string[] = [];
  const logger = { debug() {}, warn: (text: string) => void warnings.push(text) };
  const mine = node.client({ logger });
  const collect = async () => {
    globalThis.gc!();
    await new Promise((resolve) => setTimeout(resolve, 20));
  };
  node.isHeld = true;
  const send = async () => {
    const producer: Producer = await mine.producer();
    return [producer.send("a")];
  };
  const [sent] = await send();
  await eventually("it is sent", () => node.produced.length === 1);
  for (let n = 0; n < 5; n++) await collect();
  assert.deepEqual(warnings, []);
  node.release();
  assert.equal((await sent!).offset, 0n);
  for (let n = 0; n < 100 && warnings.length === 0; n++) await collect();
  assert.deepEqual(warnings, ["a producer of log default was dropped without close"]);
  await mine.close();
});

// --- Consumer ---

test("leaving a loop closes the consumer, and polling does not", async () => {
  let open = 0;
  node.consume = (call) => {
    open++;
    call.on("cancelled", () => open--);
    call.write(message(0n, [Buffer.from("a"), Buffer.from("b"), Buffer.from("c")]));
  };
  const consumer = client.consumer({ log: "x" });
  const values = [(await consumer.poll())!.value.toString()];
  for await (const record of consumer) {
    values.push(record.value.toString());
    if (record.offset === 1n) break;
  }
  assert.deepEqual(values, ["a", "b"]);
  await eventually("the stream has ended", () => open === 0);
  assert.equal(await consumer.poll(), undefined);
  assert.equal(await kindOf(consumer.commit()), "invalid");
  await assert.rejects(async () => {
    for await (const _ of client.consumer()) throw new Error("of the body");
  }, /of the body/);
  await eventually("the stream has ended", () => open === 0);
});

test("polling ends at the time-out, with the signal, and when the consumer is closed", async () => {
  node.consume = (call) => void call.write(message(5n, []));
  const consumer = client.consumer();
  await consumer.ready();
  assert.equal(consumer.position, 5n);
  assert.equal(await consumer.poll({ timeoutMs: 10 }), undefined);
  assert.equal(await kindOf(consumer.poll({ signal: AbortSignal.abort() })), "cancelled");
  assert.equal(await kindOf(consumer.poll({ signal: AbortSignal.timeout(10) })), "timeout");
  const loop = (async () => {
    for await (const _ of consumer) assert.fail("there is no record");
  })();
  const polls = [consumer.poll(), consumer.poll({ timeoutMs: 60_000 })];
  await consumer.close();
  assert.deepEqual(await Promise.all([...polls, loop]), [undefined, undefined, undefined]);
});

test("a slow consumer reads a bounded number of records ahead", async () => {
  for (const size of [1, 100_000]) {
    const records = Math.min(1000, Math.floor((1 << 20) / size));
    const values = Array.from({ length: records }, () => Buffer.alloc(size));
    let sent = 0;
    node.consume = (call) => {
      const more = () => {
        while (!call.cancelled && call.write(message(BigInt(sent++ * records), values)));
      };
      call.on("drain", more);
      more();
    };
    const consumer = client.consumer();
    await consumer.ready();
    // What is sent has no other end than that it stops.
    for (let before = -1; sent !== before;) {
      before = sent;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    // 10,000 records or 4 MiB are read ahead. The rest is in the buffers of this server and of the system.
    assert.ok(
      sent * records < 250_000 && sent * records * size < 20 << 20,
      `${sent} messages of ${records} of ${size}`,
    );
    for (let n = 0; n < 20 * records; n++) assert.equal((await consumer.poll())!.offset, BigInt(n));
    await consumer.close();
  }
});

test("a consumer that was dropped warns, but not while somebody waits for it", async () => {
  const warnings: string[] = [];
  const logger = { debug() {}, warn: (text: string) => void warnings.push(text) };
  const mine = node.client({ logger });
  let write: (() => void) | undefined;
  node.consume = (call) => {
    call.write(message(0n, []));
    write = () => void call.write(message(0n, [Buffer.from("a")]));
  };
  const collect = async () => {
    globalThis.gc!();
    await new Promise((resolve) => setTimeout(resolve, 20));
  };
  const reading = mine.consumer().poll();
  await eventually("the stream is open", () => write !== undefined);
  for (let n = 0; n < 5; n++) await collect();
  write!();
  assert.equal((await reading)!.offset, 0n);
  for (let n = 0; n < 100 && warnings.length === 0; n++) await collect();
  assert.deepEqual(warnings, ["a consumer of log default was dropped without close"]);
  await mine.close();
});

test("closing commits once more with autoCommitMs, also by the client and by a loop that ends", async () => {
  node.consume = (call) => call.write(message(0n, [Buffer.from("a"), Buffer.from("b"), Buffer.from("c")]));
  for await (const record of client.consumer({ cursor: "k", autoCommitMs: 600_000 })) {
    if (record.offset === 1n) break;
  }
  assert.deepEqual(node.commits, [1n]);
  const consumer = client.consumer({ cursor: "k", autoCommitMs: 600_000 });
  for (let n = 0; n < 3; n++) await consumer.poll();
  await client.close();
  assert.deepEqual(node.commits, [1n, 2n]);
  assert.equal(await kindOf(consumer.commit()), "closed");
});

// --- Client ---

test("wrong options are refused before anything is sent", async () => {
  for (const addrs of [[], "", "localhost", "localhost:", ":8400", "a b", "http://x:1", "::1:8400"]) {
    assert.throws(() => new Client(addrs), { kind: "invalid" }, String(addrs));
  }
  new Client("[::1]:8400");
  assert.throws(() => new Client(node.addr, { attemptMs: 0 }), /attemptMs is 0/);
  assert.throws(() => new Client(node.addr, { tls: { ca: "/does/not/exist.pem" } }), /tls: .*ENOENT/);
  assert.throws(() => new Client(node.addr, { tls: { ca: "-----BEGIN nothing" } }), { kind: "invalid" });
  assert.throws(() => new Client(node.addr, { tls: { ca: "x", cert: "y" } }), /both or none/);
  assert.throws(() => client.consumer({ autoCommitMs: 5 }), /needs a cursor/);
  assert.throws(() => client.consumer({ heartbeatMs: 5 }), /heartbeat/);
  assert.throws(() => client.consumer({ start: "end" as never }), /start 'end'/);
  assert.throws(() => client.consumer({ start: { offset: -1 } }), /offset -1/);
  assert.throws(() => client.consumer({ start: { offset: 1n, last: 2n } as never }), { kind: "invalid" });
  await assert.rejects(client.producer({ bufferBytes: -1 }), /bufferBytes/);
  await assert.rejects(client.producer({ log: 7 as never }), { kind: "invalid" });
  await assert.rejects(client.cursor("x", {} as never), { kind: "invalid" });
});

test("calls end with the signal and the time-out of their caller, and with the client", async () => {
  const away = new Client("127.0.0.1:1", { backoffMinMs: 10 });
  assert.equal(await kindOf(away.ready({ timeoutMs: 30 })), "timeout");
  assert.equal(await kindOf(away.producer({ signal: AbortSignal.abort() })), "cancelled");
  assert.equal(await kindOf(away.cursor("", "k", { signal: AbortSignal.timeout(30) })), "timeout");
  const waiting = [away.ready(), away.producer(), away.cursor("", "k")].map(kindOf);
  await away.close();
  assert.deepEqual(await Promise.all(waiting), ["closed", "closed", "closed"]);
  assert.equal(await kindOf(away.ready()), "closed");
  assert.throws(() => away.consumer(), { kind: "closed" });
  await away.close();
});

test("a signal that many calls share gets one listener", async () => {
  const { signal } = new AbortController();
  const warned: unknown[] = [];
  process.on("warning", (warning) => warned.push(warning));
  await Promise.all(Array.from({ length: 50 }, () => client.ready({ signal })));
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(warned, []);
});

test("await using closes", async () => {
  node.isHeld = true;
  const sent = await (async () => {
    await using mine = node.client();
    await using producer = await mine.producer();
    const promise = producer.send("a");
    setTimeout(() => node.release(), 20);
    return [promise] as const;
  })();
  assert.equal((await sent[0]).offset, 0n);
});
