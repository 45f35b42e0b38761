// The known nodes of a cluster, and the connections to them.

import { type DescMessage, type DescMethodUnary, fromBinary, type MessageShape } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { type GetServersResponse, LogService } from "./generated/seriatim/v1/log_service_pb.js";
import { broken, closed, errorOf, noAnswer } from "./errors.js";
import { now, type Scope } from "./scope.js";

/** How long a node counts as a member of the cluster, and how often the members are asked for. */
export const MEMBERS_MS = 5 * 60_000;

// More than every message of the API.
const MAX_MESSAGE_BYTES = 16 << 20;
// What a node may send on a stream before the client has taken it. A consumer pauses on top of it.
const WINDOW_BYTES = 1 << 20;

/** Times of a client, in milliseconds. */
export interface Times {
  /** Of an attempt, in addition to the time that the request asks the server to wait. By default 5,000. */
  attemptMs: number;
  /** Of an operation with all its attempts. By default 120,000. */
  operationMs: number;
  /** Of an attempt to connect. By default 3,000. */
  connectMs: number;
  /** The first pause between attempts, by default 100, and the longest, by default 5,000. */
  backoffMinMs: number;
  backoffMaxMs: number;
}

/** Where a library writes what an operator needs. */
export interface Logger {
  debug(message: string): void;
  warn(message: string): void;
}

/**
 * A connection to a node. It breaks once: then the node gets another one, which does not wait for the backoff of
 * gRPC.
 */
export class Connection {
  readonly channel: grpc.Client;
  /** When a node of this cluster has answered on it. */
  checkedAt: number | undefined;
  #wasReady = false;

  constructor(
    readonly node: Node,
    credentials: grpc.ChannelCredentials,
    times: Times,
  ) {
    this.channel = new grpc.Client(node.addr, credentials, {
      "grpc.enable_http_proxy": 0,
      "grpc.keepalive_time_ms": 20_000,
      "grpc.keepalive_timeout_ms": 10_000,
      "grpc.keepalive_permit_without_calls": 1,
      "grpc.initial_reconnect_backoff_ms": times.backoffMinMs,
      "grpc.max_reconnect_backoff_ms": times.backoffMaxMs,
      "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
      "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
      "grpc-node.flow_control_window": WINDOW_BYTES,
      // This library decides what is sent again, and clients of one process do not share connections.
      "grpc.enable_retries": 0,
      "grpc.service_config_disable_resolution": 1,
      "grpc.use_local_subchannel_pool": 1,
      "grpc.primary_user_agent": "seriatim-node",
    });
  }

  /** Whether it was connected, and is not any more. */
  get isLost(): boolean {
    return this.#wasReady && this.#state() !== grpc.connectivityState.READY;
  }

  get isChecked(): boolean {
    return this.checkedAt !== undefined && now() - this.checkedAt < MEMBERS_MS;
  }

  /** Connects. Its error says that nothing was sent. */
  async ready(scope: Scope, limitMs: number): Promise<void> {
    const channel = this.channel.getChannel();
    const deadline = Date.now() + limitMs;
    const until = now() + limitMs;
    for (let state = channel.getConnectivityState(true); state !== grpc.connectivityState.READY;) {
      switch (state) {
        case grpc.connectivityState.TRANSIENT_FAILURE:
          throw broken(`no connection to ${this.node.addr}: ${await this.#whyNot()}`, "none");
        case grpc.connectivityState.SHUTDOWN:
          throw broken(`the connection to ${this.node.addr} was closed`, "none");
      }
      const changed = new Promise<void>((resolve) => channel.watchConnectivityState(state, deadline, () => resolve()));
      await scope.race(changed);
      if (now() >= until) throw noAnswer(`no connection to ${this.node.addr}`, limitMs, "none");
      state = channel.getConnectivityState(true);
    }
    this.#wasReady = true;
  }

