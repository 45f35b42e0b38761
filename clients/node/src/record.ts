// Records as applications see them, and their encoding in a ProduceRequest.

import type * as pb from "./generated/seriatim/v1/log_service_pb.js";
import { invalid } from "./errors.js";
import { microseconds } from "./options.js";

/** A name and a value that describe a record. Names may repeat. */
export interface Header {
  name: string;
  value: Buffer;
}

/** An entry of a log, as it was read. Its bytes share memory with other records: copy them to keep a few for long. */
export interface LogRecord {
  offset: bigint;
  value: Buffer;
  /** An absent key differs from an empty one. */
  key: Buffer | undefined;
  headers: Header[];
  /** A number that the producer chose. */
  type: number;
  /** When the event happened, by the producer's clock, in microseconds since 1970. */
  clientTimeUs: bigint | undefined;
  /** When the record was appended, in microseconds since 1970. */
  appendTimeUs: bigint;
  /** The Raft term in which it was appended. */
  term: bigint;
}

/** Bytes to send. A string is encoded in UTF-8. */
export type Bytes = string | Uint8Array;

/** A record to send. Do not change its bytes before it is acknowledged. */
export interface NewRecord {
  value?: Bytes;
  /** An absent key differs from an empty one. */
  key?: Bytes | undefined;
  headers?: Iterable<{ name: string; value: Bytes }>;
  /** A number that the producer chooses. */
  type?: number;
  /** When the event happened: a date, or microseconds since 1970. */
  clientTime?: Date | bigint | undefined;
}

const MAX_UINT32 = 2 ** 32 - 1;

// The tags of the fields: their number, and how they are encoded.
const BYTES = 2;
const TAG_RECORD_VALUE = (1 << 3) | BYTES;
const TAG_RECORD_TYPE = 4 << 3;
const TAG_RECORD_KEY = (6 << 3) | BYTES;
const TAG_RECORD_HEADERS = (7 << 3) | BYTES;
const TAG_RECORD_CLIENT_TIME = (8 << 3) | 1;
const TAG_HEADER_NAME = (1 << 3) | BYTES;
const TAG_HEADER_VALUE = (2 << 3) | BYTES;
const TAG_REQUEST_RECORDS = (3 << 3) | BYTES;

/** A record that was checked, with its sizes. It refers to the bytes of the application. */
export class OutgoingRecord {
  /** What the limits of a log count: the bytes of value, key, and names and values of headers. */
  readonly size: number;
  /** The size of what `writeTo` writes. */
  readonly encodedSize: number;
  readonly #value: Bytes;
  readonly #valueSize: number;
  readonly #key: Bytes | undefined;
  readonly #headers: readonly { name: string; value: Bytes }[];
  readonly #type: number;
  readonly #clientTimeUs: bigint | undefined;
  // Without the tag and the length in front.
  readonly #bodySize: number;

