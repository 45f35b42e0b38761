package io.seriatim.client;

import io.grpc.Status;
import io.seriatim.client.SeriatimException.Kind;
import io.seriatim.client.SeriatimException.Retry;
import io.seriatim.v1.AcquireCursorRequest;
import io.seriatim.v1.CommitCursorRequest;
import io.seriatim.v1.Cursor;
import io.seriatim.v1.LogServiceGrpc;
import io.seriatim.v1.Start;
import java.time.Duration;
import java.util.concurrent.Executor;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Consumer;
import java.util.function.LongSupplier;

/** The cursor of a consumer: it is acquired once, and then positions are committed, one at a time. */
final class CursorSession {
    private final Calls calls;
    private final String log;
    private final String name;
    /** Fails if the consumer has ended, so that a commit is not repeated for ever. */
    private final Runnable check;
    /** Held during a commit. */
    private final ReentrantLock committing = new ReentrantLock();

    private Cursor acquired;
    private long committed;
    private volatile ScheduledFuture<?> timer;

    CursorSession(Calls calls, String log, String name, Runnable check) {
        this.calls = calls;
        this.log = log;
        this.name = name;
        this.check = check;
    }

    Cursor acquire(Start start, long offset, long timeUs, Route route, long deadline) throws InterruptedException {
        var request = AcquireCursorRequest.newBuilder()
                .setLog(log)
                .setCursor(name)
                .setInstance(Calls.instance())
                .setStart(start)
                .setOffset(offset)
                .setStartTimeUs(timeUs)
                .setOwner(calls.cluster.settings.owner())
                .build();
        acquired = calls.retry(LogServiceGrpc.getAcquireCursorMethod(), request, route, deadline).getCursor();
        committed = acquired.getNextOffset();
        return acquired;
    }

    String name() {
        return name;
    }

    long epoch() {
        return acquired.getEpoch();
    }

    /** Stores a position, which is asked for when no other commit is in flight, and returns it. */
    long commit(LongSupplier position) throws InterruptedException {
        committing.lockInterruptibly();
        try {
            long next = position.getAsLong();
            send(next, calls.cluster.settings.operation(), check);
            return next;
        } finally {
            committing.unlock();
        }
    }

    private void send(long next, Duration limit, Runnable check) throws InterruptedException {
        var request = CommitCursorRequest.newBuilder()
                .setLog(log)
                .setLogId(acquired.getLogId())
                .setCursor(name)
                .setEpoch(acquired.getEpoch())
                .setNextOffset(next)
                .build();
        long deadline = System.nanoTime() + limit.toNanos();
        var route = new Route(calls.cluster, false);
        calls.retry(LogServiceGrpc.getCommitCursorMethod(), request, route, deadline, check);
        committed = next;
    }

    /** Commits by itself. {@code onFailure} gets an error that can't be retried, which ends that. */
    void startAutoCommit(
            ScheduledExecutorService scheduler,
            Executor executor,
            Duration interval,
            LongSupplier position,
            Consumer<SeriatimException> onFailure) {
        Runnable commit = () -> {
            try {
                commitIfChanged(position, calls.cluster.settings.operation(), check);
            } catch (SeriatimException error) {
                warn(error);
                if (error.retry() == Retry.NO && error.code() != Status.Code.DEADLINE_EXCEEDED) {
                    stopAutoCommit();
                    onFailure.accept(error);
                }
            }
        };
        Runnable hand = () -> {
            try {
                executor.execute(commit);
            } catch (RejectedExecutionException closed) {
                stopAutoCommit();
            }
        };
        long nanos = interval.toNanos();
        timer = scheduler.scheduleWithFixedDelay(hand, nanos, nanos, TimeUnit.NANOSECONDS);
    }

    private void commitIfChanged(LongSupplier position, Duration limit, Runnable check) {
        if (!committing.tryLock()) {
            return; // A commit is in flight.
        }
        try {
            long next = position.getAsLong();
            // The application may have committed more.
            if (next > committed) {
                send(next, limit, check);
            }
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        } finally {
            committing.unlock();
        }
    }

    void stopAutoCommit() {
        if (timer != null) {
            timer.cancel(false);
        }
    }

    /** Commits once more, if the consumer commits by itself. The application waits, so it has the time of one attempt. */
    void close(LongSupplier position) {
        if (timer == null) {
            return;
        }
        stopAutoCommit();
        Duration limit = calls.cluster.settings.attempt();
        try {
            // One may be in flight.
            if (committing.tryLock(limit.toNanos(), TimeUnit.NANOSECONDS)) {
                try {
                    commitIfChanged(position, limit, calls.cluster::check);
                } finally {
                    committing.unlock();
                }
            }
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        } catch (SeriatimException error) {
            warn(error);
        }
    }

    private void warn(SeriatimException error) {
        if (error.kind() != Kind.CLOSED) {
            String message = "commit failed log={0} cursor={1} error={2}";
            Cluster.LOGGER.log(System.Logger.Level.WARNING, message, log, name, error);
        }
    }
}
