package io.seriatim.client;

import java.lang.ref.Reference;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;

/**
 * Appends records to one log, in the order of the calls of {@link #send}. Many threads can share it.
 *
 * <p>It gathers records into requests by itself, and sends them again after a failure, so that each is appended once. If a record
 * can't be delivered, the producer fails: that record and all later ones fail, so that none is left out.
 *
 * <p>Futures are completed in order, on a thread for callbacks. A callback that blocks delays the next ones, and the space in the
 * buffer that their records take. It must not wait for another future of the same producer.
 */
public final class Producer implements AutoCloseable {
    private final ProducerCore core;
    private final io.seriatim.v1.Producer registered;
    private final Duration delivery;
    private final Runnable forget;

    private Producer(ProducerCore core, io.seriatim.v1.Producer registered, Duration delivery) {
        this.core = core;
        this.registered = registered;
        this.delivery = delivery;
        forget = Dropped.watch(this, core, "a producer of log \"" + registered.getLog() + "\"");
    }

    /** Appends a record. Waits while the buffer is full, at most for the delivery timeout. */
    public CompletableFuture<Ack> send(Record record) {
        return send(record, delivery);
    }

    /**
     * Appends a record. Waits at most {@code timeout} while the buffer is full. Before a record fails because it is too large, the
     * limit is read again, which takes at most the time of an attempt.
     *
     * @return the acknowledgement. It fails with {@link SeriatimException}, whose {@link SeriatimException#outcome} says whether
     *     the record may have been appended. To cancel it has no effect on the record
     */
    public CompletableFuture<Ack> send(Record record, Duration timeout) {
        try {
            return core.send(record, Deadline.in(timeout));
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /**
     * Waits until everything that was sent before is answered.
     *
     * @throws SeriatimException if the producer has failed
     */
    public void flush() {
        flush(Deadline.NEVER);
    }

    /**
     * Waits until everything that was sent before is answered.
     *
     * @throws SeriatimException if the producer has failed, or after {@code timeout}
     */
    public void flush(Duration timeout) {
        try {
            core.flush(Deadline.in(timeout));
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /** Accepts no more records, and returns at once. What was sent before is still delivered. */
    public void shutdown() {
        core.shutdown();
    }

    /** Accepts no more records, and waits until all are answered or their delivery timeout has passed. Never fails. */
    @Override
    public void close() {
        close(Deadline.NEVER);
    }

    /** Accepts no more records, and waits until all are answered. After {@code timeout}, the futures of the rest fail. */
    public void close(Duration timeout) {
        try {
            forget.run();
            core.close(Deadline.in(timeout));
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /** Returns the sequence of the last request that a producer of this name had appended before. 0: none. */
    public long lastSequence() {
        return registered.getLastSequence();
    }

    /** Returns the offset of the last record that a producer of this name had appended before, if it had any. */
    public long lastOffset() {
        return registered.getLastOffset();
    }

    /** Returns how many records a producer of this name had appended before: a source continues with the item after that many. */
    public long records() {
        return registered.getRecords();
    }

    /** Returns the epoch. It increases when another process takes the name over. */
    public int epoch() {
        return registered.getEpoch();
    }

    /** Makes a producer. */
    public static final class Builder {
        private final SeriatimClient client;
        private final String log;
        private String name = "";
        private int batchRecords = 1000;
        private int batchBytes = 512 << 10;
        private long bufferBytes = 32 << 20;
        private Duration delivery;

        Builder(SeriatimClient client, String log) {
            this.client = client;
            this.log = log;
            delivery = client.cluster.settings.operation();
        }

        /** Continues the producer of this name, and fences a process that has it. */
        public Builder name(String name) {
            this.name = name;
            return this;
        }

        /** Sets the maximum number of records in a request. */
        public Builder batchRecords(int records) {
            batchRecords = (int) Deadline.positive("batchRecords", records);
            return this;
        }

        /** Sets the size of a request at which it is sent. */
        public Builder batchBytes(int bytes) {
            batchBytes = (int) Deadline.positive("batchBytes", bytes);
            return this;
        }

        /** Sets the size of the records that are not answered yet, at which {@link Producer#send} waits. */
        public Builder bufferBytes(long bytes) {
            bufferBytes = Deadline.positive("bufferBytes", bytes);
            return this;
        }

        /** Sets the time for the delivery of a record, after which the producer fails. By default that of an operation. */
        public Builder deliveryTimeout(Duration timeout) {
            delivery = Deadline.positive("deliveryTimeout", timeout);
            return this;
        }

        /**
         * Registers the producer.
         *
         * @throws SeriatimException if that fails
         */
        public Producer create() {
            var options = new ProducerCore.Options(log, name, batchRecords, batchBytes, bufferBytes, delivery);
            var core = new ProducerCore(client.calls, client.callbacks, options);
            try {
                return new Producer(core, core.start(), delivery);
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
                throw SeriatimException.interrupted(interrupted);
            }
        }
    }
}
