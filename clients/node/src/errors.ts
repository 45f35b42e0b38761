// Errors, and what they say about the request. Written against proto/seriatim/v1/errors.proto.
//
// What to do after an error is decided by its outcome and its retry. The reason only chooses the kind.

import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { status as grpcStatus, type StatusObject } from "@grpc/grpc-js";
import { ErrorInfoSchema, RetryInfoSchema } from "./generated/google/rpc/error_details_pb.js";
import { StatusSchema } from "./generated/google/rpc/status_pb.js";

/** Tells errors apart. */
export type Kind =
  | "not_found"
  /** An expected offset, revision, epoch, log id or cluster is not the present one. */
  | "mismatch"
  /** Another process has taken the producer or the cursor over. */
  | "fenced"
  | "too_large"
  /** The record was trimmed. `metadata.first_offset` is the first one that exists. */
  | "trimmed"
  | "past_end"
  | "not_allowed"
  | "unavailable"
  | "exhausted"
  | "data_loss"
  /** The request may have been done, or may be done later. */
  | "outcome_unknown"
  | "invalid"
  | "timeout"
  /** An `AbortSignal` of the caller has ended the operation. */
  | "cancelled"
  /** The client, the producer or the consumer was closed. */
  | "closed"
  | "other";

/** What became of a request: `none` means that nothing was done, and nothing will be. */
export type Outcome = "none" | "done" | "unknown";

/**
 * Whether the same request can succeed when it is sent again: to the same node, elsewhere, or after someone has
 * acted.
 */
export type Retry = "no" | "same" | "elsewhere" | "later";

/** gRPC's name of a status code. */
export type Code = keyof typeof grpcStatus;

const KIND_OF_REASON: Readonly<Record<string, Kind>> = {
  NO_SUCH_LOG: "not_found",
  LOG_DELETED: "not_found",
  NO_SUCH_PRODUCER: "not_found",
  NO_SUCH_CURSOR: "not_found",
  EXPECTED_OFFSET_MISMATCH: "mismatch",
  REVISION_MISMATCH: "mismatch",
  EPOCH_MISMATCH: "mismatch",
  LOG_ID_MISMATCH: "mismatch",
  CURSOR_BEHIND: "mismatch",
  CLUSTER_CHANGED: "mismatch",
  PRODUCER_FENCED: "fenced",
  CURSOR_FENCED: "fenced",
  RECORD_TOO_LARGE: "too_large",
  REQUEST_TOO_LARGE: "too_large",
  OFFSET_TRIMMED: "trimmed",
  OFFSET_PAST_END: "past_end",
  RECORD_DAMAGED: "data_loss",
};

const KIND_OF_CODE: Readonly<Partial<Record<Code, Kind>>> = {
  PERMISSION_DENIED: "not_allowed",
  UNAUTHENTICATED: "not_allowed",
  UNAVAILABLE: "unavailable",
  RESOURCE_EXHAUSTED: "exhausted",
  INVALID_ARGUMENT: "invalid",
  UNIMPLEMENTED: "invalid",
  DEADLINE_EXCEEDED: "timeout",
  CANCELLED: "cancelled",
  NOT_FOUND: "not_found",
  OUT_OF_RANGE: "past_end",
  DATA_LOSS: "data_loss",
};

/** What an error is made of. */
export interface ErrorFields {
  code: Code;
  message: string;
  reason?: string;
  metadata?: Readonly<Record<string, string>>;
  outcome?: Outcome;
  retry?: Retry;
  /** The time that RetryInfo demands. */
  pauseMs?: number;
  /** The connection broke, or an attempt had no answer in time: the next node may answer. */
  isBroken?: boolean;
  /** The client, the producer or the consumer was closed. */
  isClosed?: boolean;
  cause?: unknown;
}

/** The class of all errors of this library, except a `TypeError` for an argument of a wrong type. */
export class SeriatimError extends Error {
  static {
    this.prototype.name = "SeriatimError";
  }

