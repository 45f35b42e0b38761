// What a producer has not delivered yet: requests that are sent and not answered, then those that are not sent. It
// does no I/O.
//
// A request keeps its records and its sequence once it was sent, so that the server recognizes it when it is sent
// again.

import { create, toBinary } from "@bufbuild/protobuf";
import { ProduceRequestSchema } from "./generated/seriatim/v1/log_service_pb.js";
import { combine, type Outcome, type SeriatimError } from "./errors.js";
import type { OutgoingRecord } from "./record.js";

// At most this much is unanswered. The server keeps the answers to the last 64 requests of a producer.
const MAX_UNANSWERED = 32;
const MAX_UNANSWERED_BYTES = 4 << 20;
// What a record takes in the buffer beyond its encoded size: its promise, mainly.
const RECORD_OVERHEAD = 200;
// About the size of the fields of a request besides its records.
const REQUEST_OVERHEAD = 128;
const MIN_CAPACITY = 1024;

/** Returns what a record takes in the buffer. */
export function bufferCost(record: OutgoingRecord): number {
  return record.encodedSize + RECORD_OVERHEAD;
}

/** A record that is not answered yet. */
export class Item {
  constructor(
    /** Counts the records of the producer. */
    readonly number: number,
    /** What the limits of the log count. */
    readonly size: number,
    readonly encodedSize: number,
    readonly settle: Settle,
  ) {}

  get cost(): number {
    return this.encodedSize + RECORD_OVERHEAD;
  }
}

/** Where a record was appended. */
export interface Ack {
  /** Undefined: it was appended, but the server does not know any more where. */
  offset: bigint | undefined;
  /** Whether an earlier attempt had appended it. */
  duplicate: boolean;
  /** When it was appended, in microseconds since 1970. Undefined if `offset` is. */
  appendTimeUs: bigint | undefined;
}

export interface Settle {
  resolve(ack: Ack): void;
  reject(error: SeriatimError): void;
}

/** What all requests of a producer have in common. */
export interface Identity {
  log: string;
  logId: string;
  producerId: string;
  producerEpoch: number;
}

/** A request with its records. */
export class Batch {
  readonly items: Item[] = [];
  /** No record joins any more. */
  isSealed = false;
  /** Undefined: it was not sent yet. */
  sequence: bigint | undefined;
  /** That of all attempts that have ended. */
  outcome: Outcome = "none";
  // The encoded records, and how much of it is used.
  #body: Buffer;
  #length = 0;
  // The encoded request.
  #request: Buffer | undefined;

  constructor(
    /** When its first record was accepted. */
    readonly since: number,
    capacity: number,
  ) {
    this.#body = Buffer.allocUnsafeSlow(Math.max(capacity, MIN_CAPACITY));
  }

  /** The size of its records, encoded. */
  get length(): number {
    return this.#length;
  }

  /** About the size of the request. */
  get size(): number {
    return this.#length + REQUEST_OVERHEAD;
  }

  add(record: OutgoingRecord, item: Item): void {
    const end = this.#length + record.encodedSize;
    this.#reserve(end);
    record.writeTo(this.#body, this.#length);
    this.#length = end;
    this.items.push(item);
  }

  /** Adds a record of another request. */
  take(from: Batch, at: number, item: Item): void {
    const end = this.#length + item.encodedSize;
    this.#reserve(end);
    from.#body.copy(this.#body, this.#length, at, at + item.encodedSize);
    this.#length = end;
    this.items.push(item);
  }

  #reserve(size: number): void {
    if (size <= this.#body.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(size, 2 * this.#body.length));
    this.#body.copy(larger, 0, 0, this.#length);
    this.#body = larger;
  }

  /**
   * Returns the request. The fields besides the records follow them. It is encoded once: a stream that broke may
   * still read it.
   */
  encode(id: Identity): Buffer {
    if (!this.#request) {
      const rest = toBinary(ProduceRequestSchema, create(ProduceRequestSchema, { ...id, sequence: this.sequence! }));
      this.#reserve(this.#length + rest.length);
      this.#body.set(rest, this.#length);
      this.#request = this.#body.subarray(0, this.#length + rest.length);
    }
    return this.#request;
  }
}

/** The requests of a producer, in order. */
export class Queue {
  /** The limits of a request: the options of the producer, and later also those of the log. */
  maxBytes: number;
  batches: Batch[] = [];
  /** How many requests at the front were sent on the present stream. */
  sent = 0;
  #sentBytes = 0;
  // The sequence of the next request that is sent for the first time.
  #sequence = 1n;

