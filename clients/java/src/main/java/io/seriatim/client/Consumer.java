package io.seriatim.client;

import io.seriatim.v1.Start;
import java.lang.ref.Reference;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;

/**
 * Reads one log. It reads ahead, and resumes by itself after a failure: no record is returned twice, and none is left out.
 *
 * <p>Use either {@link #poll} or the iterator, which waits for records and ends when the consumer is closed. Both throw
 * {@link SeriatimException} if the consumer can't continue. Any thread may call {@link #close}.
 */
public final class Consumer implements AutoCloseable, Iterable<ConsumedRecord> {
    private final ConsumerCore core;
    private final Runnable forget;

    private Consumer(ConsumerCore core, String log) {
        this.core = core;
        forget = Dropped.watch(this, core, "a consumer of log \"" + log + "\"");
    }

    /** Returns the records that are there. Waits for the first one, at most {@code timeout}; then the list is empty. */
    public List<ConsumedRecord> poll(Duration timeout) {
        return poll(timeout, Integer.MAX_VALUE);
    }

    /** Returns at most {@code max} of the records that are there. Waits for the first one, at most {@code timeout}. */
    public List<ConsumedRecord> poll(Duration timeout, int max) {
        try {
            return core.poll((int) Deadline.positive("max", max), Deadline.in(timeout));
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw SeriatimException.interrupted(interrupted);
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /** Returns an iterator over the next records. */
    @Override
    public Iterator<ConsumedRecord> iterator() {
        return new Iterator<>() {
            private ConsumedRecord next;

            @Override
            public boolean hasNext() {
                while (next == null) {
                    try {
                        next = poll(Deadline.NEVER, 1).stream().findFirst().orElse(null);
                    } catch (SeriatimException error) {
                        if (error.kind() == SeriatimException.Kind.CLOSED) {
                            return false;
                        }
                        throw error;
                    }
                }
                return true;
            }

            @Override
            public ConsumedRecord next() {
                if (!hasNext()) {
                    throw new NoSuchElementException("the consumer is closed");
                }
                var record = next;
                next = null;
                return record;
            }
        };
    }

    /**
     * Stores the position after the last record that was returned. A record of the iterator counts once {@code hasNext} has found
     * it.
     *
     * @return the position, which is the offset of the next record
     */
    public long commit() {
        try {
            return core.commit();
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw SeriatimException.interrupted(interrupted);
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /** Returns how many records were trimmed before the last one that was returned, with {@link Builder#skipTrimmed}. */
    public long skipped() {
        return core.skipped();
    }

    /** Ends the consumer. With {@link Builder#autoCommit}, it commits once more. */
    @Override
    public void close() {
        try {
            forget.run();
            core.close();
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /** Makes a consumer. Without a start, it begins at the first record. */
    public static final class Builder {
        private final SeriatimClient client;
        private final String log;
        private Start start = Start.START_EARLIEST;
        private long offset;
        private long timeUs;
        private String cursor = "";
        private boolean skipsTrimmed;
        private Duration autoCommit;
        private Duration heartbeat = Duration.ofSeconds(10);
        private Duration maxSilence;

        Builder(SeriatimClient client, String log) {
            this.client = client;
            this.log = log;
        }

        /** Starts at the first record that exists. */
        public Builder fromEarliest() {
            return from(Start.START_EARLIEST, 0, 0);
        }

        /** Starts after the last record. The position is known when {@link #create} returns. */
        public Builder fromLatest() {
            return from(Start.START_LATEST, 0, 0);
        }

        /** Starts at an offset. */
        public Builder fromOffset(long offset) {
            if (offset < 0) {
                throw new IllegalArgumentException("the offset is " + offset + ": choose at least 0");
            }
            return from(Start.START_OFFSET, offset, 0);
        }

        /** Starts at the first record that was appended at or after a time. */
        public Builder fromTime(Instant time) {
            return from(Start.START_TIME, 0, ChronoUnit.MICROS.between(Instant.EPOCH, time));
        }

        /** Starts with the last records. */
        public Builder fromLast(long records) {
            if (records < 0) {
                throw new IllegalArgumentException("the number of records is " + records + ": choose at least 0");
            }
            return from(Start.START_LAST, records, 0);
        }

        private Builder from(Start start, long offset, long timeUs) {
            this.start = start;
            this.offset = offset;
            this.timeUs = timeUs;
            return this;
        }

        /** Starts at the position of a cursor, and fences a process that has it. The chosen start applies to a new cursor. */
        public Builder cursor(String name) {
            cursor = name;
            return this;
        }

        /** Commits by itself after each interval. Records count once the application has asked for the next one. */
        public Builder autoCommit(Duration interval) {
            autoCommit = Deadline.positive("autoCommit", interval);
            return this;
        }

        /** Continues at the first record that exists, if the next one was trimmed. {@link Consumer#skipped} counts them. */
        public Builder skipTrimmed(boolean skips) {
            skipsTrimmed = skips;
            return this;
        }

        /** Sets the interval of heartbeats. A stream without a message for three of them is broken. */
        public Builder heartbeat(Duration interval) {
            if (interval.compareTo(Duration.ofSeconds(1)) < 0 || interval.compareTo(Duration.ofDays(1)) > 0) {
                throw new IllegalArgumentException("heartbeat is " + interval + ": choose 1 second to 1 day");
            }
            heartbeat = interval;
            return this;
        }

        /** Ends the consumer with the last error if no message arrives for that long. By default it tries without an end. */
        public Builder maxSilence(Duration limit) {
            maxSilence = Deadline.positive("maxSilence", limit);
            return this;
        }

        /**
         * Starts to read. Acquires the cursor, if there is one.
         *
         * @throws SeriatimException if the cursor can't be acquired, or if no node answers in the time of an operation where the
         *     start depends on the moment: at the latest records, by number, by time
         */
        public Consumer create() {
            if (autoCommit != null && cursor.isEmpty()) {
                throw new IllegalArgumentException("autoCommit needs a cursor");
            }
            var options = new ConsumerCore.Options(
                    log, start, offset, timeUs, cursor, skipsTrimmed, autoCommit, heartbeat, maxSilence);
            var core = new ConsumerCore(client.calls, client.callbacks, client.timer, options);
            try {
                core.start();
                return new Consumer(core, log);
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
                throw SeriatimException.interrupted(interrupted);
            }
        }
    }
}
