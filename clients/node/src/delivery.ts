// The delivery of a producer: its requests, the streams that carry them, and what follows a failure.

import { LogService, type ProduceResponse } from "./generated/seriatim/v1/log_service_pb.js";
import { broken, bug, noAnswer, type Outcome, SeriatimError, timedOut } from "./errors.js";
import { defaultOwner, positive, randomInstance, text } from "./options.js";
import type { ProducerOptions, Registration } from "./producer.js";
import { type Ack, type Batch, type Identity, type Item, Queue } from "./queue.js";
import type { OutgoingRecord } from "./record.js";
import { call, type Cluster, isOurs, logName, Route } from "./route.js";
import { now, Scope, timer } from "./scope.js";
import { ProduceStream } from "./streams.js";

/** What a delivery tells the producer. */
export interface DeliveryEvents {
  /** A record is acknowledged, or has failed. */
  answered(item: Item): void;
  /** There may be room for more records. */
  room(): void;
  /** Nothing is delivered any more. */
  ended(error: SeriatimError): void;
}

/** Sends the requests of a producer until they are answered, each with the same records and the same sequence. */
export class Delivery {
  /** Ends when the producer has failed or was closed. */
  readonly scope = new Scope();
  /** What the records that are not answered take in the buffer. */
  buffered = 0;
  maxRecordBytes = 0;
  readonly #cluster: Cluster;
  readonly #events: DeliveryEvents;
  readonly #log: string;
  readonly #name: string;
  readonly #owner: string;
  readonly #batchBytes: number;
  readonly #timeoutMs: number;
  readonly #queue: Queue;
  readonly #route: Route;
  #id: Identity = { log: "", logId: "", producerId: "0", producerEpoch: 0 };
  #maxRequestBytes = 0;
  #stream: ProduceStream | undefined;
  // How often the server did not know the producer, since its last answer.
  #registeredAgain = 0;
  // The last error of an attempt.
  #lastError: SeriatimError | undefined;
  #timer: NodeJS.Timeout | undefined;
  #timerAt = Infinity;
  #isPumpDue = false;
  #wake = () => {};

  constructor(cluster: Cluster, options: ProducerOptions, events: DeliveryEvents) {
    this.#cluster = cluster;
    this.#events = events;
    this.#log = text(options.log ?? "", "log");
    this.#name = text(options.name ?? "", "name");
    this.#owner = text(options.owner ?? defaultOwner(), "owner");
    this.#timeoutMs = positive(options.deliveryTimeoutMs ?? cluster.times.operationMs, "deliveryTimeoutMs");
    this.#batchBytes = positive(options.batchBytes ?? 512 << 10, "batchBytes");
    this.#queue = new Queue(positive(options.batchRecords ?? 1000, "batchRecords"), this.#batchBytes);
    this.#route = new Route(cluster, this.#log);
  }

  /** Why the producer has ended. */
  get error(): SeriatimError | undefined {
    return this.scope.error;
  }

