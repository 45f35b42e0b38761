package io.seriatim.driver;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import io.seriatim.client.Ack;
import io.seriatim.client.ConsumedRecord;
import io.seriatim.client.Consumer;
import io.seriatim.client.Producer;
import io.seriatim.client.Record;
import io.seriatim.client.SeriatimClient;
import io.seriatim.client.SeriatimException;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executor;
import java.util.concurrent.Executors;
import java.util.function.Function;

/** The driver of the conformance test. clients/conformance/README.md describes the commands. */
public final class Driver {
    private static final Gson JSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();
    private static final PrintStream OUT = new PrintStream(System.out, false, StandardCharsets.UTF_8);
    private static final Map<String, Set<String>> FIELDS = Map.ofEntries(
            Map.entry("connect", Set.of("addrs", "tls", "options")),
            Map.entry("ready", Set.of("timeout_ms")),
            Map.entry(
                    "producer",
                    Set.of("producer", "log", "name", "batch_records", "batch_bytes", "buffer_bytes", "delivery_ms")),
            Map.entry("send", Set.of("producer", "value", "key", "headers", "type")),
            Map.entry("send_many", Set.of("producer", "prefix", "count")),
            Map.entry("flush", Set.of("producer", "timeout_ms")),
            Map.entry("close_producer", Set.of("producer", "timeout_ms")),
            Map.entry(
                    "consumer",
                    Set.of(
                            "consumer",
                            "log",
                            "start",
                            "offset",
                            "time_us",
                            "cursor",
                            "skip_trimmed",
                            "auto_commit_ms",
                            "heartbeat_ms",
                            "max_silence_ms")),
            Map.entry("next", Set.of("consumer", "max", "timeout_ms")),
            Map.entry("commit", Set.of("consumer")),
            Map.entry("close_consumer", Set.of("consumer")),
            Map.entry("get_cursor", Set.of("log", "cursor")),
            Map.entry("close", Set.of()));

    /** The answer to a command. Null: it follows later. */
    private interface Action {
        Map<String, Object> run() throws Exception;
    }

    /** A producer, and the commands that wait for space in its buffer. They are executed in order. */
    private static final class Sender {
        private final Producer producer;
        private final Queue<Runnable> waiting = new ArrayDeque<>();

        private Sender(Producer producer) {
            this.producer = producer;
        }
    }

    private final Executor pool = Executors.newCachedThreadPool(task -> {
        var thread = new Thread(task, "driver");
        thread.setDaemon(true);
        return thread;
    });
    private final Map<String, Sender> senders = new ConcurrentHashMap<>();
    private final Map<String, Consumer> consumers = new ConcurrentHashMap<>();
    private SeriatimClient client;

    private Driver() {}

