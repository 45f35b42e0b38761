// The producer, as applications see it.

import type { ProducerCore } from "./producer_core.js";
import type { Ack } from "./queue.js";
import type { Bytes, NewRecord } from "./record.js";
import type { CallOptions } from "./scope.js";

export interface ProducerOptions {
  /** By default, the log `default`. */
  log?: string | undefined;
  /** A producer with a name continues after the last request of the process before it, which it fences. */
  name?: string | undefined;
  /** A request has at most this many records, by default 1,000, */
  batchRecords?: number | undefined;
  /** and bytes, by default 512 KiB. */
  batchBytes?: number | undefined;
  /** What may be unanswered before `send` waits, by default 32 MiB. It counts 200 bytes more for each record. */
  bufferBytes?: number | undefined;
  /**
   * How long a record may take until it is acknowledged, by default the `operationMs` of the client. Then the
   * producer fails.
   */
  deliveryTimeoutMs?: number | undefined;
  /** What people should know about this process, by default its host and number. */
  owner?: string | undefined;
}

/** What the server knew about a producer when it was registered. */
export interface Registration {
  /** The sequence of the last request of the process that had the name before. 0: none. */
  lastSequence: bigint;
  /** The offset of the last record of that request. */
  lastOffset: bigint | undefined;
  /** How many records all processes with the name had appended. A source continues after that many. */
  records: bigint;
}

/** Appends records to a log, each once, in the order of the calls. */
export class Producer {
  readonly #core: ProducerCore;

  /** `Client.producer` makes producers. */
  constructor(core: ProducerCore) {
    this.#core = core;
    dropped.register(this, core, core);
  }

  get registration(): Registration {
    return this.#core.registration;
  }

  /**
   * Appends a record. The promise is that of its acknowledgement.
   *
   * While the buffer is full, the record waits; `options` limit this time. After that it can't be taken back. A
   * rejection that nobody handles does not end the process: `flush` and `close` reject, too, if the producer has
   * failed.
   */
  send(record: NewRecord | Bytes, options: CallOptions = {}): Promise<Ack> {
    return this.#core.send(record, options, this);
  }

  /** Whether the buffer is full, so that the next record would wait. */
  get isFull(): boolean {
    return this.#core.isFull;
  }

  /** Waits until the buffer has room. Await it before each `send` whose promise you do not await. */
  room(options: CallOptions = {}): Promise<void> {
    return this.#core.room(options);
  }

  /** Waits until everything that was sent before is answered. Rejects if the producer has failed. */
  flush(options: CallOptions = {}): Promise<void> {
    return this.#core.flush(options);
  }

  /**
   * Accepts no more records, and flushes. What is not acknowledged within `options` fails, with its outcome. Rejects
   * if the producer has failed, or if records were left. A second call does nothing, and returns the same promise.
   */
  close(options: CallOptions = {}): Promise<void> {
    dropped.unregister(this.#core);
    return this.#core.close(options);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

// A producer that was dropped without `close`.
const dropped = new FinalizationRegistry<ProducerCore>((core) => core.abandon());
