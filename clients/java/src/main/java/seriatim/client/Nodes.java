package seriatim.client;

import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.seriatim.v1.LogServiceGrpc;
import io.seriatim.v1.LogServiceGrpc.LogServiceBlockingStub;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/** The nodes of a cluster. Requests are sent to one of them. */
final class Nodes implements AutoCloseable {
    /** A request that fails is sent again, if the error allows it, until so much time has passed. */
    static final Duration CALL_TIMEOUT = Duration.ofSeconds(10);

    /** The pause if the error names none. */
    private static final Duration DEFAULT_PAUSE = Duration.ofMillis(200);

    private final List<ManagedChannel> channels = new ArrayList<>();
    private int now;

    /** How many nodes failed one after another. */
    private int failed;

    /** Uses the client certificate of a user, from a folder made by {@code seriatim certs}. */
    Nodes(String[] addrs, Path certs, String user) throws IOException {
        var credentials = TlsChannelCredentials.newBuilder()
                .trustManager(certs.resolve("ca.pem").toFile())
                .keyManager(
                        certs.resolve("client-" + user + ".pem").toFile(),
                        certs.resolve("client-" + user + "-key.pem").toFile())
                .build();
        for (String addr : addrs) {
            // A tail may be silent for a while. Keepalive pings distinguish that from a dead node.
            channels.add(Grpc.newChannelBuilder(addr, credentials)
                    .keepAliveTime(20, TimeUnit.SECONDS)
                    .keepAliveTimeout(10, TimeUnit.SECONDS)
                    .build());
        }
    }

    @Override
    public void close() {
        channels.forEach(ManagedChannel::shutdownNow);
    }

    ManagedChannel channel() {
        return channels.get(now);
    }

    /** The node has answered. */
    void answered() {
        failed = 0;
    }

    static long deadline() {
        return System.nanoTime() + CALL_TIMEOUT.toNanos();
    }

    /**
     * Returns whether the same request can be sent again before a time of {@code System.nanoTime}. Then it has paused, and chosen
     * the node.
     */
    boolean mayRepeat(StatusRuntimeException error, long until, boolean isRead) throws InterruptedException {
        var failure = Failure.of(error);
        Duration pause = failure.pause().isZero() ? DEFAULT_PAUSE : failure.pause();
        if (failure.retry().equals("elsewhere") || isRead && failure.connectionBroke()) {
            now = (now + 1) % channels.size();
            failed++;
            // Every node is asked once without a pause.
            pause = failed % channels.size() == 0 ? pause : Duration.ZERO;
        } else if (!failure.retry().equals("same")) {
            return false;
        }
        if (until - System.nanoTime() < pause.toNanos()) {
            return false;
        }
        Thread.sleep(pause.toMillis());
        return true;
    }

    /** Sends a request with one response. */
    <T> T call(boolean isRead, Function<LogServiceBlockingStub, T> method) throws InterruptedException {
        long until = deadline();
        while (true) {
            try {
                var stub = LogServiceGrpc.newBlockingStub(channel());
                return method.apply(stub.withDeadlineAfter(until - System.nanoTime(), TimeUnit.NANOSECONDS));
            } catch (StatusRuntimeException error) {
                if (!mayRepeat(error, until, isRead)) {
                    throw error;
                }
            }
        }
    }
}
