package io.seriatim.client;

import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.Status;
import io.seriatim.client.SeriatimException.Kind;
import io.seriatim.client.SeriatimException.Outcome;
import io.seriatim.client.SeriatimException.Retry;
import io.seriatim.v1.GetLogRequest;
import io.seriatim.v1.InitProducerRequest;
import io.seriatim.v1.LogServiceGrpc;
import io.seriatim.v1.ProduceRequest;
import io.seriatim.v1.ProduceResponse;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * What a producer does. One thread sends all requests, and handles answers and failures. Nothing here refers to the
 * {@link Producer} of the application, so that the garbage collector notices when it is dropped.
 */
final class ProducerCore implements Cluster.Member {
    /** A record counts with at least this size in the buffer, because it needs memory even if it is empty. */
    private static final int MIN_BUFFERED_BYTES = 128;

    /** How long close waits for callbacks once everything is answered. */
    private static final Duration CALLBACKS = Duration.ofSeconds(1);

    /** The least time between two readings of the limits of the log, before a record is refused by them. */
    private static final long LIMITS_NANOS = TimeUnit.SECONDS.toNanos(1);

    /** What the application chose. */
    record Options(String log, String name, int batchRecords, int batchBytes, long bufferBytes, Duration delivery) {}

    private final Calls calls;
    private final Options options;
    private final Route route;
    private final Completions completions;
    private final Thread thread;

    private final ReentrantLock lock = new ReentrantLock();
    /** For the thread: there are records or answers, or the end. */
    private final Condition work = lock.newCondition();
    /** For callers: records are answered, or the end. */
    private final Condition progress = lock.newCondition();

    /** Held while a caller reads the limits again. */
    private final ReentrantLock readingLimits = new ReentrantLock();
    /** When that ended last, as {@link System#nanoTime}. Guarded by that lock. */
    private long limitsRead = System.nanoTime() - LIMITS_NANOS;

    // Set by `register`, and again only by the thread.
    private volatile io.seriatim.v1.Producer registered;
    private String leaderQuery;

    // Guarded by the lock.
    private Requests requests;
    private int maxRecordBytes;
    private Stream stream;
    private SeriatimException lastFailure;
    private long bufferedBytes;
    private long sent;
    private boolean isClosing;
    /** Why the thread has to end at once. */
    private SeriatimException abortReason;
    /** Why no more records are accepted. */
    private SeriatimException failure;
    private boolean hasEnded;

    ProducerCore(Calls calls, Executor callbacks, Options options) {
        this.calls = calls;
        this.options = options;
        route = new Route(calls.cluster, true);
        completions = new Completions(callbacks);
        // GetServers needs the name of a log to say which node leads it.
        leaderQuery = options.log.isEmpty() ? "default" : options.log;
        thread = new Thread(this::run, "seriatim-producer-" + leaderQuery);
        thread.setDaemon(true);
    }

    /** Registers the producer, and starts its thread. */
    io.seriatim.v1.Producer start() throws InterruptedException {
        register(System.nanoTime() + calls.cluster.settings.operation().toNanos());
        calls.cluster.add(this);
        thread.start();
        return registered;
    }

    private void register(long deadline) throws InterruptedException {
        var request = InitProducerRequest.newBuilder()
                .setLog(options.log)
                .setProducer(options.name)
                .setInstance(Calls.instance())
                .setOwner(calls.cluster.settings.owner());
        if (registered != null) {
            request.setLogId(registered.getLogId());
        }
        var answer = calls.retry(LogServiceGrpc.getInitProducerMethod(), request.build(), route, deadline);
        registered = answer.getProducer();
        var limits = limits(route, deadline);
        lock.lock();
        try {
            maxRecordBytes = limits.getMaxRecordBytes();
            if (requests == null) {
                requests = new Requests(options.batchRecords, Math.min(options.batchBytes, limits.getMaxRequestBytes()));
            }
            var identity = new Requests.Identity(
                    options.log, registered.getLogId(), registered.getProducerId(), registered.getEpoch());
            requests.register(identity, registered.getLastSequence());
        } finally {
            lock.unlock();
        }
    }

