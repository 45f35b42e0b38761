package seriatim.client;

import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.TlsChannelCredentials;
import java.io.IOException;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/** Dials a node over mutual TLS. */
final class Connection {
    private Connection() {}

    /** Returns a channel with the client certificate of a user, from a folder made by {@code seriatim certs}. */
    static ManagedChannel open(String addr, Path certs, String user) throws IOException {
        var credentials = TlsChannelCredentials.newBuilder()
                .trustManager(certs.resolve("ca.pem").toFile())
                .keyManager(
                        certs.resolve("client-" + user + ".pem").toFile(),
                        certs.resolve("client-" + user + "-key.pem").toFile())
                .build();
        // A tail may be silent for hours. Keepalive pings distinguish that from a dead node.
        return Grpc.newChannelBuilder(addr, credentials)
                .keepAliveTime(20, TimeUnit.SECONDS)
                .keepAliveTimeout(10, TimeUnit.SECONDS)
                .build();
    }
}
