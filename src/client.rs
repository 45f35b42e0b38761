//! A blocking client of the API, for the command line and the tests: mutual TLS, one node per [`Client`].
//!
//! It never sends anything twice. What became of a produce that failed is told by [`Status::fate`]; whether to send again
//! is the caller's choice. Not for gRPC's threads: every call blocks.

mod streams;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use grpcio::{CallOption, Channel, ChannelCredentials, RpcStatusCode};

pub use self::streams::{ConsumeStream, ProduceStream};

use crate::grpc::{self, Env};
use crate::pb::admin::{ConfigureLogRequest, GetNodeRequest, GetNodeResponse, LogSettings, TrimRequest, TrimResponse};
use crate::pb::admin_grpc::AdminClient;
use crate::pb::error_details::{ErrorInfo, RetryInfo};
use crate::pb::log::{
    ConsumeRequest, ConsumeResponse, GetLogRequest, GetLogResponse, GetServersRequest, GetServersResponse,
    ProduceRequest, ProduceResponse, Record,
};
use crate::pb::log_grpc::LogClient;
use crate::security::tls;
use crate::thread::fatal_channel;

/// The domain of our `ErrorInfo`s.
const DOMAIN: &str = "seriatim";

/// The files that a client needs for mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// The CA that the server's certificate must have.
    pub ca_file: PathBuf,
    /// The client's certificate; its common name is who it is.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

/// Where to connect, and as whom.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The node's client address, `host:port`.
    pub addr: String,
    /// None: plain text, to a node that runs with `--insecure`.
    pub files: Option<ClientFiles>,
    /// The deadline of every call that is not a stream.
    pub timeout: Duration,
}

/// A connection to one node; a clone is the same connection.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    timeout: Duration,
}

struct Inner {
    calls: Option<Calls>,
    env: Option<Env>,
    addr: String,
}

struct Calls {
    channel: Channel,
    log: LogClient,
    admin: AdminClient,
}

/// Why a call gave nothing.
#[derive(Clone, Debug)]
pub enum ClientError {
    /// The certificate files can't be used, and why.
    Files(String),
    /// The server answered with a status, or the connection failed.
    Status(Status),
    /// gRPC failed on this side, before anything was sent or after everything was answered.
    Local(String),
}

/// A gRPC status with what its details say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: RpcStatusCode,
    /// For people.
    pub message: String,
    /// The reason of Seriatim's `ErrorInfo`; empty when the status is not from Seriatim but from gRPC itself.
    pub reason: String,
    /// The metadata of the `ErrorInfo`.
    pub metadata: BTreeMap<String, String>,
    /// When to try again, if the server says so.
    pub retry_after: Option<Duration>,
}

/// What became of the records of a produce that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They are not in the log, and will not be.
    NotAppended,
    /// They may be in the log, or come to stand there yet: sending them again may append them twice.
    Unknown,
}

impl Status {
    fn new(status: &grpcio::RpcStatus) -> Status {
        let mut new = Status {
            code: status.code(),
            message: status.message().to_owned(),
            reason: String::new(),
            metadata: BTreeMap::new(),
            retry_after: None,
        };
        let details = crate::pb::parse::<crate::pb::status::Status>(status.details()).unwrap_or_default().details;
        for any in details {
            if let Ok(Some(info)) = any.unpack::<ErrorInfo>() {
                if info.domain == DOMAIN {
                    new.reason = info.reason;
                    new.metadata = info.metadata.into_iter().collect();
                }
            } else if let Ok(Some(retry)) = any.unpack::<RetryInfo>() {
                let delay = retry.retry_delay.get_or_default();
                new.retry_after = Some(Duration::new(delay.seconds.max(0) as u64, delay.nanos.max(0) as u32));
            }
        }
        new
    }

    /// What became of the request that this status answers. Only a node of Seriatim can know that nothing was appended:
    /// gRPC's own "unavailable" also comes when the connection broke after the request had arrived.
    pub fn fate(&self) -> Fate {
        if !self.reason.is_empty() {
            let unknown = matches!(self.reason.as_str(), "OUTCOME_UNKNOWN" | "INTERNAL");
            return if unknown { Fate::Unknown } else { Fate::NotAppended };
        }
        match self.code {
            RpcStatusCode::INVALID_ARGUMENT
            | RpcStatusCode::NOT_FOUND
            | RpcStatusCode::ALREADY_EXISTS
            | RpcStatusCode::PERMISSION_DENIED
            | RpcStatusCode::UNAUTHENTICATED
            | RpcStatusCode::FAILED_PRECONDITION
            | RpcStatusCode::OUT_OF_RANGE
            | RpcStatusCode::UNIMPLEMENTED => Fate::NotAppended,
            _ => Fate::Unknown,
        }
    }

