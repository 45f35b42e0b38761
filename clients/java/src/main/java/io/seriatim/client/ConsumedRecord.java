package io.seriatim.client;

import java.time.Instant;

/** A record that was read from a log. */
public final class ConsumedRecord extends Record {
    ConsumedRecord(io.seriatim.v1.Record message) {
        super(message);
    }

    /** Returns the position in the log. */
    public long offset() {
        return message().getOffset();
    }

    /** Returns the Raft term in which the record was appended. */
    public long term() {
        return message().getTerm();
    }

    /** Returns when the record was appended, by the leader's clock. It never decreases within a log. */
    public Instant appendTime() {
        return instant(message().getAppendTimeUs());
    }
}