  /** Returns why there is no connection, which gRPC says only about a call. */
  #whyNot(): Promise<string> {
    const nothing = Buffer.alloc(0);
    return new Promise((resolve) =>
      this.channel.makeUnaryRequest(
        pathOf(LogService.method.getServers),
        () => nothing,
        () => nothing,
        nothing,
        // It fails at once.
        { deadline: Date.now() + 100 },
        (failed) => resolve(failed?.details ?? "it has just been established"),
      ),
    );
  }

  #state(): grpc.connectivityState {
    return this.channel.getChannel().getConnectivityState(false);
  }

  /** Sends an encoded request once. Rejects with what became of it. */
  async call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: Buffer,
    scope: Scope,
    limitMs: number,
  ): Promise<MessageShape<O>> {
    let leave = () => {};
    try {
      return await new Promise((resolve, reject) => {
        const call = this.start(() =>
          this.channel.makeUnaryRequest(
            pathOf(method),
            (bytes: Buffer) => bytes,
            (bytes: Buffer) => fromBinary(method.output, bytes),
            request,
            { deadline: Date.now() + limitMs },
            (failed, response) => (failed ? reject(errorOf(failed)) : resolve(response!)),
          ),
        );
        leave = scope.onEnd(() => call.cancel());
      });
    } finally {
      leave();
    }
  }

  /** Starts a call. Fails if another operation has found meanwhile that the connection is broken. */
  start<T>(make: () => T): T {
    if (this.#state() === grpc.connectivityState.SHUTDOWN) {
      throw broken(`the connection to ${this.node.addr} was closed`, "none");
    }
    return make();
  }
}

/** Returns the path of a method in HTTP/2. */
export function pathOf(method: { parent: { typeName: string }; name: string }): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/** A node, by its address. */
export class Node {
  connection: Connection | undefined;
  constructor(readonly addr: string) {}
}

/** The given addresses, then the members that a node has named. */
export class Nodes {
  #nodes: Node[];
  readonly #given: number;
  readonly #credentials: grpc.ChannelCredentials;
  readonly #times: Times;
  #clusterId = "";
  #isClosed = false;
  /** The node that answered last. New calls begin there. */
  current: Node;
  /** Called when a connection was lost. */
  onLost = () => {};

  constructor(addrs: string[], credentials: grpc.ChannelCredentials, times: Times) {
    this.#nodes = [...new Set(addrs)].map((addr) => new Node(addr));
    this.#given = this.#nodes.length;
    this.#credentials = credentials;
    this.#times = times;
    this.current = this.#nodes[0]!;
  }

  /** Returns the connection to a node. It connects when it is used. */
  acquire(node: Node): Connection {
    if (this.#isClosed) throw closed("client");
    // After a reconnection, another cluster may answer at the address.
    if (node.connection?.isLost) this.#discard(node.connection);
    return (node.connection ??= new Connection(node, this.#credentials, this.#times));
  }

  /** Replaces a connection that broke. Calls that still use it end by themselves. */
  lost(connection: Connection): void {
    this.#discard(connection);
    this.onLost();
  }

  #discard(connection: Connection): void {
    if (connection.node.connection === connection) connection.node.connection = undefined;
    connection.channel.close();
  }

  /**
   * Takes the members from an answer of GetServers, and returns the address of the leader. Returns undefined if the
   * node belongs to another cluster.
   */
  learn(connection: Connection, answer: GetServersResponse): { leader: string } | undefined {
    this.#clusterId ||= answer.clusterId;
    if (answer.clusterId !== this.#clusterId) return undefined;
    connection.checkedAt = now();
    if (answer.servers.length === 0) return { leader: "" };
    const before = this.#nodes;
    this.#nodes = before.slice(0, this.#given);
    for (const { rpcAddr } of answer.servers) {
      if (rpcAddr && !this.#nodes.some((node) => node.addr === rpcAddr)) {
        this.#nodes.push(before.find((node) => node.addr === rpcAddr) ?? new Node(rpcAddr));
      }
    }
    for (const node of before) {
      // It is no member any more. Streams that it still serves continue.
      if (node.connection && !this.#nodes.includes(node)) this.#discard(node.connection);
    }
    return { leader: answer.servers.find((server) => server.isLeader)?.rpcAddr ?? "" };
  }

  /** Returns the node with an address, which may be one that no member has named yet. */
  at(addr: string): Node {
    let node = this.#nodes.find((known) => known.addr === addr);
    if (!node) this.#nodes.push((node = new Node(addr)));
    return node;
  }

  /** Returns the next node after `node` that is not in `tried`. */
  after(node: Node, tried: ReadonlySet<Node>): Node | undefined {
    const at = this.#nodes.indexOf(node);
    const count = this.#nodes.length;
    return this.#nodes.map((_, i) => this.#nodes[(at + 1 + i) % count]!).find((next) => !tried.has(next));
  }

  all(): readonly Node[] {
    return this.#nodes;
  }

  close(): void {
    this.#isClosed = true;
    for (const { connection } of this.#nodes) connection?.channel.close();
  }
}
