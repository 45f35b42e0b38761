//! The client listener: starts, serves, drains and stops.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use futures::executor::block_on;
use grpcio::{Server, ServerCredentials};

use super::access::AccessControl;
use super::availability::Availability;
use super::core::{Core, Me};
use super::in_flight::InFlight;
use super::lifecycle::{Lifecycle, Phase};
use super::limits::Budgets;
use super::metrics::{RequestMetrics, observe_replicas, observe_usage};
use super::relayed::RelayedRequests;
use super::rpc;
use super::service::Service;
use crate::config;
use crate::grpc::sockets::bound_receive_buffers;
use crate::grpc::{Env, FloodGuard, RECEIVE_BUFFER_BYTES, Received, client_listener};
use crate::metrics::Metrics;
use crate::security::acl::Acl;
use crate::security::identity::Identities;
use crate::security::tls::{Authorities, Signer};
use crate::thread::FatalSender;
use crate::timers::Timers;
use crate::waiting::WaitingFor;

/// What the client listener needs to start.
pub struct ApiOptions {
    /// The address to listen on. Port 0 selects a free one.
    pub listen_addr: SocketAddr,
    /// TLS with reloading certificates, or plain text with `--insecure`.
    pub credentials: ServerCredentials,
    /// Reads clients' certificates.
    pub identities: Identities,
    /// The authorities whose certificates are accepted now.
    pub authorities: Authorities,
    /// Signs receipts.
    pub signer: Signer,
    /// The access policy.
    pub acl: Acl,
    /// The limits on what each principal, and all principals together, hold.
    pub limits: config::Limits,
    /// The counters of the node.
    pub metrics: Arc<Metrics>,
    /// The reason why the node does not serve yet.
    pub waiting: WaitingFor,
    /// This node's identity.
    pub me: Me,
}

/// Why the client listener did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address can't be bound.
    #[error(
        "rpc-addr: can't listen for clients on {addr}: another process uses it, or it is not an address of this host"
    )]
    Bind {
        /// The configured address, resolved.
        addr: String,
    },
    /// gRPC failed for another reason.
    #[error("can't start the client listener: {0}")]
    Grpc(grpcio::Error),
    /// A thread can't be created.
    #[error("can't start a thread of the client listener: {0}")]
    Thread(std::io::Error),
}

/// The running client listener. Dropping it stops it.
pub struct Api {
    port: u16,
    service: Service,
    /// Stopped in this order, so that requests end before the timers. `None` after the stop.
    running: Option<(Server, Timers)>,
    /// Closes connections that flood, also during a drain.
    _flood_guard: FloodGuard,
}

/// Limits the receive buffers of connections. A failure is only logged, because the listener works without the limit.
fn bound_connections(addr: SocketAddr) {
    match bound_receive_buffers(addr, RECEIVE_BUFFER_BYTES) {
        Ok(1..) => {}
        Ok(0) => log::warn!("no socket listens on {addr}: the receive buffers of its connections are not limited"),
        Err(e) => log::warn!("can't limit the receive buffers of connections to {addr}: {e}"),
    }
}

impl Api {
    /// Starts to listen. Until [`Api::serve`], requests fail with JOINING, and with the reason why the node does not
    /// serve yet.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(options: ApiOptions, env: &Env, fatal: &FatalSender) -> Result<Api, StartError> {
        let timers = Timers::start(fatal).map_err(StartError::Thread)?;
        let received = Received::default();
        let flood_guard =
            FloodGuard::start(received.clone(), options.metrics.clone(), fatal).map_err(StartError::Thread)?;
        let limits = &options.limits;
        let service = Service {
            me: options.me,
            access: AccessControl::new(options.identities, options.authorities, options.acl),
            limits: Budgets::new(limits.clone()),
            signer: options.signer,
            metrics: RequestMetrics::new(options.metrics),
            waiting: options.waiting,
            received,
            lifecycle: Lifecycle::default(),
            availability: Availability::default(),
            timers: timers.handle(),
            in_flight: InFlight::default(),
            member: Arc::new(OnceLock::new()),
            services: rpc::service_names().into(),
            fatal: fatal.clone(),
        };
        observe_usage(service.metrics.registry(), &service.limits);
        let (services, checker) = rpc::register(&service);
        let mut server = client_listener(env, limits.client_memory_bytes_max)
            .register_service(services)
            .add_checker(checker)
            .build()
            .map_err(StartError::Grpc)?;
        let port = server.add_listening_port(options.listen_addr.to_string(), options.credentials);
        let port = port.map_err(|error| match error {
            grpcio::Error::BindFail(_) => StartError::Bind { addr: options.listen_addr.to_string() },
            other => StartError::Grpc(other),
        })?;
        bound_connections(SocketAddr::new(options.listen_addr.ip(), port));
        server.start();
        Ok(Api { port, service, running: Some((server, timers)), _flood_guard: flood_guard })
    }

    /// Returns the port on which the listener accepts connections.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Serves requests from now on, because the node is a member. Must be called only once.
    ///
    /// # Panics
    /// If it is called again.
    pub fn serve(&self, core: Core) {
        observe_replicas(self.service.metrics.registry(), &core);
        assert!(self.service.member.set(core).is_ok(), "the client listener was given its core twice");
        self.service.lifecycle.enter(Phase::Serving);
    }

    /// Returns the parts that handlers share, for monitoring.
    pub fn service(&self) -> Service {
        self.service.clone()
    }

    /// Returns what serves the requests that other nodes relay to this one.
    pub fn relayed_requests(&self) -> RelayedRequests {
        RelayedRequests::new(self.service.clone())
    }

    /// Replaces the limits of clients. Those of gRPC's memory stay as they were at the start.
    pub fn set_limits(&self, limits: config::Limits) {
        self.service.limits.set_limits(limits);
    }

    /// Makes every open stream check its permission again, after the policy or the certificates were reloaded.
    pub fn recheck(&self) {
        self.service.lifecycle.recheck();
    }

    /// The first step of a shutdown: health checks return NOT_SERVING. Requests are still served while leadership is
    /// handed over.
    pub fn leave(&self) {
        self.service.lifecycle.enter(Phase::Leaving);
    }

    /// Rejects new requests with STOPPING, ends tails with a status, and waits until the requests in flight are
    /// answered, but at most until `deadline`. Returns true if none is left.
    pub fn drain(&self, deadline: Instant) -> bool {
        self.service.lifecycle.enter(Phase::Stopping);
        self.service.in_flight.wait_until(deadline)
    }

    /// Closes the listener and cancels the remaining requests.
    pub fn stop(mut self) {
        self.stop_now();
    }

    /// For tests that must not depend on time.
    #[cfg(test)]
    pub fn stop_timers(&mut self) {
        self.running.iter_mut().for_each(|(_, timers)| timers.stop());
    }

    /// The limits, for tests that need a state which takes long to reach.
    #[cfg(test)]
    pub fn limits(&self) -> &Budgets {
        &self.service.limits
    }

    fn stop_now(&mut self) {
        let Some((mut server, timers)) = self.running.take() else {
            return;
        };
        self.service.lifecycle.enter(Phase::Stopping);
        let closed = server.shutdown();
        server.cancel_all_calls();
        if let Err(error) = block_on(closed) {
            log::warn!("the client listener did not close cleanly: {error}");
        }
        drop(server);
        drop(timers);
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop_now();
    }
}
