package seriatim.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * What an error of Seriatim tells a client to do.
 *
 * <p>Written against proto/seriatim/v1/errors.proto. It decides by the keys {@code outcome} and {@code retry} of ErrorInfo and by
 * RetryInfo. It knows no reason, because newer servers may send others.
 *
 * @param outcome what became of the request: "none", "done" or "unknown"
 * @param retry whether the same request can succeed: "no", "same" (the same node), "elsewhere" (another one), "later" (after a
 *     person acted)
 * @param pause the pause that RetryInfo asks for; otherwise zero
 * @param reason for people: the reason of ErrorInfo; may be empty
 * @param metadata for people: the other keys of ErrorInfo
 * @param connectionBroke whether the connection broke or none was made. Only a read may then be sent again: it changes nothing
 */
record Failure(
        Status status,
        String outcome,
        String retry,
        Duration pause,
        String reason,
        Map<String, String> metadata,
        boolean connectionBroke) {
    private static final Set<Status.Code> NOTHING_WAS_DONE = EnumSet.of(
            Status.Code.UNAUTHENTICATED,
            Status.Code.PERMISSION_DENIED,
            Status.Code.UNIMPLEMENTED);

    static Failure of(StatusRuntimeException error) {
        var info = ErrorInfo.getDefaultInstance();
        var pause = Duration.ZERO;
        var details = StatusProto.fromThrowable(error);
        try {
            for (Any detail : details == null ? List.<Any>of() : details.getDetailsList()) {
                if (detail.is(ErrorInfo.class)) {
                    info = detail.unpack(ErrorInfo.class);
                } else if (detail.is(RetryInfo.class)) {
                    var delay = detail.unpack(RetryInfo.class).getRetryDelay();
                    pause = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
                }
            }
        } catch (InvalidProtocolBufferException bad) {
            info = ErrorInfo.getDefaultInstance(); // As if the keys were missing.
        }
        Status status = error.getStatus();
        var metadata = new TreeMap<>(info.getMetadataMap());
        if (info.getDomain().equals("seriatim")) {
            String outcome = metadata.remove("outcome");
            String retry = metadata.remove("retry");
            outcome = outcome == null ? "unknown" : outcome;
            retry = retry == null ? "no" : retry;
            return new Failure(status, outcome, retry, pause, info.getReason(), metadata, false);
        }
        // Comes from gRPC itself, or from a check before the request was read.
        String outcome = NOTHING_WAS_DONE.contains(status.getCode()) ? "none" : "unknown";
        boolean broke = status.getCode() == Status.Code.UNAVAILABLE;
        return new Failure(status, outcome, "no", pause, info.getReason(), metadata, broke);
    }

    /** Returns {@code CODE (REASON): message {metadata} [outcome, retry]}. */
    @Override
    public String toString() {
        return "%s%s: %s%s [outcome %s, retry %s]"
                .formatted(
                        status.getCode(),
                        reason.isEmpty() ? "" : " (" + reason + ")",
                        status.getDescription(),
                        metadata.isEmpty() ? "" : " " + metadata,
                        outcome,
                        retry);
    }
}
