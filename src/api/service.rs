//! What handlers use: the node's shared parts ([`Service`]), the identity and the deadline of the request ([`Call`]),
//! and the ways in which a request ends.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use futures::future::{Either, select};
use futures::{FutureExt as _, Sink};
use grpcio::{DuplexSink, RpcContext};

use super::access::{AccessControl, ClientAccess, Right, next_check};
use super::availability::Availability;
use super::core::{Core, Me};
use super::deadline;
use super::error::{ApiError, Invalid};
use super::in_flight::InFlight;
use super::lifecycle::{Lifecycle, Phase};
use super::limits::Budgets;
use super::metrics::RequestMetrics;
use super::package::Package;
use super::status::{FailedAt, StatusContext};
use crate::events::{EventKind, Severity};
use crate::grpc::Received;
use crate::grpc::received::Account;
use crate::security::identity::{NoIdentity, Principal};
use crate::security::tls::{ConnectionCertificate, Signer};
use crate::thread::FatalSender;
use crate::timers::TimersHandle;
use crate::types::{LogName, Offset};
use crate::waiting::WaitingFor;
use crate::watermark::{HighWatermark, Until};

/// The parts that all handlers share. Clones share them, too.
#[derive(Clone)]
pub struct Service {
    /// The identity of this node.
    pub me: Me,
    /// Identifies clients and checks their permissions.
    pub access: AccessControl,
    /// The limits on what each principal, and all principals together, hold.
    pub limits: Budgets,
    /// Signs receipts.
    pub signer: Signer,
    /// The metrics of requests.
    pub metrics: RequestMetrics,
    /// The reason why the node does not serve yet.
    pub waiting: WaitingFor,
    /// Counts the received bytes that belong to messages, for each connection.
    pub received: Received,
    /// The phase of the node.
    pub lifecycle: Lifecycle,
    /// Whether the logs of this node are available.
    pub availability: Availability,
    /// Wakes futures at their deadlines.
    pub timers: TimersHandle,
    /// Counts the requests that have not ended.
    pub in_flight: InFlight,
    /// The parts of the node that exist once it is a member.
    pub member: Arc<OnceLock<Core>>,
    /// The names of the services in health checks.
    pub services: Arc<[&'static str]>,
    /// Receives panics.
    pub fatal: FatalSender,
}

/// The identity, required permission and deadline of a request.
pub struct Call {
    /// The package of the method.
    pub package: Package,
    right: Right,
    /// The log that the request names.
    log: Arc<OnceLock<LogName>>,
    certificate: Result<ConnectionCertificate, NoIdentity>,
    caller: Caller,
    /// Counts the messages of the request's connection.
    pub account: Arc<Account>,
    /// The client's deadline.
    pub deadline: Option<Instant>,
}

/// The sender of a request.
enum Caller {
    /// A client of this node.
    Client(Result<ClientAccess, ApiError>),
    /// A client of another node, which has checked its rights.
    Relayed(Principal),
}

/// What the status of a failed request needs to know about the request.
pub struct CallContext {
    package: Package,
    log: Arc<OnceLock<LogName>>,
}

impl CallContext {
    /// Returns the context of the status of a failed request.
    pub fn of_status(&self, service: &Service, at: Option<FailedAt>) -> StatusContext {
        let leader = self.log.get().and_then(|log| service.member.get()?.leader_addr(log));
        StatusContext { package: self.package, leader, at }
    }
}

/// Why a stream ends without success.
#[derive(Debug)]
pub enum StreamEnd {
    /// An error, which becomes the status.
    Failed(RequestFailure),
    /// The client is gone.
    Gone,
}

impl StreamEnd {
    /// Changes the failure, if it is one.
    pub fn map(self, change: impl FnOnce(RequestFailure) -> RequestFailure) -> StreamEnd {
        match self {
            StreamEnd::Failed(failure) => StreamEnd::Failed(change(failure)),
            StreamEnd::Gone => StreamEnd::Gone,
        }
    }
}

/// The error that ends a request.
#[derive(Debug)]
pub struct RequestFailure {
    /// The error. `status` maps it to a gRPC status.
    pub error: ApiError,
    /// The size of the request that failed.
    pub request_bytes: usize,
    /// Which request of a stream failed; `None` for the first one.
    pub at: Option<FailedAt>,
}

impl<E: Into<ApiError>> From<E> for StreamEnd {
    fn from(error: E) -> StreamEnd {
        StreamEnd::Failed(RequestFailure { error: error.into(), request_bytes: 0, at: None })
    }
}

impl Call {
    /// Reads identity and deadline from the context of a request.
    pub fn new(service: &Service, ctx: &RpcContext<'_>, right: Right, package: Package) -> Call {
        let certificate = service.access.certificate(ctx);
        let client =
            certificate.clone().map_err(ApiError::from).and_then(|certificate| service.access.client(ctx, certificate));
        Call {
            package,
            right,
            log: Arc::default(),
            certificate,
            caller: Caller::Client(client),
            account: service.received.account(ctx),
            deadline: deadline::of(ctx),
        }
    }

    /// Creates the call of a request that another node relays. That node has checked the rights of its client.
    pub fn relayed(package: Package, principal: Principal, deadline: Option<Instant>) -> Call {
        Call {
            package,
            right: Right::Certificate,
            log: Arc::default(),
            certificate: Ok(ConnectionCertificate::default()),
            caller: Caller::Relayed(principal),
            account: Arc::default(),
            deadline,
        }
    }

    /// Returns true for a request that another node relays. It must not be relayed again.
    pub fn is_relayed(&self) -> bool {
        match self.caller {
            Caller::Client(_) => false,
            Caller::Relayed(_) => true,
        }
    }