    public static void main(String[] args) throws IOException {
        var driver = new Driver();
        var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            driver.execute(JSON.fromJson(line, JsonObject.class));
        }
        System.exit(0);
    }

    private void execute(JsonObject command) throws IOException {
        String op = command.get("op").getAsString();
        for (String field : command.keySet()) {
            if (!field.equals("id") && !field.equals("op") && !FIELDS.getOrDefault(op, Set.of()).contains(field)) {
                answer(command, Map.of("error", describe(new IllegalArgumentException("unknown field " + field))));
                return;
            }
        }
        switch (op) {
            case "connect" -> now(command, () -> connect(command));
            case "send" -> send(command, List.of(record(command)), acks -> Driver.sent(acks.get(0)));
            case "send_many" -> send(command, records(command), Driver::sentMany);
            case "flush" -> flush(command);
            case "ready" -> later(command, () -> {
                client.ready(millis(command, "timeout_ms"));
                return Map.of();
            });
            case "producer" -> later(command, () -> producer(command));
            case "close_producer" -> now(command, () -> {
                var producer = sender(command).producer;
                producer.shutdown();
                later(command, () -> {
                    producer.close(millis(command, "timeout_ms"));
                    return Map.of();
                });
                return null;
            });
            case "consumer" -> later(command, () -> consumer(command));
            case "next" -> later(command, () -> next(command));
            case "commit" -> later(command, () -> Map.of("next_offset", reader(command).commit()));
            case "close_consumer" -> later(command, () -> {
                reader(command).close();
                return Map.of();
            });
            case "get_cursor" -> later(command, () -> {
                var cursor = client.cursor(text(command, "log"), text(command, "cursor"));
                return Map.of("next_offset", cursor.nextOffset(), "epoch", cursor.epoch(), "lag", cursor.lag());
            });
            case "close" -> later(command, () -> {
                client.close();
                return Map.of();
            });
            default -> now(command, () -> {
                throw new IllegalArgumentException("unknown op " + op);
            });
        }
    }

    private static void now(JsonObject command, Action action) {
        Map<String, Object> fields;
        try {
            fields = action.run();
        } catch (Exception error) {
            fields = Map.of("error", describe(error));
        }
        if (fields != null) {
            answer(command, fields);
        }
    }

    private void later(JsonObject command, Action action) {
        pool.execute(() -> now(command, action));
    }

    private static synchronized void answer(JsonObject command, Map<String, Object> fields) {
        var line = new LinkedHashMap<String, Object>();
        line.put("id", command.get("id"));
        line.putAll(fields);
        OUT.println(JSON.toJson(line));
        OUT.flush();
    }

    private static Map<String, Object> describe(Throwable thrown) {
        Throwable error = thrown instanceof CompletionException ? thrown.getCause() : thrown;
        var fields = new LinkedHashMap<String, Object>();
        if (error instanceof SeriatimException failed) {
            fields.put("kind", failed.kind().name().toLowerCase(Locale.ROOT));
            fields.put("code", failed.code().name());
            fields.put("reason", failed.reason());
            fields.put("outcome", failed.outcome().name().toLowerCase(Locale.ROOT));
            fields.put("retry", failed.retry().name().toLowerCase(Locale.ROOT));
            fields.put("message", failed.getMessage());
            fields.put("metadata", failed.metadata());
        } else {
            boolean isInvalid = error instanceof IllegalArgumentException || error instanceof IOException;
            fields.put("kind", isInvalid ? "invalid" : "other");
            fields.put("code", isInvalid ? "INVALID_ARGUMENT" : "INTERNAL");
            fields.put("reason", "");
            fields.put("outcome", "none");
            fields.put("retry", "no");
            fields.put("message", error.toString());
            fields.put("metadata", Map.of());
        }
        return fields;
    }

    // --- Commands ---------------------------------------------------------------

    private Map<String, Object> connect(JsonObject command) throws IOException {
        var addrs = new ArrayList<String>();
        command.getAsJsonArray("addrs").forEach(addr -> addrs.add(addr.getAsString()));
        var builder = SeriatimClient.builder(addrs.toArray(String[]::new));
        if (command.has("tls")) {
            var tls = command.getAsJsonObject("tls");
            builder.tls(Path.of(text(tls, "ca")), Path.of(text(tls, "cert")), Path.of(text(tls, "key")));
        }
        if (command.has("options")) {
            connectOptions(builder, command.getAsJsonObject("options"));
        }
        client = builder.build();
        return Map.of();
    }

    private static void connectOptions(SeriatimClient.Builder builder, JsonObject options) {
        Duration min = Duration.ofMillis(100);
        Duration max = Duration.ofSeconds(5);
        for (String name : options.keySet()) {
            Duration value = millis(options, name);
            switch (name) {
                case "attempt_ms" -> builder.attemptTimeout(value);
                case "operation_ms" -> builder.operationTimeout(value);
                case "connect_ms" -> builder.connectTimeout(value);
                case "backoff_min_ms" -> min = value;
                case "backoff_max_ms" -> max = value;
                default -> throw new IllegalArgumentException("unknown option " + name);
            }
        }
        builder.backoff(min, max);
    }

    private Map<String, Object> producer(JsonObject command) {
        var builder = client.producer(text(command, "log"));
        if (command.has("name")) {
            builder.name(text(command, "name"));
        }
        if (command.has("batch_records")) {
            builder.batchRecords(command.get("batch_records").getAsInt());
        }
        if (command.has("batch_bytes")) {
            builder.batchBytes(command.get("batch_bytes").getAsInt());
        }
        if (command.has("buffer_bytes")) {
            builder.bufferBytes(command.get("buffer_bytes").getAsLong());
        }
        if (command.has("delivery_ms")) {
            builder.deliveryTimeout(millis(command, "delivery_ms"));
        }
        var producer = builder.create();
        senders.put(text(command, "producer"), new Sender(producer));
        return Map.of(
                "last_sequence", producer.lastSequence(),
                "last_offset", producer.lastOffset(),
                "records", producer.records());
    }

    private Sender sender(JsonObject command) {
        return find(senders, text(command, "producer"));
    }

    private Consumer reader(JsonObject command) {
        return find(consumers, text(command, "consumer"));
    }

    private static <T> T find(Map<String, T> all, String name) {
        T found = all.get(name);
        if (found == null) {
            throw new IllegalArgumentException("there is no " + name);
        }
        return found;
    }

    private static Record record(JsonObject command) {
        var record = Record.builder(bytes(command.get("value")));
        if (command.has("key")) {
            record.key(bytes(command.get("key")));
        }
        if (command.has("headers")) {
            for (JsonElement header : command.getAsJsonArray("headers")) {
                var pair = header.getAsJsonArray();
                record.header(pair.get(0).getAsString(), bytes(pair.get(1)));
            }
        }
        if (command.has("type")) {
            record.type(command.get("type").getAsInt());
        }
        return record.build();
    }

    private static List<Record> records(JsonObject command) {
        var records = new ArrayList<Record>();
        for (int i = 0; i < command.get("count").getAsInt(); i++) {
            records.add(Record.of((text(command, "prefix") + i).getBytes(StandardCharsets.ISO_8859_1)));
        }
        return records;
    }

    /** Sends at once what the buffer takes, and the rest in a thread that waits, so that the next commands can be read. */
    private void send(
            JsonObject command, List<Record> records, Function<List<Ack>, Map<String, Object>> result) {
        var acks = new ArrayList<CompletableFuture<Ack>>();
        Sender sender;
        try {
            sender = sender(command);
        } catch (IllegalArgumentException error) {
            answer(command, Map.of("error", describe(error)));
            return;
        }
        synchronized (sender) {
            while (sender.waiting.isEmpty() && acks.size() < records.size()) {
                var ack = sender.producer.send(records.get(acks.size()), Duration.ZERO);
                if (isFull(ack)) {
                    break;
                }
                acks.add(ack);
            }
            if (acks.size() < records.size()) {
                enqueue(sender, () -> {
                    for (Record record : records.subList(acks.size(), records.size())) {
                        acks.add(sender.producer.send(record));
                    }
                    answerAll(command, acks, result);
                });
                return;
            }
        }
        answerAll(command, acks, result);
    }

    private static boolean isFull(CompletableFuture<Ack> ack) {
        if (!ack.isCompletedExceptionally()) {
            return false;
        }
        try {
            ack.join();
            return false;
        } catch (CompletionException error) {
            return error.getCause() instanceof SeriatimException failed
                    && failed.kind() == SeriatimException.Kind.TIMEOUT
                    && failed.getMessage().contains("buffer");
        }
    }

    private void enqueue(Sender sender, Runnable task) {
        synchronized (sender) {
            sender.waiting.add(task);
            if (sender.waiting.size() > 1) {
                return;
            }
        }
        pool.execute(() -> {
            for (Runnable next = task; next != null; ) {
                next.run();
                synchronized (sender) {
                    sender.waiting.remove();
                    next = sender.waiting.peek();
                }
            }
        });
    }

    private static void answerAll(
            JsonObject command,
            List<CompletableFuture<Ack>> acks,
            Function<List<Ack>, Map<String, Object>> result) {
        CompletableFuture.allOf(acks.toArray(CompletableFuture[]::new)).whenComplete((done, failed) -> now(command, () -> {
            // The first error, in the order of the records.
            return result.apply(acks.stream().map(CompletableFuture::join).toList());
        }));
    }

    private static Map<String, Object> sent(Ack ack) {
        var fields = new LinkedHashMap<String, Object>();
        fields.put("offset", offset(ack));
        fields.put("duplicate", ack.duplicate());
        return fields;
    }

    private static Map<String, Object> sentMany(List<Ack> acks) {
        var fields = new LinkedHashMap<String, Object>();
        fields.put("first_offset", offset(acks.get(0)));
        fields.put("last_offset", offset(acks.get(acks.size() - 1)));
        fields.put("duplicates", acks.stream().filter(Ack::duplicate).count());
        return fields;
    }

    private static Long offset(Ack ack) {
        return ack.offset() == Ack.UNKNOWN_OFFSET ? null : ack.offset();
    }

    private void flush(JsonObject command) {
        Runnable flush = () -> later(command, () -> {
            sender(command).producer.flush(millis(command, "timeout_ms"));
            return Map.of();
        });
        var sender = senders.get(text(command, "producer"));
        if (sender == null) {
            flush.run();
            return;
        }
        synchronized (sender) {
            if (!sender.waiting.isEmpty()) {
                sender.waiting.add(flush);
                return;
            }
        }
        flush.run();
    }

    private Map<String, Object> consumer(JsonObject command) {
        var builder = client.consumer(text(command, "log"));
        String start = command.has("start") ? text(command, "start") : "earliest";
        switch (start) {
            case "earliest" -> builder.fromEarliest();
            case "latest" -> builder.fromLatest();
            case "offset" -> builder.fromOffset(command.get("offset").getAsLong());
            case "time" -> builder.fromTime(Instant.EPOCH.plus(command.get("time_us").getAsLong(), ChronoUnit.MICROS));
            case "last" -> builder.fromLast(command.get("offset").getAsLong());
            default -> throw new IllegalArgumentException("unknown start " + start);
        }
        if (command.has("cursor")) {
            builder.cursor(text(command, "cursor"));
        }
        if (command.has("skip_trimmed")) {
            builder.skipTrimmed(command.get("skip_trimmed").getAsBoolean());
        }
        if (command.has("auto_commit_ms")) {
            builder.autoCommit(millis(command, "auto_commit_ms"));
        }
        if (command.has("heartbeat_ms")) {
            builder.heartbeat(millis(command, "heartbeat_ms"));
        }
        if (command.has("max_silence_ms")) {
            builder.maxSilence(millis(command, "max_silence_ms"));
        }
        consumers.put(text(command, "consumer"), builder.create());
        return Map.of();
    }

    private Map<String, Object> next(JsonObject command) {
        var consumer = reader(command);
        var records = new ArrayList<Map<String, Object>>();
        int max = command.get("max").getAsInt();
        long end = System.nanoTime() + millis(command, "timeout_ms").toNanos();
        synchronized (consumer) {
            long skipped = consumer.skipped();
            try {
                do {
                    var left = Duration.ofNanos(Math.max(0, end - System.nanoTime()));
                    // One by one: with auto_commit, a record counts once the next one is asked for.
                    for (ConsumedRecord record : consumer.poll(left, 1)) {
                        String value = new String(record.value(), StandardCharsets.ISO_8859_1);
                        records.add(Map.of("offset", record.offset(), "value", value));
                    }
                } while (records.size() < max && end - System.nanoTime() > 0);
            } catch (SeriatimException error) {
                if (records.isEmpty()) {
                    throw error; // Otherwise the next command gets it.
                }
            }
            return Map.of("records", records, "skipped", consumer.skipped() - skipped);
        }
    }

    private static String text(JsonObject command, String field) {
        return command.get(field).getAsString();
    }

    private static Duration millis(JsonObject command, String field) {
        return Duration.ofMillis(command.get(field).getAsLong());
    }

    private static byte[] bytes(JsonElement text) {
        return text.getAsString().getBytes(StandardCharsets.ISO_8859_1);
    }
}
