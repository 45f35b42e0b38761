// What a producer does with records before they are in a request, and the calls that wait for them.

import { type Ack, bufferCost, Item, type Settle } from "./queue.js";
import { Delivery } from "./delivery.js";
import { closed, SeriatimError, timedOut } from "./errors.js";
import { Fifo } from "./fifo.js";
import { positive } from "./options.js";
import type { Producer, ProducerOptions, Registration } from "./producer.js";
import { type Bytes, type NewRecord, OutgoingRecord } from "./record.js";
import { type Cluster, logName } from "./route.js";
import { type CallOptions, now, Scope } from "./scope.js";

/** How long the limits of the log count as known, before a record is refused by them. */
const LIMITS_MS = 1000;

/** A record that is not in a request yet: the buffer is full, or the limits of the log are read again. */
interface Waiting {
  record: OutgoingRecord;
  item: Item;
  isSettled: boolean;
  scope: Scope | undefined;
}

/** A call of `flush`. */
interface Flush {
  /** It waits for the records with lower numbers. */
  before: number;
  left: number;
  done: () => void;
}

/** What a producer does. It does not know the `Producer`, which can be dropped, unless records are unanswered. */
export class ProducerCore {
  registration: Registration = { lastSequence: 0n, lastOffset: undefined, records: 0n };
  readonly #cluster: Cluster;
  readonly #log: string;
  readonly #bufferBytes: number;
  readonly #delivery: Delivery;
  #limitsReadAt = -LIMITS_MS;
  #isReadingLimits = false;
  // Calls of `send`, in order. Each refers to the record of its caller, so there is no other bound than theirs.
  readonly #waiting = new Fifo<Waiting>();
  readonly #roomWaiters = new Set<() => void>();
  // Counts records: all, and those that are not answered.
  #count = 0;
  #left = 0;
  readonly #flushes = new Set<Flush>();
  #closing: Promise<void> | undefined;
  // It was closed with nothing left.
  #isClean = false;
  // The Producer, while records are unanswered: somebody waits for them, so that it is not dropped.
  readonly #users = new Set<Producer>();

