// The checks and the defaults of what applications pass.

import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { invalid } from "./errors.js";

const MAX_UINT64 = 2n ** 64n - 1n;

/** Checks an option that is a number above 0. */
export function positive(value: number, name: string): number {
  if (typeof value !== "number" || !(value > 0)) throw invalid(`the option ${name} is ${value}, and not above 0`);
  return value;
}

/** Checks an option that is a string, for example the name of a log. */
export function text(value: string, name: string): string {
  if (typeof value !== "string") throw invalid(`the option ${name} is of type ${typeof value}, and not a string`);
  return value;
}

/** Converts a time of the application, which is a date, or microseconds since 1970. */
export function microseconds(time: Date | bigint): bigint {
  const us = typeof time === "bigint" ? time : BigInt(Math.trunc(checkedDate(time).getTime())) * 1000n;
  if (us < 0n || us > MAX_UINT64) throw invalid(`the time of ${us} microseconds is before 1970, or exceeds 64 bits`);
  return us;
}

function checkedDate(time: Date): Date {
  if (!(time instanceof Date)) throw new TypeError("a time is a Date, or microseconds as a bigint");
  if (Number.isNaN(time.getTime())) throw invalid("the time is an invalid Date");
  return time;
}

/** Converts an offset or a count of the application. */
export function uint64(value: bigint | number, what: string): bigint {
  if (typeof value === "number" && !Number.isSafeInteger(value)) {
    throw invalid(`the ${what} ${value} is not a safe integer: use a bigint`);
  }
  const exact = BigInt(value);
  if (exact < 0n || exact > MAX_UINT64) throw invalid(`the ${what} ${exact} is negative, or exceeds 64 bits`);
  return exact;
}

/** Returns a number of 64 bits that is not 0, as requests contain it. */
export function randomInstance(): string {
  return (randomBytes(8).readBigUInt64LE() | 1n).toString();
}

/** Returns what people should know about this process. */
export function defaultOwner(): string {
  return `${hostname()} process ${process.pid}`.slice(0, 255);
}
