//! The options of listeners and channels, and why they differ from the defaults.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use grpcio::{Channel, ChannelBuilder, ChannelCredentials, Environment, ResourceQuota, ServerBuilder};
use grpcio_sys as core;

use super::env::Env;

/// The largest message that the client listener and clients send and accept: the largest entry and its encoding. If a
/// request exceeds the limit of its log but not this one, the API rejects it, with a better error than gRPC's.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 9 << 20;

/// The largest message that the peer listener and peers send and accept: a full batch plus an entry of the largest
/// size.
pub const PEER_MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The receive buffer of a client's connection (`SO_RCVBUF`). The kernel doubles it for its own bookkeeping, and
/// limits it to `net.core.rmem_max`, which is 208 KiB by default.
///
/// The C core reads from a connection until its buffer is empty, and serves no other connection meanwhile. With
/// Linux's own buffer sizes (`tcp_rmem`, 6 to 32 MiB), a small request took 30 ms instead of 10 ms while another
/// client sent messages of 8 MiB. A small buffer also makes a stream of 1 KiB messages a quarter faster. It limits
/// the bytes in flight of a connection, and so its throughput: to 25 to 50 MB/s at a round trip of 10 ms.
pub const RECEIVE_BUFFER_BYTES: usize = 256 << 10;

type Options = &'static [(&'static [u8], i32)];

/// The options of both listeners.
const LISTENER: Options = &[
    // Otherwise a second process could bind a port in use, and the two would silently share its connections.
    (core::GRPC_ARG_ALLOW_REUSEPORT, 0),
    // Only "identity", no compression: a gzip message of 4 MiB is unpacked to 512 MiB before any limit is checked.
    (core::GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1),
    // Limits how long a half-open connection holds resources. Two minutes by default.
    (core::GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 10_000),
    // Per connection. Unlimited by default.
    (core::GRPC_ARG_MAX_CONCURRENT_STREAMS, 1024),
    // Above the first limit, requests are rejected at random, with a probability that rises to 1 at the second limit.
    (core::GRPC_ARG_MAX_METADATA_SIZE, 8 << 10),
    (core::GRPC_ARG_ABSOLUTE_MAX_METADATA_SIZE, 16 << 10),
    // Detects a client that has vanished, even between requests. Two hours by default.
    (core::GRPC_ARG_KEEPALIVE_TIME_MS, 30_000),
    (core::GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10_000),
    (core::GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
    // A client may ping every ten seconds; the minimum is half of that, as pings may arrive early. By default it is
    // five minutes, and the connection of a client that pings more often is closed with "too_many_pings".
    (core::GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5_000),
    // gRPC does not limit the number of connections, so those without a request for five minutes are closed. An open
    // stream counts as a request.
    (core::GRPC_ARG_MAX_CONNECTION_IDLE_MS, 300_000),
];

/// The options of every channel.
const CHANNEL: Options = &[
    // The environment variable `http_proxy` is not meant for connections to nodes.
    (core::GRPC_ARG_ENABLE_HTTP_PROXY, 0),
    // Reconnects to a restarted node within a second. Up to two minutes by default.
    (core::GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100),
    (core::GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1_000),
    // In spite of its name, the timeout of one connection attempt. 20 s by default.
    (core::GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5_000),
    // Otherwise two channels to one address would share a connection, with the credentials of the first.
    (core::GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
    // Detects a dead connection within 15 s, even without requests.
    (core::GRPC_ARG_KEEPALIVE_TIME_MS, 10_000),
    (core::GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5_000),
    (core::GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
    (core::GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
    // gRPC must not retry on its own: a retried produce could append twice.
    (core::GRPC_ARG_ENABLE_RETRIES, 0),
    (core::GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1),
];

/// What differs for the channels of the client library: its processes keep connections open for a long time.
const LIBRARY: Options = &[(core::GRPC_ARG_KEEPALIVE_TIME_MS, 20_000), (core::GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10_000)];

/// Returns a builder for the client listener, without services.
pub fn client_listener(env: &Env, memory_bytes_max: u64) -> ServerBuilder {
    listener(env, "clients", memory_bytes_max, CLIENT_MESSAGE_BYTES_MAX)
}

/// Returns a builder for the peer listener, without services.
pub fn peer_listener(env: &Env, memory_bytes_max: u64) -> ServerBuilder {
    listener(env, "peers", memory_bytes_max, PEER_MESSAGE_BYTES_MAX)
}

/// Returns a channel to the peer at `host:port`. The peer's certificate must contain the name `expected`.
pub fn peer_channel(env: Arc<Environment>, addr: &str, creds: ChannelCredentials, expected: &str) -> Channel {
    let builder = channel(env, PEER_MESSAGE_BYTES_MAX).set_credentials(creds);
    // The name and not the address is verified, because mDNS announcements can be forged.
    connect(builder.override_ssl_target(without_nul(expected)), addr)
}

/// Returns a channel to the client listener at `host:port`. If `server_name` is set, the listener's certificate must
/// contain it instead of the host.
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

/// Returns a channel of the client library to the client listener at `host:port`.
pub fn library_channel(env: Arc<Environment>, addr: &str, creds: ChannelCredentials) -> Channel {
    let builder = channel(env, CLIENT_MESSAGE_BYTES_MAX).set_credentials(creds);
    connect(with_options(builder, LIBRARY), addr)
}

fn listener(env: &Env, name: &str, memory_bytes_max: u64, message_bytes_max: usize) -> ServerBuilder {
    let memory = usize::try_from(memory_bytes_max).unwrap_or(usize::MAX);
    let builder = with(ChannelBuilder::new(env.get()), LISTENER, message_bytes_max)
        // Above this, gRPC rejects requests; otherwise the system might kill the process for its memory use.
        .set_resource_quota(ResourceQuota::new(Some(name)).resize_memory(memory));
    ServerBuilder::new(env.get()).channel_args(builder.build_args())
}

fn channel(env: Arc<Environment>, message_bytes_max: usize) -> ChannelBuilder {
    with(ChannelBuilder::new(env), CHANNEL, message_bytes_max)
}

fn with(builder: ChannelBuilder, options: Options, message_bytes_max: usize) -> ChannelBuilder {
    let bytes = i32::try_from(message_bytes_max).unwrap_or(i32::MAX);
    with_options(builder.max_receive_message_len(bytes).max_send_message_len(bytes), options)
}

fn with_options(builder: ChannelBuilder, options: Options) -> ChannelBuilder {
    options.iter().fold(builder, |builder, (name, value)| {
        let name = CStr::from_bytes_with_nul(name).unwrap_or_default();
        builder.raw_cfg_int(name.to_owned(), *value)
    })
}

fn connect(builder: ChannelBuilder, addr: &str) -> Channel {
    builder.connect(&without_nul(addr))
}

/// Removes NUL bytes, on which grpcio panics. The changed name is not valid either, so the connection fails.
fn without_nul(text: &str) -> String {
    CString::new(text).map_or_else(|_| text.replace('\0', ""), |_| text.to_owned())
}
