package io.seriatim.client;

import io.seriatim.v1.GetCursorRequest;
import io.seriatim.v1.GetServersRequest;
import io.seriatim.v1.LogServiceGrpc;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

/**
 * A client of a Seriatim cluster. It connects when it is first used. Many threads share it, and one for each process is meant.
 *
 * <pre>{@code
 * try (var client = SeriatimClient.builder("localhost:8400").build();
 *         var producer = client.producer("default").create()) {
 *     long offset = producer.send(Record.of("hello")).join().offset();
 * }
 * }</pre>
 */
public final class SeriatimClient implements AutoCloseable {
    private static final Duration REFRESH = Duration.ofMinutes(5);

    final Cluster cluster;
    final Calls calls;
    final ExecutorService callbacks;
    final ScheduledThreadPoolExecutor timer;

    private SeriatimClient(Settings settings) throws IOException {
        cluster = new Cluster(settings);
        callbacks = Executors.newCachedThreadPool(daemons("seriatim-callbacks"));
        timer = new ScheduledThreadPoolExecutor(1, daemons("seriatim-timer"), new ThreadPoolExecutor.DiscardPolicy());
        timer.setRemoveOnCancelPolicy(true);
        timer.setExecuteExistingDelayedTasksAfterShutdownPolicy(false);
        calls = new Calls(cluster, timer);
        timer.scheduleWithFixedDelay(
                () -> callbacks.execute(this::refresh), REFRESH.toSeconds(), REFRESH.toSeconds(), TimeUnit.SECONDS);
    }

    private static ThreadFactory daemons(String name) {
        return task -> {
            var thread = new Thread(task, name);
            thread.setDaemon(true);
            return thread;
        };
    }

    /** Starts a client of the nodes with these addresses, each {@code host:port}. One is enough, several are safer. */
    public static Builder builder(String... addrs) {
        return new Builder(List.of(addrs));
    }

    /**
     * Waits until a node answers.
     *
     * @throws SeriatimException after {@code timeout}, or if the node rejects this client
     */
    public void ready(Duration timeout) {
        try {
            askServers(timeout);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw SeriatimException.interrupted(interrupted);
        }
    }

    /** Asks the first node that answers for all members. */
    private void askServers(Duration timeout) throws InterruptedException {
        var route = new Route(cluster, false);
        var request = GetServersRequest.getDefaultInstance();
        var servers = calls.read(LogServiceGrpc.getGetServersMethod(), request, route, Deadline.in(timeout));
        cluster.learn(route.node(), servers);
    }

    private void refresh() {
        try {
            askServers(cluster.settings.operation());
        } catch (SeriatimException error) {
            Cluster.LOGGER.log(System.Logger.Level.DEBUG, "the members can''t be refreshed error={0}", error);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    /** Starts a producer of a log. */
    public Producer.Builder producer(String log) {
        return new Producer.Builder(this, log);
    }

    /** Starts a consumer of a log. */
    public Consumer.Builder consumer(String log) {
        return new Consumer.Builder(this, log);
    }

    /**
     * Returns a cursor of a log.
     *
     * @throws SeriatimException with the kind {@code NOT_FOUND} if it does not exist
     */
    public CursorPosition cursor(String log, String name) {
        var request = GetCursorRequest.newBuilder().setLog(log).setCursor(name).build();
        var route = new Route(cluster, false);
        try {
            var answer = calls.read(
                    LogServiceGrpc.getGetCursorMethod(), request, route, Deadline.in(cluster.settings.operation()));
            return CursorPosition.of(answer.getCursor());
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw SeriatimException.interrupted(interrupted);
        }
    }

    /** Ends all producers and consumers at once. To wait for acknowledgements, close the producers first. */
    @Override
    public void close() {
        cluster.end(SeriatimException.closed("the client"));
        cluster.awaitEnd();
        cluster.closeConnections();
        timer.shutdown();
        callbacks.shutdown();
    }

    /** Makes a client. */
    public static final class Builder {
        private final List<String> addrs;
        private Settings.Tls tls;
        private Duration attempt = Duration.ofSeconds(5);
        private Duration operation = Duration.ofSeconds(120);
        private Duration connect = Duration.ofSeconds(3);
        private Duration backoffMin = Duration.ofMillis(100);
        private Duration backoffMax = Duration.ofSeconds(5);
        private String owner = "seriatim-java, process " + ProcessHandle.current().pid();

        private Builder(List<String> addrs) {
            if (addrs.isEmpty()) {
                throw new IllegalArgumentException("a client needs the address of at least one node");
            }
            for (String addr : addrs) {
                if (!addr.matches("[^/\\s]+:[0-9]{1,5}")) {
                    throw new IllegalArgumentException("the address \"" + addr + "\" is not of the form host:port");
                }
            }
            this.addrs = new ArrayList<>(new LinkedHashSet<>(addrs));
        }

        /** Encrypts connections, and checks the nodes' certificates. The file is in the format PEM. */
        public Builder tls(Path ca) {
            tls = new Settings.Tls(ca, null, null);
            return this;
        }

        /** Encrypts connections, checks the nodes' certificates, and shows the client's own. All files are in the format PEM. */
        public Builder tls(Path ca, Path cert, Path key) {
            tls = new Settings.Tls(ca, cert, key);
            return this;
        }

        /** Sets the time of one attempt. By default 5 seconds. */
        public Builder attemptTimeout(Duration timeout) {
            attempt = Deadline.positive("attemptTimeout", timeout);
            return this;
        }

        /** Sets the time of all attempts of an operation together. By default 120 seconds. */
        public Builder operationTimeout(Duration timeout) {
            operation = Deadline.positive("operationTimeout", timeout);
            return this;
        }

        /** Sets the time until a new connection can be used. By default 3 seconds. */
        public Builder connectTimeout(Duration timeout) {
            connect = Deadline.positive("connectTimeout", timeout);
            return this;
        }

        /** Sets the first and the longest pause between attempts. By default 100 milliseconds and 5 seconds. */
        public Builder backoff(Duration min, Duration max) {
            backoffMin = Deadline.positive("the first pause", min);
            backoffMax = Deadline.positive("the longest pause", max);
            return this;
        }

        /** Sets what people see about this process at its named producers and cursors. At most 255 bytes. */
        public Builder owner(String owner) {
            this.owner = owner;
            return this;
        }

        /**
         * Returns the client, which is not connected yet.
         *
         * @throws IOException if a certificate or a key can't be read
         */
        public SeriatimClient build() throws IOException {
            return new SeriatimClient(
                    new Settings(addrs, tls, attempt, operation, connect, backoffMin, backoffMax, owner));
        }
    }
}
