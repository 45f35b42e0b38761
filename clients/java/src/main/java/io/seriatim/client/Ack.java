package io.seriatim.client;

/**
 * The acknowledgement of a record: a majority has it on disk.
 *
 * @param offset the position of the record in the log, or {@link #UNKNOWN_OFFSET}
 * @param duplicate whether an earlier attempt had appended the record, and this is the answer to a later one
 */
public record Ack(long offset, boolean duplicate) {
    /** The record was appended, but the server does not keep its offset any more. This is rare. */
    public static final long UNKNOWN_OFFSET = -1;
}
