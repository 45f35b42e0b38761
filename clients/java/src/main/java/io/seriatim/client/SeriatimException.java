package io.seriatim.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.Collections;
import java.util.EnumSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * A request that failed. {@link #outcome} says what became of it, {@link #kind} what went wrong.
 *
 * <p>The library decides by outcome and retry whether to send a request again, so newer servers may send reasons that it does not
 * know.
 */
public final class SeriatimException extends RuntimeException {
    private static final long serialVersionUID = 1;
    private static final Set<Status.Code> NOTHING_WAS_DONE =
            EnumSet.of(Status.Code.UNAUTHENTICATED, Status.Code.PERMISSION_DENIED, Status.Code.UNIMPLEMENTED);
    /** Statuses of gRPC itself for a connection that broke, or was closed while a call was sent. */
    private static final Set<Status.Code> CONNECTION_BROKE =
            EnumSet.of(Status.Code.UNAVAILABLE, Status.Code.UNKNOWN, Status.Code.INTERNAL, Status.Code.CANCELLED);

    /** What went wrong. */
    public enum Kind {
        /** The log, the producer or the cursor does not exist. */
        NOT_FOUND,
        /** A condition of the request does not hold, for example the id of the log. */
        MISMATCH,
        /** Another process has taken the producer or the cursor over. */
        FENCED,
        /** The record or the request exceeds a limit of the log. */
        TOO_LARGE,
        /** The record was trimmed. The metadata contains {@code first_offset}. */
        TRIMMED,
        /** The offset is above the end of the log. */
        PAST_END,
        /** The access policy does not allow the request, or the certificate is not accepted. */
        NOT_ALLOWED,
        /** No node could serve the request. */
        UNAVAILABLE,
        /** A limit is reached, or a disk is full. */
        EXHAUSTED,
        /** Records are damaged. */
        DATA_LOSS,
        /** The request may have been done. */
        OUTCOME_UNKNOWN,
        /** The request is malformed, or the server does not support it. */
        INVALID,
        /** The time was up. */
        TIMEOUT,
        /** The caller was interrupted, or cancelled the request. */
        CANCELLED,
        /** The client, the producer or the consumer was closed. */
        CLOSED,
        /** Anything else. */
        OTHER
    }

    /** What became of the request, over all attempts. */
    public enum Outcome {
        /** Nothing was done, and nothing will be. */
        NONE,
        /** It was done, although the answer is lost. */
        DONE,
        /** It may have been done, or may be done later. */
        UNKNOWN
    }

    /** Whether the same request can succeed when it is sent again. The library has done so already, where it is possible. */
    public enum Retry {
        /** Not without a change. */
        NO,
        /** On the same node, after a pause. */
        SAME,
        /** On another node, at once. */
        ELSEWHERE,
        /** After someone has acted, for example freed disk space. */
        LATER
    }

    private final Kind kind;
    private final Status.Code code;
    private final String reason;
    private final Outcome outcome;
    private final Retry retry;
    private final Duration pause;
    private final transient Map<String, String> metadata;

    /** Without {@code kind}, it is derived from reason, outcome and code. */
    private SeriatimException(
            Kind kind,
            Status.Code code,
            String reason,
            String message,
            Outcome outcome,
            Retry retry,
            Duration pause,
            Map<String, String> metadata,
            Throwable cause) {
        super(message, cause);
        this.kind = kind == null ? kindOf(reason, outcome, code) : kind;
        this.code = code;
        this.reason = reason;
        this.outcome = outcome;
        this.retry = retry;
        this.pause = pause;
        this.metadata = Collections.unmodifiableMap(metadata);
    }

    /** Returns an error of the library itself. */
    static SeriatimException of(Kind kind, Status.Code code, Outcome outcome, String message, Throwable cause) {
        return new SeriatimException(
                kind, code, "", message, outcome, Retry.NO, Duration.ZERO, new TreeMap<>(), cause);
    }

    static SeriatimException closed(String what) {
        return of(Kind.CLOSED, Status.Code.CANCELLED, Outcome.NONE, what + " is closed", null);
    }

    static SeriatimException interrupted(InterruptedException cause) {
        return of(Kind.CANCELLED, Status.Code.CANCELLED, Outcome.NONE, "the thread was interrupted", cause);
    }

    /** The time of the operation or of its caller is up. {@code last} is the failure of the last attempt, or null. */
    static SeriatimException timeout(String message, SeriatimException last) {
        String text = last == null ? message : message + "; last error: " + last.getMessage();
        return of(Kind.TIMEOUT, Status.Code.DEADLINE_EXCEEDED, Outcome.NONE, text, last);
    }

    /** The connection broke, or the node did not answer in time: the next node may. */
    static SeriatimException broken(Status.Code code, String message, Outcome outcome) {
        return new SeriatimException(
                null, code, "", message, outcome, Retry.ELSEWHERE, Duration.ZERO, new TreeMap<>(), null);
    }

    static SeriatimException clusterChanged(String addr, String expected, String found) {
        String message = "node %s belongs to cluster %s, and not to %s".formatted(addr, found, expected);
        return new SeriatimException(
                null,
                Status.Code.FAILED_PRECONDITION,
                "CLUSTER_CHANGED",
                message,
                Outcome.NONE,
                Retry.NO,
                Duration.ZERO,
                new TreeMap<>(Map.of("cluster_id", found)),
                null);
    }

    static SeriatimException tooLarge(String log, long bytes, int max) {
        return new SeriatimException(
                null,
                Status.Code.INVALID_ARGUMENT,
                "RECORD_TOO_LARGE",
                "record of %,d bytes exceeds max_record_bytes (%,d) of log \"%s\"".formatted(bytes, max, log),
                Outcome.NONE,
                Retry.NO,
                Duration.ZERO,
                new TreeMap<>(Map.of("limit", "max_record_bytes", "max", Integer.toString(max), "log", log)),
                null);
    }

    /** Reads the status of a call as errors.proto describes. */
    static SeriatimException of(Status status, Metadata trailers) {
        ErrorInfo info = null;
        Duration pause = Duration.ZERO;
        try {
            var details = StatusProto.fromStatusAndTrailers(status, trailers);
            for (Any detail : details == null ? List.<Any>of() : details.getDetailsList()) {
                if (detail.is(ErrorInfo.class)) {
                    var found = detail.unpack(ErrorInfo.class);
                    info = found.getDomain().equals("seriatim") ? found : info;
                } else if (detail.is(RetryInfo.class)) {
                    var delay = detail.unpack(RetryInfo.class).getRetryDelay();
                    pause = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
                }
            }
        } catch (InvalidProtocolBufferException | IllegalArgumentException | ArithmeticException malformed) {
            info = null;
        }
        Status.Code code = status.getCode();
        String message = status.getDescription();
        if (message == null) {
            message = code.toString();
        }
        if (status.getCause() != null && status.getCause().getMessage() != null) {
            message += ": " + status.getCause().getMessage();
        }
        if (info != null) {
            var metadata = new TreeMap<>(info.getMetadataMap());
            Outcome outcome = parse(Outcome.class, metadata.remove("outcome"), Outcome.UNKNOWN);
            Retry retry = parse(Retry.class, metadata.remove("retry"), Retry.NO);
            return new SeriatimException(
                    null, code, info.getReason(), message, outcome, retry, pause, metadata, status.getCause());
        }
        // From gRPC itself, or from a check before the request was read.
        if (CONNECTION_BROKE.contains(code) && code != Status.Code.UNAVAILABLE) {
            message = code + ": " + message;
            code = Status.Code.UNAVAILABLE;
        }
        Outcome outcome = NOTHING_WAS_DONE.contains(code) ? Outcome.NONE : Outcome.UNKNOWN;
        Retry retry = code == Status.Code.UNAVAILABLE ? Retry.ELSEWHERE : Retry.NO;
        return new SeriatimException(
                null, code, "", message, outcome, retry, Duration.ZERO, new TreeMap<>(), status.getCause());
    }

    /** A key that is missing, or has a value of a newer version, counts as the cautious one. */
    private static <E extends Enum<E>> E parse(Class<E> type, String value, E otherwise) {
        for (E known : type.getEnumConstants()) {
            if (known.name().toLowerCase(Locale.ROOT).equals(value)) {
                return known;
            }
        }
        return otherwise;
    }

    private static Kind kindOf(String reason, Outcome outcome, Status.Code code) {
        Kind kind =
                switch (reason) {
                    case "NO_SUCH_LOG", "LOG_DELETED", "NO_SUCH_PRODUCER", "NO_SUCH_CURSOR" -> Kind.NOT_FOUND;
                    case "EXPECTED_OFFSET_MISMATCH",
                            "REVISION_MISMATCH",
                            "EPOCH_MISMATCH",
                            "LOG_ID_MISMATCH",
                            "CURSOR_BEHIND",
                            "CLUSTER_CHANGED" -> Kind.MISMATCH;
                    case "PRODUCER_FENCED", "CURSOR_FENCED" -> Kind.FENCED;
                    case "RECORD_TOO_LARGE", "REQUEST_TOO_LARGE" -> Kind.TOO_LARGE;
                    case "OFFSET_TRIMMED" -> Kind.TRIMMED;
                    case "OFFSET_PAST_END" -> Kind.PAST_END;
                    case "RECORD_DAMAGED" -> Kind.DATA_LOSS;
                    default -> null;
                };
        if (kind != null) {
            return kind;
        }
        if (outcome == Outcome.UNKNOWN) {
            return Kind.OUTCOME_UNKNOWN;
        }
        return switch (code) {
            case PERMISSION_DENIED, UNAUTHENTICATED -> Kind.NOT_ALLOWED;
            case UNAVAILABLE -> Kind.UNAVAILABLE;
            case RESOURCE_EXHAUSTED -> Kind.EXHAUSTED;
            case INVALID_ARGUMENT, UNIMPLEMENTED -> Kind.INVALID;
            case DEADLINE_EXCEEDED -> Kind.TIMEOUT;
            case CANCELLED -> Kind.CANCELLED;
            case NOT_FOUND -> Kind.NOT_FOUND;
            case OUT_OF_RANGE -> Kind.PAST_END;
            case DATA_LOSS -> Kind.DATA_LOSS;
            default -> Kind.OTHER;
        };
    }

    /** Returns the same error with the outcome of all attempts, which may change its kind. */
    SeriatimException withOutcome(Outcome combined) {
        boolean keeps = kind == Kind.CLOSED && combined != Outcome.UNKNOWN;
        return new SeriatimException(
                keeps ? kind : null, code, reason, getMessage(), combined, retry, pause, metadata, getCause());
    }

    /** Returns the same error with the stack of the calling thread. */
    SeriatimException here() {
        return new SeriatimException(kind, code, reason, getMessage(), outcome, retry, pause, metadata, this);
    }

    /** Returns what went wrong. */
    public Kind kind() {
        return kind;
    }

    /** Returns the code of the gRPC status. */
    public Status.Code code() {
        return code;
    }

    /** Returns the reason, a name from {@code errors.proto}. Empty if the error has none. */
    public String reason() {
        return reason;
    }

    /** Returns what became of the request. */
    public Outcome outcome() {
        return outcome;
    }

    /** Returns whether the same request can succeed when it is sent again. */
    public Retry retry() {
        return retry;
    }

    /** Returns whether the request may have had an effect. */
    public boolean mayHaveBeenDone() {
        return outcome != Outcome.NONE;
    }

    /** Returns the details of the reason, for example {@code first_offset}. */
    public Map<String, String> metadata() {
        return metadata == null ? Map.of() : metadata;
    }

    /** Returns the time that the server asks to wait before a retry. */
    Duration pause() {
        return pause;
    }

    /** Returns a number of the metadata, or -1 if it is missing. */
    long number(String key) {
        try {
            return Long.parseLong(metadata().getOrDefault(key, "-1"));
        } catch (NumberFormatException malformed) {
            return -1;
        }
    }

    /** Returns {@code io.seriatim.client.SeriatimException: KIND CODE (REASON): message {metadata} [outcome, retry]}. */
    @Override
    public String toString() {
        return "%s: %s %s%s: %s%s [outcome %s, retry %s]"
                .formatted(
                        getClass().getName(),
                        kind,
                        code,
                        reason.isEmpty() ? "" : " (" + reason + ")",
                        getMessage(),
                        metadata().isEmpty() ? "" : " " + metadata(),
                        outcome,
                        retry);
    }
}
