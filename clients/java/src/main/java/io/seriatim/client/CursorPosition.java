package io.seriatim.client;

/**
 * A cursor of a log: the position of a reader, which the cluster keeps.
 *
 * @param nextOffset the next record to read
 * @param epoch increases when another process acquires the cursor. 0: none has
 * @param lag the number of records from the position to the end of the log, without those that were trimmed
 * @param trimmed the number of records from the position on that were trimmed
 * @param owner what the process that has acquired the cursor says about itself
 */
public record CursorPosition(long nextOffset, long epoch, long lag, long trimmed, String owner) {
    static CursorPosition of(io.seriatim.v1.Cursor cursor) {
        return new CursorPosition(
                cursor.getNextOffset(), cursor.getEpoch(), cursor.getLag(), cursor.getTrimmed(), cursor.getOwner());
    }
}
