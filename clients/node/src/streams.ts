// Streams of gRPC without the buffers of Node's streams: each message and the status arrive in order, one at a time.

import { type DescMessage, type DescMethodServerStreaming, fromBinary, type MessageShape } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { LogService, type ProduceResponse, ProduceResponseSchema } from "./generated/seriatim/v1/log_service_pb.js";
import { broken, bug, errorOf, type Outcome, SeriatimError } from "./errors.js";
import { type Connection, pathOf } from "./nodes.js";

/** Takes a message. The next one arrives once `next` was called. What it throws ends the stream. */
export type OnMessage<T> = (message: T, next: () => void) => void;

/** A call with a stream of responses. */
export class Stream {
  /** Resolves once the stream has ended, with the reason. */
  readonly ended: Promise<SeriatimError>;
  #end!: (error: SeriatimError) => void;
  #call: { cancel(): void } | undefined;

  protected constructor() {
    this.ended = new Promise((resolve) => (this.#end = resolve));
  }

  /** Starts the call. `outcome` is that of a request whose answer is lost. */
  protected begin<T, Call extends grpc.ClientReadableStream<T>>(
    connection: Connection,
    onMessage: OnMessage<T>,
    outcome: Outcome,
    make: (options: grpc.CallOptions) => Call,
  ): Call {
    const intercept: grpc.Interceptor = (options, nextCall) =>
      new grpc.InterceptingCall(nextCall(options), {
        start: (metadata, _listener, next) =>
          next(metadata, {
            onReceiveMessage: (message: T, deliver) => {
              try {
                onMessage(message, () => deliver(message));
              } catch (error) {
                this.fail(error instanceof SeriatimError ? error : bug("a message was not taken", outcome, error));
              }
            },
            onReceiveStatus: (status, deliver) => {
              this.#end(statusOf(status, outcome));
              deliver(status);
            },
          }),
      });
    const call = connection.start(() => make({ interceptors: [intercept] }));
    // Its messages and its status were taken above.
    call.on("error", () => {});
    call.resume();
    this.#call = call;
    return call;
  }

  /** Ends the stream for a reason that the server does not know. */
  fail(error: SeriatimError): void {
    this.#end(error);
    this.#call?.cancel();
  }
}

function statusOf(status: grpc.StatusObject, outcome: Outcome): SeriatimError {
  // Only this side ends streams.
  if (status.code === grpc.status.OK) return broken("the node has ended the stream", outcome);
  return errorOf(status);
}

const same = (bytes: Buffer) => bytes;

/** One call of ProduceStream. */
export class ProduceStream extends Stream {
  answered = 0;
  /** Since when the first unanswered request is the first. */
  waitingSince = 0;
  readonly #call: grpc.ClientDuplexStream<Buffer, ProduceResponse>;

  constructor(connection: Connection, onAnswer: (answer: ProduceResponse) => void) {
    super();
    const onMessage: OnMessage<ProduceResponse> = (answer, next) => {
      onAnswer(answer);
      next();
    };
    this.#call = this.begin(connection, onMessage, "unknown", (options) =>
      connection.channel.makeBidiStreamRequest(
        pathOf(LogService.method.produceStream),
        same,
        (bytes: Buffer) => fromBinary(ProduceResponseSchema, bytes),
        options,
      ),
    );
  }

  /** Sends an encoded request. What is unanswered is bounded by the queue of the producer. */
  write(request: Buffer): void {
    this.#call.write(request);
  }
}

/** A call that reads. */
export class ReadStream<I extends DescMessage, O extends DescMessage> extends Stream {
  constructor(
    connection: Connection,
    method: DescMethodServerStreaming<I, O>,
    request: Buffer,
    onMessage: OnMessage<MessageShape<O>>,
  ) {
    super();
    this.begin(connection, onMessage, "none", (options) =>
      connection.channel.makeServerStreamRequest(
        pathOf(method),
        same,
        (bytes: Buffer) => fromBinary(method.output, bytes),
        request,
        options,
      ),
    );
  }
}
