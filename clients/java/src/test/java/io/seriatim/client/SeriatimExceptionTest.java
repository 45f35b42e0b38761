package io.seriatim.client;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.google.protobuf.Any;
import com.google.protobuf.Duration;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.seriatim.client.SeriatimException.Kind;
import io.seriatim.client.SeriatimException.Outcome;
import io.seriatim.client.SeriatimException.Retry;
import java.nio.channels.ClosedChannelException;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class SeriatimExceptionTest {
    private static SeriatimException of(String domain, Map<String, String> metadata) {
        var info = ErrorInfo.newBuilder().setDomain(domain).setReason("NEW_REASON").putAllMetadata(metadata).build();
        var pause = RetryInfo.newBuilder().setRetryDelay(Duration.newBuilder().setNanos(200_000_000)).build();
        StatusRuntimeException status = StatusProto.toStatusRuntimeException(com.google.rpc.Status.newBuilder()
                .setCode(8)
                .addDetails(Any.pack(info))
                .addDetails(Any.pack(pause))
                .build());
        return SeriatimException.of(status.getStatus(), status.getTrailers());
    }

    @Test
    void an_unknown_reason_is_handled_by_its_keys() {
        var error = of("seriatim", Map.of("outcome", "none", "retry", "same", "limit", "x"));
        assertEquals(Outcome.NONE, error.outcome());
        assertEquals(Retry.SAME, error.retry());
        assertEquals(Kind.EXHAUSTED, error.kind());
        assertEquals(200, error.pause().toMillis());
        assertEquals(Map.of("limit", "x"), error.metadata());
    }

    @Test
    void missing_or_newer_keys_count_as_the_cautious_ones() {
        for (var metadata : List.of(Map.<String, String>of(), Map.of("outcome", "new", "retry", "new"))) {
            var error = of("seriatim", metadata);
            assertEquals(Outcome.UNKNOWN, error.outcome());
            assertEquals(Retry.NO, error.retry());
            assertEquals(Kind.OUTCOME_UNKNOWN, error.kind());
        }
    }

    @Test
    void details_of_another_domain_are_not_trusted() {
        assertEquals(Outcome.UNKNOWN, of("example.com", Map.of("outcome", "none", "retry", "same")).outcome());
    }

    @Test
    void malformed_details_are_none() {
        var trailers = new Metadata();
        var key = Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);
        trailers.put(key, new byte[] {(byte) 0xff, 1, 2});
        var error = SeriatimException.of(Status.INTERNAL, trailers);
        assertEquals(Outcome.UNKNOWN, error.outcome());
        assertEquals(Retry.ELSEWHERE, error.retry());
    }

    @Test
    void a_connection_that_is_closed_while_a_call_is_sent_is_broken() {
        // gRPC's status for it. It closed a producer before this was known.
        var closed = Status.UNKNOWN.withDescription("channel closed").withCause(new ClosedChannelException());
        var error = SeriatimException.of(closed, new Metadata());
        assertEquals(Status.Code.UNAVAILABLE, error.code());
        assertEquals(Retry.ELSEWHERE, error.retry());
        assertEquals(Outcome.UNKNOWN, error.outcome());
        var aborted = SeriatimException.of(Status.ABORTED, new Metadata());
        assertEquals(Retry.NO, aborted.retry());
    }

    @Test
    void the_kind_follows_the_outcome_of_all_attempts() {
        var late = SeriatimException.timeout("late", null);
        assertEquals(Kind.TIMEOUT, late.kind());
        assertEquals(Kind.OUTCOME_UNKNOWN, late.withOutcome(Outcome.UNKNOWN).kind());
        var closed = SeriatimException.closed("it");
        assertEquals(Kind.CLOSED, closed.withOutcome(Outcome.NONE).kind());
        assertEquals(Kind.OUTCOME_UNKNOWN, closed.withOutcome(Outcome.UNKNOWN).kind());
    }
}
