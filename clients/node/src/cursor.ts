// The cursor of a consumer: taking it over, and commits of its position.

import { LogService, type AcquireCursorRequestSchema } from "./generated/seriatim/v1/log_service_pb.js";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { bug, SeriatimError } from "./errors.js";
import { randomInstance } from "./options.js";
import { call, type Cluster, isOurs, logName, Route } from "./route.js";
import type { Scope } from "./scope.js";

/** A cursor that this process has taken over, until another one does. */
export class CursorSession {
  #committed: bigint;
  #committing: Promise<void> | undefined;

  private constructor(
    private readonly cluster: Cluster,
    private readonly log: string,
    readonly name: string,
    readonly logId: string,
    readonly epoch: bigint,
    /** Where the cursor was when it was taken over. */
    readonly start: bigint,
  ) {
    this.#committed = start;
  }

  /** Takes a cursor over. */
  static async acquire(
    cluster: Cluster,
    request: MessageInitShape<typeof AcquireCursorRequestSchema> & { log: string; cursor: string },
    scope: Scope,
  ): Promise<CursorSession> {
    const { cursor } = await call(
      cluster,
      LogService.method.acquireCursor,
      { ...request, instance: randomInstance() },
      { route: new Route(cluster), isRead: false, scope },
    );
    return new CursorSession(cluster, request.log, request.cursor, cursor!.logId, cursor!.epoch, cursor!.nextOffset);
  }

  /** Whether the cursor is at an earlier position. */
  isBefore(position: bigint): boolean {
    return this.#committed < position;
  }

  /** Commits what `position` returns once no other commit is in flight. Returns the position of the cursor. */
  async commit(position: () => bigint, scope: Scope): Promise<bigint> {
    while (this.#committing) await scope.race(this.#committing);
    const commit = this.#commit(position(), scope);
    const free = () => {
      this.#committing = undefined;
    };
    this.#committing = commit.then(free, free);
    return commit;
  }

  async #commit(position: bigint, scope: Scope): Promise<bigint> {
    // The cursor never moves back.
    const nextOffset = this.isBefore(position) ? position : this.#committed;
    const { log, logId, name: cursor, epoch } = this;
    try {
      await call(
        this.cluster,
        LogService.method.commitCursor,
        { log, logId, cursor, nextOffset, epoch },
        { route: new Route(this.cluster), isRead: false, scope },
      );
    } catch (error) {
      // The position is stored, and only the answer is lost.
      if (isOurs(error).outcome !== "done") throw error;
    }
    this.#committed = nextOffset;
    return nextOffset;
  }

  /** Commits for `autoCommitMs`. Returns an error after which no commit can succeed. */
  async tryCommit(position: () => bigint, scope: Scope): Promise<SeriatimError | undefined> {
    if (this.#committing || !this.isBefore(position())) return undefined;
    try {
      await this.commit(position, scope);
      return undefined;
    } catch (caught) {
      const error = caught instanceof SeriatimError ? caught : bug(`commit: ${String(caught)}`, "unknown", caught);
      this.cluster.logger.debug(`commit failed log=${logName(this.log)} cursor=${this.name} error=${error}`);
      return error.isRetryable || error.code === "DEADLINE_EXCEEDED" ? undefined : error;
    }
  }
}
