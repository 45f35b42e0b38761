package io.seriatim.client;

import java.time.Duration;

/** Times that callers choose. */
final class Deadline {
    static final Duration NEVER = Duration.ofDays(10_000);

    private Deadline() {}

    /** Returns the value of {@link System#nanoTime} after a time. */
    static long in(Duration timeout) {
        return System.nanoTime() + (timeout.compareTo(NEVER) < 0 ? timeout : NEVER).toNanos();
    }

    static long positive(String name, long value) {
        if (value <= 0) {
            throw new IllegalArgumentException(name + " is " + value + ": choose at least 1");
        }
        return value;
    }

    static Duration positive(String name, Duration value) {
        if (value.isNegative() || value.isZero()) {
            throw new IllegalArgumentException(name + " is " + value + ": choose more than 0");
        }
        return value.compareTo(NEVER) < 0 ? value : NEVER;
    }
}
