//! The peer listener (`bind_addr`): the gRPC server for other nodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use grpcio::{Server, ServerCredentials};

use crate::forming::FormingHandle;
use crate::grpc::{Env, peer_listener};
use crate::replication::Late;
use crate::replication::guard::{Checker, PeerGuard};
use crate::replication::peers::PeersHandle;
use crate::replication::refusal_log::RefusalLog;
use crate::replication::service::peer_service;
use crate::replication::wait::block_until;
use crate::thread::FatalSender;

/// The longest wait for cancelled calls to end.
const STOP_MAX: Duration = Duration::from_secs(3);

/// The settings of the listener.
pub struct PeerListenerOptions {
    /// The address to listen on, `host:port`. With port 0, the system chooses a free port.
    pub bind_addr: String,
    /// The cluster's name; a node that asks for another one is refused.
    pub cluster_name: String,
    /// The limit of gRPC's memory for this listener.
    pub memory_bytes_max: u64,
    /// Set if this node forms a cluster with other blank nodes.
    pub forming: Late<FormingHandle>,
}

/// The running listener. Dropping it stops it.
pub struct PeerListener {
    server: Server,
    port: u16,
    stopped: bool,
}

impl PeerListener {
    /// Binds the address and serves. Until `core` is set, every call is refused.
    ///
    /// # Errors
    /// If the address can't be bound.
    pub fn start(
        env: &Env,
        options: &PeerListenerOptions,
        creds: ServerCredentials,
        guard: PeerGuard,
        core: Late<PeersHandle>,
        fatal: FatalSender,
    ) -> grpcio::Result<PeerListener> {
        let refusals = Arc::<RefusalLog>::default();
        let forming = options.forming.clone();
        let service = peer_service(&options.cluster_name, guard.clone(), core, forming, refusals.clone(), fatal);
        let mut server = peer_listener(env, options.memory_bytes_max)
            .add_checker(Checker { guard, refusals })
            .register_service(service)
            .build()?;
        let port = server.add_listening_port(options.bind_addr.clone(), creds)?;
        server.start();
        Ok(PeerListener { server, port, stopped: false })
    }

    /// Returns the port that was bound.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Refuses new calls and cancels open ones.
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
