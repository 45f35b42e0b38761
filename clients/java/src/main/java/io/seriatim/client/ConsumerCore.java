package io.seriatim.client;

import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.Status;
import io.seriatim.client.SeriatimException.Kind;
import io.seriatim.client.SeriatimException.Outcome;
import io.seriatim.client.SeriatimException.Retry;
import io.seriatim.v1.ConsumeRequest;
import io.seriatim.v1.ConsumeResponse;
import io.seriatim.v1.LogServiceGrpc;
import io.seriatim.v1.Start;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.Executor;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.LongSupplier;

/**
 * What a consumer does. One thread keeps a stream open, and fills the buffer. Nothing here refers to the {@link Consumer} of the
 * application, so that the garbage collector notices when it is dropped.
 */
final class ConsumerCore implements Cluster.Member {
    private static final int MAX_BUFFERED_RECORDS = 10_000;
    private static final long MAX_BUFFERED_BYTES = 4 << 20;
    /** What one message contains at most, unless a single record is larger. */
    private static final int MESSAGE_RECORDS = 1000;

    private static final int MESSAGE_BYTES = 1 << 20;
    /** A stream without a message for so many heartbeats is broken. */
    private static final int HEARTBEATS = 3;

    /** What the application chose. {@code cursor} may be empty; {@code autoCommit} and {@code maxSilence} may be null. */
    record Options(
            String log,
            Start start,
            long offset,
            long timeUs,
            String cursor,
            boolean skipsTrimmed,
            Duration autoCommit,
            Duration heartbeat,
            Duration maxSilence) {}

    /** In the buffer: a record, or with {@code record} null, how many records before the next one were trimmed. */
    private record Item(ConsumedRecord record, long bytes, long trimmed) {}

    private final Calls calls;
    private final Options options;
    private final Executor callbacks;
    private final ScheduledExecutorService timer;
    private final Route route;
    private final Thread thread;
    /** Null: the consumer has none. */
    private final CursorSession cursor;

    private final ReentrantLock lock = new ReentrantLock();
    /** For the thread: there are messages, or space in the buffer, or the end. */
    private final Condition work = lock.newCondition();
    /** For callers: there are records, or the end. */
    private final Condition progress = lock.newCondition();

    // Used by the thread.
    private final Set<Node> damaged = new HashSet<>();
    private SeriatimException lastFailure;
    private long silentSince = System.nanoTime();

    // Guarded by the lock.
    private final Queue<Item> buffer = new ArrayDeque<>();
    private long bufferedBytes;
    private Stream stream;
    private String logId;
    /** The next record to receive. -1: not known yet. */
    private long position = -1;
    /** Whether the next record must have that offset. */
    private boolean isPositionFixed;
    /** The position after the last record that the application has taken. -1: not known yet. */
    private long taken = -1;
    /** The same, of the last record whose successor the application has asked for. */
    private long processed = -1;
    private long skipped;
    private SeriatimException abortReason;
    private SeriatimException failure;
    private boolean hasEnded;
    private boolean isClosed;

    ConsumerCore(Calls calls, Executor callbacks, ScheduledExecutorService timer, Options options) {
        this.calls = calls;
        this.callbacks = callbacks;
        this.timer = timer;
        this.options = options;
        route = new Route(calls.cluster, false);
        thread = new Thread(this::run, "seriatim-consumer-" + name());
        thread.setDaemon(true);
        cursor = options.cursor.isEmpty() ? null : new CursorSession(calls, options.log, options.cursor, this::checkOpen);
    }

    private String name() {
        return options.log.isEmpty() ? "default" : options.log;
    }

    /** Acquires the cursor, and starts the thread. Waits until the start is known, if it depends on the time of the call. */
    void start() throws InterruptedException {
        long deadline = System.nanoTime() + calls.cluster.settings.operation().toNanos();
        if (cursor != null) {
            var acquired = cursor.acquire(options.start, options.offset, options.timeUs, route, deadline);
            logId = acquired.getLogId();
            position = acquired.getNextOffset();
            isPositionFixed = true;
        } else if (options.start == Start.START_OFFSET) {
            position = options.offset;
            isPositionFixed = true;
        }
        taken = position;
        processed = position;
        calls.cluster.add(this);
        thread.start();
        if (position < 0 && options.start != Start.START_EARLIEST) {
            awaitPosition(deadline);
        }
        if (options.autoCommit != null) {
            cursor.startAutoCommit(timer, callbacks, options.autoCommit, () -> at(() -> processed), this::abort);
            stopAutoCommit();
        }
    }

