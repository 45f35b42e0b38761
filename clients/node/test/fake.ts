// A node in this process, which answers as a test says. The conformance test has better ones; this is for what only
// an application in the same process sees.

import {
  create,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { Client, type ClientOptions } from "../src/index.js";
import { pathOf } from "../src/nodes.js";
import {
  AcquireCursorResponseSchema,
  type ConsumeRequest,
  ConsumeResponseSchema,
  LogService,
  type ProduceRequest,
  ProduceResponseSchema,
} from "../src/v1.js";

type Consume = grpc.ServerWritableStream<ConsumeRequest, MessageShape<typeof ConsumeResponseSchema>>;

export class FakeNode {
  addr = "";
  /** Requests of ProduceStream, in the order in which they came. */
  produced: ProduceRequest[] = [];
  nextOffset = 0n;
  /** Requests are not answered while it is true. Set it with `release`. */
  isHeld = false;
  /** Fails each request. */
  refusal: Partial<grpc.ServiceError> | undefined;
  consume: (call: Consume) => void = () => {};
  commits: bigint[] = [];
  readonly #server = new grpc.Server();
  #unanswered: (() => void)[] = [];

  static async start(): Promise<FakeNode> {
    const node = new FakeNode();
    node.#server.addService(definitionOf(), {
      getServers: answer(LogService.method.getServers.output, () => ({
        clusterId: "c",
        servers: [{ rpcAddr: node.addr, isLeader: true }],
      })),
      getLog: answer(LogService.method.getLog.output, () => ({
        log: { logId: "l", config: { maxRecordBytes: 1 << 20, maxRequestBytes: 4 << 20 } },
      })),
      initProducer: answer(LogService.method.initProducer.output, () => ({
        producer: { logId: "l", producerId: "1", epoch: 1 },
      })),
      acquireCursor: answer(AcquireCursorResponseSchema, () => ({
        cursor: { logId: "l", epoch: 1n, nextOffset: node.nextOffset },
      })),
      getCursor: answer(LogService.method.getCursor.output, () => ({
        cursor: { nextOffset: node.nextOffset, lag: 2n ** 63n - 1n, epoch: 2n ** 64n - 1n },
      })),
      commitCursor: answer(LogService.method.commitCursor.output, (request: { nextOffset: bigint }) => {
        node.commits.push(request.nextOffset);
        return { cursor: { nextOffset: request.nextOffset } };
      }),
      produceStream: (call: grpc.ServerDuplexStream<ProduceRequest, MessageShape<typeof ProduceResponseSchema>>) => {
        call.on("data", (request: ProduceRequest) => node.#receive(call, request));
        call.on("end", () => call.end());
      },
      consumeStream: (call: Consume) => node.consume(call),
    });
    const port = await new Promise<number>((resolve, reject) =>
      node.#server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      ),
    );
    node.addr = `127.0.0.1:${port}`;
    return node;
  }

  #receive(
    call: grpc.ServerDuplexStream<ProduceRequest, MessageShape<typeof ProduceResponseSchema>>,
    request: ProduceRequest,
  ): void {
    this.produced.push(request);
    const done = () => {
      if (this.refusal) return call.emit("error", this.refusal);
      const [offset, count] = [this.nextOffset, request.records.length];
      this.nextOffset += BigInt(count);
      return call.write(create(ProduceResponseSchema, { offset, count, appendTimeUs: 2n ** 64n - 1n }));
    };
    if (this.isHeld) this.#unanswered.push(done);
    else done();
  }

  /** Answers what was held. */
  release(): void {
    this.isHeld = false;
    for (const done of this.#unanswered.splice(0)) done();
  }

  /** The values of the records that were received. */
  get values(): string[] {
    return this.produced.flatMap(({ records }) => records.map(({ value }) => Buffer.from(value).toString()));
  }

  client(options: ClientOptions = {}): Client {
    return new Client(this.addr, options);
  }

  stop(): void {
    this.#server.forceShutdown();
  }
}

/** Returns a message of ConsumeStream with one record for each value. */
export function message(first: bigint, values: readonly Uint8Array[]): MessageShape<typeof ConsumeResponseSchema> {
  const records = values.map((value, at) => ({ value, offset: first + BigInt(at) }));
  const resumeOffset = first + BigInt(values.length);
  return create(ConsumeResponseSchema, { records, logId: "l", resumeOffset, nextOffset: resumeOffset });
}

function answer<O extends DescMessage>(output: O, make: (request: never) => MessageInitShape<O>) {
  return (call: { request: unknown }, done: (error: null, answer: MessageShape<O>) => void) =>
    done(null, create(output, make(call.request as never)));
}

function definitionOf(): grpc.ServiceDefinition {
  const methods = LogService.methods.map((method) => [
    method.localName,
    {
      path: pathOf(method),
      requestStream: method.methodKind === "bidi_streaming",
      responseStream: method.methodKind === "bidi_streaming" || method.methodKind === "server_streaming",
      requestSerialize: (message: MessageShape<DescMessage>) => Buffer.from(toBinary(method.input, message)),
      requestDeserialize: (bytes: Buffer) => fromBinary(method.input, bytes),
      responseSerialize: (message: MessageShape<DescMessage>) => Buffer.from(toBinary(method.output, message)),
      responseDeserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
    },
  ]);
  return Object.fromEntries(methods) as grpc.ServiceDefinition;
}

/** Waits until a condition is true, and fails after a while. */
export async function eventually(what: string, condition: () => boolean): Promise<void> {
  const until = performance.now() + 20_000;
  while (!condition()) {
    if (performance.now() > until) throw new Error(`not within 20 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