    /// A number among the metadata.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.metadata.get(key)?.parse().ok()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // "5-NOT_FOUND" is how grpcio writes a code.
        let code = self.code.to_string();
        write!(f, "{}", code.split_once('-').map_or(code.as_str(), |(_, name)| name))?;
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Status(status) => status.fmt(f),
            ClientError::Files(e) | ClientError::Local(e) => f.write_str(e),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<grpcio::Error> for ClientError {
    fn from(error: grpcio::Error) -> ClientError {
        match error {
            grpcio::Error::RpcFailure(status) | grpcio::Error::RpcFinished(Some(status)) => {
                ClientError::Status(Status::new(&status))
            }
            other => ClientError::Local(other.to_string()),
        }
    }
}

impl ClientError {
    /// The status, if it is one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            ClientError::Status(status) => Some(status),
            ClientError::Files(_) | ClientError::Local(_) => None,
        }
    }

    /// True if a node answered, false if there may be no connection.
    pub fn is_answer(&self) -> bool {
        self.status().is_some_and(|status| {
            let of_grpc = matches!(status.code, RpcStatusCode::UNAVAILABLE | RpcStatusCode::DEADLINE_EXCEEDED);
            !status.reason.is_empty() || !of_grpc
        })
    }

    /// What became of the request: [`Status::fate`]; an error on this side is unknown.
    pub fn fate(&self) -> Fate {
        self.status().map_or(Fate::Unknown, Status::fate)
    }
}

impl Client {
    /// Reads the certificate files and makes the channel; connecting begins, and is not waited for.
    ///
    /// # Errors
    /// [`ClientError::Files`].
    pub fn new(options: &ClientOptions) -> Result<Client, ClientError> {
        let credentials = match &options.files {
            Some(f) => tls::client_credentials(&f.ca_file, &f.cert_file, &f.key_file)
                .map_err(|e| ClientError::Files(e.to_string()))?,
            None => ChannelCredentials::insecure(),
        };
        Ok(Client::with_credentials(&options.addr, credentials, options.timeout))
    }

    /// The same with credentials of the caller's own making.
    pub fn with_credentials(addr: &str, credentials: ChannelCredentials, timeout: Duration) -> Client {
        // A panic on the one thread can't come from us: no handler runs there.
        let (fatal, _) = fatal_channel();
        let env = Env::start("grpc-client", 1, &fatal);
        let channel = grpc::client_channel(env.get(), addr, credentials, None);
        let log = LogClient::new(channel.clone());
        let admin = AdminClient::new(channel.clone());
        let calls = Some(Calls { channel, log, admin });
        Client { inner: Arc::new(Inner { calls, env: Some(env), addr: addr.to_owned() }), timeout }
    }

    /// The same connection with another deadline for its calls.
    pub fn within(&self, timeout: Duration) -> Client {
        Client { timeout, ..self.clone() }
    }

    /// The address that it was made with.
    pub fn addr(&self) -> &str {
        &self.inner.addr
    }

    /// The channel, for calls that are not here.
    pub fn channel(&self) -> &Channel {
        &self.inner.calls().channel
    }

    /// Waits until the node is connected; false when `timeout` passed before.
    pub fn wait_connected(&self, timeout: Duration) -> bool {
        block_on(self.channel().wait_for_connected(timeout))
    }

    /// Appends records, all or nothing, with contiguous offsets.
    ///
    /// # Errors
    /// [`ClientError::fate`] says what became of them.
    pub fn produce(&self, log: &str, records: Vec<Record>) -> Result<ProduceResponse, ClientError> {
        let request = ProduceRequest { log: log.to_owned(), records, ..ProduceRequest::default() };
        self.produce_request(&request)
    }

    /// The same for a request of the caller's own making.
    ///
    /// # Errors
    /// [`ClientError::fate`] says what became of it.
    pub fn produce_request(&self, request: &ProduceRequest) -> Result<ProduceResponse, ClientError> {
        Ok(self.inner.calls().log.produce_opt(request, self.deadline())?)
    }

    /// Reads once.
    ///
    /// # Errors
    /// The server's status.
    pub fn consume(&self, request: &ConsumeRequest) -> Result<ConsumeResponse, ClientError> {
        Ok(self.inner.calls().log.consume_opt(request, self.deadline())?)
    }

    /// Reads the one record at an offset.
    ///
    /// # Errors
    /// The server's status.
    pub fn consume_at(&self, log: &str, offset: u64) -> Result<Record, ClientError> {
        let request = ConsumeRequest { log: log.to_owned(), offset, ..ConsumeRequest::default() };
        Ok(self.consume(&request)?.record.unwrap_or_default())
    }

    /// Reads on and on. With a `deadline`, the stream ends with DEADLINE_EXCEEDED after so long.
    ///
    /// # Errors
    /// When the call can't begin; the server's status comes from the stream.
    pub fn consume_stream(
        &self,
        request: &ConsumeRequest,
        deadline: Option<Duration>,
    ) -> Result<ConsumeStream, ClientError> {
        let option = deadline.map_or_else(CallOption::default, |d| CallOption::default().timeout(d));
        let receiver = self.inner.calls().log.consume_stream_opt(request, option)?;
        Ok(ConsumeStream::new(receiver, self.clone()))
    }