  /** `onEnd` is called once the producer has failed or was closed. */
  constructor(cluster: Cluster, options: ProducerOptions, onEnd: () => void) {
    this.#cluster = cluster;
    this.#log = options.log ?? "";
    this.#bufferBytes = positive(options.bufferBytes ?? 32 << 20, "bufferBytes");
    this.#delivery = new Delivery(cluster, options, {
      answered: (item) => this.#answered(item),
      room: () => this.#admit(),
      ended: (error) => {
        this.#refuseWaiting(error.withOutcome("none"));
        onEnd();
      },
    });
  }

  /** Registers the producer. */
  async register(scope: Scope): Promise<void> {
    this.registration = await this.#delivery.register(scope);
  }

  run(): void {
    this.#delivery.run();
  }

  // --- For applications ---

  send(record: NewRecord | Bytes, options: CallOptions, user: Producer): Promise<Ack> {
    let outgoing;
    try {
      const refused = this.#refusal();
      if (refused) throw refused;
      outgoing = new OutgoingRecord(record);
    } catch (error) {
      const rejected = Promise.reject<Ack>(error);
      if (error instanceof SeriatimError) handled(rejected);
      return rejected;
    }
    let settle!: Settle;
    const promise = new Promise<Ack>((resolve, reject) => (settle = { resolve, reject }));
    handled(promise);
    const item = new Item(this.#count++, outgoing.size, outgoing.encodedSize, settle);
    this.#left++;
    this.#users.add(user);
    if (
      this.#waiting.length === 0 &&
      outgoing.size <= this.#delivery.maxRecordBytes &&
      this.#fits(bufferCost(outgoing))
    ) {
      this.#delivery.add(outgoing, item);
    } else {
      this.#wait(outgoing, item, options);
    }
    return promise;
  }

  get isFull(): boolean {
    return this.#waiting.length > 0 || this.#delivery.buffered >= this.#bufferBytes;
  }

  async room(options: CallOptions): Promise<void> {
    if (!this.isFull && !this.#refusal()) return;
    const scope = new Scope().limit(options, "the buffer of the producer had no room");
    try {
      for (;;) {
        const refused = this.#refusal();
        if (refused) throw refused;
        if (!this.isFull) return;
        let wake = () => {};
        const changed = new Promise<void>((resolve) => this.#roomWaiters.add((wake = resolve)));
        try {
          await scope.race(changed);
        } finally {
          this.#roomWaiters.delete(wake);
        }
      }
    } finally {
      scope.release();
    }
  }

  async flush(options: CallOptions): Promise<void> {
    const scope = new Scope().limit(options, `${this.#left} records were not acknowledged`);
    try {
      await this.#flushed(scope);
    } finally {
      scope.release();
    }
    if (this.#delivery.error && !this.#isClean) throw this.#delivery.error;
  }

  close(options: CallOptions): Promise<void> {
    if (!this.#closing) {
      this.#closing = this.#close(options);
      // It may have been called by the client, too.
      handled(this.#closing);
    }
    return this.#closing;
  }

  async #close(options: CallOptions): Promise<void> {
    if (!this.#delivery.error) {
      this.#refuseWaiting(closed("producer"));
      const scope = new Scope().limit(options, "the producer was not flushed");
      try {
        await this.#flushed(scope);
      } catch {
        // What is left fails below.
      } finally {
        scope.release();
      }
      this.#isClean = this.#left === 0 && !this.#delivery.error;
      const message = `the producer was closed before ${this.#left} records were acknowledged`;
      const left = new SeriatimError({ code: "CANCELLED", message, isClosed: true });
      this.#delivery.fail(this.#isClean ? closed("producer") : left);
    }
    if (!this.#isClean) throw this.#delivery.error;
  }

  abandon(): void {
    if (this.#delivery.error || this.#closing) return;
    this.#cluster.logger.warn(`a producer of log ${logName(this.#log)} was dropped without close`);
    this.#delivery.fail(closed("producer"));
  }

  /** Waits until all records so far are answered. */
  async #flushed(scope: Scope): Promise<void> {
    if (this.#left === 0) return;
    let flush: Flush | undefined;
    const answered = new Promise<void>((done) => (flush = { before: this.#count, left: this.#left, done }));
    this.#flushes.add(flush!);
    try {
      await scope.race(answered);
    } finally {
      this.#flushes.delete(flush!);
    }
  }

  // --- The buffer ---

  /** Why no record can be accepted. */
  #refusal(): SeriatimError | undefined {
    if (this.#delivery.error) return this.#delivery.error.withOutcome("none");
    return this.#closing && closed("producer");
  }

  #fits(cost: number): boolean {
    return this.#delivery.buffered === 0 || this.#delivery.buffered + cost <= this.#bufferBytes;
  }

  #wait(record: OutgoingRecord, item: Item, options: CallOptions): void {
    const waiting: Waiting = { record, item, isSettled: false, scope: undefined };
    this.#waiting.push(waiting);
    this.#admit();
    if (waiting.isSettled || (options.timeoutMs === undefined && !options.signal)) return;
    waiting.scope = new Scope().limit(options, "the buffer of the producer had no room");
    waiting.scope.onEnd((error) => {
      // It stays in the queue, and is passed over.
      waiting.isSettled = true;
      this.#reject(item, error);
      this.#admit();
    });
  }

  /** Moves the records that wait into requests, as far as there is room. */
  #admit(): void {
    for (let first = this.#waiting.first; first; first = this.#waiting.first) {
      if (!first.isSettled) {
        const isTooLarge = first.record.size > this.#delivery.maxRecordBytes;
        if (isTooLarge && now() - this.#limitsReadAt >= LIMITS_MS) return this.#readLimits();
        if (!isTooLarge && !this.#fits(first.item.cost)) return;
        first.isSettled = true;
        first.scope?.release();
        if (isTooLarge) this.#reject(first.item, this.#delivery.tooLarge(first.item.size));
        else this.#delivery.add(first.record, first.item);
      }
      this.#waiting.shift();
    }
    if (!this.isFull) for (const wake of this.#roomWaiters) wake();
  }

  #refuseWaiting(error: SeriatimError): void {
    for (let first = this.#waiting.shift(); first; first = this.#waiting.shift()) {
      first.scope?.release();
      if (!first.isSettled) this.#reject(first.item, error);
      first.isSettled = true;
    }
    for (const wake of this.#roomWaiters) wake();
  }

  /**
   * Reads the limits again, because an admin may have raised them. If no node answers in time, the known ones apply.
   */
  #readLimits(): void {
    if (this.#isReadingLimits) return;
    this.#isReadingLimits = true;
    const { attemptMs } = this.#cluster.times;
    const scope = Scope.within(this.#delivery.scope).limitTime(attemptMs, () =>
      timedOut("no node has answered", attemptMs),
    );
    this.#delivery
      .readLimits(scope)
      .catch((error: unknown) => {
        this.#cluster.logger.debug(`the limits were not read again log=${logName(this.#log)} error=${String(error)}`);
      })
      .finally(() => {
        scope.release();
        this.#isReadingLimits = false;
        this.#limitsReadAt = now();
        if (!this.#delivery.error) this.#admit();
      });
  }

  #reject(item: Item, error: SeriatimError): void {
    item.settle.reject(error);
    this.#answered(item);
  }

  #answered(item: Item): void {
    this.#left--;
    for (const flush of this.#flushes) {
      if (item.number < flush.before && --flush.left === 0) flush.done();
    }
    if (this.#left === 0) this.#users.clear();
  }
}

/** Marks a promise as handled: its rejection does not end the process if nobody awaits it. */
export function handled(promise: Promise<unknown>): void {
  promise.catch(() => {});
}