    private io.seriatim.v1.LogConfig limits(Route route, long deadline) throws InterruptedException {
        var request = GetLogRequest.newBuilder().setLog(options.log).setLogId(registered.getLogId()).build();
        return calls.read(LogServiceGrpc.getGetLogMethod(), request, route, deadline).getLog().getConfig();
    }

    // --- Callers ---------------------------------------------------------------

    /** Waits for space in the buffer until {@code deadline}. */
    CompletableFuture<Ack> send(Record record, long deadline) {
        long bytes = record.bytes();
        long buffered = Math.max(bytes, MIN_BUFFERED_BYTES);
        var ack = new CompletableFuture<Ack>();
        boolean isRead = false;
        lock.lock();
        try {
            while (true) {
                checkOpen();
                if (bytes > maxRecordBytes && !isRead) {
                    isRead = true;
                    lock.unlock();
                    try {
                        readLimits();
                    } finally {
                        lock.lock();
                    }
                    continue;
                }
                if (bytes > maxRecordBytes) {
                    throw SeriatimException.tooLarge(leaderQuery, bytes, maxRecordBytes);
                }
                // A callback must not wait for space: what is answered frees it after the callback.
                boolean fits = bufferedBytes == 0 || bufferedBytes + buffered <= options.bufferBytes;
                if (fits || completions.isCurrentThread()) {
                    break;
                }
                if (!awaitUntil(progress, deadline)) {
                    throw SeriatimException.timeout("the buffer of the producer is full", null);
                }
            }
            long delivery = System.nanoTime() + options.delivery.toNanos();
            requests.add(new Requests.Entry(++sent, record, bytes, ack, delivery));
            bufferedBytes += buffered;
            work.signal();
        } catch (SeriatimException error) {
            ack.completeExceptionally(error);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            ack.completeExceptionally(SeriatimException.interrupted(interrupted));
        } finally {
            lock.unlock();
        }
        return ack;
    }

    /** An admin may have raised the limits. If no node answers in the time of an attempt, those that are known apply. */
    private void readLimits() throws InterruptedException {
        readingLimits.lockInterruptibly();
        try {
            if (System.nanoTime() - limitsRead < LIMITS_NANOS) {
                return;
            }
            try {
                long deadline = System.nanoTime() + calls.cluster.settings.attempt().toNanos();
                int max = limits(new Route(calls.cluster, true), deadline).getMaxRecordBytes();
                lock.lock();
                try {
                    maxRecordBytes = max;
                } finally {
                    lock.unlock();
                }
            } catch (SeriatimException error) {
                Cluster.LOGGER.log(System.Logger.Level.DEBUG, "limits not read log={0} error={1}", leaderQuery, error);
            }
            limitsRead = System.nanoTime();
        } finally {
            readingLimits.unlock();
        }
    }

    private void checkOpen() {
        if (failure != null) {
            throw failure.withOutcome(Outcome.NONE);
        }
        if (isClosing) {
            throw SeriatimException.closed("the producer");
        }
    }

    void flush(long deadline) {
        lock.lock();
        try {
            long last = sent;
            while (requests.oldest() != null && requests.oldest().number() <= last) {
                if (!awaitUntil(progress, deadline)) {
                    throw SeriatimException.timeout("records are not acknowledged yet", null);
                }
            }
            awaitCompletions(deadline);
            if (failure != null) {
                throw failure.withOutcome(Outcome.NONE);
            }
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw SeriatimException.interrupted(interrupted);
        } finally {
            lock.unlock();
        }
    }

    /** Waits until the futures of everything that is answered are completed. A callback can't wait for that. */
    private void awaitCompletions(long deadline) throws InterruptedException {
        if (completions.isCurrentThread()) {
            return;
        }
        var isReached = new AtomicBoolean();
        completions.execute(() -> {
            lock.lock();
            try {
                isReached.set(true);
                progress.signalAll();
            } finally {
                lock.unlock();
            }
        });
        while (!isReached.get()) {
            if (!awaitUntil(progress, deadline)) {
                throw SeriatimException.timeout("a callback of a record has not returned", null);
            }
        }
    }

