// The driver of the conformance test: executes the commands of clients/conformance/README.md, one JSON object per line.

import { createInterface } from "node:readline";
import { Client, type Consumer, type Header, type Producer, SeriatimError, type Start } from "../src/index.js";

type Command = Record<string, unknown>;
type Answer = Record<string, unknown>;

let client: Client;
const producers = new Map<string, Producer>();
const consumers = new Map<string, Consumer>();
// By consumer: its last `next`, so that these stay in order.
const turns = new Map<string, Promise<unknown>>();

/** Takes a field out of a command. */
function take<T>(command: Command, name: string): T {
  const value = command[name] as T;
  delete command[name];
  return value;
}

function takeAll<T>(command: Command, names: Record<string, string>): T {
  const found = Object.entries(names).filter(([, name]) => name in command);
  return Object.fromEntries(found.map(([option, name]) => [option, take(command, name)])) as T;
}

function end(command: Command): void {
  const unknown = Object.keys(command);
  if (unknown.length > 0) throw new Error(`unknown fields ${unknown.join()}`);
}

const bytes = (text: string) => Buffer.from(text, "latin1");
const number = (value: bigint | undefined) => (value === undefined ? null : Number(value));

function startOf(command: Command): Start {
  const kind = take<string>(command, "start");
  switch (kind) {
    case "earliest":
    case "latest":
      return kind;
    case "offset":
      return { offset: take<number>(command, "offset") };
    case "last":
      return { last: take<number>(command, "offset") };
    case "time":
      return { time: BigInt(take<number>(command, "time_us")) };
    default:
      throw new Error(`unknown start ${kind}`);
  }
}

async function next(consumer: Consumer, max: number, timeoutMs: number): Promise<Answer> {
  const until = performance.now() + timeoutMs;
  const records = [];
  const before = consumer.skipped;
  try {
    while (records.length < max) {
      const record = await consumer.poll({ timeoutMs: Math.max(0, until - performance.now()) });
      if (!record) break;
      records.push({ offset: number(record.offset), value: record.value.toString("latin1") });
    }
  } catch (error) {
    // The next command gets it.
    if (records.length === 0) throw error;
  }
  return { records, skipped: number(consumer.skipped - before) };
}

const OPS: Record<string, (command: Command) => Promise<Answer> | Answer> = {
  connect(command) {
    const times = takeAll<object>(take<Command>(command, "options") ?? {}, {
      attemptMs: "attempt_ms",
      operationMs: "operation_ms",
      connectMs: "connect_ms",
      backoffMinMs: "backoff_min_ms",
      backoffMaxMs: "backoff_max_ms",
    });
    const addrs = take<string[]>(command, "addrs");
    const tls = takeAll<{ tls?: { ca: string; cert: string; key: string } }>(command, { tls: "tls" });
    end(command);
    client = new Client(addrs, { ...times, ...tls });
    return {};
  },

  async ready(command) {
    await client.ready({ timeoutMs: take(command, "timeout_ms") });
    return {};
  },

  async producer(command) {
    const key = take<string>(command, "producer");
    const options = takeAll<object>(command, {
      log: "log",
      name: "name",
      batchRecords: "batch_records",
      batchBytes: "batch_bytes",
      bufferBytes: "buffer_bytes",
      deliveryTimeoutMs: "delivery_ms",
    });
    end(command);
    const producer = await client.producer(options);
    producers.set(key, producer);
    const { lastSequence, lastOffset, records } = producer.registration;
    return { last_sequence: number(lastSequence), last_offset: number(lastOffset ?? 0n), records: number(records) };
  },

  async send(command) {
    const producer = producers.get(take(command, "producer"))!;
    const headers = (take<[string, string][]>(command, "headers") ?? []).map(([name, value]): Header => ({
      name,
      value: bytes(value),
    }));
    const key = take<string | undefined>(command, "key");
    const value = bytes(take(command, "value"));
    const type = take<number>(command, "type") ?? 0;
    end(command);
    const ack = await producer.send({ value, headers, type, key: key === undefined ? undefined : bytes(key) });
    return { offset: number(ack.offset), duplicate: ack.duplicate };
  },

  async send_many(command) {
    const producer = producers.get(take(command, "producer"))!;
    const prefix = take<string>(command, "prefix");
    const count = take<number>(command, "count");
    end(command);
    const sent = Array.from({ length: count }, (_, n) => producer.send(bytes(`${prefix}${n}`)));
    const acks = await Promise.all(sent);
    const [first_offset, last_offset] = [number(acks[0]!.offset), number(acks.at(-1)!.offset)];
    return { first_offset, last_offset, duplicates: acks.filter(({ duplicate }) => duplicate).length };
  },

  async flush(command) {
    await producers.get(take(command, "producer"))!.flush({ timeoutMs: take(command, "timeout_ms") });
    return {};
  },

  async close_producer(command) {
    await producers.get(take(command, "producer"))!.close({ timeoutMs: take(command, "timeout_ms") });
    return {};
  },

  async consumer(command) {
    const key = take<string>(command, "consumer");
    const start = startOf(command);
    const options = takeAll<object>(command, {
      log: "log",
      cursor: "cursor",
      skipTrimmed: "skip_trimmed",
      autoCommitMs: "auto_commit_ms",
      heartbeatMs: "heartbeat_ms",
      maxSilenceMs: "max_silence_ms",
    });
    end(command);
    const consumer = client.consumer({ ...options, start });
    consumers.set(key, consumer);
    if ("cursor" in options) await consumer.ready();
    return {};
  },

  next(command) {
    const key = take<string>(command, "consumer");
    const [max, timeoutMs] = [take<number>(command, "max"), take<number>(command, "timeout_ms")];
    end(command);
    const run = () => next(consumers.get(key)!, max, timeoutMs);
    const turn = (turns.get(key) ?? Promise.resolve()).then(run, run);
    turns.set(key, turn);
    return turn;
  },

  async commit(command) {
    return { next_offset: number(await consumers.get(take(command, "consumer"))!.commit()) };
  },

  async close_consumer(command) {
    await consumers.get(take(command, "consumer"))!.close();
    return {};
  },

  async get_cursor(command) {
    const cursor = await client.cursor(take(command, "log"), take(command, "cursor"));
    return { next_offset: number(cursor.nextOffset), epoch: number(cursor.epoch), lag: number(cursor.lag) };
  },

  async close() {
    await client.close();
    return {};
  },
};

function errorOf(error: unknown): Answer {
  if (error instanceof SeriatimError) {
    const { kind, code, reason, outcome, retry, message, metadata } = error;
    return { kind, code, reason, outcome, retry, message, metadata };
  }
  console.error(error);
  const message = `bug of the driver: ${String(error)}`;
  return { kind: "other", code: "INTERNAL", reason: "", outcome: "unknown", retry: "no", message, metadata: {} };
}

async function execute({ id, op, ...command }: Command): Promise<void> {
  let answer;
  try {
    answer = await OPS[op as string]!(command);
    end(command);
  } catch (error) {
    answer = { error: errorOf(error) };
  }
  process.stdout.write(`${JSON.stringify({ id, ...answer })}\n`);
}

// Once the input has ended, nothing of a client that was closed keeps the process. Others are left to the end of the
// input.
const lines = createInterface({ input: process.stdin });
let isClosed = false;
lines.on("line", (line) => {
  const command = JSON.parse(line) as Command;
  isClosed = command["op"] === "close";
  void execute(command);
});
lines.on("close", () => {
  if (!isClosed) process.exit(0);
});
