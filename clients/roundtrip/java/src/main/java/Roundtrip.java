import com.google.protobuf.ByteString;
import com.google.protobuf.CodedOutputStream;
import com.google.protobuf.Descriptors.EnumDescriptor;
import com.google.protobuf.Message;
import com.google.protobuf.Parser;
import com.google.protobuf.util.JsonFormat;
import io.seriatim.v1.*;
// Beside java.lang.Record, the name is ambiguous without this line.
import io.seriatim.v1.Record;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;
import java.util.List;
import java.util.Objects;
import java.util.stream.Collectors;

/** Decodes and encodes the golden messages with Java's generated code: Roundtrip GOLDEN. Links log.v1 too. */
public final class Roundtrip {
    private static final String UNICODE = "größe 大小 😀";

    public static void main(String[] args) throws Exception {
        var out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        var json = JsonFormat.printer().omittingInsignificantWhitespace();
        var golden = Path.of(args[0]);
        int checked = 0;
        for (String line : Files.readAllLines(golden.resolve("samples.txt"))) {
            String name = line.split(" ")[0];
            byte[] bytes = Files.readAllBytes(golden.resolve(name + ".bin"));
            var message = parser(line.split(" ")[1]).parseFrom(bytes);
            checked += check(name, message) ? 1 : 0;
            if (name.equals("record_extreme")) {
                var old = io.seriatim.log.v1.Record.parseFrom(bytes);
                expect(List.of(old.getOffset(), old.hasKey(), hex(encoded(old))), List.of(Long.MAX_VALUE, true, hex(bytes)));
            }
            out.printf("{\"name\":\"%s\",\"bytes\":\"%s\",\"json\":%s}%n", name, hex(encoded(message)), json.print(message));
        }
        expect(checked, 6);
        // One enum and one message of each file.
        for (var file : List.of(
                Reason.getDescriptor().getFile(), Record.getDescriptor().getFile(), GetNodeResponse.getDescriptor().getFile())) {
            file.getEnumTypes().forEach(type -> out.println(text(type)));
        }
    }

    /** Returns the parser of a message of seriatim.v1. */
    @SuppressWarnings("unchecked")
    private static Parser<? extends Message> parser(String type) throws ReflectiveOperationException {
        return (Parser<? extends Message>) Class.forName("io." + type).getMethod("parser").invoke(null);
    }

    private static byte[] encoded(Message message) throws IOException {
        var bytes = new ByteArrayOutputStream();
        var coded = CodedOutputStream.newInstance(bytes);
        coded.useDeterministicSerialization();
        message.writeTo(coded);
        coded.flush();
        return bytes.toByteArray();
    }

    private static String hex(byte[] bytes) {
        return HexFormat.of().formatHex(bytes);
    }

    private static String text(EnumDescriptor type) {
        return type.getValues().stream()
                .map(value -> "\"" + value.getName() + "\":" + value.getNumber())
                .collect(Collectors.joining(",", "{\"name\":\"" + type.getFullName() + "\",\"enum\":{", "}}"));
    }

    /** Reads some fields by their generated names. Returns whether the message has a check. */
    private static boolean check(String name, Message message) {
        switch (name) {
            case "record_extreme" -> {
                var m = (Record) message;
                expect(List.of(m.getOffset(), m.getTerm()), List.of(Long.MAX_VALUE, (1L << 53) + 1));
                // Java's integers are signed.
                expect(List.of(m.getAppendTimeUs(), m.getType()), List.of(-1L, -1));
                expect(List.of(m.hasKey(), m.getKey()), List.of(true, ByteString.EMPTY));
                expect(m.getClientTimeUs(), -2L);
                expect(m.getHeadersList().stream().map(Header::getName).toList(), List.of(UNICODE, UNICODE, ""));
            }
            case "record_without_key" -> {
                var m = (Record) message;
                expect(List.of(m.hasKey(), m.hasClientTimeUs()), List.of(false, false));
                expect(m.getValue().toStringUtf8(), "v");
            }
            case "get_node_response_full" -> {
                var m = (GetNodeResponse) message;
                expect(m.getMetrics(2).getValueCase(), Metric.ValueCase.GAUGE);
                expect(m.getMetrics(2).getGauge(), -(1L << 53) - 1);
                expect(m.getMetrics(0).getLabelsOrThrow("ä"), "1");
                expect(m.getMetrics(4).getHistogram().getBuckets(1).getUpperBound(), Double.POSITIVE_INFINITY);
                expect(m.getGroups(1).getRole(), Role.ROLE_LEADER);
                expect(m.getDisk().getState(), DiskState.DISK_STATE_FULL);
                var damaged = m.getGroups(1).getDamagedRangesList();
                expect(damaged.stream().map(DamagedRange::hasNextOffset).toList(), List.of(true, false));
            }
            case "update_log_request_full" -> {
                var m = (UpdateLogRequest) message;
                expect(m.hasLogId() && m.getConfig().hasMinRetainedBytes() && !m.getConfig().hasMaxRecordBytes(), true);
                expect(m.getUpdateMask().getPathsCount(), 3);
            }
            case "create_log_request_full" -> {
                var m = (CreateLogRequest) message;
                expect(List.of(m.hasLogId(), m.getValidateOnly()), List.of(true, true));
                expect(List.of(m.getConfig().getReplicas(), m.getConfig().getLabelsOrThrow("team")), List.of(-1, UNICODE));
            }
            case "update_cluster_request_full" -> {
                var m = (UpdateClusterRequest) message;
                var settings = m.getSettings();
                expect(settings.hasCreateOnAppend() && !settings.getCreateOnAppend(), true);
                expect(settings.hasDeletedLogRetention() && m.hasExpectedRevision(), true);
                expect(settings.getLogDefaults().hasReplicas() && !settings.getLogDefaults().hasRetentionAge(), true);
                expect(m.getUpdateMask().getPaths(0), "log_defaults.retention_age");
            }
            default -> {
                return false;
            }
        }
        return true;
    }

    private static void expect(Object got, Object expected) {
        if (!Objects.equals(got, expected)) {
            throw new AssertionError(got + " instead of " + expected);
        }
    }
}
