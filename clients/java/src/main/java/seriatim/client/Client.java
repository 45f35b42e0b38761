package seriatim.client;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.protobuf.ByteString;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import io.seriatim.v1.ConsumeRequest;
import io.seriatim.v1.GetServersRequest;
import io.seriatim.v1.Header;
import io.seriatim.v1.LogServiceGrpc;
import io.seriatim.v1.ProduceRequest;
import io.seriatim.v1.ProduceResponse;
import io.seriatim.v1.Record;
import io.seriatim.v1.Server;
import io.seriatim.v1.Start;
import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Semaphore;
import java.util.function.Consumer;

/**
 * A client of Seriatim: produces, consumes and tails on any node, over mutual TLS.
 *
 * <p>Written against proto/seriatim/v1 only. Prints records as JSON, one per line, and bytes as UTF-8. README.md has examples.
 */
public final class Client {
    private static final String USAGE =
            """
            client [--addr HOST:PORT,...] [--certs DIR] [--user NAME] [--log NAME] COMMAND
              produce [--key K] [--header NAME=VALUE]... [--type N] VALUE...   one batch: all or nothing
              pipe                                      each line of stdin is a record
              get OFFSET                                one record
              consume [--from FROM] [--max-records N]   the existing records. FROM: an offset, earliest (default) or latest
              tail [--from FROM] [--max-records N]      the same, then new records. N: per message; 0: the server decides
              servers                                   the members, and which leads the log
            """;
    private static final Gson JSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    /** One log, seen by one user. */
    private final Nodes nodes;

    private final String name;

    private Client(Nodes nodes, String name) {
        this.nodes = nodes;
        this.name = name;
    }

    public static void main(String[] words) {
        System.exit(run(new Arguments(words)));
    }

    private static int run(Arguments args) {
        try {
            var options = new TreeMap<>(Map.of("--addr", "localhost:8400", "--certs", "certs", "--user", "root", "--log", ""));
            var known = new TreeMap<String, Consumer<String>>();
            options.keySet().forEach(name -> known.put(name, value -> options.put(name, value)));
            args.options(known);
            String command = args.word("a command");
            String[] addrs = options.get("--addr").split(",");
            try (var nodes = new Nodes(addrs, Path.of(options.get("--certs")), options.get("--user"))) {
                new Client(nodes, options.get("--log")).call(command, args);
            }
            return 0;
        } catch (StatusRuntimeException error) {
            System.err.println("error: " + Failure.of(error));
            return 1;
        } catch (Arguments.UsageException error) {
            System.err.print("error: " + error.getMessage() + "\n" + USAGE);
            return 2;
        } catch (IOException | NumberFormatException error) {
            System.err.println("error: " + error.getMessage());
            return 1;
        } catch (InterruptedException error) {
            return 130;
        }
    }

    private void call(String command, Arguments args)
            throws IOException, InterruptedException, Arguments.UsageException {
        switch (command) {
            case "produce" -> produce(args);
            case "pipe" -> pipe(System.in);
            case "get" -> get(Long.parseUnsignedLong(args.word("an offset")));
            case "consume" -> consume(args, true);
            case "tail" -> consume(args, false);
            case "servers" -> servers();
            default -> throw new Arguments.UsageException("there is no command " + command);
        }
    }

    /** Appends the values as one batch, completely or not at all, and prints the offset of each. */
    private void produce(Arguments args) throws Arguments.UsageException, InterruptedException {
        var common = Record.newBuilder();
        args.options(Map.of(
                "--key", key -> common.setKey(ByteString.copyFromUtf8(key)), // Present, even if it is empty.
                "--type", type -> common.setType(Integer.parseUnsignedInt(type)),
                "--header", header -> common.addHeaders(header(header))));
        var request = ProduceRequest.newBuilder().setLog(name);
        for (String value : args.rest()) {
            request.addRecords(common.clone().setValue(ByteString.copyFromUtf8(value)));
        }
        ProduceResponse response = nodes.call(false, node -> node.produce(request.build()));
        for (int i = 0; i < response.getCount(); i++) {
            OUT.println(Long.toUnsignedString(response.getOffset() + i));
        }
    }

    private static Header header(String text) {
        int at = text.indexOf('=');
        String value = at < 0 ? "" : text.substring(at + 1);
        return Header.newBuilder()
                .setName(at < 0 ? text : text.substring(0, at))
                .setValue(ByteString.copyFromUtf8(value))
                .build();
    }

    /**
     * Sends each line as a record, without waiting for responses, and prints the offset of each.
     *
     * <p>It sends nothing again: that needs the requests that have no response yet, and failed_request of the error.
     */
    private void pipe(InputStream input) throws IOException, InterruptedException {
        var stream = new Pipe();
        LogServiceGrpc.newStub(nodes.channel()).produceStream(stream);
        var sender = new Thread(() -> sendLines(stream, new BufferedInputStream(input)), "sender");
        sender.setDaemon(true); // It may wait forever for a line after the stream has failed.
        sender.start();
        try {
            stream.ended.get();
        } catch (ExecutionException error) {
            if (error.getCause() instanceof StatusRuntimeException status) {
                throw status;
            }
            throw new IOException(error.getCause().getMessage());
        }
    }

    private void sendLines(Pipe stream, InputStream lines) {
        try {
            for (ByteString line = line(lines); line != null && !stream.ended.isDone(); line = line(lines)) {
                var record = Record.newBuilder().setValue(line);
                stream.send(ProduceRequest.newBuilder().setLog(name).addRecords(record).build());
            }
            stream.requests.onCompleted();
        } catch (IOException | InterruptedException error) {
            stream.ended.completeExceptionally(error);
        }
    }