  readonly kind: Kind;
  /** gRPC's name of the status code, such as `UNAVAILABLE`. */
  readonly code: Code;
  /** The reason of errors.proto, or an empty string. */
  readonly reason: string;
  /** What became of the request, over all attempts. */
  readonly outcome: Outcome;
  /** Whether the same request can succeed when it is sent again. The library has done so, within its time. */
  readonly retry: Retry;
  /** The keys that errors.proto lists with the reason. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly #fields: ErrorFields;

  /** For this library, and for tests of applications. */
  constructor(fields: ErrorFields) {
    super(fields.message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.#fields = fields;
    this.code = fields.code;
    this.reason = fields.reason ?? "";
    this.outcome = fields.outcome ?? "none";
    this.retry = fields.retry ?? "no";
    this.metadata = fields.metadata ?? {};
    this.kind = kindOf(this.reason, this.outcome, this.code, fields.isClosed ?? false);
  }

  /** Whether the request may have had an effect, or may have one later. */
  get mayHaveBeenDone(): boolean {
    return this.outcome !== "none";
  }

  /** Returns `SeriatimError: CODE (REASON): message [outcome, retry]`. */
  override toString(): string {
    const reason = this.reason && ` (${this.reason})`;
    return `${this.name}: ${this.code}${reason}: ${this.message} [outcome ${this.outcome}, retry ${this.retry}]`;
  }

  /** @internal */
  get isBroken(): boolean {
    return this.#fields.isBroken ?? false;
  }

  /** @internal */
  get isClosed(): boolean {
    return this.#fields.isClosed ?? false;
  }

  /** @internal */
  get isRetryable(): boolean {
    return this.isBroken || this.retry !== "no";
  }

  /** @internal */
  get pauseMs(): number {
    return this.#fields.pauseMs ?? 0;
  }

  /** Returns the same error with another outcome, and the kind that follows from it. @internal */
  withOutcome(outcome: Outcome): SeriatimError {
    return outcome === this.outcome ? this : new SeriatimError({ ...this.#fields, outcome });
  }

  /** Returns the same error, with the last one of the attempts before it. @internal */
  after(last: SeriatimError | undefined): SeriatimError {
    if (!last) return this;
    const message = `${this.message}; the last error was ${last.toString()}`;
    return new SeriatimError({ ...this.#fields, message, cause: this.#fields.cause ?? last });
  }

  /** Returns a number of the metadata. @internal */
  number(key: string): bigint | undefined {
    const text = this.metadata[key];
    return text !== undefined && /^\d+$/.test(text) ? BigInt(text) : undefined;
  }
}

function kindOf(reason: string, outcome: Outcome, code: Code, isClosed: boolean): Kind {
  if (Object.hasOwn(KIND_OF_REASON, reason)) return KIND_OF_REASON[reason]!;
  if (outcome === "unknown") return "outcome_unknown";
  if (isClosed) return "closed";
  return KIND_OF_CODE[code] ?? "other";
}

/** Reads the status of a call. */
export function errorOf(failed: Pick<StatusObject, "code" | "details" | "metadata">): SeriatimError {
  const code = (grpcStatus[failed.code] ?? "UNKNOWN") as Code;
  const { info, pauseMs } = detailsOf(failed);
  const message = failed.details ?? "";
  if (info) {
    const { outcome, retry, ...metadata } = info.metadata;
    return new SeriatimError({
      code,
      message,
      reason: info.reason,
      metadata,
      // A value that is not known here counts as the one that promises less.
      outcome: outcome === "none" || outcome === "done" ? outcome : "unknown",
      retry: retry === "same" || retry === "elsewhere" || retry === "later" ? retry : "no",
      pauseMs,
    });
  }
  switch (code) {
    case "UNAUTHENTICATED":
    case "PERMISSION_DENIED":
    case "UNIMPLEMENTED":
      return new SeriatimError({ code, message, outcome: "none", pauseMs });
    case "UNAVAILABLE":
    case "DEADLINE_EXCEEDED":
      return new SeriatimError({ code, message, outcome: "unknown", retry: "elsewhere", pauseMs, isBroken: true });
    case "UNKNOWN":
    case "INTERNAL":
    case "CANCELLED":
      return broken(`${code}: ${message}`, "unknown");
    default:
      return new SeriatimError({ code, message, outcome: "unknown", pauseMs });
  }
}

function detailsOf(failed: Pick<StatusObject, "code" | "metadata">) {
  let info;
  let pauseMs = 0;
  const [trailer] = failed.metadata?.get("grpc-status-details-bin") ?? [];
  if (Buffer.isBuffer(trailer)) {
    try {
      const status = fromBinary(StatusSchema, trailer);
      // gRPC has replaced the status: the details belong to another one.
      const details = status.code === (failed.code as number) ? status.details : [];
      for (const detail of details) {
        const found = anyUnpack(detail, ErrorInfoSchema);
        if (found?.domain === "seriatim") info = found;
        const delay = anyUnpack(detail, RetryInfoSchema)?.retryDelay;
        if (delay) pauseMs = Number(delay.seconds) * 1000 + delay.nanos / 1e6;
      }
    } catch {
      // Malformed details count as missing.
      return { info: undefined, pauseMs: 0 };
    }
  }
  return { info, pauseMs };
}

/** The error of a connection that is of no use any more. */
export function broken(message: string, outcome: Outcome): SeriatimError {
  return new SeriatimError({ code: "UNAVAILABLE", message, outcome, retry: "elsewhere", isBroken: true });
}

/** The error of an attempt, or of a stream, that was silent for too long. */
export function noAnswer(what: string, afterMs: number, outcome: Outcome): SeriatimError {
  const message = `${what} within ${afterMs} ms`;
  return new SeriatimError({ code: "DEADLINE_EXCEEDED", message, outcome, retry: "elsewhere", isBroken: true });
}

export function closed(what: string): SeriatimError {
  return new SeriatimError({ code: "CANCELLED", message: `the ${what} is closed`, isClosed: true });
}

export function timedOut(what: string, limitMs: number): SeriatimError {
  return new SeriatimError({ code: "DEADLINE_EXCEEDED", message: `${what} within ${limitMs} ms` });
}

/** The error of an operation that the signal of its caller has ended. */
export function aborted(signal: AbortSignal): SeriatimError {
  const cause: unknown = signal.reason;
  const isTimeout = cause instanceof Error && cause.name === "TimeoutError";
  const message = `the signal of the caller has ended the operation: ${String(cause)}`;
  return new SeriatimError({ code: isTimeout ? "DEADLINE_EXCEEDED" : "CANCELLED", message, cause });
}

export function invalid(message: string, cause?: unknown): SeriatimError {
  return new SeriatimError({ code: "INVALID_ARGUMENT", message, cause });
}

/** The error of a server, or of this library, that does what it must not. */
export function bug(message: string, outcome: Outcome = "none", cause?: unknown): SeriatimError {
  return new SeriatimError({ code: "INTERNAL", message: `${message}: report this as a bug`, outcome, cause });
}

/**
 * The outcome of several attempts of the same request.
 *
 * After an attempt with an unknown outcome it stays unknown, until the server answers the request itself. A refusal
 * of a later attempt proves nothing about an earlier one.
 */
export function combine(before: Outcome, attempt: Outcome): Outcome {
  if (before === "done" || attempt === "done") return "done";
  return before === "unknown" || attempt === "unknown" ? "unknown" : "none";
}
