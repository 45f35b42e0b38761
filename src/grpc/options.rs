//! Every option of listeners and channels, and why it differs from the default.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use grpcio::{Channel, ChannelBuilder, ChannelCredentials, Environment, ResourceQuota, ServerBuilder};
use grpcio_sys as core;

use super::env::Env;

/// What the client listener, and a client, take in one message, and send: the largest entry, and room for what is around it.
/// A request that is larger than its log allows, but fits here, gets the API's own answer.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 9 << 20;

/// What the peer listener and its peers take in one message, and send: a batch that ends with an entry of the largest size.
pub const PEER_MESSAGE_BYTES_MAX: usize = 16 << 20;

/// What the system is asked to keep of a client's connection until it is read (`SO_RCVBUF`). It takes twice that for the bytes and
/// its notes, so they may be 500 KiB; and 208 KiB are asked for where `net.core.rmem_max` is that, as it is by default.
///
/// gRPC's core reads a connection until nothing is left there, and serves no other one meanwhile: with as much as Linux gives
/// by itself (`tcp_rmem`, 6 to 32 MiB), an honest call beside messages of 8 MiB took 30 ms and not 10. It is faster, too: a
/// stream of 1 KiB messages by a quarter. One connection has no more than that in flight: 25 to 50 MB/s at 10 ms.
pub const RECEIVE_BUFFER_BYTES: usize = 256 << 10;

type Options = &'static [(&'static [u8], i32)];

/// Both listeners.
const LISTENER: Options = &[
    // Else a second process binds a busy port, and the two share its connections in silence.
    (core::GRPC_ARG_ALLOW_REUSEPORT, 0),
    // Only "identity": a gzip message of 4 MiB unpacks to 512 MiB before any limit is looked at.
    (core::GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1),
    // Two minutes by default, for as many half-open connections as somebody likes.
    (core::GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 10_000),
    // Of one connection. No limit by default.
    (core::GRPC_ARG_MAX_CONCURRENT_STREAMS, 1024),
    // Above the first a call is refused at random, rising to always at the second.
    (core::GRPC_ARG_MAX_METADATA_SIZE, 8 << 10),
    (core::GRPC_ARG_ABSOLUTE_MAX_METADATA_SIZE, 16 << 10),
    // A client that vanished is noticed, also between calls. Two hours by default.
    (core::GRPC_ARG_KEEPALIVE_TIME_MS, 30_000),
    (core::GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10_000),
    (core::GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
    // A client may ping every ten seconds; half of that, so that a ping that comes early is no offence. Five minutes by
    // default, and then the connection is closed for "too_many_pings".
    (core::GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5_000),
    // gRPC does not count connections for us, so those without a call for five minutes go. An open stream is a call.
    (core::GRPC_ARG_MAX_CONNECTION_IDLE_MS, 300_000),
];

/// Every channel.
const CHANNEL: Options = &[
    // `http_proxy` in the environment is meant for the web.
    (core::GRPC_ARG_ENABLE_HTTP_PROXY, 0),
    // A node that is back is found within a second; two minutes by default.
    (core::GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100),
    (core::GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1_000),
    // In spite of its name, how long one attempt may take. 20 s by default.
    (core::GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5_000),
    // Two channels to one address would share a connection, with the credentials of the first.
    (core::GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
    // A dead link is noticed within 15 s, and also when nothing but pings is on it.
    (core::GRPC_ARG_KEEPALIVE_TIME_MS, 10_000),
    (core::GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5_000),
    (core::GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
    (core::GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
    // Nothing is sent twice unless we say so.
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

/// A channel to a peer, `host:port`: whoever answers there must have the name `expected` in its certificate.
pub fn peer_channel(env: Arc<Environment>, addr: &str, creds: ChannelCredentials, expected: &str) -> Channel {
    let builder = channel(env, PEER_MESSAGE_BYTES_MAX).set_credentials(creds);
    // Addresses play no part: mDNS can be made to lie about them.
    connect(builder.override_ssl_target(without_nul(expected)), addr)
}

/// A channel to a client listener, `host:port`. `server_name`: what to expect in its certificate instead of the host.
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
        // Calls beyond it are refused, instead of the process being killed.
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

/// grpcio panics at a NUL in a name; an address without one is just as wrong, and fails as a connection.
fn without_nul(text: &str) -> String {
    CString::new(text).map_or_else(|_| text.replace('\0', ""), |_| text.to_owned())
}
