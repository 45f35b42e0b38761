/**
 * The generated code of `seriatim.v1`: its messages, and the descriptors of its services with every call.
 *
 * @module
 */

export * from "./generated/seriatim/v1/cluster_service_pb.js";
export * from "./generated/seriatim/v1/errors_pb.js";
export * from "./generated/seriatim/v1/log_service_pb.js";
