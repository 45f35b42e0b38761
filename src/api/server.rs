//! The client listener: starts, takes calls, drains and stops.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use futures::executor::block_on;
use grpcio::{Server, ServerCredentials, ServiceBuilder};

use super::authorize::{Access, Guard};
use super::availability::Availability;
use super::core::{Core, Me};
use super::in_flight::InFlight;
use super::limits::Limits;
use super::service::Service;
use super::state::{Phase, State};
use super::{admin, configure, consume, consume_stream, health, info, methods, produce, produce_stream};
use crate::config;
use crate::grpc::sockets::bound_receive_buffers;
use crate::grpc::{Env, FloodGuard, RECEIVE_BUFFER_BYTES, Received, client_listener};
use crate::metrics::Metrics;
use crate::security::acl::Acl;
use crate::security::identity::Identities;
use crate::security::tls::Authorities;
use crate::thread::FatalSender;
use crate::timers::Timers;
use crate::waiting::WaitingFor;

/// What the client listener is started with.
pub struct ApiOptions {
    /// Where to listen; port 0 takes any.
    pub listen_addr: SocketAddr,
    /// The listener's credentials.
    pub credentials: ServerCredentials,
    /// Tells who calls.
    pub identities: Identities,
    /// Those whose certificates are accepted now.
    pub authorities: Authorities,
    /// Tells what they may do.
    pub acl: Acl,
    /// What one principal, and all, may hold.
    pub limits: config::Limits,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Why the node does not take calls yet.
    pub waiting: WaitingFor,
    /// Who this node is.
    pub me: Me,
}

/// The client listener does not start.
#[derive(Debug)]
pub enum StartError {
    /// The address can't be bound.
    Bind {
        /// Which.
        addr: String,
    },
    /// gRPC refuses for another reason.
    Grpc(grpcio::Error),
    /// A thread can't be made.
    Thread(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Bind { addr } => {
                write!(f, "can't listen for clients on {addr}: in use by another process, or no address of this host")
            }
            StartError::Grpc(e) => write!(f, "can't start the client listener: {e}"),
            StartError::Thread(e) => write!(f, "can't start a thread of the client listener: {e}"),
        }
    }
}

impl Error for StartError {}

/// The running client listener. Dropping it stops it.
pub struct Api {
    port: u16,
    service: Service,
    /// Taken by the stop, in this order: calls end, then time.
    running: Option<(Server, Timers)>,
    /// Against floods, of which the drain may be one.
    _flood_guard: FloodGuard,
}

/// Not worth failing for.
fn bound_connections(addr: SocketAddr) {
    match bound_receive_buffers(addr, RECEIVE_BUFFER_BYTES) {
        Ok(1..) => {}
        Ok(0) => log::warn!("no socket listens on {addr}: what the system keeps of its connections has no bound"),
        Err(e) => log::warn!("can't bound what the system keeps of a connection to {addr}: {e}"),
    }
}

impl Api {
    /// Binds and takes calls. Until [`Api::serve`] they are answered with JOINING, and what the node waits for.
    ///
    /// # Errors
    /// [`StartError`] when it can't listen.
    pub fn start(options: ApiOptions, env: &Env, fatal: &FatalSender) -> Result<Api, StartError> {
        let timers = Timers::start(fatal).map_err(StartError::Thread)?;
        let received = Received::default();
        let flood_guard =
            FloodGuard::start(received.clone(), options.metrics.clone(), fatal).map_err(StartError::Thread)?;
        let limits = &options.limits;
        let service = Service {
            me: options.me,
            access: Access::new(options.identities, options.authorities, options.acl),
            limits: Limits::new(limits.clone()),
            tarpit: Arc::default(),
            metrics: options.metrics,
            waiting: options.waiting,
            received,
            state: State::default(),
            availability: Availability::default(),
            timers: timers.handle(),
            in_flight: InFlight::default(),
            late: Arc::new(OnceLock::new()),
            fatal: fatal.clone(),
        };
        let mut server = client_listener(env, limits.client_memory_bytes_max)
            .register_service(handlers(&service))
            .add_checker(Guard::new(service.access.clone(), service.metrics.clone(), fatal.clone()))
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

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The node is a member: from now on calls are served. Once.
    ///
    /// # Panics
    /// If it is called again.
    pub fn serve(&self, core: Core) {
        assert!(self.service.late.set(core).is_ok(), "the client listener was given its core twice");
        self.service.state.enter(Phase::Serving);
    }

    /// The policy or the certificates were loaded anew: every open stream checks its right again.
    pub fn recheck(&self) {
        self.service.state.recheck();
    }

    /// The first step of a stop: health says no, and calls are still served while leadership is handed over.
    pub fn leave(&self) {
        self.service.state.enter(Phase::Leaving);
    }

    /// Refuses new calls (STOPPING), ends tails with a status and waits until the calls in flight are answered, at most
    /// until `deadline`. True when none is left.
    pub fn drain(&self, deadline: Instant) -> bool {
        self.service.state.enter(Phase::Stopping);
        self.service.in_flight.wait_until(deadline)
    }

    /// Closes the listener and cancels what is left.
    pub fn stop(mut self) {
        self.stop_now();
    }

    fn stop_now(&mut self) {
        let Some((mut server, timers)) = self.running.take() else {
            return;
        };
        self.service.state.enter(Phase::Stopping);
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

/// Every method is a stream of requests to gRPC's binding, also where its client sends one: on the wire there is no
/// difference. A method that it knows to have one request takes a slot of 1,024 until that has come, so somebody who sends
/// a byte a second would end the service for all (`tests/e2e/hostile.rs`); and it receives the message before anybody is
/// asked who calls.
fn handlers(service: &Service) -> grpcio::Service {
    macro_rules! unary {
        ($builder:ident, $method:expr, $handle:expr) => {{
            let s = service.clone();
            $builder.add_client_streaming_handler(&$method, move |ctx, requests, sink| {
                s.answer(&ctx, requests, sink, $handle);
            })
        }};
    }
    let builder = ServiceBuilder::new();
    let builder = unary!(builder, methods::PRODUCE, produce::produce);
    let s = service.clone();
    let builder = builder.add_client_streaming_handler(&methods::CONSUME, move |ctx, requests, sink| {
        s.answer_waiting(&ctx, requests, sink, consume::consume);
    });
    let builder = unary!(builder, methods::GET_SERVERS, info::get_servers);
    let builder = unary!(builder, methods::GET_LOG, info::get_log);
    let builder = unary!(builder, methods::TRIM, admin::trim);
    let builder = unary!(builder, methods::CONFIGURE_LOG, configure::configure_log);
    let builder = unary!(builder, methods::GET_NODE, admin::get_node);
    let builder = unary!(builder, methods::HEALTH_CHECK, |s, _, request| health::check(s, request));
    let s = service.clone();
    let builder = builder.add_duplex_streaming_handler(&methods::CONSUME_STREAM, move |ctx, requests, sink| {
        let call = s.call(&ctx);
        consume_stream::consume_stream(s.clone(), &ctx, call, requests, sink);
    });
    let s = service.clone();
    let builder = builder.add_duplex_streaming_handler(&methods::PRODUCE_STREAM, move |ctx, requests, sink| {
        let call = s.call(&ctx);
        produce_stream::produce_stream(s.clone(), &ctx, call, requests, sink);
    });
    let s = service.clone();
    let builder = builder.add_duplex_streaming_handler(&methods::HEALTH_WATCH, move |ctx, requests, sink| {
        let call = s.call(&ctx);
        health::watch(s.clone(), &ctx, call, requests, sink);
    });
    builder.build()
}
