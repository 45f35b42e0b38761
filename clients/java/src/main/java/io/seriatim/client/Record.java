package io.seriatim.client;

import com.google.protobuf.ByteString;
import io.seriatim.v1.Header;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.List;
import java.util.Optional;

/** An entry of a log. Immutable. {@code java.lang} has a class of this name, too, so import this one by its name. */
public class Record {
    /**
     * A name and a value that describe a record.
     *
     * @param name the name. It may repeat within a record
     * @param value the value
     */
    public record Attribute(String name, byte[] value) {}

    private final io.seriatim.v1.Record message;

    Record(io.seriatim.v1.Record message) {
        this.message = message;
    }

    /** Returns a record that consists of a value. */
    public static Record of(byte[] value) {
        return builder(value).build();
    }

    /** Returns a record whose value is a string in UTF-8. */
    public static Record of(String value) {
        return new Builder(ByteString.copyFromUtf8(value)).build();
    }

    /** Starts a record with a value, which may be empty. */
    public static Builder builder(byte[] value) {
        return new Builder(ByteString.copyFrom(value));
    }

    /** Returns the content. */
    public final byte[] value() {
        return message.getValue().toByteArray();
    }

    /** Returns the content as a string, which is in UTF-8. */
    public final String text() {
        return message.getValue().toStringUtf8();
    }

    /** Returns the key. An absent key differs from an empty one. */
    public final Optional<byte[]> key() {
        return message.hasKey() ? Optional.of(message.getKey().toByteArray()) : Optional.empty();
    }

    /** Returns the headers in their order. */
    public final List<Attribute> headers() {
        return message.getHeadersList().stream()
                .map(header -> new Attribute(header.getName(), header.getValue().toByteArray()))
                .toList();
    }

    /** Returns the number that the producer chose, an unsigned one. */
    public final int type() {
        return message.getType();
    }

    /** Returns when the event happened, by the producer's clock. */
    public final Optional<Instant> clientTime() {
        return message.hasClientTimeUs() ? Optional.of(instant(message.getClientTimeUs())) : Optional.empty();
    }

    static Instant instant(long micros) {
        return Instant.EPOCH.plus(micros, ChronoUnit.MICROS);
    }

    final io.seriatim.v1.Record message() {
        return message;
    }

    /** Returns the size that the limits of a log apply to. */
    final long bytes() {
        long bytes = (long) message.getValue().size() + message.getKey().size();
        for (Header header : message.getHeadersList()) {
            bytes += header.getNameBytes().size() + header.getValue().size();
        }
        return bytes;
    }

    /** Makes a record. */
    public static final class Builder {
        private final io.seriatim.v1.Record.Builder message;

        private Builder(ByteString value) {
            message = io.seriatim.v1.Record.newBuilder().setValue(value);
        }

        /** Sets the key. */
        public Builder key(byte[] key) {
            message.setKey(ByteString.copyFrom(key));
            return this;
        }

        /** Adds a header. */
        public Builder header(String name, byte[] value) {
            message.addHeaders(Header.newBuilder().setName(name).setValue(ByteString.copyFrom(value)));
            return this;
        }

        /** Sets a number of the producer's own, an unsigned one. */
        public Builder type(int type) {
            message.setType(type);
            return this;
        }

        /** Sets when the event happened. The cluster needs feature level 2. */
        public Builder clientTime(Instant time) {
            message.setClientTimeUs(ChronoUnit.MICROS.between(Instant.EPOCH, time));
            return this;
        }

        /** Returns the record. */
        public Record build() {
            return new Record(message.build());
        }
    }
}
