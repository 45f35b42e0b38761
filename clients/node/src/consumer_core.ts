// What a consumer does: it keeps a stream open, and reads ahead.

import { inspect } from "node:util";
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type ConsumeRequestSchema,
  type ConsumeResponse,
  LogService,
  type Record as RecordMessage,
  Start as StartKind,
} from "./generated/seriatim/v1/log_service_pb.js";
import type { Consumer, ConsumerOptions, Start } from "./consumer.js";
import { CursorSession } from "./cursor.js";
import { bug, closed, invalid, noAnswer, SeriatimError, timedOut } from "./errors.js";
import { Fifo } from "./fifo.js";
import type { Connection, Node } from "./nodes.js";
import { defaultOwner, microseconds, positive, text, uint64 } from "./options.js";
import { type LogRecord, memoryOf, recordOf } from "./record.js";
import { type Cluster, encode, isOurs, logName, Route } from "./route.js";
import { type CallOptions, Scope, timer } from "./scope.js";
import { ReadStream } from "./streams.js";

// What is read ahead. A message has at most 1,000 records and 1 MiB, except a single record that is larger.
const AHEAD_RECORDS = 10_000;
const AHEAD_BYTES = 4 << 20;
const MESSAGE_RECORDS = 1000;
const MESSAGE_BYTES = 1 << 20;
// The server accepts no shorter one.
const MIN_HEARTBEAT_MS = 1000;

/** Records of one message that were not taken. */
interface Chunk {
  records: RecordMessage[];
  /** The next record. */
  at: number;
  bytes: number;
  /** How many records before them were trimmed. */
  skipped: bigint;
}

type StartFields = Pick<MessageInitShape<typeof ConsumeRequestSchema>, "start" | "offset" | "startTimeUs">;

function fieldsOf(start: Start): StartFields {
  if (start === "earliest") return { start: StartKind.EARLIEST };
  if (start === "latest") return { start: StartKind.LATEST };
  if (typeof start === "object" && start !== null && Object.keys(start).length === 1) {
    if ("offset" in start) return { start: StartKind.OFFSET, offset: uint64(start.offset, "offset") };
    if ("time" in start) return { start: StartKind.TIME, startTimeUs: microseconds(start.time) };
    if ("last" in start) return { start: StartKind.LAST, offset: uint64(start.last, "number of records") };
  }
  throw invalid(`the start ${inspect(start)} is not "earliest", "latest", { offset }, { time } or { last }`);
}

// The time-out of `poll`.
const NO_RECORD = timedOut("no record", 0);

/** What a consumer does. It does not know the `Consumer`, which can be dropped, unless somebody waits for it. */
export class ConsumerCore {
  /** The position after the last record that was taken. */
  taken: bigint | undefined;
  skipped = 0n;
  readonly #cluster: Cluster;
  readonly #log: string;
  readonly #start: StartFields;
  readonly #cursor: string;
  readonly #owner: string;
  readonly #autoCommitMs: number | undefined;
  readonly #skipTrimmed: boolean;
  readonly #heartbeatMs: number;
  readonly #maxSilenceMs: number | undefined;
  readonly #onEnd: () => void;
  // Ends when the consumer has failed or was closed.
  readonly #scope = new Scope();
  #running: Promise<void> = Promise.resolve();
  #closing: Promise<void> | undefined;
  #error: SeriatimError | undefined;
  // The last error of an attempt since the last message.
  #lastError: SeriatimError | undefined;
  readonly #ahead = new Fifo<Chunk>();
  #aheadRecords = 0;
  #aheadBytes = 0;
  // Continues to read from the network, once there is room.
  #readOn: (() => void) | undefined;
  // Calls that wait for a change, with the Consumer that they use.
  readonly #waiting = new Map<() => void, Consumer>();
  // Where the next stream starts. Undefined: at `#start`.
  #resume: bigint | undefined;
  #logId: string | undefined;
  // How many records were trimmed before the next.
  #gap = 0n;
  #silence: NodeJS.Timeout | undefined;
  // The position after the last record whose successor was asked for.
  #passed: bigint | undefined;
  #session: CursorSession | undefined;
  #commitTimer: NodeJS.Timeout | undefined;

