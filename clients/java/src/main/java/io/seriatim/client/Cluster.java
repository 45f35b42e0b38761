package io.seriatim.client;

import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.TlsChannelCredentials;
import io.seriatim.v1.GetServersResponse;
import io.seriatim.v1.Server;
import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

/** The nodes that a client knows, and why it has ended, if it has. */
final class Cluster {
    static final System.Logger LOGGER = System.getLogger("io.seriatim.client");

    /** A request or a response has at most 8,128 KiB of records. */
    private static final int MAX_MESSAGE_BYTES = 16 << 20;

    /** A producer or a consumer, which ends when the client does. */
    interface Member {
        /** Ends it at once. Does not wait. */
        void abort(SeriatimException why);

        /** Waits until it has ended, which it does at once after {@link #abort}. */
        void awaitEnd();
    }

    final Settings settings;
    private final Map<String, Node> nodes = new LinkedHashMap<>();
    private final Set<Member> members = ConcurrentHashMap.newKeySet();
    private final CountDownLatch ended = new CountDownLatch(1);
    private ChannelCredentials credentials;
    private String clusterId;
    private volatile SeriatimException end;

    Cluster(Settings settings) throws IOException {
        this.settings = settings;
        credentials = readCredentials();
        for (String addr : settings.addrs()) {
            nodes.put(addr, new Node(addr, true, this::connect));
        }
    }

    private ChannelCredentials readCredentials() throws IOException {
        var tls = settings.tls();
        if (tls == null) {
            return InsecureChannelCredentials.create();
        }
        var builder = TlsChannelCredentials.newBuilder().trustManager(tls.ca().toFile());
        if (tls.cert() != null) {
            builder.keyManager(tls.cert().toFile(), tls.key().toFile());
        }
        return builder.build();
    }

    private ManagedChannel connect(String addr) {
        ChannelCredentials current;
        synchronized (this) {
            try {
                // A certificate may have been renewed.
                credentials = readCredentials();
            } catch (IOException error) {
                LOGGER.log(System.Logger.Level.WARNING, "certificates cannot be read; the earlier ones are used", error);
            }
            current = credentials;
        }
        return Grpc.newChannelBuilder("dns:///" + addr, current)
                .keepAliveTime(20, TimeUnit.SECONDS)
                .keepAliveTimeout(10, TimeUnit.SECONDS)
                .maxInboundMessageSize(MAX_MESSAGE_BYTES)
                .userAgent("seriatim-java")
                // The library decides alone what is sent again, and where.
                .disableRetry()
                .disableServiceConfigLookUp()
                .proxyDetector(target -> null)
                .build();
    }

    /** Returns all nodes, those first that the application named. */
    synchronized List<Node> nodes() {
        return List.copyOf(nodes.values());
    }

    synchronized Node node(String addr) {
        return nodes.get(addr);
    }

    /** Returns the first node whose connection is not known to be broken. */
    synchronized Node preferred() {
        Node first = null;
        for (Node node : nodes.values()) {
            if (!node.isBroken()) {
                return node;
            }
            first = first == null ? node : first;
        }
        return first;
    }

    /** Takes what a node says about the cluster. Fails if it is another cluster; then the client ends. */
    void learn(Node node, GetServersResponse servers) {
        SeriatimException changed = null;
        List<Node> gone = new ArrayList<>();
        synchronized (this) {
            if (clusterId == null) {
                clusterId = servers.getClusterId();
            } else if (!clusterId.equals(servers.getClusterId())) {
                changed = SeriatimException.clusterChanged(node.addr, clusterId, servers.getClusterId());
            }
            if (changed == null) {
                var addrs = servers.getServersList().stream()
                        .map(Server::getRpcAddr)
                        .filter(addr -> !addr.isEmpty())
                        .collect(Collectors.toSet());
                nodes.values().removeIf(known -> {
                    boolean isGone = !known.isGiven && !addrs.contains(known.addr);
                    return isGone && gone.add(known);
                });
                for (String addr : addrs) {
                    nodes.computeIfAbsent(addr, made -> new Node(made, false, this::connect));
                }
            }
        }
        gone.forEach(known -> known.close(false));
        if (changed != null) {
            end(changed);
            throw changed;
        }
        if (!node.isVerified()) {
            LOGGER.log(System.Logger.Level.DEBUG, "connected node={0}", node);
        }
        node.verified();
    }

    /** Fails if the client was closed, or has ended with an error. */
    void check() {
        if (end != null) {
            throw end.here();
        }
    }

    /** Waits, or fails when the client ends. */
    void pause(long nanos) throws InterruptedException {
        if (ended.await(nanos, TimeUnit.NANOSECONDS)) {
            check();
        }
    }

    void add(Member member) {
        members.add(member);
        if (end != null) {
            member.abort(end);
        }
    }

    void remove(Member member) {
        members.remove(member);
    }

    /** Ends all producers and consumers. */
    void end(SeriatimException why) {
        synchronized (this) {
            if (end != null) {
                return;
            }
            end = why;
        }
        ended.countDown();
        members.forEach(member -> member.abort(why));
    }

    /** Waits until all producers and consumers have ended. */
    void awaitEnd() {
        members.forEach(Member::awaitEnd);
    }

    void closeConnections() {
        nodes().forEach(node -> node.close(true));
    }
}
