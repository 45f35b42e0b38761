//! The peer listener (`bind_addr`): the gRPC server that other nodes reach.

use std::sync::Arc;
use std::time::{Duration, Instant};

use grpcio::{Server, ServerCredentials};

use crate::grpc::{Env, peer_listener};
use crate::replication::Late;
use crate::replication::guard::{Checker, Guard};
use crate::replication::peers::PeersHandle;
use crate::replication::refusal::Rarely;
use crate::replication::service::peer_service;
use crate::replication::wait::block_until;
use crate::thread::FatalSender;

/// Calls that do not end by themselves are given this long after they were cancelled.
const STOP_MAX: Duration = Duration::from_secs(3);

/// What the listener serves.
pub struct PeerListenerOptions {
    /// Where to listen, `host:port`; port 0 takes a free one.
    pub bind_addr: String,
    /// The cluster's name; a node that asks for another one is refused.
    pub cluster_name: String,
    /// gRPC's memory for this listener.
    pub memory_bytes_max: u64,
}

/// The running listener. Dropping it stops it.
pub struct PeerListener {
    server: Server,
    port: u16,
    stopped: bool,
}

impl PeerListener {
    /// Binds and serves. Until `core` is filled every call is answered UNAVAILABLE.
    ///
    /// # Errors
    /// When the address can't be bound.
    pub fn start(
        env: &Env,
        options: &PeerListenerOptions,
        creds: ServerCredentials,
        guard: Guard,
        core: Late<PeersHandle>,
        fatal: FatalSender,
    ) -> grpcio::Result<PeerListener> {
        let refusals = Arc::<Rarely>::default();
        let service = peer_service(&options.cluster_name, guard.clone(), core, refusals.clone(), fatal);
        let mut server = peer_listener(env, options.memory_bytes_max)
            .add_checker(Checker { guard, refusals })
            .register_service(service)
            .build()?;
        let port = server.add_listening_port(options.bind_addr.clone(), creds)?;
        server.start();
        Ok(PeerListener { server, port, stopped: false })
    }

    /// The port that is bound.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Refuses new calls and cancels those that are open.
    pub fn stop(&mut self) {
        if self.stopped {
            return;
        }
        self.stopped = true;
        let shutdown = self.server.shutdown();
        self.server.cancel_all_calls();
        if block_until(shutdown, Instant::now() + STOP_MAX).is_none() {
            log::warn!("the peer listener did not end within {STOP_MAX:?}");
        }
    }
}

impl Drop for PeerListener {
    fn drop(&mut self) {
        self.stop();
    }
}
