package io.seriatim.client;

import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ClientStreamTracer;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.seriatim.client.SeriatimException.Outcome;
import io.seriatim.v1.GetServersRequest;
import io.seriatim.v1.GetServersResponse;
import io.seriatim.v1.LogServiceGrpc;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;

/** Sends requests: one attempt at a node, or attempts until one succeeds. */
final class Calls {
    final Cluster cluster;
    private final ScheduledExecutorService timer;

    Calls(Cluster cluster, ScheduledExecutorService timer) {
        this.cluster = cluster;
        this.timer = timer;
    }

    /** A call of one node. Knows whether it has reached a connection: a call that has not had no effect. */
    final class Attempt<Q, R> extends ClientStreamTracer.Factory {
        private final Node node;
        private final ManagedChannel channel;
        private final ClientCall<Q, R> call;
        private final ScheduledFuture<?> connectTimer;
        private volatile boolean hasConnection;
        private volatile boolean connectTimedOut;
        private volatile boolean isCancelled;

        /** With a time limit, the server knows it, too. */
        private Attempt(Node node, MethodDescriptor<Q, R> method, Duration limit) {
            this.node = node;
            channel = node.channel();
            var options = CallOptions.DEFAULT.withStreamTracerFactory(this);
            if (limit != null) {
                options = options.withDeadlineAfter(limit.toNanos(), TimeUnit.NANOSECONDS);
            }
            call = channel.newCall(method, options);
            connectTimer = timer.schedule(this::checkConnection, cluster.settings.connect().toNanos(), TimeUnit.NANOSECONDS);
        }

        private void checkConnection() {
            if (!hasConnection) {
                connectTimedOut = true;
                call.cancel("no connection within " + cluster.settings.connect().toMillis() + " ms", null);
            }
        }

        @Override
        public ClientStreamTracer newClientStreamTracer(ClientStreamTracer.StreamInfo info, Metadata headers) {
            return new ClientStreamTracer() {
                @Override
                public void streamCreated(io.grpc.Attributes transport, Metadata sent) {
                    hasConnection = true;
                    connectTimer.cancel(false);
                }
            };
        }

        ClientCall<Q, R> call() {
            return call;
        }

        Node node() {
            return node;
        }

        /** Nobody is interested in the call any more. Says nothing about the node. */
        void cancel(String why, Throwable cause) {
            isCancelled = true;
            call.cancel(why, cause);
        }

        void halfClose() {
            if (!connectTimedOut) {
                call.halfClose();
            }
        }

        void send(Q message) {
            try {
                call.sendMessage(message);
            } catch (IllegalStateException cancelled) {
                // Then the listener gets the status.
                if (!connectTimedOut) {
                    throw cancelled;
                }
            }
        }

        /** The call has ended with a status. Returns null if it is OK. */
        SeriatimException ended(Status status, Metadata trailers) {
            connectTimer.cancel(false);
            if (status.isOk()) {
                return null;
            }
            var error = SeriatimException.of(status, trailers);
            // Also with another status of gRPC itself: SeriatimException.of.
            boolean isUnavailable = error.code() == Status.Code.UNAVAILABLE;
            boolean isLate = status.getCode() == Status.Code.DEADLINE_EXCEEDED;
            if (isCancelled || !error.reason().isEmpty() || !(isUnavailable || isLate || connectTimedOut)) {
                return error;
            }
            if (hasConnection) {
                String message = isLate ? "no answer in time" : error.getMessage();
                return broke(error.code(), "node %s: %s".formatted(node, message));
            }
            if (isLate) {
                node.broke(); // The connection may still be made.
            } else {
                node.neverConnected(channel);
            }
            String message = "node %s cannot be reached: %s".formatted(node, error.getMessage());
            return SeriatimException.broken(Status.Code.UNAVAILABLE, message, Outcome.NONE);
        }

        /** The connection broke, or the node is silent: what was sent may have been done. */
        SeriatimException broke(Status.Code code, String message) {
            if (!node.isBroken()) {
                Cluster.LOGGER.log(System.Logger.Level.DEBUG, "lost node={0} error={1}", node, message);
            }
            node.broke();
            return SeriatimException.broken(code, message, Outcome.UNKNOWN);
        }
    }

    /** Starts a stream. */
    <Q, R> Attempt<Q, R> open(Node node, MethodDescriptor<Q, R> method) {
        return new Attempt<>(node, method, null);
    }