  constructor(record: NewRecord | Bytes) {
    const from: NewRecord = typeof record === "string" || record instanceof Uint8Array ? { value: record } : record;
    if (typeof from !== "object" || from === null) throw new TypeError("a record is a string, bytes or an object");
    this.#value = from.value ?? "";
    this.#key = from.key;
    this.#headers = from.headers ? [...from.headers] : NO_HEADERS;
    this.#type = checkedType(from.type ?? 0);
    this.#clientTimeUs = from.clientTime === undefined ? undefined : microseconds(from.clientTime);
    this.#valueSize = byteLength(this.#value, "value");
    let size = this.#valueSize;
    let body = size > 0 ? 1 + withLength(size) : 0;
    if (this.#type > 0) body += 1 + varintSize(this.#type);
    if (this.#key !== undefined) {
      const keySize = byteLength(this.#key, "key");
      size += keySize;
      body += 1 + withLength(keySize);
    }
    for (const header of this.#headers) {
      size += byteLength(header.name, "name of a header") + byteLength(header.value, "value of a header");
      body += 1 + withLength(headerSize(header));
    }
    if (this.#clientTimeUs !== undefined) body += 1 + 8;
    this.size = size;
    this.#bodySize = body;
    this.encodedSize = 1 + withLength(body);
  }

  /** Writes the record as a field of ProduceRequest, and returns the position after it. */
  writeTo(buffer: Buffer, at: number): number {
    buffer[at++] = TAG_REQUEST_RECORDS;
    at = writeVarint(buffer, at, this.#bodySize);
    if (this.#valueSize > 0) {
      at = writeBytes(buffer, at, TAG_RECORD_VALUE, this.#value, this.#valueSize);
    }
    if (this.#type > 0) {
      buffer[at++] = TAG_RECORD_TYPE;
      at = writeVarint(buffer, at, this.#type);
    }
    if (this.#key !== undefined) {
      at = writeBytes(buffer, at, TAG_RECORD_KEY, this.#key, byteLength(this.#key, "key"));
    }
    for (const header of this.#headers) {
      buffer[at++] = TAG_RECORD_HEADERS;
      at = writeVarint(buffer, at, headerSize(header));
      at = writeBytes(buffer, at, TAG_HEADER_NAME, header.name, Buffer.byteLength(header.name));
      at = writeBytes(buffer, at, TAG_HEADER_VALUE, header.value, Buffer.byteLength(header.value));
    }
    if (this.#clientTimeUs !== undefined) {
      buffer[at++] = TAG_RECORD_CLIENT_TIME;
      at = buffer.writeBigUInt64LE(this.#clientTimeUs, at);
    }
    return at;
  }
}

const NO_HEADERS: readonly never[] = [];

function headerSize(header: { name: string; value: Bytes }): number {
  return 1 + withLength(Buffer.byteLength(header.name)) + 1 + withLength(Buffer.byteLength(header.value));
}

function byteLength(bytes: Bytes, what: string): number {
  if (typeof bytes !== "string" && !(bytes instanceof Uint8Array)) {
    throw new TypeError(`the ${what} of a record is a string or bytes, and not ${typeof bytes}`);
  }
  return Buffer.byteLength(bytes);
}

function checkedType(type: number): number {
  if (!Number.isInteger(type) || type < 0 || type > MAX_UINT32) {
    throw invalid(`the type ${type} of a record is not an integer from 0 to ${MAX_UINT32}`);
  }
  return type;
}

function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest > 0x7f; rest = Math.floor(rest / 128)) size++;
  return size;
}

function withLength(size: number): number {
  return varintSize(size) + size;
}

function writeVarint(buffer: Buffer, at: number, value: number): number {
  while (value > 0x7f) {
    buffer[at++] = (value & 0x7f) | 0x80;
    value = Math.floor(value / 128);
  }
  buffer[at++] = value;
  return at;
}

function writeBytes(buffer: Buffer, at: number, tag: number, bytes: Bytes, size: number): number {
  buffer[at++] = tag;
  at = writeVarint(buffer, at, size);
  if (typeof bytes === "string") buffer.write(bytes, at);
  else buffer.set(bytes, at);
  return at + size;
}

/** Takes a record of a response over, without a copy of its bytes. */
export function recordOf(from: pb.Record): LogRecord {
  return {
    offset: from.offset,
    value: bufferOf(from.value),
    key: from.key && bufferOf(from.key),
    headers: from.headers.map(({ name, value }) => ({ name, value: bufferOf(value) })),
    type: from.type,
    clientTimeUs: from.clientTimeUs,
    appendTimeUs: from.appendTimeUs,
    term: from.term,
  };
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

// What a record takes in memory beyond its bytes, about.
const RECORD_OVERHEAD = 200;

/** Returns about what a record takes in memory. */
export function memoryOf(record: pb.Record): number {
  let size = record.value.length + (record.key?.length ?? 0) + RECORD_OVERHEAD;
  for (const header of record.headers) size += header.name.length + header.value.length + RECORD_OVERHEAD;
  return size;
}