    /** Accepts no more records. */
    void shutdown() {
        lock.lock();
        try {
            isClosing = true;
            work.signal();
            progress.signalAll();
        } finally {
            lock.unlock();
        }
    }

    /** Waits for acknowledgements until {@code deadline}. Then, or if the thread is interrupted, the rest fails. */
    void close(long deadline) {
        lock.lock();
        try {
            shutdown();
            while (!hasEnded && awaitUntil(progress, deadline)) {
                // Until all records are answered.
            }
            abort(SeriatimException.closed("the producer"));
            awaitEnd();
            awaitCompletions(Math.max(deadline, System.nanoTime() + CALLBACKS.toNanos()));
        } catch (InterruptedException interrupted) {
            abort(SeriatimException.closed("the producer"));
            awaitEnd();
            Thread.currentThread().interrupt();
        } catch (SeriatimException blocked) {
            Cluster.LOGGER.log(System.Logger.Level.WARNING, blocked.getMessage());
        } finally {
            lock.unlock();
        }
    }

    @Override
    public void awaitEnd() {
        lock.lock();
        try {
            while (!hasEnded) {
                progress.awaitUninterruptibly();
            }
        } finally {
            lock.unlock();
        }
    }

    @Override
    public void abort(SeriatimException why) {
        lock.lock();
        try {
            if (abortReason == null && !hasEnded) {
                abortReason = why;
                thread.interrupt();
            }
        } finally {
            lock.unlock();
        }
    }

    // --- The thread ---------------------------------------------------------------

    private void run() {
        SeriatimException why;
        try {
            while (sendRequests()) {
                // Until the end.
            }
            why = SeriatimException.closed("the producer");
        } catch (SeriatimException error) {
            why = error;
        } catch (InterruptedException interrupted) {
            why = abortReason;
        } catch (RuntimeException | Error bug) {
            why = SeriatimException.of(Kind.OTHER, Status.Code.INTERNAL, Outcome.NONE, "bug of the client: " + bug, bug);
        }
        end(why);
    }

    /** Does what can be done, and waits for more. Returns false after a flush at the end. */
    private boolean sendRequests() throws InterruptedException {
        Requests.Request next = null;
        Stream open;
        long deadline = 0;
        SeriatimException failed = null;
        lock.lock();
        try {
            if (abortReason != null) {
                throw new InterruptedException();
            }
            takeAnswers();
            open = stream;
            failed = open == null ? null : open.failure(requests.onStream());
            if (failed == null && !requests.hasNext()) {
                if (isClosing && requests.isEmpty()) {
                    return false;
                }
                awaitWork(Long.MAX_VALUE);
                return true;
            }
            if (failed == null) {
                checkDelivery();
                deadline = requests.oldest().deadline();
            }
            if (failed == null && open != null) {
                next = requests.next();
                open.sends(requests.onStream());
            }
        } finally {
            lock.unlock();
        }
        try {
            if (failed != null) {
                throw failed;
            }
            if (open == null) {
                openStream(deadline);
            } else {
                open.attempt.send(next.message());
            }
        } catch (SeriatimException error) {
            recover(error);
        }
        return true;
    }

    private void openStream(long deadline) throws InterruptedException {
        Node node = route.node();
        calls.verify(node, leaderQuery, route, calls.limit(deadline));
        while (route.node() != node) {
            // The leader is another node.
            node = route.node();
            calls.verify(node, null, route, calls.limit(deadline));
        }
        var opened = new Stream(calls.open(node, LogServiceGrpc.getProduceStreamMethod()));
        lock.lock();
        try {
            stream = opened;
        } finally {
            lock.unlock();
        }
        opened.start();
    }

    private void takeAnswers() {
        while (stream != null && requests.onStream() > 0 && !stream.responses.isEmpty()) {
            var response = stream.responses.remove();
            int count = requests.first().entries.size();
            if (response.getCount() != count) {
                String message = "a request of %d records has an answer for %d".formatted(count, response.getCount());
                throw SeriatimException.of(Kind.OTHER, Status.Code.INTERNAL, Outcome.UNKNOWN, message, null);
            }
            stream.answered();
            route.succeeded();
            lastFailure = null;
            complete(requests.answered(), response.getOffset(), response.getDuplicate());
        }
    }