    /// Returns what the status of the request needs to know, if it fails.
    pub fn context(&self) -> CallContext {
        CallContext { package: self.package, log: Arc::clone(&self.log) }
    }

    /// Returns the client.
    ///
    /// # Errors
    /// [`ApiError::NoIdentity`].
    pub fn client(&self) -> Result<&ClientAccess, ApiError> {
        match &self.caller {
            Caller::Client(client) => client.as_ref().map_err(Clone::clone),
            Caller::Relayed(_) => Err(ApiError::Internal("the rights of a relayed request were checked")),
        }
    }

    /// Returns the principal whose limits the request uses. All requests without a usable name share one principal.
    pub fn principal(&self) -> Principal {
        match &self.caller {
            Caller::Client(client) => {
                client.as_ref().map_or_else(|_| Principal::anonymous(), |client| client.principal().clone())
            }
            Caller::Relayed(principal) => principal.clone(),
        }
    }

    /// Checks only the certificate, and accepts any name in it.
    ///
    /// # Errors
    /// [`ApiError::NoIdentity`].
    pub fn check_certificate(&self) -> Result<(), ApiError> {
        Ok(self.certificate.as_ref().map_err(Clone::clone)?.check(SystemTime::now())?)
    }

    /// Returns when an open stream checks its certificate again.
    pub fn next_check(&self) -> Instant {
        next_check(self.certificate.as_ref().ok().and_then(ConnectionCertificate::expires))
    }

    /// Parses the log name in a message, and checks the permission that the RPC requires on that log.
    ///
    /// # Errors
    /// [`Invalid::LogName`], [`ApiError::NoIdentity`], [`ApiError::NotAllowed`].
    pub fn log_name(&self, name: &str) -> Result<LogName, ApiError> {
        let name = LogName::new(name).map_err(Invalid::LogName)?;
        self.check_log(&name)?;
        Ok(name)
    }

    /// Checks the permission that the RPC requires on a log. Must be repeated after a long wait.
    ///
    /// # Errors
    /// [`ApiError::NoIdentity`], [`ApiError::NotAllowed`].
    pub fn check_log(&self, log: &LogName) -> Result<(), ApiError> {
        // Set once: all messages of a stream are for the same log.
        let _ = self.log.set(log.clone());
        match self.right {
            Right::Certificate => Ok(()),
            Right::Log(_) | Right::LogIfNamed(_) => self.client()?.check_log(self.right, log),
            Right::EveryLog(_) => self.client()?.check_every_log(self.right),
        }
    }

    /// Checks the permission on every log, if the RPC requires one.
    ///
    /// # Errors
    /// [`ApiError::NoIdentity`], [`ApiError::NotAllowed`].
    pub fn check_every_log(&self) -> Result<(), ApiError> {
        match self.right {
            Right::Certificate | Right::Log(_) | Right::LogIfNamed(_) => Ok(()),
            Right::EveryLog(_) => self.client()?.check_every_log(self.right),
        }
    }

    /// Resolves when an open stream must end: see [`ClientAccess::must_end`].
    ///
    /// # Errors
    /// [`ApiError::NoIdentity`].
    pub fn must_end(
        &self,
        service: &Service,
        log: Option<LogName>,
    ) -> Result<impl Future<Output = ApiError> + Send + use<>, ApiError> {
        if self.is_relayed() {
            let stopping = service.stopping();
            return Ok(Either::Left(stopping.map(|()| ApiError::Stopping)));
        }
        let client = self.client()?.clone();
        Ok(Either::Right(client.must_end(self.right, log, service.lifecycle.clone(), service.timers.clone())))
    }
}

impl Service {
    /// Returns the parts of the node that exist once it is a member.
    ///
    /// # Errors
    /// JOINING before the node is a member, STOPPING while it stops.
    pub fn core(&self) -> Result<&Core, ApiError> {
        match self.lifecycle.now().phase {
            Phase::Stopping => Err(ApiError::Stopping),
            Phase::Joining | Phase::Serving | Phase::Leaving => {
                self.member.get().ok_or_else(|| ApiError::NotReady { waiting_for: self.waiting.get() })
            }
        }
    }

    /// Shows a change of the cluster that a client has requested as an event.
    pub fn changed(&self, what: String) {
        self.metrics.registry().events().record(EventKind::Admin, Severity::Info, what);
    }

    /// Waits until a record is visible, but at most until a time. The caller checks which was first.
    ///
    /// # Errors
    /// STOPPING if the node stops, and an error if its replica of the log has stopped.
    pub async fn wait_visible(
        &self,
        watermark: &HighWatermark,
        offset: Offset,
        until: Instant,
    ) -> Result<(), ApiError> {
        let over = select(self.timers.at(until), self.stopping());
        match select(watermark.wait(Until::Visible(offset), &self.timers), over).await {
            Either::Left((Ok(_), _)) | Either::Right((Either::Left(_), _)) => Ok(()),
            Either::Left((Err(_), _)) => Err(ApiError::ReplicaDamaged),
            Either::Right((Either::Right(_), _)) => Err(ApiError::Stopping),
        }
    }

    /// Resolves when the node stops.
    pub fn stopping(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let lifecycle = self.lifecycle.clone();
        Box::pin(async move {
            let mut seen = lifecycle.now();
            while seen.phase != Phase::Stopping {
                seen = lifecycle.changed(seen).await;
            }
        })
    }
}

/// Becomes ready when the client is gone. For a stream that has nothing to send.
pub fn poll_gone<T>(sink: &mut DuplexSink<T>, cx: &mut Context<'_>) -> Poll<()> {
    match Pin::new(sink).poll_flush(cx) {
        Poll::Ready(Err(_)) => Poll::Ready(()),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}
