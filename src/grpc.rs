//! gRPC's options, all of them in this file.

use std::future::Future;
use std::sync::Arc;

use grpcio::{Channel, ChannelCredentials, Environment, RpcContext, ServerBuilder};

use crate::thread::FatalSender;

/// What the client listener, and a client, take in one message, and send.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 9 << 20;

/// What the peer listener and its peers take in one message, and send.
pub const PEER_MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The completion-queue threads of one listener, or of the channels. Joined by [`Env::stop`].
pub struct Env {}

/// Threads that did not end: somebody still holds a channel, a server or a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StillInUse {}

impl Env {
    /// Starts `threads` threads `<name>-0`, `<name>-1`, ... A thread that dies is fatal.
    pub fn start(name: &str, threads: usize, fatal: &FatalSender) -> Env {
        todo!("{name} {threads} {fatal:?}")
    }

    /// For servers and channels on these threads.
    pub fn get(&self) -> Arc<Environment> {
        todo!()
    }

    /// Ends and joins the threads, once every server and channel on them is dropped.
    ///
    /// # Errors
    /// [`StillInUse`] after five seconds.
    pub fn stop(self) -> Result<(), StillInUse> {
        todo!()
    }
}

/// A server for the client listener, without services yet.
pub fn client_listener(env: &Env, memory_bytes_max: u64) -> ServerBuilder {
    todo!("{memory_bytes_max} {:p}", env)
}

/// A server for the peer listener, without services yet.
pub fn peer_listener(env: &Env, memory_bytes_max: u64) -> ServerBuilder {
    todo!("{memory_bytes_max} {:p}", env)
}

/// A channel to a peer, `host:port`: whoever answers there must have the cluster's peer name in its certificate.
pub fn peer_channel(env: Arc<Environment>, addr: &str, creds: ChannelCredentials, cluster_name: &str) -> Channel {
    let _ = (env, creds);
    todo!("{addr} {cluster_name}")
}

/// A channel to a client listener, `host:port`. `server_name`: what to expect in its certificate instead of the host.
pub fn client_channel(
    env: Arc<Environment>,
    addr: &str,
    creds: ChannelCredentials,
    server_name: Option<&str>,
) -> Channel {
    let _ = (env, creds);
    todo!("{addr} {server_name:?}")
}

/// Runs a handler's future on its completion-queue thread. A panic in it is fatal for the process, instead of for the
/// thread alone, whose calls would never return.
pub fn spawn_guarded<F>(ctx: &RpcContext<'_>, fatal: &FatalSender, future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let _ = (ctx.method(), fatal, future);
    todo!()
}

/// The same for a handler's part that runs before its future: `None` after a panic.
pub fn guarded<T>(fatal: &FatalSender, body: impl FnOnce() -> T) -> Option<T> {
    let _ = (fatal, body);
    todo!()
}

/// Sends what gRPC's C core logs to ours, rate-limited. Once for the process, after its logger is set.
pub fn redirect_log() {
    todo!()
}
