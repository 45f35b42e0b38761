package io.seriatim.client;

import io.seriatim.client.SeriatimException.Outcome;
import io.seriatim.v1.ProduceRequest;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/**
 * The records of a producer that are not answered, and the requests that contain them. Decides which request is sent next, and
 * knows what may have become of each. Not thread-safe, and without I/O.
 *
 * <pre>
 *   add -> waiting -> unanswered -> answered
 *            (gathers)   (sent at least once: fixed records and sequence)
 * </pre>
 */
final class Requests {
    /** The server keeps the answers to 64 requests of a producer. */
    static final int MAX_UNANSWERED = 32;

    static final int MAX_UNANSWERED_BYTES = 4 << 20;

    /** The maximum size of the fields of a message other than records, and of the tag and the length of a record. */
    private static final int OVERHEAD_BYTES = 512;
    private static final int RECORD_OVERHEAD_BYTES = 6;

    /**
     * A record, and the future of its acknowledgement.
     *
     * @param number counts the records of the producer
     * @param bytes as the limits of a log count them
     * @param deadline of its delivery, as {@link System#nanoTime}
     */
    record Entry(long number, Record record, long bytes, CompletableFuture<Ack> ack, long deadline) {}

    /** Records that are sent in one request. */
    static final class Request {
        final List<Entry> entries = new ArrayList<>();
        /** As the limits of a log count them. */
        private long bytes;
        /** At least the size of the message. */
        private long wireBytes = OVERHEAD_BYTES;
        /** No more records are added. */
        private boolean isFull;
        /** 0: not sent yet. */
        private long sequence;
        private ProduceRequest message;
        /** Whether an attempt may have appended it. */
        private boolean mayBeDone;
        /** Whether an attempt has appended it, although its answer is lost. */
        private boolean isDone;

        /** Returns the outcome of all attempts. */
        Outcome outcome() {
            return isDone ? Outcome.DONE : mayBeDone ? Outcome.UNKNOWN : Outcome.NONE;
        }

        long sequence() {
            return sequence;
        }

        ProduceRequest message() {
            return message;
        }
    }

    /** Who sends the requests. */
    record Identity(String log, String logId, long producerId, int epoch) {}

    private final int maxRecords;
    private final long maxBytes;
    private final Deque<Request> waiting = new ArrayDeque<>();
    /** In the order of their sequences. Those that were sent on the present stream come first. */
    private final List<Request> unanswered = new ArrayList<>();

    private int onStream;
    private long answeredOnStream;
    private long unansweredBytes;
    private Identity identity;
    private long nextSequence;

    Requests(int maxRecords, long maxBytes) {
        this.maxRecords = maxRecords;
        this.maxBytes = maxBytes;
    }

    /** Sets the producer. Requests that were sent by another one are sent anew, with new numbers: none may have been appended. */
    void register(Identity identity, long lastSequence) {
        if (mayAnyBeDone()) {
            throw new IllegalStateException("a request may have been appended by the producer before");
        }
        this.identity = identity;
        nextSequence = lastSequence + 1;
        renumber();
    }

    private void renumber() {
        unanswered.forEach(request -> number(request, nextSequence++));
    }

    private void number(Request request, long sequence) {
        var message = ProduceRequest.newBuilder()
                .setLog(identity.log)
                .setLogId(identity.logId)
                .setProducerId(identity.producerId)
                .setProducerEpoch(identity.epoch)
                .setSequence(sequence);
        request.entries.forEach(entry -> message.addRecords(entry.record.message()));
        request.sequence = sequence;
        request.message = message.build();
    }

    void add(Entry entry) {
        Request last = waiting.peekLast();
        if (last == null || last.isFull || last.bytes + entry.bytes > maxBytes) {
            if (last != null) {
                last.isFull = true;
            }
            last = new Request();
            waiting.add(last);
        }
        last.entries.add(entry);
        last.bytes += entry.bytes;
        last.wireBytes += wireBytes(entry);
        last.isFull = last.entries.size() >= maxRecords || last.bytes >= maxBytes;
    }

    private static long wireBytes(Entry entry) {
        return entry.record.message().getSerializedSize() + RECORD_OVERHEAD_BYTES;
    }

    boolean isEmpty() {
        return waiting.isEmpty() && unanswered.isEmpty();
    }

    /** Returns the oldest record, or null. */
    Entry oldest() {
        Request first = unanswered.isEmpty() ? waiting.peekFirst() : unanswered.get(0);
        return first == null ? null : first.entries.get(0);
    }