    /** Stops the timer if nothing can be committed any more. What was processed before another failure still can. */
    private void stopAutoCommit() {
        lock.lock();
        try {
            if (cursor != null && failure != null && (failure.kind() == Kind.CLOSED || failure.kind() == Kind.FENCED)) {
                cursor.stopAutoCommit();
            }
        } finally {
            lock.unlock();
        }
    }

    private void awaitPosition(long deadline) throws InterruptedException {
        lock.lock();
        try {
            while (position < 0 && !hasEnded) {
                if (!awaitUntil(deadline)) {
                    abort(SeriatimException.closed("the consumer"));
                    throw SeriatimException.timeout("no node has answered", lastFailure);
                }
            }
        } catch (InterruptedException interrupted) {
            abort(SeriatimException.closed("the consumer"));
            throw interrupted;
        } finally {
            lock.unlock();
        }
    }

    // --- Callers ---------------------------------------------------------------

    /** Returns the records that are there, and waits for the first one until {@code deadline}. */
    List<ConsumedRecord> poll(int max, long deadline) throws InterruptedException {
        var records = new ArrayList<ConsumedRecord>();
        lock.lock();
        try {
            processed = taken;
            while (records.isEmpty() && hasItem(deadline)) {
                while (records.size() < max && !buffer.isEmpty()) {
                    take(buffer.remove(), records);
                }
            }
            work.signal();
        } finally {
            lock.unlock();
        }
        return records;
    }

    /** Waits until the buffer contains something. Returns false at the deadline, and throws what has ended the consumer. */
    private boolean hasItem(long deadline) throws InterruptedException {
        while (true) {
            checkOpen();
            if (!buffer.isEmpty()) {
                return true;
            }
            if (failure != null) {
                throw failure.here();
            }
            if (!awaitUntil(deadline)) {
                return false;
            }
        }
    }

    private void take(Item item, List<ConsumedRecord> records) {
        bufferedBytes -= item.bytes;
        if (item.record == null) {
            skipped += item.trimmed;
            return;
        }
        records.add(item.record);
        taken = item.record.offset() + 1;
    }

    long skipped() {
        lock.lock();
        try {
            return skipped;
        } finally {
            lock.unlock();
        }
    }

    private long at(LongSupplier position) {
        lock.lock();
        try {
            return position.getAsLong();
        } finally {
            lock.unlock();
        }
    }

    private void checkOpen() {
        calls.cluster.check();
        lock.lock();
        try {
            if (isClosed) {
                throw SeriatimException.closed("the consumer");
            }
        } finally {
            lock.unlock();
        }
    }

    /** Stores the position after the last record that was taken. */
    long commit() throws InterruptedException {
        if (cursor == null) {
            throw SeriatimException.of(
                    Kind.INVALID, Status.Code.FAILED_PRECONDITION, Outcome.NONE, "the consumer has no cursor", null);
        }
        checkOpen();
        try {
            return cursor.commit(() -> at(() -> taken));
        } catch (SeriatimException error) {
            if (error.kind() == Kind.FENCED) {
                abort(error);
            }
            throw error;
        }
    }

