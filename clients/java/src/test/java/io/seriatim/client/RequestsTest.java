package io.seriatim.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.rpc.ErrorInfo;
import com.google.rpc.Status;
import io.grpc.protobuf.StatusProto;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;

class RequestsTest {
    private static final Requests.Identity ALICE = new Requests.Identity("log", "id", 1, 1);
    private static final Requests.Identity BOB = new Requests.Identity("log", "id", 2, 1);
    private static final Map<String, String> REFUSED = Map.of("outcome", "none", "retry", "same");

    private final Requests requests = new Requests(3, 100);
    private long number;

    RequestsTest() {
        requests.register(ALICE, 0);
    }

    private void add(String... values) {
        for (String value : values) {
            var record = Record.of(value);
            requests.add(new Requests.Entry(++number, record, record.bytes(), new CompletableFuture<>(), 0));
        }
    }

    private static String show(Requests.Request request) {
        return request.message().getSequence()
                + request.message().getRecordsList().stream()
                        .map(record -> record.getValue().toStringUtf8())
                        .collect(Collectors.joining(",", "[", "]"));
    }

    /** Sends what can be sent on the present stream. */
    private List<String> sends() {
        var sent = new ArrayList<String>();
        while (requests.hasNext()) {
            sent.add(show(requests.next()));
        }
        return sent;
    }

    private List<String> outcomes() {
        return requests.drain().stream()
                .map(request -> request.entries.get(0).record().text() + " " + request.outcome())
                .toList();
    }

    private static SeriatimException error(String reason, Map<String, String> metadata) {
        var info = ErrorInfo.newBuilder().setDomain("seriatim").setReason(reason).putAllMetadata(metadata);
        var status = StatusProto.toStatusRuntimeException(
                Status.newBuilder().setCode(14).addDetails(Any.pack(info.build())).build());
        return SeriatimException.of(status.getStatus(), status.getTrailers());
    }

    private static SeriatimException broken() {
        return SeriatimException.of(io.grpc.Status.UNAVAILABLE, new io.grpc.Metadata());
    }

    @Test
    void an_idle_producer_sends_at_once_and_a_busy_one_gathers() {
        add("a");
        assertEquals(List.of("1[a]"), sends());
        add("b", "c");
        assertEquals(List.of(), sends());
        add("d", "e");
        assertEquals(List.of("2[b,c,d]"), sends(), "a full request is not held back");
        requests.answered();
        assertEquals(List.of(), sends());
        requests.answered();
        assertEquals(List.of("3[e]"), sends());
    }

    @Test
    void a_request_is_full_at_its_size() {
        String large = "x".repeat(99);
        add("a", "b", large, large);
        assertEquals(List.of("1[a,b]", "2[" + large + "]"), sends());
        add("c");
        assertEquals(List.of("3[" + large + ",c]"), sends());
    }

    @Test
    void at_most_32_requests_are_unanswered() {
        for (int i = 0; i < 50; i++) {
            add("a", "b", "c");
        }
        assertEquals(32, sends().size());
        requests.answered();
        assertEquals(List.of("33[a,b,c]"), sends());
    }

    @Test
    void at_most_4_mib_are_unanswered() {
        var large = new Requests(1000, 512 << 10);
        large.register(ALICE, 0);
        var record = Record.of(new byte[300 << 10]);
        for (int i = 0; i < 50; i++) {
            large.add(new Requests.Entry(i, record, record.bytes(), new CompletableFuture<>(), 0));
        }
        int bytes = 0;
        while (large.hasNext()) {
            bytes += large.next().message().getSerializedSize();
        }
        assertTrue(bytes <= 4 << 20 && bytes > 3 << 20, "bytes " + bytes);
    }

    @Test
    void requests_are_sent_again_as_they_were() {
        add("a", "b", "c", "d", "e", "f", "g");
        assertEquals(List.of("1[a,b,c]", "2[d,e,f]"), sends());
        requests.answered();
        requests.streamFailed(broken());
        add("h", "i");
        assertEquals(List.of("2[d,e,f]", "3[g,h,i]"), sends());
        assertThrows(IllegalStateException.class, () -> {
            requests.answered();
            requests.answered();
            requests.answered();
        });
        assertTrue(requests.isEmpty());
    }

    @Test
    void a_broken_stream_leaves_what_was_sent_unknown() {
        add("a", "b", "c", "d");
        sends();
        requests.streamFailed(broken());
        assertEquals(List.of("a UNKNOWN", "d NONE"), outcomes());
    }

    @Test
    void a_refusal_says_nothing_about_an_earlier_attempt() {
        add("a");
        sends();
        requests.streamFailed(broken());
        sends();
        requests.streamFailed(error("ANY", REFUSED));
        assertEquals(List.of("a UNKNOWN"), outcomes());
    }

    @Test
    void refusals_alone_leave_the_outcome_none() {
        add("a");
        sends();
        requests.streamFailed(error("ANY", REFUSED));
        sends();
        requests.streamFailed(error("ANY", REFUSED));
        assertEquals(List.of("a NONE"), outcomes());
    }

    @Test
    void an_unknown_outcome_reaches_as_far_as_the_error_says() {
        add("a", "a", "a", "b", "b", "b", "c", "c", "c", "d", "d", "d");
        assertEquals(4, sends().size());
        requests.answered();
        requests.streamFailed(error(
                "ANY", Map.of("outcome", "unknown", "retry", "no", "failed_request", "1", "unknown_through", "2")));
        assertEquals(List.of("b UNKNOWN", "c UNKNOWN", "d NONE"), outcomes());
    }

    @Test
    void a_request_whose_answer_is_lost_is_done() {
        add("a", "a", "a", "b", "b", "b");
        sends();
        requests.streamFailed(error("ANY", Map.of("outcome", "done", "retry", "no", "failed_request", "0")));
        assertTrue(requests.isFirstDone());
        requests.answerLost();
        assertFalse(requests.isFirstDone());
        assertEquals(List.of("2[b,b,b]"), sends());
    }

    @Test
    void another_registration_numbers_anew_what_was_not_appended() {
        add("a", "b", "c", "d");
        sends();
        requests.answered();
        assertEquals(List.of("2[d]"), sends());
        requests.streamEnded();
        requests.register(BOB, 0);
        assertEquals(List.of("1[d]"), sends());
        assertEquals(2, requests.first().message().getProducerId());
    }

    @Test
    void another_registration_is_refused_if_a_request_may_have_been_appended() {
        add("a");
        sends();
        requests.streamFailed(broken());
        assertThrows(IllegalStateException.class, () -> requests.register(BOB, 0));
    }

    @Test
    void records_above_a_lower_limit_are_removed_and_the_rest_keeps_its_order() {
        add("a", "too large", "b", "too large", "c", "also too large", "d");
        assertEquals(2, sends().size());
        requests.streamFailed(error("RECORD_TOO_LARGE", Map.of("outcome", "none", "retry", "no", "failed_request", "0")));
        assertEquals(3, requests.removeLarger(5).size());
        assertEquals(List.of("1[a,b]", "2[c]"), sends());
        requests.answered();
        requests.answered();
        assertEquals(List.of("3[d]"), sends());
    }

    @Test
    void a_request_of_which_nothing_is_left_needs_no_number() {
        add("too large");
        sends();
        add("a");
        requests.streamFailed(error("RECORD_TOO_LARGE", Map.of("outcome", "none", "retry", "no", "failed_request", "0")));
        requests.removeLarger(5);
        assertEquals(List.of("1[a]"), sends());
    }
}
