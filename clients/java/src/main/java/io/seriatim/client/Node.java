package io.seriatim.client;

import io.grpc.ManagedChannel;
import java.util.function.Function;

/** A node of the cluster, known by its address, and the connection to it. */
final class Node {
    final String addr;
    /** Whether the application named it. Such a node is never forgotten. */
    final boolean isGiven;

    private final Function<String, ManagedChannel> connect;
    private ManagedChannel channel;
    private boolean isClosed;
    private volatile boolean isVerified;
    private volatile boolean isBroken;

    Node(String addr, boolean isGiven, Function<String, ManagedChannel> connect) {
        this.addr = addr;
        this.isGiven = isGiven;
        this.connect = connect;
    }

    synchronized ManagedChannel channel() {
        if (channel == null) {
            if (isClosed) {
                throw SeriatimException.closed("the client");
            }
            channel = connect.apply(addr);
        }
        return channel;
    }

    /** Whether the node has said which cluster it belongs to, and the connection has not failed since. */
    boolean isVerified() {
        return isVerified;
    }

    /** Whether the last attempt to use the node failed because of the connection. */
    boolean isBroken() {
        return isBroken;
    }

    void verified() {
        isVerified = true;
        isBroken = false;
    }

    /** The connection broke, or did not answer. */
    void broke() {
        isVerified = false;
        isBroken = true;
    }

    /** No connection could be made. The next use makes a new channel, which connects at once, without a pause of its own. */
    synchronized void neverConnected(ManagedChannel failed) {
        broke();
        if (channel == failed) {
            channel = null;
        }
        failed.shutdown();
    }

    synchronized void close(boolean atOnce) {
        isClosed = true;
        if (channel != null && atOnce) {
            channel.shutdownNow();
        } else if (channel != null) {
            channel.shutdown();
        }
    }

    @Override
    public String toString() {
        return addr;
    }
}