  /** Begins to deliver, once the producer is registered. */
  run(): void {
    const leaveClient = this.#cluster.scope.onEnd((error) => this.fail(error));
    this.scope.onEnd(leaveClient);
    this.#deliver().catch((error: unknown) => {
      const message = `the producer has failed: ${String(error)}`;
      this.fail(error instanceof SeriatimError ? error : bug(message, "unknown", error));
    });
  }

  add(record: OutgoingRecord, item: Item): void {
    this.#queue.add(record, item, now);
    this.buffered += item.cost;
    this.#runTimer(this.#queue.batches[0]!.since + this.#timeoutMs);
    this.#pumpSoon();
    this.#wake();
  }

  // --- Registration ---

  /** Registers the producer, and reads the limits of the log. */
  async register(scope: Scope): Promise<Registration> {
    const { producer } = await call(
      this.#cluster,
      LogService.method.initProducer,
      {
        log: this.#log,
        producer: this.#name,
        instance: randomInstance(),
        owner: this.#owner,
        // If it registers again: never in another log of the same name.
        ...(this.#id.logId && { logId: this.#id.logId }),
      },
      { route: this.#route, isRead: false, scope },
    );
    const { logId, producerId, epoch, lastSequence, lastOffset, records } = producer!;
    this.#id = { log: this.#log, logId, producerId, producerEpoch: epoch };
    await this.#readLimits(this.#route, scope);
    this.#queue.startAt(lastSequence + 1n);
    return { lastSequence, lastOffset: lastSequence ? lastOffset : undefined, records };
  }

  /** Reads the limits of the log again. */
  readLimits(scope: Scope): Promise<void> {
    // The other route belongs to the stream.
    return this.#readLimits(new Route(this.#cluster, this.#log), scope);
  }

  async #readLimits(route: Route, scope: Scope): Promise<void> {
    const request = { log: this.#log, logId: this.#id.logId };
    const { log } = await call(this.#cluster, LogService.method.getLog, request, { route, isRead: true, scope });
    this.#setLimits(log?.config?.maxRecordBytes ?? 0, log?.config?.maxRequestBytes ?? 0);
  }

  #setLimits(record: number, request: number): void {
    this.maxRecordBytes = record;
    this.#maxRequestBytes = request;
    this.#queue.maxBytes = Math.min(this.#batchBytes, request);
  }

  /** The error of a record of a size. */
  tooLarge(size: number): SeriatimError {
    const [max, log] = [this.maxRecordBytes, logName(this.#log)];
    return new SeriatimError({
      code: "INVALID_ARGUMENT",
      reason: "RECORD_TOO_LARGE",
      message: `record of ${size} bytes exceeds max_record_bytes (${max}) of log "${log}"`,
      metadata: { log, limit: "max_record_bytes", max: String(max) },
    });
  }

  // --- Requests and answers ---

  /** Opens streams, until the producer ends. */
  async #deliver(): Promise<void> {
    while (await this.#hasWork()) {
      let stream: ProduceStream | undefined;
      let error: SeriatimError;
      try {
        const connection = await this.#route.connect(this.scope);
        if (this.error) return;
        const opened = new ProduceStream(connection, (answer) => this.#take(opened, answer));
        this.#stream = stream = opened;
        this.#cluster.logger.debug(`producing log=${logName(this.#log)} node=${connection.node.addr}`);
        this.#pump();
        error = await stream.ended;
      } catch (caught) {
        error = isOurs(caught);
      }
      // What is sent after the outcomes were noted would have none.
      this.#stream = undefined;
      stream?.fail(error);
      if (this.error || !(await this.#recover(stream, error))) return;
    }
  }

  /** Waits until there is something to deliver. Returns false once the producer has ended. */
  async #hasWork(): Promise<boolean> {
    while (!this.error && this.#queue.batches.length === 0) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    return !this.error;
  }

  /** Sends what may be sent, once those have run that may send more. */
  #pumpSoon(): void {
    if (this.#isPumpDue) return;
    this.#isPumpDue = true;
    setImmediate(() => {
      this.#isPumpDue = false;
      this.#pump();
    });
  }

  #pump(): void {
    const stream = this.#stream;
    if (!stream || this.error) return;
    while (this.#queue.peek()) {
      if (this.#queue.sent === 0) {
        stream.waitingSince = now();
        this.#runTimer(stream.waitingSince + this.#cluster.times.attemptMs);
      }
      stream.write(this.#queue.send(this.#id));
    }
  }

  /** Assigns an answer to the first request. */
  #take(stream: ProduceStream, answer: ProduceResponse): void {
    if (this.#stream !== stream || this.error) return;
    if (this.#queue.sent === 0 || answer.count !== this.#queue.batches[0]!.items.length) {
      throw bug(`an answer for ${answer.count} records does not belong to any request`, "unknown");
    }
    stream.answered++;
    stream.waitingSince = now();
    this.#lastError = undefined;
    this.#registeredAgain = 0;
    this.#route.succeeded();
    const { duplicate, appendTimeUs } = answer;
    let { offset } = answer;
    this.#acknowledge(this.#queue.pop(), () => ({ offset: offset++, duplicate, appendTimeUs }));
  }

  #acknowledge(batch: Batch, ack: () => Ack): void {
    for (const item of batch.items) {
      this.buffered -= item.cost;
      this.#resolve(item, ack());
    }
    this.#events.room();
    this.#pumpSoon();
  }

  // --- After an error ---

  /** Decides what follows the failure of a stream. Returns false if the producer has ended. */
  async #recover(stream: ProduceStream | undefined, error: SeriatimError): Promise<boolean> {
    this.#lastError = error;
    const isNew = !this.#queue.mayHaveBeenDone;
    const wasSent = this.#queue.sent > 0;
    const at = this.#queue.failed(error, stream?.answered ?? 0);
    const [first, ...others] = this.#queue.batches;
    if (!first) {
      // Nothing has failed. The next record opens a stream.
      this.#route.failed(error);
      return true;
    }
    if (at > 0) {
      // Requests before the failed one are answered when they are sent again, and it fails again.
      error = broken(`answers are missing before: ${error}`, "unknown");
    } else if (wasSent && error.outcome === "done" && error.retry === "no") {
      // The request succeeded, and its answer can't be had.
      this.#acknowledge(this.#queue.pop(), () => OFFSET_LOST);
      return true;
    } else if (wasSent && error.reason === "PRODUCER_UNKNOWN" && !this.#name && isNew) {
      // The error answers the failed request.
      if (others.every((batch) => batch.outcome === "none")) return this.#registerAgain();
    } else if (wasSent && error.kind === "too_large" && error.outcome === "none" && isNew) {
      return this.#shrink(error);
    }
    const pauseMs = this.#route.failed(error);
    if (pauseMs === undefined) {
      this.fail(error);
      return false;
    }
    return this.#pause(pauseMs);
  }

  async #pause(ms: number): Promise<boolean> {
    try {
      await this.scope.sleep(ms);
      return true;
    } catch {
      return false;
    }
  }

  /** Registers the producer under a new id, with the requests that are not answered. */
  async #registerAgain(): Promise<boolean> {
    this.#cluster.logger.debug(`the server does not know the producer any more log=${logName(this.#log)}`);
    this.#queue.rebuild();
    // One that is unknown again and again does not register without a pause.
    const pauseMs = this.#registeredAgain++ === 0 ? 0 : this.#route.nextPause();
    try {
      await this.scope.sleep(pauseMs);
      await this.register(this.scope);
    } catch (error) {
      // Whatever became of the registration, no record was appended.
      this.fail(isOurs(error).withOutcome("none"));
      return false;
    }
    return true;
  }

  /** Reads the limits of the log again, after it has refused a request that was within the earlier ones. */
  async #shrink(refused: SeriatimError): Promise<boolean> {
    try {
      await this.#readLimits(this.#route, this.scope);
    } catch (error) {
      this.fail(isOurs(error).withOutcome("none"));
      return false;
    }
    if (this.error) return false;
    // The node that answers GetLog may not know yet what the leader knows.
    const max = Number(refused.number("max") ?? Infinity);
    const { limit } = refused.metadata;
    const record = limit === "max_record_bytes" ? Math.min(this.maxRecordBytes, max) : this.maxRecordBytes;
    const request = limit === "max_request_bytes" ? Math.min(this.#maxRequestBytes, max) : this.#maxRequestBytes;
    this.#setLimits(record, request);
    const { items } = this.#queue.batches[0]!;
    const isTooLarge = (item: Item) => item.size > Math.min(record, request);
    if (!items.some(isTooLarge) && items.reduce((sum, { size }) => sum + size, 0) <= request) {
      this.fail(refused);
      return false;
    }
    for (const item of this.#queue.rebuild(isTooLarge)) {
      this.buffered -= item.cost;
      this.#reject(item, this.tooLarge(item.size));
    }
    this.#events.room();
    return true;
  }

  /** Ends the producer: everything that is not answered fails, in order, each request with its own outcome. */
  fail(error: SeriatimError): void {
    if (this.error) return;
    this.#cluster.logger.debug(`producer ended log=${logName(this.#log)} error=${error}`);
    clearTimeout(this.#timer);
    const { batches, sent } = this.#queue;
    // Nothing is accepted, sent or answered any more.
    this.scope.end(error);
    this.#queue.batches = [];
    this.#queue.rewind();
    this.buffered = 0;
    const errors = new Map<Outcome, SeriatimError>();
    for (const [i, batch] of batches.entries()) {
      const outcome = i < sent && batch.outcome === "none" ? "unknown" : batch.outcome;
      if (!errors.has(outcome)) errors.set(outcome, error.withOutcome(outcome));
      for (const item of batch.items) {
        if (outcome === "done") this.#resolve(item, OFFSET_LOST);
        else this.#reject(item, errors.get(outcome)!);
      }
    }
    this.#events.ended(error);
    this.#stream?.fail(error);
    this.#wake();
  }

  #resolve(item: Item, ack: Ack): void {
    item.settle.resolve(ack);
    this.#events.answered(item);
  }

  #reject(item: Item, error: SeriatimError): void {
    item.settle.reject(error);
    this.#events.answered(item);
  }

  // --- Times ---

  /** Makes `#check` run at a time, or earlier. */
  #runTimer(at: number): void {
    if (at >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = timer(() => this.#check(), at - now());
  }

  /** Enforces the delivery timeout, and ends a stream that does not answer. */
  #check(): void {
    this.#timerAt = Infinity;
    const [first] = this.#queue.batches;
    if (this.error || !first) return;
    let next = first.since + this.#timeoutMs;
    if (now() >= next) {
      return this.fail(timedOut("a record was not acknowledged", this.#timeoutMs).after(this.#lastError));
    }
    const { attemptMs } = this.#cluster.times;
    if (this.#stream && this.#queue.sent > 0) {
      const limit = this.#stream.waitingSince + attemptMs;
      if (now() < limit) next = Math.min(next, limit);
      else this.#stream.fail(noAnswer("no answer to a request", attemptMs, "unknown"));
    }
    this.#runTimer(next);
  }
}

const OFFSET_LOST: Ack = Object.freeze({ offset: undefined, duplicate: true, appendTimeUs: undefined });
