package io.seriatim.client;

import java.nio.file.Path;
import java.time.Duration;
import java.util.List;

/**
 * What a client was built with.
 *
 * @param tls null: connections are not encrypted
 * @param attempt the time of one attempt of a call
 * @param operation the time of all attempts together
 * @param connect the time until a new connection can be used
 * @param backoffMin the first pause between attempts
 * @param backoffMax the longest pause
 * @param owner what this process says about itself
 */
record Settings(
        List<String> addrs,
        Tls tls,
        Duration attempt,
        Duration operation,
        Duration connect,
        Duration backoffMin,
        Duration backoffMax,
        String owner) {
    /** PEM files. */
    record Tls(Path ca, Path cert, Path key) {}
}