    /// Appends request after request, without waiting for the answers in between.
    ///
    /// # Errors
    /// When the call can't begin; the server's status comes from [`ProduceStream::answer`].
    pub fn produce_stream(&self) -> Result<ProduceStream, ClientError> {
        let (sender, receiver) = self.inner.calls().log.produce_stream()?;
        Ok(ProduceStream::new(sender, receiver, self.clone()))
    }

    /// Every member of the cluster.
    ///
    /// # Errors
    /// The server's status.
    pub fn get_servers(&self, log: &str) -> Result<GetServersResponse, ClientError> {
        let request = GetServersRequest { log: log.to_owned(), ..GetServersRequest::default() };
        Ok(self.inner.calls().log.get_servers_opt(&request, self.deadline())?)
    }

    /// A log's bounds and limits.
    ///
    /// # Errors
    /// The server's status.
    pub fn get_log(&self, log: &str) -> Result<GetLogResponse, ClientError> {
        let request = GetLogRequest { log: log.to_owned(), ..GetLogRequest::default() };
        Ok(self.inner.calls().log.get_log_opt(&request, self.deadline())?)
    }

    /// What the node knows about itself.
    ///
    /// # Errors
    /// The server's status.
    pub fn get_node(&self) -> Result<GetNodeResponse, ClientError> {
        Ok(self.inner.calls().admin.get_node_opt(&GetNodeRequest::default(), self.deadline())?)
    }

    /// The same, begun when this returns: so several nodes are asked at once.
    pub fn begin_get_node(&self) -> impl Future<Output = Result<GetNodeResponse, ClientError>> + use<> {
        let call = self.inner.calls().admin.get_node_async_opt(&GetNodeRequest::default(), self.deadline());
        async move { Ok(call?.await?) }
    }

    /// Makes the records below an offset unreadable.
    ///
    /// # Errors
    /// The server's status.
    pub fn trim(&self, log: &str, first_offset: u64) -> Result<TrimResponse, ClientError> {
        let request = TrimRequest { log: log.to_owned(), first_offset, ..TrimRequest::default() };
        Ok(self.inner.calls().admin.trim_opt(&request, self.deadline())?)
    }

    /// Changes how a log is kept, and gives how it is kept then; without a change, how it is kept now.
    ///
    /// # Errors
    /// The server's status.
    pub fn configure_log(&self, request: &ConfigureLogRequest) -> Result<LogSettings, ClientError> {
        let answer = self.inner.calls().admin.configure_log_opt(request, self.deadline())?;
        Ok(answer.settings.unwrap_or_default())
    }

    fn deadline(&self) -> CallOption {
        CallOption::default().timeout(self.timeout)
    }
}

impl Inner {
    fn calls(&self) -> &Calls {
        // Taken in `drop` alone.
        self.calls.as_ref().expect("the client is in use")
    }
}

impl Drop for Inner {
    /// Ends the threads behind the channel.
    fn drop(&mut self) {
        self.calls = None;
        if let Some(env) = self.env.take()
            && env.stop().is_err()
        {
            log::warn!("a call to {} is still open: its thread is left behind", self.addr);
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use protobuf::Message as _;

    use super::*;
    use protobuf::well_known_types::any::Any;

    fn status_with(reason: &str, code: RpcStatusCode) -> Status {
        let mut details = crate::pb::status::Status::new();
        if !reason.is_empty() {
            let mut info = ErrorInfo { domain: DOMAIN.into(), reason: reason.into(), ..ErrorInfo::default() };
            info.metadata.insert("next_offset".into(), "7".into());
            details.details.push(Any::pack(&info).expect("packs"));
        }
        let bytes = details.write_to_bytes().expect("encodes");
        Status::new(&grpcio::RpcStatus::with_details(code, "text".into(), bytes))
    }

    #[test]
    fn a_fate_is_only_certain_when_a_node_says_so() {
        assert_eq!(status_with("", RpcStatusCode::UNAVAILABLE).fate(), Fate::Unknown);
        assert_eq!(status_with("NOT_APPENDED", RpcStatusCode::UNAVAILABLE).fate(), Fate::NotAppended);
        assert_eq!(status_with("OUTCOME_UNKNOWN", RpcStatusCode::UNAVAILABLE).fate(), Fate::Unknown);
        assert_eq!(status_with("", RpcStatusCode::DEADLINE_EXCEEDED).fate(), Fate::Unknown);
        assert_eq!(status_with("", RpcStatusCode::PERMISSION_DENIED).fate(), Fate::NotAppended);
    }

    #[test]
    fn details_are_read() {
        let status = status_with("OFFSET_PAST_END", RpcStatusCode::OUT_OF_RANGE);
        assert_eq!(status.number("next_offset"), Some(7));
        assert_eq!(status.to_string(), "OUT_OF_RANGE (OFFSET_PAST_END): text");
    }
}