  constructor(cluster: Cluster, options: ConsumerOptions, onEnd: () => void) {
    this.#cluster = cluster;
    this.#log = text(options.log ?? "", "log");
    this.#start = fieldsOf(options.start ?? "earliest");
    this.#cursor = text(options.cursor ?? "", "cursor");
    this.#owner = text(options.owner ?? defaultOwner(), "owner");
    this.#skipTrimmed = options.skipTrimmed ?? false;
    this.#heartbeatMs = positive(options.heartbeatMs ?? 10_000, "heartbeatMs");
    if (this.#heartbeatMs < MIN_HEARTBEAT_MS) {
      throw invalid(`the heartbeat of ${this.#heartbeatMs} ms is below ${MIN_HEARTBEAT_MS}`);
    }
    if (options.maxSilenceMs !== undefined) this.#maxSilenceMs = positive(options.maxSilenceMs, "maxSilenceMs");
    if (options.autoCommitMs !== undefined) {
      if (!this.#cursor) throw invalid("autoCommitMs needs a cursor");
      this.#autoCommitMs = positive(options.autoCommitMs, "autoCommitMs");
    }
    this.#onEnd = onEnd;
    if (this.#start.start === StartKind.OFFSET) this.#resume = this.#start.offset!;
  }

  /** Begins to read. */
  run(): void {
    const leaveClient = this.#cluster.scope.onEnd((error) => this.#end(error));
    this.#scope.onEnd(leaveClient);
    this.#running = this.#run().catch((error: unknown) => {
      this.#end(
        error instanceof SeriatimError ? error : bug(`the consumer has failed: ${String(error)}`, "none", error),
      );
    });
  }

  async #run(): Promise<void> {
    if (this.#cursor) await this.#acquire();
    await this.#read();
  }

  /** Takes the cursor over, and begins at its position. */
  async #acquire(): Promise<void> {
    const request = { log: this.#log, cursor: this.#cursor, owner: this.#owner, ...this.#start };
    const session = await CursorSession.acquire(this.#cluster, request, this.#scope);
    this.#session = session;
    this.#resume = this.taken = this.#passed = session.start;
    this.#logId = session.logId;
    this.#wake();
    if (this.#autoCommitMs === undefined || this.#error) return;
    const commit = async () => {
      const error = await session.tryCommit(() => this.#passed!, this.#scope);
      if (error) this.#end(error);
    };
    this.#commitTimer = setInterval(() => void commit(), this.#autoCommitMs).unref();
  }

  // --- For applications ---

  async poll(options: CallOptions, user: Consumer): Promise<LogRecord | undefined> {
    this.#passed = this.taken;
    let record = this.#take();
    if (record || this.#closing) return record;
    const until = new Scope().limit({ signal: options.signal }, "");
    if (options.timeoutMs !== undefined) until.limitTime(options.timeoutMs, () => NO_RECORD);
    try {
      while (!record && !this.#closing) {
        if (this.#error) throw this.#error;
        await this.#change(until, user);
        record = this.#take();
      }
      return record;
    } catch (error) {
      if (error === NO_RECORD) return undefined;
      throw error;
    } finally {
      until.release();
    }
  }

  /** Waits until there are records, or until the consumer has ended. */
  async #change(until: Scope, user: Consumer): Promise<void> {
    let wake = () => {};
    const changed = new Promise<void>((resolve) => this.#waiting.set((wake = resolve), user));
    try {
      await until.race(changed);
    } finally {
      this.#waiting.delete(wake);
    }
  }

  #wake(): void {
    for (const wake of this.#waiting.keys()) wake();
  }

  #take(): LogRecord | undefined {
    // What was read ahead belongs to the process that has the cursor.
    if (this.#closing || this.#error?.kind === "fenced") return undefined;
    const chunk = this.#ahead.first;
    if (!chunk) return undefined;
    if (chunk.at === 0) this.skipped += chunk.skipped;
    const record = recordOf(chunk.records[chunk.at++]!);
    this.taken = record.offset + 1n;
    this.#aheadRecords--;
    if (chunk.at === chunk.records.length) {
      this.#ahead.shift();
      this.#aheadBytes -= chunk.bytes;
      this.#continueReading();
    }
    return record;
  }

  async ready(options: CallOptions, user: Consumer): Promise<void> {
    const scope = new Scope().limit(options, "the start is not known");
    try {
      await this.#ready(scope, user);
    } finally {
      scope.release();
    }
  }

  async #ready(scope: Scope, user: Consumer): Promise<void> {
    while (this.taken === undefined) {
      if (this.#error) throw this.#error;
      await this.#change(scope, user);
    }
  }

  async commit(options: CallOptions, user: Consumer): Promise<bigint> {
    if (!this.#cursor) throw invalid("the consumer has no cursor");
    const scope = new Scope().limit(options, "the position was not committed");
    try {
      await this.#ready(scope, user);
      if (this.#closing) throw closed("consumer");
      if (this.#error?.kind === "fenced") throw this.#error;
      return await this.#session!.commit(() => this.taken!, scope);
    } catch (error) {
      if (error instanceof SeriatimError && error.kind === "fenced") this.#end(error);
      throw error;
    } finally {
      scope.release();
    }
  }

  close(options: CallOptions): Promise<void> {
    if (!this.#closing) {
      this.#closing = this.#close(options);
      // It may have been called by the client, too.
      this.#closing.catch(() => {});
    }
    return this.#closing;
  }

  async #close(options: CallOptions): Promise<void> {
    this.#end(closed("consumer"));
    await this.#running;
    const session = this.#session;
    if (this.#autoCommitMs === undefined || !session?.isBefore(this.#passed!) || this.#error?.kind === "fenced") return;
    const scope = new Scope().limit(options, "the position was not committed");
    try {
      await session.commit(() => this.#passed!, scope);
    } finally {
      scope.release();
    }
  }

  abandon(): void {
    if (this.#error || this.#closing) return;
    this.#cluster.logger.warn(`a consumer of log ${logName(this.#log)} was dropped without close`);
    this.#end(closed("consumer"));
  }

  #end(error: SeriatimError): void {
    if (!this.#error) {
      this.#error = error;
      this.#cluster.logger.debug(`consumer ended log=${logName(this.#log)} error=${error}`);
      clearTimeout(this.#silence);
      clearInterval(this.#commitTimer);
      this.#scope.end(error);
      this.#onEnd();
    }
    this.#wake();
  }

  // --- The stream ---

  /** Keeps a stream open, until the consumer ends. */
  async #read(): Promise<void> {
    const route = new Route(this.#cluster);
    // The nodes on which the next record is damaged.
    const damagedAt = new Set<Node>();
    this.#watchSilence();
    while (!this.#error) {
      const before = this.#resume;
      let error;
      try {
        error = await this.#stream(await route.connect(this.#scope), route);
      } catch (caught) {
        error = isOurs(caught);
      }
      if (this.#error) return;
      if (this.#resume !== before) damagedAt.clear();
      this.#lastError = error;
      const pauseMs = this.#recover(error, route, damagedAt);
      if (pauseMs === undefined) return this.#end(error);
      await this.#scope.sleep(pauseMs);
    }
  }

  /** Reads from one node until that fails, and returns the error. */
  async #stream(connection: Connection, route: Route): Promise<SeriatimError> {
    const method = LogService.method.consumeStream;
    const { attemptMs } = this.#cluster.times;
    let silence: NodeJS.Timeout | undefined;
    let isFirst = true;
    const expect = (ms: number) => {
      silence = timer(() => stream.fail(noAnswer("no message", ms, "none")), ms);
    };
    const stream = new ReadStream(connection, method, encode(method.input, this.#request()), (message, next) => {
      if (this.#error) return;
      clearTimeout(silence);
      this.#lastError = undefined;
      if (isFirst) this.#cluster.logger.debug(`consuming log=${logName(this.#log)} node=${connection.node.addr}`);
      // A node sends the first message before it has read anything.
      if (!isFirst || message.records.length > 0) route.succeeded();
      isFirst = false;
      this.#accept(message, connection.node);
      // Silence means nothing while nothing is read from the network.
      this.#readOn = () => {
        expect(3 * this.#heartbeatMs);
        this.#watchSilence();
        next();
      };
      clearTimeout(this.#silence);
      this.#continueReading();
    });
    // The first message is sent at once.
    expect(attemptMs);
    const leave = this.#scope.onEnd((error) => stream.fail(error));
    try {
      const error = await stream.ended;
      // Nothing is done by reading.
      return error.isBroken ? error.withOutcome("none") : error;
    } finally {
      leave();
      clearTimeout(silence);
      if (this.#readOn) this.#watchSilence();
      this.#readOn = undefined;
      stream.fail(closed("stream"));
    }
  }

  #request(): MessageInitShape<typeof ConsumeRequestSchema> {
    return {
      log: this.#log,
      heartbeatMs: Math.round(this.#heartbeatMs),
      maxRecords: MESSAGE_RECORDS,
      maxBytes: MESSAGE_BYTES,
      ...(this.#resume === undefined ? this.#start : { start: StartKind.OFFSET, offset: this.#resume }),
      ...(this.#logId !== undefined && { logId: this.#logId }),
      ...(this.#cursor && { cursor: this.#cursor, cursorEpoch: this.#session!.epoch }),
    };
  }

  /** Takes a message, unless its records do not continue those before. */
  #accept(message: ConsumeResponse, node: Node): void {
    let expected = this.#resume;
    let bytes = 0;
    const where = `of log "${logName(this.#log)}" from node ${node.addr}`;
    for (const record of message.records) {
      if (expected !== undefined && record.offset !== expected) {
        throw bug(`offset ${record.offset} instead of ${expected} ${where}`);
      }
      expected = record.offset + 1n;
      bytes += memoryOf(record);
    }
    if (expected !== undefined && message.resumeOffset !== expected) {
      throw bug(`resume_offset ${message.resumeOffset} instead of ${expected} ${where}`);
    }
    const first = message.records[0]?.offset ?? message.resumeOffset;
    this.taken ??= first;
    this.#passed ??= first;
    this.#resume = message.resumeOffset;
    this.#logId ??= message.logId;
    if (message.records.length > 0) {
      this.#ahead.push({ records: message.records, at: 0, bytes, skipped: this.#gap });
      this.#gap = 0n;
      this.#aheadRecords += message.records.length;
      this.#aheadBytes += bytes;
    }
    this.#wake();
  }

  #continueReading(): void {
    const hasRoom =
      this.#aheadRecords <= AHEAD_RECORDS - MESSAGE_RECORDS && this.#aheadBytes <= AHEAD_BYTES - MESSAGE_BYTES;
    if (!hasRoom || !this.#readOn) return;
    const readOn = this.#readOn;
    this.#readOn = undefined;
    readOn();
  }

  /** Begins to wait for a message, at most `maxSilenceMs`. */
  #watchSilence(): void {
    const ms = this.#maxSilenceMs;
    if (ms === undefined || this.#error) return;
    clearTimeout(this.#silence);
    this.#silence = timer(() => this.#end(this.#lastError ?? noAnswer("no message", ms, "none")), ms);
  }

  /** Prepares the next attempt, and returns the pause before it. Undefined: the consumer fails. */
  #recover(error: SeriatimError, route: Route, damagedAt: Set<Node>): number | undefined {
    const first = error.number("first_offset");
    if (error.reason === "OFFSET_TRIMMED" && this.#skipTrimmed && first !== undefined) {
      const position = this.#resume;
      if (position !== undefined && first > position) {
        this.#gap += first - position;
        this.#resume = first;
        return 0;
      }
    }
    if (error.reason === "RECORD_DAMAGED") {
      damagedAt.add(route.node);
      if (this.#cluster.nodes.all().every((node) => damagedAt.has(node))) return undefined;
    }
    return route.failed(error);
  }
}
