// The client of a cluster.

import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { debuglog } from "node:util";
import { credentials as grpcCredentials, type ChannelCredentials } from "@grpc/grpc-js";
import { LogService, type Cursor as CursorMessage } from "./generated/seriatim/v1/log_service_pb.js";
import { Consumer, type ConsumerOptions } from "./consumer.js";
import { ConsumerCore } from "./consumer_core.js";
import { closed, invalid } from "./errors.js";
import { type Logger, MEMBERS_MS, Nodes, type Times } from "./nodes.js";
import { positive, text } from "./options.js";
import { Producer, type ProducerOptions } from "./producer.js";
import { ProducerCore } from "./producer_core.js";
import { call, type Cluster, isOurs, Route } from "./route.js";
import { type CallOptions, Scope } from "./scope.js";

/** The path of a PEM file, or its content. */
export type Pem = string | URL | Uint8Array;

/** The certificate authority, and the certificate of the client with its key. */
export interface Tls {
  ca: Pem;
  cert?: Pem | undefined;
  key?: Pem | undefined;
}

export interface ClientOptions extends Partial<Times> {
  /** Without it, connections are not encrypted. */
  tls?: Tls | undefined;
  /** By default, `NODE_DEBUG=seriatim` shows what happens, and warnings are those of the process. */
  logger?: Logger | undefined;
}

/** The stored position of a reader. */
export interface Cursor {
  /** The next record to read. */
  nextOffset: bigint;
  /** Rises when another process takes the cursor over. 0: none has. */
  epoch: bigint;
  /** How many records follow. */
  lag: bigint;
  /** How many records from the position on were trimmed. */
  trimmed: bigint;
  /** What the process that has taken it over says about itself. */
  owner: string;
  /** When the position was stored. Undefined: it is the one at which the cursor was created. */
  commitTimeUs: bigint | undefined;
}

const DEFAULT_TIMES: Times = {
  attemptMs: 5000,
  operationMs: 120_000,
  connectMs: 3000,
  backoffMinMs: 100,
  backoffMaxMs: 5000,
};

const debug = debuglog("seriatim");
const DEFAULT_LOGGER: Logger = {
  debug: (message) => debug("%s", message),
  warn: (message) => process.emitWarning(message, "SeriatimWarning"),
};

/** Connects to a cluster when it is first used. Use one in a process, and close it at the end. */
export class Client {
  readonly #cluster: Cluster;
  readonly #open = new Set<ProducerCore | ConsumerCore>();
  #refreshTimer: NodeJS.Timeout | undefined;
  #isRefreshing = false;
  #closing: Promise<void> | undefined;