    /** Waits for records, answers or the end, until the oldest record or the oldest request is too old. */
    private void awaitWork(long until) throws InterruptedException {
        if (abortReason != null) {
            throw new InterruptedException();
        }
        var oldest = requests.oldest();
        long now = System.nanoTime();
        long left = until == Long.MAX_VALUE ? until : until - now;
        left = oldest == null ? left : Math.min(left, oldest.deadline() - now);
        left = stream == null || requests.onStream() == 0 ? left : Math.min(left, stream.deadline() - now);
        if (left > 0) {
            work.awaitNanos(left);
        }
        checkDelivery();
    }

    private void checkDelivery() {
        var oldest = requests.oldest();
        if (oldest != null && oldest.deadline() <= System.nanoTime()) {
            String message = "the record was not acknowledged within " + options.delivery.toMillis() + " ms";
            throw SeriatimException.timeout(message, lastFailure);
        }
    }

    /** Handles the failure of the stream, or of opening it. Throws if the producer fails. */
    private void recover(SeriatimException error) throws InterruptedException {
        lock.lock();
        try {
            lastFailure = error;
            if (stream != null) {
                stream.cancel();
                stream = null;
            }
            boolean isForgotten = error.reason().equals("PRODUCER_UNKNOWN") && options.name.isEmpty();
            if (isForgotten && requests.onStream() > 0 && !requests.mayAnyBeDone()) {
                // This attempt has appended nothing, and no other one may have.
                requests.streamEnded();
            } else {
                isForgotten = false;
                requests.streamFailed(error);
            }
            calls.cluster.check();
            if (!isForgotten && requests.isEmpty()) {
                return; // An idle stream has ended.
            }
            if (error.outcome() == Outcome.DONE && error.retry() == Retry.NO && requests.isFirstDone()) {
                complete(requests.answerLost(), Ack.UNKNOWN_OFFSET, true);
                return;
            }
            if (!isForgotten && !isLimitChange(error)) {
                long pause = route.next(error);
                Cluster.LOGGER.log(System.Logger.Level.DEBUG, "retry log={0} pause_ms={1} error={2}",
                        leaderQuery, Long.toString(pause / 1_000_000), error);
                pause(pause);
                return;
            }
        } finally {
            lock.unlock();
        }
        long deadline = requests.oldest().deadline();
        if (error.reason().equals("PRODUCER_UNKNOWN")) {
            pause(route.pause(error));
            register(deadline);
        } else {
            removeLarger(error, deadline);
        }
    }

    private boolean isLimitChange(SeriatimException error) {
        return error.reason().equals("RECORD_TOO_LARGE") && !requests.mayAnyBeDone();
    }

    /** The limit of the log was lowered. Records above it fail; the others are sent. */
    private void removeLarger(SeriatimException refused, long deadline) throws InterruptedException {
        int max = limits(route, deadline).getMaxRecordBytes();
        // The node that answers may not know yet what the leader knows.
        long known = refused.number("max");
        max = known < 0 ? max : (int) Math.min(max, known);
        lock.lock();
        try {
            maxRecordBytes = max;
            List<Requests.Entry> removed = requests.removeLarger(max);
            if (removed.isEmpty()) {
                throw refused;
            }
            for (var entry : removed) {
                fail(List.of(entry), SeriatimException.tooLarge(leaderQuery, entry.bytes(), max));
            }
        } finally {
            lock.unlock();
        }
    }

    private void pause(long nanos) throws InterruptedException {
        lock.lock();
        try {
            long until = System.nanoTime() + nanos;
            while (until - System.nanoTime() > 0) {
                awaitWork(until);
            }
        } finally {
            lock.unlock();
        }
    }

