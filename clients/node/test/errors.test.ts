import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack, DurationSchema } from "@bufbuild/protobuf/wkt";
import { Metadata, status } from "@grpc/grpc-js";
import { closed, combine, errorOf } from "../src/errors.js";
import { ErrorInfoSchema, RetryInfoSchema } from "../src/generated/google/rpc/error_details_pb.js";
import { StatusSchema } from "../src/generated/google/rpc/status_pb.js";

function failed(
  code: status,
  metadata: Record<string, string>,
  { domain = "seriatim", statusCode = code as number } = {},
) {
  const info = create(ErrorInfoSchema, { domain, reason: "SOME_REASON", metadata });
  const delay = create(RetryInfoSchema, { retryDelay: create(DurationSchema, { seconds: 2n, nanos: 5_000_000 }) });
  const details = [anyPack(RetryInfoSchema, delay), anyPack(ErrorInfoSchema, info)];
  const trailer = new Metadata();
  const bytes = toBinary(StatusSchema, create(StatusSchema, { code: statusCode, details }));
  trailer.set("grpc-status-details-bin", Buffer.from(bytes));
  return errorOf({ code, details: "it says", metadata: trailer });
}

test("the details of a status are read", () => {
  const error = failed(status.UNAVAILABLE, { outcome: "none", retry: "same", log: "x" });
  const { kind, code, reason, outcome, retry, message, metadata, pauseMs, isBroken } = error;
  assert.deepEqual(
    { kind, code, reason, outcome, retry, message, metadata, pauseMs, isBroken },
    {
      kind: "unavailable",
      code: "UNAVAILABLE",
      reason: "SOME_REASON",
      outcome: "none",
      retry: "same",
      message: "it says",
      metadata: { log: "x" },
      pauseMs: 2005,
      isBroken: false,
    },
  );
  assert.equal(String(error), "SeriatimError: UNAVAILABLE (SOME_REASON): it says [outcome none, retry same]");
});

test("details of another domain, or of another status, count as missing", () => {
  for (const from of [{ domain: "elsewhere.example" }, { statusCode: status.ABORTED as number }]) {
    const error = failed(status.UNAVAILABLE, { outcome: "none", retry: "no" }, from);
    assert.deepEqual([error.reason, error.outcome, error.isBroken], ["", "unknown", true]);
  }
});

test("a reason that is also the name of a property of objects has no kind", () => {
  const trailer = create(ErrorInfoSchema, { domain: "seriatim", reason: "constructor", metadata: { outcome: "none" } });
  const metadata = new Metadata();
  const details = [anyPack(ErrorInfoSchema, trailer)];
  metadata.set(
    "grpc-status-details-bin",
    Buffer.from(toBinary(StatusSchema, create(StatusSchema, { code: 10, details }))),
  );
  assert.equal(errorOf({ code: status.ABORTED, details: "", metadata }).kind, "other");
});

test("an error shows its fields when it is printed", () => {
  const shown = inspect(failed(status.ABORTED, { outcome: "unknown", retry: "no" }));
  for (const part of [
    "SeriatimError: it says",
    "kind: 'outcome_unknown'",
    "reason: 'SOME_REASON'",
    "outcome: 'unknown'",
  ]) {
    assert.ok(shown.includes(part), shown);
  }
});

test("another outcome changes the kind, except that of a reason", () => {
  assert.equal(closed("producer").kind, "closed");
  assert.equal(closed("producer").withOutcome("unknown").kind, "outcome_unknown");
  assert.equal(closed("producer").withOutcome("unknown").withOutcome("none").kind, "closed");
  assert.equal(closed("producer").mayHaveBeenDone, false);
  assert.equal(closed("producer").withOutcome("unknown").mayHaveBeenDone, true);
});

test("the outcome of several attempts", () => {
  assert.equal(combine("none", "none"), "none");
  assert.equal(combine("unknown", "none"), "unknown");
  assert.equal(combine("none", "unknown"), "unknown");
  assert.equal(combine("unknown", "done"), "done");
  assert.equal(combine("done", "unknown"), "done");
});
