package io.seriatim.client;

import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;

/** Decides to which node the next attempt of an operation is sent, and after which pause. Not thread-safe. */
final class Route {
    private final Cluster cluster;
    private final boolean prefersLeader;
    private final Set<Node> failed = new HashSet<>();
    private Node node;
    private long backoff;

    Route(Cluster cluster, boolean prefersLeader) {
        this.cluster = cluster;
        this.prefersLeader = prefersLeader;
        backoff = cluster.settings.backoffMin().toNanos();
    }

    /** Returns the node for the next attempt. */
    Node node() {
        if (node == null || cluster.node(node.addr) != node) {
            node = cluster.preferred();
        }
        return node;
    }

    /** The leader is known. Returns whether another node is to be used for that reason. */
    boolean leaderIs(String addr) {
        Node leader = cluster.node(addr);
        if (!prefersLeader || leader == null || leader == node() || failed.contains(leader)) {
            return false;
        }
        node = leader;
        return true;
    }

    void succeeded() {
        failed.clear();
        backoff = cluster.settings.backoffMin().toNanos();
    }

    /** Chooses the node after a failure, and returns the pause in nanoseconds. Throws the error if it must not be retried. */
    long next(SeriatimException error) {
        String leader = error.metadata().getOrDefault("leader", "");
        switch (error.retry()) {
            case ELSEWHERE -> {
                failed.add(node());
                if (leaderIs(leader) || untried()) {
                    return 0;
                }
                failed.clear();
                node = after(node());
                return pause(error);
            }
            case SAME, LATER -> {
                leaderIs(leader);
                return pause(error);
            }
            default -> throw error;
        }
    }

    /** Goes to the next node that has not failed. Returns false if all have. */
    private boolean untried() {
        Node next = node();
        for (int tried = cluster.nodes().size(); tried > 0; tried--) {
            next = after(next);
            if (!failed.contains(next)) {
                node = next;
                return true;
            }
        }
        return false;
    }

    private Node after(Node from) {
        List<Node> nodes = cluster.nodes();
        return nodes.get((nodes.indexOf(from) + 1) % nodes.size());
    }

    /** Returns the pause in nanoseconds before another attempt at the same node. */
    long pause(SeriatimException error) {
        long jittered = (long) (backoff * ThreadLocalRandom.current().nextDouble(0.5, 1.5));
        backoff = Math.min(2 * backoff, cluster.settings.backoffMax().toNanos());
        return Math.max(jittered, error.pause().toNanos());
    }
}
