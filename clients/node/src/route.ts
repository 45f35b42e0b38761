// Which node gets the next attempt of an operation, after which pause; and operations of one request.

import {
  create,
  type DescMessage,
  type DescMethodUnary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { combine, invalid, type Outcome, SeriatimError, timedOut } from "./errors.js";
import { LogService } from "./generated/seriatim/v1/log_service_pb.js";
import type { Connection, Logger, Node, Nodes, Times } from "./nodes.js";
import { Scope } from "./scope.js";

/** What all operations of a client share. */
export interface Cluster {
  readonly nodes: Nodes;
  readonly times: Times;
  readonly logger: Logger;
  /** Ends with the client. */
  readonly scope: Scope;
}

export function logName(log: string): string {
  return log || "default";
}

/** Chooses the node of each attempt. It belongs to one operation or stream. */
export class Route {
  readonly #cluster: Cluster;
  // The log whose leader is preferred.
  readonly #log: string | undefined;
  // The node of the next attempt.
  #now: Node;
  #leader = "";
  // The nodes that have failed since the last success or pause.
  readonly #tried = new Set<Node>();
  #pauseMs = 0;
  /** That of the last attempt. */
  connection: Connection | undefined;

  /** With a log, its leader comes first. */
  constructor(cluster: Cluster, log?: string) {
    this.#cluster = cluster;
    this.#log = log;
    this.#now = cluster.nodes.current;
  }

  get node(): Node {
    return this.#now;
  }

  /**
   * Connects to the node of the next attempt, and checks that it belongs to the cluster. Nothing was done if it
   * rejects.
   */
  async connect(scope: Scope): Promise<Connection> {
    const { nodes, times } = this.#cluster;
    for (;;) {
      this.#turnToLeader();
      this.connection = undefined;
      const connection = nodes.acquire(this.#now);
      this.connection = connection;
      await connection.ready(scope, times.connectMs);
      if (!connection.isChecked || (this.#log !== undefined && !this.#leader)) await this.ask(connection, scope);
      if (!this.#turnToLeader()) return connection;
    }
  }

  /** Chooses the leader, if it is known, and has not failed just now. Returns whether that changed the node. */
  #turnToLeader(): boolean {
    if (!this.#leader || this.#leader === this.#now.addr) return false;
    const leader = this.#cluster.nodes.at(this.#leader);
    if (this.#tried.has(leader)) return false;
    this.#now = leader;
    return true;
  }

  /** Asks a node for the members and the leader. */
  async ask(connection: Connection, scope: Scope): Promise<void> {
    const { nodes, times, logger } = this.#cluster;
    const { getServers } = LogService.method;
    const request = encode(getServers.input, { log: this.#log === undefined ? "" : logName(this.#log) });
    let answer;
    try {
      answer = await connection.call(getServers, request, scope, times.attemptMs);
    } catch (error) {
      throw isOurs(error).withOutcome("none");
    }
    const { addr } = connection.node;
    if (connection.checkedAt === undefined) logger.debug(`connected node=${addr} cluster_id=${answer.clusterId}`);
    const learned = nodes.learn(connection, answer);
    if (!learned) {
      const error = new SeriatimError({
        code: "FAILED_PRECONDITION",
        reason: "CLUSTER_CHANGED",
        message: `node ${addr} belongs to another cluster than the nodes before it`,
        metadata: { cluster_id: answer.clusterId },
      });
      this.#cluster.scope.end(error);
      throw error;
    }
    if (this.#log !== undefined) this.#leader = learned.leader;
  }

  /** Notes an answer. The pauses begin anew. */
  succeeded(): void {
    this.#pauseMs = 0;
    this.#tried.clear();
    if (this.#log === undefined) this.#cluster.nodes.current = this.#now;
  }

  /** Chooses the node of the next attempt after an error. Returns the pause before it; undefined: there is none. */
  failed(error: SeriatimError): number | undefined {
    const { nodes, logger } = this.#cluster;
    const failed = this.#now;
    if (error.isBroken && this.connection) {
      logger.debug(`lost node=${failed.addr} error=${error}`);
      nodes.lost(this.connection);
    }
    if (this.#leader === failed.addr) this.#leader = "";
    const hint = error.metadata["leader"];
    if (this.#log !== undefined && hint && hint !== failed.addr) this.#leader = hint;
    let pauseMs = 0;
    if (error.isBroken || error.retry === "elsewhere") {
      this.#tried.add(failed);
      const next = nodes.after(failed, this.#tried);
      if (next) {
        this.#now = next;
      } else {
        this.#tried.clear();
        this.#now = nodes.after(failed, this.#tried) ?? failed;
        pauseMs = this.nextPause();
        // There is no other node.
        if (this.#now === failed) pauseMs = Math.max(pauseMs, error.pauseMs);
      }
    } else if (error.retry === "no") {
      return undefined;
    } else {
      pauseMs = Math.max(this.nextPause(), error.pauseMs);
    }
    logger.debug(`retry node=${this.#now.addr} pause_ms=${Math.round(pauseMs)} error=${error}`);
    return pauseMs;
  }

  /** Returns the next pause. They double, with a random part. */
  nextPause(): number {
    const { backoffMinMs, backoffMaxMs } = this.#cluster.times;
    const base = Math.max(this.#pauseMs, backoffMinMs);
    this.#pauseMs = Math.min(2 * base, backoffMaxMs);
    return base * (0.5 + Math.random());
  }
}

/** Encodes a message. */
export function encode<T extends DescMessage>(schema: T, init: MessageInitShape<T>): Buffer {
  try {
    const bytes = toBinary(schema, create(schema, init));
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  } catch (error) {
    throw invalid(`${schema.name}: ${String(error)}`, error);
  }
}

/** Narrows what a `catch` has caught. Everything else is a bug of this library, and continues as it is. */
export function isOurs(error: unknown): SeriatimError {
  if (error instanceof SeriatimError) return error;
  throw error;
}

interface Operation {
  /** With a log, its leader comes first. */
  route: Route;
  /** Nothing is done by the request. */
  isRead: boolean;
  /** Ends with the caller, and with the object that makes the request. */
  scope: Scope;
}

/** Sends a request that can always be sent again, until it is answered. */
export async function call<I extends DescMessage, O extends DescMessage>(
  cluster: Cluster,
  method: DescMethodUnary<I, O>,
  init: MessageInitShape<I>,
  { route, isRead, scope: caller }: Operation,
): Promise<MessageShape<O>> {
  const request = encode(method.input, init);
  const limitMs = cluster.times.operationMs;
  let outcome: Outcome = "none";
  let last: SeriatimError | undefined;
  const scope = Scope.within(caller, cluster.scope);
  scope.limitTime(limitMs, () => timedOut(`${method.name} did not succeed`, limitMs));
  /** The error of an operation that was ended from outside. */
  const ended = () => scope.error!.after(scope.error!.isClosed ? undefined : last).withOutcome(outcome);
  try {
    for (;;) {
      try {
        if (scope.error) throw scope.error;
        const connection = await route.connect(scope);
        try {
          const answer = await connection.call(method, request, scope, cluster.times.attemptMs);
          route.succeeded();
          return answer;
        } catch (error) {
          const failed = isOurs(error);
          // A lost answer to a read is no reason to say that something may have been done.
          const isLost = isRead && (failed.isBroken || scope.error);
          outcome = combine(outcome, isLost ? "none" : failed.outcome);
          throw failed;
        }
      } catch (error) {
        const failed = isOurs(error).withOutcome(outcome);
        if (scope.error) throw ended();
        last = failed;
        const pauseMs = route.failed(failed);
        if (pauseMs === undefined) throw failed;
        try {
          await scope.sleep(pauseMs);
        } catch {
          throw ended();
        }
      }
    }
  } finally {
    scope.release();
  }
}