    private void end(SeriatimException why) {
        lock.lock();
        try {
            failure = why;
            if (stream != null) {
                stream.cancel();
                stream = null;
                requests.streamLost();
            }
            if (why.kind() == Kind.FENCED) {
                Cluster.LOGGER.log(System.Logger.Level.DEBUG, "fenced log={0} producer={1}", leaderQuery, options.name);
            }
            for (var request : requests.drain()) {
                if (request.outcome() == Outcome.DONE) {
                    complete(request, Ack.UNKNOWN_OFFSET, true);
                } else {
                    fail(request.entries, why.withOutcome(request.outcome()));
                }
            }
            hasEnded = true;
            progress.signalAll();
        } finally {
            lock.unlock();
        }
        // Only now: a client that is closed waits for this.
        calls.cluster.remove(this);
    }

    private void complete(Requests.Request request, long offset, boolean isDuplicate) {
        answer(request.entries, () -> {
            long next = offset;
            for (var entry : request.entries) {
                entry.ack().complete(new Ack(next, isDuplicate));
                next += offset == Ack.UNKNOWN_OFFSET ? 0 : 1;
            }
        });
    }

    private void fail(List<Requests.Entry> entries, SeriatimException error) {
        answer(entries, () -> entries.forEach(entry -> entry.ack().completeExceptionally(error)));
    }

    /** The space in the buffer is free once the futures are completed, so that slow callbacks slow the sender down. */
    private void answer(List<Requests.Entry> entries, Runnable complete) {
        progress.signalAll();
        completions.execute(() -> {
            complete.run();
            lock.lock();
            try {
                for (var entry : entries) {
                    bufferedBytes -= Math.max(entry.bytes(), MIN_BUFFERED_BYTES);
                }
                progress.signalAll();
            } finally {
                lock.unlock();
            }
        });
    }

    private boolean awaitUntil(Condition condition, long deadline) throws InterruptedException {
        return condition.awaitNanos(deadline - System.nanoTime()) > 0;
    }

    // --- The stream ---------------------------------------------------------------

    /** A ProduceStream. Its fields are guarded by the lock of the producer. */
    private final class Stream extends ClientCall.Listener<ProduceResponse> {
        private final Calls.Attempt<ProduceRequest, ProduceResponse> attempt;
        private final Queue<ProduceResponse> responses = new ArrayDeque<>();
        private boolean isOver;
        private SeriatimException error;
        /** Since when the oldest unanswered request is the oldest one. */
        private long waitsSince;

        private Stream(Calls.Attempt<ProduceRequest, ProduceResponse> attempt) {
            this.attempt = attempt;
        }

        private ClientCall<ProduceRequest, ProduceResponse> call() {
            return attempt.call();
        }

        private void start() {
            call().start(this, new Metadata());
            call().request(Integer.MAX_VALUE); // One for each request, of which there are few.
        }

        private void sends(int onStream) {
            if (onStream == 1) {
                waitsSince = System.nanoTime();
            }
        }

        private void answered() {
            waitsSince = System.nanoTime();
        }

        private long deadline() {
            return waitsSince + calls.cluster.settings.attempt().toNanos();
        }

        /** Returns why the stream can't be used any more, or null. */
        private SeriatimException failure(int unanswered) {
            if (isOver) {
                return error;
            }
            if (unanswered == 0 && !responses.isEmpty()) {
                return attempt.broke(
                        Status.Code.UNAVAILABLE, "node %s has answered more than it was asked".formatted(attempt.node()));
            }
            if (unanswered > 0 && deadline() <= System.nanoTime()) {
                return attempt.broke(
                        Status.Code.DEADLINE_EXCEEDED, "node %s has not answered in time".formatted(attempt.node()));
            }
            return null;
        }

        private void cancel() {
            attempt.cancel("the stream is not used any more", null);
        }

        @Override
        public void onMessage(ProduceResponse response) {
            lock.lock();
            try {
                responses.add(response);
                work.signal();
            } finally {
                lock.unlock();
            }
        }

        @Override
        public void onClose(Status status, Metadata trailers) {
            var ended = attempt.ended(status, trailers);
            lock.lock();
            try {
                // A server ends a stream with OK only if the client has.
                error = ended != null
                        ? ended
                        : attempt.broke(Status.Code.UNAVAILABLE, "node %s ended the stream".formatted(attempt.node()));
                isOver = true;
                work.signal();
            } finally {
                lock.unlock();
            }
        }
    }
}