    /** Returns whether {@link #next} has a request. */
    boolean hasNext() {
        if (onStream < unanswered.size()) {
            return true;
        }
        Request first = waiting.peekFirst();
        if (first == null || unanswered.isEmpty()) {
            return first != null;
        }
        return first.isFull
                && unanswered.size() < MAX_UNANSWERED
                && unansweredBytes + first.wireBytes <= MAX_UNANSWERED_BYTES;
    }

    /** Returns the next request to send on the present stream. It counts as sent. */
    Request next() {
        if (!hasNext()) {
            throw new IllegalStateException("there is no request to send");
        }
        if (onStream == unanswered.size()) {
            Request first = waiting.removeFirst();
            first.isFull = true;
            number(first, nextSequence++);
            unanswered.add(first);
            unansweredBytes += first.wireBytes;
        }
        return unanswered.get(onStream++);
    }

    /** The number of requests on the present stream that are not answered. */
    int onStream() {
        return onStream;
    }

    /** Returns the oldest request of the present stream that is not answered. */
    Request first() {
        return unanswered.get(0);
    }

    /** The oldest request is answered. */
    Request answered() {
        if (onStream == 0) {
            throw new IllegalStateException("an answer without a request");
        }
        onStream--;
        answeredOnStream++;
        return removeFirst();
    }

    private Request removeFirst() {
        Request first = unanswered.remove(0);
        unansweredBytes -= first.wireBytes;
        return first;
    }

    /**
     * The present stream has failed, and everything that is not answered is sent again on the next one. Records what the error
     * says about each request: {@code failed_request} and {@code unknown_through} count from the first request of the stream. No
     * request after the failed one was appended, except up to {@code unknown_through}.
     */
    void streamFailed(SeriatimException error) {
        long failed = error.number("failed_request");
        long through = Math.max(failed, error.number("unknown_through"));
        for (int i = 0; i < onStream; i++) {
            long number = answeredOnStream + i;
            boolean isUnknown = error.outcome() == Outcome.UNKNOWN && (through < 0 || number <= through);
            // A request before the failed one has an answer, which was lost.
            unanswered.get(i).mayBeDone |= isUnknown || number < failed;
            unanswered.get(i).isDone |= error.outcome() == Outcome.DONE && number == Math.max(failed, answeredOnStream);
        }
        streamEnded();
    }

    /** There is no stream any more. Nothing is known of its requests. */
    void streamLost() {
        for (int i = 0; i < onStream; i++) {
            unanswered.get(i).mayBeDone = true;
        }
        streamEnded();
    }

    /** The present stream has ended, and none of its requests that are not answered was appended by it. */
    void streamEnded() {
        onStream = 0;
        answeredOnStream = 0;
    }

    boolean mayAnyBeDone() {
        return unanswered.stream().anyMatch(request -> request.mayBeDone || request.isDone);
    }

    /** Returns whether the oldest request was appended, and its answer is lost. */
    boolean isFirstDone() {
        return !unanswered.isEmpty() && unanswered.get(0).isDone;
    }

    /** Removes the oldest request: it was appended, and its answer is lost for good. */
    Request answerLost() {
        return removeFirst();
    }

    /** Removes the records that exceed a limit, and returns them in order. None of the requests may have been appended. */
    List<Entry> removeLarger(long maxRecordBytes) {
        if (mayAnyBeDone() || onStream > 0) {
            throw new IllegalStateException("a request may have been appended");
        }
        var removed = new ArrayList<Entry>();
        for (Iterator<Request> all = unanswered.iterator(); all.hasNext(); ) {
            Request request = all.next();
            // The numbers begin anew with the first one.
            nextSequence = Math.min(nextSequence, request.sequence);
            unansweredBytes -= request.wireBytes;
            removeLarger(all, request, maxRecordBytes, removed);
            unansweredBytes += request.entries.isEmpty() ? 0 : request.wireBytes;
        }
        renumber();
        for (Iterator<Request> all = waiting.iterator(); all.hasNext(); ) {
            removeLarger(all, all.next(), maxRecordBytes, removed);
        }
        return removed;
    }

    private static void removeLarger(Iterator<Request> all, Request request, long max, List<Entry> removed) {
        request.entries.removeIf(entry -> entry.bytes > max && removed.add(entry));
        request.bytes = request.entries.stream().mapToLong(Entry::bytes).sum();
        request.wireBytes = OVERHEAD_BYTES + request.entries.stream().mapToLong(Requests::wireBytes).sum();
        if (request.entries.isEmpty()) {
            all.remove();
        }
    }

    /** Removes and returns everything, in order. */
    List<Request> drain() {
        var all = new ArrayList<>(unanswered);
        all.addAll(waiting);
        unanswered.clear();
        waiting.clear();
        unansweredBytes = 0;
        streamEnded();
        return all;
    }
}
