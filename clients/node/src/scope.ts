// When an operation ends early: a time-out, the signal of the caller, or the end of the object that it uses.

import { aborted, type SeriatimError, timedOut } from "./errors.js";

/** Limits a call of an application. */
export interface CallOptions {
  /** The longest time that the call may take. */
  timeoutMs?: number | undefined;
  /** Ends the call. */
  signal?: AbortSignal | undefined;
}

// Node's timers fire at once if their time does not fit into 31 bits.
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Returns a time that never goes back, in milliseconds. */
export function now(): number {
  return performance.now();
}

export function timer(run: () => void, ms: number): NodeJS.Timeout {
  return setTimeout(run, Math.max(0, Math.min(ms, MAX_TIMER_MS)));
}

/** Ends once, with an error. Objects that last long, and operations, have one. */
export class Scope {
  #error: SeriatimError | undefined;
  #listeners = new Set<(error: SeriatimError) => void>();
  #cleanups: (() => void)[] = [];

  /** A scope that ends with its parents. Call `release` once it is not needed. */
  static within(...parents: Scope[]): Scope {
    const scope = new Scope();
    for (const parent of parents) scope.#cleanups.push(parent.onEnd((error) => scope.end(error)));
    return scope;
  }

  /** Limits the scope as the caller demands. `what` is the message of the time-out. */
  limit({ timeoutMs, signal }: CallOptions, what: string): this {
    if (timeoutMs !== undefined) this.limitTime(timeoutMs, () => timedOut(what, timeoutMs));
    if (signal) this.#cleanups.push(onAbort(signal, () => this.end(aborted(signal))));
    return this;
  }

  limitTime(ms: number, error: () => SeriatimError): this {
    const handle = timer(() => this.end(error()), ms);
    this.#cleanups.push(() => clearTimeout(handle));
    return this;
  }

  /** Why the scope has ended. */
  get error(): SeriatimError | undefined {
    return this.#error;
  }

  end(error: SeriatimError): void {
    if (this.#error) return;
    this.#error = error;
    const listeners = [...this.#listeners];
    this.release();
    for (const listener of listeners) listener(error);
  }

  /** Calls `listener` when the scope ends, or at once if it has. Returns a function that takes that back. */
  onEnd(listener: (error: SeriatimError) => void): () => void {
    if (this.#error) {
      listener(this.#error);
      return () => {};
    }
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Forgets timers, signals and listeners. The scope does not end any more by itself. */
  release(): void {
    for (const cleanup of this.#cleanups) cleanup();
    this.#cleanups = [];
    this.#listeners.clear();
  }

  /** Waits for a promise, and rejects with the error of the scope if that ends first. */
  async race<T>(promise: Promise<T>): Promise<T> {
    let leave = () => {};
    try {
      return await Promise.race([
        promise,
        new Promise<never>((_, reject) => {
          leave = this.onEnd(reject);
        }),
      ]);
    } finally {
      leave();
    }
  }

  /** Waits for a time. Rejects with the error of the scope if that ends first. */
  async sleep(ms: number): Promise<void> {
    if (ms <= 0 && !this.#error) return;
    let handle: NodeJS.Timeout | undefined;
    try {
      await this.race(new Promise<void>((resolve) => (handle = timer(resolve, ms))));
    } finally {
      clearTimeout(handle);
    }
  }
}

// One listener of each signal, however many operations share it: Node warns of more than ten.
const abortListeners = new WeakMap<AbortSignal, Set<() => void>>();

function onAbort(signal: AbortSignal, listener: () => void): () => void {
  if (signal.aborted) {
    listener();
    return () => {};
  }
  let listeners = abortListeners.get(signal);
  if (!listeners) {
    const created = new Set<() => void>();
    listeners = created;
    abortListeners.set(signal, created);
    const run = () => {
      for (const each of [...created]) each();
    };
    signal.addEventListener("abort", run, { once: true });
  }
  const registered = () => listener();
  listeners.add(registered);
  return () => listeners.delete(registered);
}
