//! Every option of listeners and channels, and why it differs from the default.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use grpcio::{Channel, ChannelBuilder, ChannelCredentials, Environment, ResourceQuota, ServerBuilder};
use grpcio_sys as core;

use super::env::Env;

/// The largest message that the client listener and a client send and accept: the largest entry, and what surrounds
/// it. A request that exceeds the limit of its log but fits here is answered by the API and not by gRPC.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 9 << 20;

/// The largest message that the peer listener and its peers send and accept: a batch that ends with an entry of the
/// largest size.
pub const PEER_MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The receive buffer of a client's connection (`SO_RCVBUF`). The system takes twice that for the bytes and its
/// bookkeeping, so it may be 500 KiB; where `net.core.rmem_max` is 208 KiB, the default, it is that.
///
/// The C core reads a connection until it is empty, and serves no other one meanwhile: with Linux's own sizes
/// (`tcp_rmem`, 6 to 32 MiB), an honest request beside messages of 8 MiB took 30 ms instead of 10. It is also faster:
/// a stream of 1 KiB messages by a quarter. One connection has at most this in flight: 25 to 50 MB/s at 10 ms.
pub const RECEIVE_BUFFER_BYTES: usize = 256 << 10;

type Options = &'static [(&'static [u8], i32)];

/// The options of both listeners.
const LISTENER: Options = &[
    // Otherwise a second process binds a port in use, and the two share its connections silently.
    (core::GRPC_ARG_ALLOW_REUSEPORT, 0),
    // Only "identity": a gzip message of 4 MiB unpacks to 512 MiB before any limit is checked.
    (core::GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1),
    // Two minutes by default, for any number of half-open connections.
    (core::GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 10_000),
    // For each connection. Unlimited by default.
    (core::GRPC_ARG_MAX_CONCURRENT_STREAMS, 1024),
    // Above the first a request is rejected at random, with a probability that rises to 1 at the second.
    (core::GRPC_ARG_MAX_METADATA_SIZE, 8 << 10),
    (core::GRPC_ARG_ABSOLUTE_MAX_METADATA_SIZE, 16 << 10),
    // Detects a client that vanished, also between requests. Two hours by default.
    (core::GRPC_ARG_KEEPALIVE_TIME_MS, 30_000),
    (core::GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10_000),
    (core::GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
    // A client may ping every ten seconds; half of that is allowed, for a ping that arrives early. Five minutes by
    // default, and then the connection is closed for "too_many_pings".
    (core::GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5_000),
    // gRPC has no limit on connections, so those without a request for five minutes are closed. An open stream is a
    // request.
    (core::GRPC_ARG_MAX_CONNECTION_IDLE_MS, 300_000),
];

/// The options of every channel.
const CHANNEL: Options = &[
    // `http_proxy` in the environment is meant for the web.
    (core::GRPC_ARG_ENABLE_HTTP_PROXY, 0),
    // A restarted node is reconnected within a second; two minutes by default.
    (core::GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100),
    (core::GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1_000),
    // In spite of its name, the timeout of one attempt. 20 s by default.
    (core::GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5_000),
    // Otherwise two channels to one address would share a connection, with the credentials of the first.
    (core::GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
    // A dead link is detected within 15 s, also while only pings are sent.
    (core::GRPC_ARG_KEEPALIVE_TIME_MS, 10_000),
    (core::GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5_000),
    (core::GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
    (core::GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
    // Nothing is sent twice unless the caller does.
    (core::GRPC_ARG_ENABLE_RETRIES, 0),
    (core::GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1),
];

/// A server for the client listener, without services yet.
pub fn client_listener(env: &Env, memory_bytes_max: u64) -> ServerBuilder {
    listener(env, "clients", memory_bytes_max, CLIENT_MESSAGE_BYTES_MAX)
}

/// A server for the peer listener, without services yet.
pub fn peer_listener(env: &Env, memory_bytes_max: u64) -> ServerBuilder {
    listener(env, "peers", memory_bytes_max, PEER_MESSAGE_BYTES_MAX)
}

/// A channel to a peer, `host:port`. The certificate of the other side must have the name `expected`.
pub fn peer_channel(env: Arc<Environment>, addr: &str, creds: ChannelCredentials, expected: &str) -> Channel {
    let builder = channel(env, PEER_MESSAGE_BYTES_MAX).set_credentials(creds);
    // Addresses are not verified: mDNS can be made to lie about them.
    connect(builder.override_ssl_target(without_nul(expected)), addr)
}

/// A channel to a client listener, `host:port`. `server_name`: the name to expect in its certificate instead of the
/// host.
pub fn client_channel(
    env: Arc<Environment>,
    addr: &str,
    creds: ChannelCredentials,
    server_name: Option<&str>,
) -> Channel {
    let builder = channel(env, CLIENT_MESSAGE_BYTES_MAX).set_credentials(creds);
    let builder = match server_name {
        Some(name) => builder.override_ssl_target(without_nul(name)),
        None => builder,
    };
    connect(builder, addr)
}

fn listener(env: &Env, name: &str, memory_bytes_max: u64, message_bytes_max: usize) -> ServerBuilder {
    let memory = usize::try_from(memory_bytes_max).unwrap_or(usize::MAX);
    let builder = with(ChannelBuilder::new(env.get()), LISTENER, message_bytes_max)
        // Above it requests are rejected, instead of the process being killed.
        .set_resource_quota(ResourceQuota::new(Some(name)).resize_memory(memory));
    ServerBuilder::new(env.get()).channel_args(builder.build_args())
}

fn channel(env: Arc<Environment>, message_bytes_max: usize) -> ChannelBuilder {
    with(ChannelBuilder::new(env), CHANNEL, message_bytes_max)
}

fn with(builder: ChannelBuilder, options: Options, message_bytes_max: usize) -> ChannelBuilder {
    let bytes = i32::try_from(message_bytes_max).unwrap_or(i32::MAX);
    let builder = builder.max_receive_message_len(bytes).max_send_message_len(bytes);
    options.iter().fold(builder, |builder, (name, value)| {
        let name = CStr::from_bytes_with_nul(name).unwrap_or_default();
        builder.raw_cfg_int(name.to_owned(), *value)
    })
}

fn connect(builder: ChannelBuilder, addr: &str) -> Channel {
    builder.connect(&without_nul(addr))
}

/// grpcio panics on a NUL in a name. An address without it is just as wrong, and fails to connect.
fn without_nul(text: &str) -> String {
    CString::new(text).map_or_else(|_| text.replace('\0', ""), |_| text.to_owned())
}