    /** A stream of requests, sent no faster than the server reads them, and its responses. */
    private static final class Pipe implements ClientResponseObserver<ProduceRequest, ProduceResponse> {
        final CompletableFuture<Void> ended = new CompletableFuture<>();
        ClientCallStreamObserver<ProduceRequest> requests;
        private final Semaphore changed = new Semaphore(0);

        @Override
        public void beforeStart(ClientCallStreamObserver<ProduceRequest> requests) {
            this.requests = requests;
            requests.setOnReadyHandler(changed::release);
        }

        void send(ProduceRequest request) throws InterruptedException {
            while (!requests.isReady() && !ended.isDone()) {
                changed.acquire();
            }
            requests.onNext(request); // Dropped once the stream has ended; its status has the reason.
        }

        @Override
        public void onNext(ProduceResponse response) {
            OUT.println(Long.toUnsignedString(response.getOffset()));
        }

        @Override
        public void onError(Throwable error) {
            ended.completeExceptionally(error);
            changed.release();
        }

        @Override
        public void onCompleted() {
            ended.complete(null);
            changed.release();
        }
    }

    /** Returns the bytes up to the next newline, or null at the end. */
    private static ByteString line(InputStream input) throws IOException {
        var line = new ByteArrayOutputStream();
        int next = input.read();
        if (next < 0) {
            return null;
        }
        while (next >= 0 && next != '\n') {
            line.write(next);
            next = input.read();
        }
        return ByteString.copyFrom(line.toByteArray());
    }

    /** Prints one record. */
    private void get(long offset) throws IOException, InterruptedException {
        var request = ConsumeRequest.newBuilder().setLog(name).setOffset(offset).setMaxRecords(1).build();
        List<Record> records = nodes.call(true, node -> node.consume(request)).getRecordsList();
        if (records.isEmpty()) {
            throw new IOException("there is no record at offset " + unsigned(offset) + " yet: it is the next one");
        }
        show(records.get(0));
    }

    /** Prints the records from an offset (by default the first); then ends, or waits for more. */
    private void consume(Arguments args, boolean stopAtEnd) throws Arguments.UsageException, InterruptedException {
        var request = ConsumeRequest.newBuilder()
                .setLog(name)
                .setStart(Start.START_EARLIEST)
                .setStopAtEnd(stopAtEnd);
        args.options(Map.of(
                "--from", from -> setStart(request, from),
                "--max-records", max -> request.setMaxRecords(Integer.parseUnsignedInt(max))));
        long until = Nodes.deadline();
        boolean hasAnswered = false;
        while (true) {
            try {
                var responses = LogServiceGrpc.newBlockingStub(nodes.channel()).consumeStream(request.build());
                for (int message = 0; responses.hasNext(); message++) {
                    var response = responses.next();
                    response.getRecordsList().forEach(Client::show);
                    // Where to continue after an error. The first message has no records if there are none; it says this too.
                    request.setStart(Start.START_OFFSET).setOffset(response.getResumeOffset());
                    if (!request.hasLogId()) {
                        request.setLogId(response.getLogId());
                    }
                    // A node sends the first message before it has read anything: that is not a success yet.
                    if (message > 0) {
                        nodes.answered();
                        hasAnswered = true;
                    }
                }
                return;
            } catch (StatusRuntimeException error) {
                until = hasAnswered ? Nodes.deadline() : until;
                hasAnswered = false;
                if (!nodes.mayRepeat(error, until, true)) {
                    throw error;
                }
            }
        }
    }

    private static void setStart(ConsumeRequest.Builder request, String from) {
        switch (from) {
            case "earliest" -> request.setStart(Start.START_EARLIEST);
            case "latest" -> request.setStart(Start.START_LATEST);
            default -> request.setStart(Start.START_OFFSET).setOffset(Long.parseUnsignedLong(from));
        }
    }

    /** Prints the members of the cluster, and which of them leads the log. */
    private void servers() throws InterruptedException {
        var request = GetServersRequest.newBuilder().setLog(name.isEmpty() ? "default" : name).build();
        for (Server server : nodes.call(true, node -> node.getServers(request)).getServersList()) {
            var line = new LinkedHashMap<String, Object>();
            line.put("id", server.getId());
            line.put("rpc_addr", server.getRpcAddr());
            line.put("leader", server.getIsLeader());
            line.put("voter", server.getIsVoter());
            OUT.println(JSON.toJson(line));
        }
    }

    private static void show(Record record) {
        var line = new LinkedHashMap<String, Object>();
        line.put("offset", unsigned(record.getOffset()));
        line.put("value", record.getValue().toStringUtf8());
        line.put("type", Integer.toUnsignedLong(record.getType()));
        // An absent key differs from an empty one.
        line.put("key", record.hasKey() ? record.getKey().toStringUtf8() : null);
        var headers = new ArrayList<List<String>>();
        record.getHeadersList().forEach(h -> headers.add(List.of(h.getName(), h.getValue().toStringUtf8())));
        line.put("headers", headers);
        line.put("term", unsigned(record.getTerm()));
        line.put("append_time_us", unsigned(record.getAppendTimeUs()));
        OUT.println(JSON.toJson(line));
    }

    /** A uint64, which Java represents as a long that may be negative. */
    private static BigInteger unsigned(long number) {
        return new BigInteger(Long.toUnsignedString(number));
    }
}
