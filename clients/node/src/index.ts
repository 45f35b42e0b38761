/**
 * The client library of Seriatim, a replicated commit log.
 *
 * Start with `Client`: it connects to a cluster, and makes producers and consumers.
 *
 * @module
 */

export { Client, type ClientOptions, type Cursor, type Pem, type Tls } from "./client.js";
export { Consumer, type ConsumerOptions, type Start } from "./consumer.js";
export { type Code, type ErrorFields, type Kind, type Outcome, type Retry, SeriatimError } from "./errors.js";
export type { Logger } from "./nodes.js";
export { Producer, type ProducerOptions, type Registration } from "./producer.js";
export type { Ack } from "./queue.js";
export type { Bytes, Header, LogRecord, NewRecord } from "./record.js";
export type { CallOptions } from "./scope.js";
