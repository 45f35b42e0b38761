// Measures a producer and a consumer at one or more nodes: node dist/bench/bench.js --addrs 127.0.0.1:8400

import { parseArgs } from "node:util";
import { Client, type Producer } from "../src/index.js";

const { values: args } = parseArgs({
  options: {
    addrs: { type: "string", default: "127.0.0.1:8400" },
    log: { type: "string", default: "default" },
    callers: { type: "string", default: "256" },
    bytes: { type: "string", default: "100" },
    records: { type: "string", default: "200000" },
    seconds: { type: "string", default: "2" },
    rounds: { type: "string", default: "3" },
  },
});
const value = Buffer.alloc(Number(args.bytes), "x");
const periodMs = Number(args.seconds) * 1000;

/** Appends with callers that await each record, and returns how long each record took, in milliseconds. */
async function callers(producer: Producer, count: number, ms: number): Promise<number[]> {
  const taken: number[] = [];
  const end = performance.now() + ms;
  const caller = async () => {
    for (let began = performance.now(); began < end;) {
      await producer.send(value);
      const now = performance.now();
      taken.push(now - began);
      began = now;
    }
  };
  await Promise.all(Array.from({ length: count }, caller));
  return taken.sort((a, b) => a - b);
}

/** Sends without waiting for each record, and returns the rate. */
async function pipelined(producer: Producer, count: number): Promise<number> {
  const began = performance.now();
  for (let n = 0; n < count; n++) {
    if (producer.isFull) await producer.room();
    void producer.send(value);
  }
  await producer.flush();
  return (1000 * count) / (performance.now() - began);
}

async function consume(client: Client, count: number): Promise<number> {
  const began = performance.now();
  let left = count;
  for await (const _ of client.consumer({ log: args.log, start: { last: count } })) {
    if (--left === 0) break;
  }
  return (1000 * count) / (performance.now() - began);
}

const client = new Client(args.addrs.split(","));
const producer = await client.producer({ log: args.log });
const count = Number(args.records);
await pipelined(producer, count / 4);
for (let round = 0; round < Number(args.rounds); round++) {
  const rate = await pipelined(producer, count);
  const many = await callers(producer, Number(args.callers), periodMs);
  const one = await callers(producer, 1, periodMs);
  const read = await consume(client, count);
  const ms = (q: number) => one[Math.floor(q * (one.length - 1))]!.toFixed(2);
  console.log(
    `not awaited: ${Math.round(rate)} records/s   ${args.callers} callers: ${Math.round(many.length / Number(args.seconds))} records/s` +
      `   one caller: p50 ${ms(0.5)} ms, p99 ${ms(0.99)} ms   consumed: ${Math.round(read)} records/s`,
  );
}
await client.close();