    /** Sends a request to a node, once. */
    <Q, R> R once(Node node, MethodDescriptor<Q, R> method, Q request, Duration limit) throws InterruptedException {
        if (limit.isNegative() || limit.isZero()) {
            throw SeriatimException.broken(Status.Code.DEADLINE_EXCEEDED, "the time is up", Outcome.NONE);
        }
        var answer = new CompletableFuture<R>();
        var attempt = new Attempt<>(node, method, limit);
        attempt.call()
                .start(
                        new ClientCall.Listener<>() {
                            private R message;

                            @Override
                            public void onMessage(R received) {
                                message = received;
                            }

                            @Override
                            public void onClose(Status status, Metadata trailers) {
                                var error = attempt.ended(status, trailers);
                                if (error == null && message == null) {
                                    error = attempt.broke(Status.Code.UNAVAILABLE, "node " + node + " sent no answer");
                                }
                                if (error != null) {
                                    answer.completeExceptionally(error);
                                } else {
                                    answer.complete(message);
                                }
                            }
                        },
                        new Metadata());
        attempt.call().request(2);
        attempt.send(request);
        attempt.halfClose();
        try {
            return answer.get();
        } catch (InterruptedException interrupted) {
            attempt.cancel("the caller was interrupted", interrupted);
            throw interrupted;
        } catch (ExecutionException failed) {
            throw ((SeriatimException) failed.getCause()).here();
        }
    }

    /**
     * Asks a node which cluster it belongs to, unless it has said so on this connection.
     *
     * @param log the log whose leader is of interest, or null
     */
    void verify(Node node, String log, Route route, Duration limit) throws InterruptedException {
        cluster.check();
        if (node.isVerified() && log == null) {
            return;
        }
        var request = GetServersRequest.newBuilder().setLog(log == null ? "" : log).build();
        GetServersResponse servers = once(node, LogServiceGrpc.getGetServersMethod(), request, limit);
        cluster.learn(node, servers);
        if (log != null) {
            servers.getServersList().stream()
                    .filter(server -> server.getIsLeader())
                    .findFirst()
                    .ifPresent(server -> route.leaderIs(server.getRpcAddr()));
        }
    }

    /** Like {@link #retry}, for a request that only reads: a lost answer leaves nothing unknown. */
    <Q, R> R read(MethodDescriptor<Q, R> method, Q request, Route route, long deadline) throws InterruptedException {
        return retry(method, request, route, deadline, cluster::check, true);
    }

    /**
     * Sends a request again until it is answered, or {@link System#nanoTime} reaches {@code deadline}. It must be one that is
     * done once, however often it is sent.
     */
    <Q, R> R retry(MethodDescriptor<Q, R> method, Q request, Route route, long deadline) throws InterruptedException {
        return retry(method, request, route, deadline, cluster::check);
    }

    /** The same, as long as {@code check} does not throw. */
    <Q, R> R retry(MethodDescriptor<Q, R> method, Q request, Route route, long deadline, Runnable check)
            throws InterruptedException {
        return retry(method, request, route, deadline, check, false);
    }

    private <Q, R> R retry(
            MethodDescriptor<Q, R> method, Q request, Route route, long deadline, Runnable check, boolean isRead)
            throws InterruptedException {
        SeriatimException last = null;
        boolean mayBeDone = false;
        while (true) {
            try {
                Node node = route.node();
                verify(node, null, route, limit(deadline));
                try {
                    R answer = once(node, method, request, limit(deadline));
                    route.succeeded();
                    return answer;
                } catch (SeriatimException error) {
                    mayBeDone |= error.outcome() == Outcome.UNKNOWN && !isRead;
                    throw error;
                }
            } catch (SeriatimException error) {
                last = mayBeDone && error.outcome() == Outcome.NONE ? error.withOutcome(Outcome.UNKNOWN) : error;
                check.run();
                long pause = route.next(last);
                Cluster.LOGGER.log(
                        System.Logger.Level.DEBUG, "retry method={0} error={1}", method.getBareMethodName(), error);
                if (deadline - System.nanoTime() <= pause) {
                    var late = SeriatimException.timeout(method.getBareMethodName() + " did not succeed in time", last);
                    throw mayBeDone ? late.withOutcome(Outcome.UNKNOWN) : late;
                }
                cluster.pause(pause);
            }
        }
    }

    /** Returns a random number that is not 0. */
    static long instance() {
        long instance = 0;
        while (instance == 0) {
            instance = ThreadLocalRandom.current().nextLong();
        }
        return instance;
    }

    /** Returns the time of an attempt. */
    Duration limit(long deadline) {
        return Duration.ofNanos(Math.min(cluster.settings.attempt().toNanos(), deadline - System.nanoTime()));
    }
}
