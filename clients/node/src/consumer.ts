// The consumer, as applications see it.

import type { ConsumerCore } from "./consumer_core.js";
import type { LogRecord } from "./record.js";
import type { CallOptions } from "./scope.js";

/**
 * Where reading starts: at the first record that exists, after the last one, at an offset, at the first record that was
 * appended at or after a time (a date, or microseconds since 1970), or at one of the last records.
 */
export type Start =
  "earliest" | "latest" | { offset: bigint | number } | { time: Date | bigint } | { last: bigint | number };

export interface ConsumerOptions {
  /** By default, the log `default`. */
  log?: string | undefined;
  /** By default `earliest`. With a cursor, it applies to a new one. */
  start?: Start | undefined;
  /** The name of the cursor that stores the position. The consumer takes it over from another process. */
  cursor?: string | undefined;
  /**
   * Commits the position after each interval, and when the consumer is closed. A record counts once its successor was
   * asked for. By default, nothing is committed automatically.
   */
  autoCommitMs?: number | undefined;
  /** Continues after records that were trimmed. By default, the consumer fails with the kind `trimmed`. */
  skipTrimmed?: boolean | undefined;
  /**
   * The time without records after which a node says that it is alive, by default 10,000. Three without a message are
   * too many.
   */
  heartbeatMs?: number | undefined;
  /** How long to wait without any message from a node. By default, without an end. */
  maxSilenceMs?: number | undefined;
  /** What people should know about this process, by default its host and number. Only with a cursor. */
  owner?: string | undefined;
}

/** Reads the records of a log, in order. */
export class Consumer implements AsyncIterable<LogRecord> {
  readonly #core: ConsumerCore;

  /** `Client.consumer` makes consumers. */
  constructor(core: ConsumerCore) {
    this.#core = core;
    dropped.register(this, core, core);
  }

  /**
   * Iterates over the records, and waits for new ones. The iteration ends when the consumer is closed. Leaving it
   * (`break`, `return`, an error of the loop's body) closes the consumer; `poll` does not.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<LogRecord, void, undefined> {
    try {
      for (let record = await this.poll(); record; record = await this.poll()) yield record;
    } finally {
      await this.close();
    }
  }

  /** Waits for the next record. Returns undefined at the time-out, and once the consumer is closed. */
  poll(options: CallOptions = {}): Promise<LogRecord | undefined> {
    return this.#core.poll(options, this);
  }

  /** Waits until the start is known: a server has answered, and a cursor was acquired. */
  ready(options: CallOptions = {}): Promise<void> {
    return this.#core.ready(options, this);
  }

  /** The offset after the last record that was taken. Undefined: the start is not known yet. */
  get position(): bigint | undefined {
    return this.#core.taken;
  }

  /** How many records were trimmed before they could be read, up to the last record that was taken. */
  get skipped(): bigint {
    return this.#core.skipped;
  }

  /** Stores the position after the last record that was taken in the cursor, and returns it. */
  commit(options: CallOptions = {}): Promise<bigint> {
    return this.#core.commit(options, this);
  }

  /** Ends the consumer. With `autoCommitMs`, the position is committed once more. A second call does nothing. */
  close(options: CallOptions = {}): Promise<void> {
    dropped.unregister(this.#core);
    return this.#core.close(options);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

// A consumer that was dropped without `close`.
const dropped = new FinalizationRegistry<ConsumerCore>((core) => core.abandon());