  /** `addrs` are one or more of the nodes, `host:port`. The client finds the others. */
  constructor(addrs: string | readonly string[], options: ClientOptions = {}) {
    const list = typeof addrs === "string" ? [addrs] : [...addrs];
    if (list.length === 0) throw invalid("a client needs the address of a node");
    for (const addr of list) {
      if (!/^(\[[^\]]+\]|[^:/]+):\d+$/.test(addr)) throw invalid(`the address "${addr}" is not host:port`);
    }
    const times = { ...DEFAULT_TIMES };
    for (const name of Object.keys(DEFAULT_TIMES) as (keyof Times)[]) {
      times[name] = positive(options[name] ?? times[name], name);
    }
    const nodes = new Nodes(list, credentialsOf(options.tls), times);
    this.#cluster = { nodes, times, logger: options.logger ?? DEFAULT_LOGGER, scope: new Scope() };
    nodes.onLost = () => this.#refreshSoon();
    this.#cluster.scope.onEnd(() => {
      clearInterval(this.#refreshTimer);
      nodes.close();
    });
  }

  /** Waits until a node answers: 30 s, unless the caller says otherwise. */
  async ready(options: CallOptions = {}): Promise<void> {
    await this.#call(LogService.method.getServers, {}, { timeoutMs: 30_000, ...options }, "no node has answered");
  }

  /** Registers a producer of a log. One with a name continues after the process that had the name before. */
  async producer(options: ProducerOptions & CallOptions = {}): Promise<Producer> {
    this.#use();
    const scope = new Scope().limit(options, "the producer was not registered");
    try {
      const core = new ProducerCore(this.#cluster, options, () => this.#open.delete(core));
      await core.register(scope);
      this.#open.add(core);
      core.run();
      return new Producer(core);
    } finally {
      scope.release();
    }
  }

  /** Reads a log. Errors are those of its first record. */
  consumer(options: ConsumerOptions = {}): Consumer {
    this.#use();
    const core = new ConsumerCore(this.#cluster, options, () => this.#open.delete(core));
    this.#open.add(core);
    core.run();
    return new Consumer(core);
  }

  /** Returns a cursor of a log. */
  async cursor(log: string, cursor: string, options: CallOptions = {}): Promise<Cursor> {
    const { getCursor } = LogService.method;
    const request = { log: text(log, "log"), cursor: text(cursor, "cursor") };
    const answer = await this.#call(getCursor, request, options, "GetCursor did not succeed");
    return cursorOf(answer.cursor!);
  }

  /**
   * Closes all producers and consumers, then the connections. Rejects if one of them does. With a limit, it ends
   * earlier, and records that are not acknowledged fail, each with its outcome.
   */
  close(options: CallOptions = {}): Promise<void> {
    return (this.#closing ??= this.#close(options));
  }

  async #close(options: CallOptions): Promise<void> {
    const closing = await Promise.allSettled([...this.#open].map((opened) => opened.close(options)));
    this.#cluster.scope.end(closed("client"));
    const failed = closing.find((result) => result.status === "rejected");
    if (failed) throw failed.reason;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #call<M extends Parameters<typeof call>[1]>(
    method: M,
    init: Parameters<typeof call<M["input"], M["output"]>>[2],
    options: CallOptions,
    what: string,
  ) {
    this.#use();
    const scope = new Scope().limit(options, what);
    try {
      const route = new Route(this.#cluster);
      return await call<M["input"], M["output"]>(this.#cluster, method, init, { route, isRead: true, scope });
    } finally {
      scope.release();
    }
  }

  /** Starts what the client does by itself. */
  #use(): void {
    const { scope } = this.#cluster;
    if (this.#closing) throw scope.error ?? closed("client");
    if (scope.error) throw scope.error;
    this.#refreshTimer ??= setInterval(() => this.#refreshSoon(), MEMBERS_MS).unref();
  }

  #refreshSoon(): void {
    const { scope } = this.#cluster;
    if (this.#isRefreshing || scope.error) return;
    this.#isRefreshing = true;
    this.#refresh().then(
      () => (this.#isRefreshing = false),
      (error: unknown) => {
        this.#isRefreshing = false;
        if (!scope.error) this.#cluster.logger.debug(`the members were not read again error=${String(error)}`);
      },
    );
  }

  /** Asks for the members, until a node answers. */
  async #refresh(): Promise<void> {
    const { scope } = this.#cluster;
    const route = new Route(this.#cluster);
    for (;;) {
      let pauseMs;
      try {
        await route.ask(await route.connect(scope), scope);
        return route.succeeded();
      } catch (error) {
        if (scope.error) return;
        pauseMs = route.failed(isOurs(error));
        if (pauseMs === undefined) throw error;
      }
      // It does not keep the process.
      await new Promise((resolve) => setTimeout(resolve, pauseMs).unref());
    }
  }
}

function cursorOf(from: CursorMessage): Cursor {
  const { nextOffset, epoch, lag, trimmed, owner, commitTimeUs } = from;
  return { nextOffset, epoch, lag, trimmed, owner, commitTimeUs: commitTimeUs || undefined };
}

function credentialsOf(tls: Tls | undefined): ChannelCredentials {
  if (!tls) return grpcCredentials.createInsecure();
  const { ca, cert, key } = tls;
  if (!ca || !cert !== !key) throw invalid("tls needs `ca`, and both or none of `cert` and `key`");
  try {
    const pems = { ca: read(ca), cert: cert && read(cert), key: key && read(key) };
    // Node itself ignores an authority that is no certificate, and then no connection succeeds.
    new X509Certificate(pems.ca);
    return grpcCredentials.createSsl(pems.ca, pems.key || null, pems.cert || null);
  } catch (error) {
    throw invalid(`tls: ${String(error)}`, error);
  }
}

function read(pem: Pem): Buffer {
  if (pem instanceof Uint8Array) return Buffer.from(pem);
  return typeof pem === "string" && pem.includes("-----BEGIN ") ? Buffer.from(pem) : readFileSync(pem);
}
