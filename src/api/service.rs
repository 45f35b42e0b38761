//! What every handler works with: the node's shared parts ([`Service`]), the request's identity and deadline ([`Call`]), and
//! the ways in which a request ends.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use futures::Sink;
use futures::future::{Either, select};
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
use super::status::FailedAt;
use crate::grpc::Received;
use crate::grpc::received::Account;
use crate::security::identity::{NoIdentity, Principal};
use crate::security::tls::ConnectionCertificate;
use crate::thread::FatalSender;
use crate::timers::TimersHandle;
use crate::types::{LogName, Offset};
use crate::waiting::WaitingFor;
use crate::watermark::{HighWatermark, Until};

/// Shared by all handlers; a clone is the same.
#[derive(Clone)]
pub struct Service {
    /// Id and name of this node, and its cluster's name.
    pub me: Me,
    /// Tells clients and their rights.
    pub access: AccessControl,
    /// What each principal, and all together, may hold.
    pub limits: Budgets,
    /// What requests count.
    pub metrics: RequestMetrics,
    /// Why the node does not serve yet.
    pub waiting: WaitingFor,
    /// How many of the bytes that connections send belong to messages.
    pub received: Received,
    /// Joining, serving or stopping.
    pub lifecycle: Lifecycle,
    /// Whether a majority answers.
    pub availability: Availability,
    /// Wakes futures at a time.
    pub timers: TimersHandle,
    /// Requests that have not ended.
    pub in_flight: InFlight,
    /// The rest of the node, once it is a member.
    pub member: Arc<OnceLock<Core>>,
    /// The names of the services that health checks may ask for.
    pub services: Arc<[&'static str]>,
    /// Where a panic is reported.
    pub fatal: FatalSender,
}

/// A request's identity, right and deadline.
pub struct Call {
    right: Right,
    certificate: Result<ConnectionCertificate, NoIdentity>,
    client: Result<ClientAccess, ApiError>,
    /// Counts the messages of the request's connection.
    pub account: Arc<Account>,
    /// When the client stops waiting.
    pub deadline: Option<Instant>,
}

/// How a stream ends, where it does not end well.
#[derive(Debug)]
pub enum StreamEnd {
    /// With the status of an error.
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
    /// Classified by `status`.
    pub error: ApiError,
    /// The size of the request that failed.
    pub request_bytes: usize,
    /// In a stream of requests: which one failed; `None`: the first.
    pub at: Option<FailedAt>,
}

impl<E: Into<ApiError>> From<E> for StreamEnd {
    fn from(error: E) -> StreamEnd {
        StreamEnd::Failed(RequestFailure { error: error.into(), request_bytes: 0, at: None })
    }
}

impl Call {
    /// Reads what the request's context tells about it.
    pub fn new(service: &Service, ctx: &RpcContext<'_>, right: Right) -> Call {
        let certificate = service.access.certificate(ctx);
        let client =
            certificate.clone().map_err(ApiError::from).and_then(|certificate| service.access.client(ctx, certificate));
        Call { right, certificate, client, account: service.received.account(ctx), deadline: deadline::of(ctx) }
    }

    /// The client.
    ///
    /// # Errors
    /// [`ApiError::NoIdentity`].
    pub fn client(&self) -> Result<&ClientAccess, ApiError> {
        self.client.as_ref().map_err(Clone::clone)
    }

    /// The principal whose limits the request counts against. All without a usable name share one.
    pub fn principal(&self) -> Principal {
        self.client.as_ref().map_or_else(|_| Principal::anonymous(), |client| client.principal().clone())
    }

    /// Checks the certificate alone, whatever name it has.
    ///
    /// # Errors
    /// [`ApiError::NoIdentity`].
    pub fn check_certificate(&self) -> Result<(), ApiError> {
        Ok(self.certificate.as_ref().map_err(Clone::clone)?.check(SystemTime::now())?)
    }

    /// When an open stream checks its certificate again.
    pub fn next_check(&self) -> Instant {
        next_check(self.certificate.as_ref().ok().and_then(ConnectionCertificate::expires))
    }

    /// Parses the name of the log that a message contains, and checks the RPC's right to it.
    ///
    /// # Errors
    /// [`Invalid::LogName`], [`ApiError::NoIdentity`], [`ApiError::NotAllowed`].
    pub fn log_name(&self, name: &str) -> Result<LogName, ApiError> {
        let name = LogName::new(name).map_err(Invalid::LogName)?;
        self.check_log(&name)?;
        Ok(name)
    }

    /// Checks the RPC's right to a log. To be repeated after a long wait.
    ///
    /// # Errors
    /// [`ApiError::NoIdentity`], [`ApiError::NotAllowed`].
    pub fn check_log(&self, log: &LogName) -> Result<(), ApiError> {
        match self.right {
            Right::Certificate => Ok(()),
            Right::Log(_) => self.client()?.check_log(self.right, log),
            Right::EveryLog(_) => self.client()?.check_every_log(self.right),
        }
    }

    /// Checks the RPC's right, if it needs one to every log.
    ///
    /// # Errors
    /// [`ApiError::NoIdentity`], [`ApiError::NotAllowed`].
    pub fn check_every_log(&self) -> Result<(), ApiError> {
        match self.right {
            Right::Certificate | Right::Log(_) => Ok(()),
            Right::EveryLog(_) => self.client()?.check_every_log(self.right),
        }
    }

    /// Resolves when an open stream has to end: see [`ClientAccess::lost`].
    ///
    /// # Errors
    /// [`ApiError::NoIdentity`].
    pub fn must_end(
        &self,
        service: &Service,
        log: Option<LogName>,
    ) -> Result<impl Future<Output = ApiError> + Send + use<>, ApiError> {
        let client = self.client()?.clone();
        Ok(client.must_end(self.right, log, service.lifecycle.clone(), service.timers.clone()))
    }
}

impl Service {
    /// The rest of the node.
    ///
    /// # Errors
    /// JOINING before the node is a member, STOPPING at the end.
    pub fn core(&self) -> Result<&Core, ApiError> {
        match self.lifecycle.now().phase {
            Phase::Stopping => Err(ApiError::Stopping),
            Phase::Joining | Phase::Serving | Phase::Leaving => {
                self.member.get().ok_or_else(|| ApiError::NotReady { waiting_for: self.waiting.get() })
            }
        }
    }

    /// Waits until a record is visible, until a time, or until the node stops; the caller looks which it was.
    ///
    /// # Errors
    /// STOPPING, or the log has stopped on this node.
    pub async fn visible(&self, watermark: &HighWatermark, offset: Offset, until: Instant) -> Result<(), ApiError> {
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

/// Ready when the client is gone, for a stream that has nothing to send.
pub fn gone<T>(sink: &mut DuplexSink<T>, cx: &mut Context<'_>) -> Poll<()> {
    match Pin::new(sink).poll_flush(cx) {
        Poll::Ready(Err(_)) => Poll::Ready(()),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}