  constructor(
    readonly maxRecords: number,
    maxBytes: number,
  ) {
    this.maxBytes = maxBytes;
  }

  /** Puts a record into the last request, or into a new one. */
  add(record: OutgoingRecord, item: Item, now: () => number): void {
    this.#room(item, now).add(record, item);
    this.#sealIfFull();
  }

  /** Returns the request that gets the next record. */
  #room(item: Item, now: () => number): Batch {
    const last = this.batches.at(-1);
    if (last && !last.isSealed) {
      if (last.length + item.encodedSize <= this.maxBytes) return last;
      last.isSealed = true;
    }
    // As much gathers as in the last request, probably.
    const capacity = Math.max(item.encodedSize, last?.length ?? 0) + REQUEST_OVERHEAD;
    const batch = new Batch(now(), capacity);
    this.batches.push(batch);
    return batch;
  }

  #sealIfFull(): void {
    const last = this.batches.at(-1)!;
    last.isSealed ||= last.items.length >= this.maxRecords || last.length >= this.maxBytes;
  }

  /** Returns the request that may be sent now. */
  peek(): Batch | undefined {
    const batch = this.batches[this.sent];
    if (!batch || this.sent === 0) return batch;
    // While a request is unanswered, records gather.
    const hasRoom = this.sent < MAX_UNANSWERED && this.#sentBytes + batch.size <= MAX_UNANSWERED_BYTES;
    return batch.isSealed && hasRoom ? batch : undefined;
  }

  /** Takes the request of `peek` as sent, and returns its bytes. */
  send(id: Identity): Buffer {
    const batch = this.batches[this.sent]!;
    batch.isSealed = true;
    batch.sequence ??= this.#sequence++;
    const request = batch.encode(id);
    this.sent++;
    this.#sentBytes += batch.size;
    return request;
  }

  /** Removes the first request, whose outcome is final. */
  pop(): Batch {
    const batch = this.batches.shift()!;
    if (this.sent > 0) {
      this.sent--;
      this.#sentBytes -= batch.size;
    }
    return batch;
  }

  /** Makes the queue send everything again, on a new stream. */
  rewind(): void {
    this.sent = 0;
    this.#sentBytes = 0;
  }

  /**
   * Notes what a failure of the present stream says about each request that was sent on it, and rewinds the queue.
   * `answered` is the number of answers on that stream. Returns the position of the request that failed.
   */
  failed(error: SeriatimError, answered: number): number {
    const numbered = error.number("failed_request");
    const position = numbered === undefined ? -1 : Number(numbered) - answered;
    const isNumbered = position >= 0 && position < this.sent;
    const at = isNumbered ? position : 0;
    const through = Number(error.number("unknown_through") ?? -1n) - answered;
    for (const [i, batch] of this.batches.slice(0, this.sent).entries()) {
      let outcome = error.outcome;
      if (i < at) {
        // The server has answered it, and the answer is lost.
        outcome = "unknown";
      } else if (i > at && isNumbered) {
        // No request after the failed one is appended, with this exception.
        outcome = error.outcome === "unknown" && i <= through ? "unknown" : "none";
      } else if (i > at && outcome === "done") {
        outcome = "unknown";
      }
      batch.outcome = combine(batch.outcome, outcome);
    }
    this.rewind();
    return at;
  }

  /** Whether a request may have been appended by an attempt before the present stream. */
  get mayHaveBeenDone(): boolean {
    // Requests are sent in order, so the first has at least as many such attempts as the others.
    return this.batches.length > 0 && this.batches[0]!.outcome !== "none";
  }

  /** The sequence of the next request that is sent for the first time. */
  startAt(sequence: bigint): void {
    this.#sequence = sequence;
  }

  /**
   * Forms all requests anew, without the records for which `isRefused`, which it returns. No attempt may have
   * appended any, and nothing may be sent at the moment. The sequences that were used are used again.
   */
  rebuild(isRefused: (item: Item) => boolean = () => false): Item[] {
    const old = this.batches;
    this.#sequence = old[0]?.sequence ?? this.#sequence;
    this.batches = [];
    const refused: Item[] = [];
    for (const batch of old) {
      let at = 0;
      for (const item of batch.items) {
        if (isRefused(item)) {
          refused.push(item);
        } else {
          this.#room(item, () => batch.since).take(batch, at, item);
          this.#sealIfFull();
        }
        at += item.encodedSize;
      }
    }
    return refused;
  }
}