    void close() {
        lock.lock();
        try {
            if (isClosed) {
                return;
            }
            isClosed = true;
            progress.signalAll();
        } finally {
            lock.unlock();
        }
        abort(SeriatimException.closed("the consumer"));
        awaitEnd();
        if (cursor != null && failure.kind() != Kind.FENCED) {
            cursor.close(() -> at(() -> processed));
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

    // --- The thread ---------------------------------------------------------------

    private void run() {
        SeriatimException why;
        try {
            while (true) {
                try {
                    awaitSpace();
                    openStream();
                    read();
                } catch (SeriatimException error) {
                    recover(error);
                }
            }
        } catch (SeriatimException error) {
            why = error;
        } catch (InterruptedException interrupted) {
            why = abortReason;
        } catch (RuntimeException | Error bug) {
            why = SeriatimException.of(Kind.OTHER, Status.Code.INTERNAL, Outcome.NONE, "bug of the client: " + bug, bug);
        }
        end(why);
    }

    private boolean hasSpace() {
        return buffer.size() + MESSAGE_RECORDS <= MAX_BUFFERED_RECORDS
                && bufferedBytes + MESSAGE_BYTES <= MAX_BUFFERED_BYTES;
    }

    /** A slow application is not the silence of a server. */
    private void awaitSpace() throws InterruptedException {
        lock.lock();
        try {
            while (!hasSpace()) {
                await(Long.MAX_VALUE);
                silentSince = System.nanoTime();
            }
        } finally {
            lock.unlock();
        }
    }

    private void openStream() throws InterruptedException {
        Node node = route.node();
        calls.verify(node, null, route, calls.limit(silenceDeadline()));
        var opened = new Stream(calls.open(node, LogServiceGrpc.getConsumeStreamMethod()));
        ConsumeRequest request;
        lock.lock();
        try {
            stream = opened;
            request = request();
        } finally {
            lock.unlock();
        }
        opened.start(request);
    }

    private ConsumeRequest request() {
        var request = ConsumeRequest.newBuilder()
                .setLog(options.log)
                .setMaxRecords(MESSAGE_RECORDS)
                .setMaxBytes(MESSAGE_BYTES)
                .setHeartbeatMs((int) options.heartbeat.toMillis());
        if (position >= 0) {
            isPositionFixed = true;
            request.setStart(Start.START_OFFSET).setOffset(position);
        } else {
            request.setStart(options.start).setOffset(options.offset).setStartTimeUs(options.timeUs);
        }
        if (logId != null) {
            request.setLogId(logId);
        }
        if (cursor != null) {
            request.setCursor(cursor.name()).setCursorEpoch(cursor.epoch());
        }
        return request.build();
    }

    /** Reads until the stream fails. */
    private void read() throws InterruptedException {
        lock.lock();
        try {
            while (true) {
                while (!stream.messages.isEmpty()) {
                    receive(stream.messages.remove());
                }
                if (stream.error != null) {
                    throw stream.error;
                }
                if (!stream.isReading && hasSpace()) {
                    stream.read();
                }
                if (!stream.isReading) {
                    await(Long.MAX_VALUE);
                } else if (stream.deadline() <= System.nanoTime()) {
                    throw stream.attempt.broke(
                            Status.Code.DEADLINE_EXCEEDED, "node %s has sent no heartbeat".formatted(stream.attempt.node()));
                } else if (silenceDeadline() <= System.nanoTime()) {
                    throw stream.attempt.broke(
                            Status.Code.DEADLINE_EXCEEDED, "node %s is silent".formatted(stream.attempt.node()));
                } else {
                    await(Math.min(stream.deadline(), silenceDeadline()));
                }
            }
        } finally {
            lock.unlock();
        }
    }

    private void receive(ConsumeResponse message) {
        stream.received();
        silentSince = System.nanoTime();
        if (logId == null) {
            logId = message.getLogId();
        } else if (!logId.equals(message.getLogId())) {
            throw broken("the id of the log is %s, and not %s".formatted(message.getLogId(), logId));
        }
        for (var record : message.getRecordsList()) {
            if (isPositionFixed && record.getOffset() != position) {
                throw broken("the record at offset %d is missing: %d was received".formatted(position, record.getOffset()));
            }
            position = record.getOffset() + 1;
            isPositionFixed = true;
            long bytes = record.getSerializedSize();
            bufferedBytes += bytes;
            buffer.add(new Item(new ConsumedRecord(record), bytes, 0));
        }
        if (isPositionFixed && message.getResumeOffset() != position) {
            throw broken("the stream continues at %d, and not at %d".formatted(message.getResumeOffset(), position));
        }
        position = message.getResumeOffset();
        // Until the first record, a start at the earliest one follows trims.
        isPositionFixed |= options.start != Start.START_EARLIEST;
        taken = taken < 0 ? message.getResumeOffset() - message.getRecordsCount() : taken;
        processed = processed < 0 ? taken : processed;
        // A node sends the first message before it has read anything: that is no success yet.
        if (message.getRecordsCount() > 0 || stream.count > 1) {
            route.succeeded();
            damaged.clear();
            lastFailure = null;
        }
        progress.signalAll();
    }

    /** A server that breaks its promises. */
    private static SeriatimException broken(String message) {
        return SeriatimException.of(Kind.OTHER, Status.Code.INTERNAL, Outcome.NONE, message, null);
    }

    /** Decides how to continue after the failure of a stream, or of opening it. Throws if the consumer fails. */
    private void recover(SeriatimException failed) throws InterruptedException {
        // Nothing is done by reading, so a broken connection leaves nothing unknown.
        var error = failed.retry() == Retry.ELSEWHERE ? failed.withOutcome(Outcome.NONE) : failed;
        lock.lock();
        try {
            lastFailure = error;
            if (stream != null) {
                stream.cancel();
                stream = null;
            }
            calls.cluster.check();
            if (error.kind() == Kind.TRIMMED && options.skipsTrimmed && error.number("first_offset") > position) {
                skip(error.number("first_offset"));
                return;
            }
            if (error.kind() == Kind.DATA_LOSS) {
                damaged.add(route.node());
                if (damaged.containsAll(calls.cluster.nodes())) {
                    throw error;
                }
            }
            long pause = route.next(error);
            Cluster.LOGGER.log(System.Logger.Level.DEBUG, "retry log={0} pause_ms={1} error={2}",
                    name(), Long.toString(pause / 1_000_000), error);
            for (long until = System.nanoTime() + pause; until - System.nanoTime() > 0; ) {
                checkSilence();
                await(Math.min(until, silenceDeadline()));
            }
            checkSilence();
        } finally {
            lock.unlock();
        }
    }

    private void skip(long firstOffset) {
        if (position >= 0) {
            buffer.add(new Item(null, 0, firstOffset - position));
        }
        position = firstOffset;
        isPositionFixed = true;
        progress.signalAll();
    }

    private long silenceDeadline() {
        // Far away, and yet without an overflow.
        return options.maxSilence == null
                ? System.nanoTime() + Duration.ofDays(365).toNanos()
                : silentSince + options.maxSilence.toNanos();
    }

    private void checkSilence() {
        if (silenceDeadline() <= System.nanoTime()) {
            throw lastFailure;
        }
    }

    /** Waits for anything that concerns the thread. */
    private void await(long until) throws InterruptedException {
        if (abortReason != null) {
            throw new InterruptedException();
        }
        long left = until == Long.MAX_VALUE ? until : until - System.nanoTime();
        if (left > 0) {
            work.awaitNanos(left);
        }
    }

    private void end(SeriatimException why) {
        lock.lock();
        try {
            failure = why;
            if (stream != null) {
                stream.cancel();
                stream = null;
            }
            stopAutoCommit();
            if (why.kind() == Kind.FENCED) {
                Cluster.LOGGER.log(System.Logger.Level.DEBUG, "fenced log={0} cursor={1}", name(), options.cursor);
            }
            hasEnded = true;
            progress.signalAll();
        } finally {
            lock.unlock();
        }
        // Only now: a client that is closed waits for this.
        calls.cluster.remove(this);
    }

    private boolean awaitUntil(long deadline) throws InterruptedException {
        return progress.awaitNanos(deadline - System.nanoTime()) > 0;
    }

    // --- The stream ---------------------------------------------------------------

    /** A ConsumeStream. One message at a time is requested from it. Its fields are guarded by the lock of the consumer. */
    private final class Stream extends ClientCall.Listener<ConsumeResponse> {
        private final Calls.Attempt<ConsumeRequest, ConsumeResponse> attempt;
        private final Queue<ConsumeResponse> messages = new ArrayDeque<>();
        private SeriatimException error;
        private boolean isReading;
        private long readsSince;
        private int count;

        private Stream(Calls.Attempt<ConsumeRequest, ConsumeResponse> attempt) {
            this.attempt = attempt;
        }

        private void start(ConsumeRequest request) {
            attempt.call().start(this, new Metadata());
            attempt.send(request);
            attempt.halfClose();
        }

        private void read() {
            isReading = true;
            readsSince = System.nanoTime();
            // Until now, the application was slow, and not the server silent.
            silentSince = count > 0 ? readsSince : silentSince;
            attempt.call().request(1);
        }

        private void received() {
            isReading = false;
            count++;
        }

        /** The first message is sent at once, and a heartbeat if there are no records. */
        private long deadline() {
            var limit = count == 0 ? calls.cluster.settings.attempt() : options.heartbeat.multipliedBy(HEARTBEATS);
            return readsSince + limit.toNanos();
        }

        private void cancel() {
            attempt.cancel("the stream is not used any more", null);
        }

        @Override
        public void onMessage(ConsumeResponse message) {
            lock.lock();
            try {
                messages.add(message);
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
                error = ended != null
                        ? ended
                        : attempt.broke(Status.Code.UNAVAILABLE, "node %s ended the stream".formatted(attempt.node()));
                work.signal();
            } finally {
                lock.unlock();
            }
        }
    }
}
