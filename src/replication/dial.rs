//! Channels to the peer listeners of other nodes. The only place in replication and membership that uses TLS as a
//! client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use grpcio::{CallOption, Channel, Environment, RpcStatusCode};

use crate::forming::{FormAnswer, FormMessage};
use crate::grpc::peer_channel;
use crate::pb::peer::{JoinRequest, JoinResponse};
use crate::pb::peer_grpc::PeerClient;
use crate::pb::unary::Response;
use crate::replication::form;
use crate::security::peer_names::Dialled;
use crate::security::peer_rules::PeerRules;
use crate::security::tls::Tls;

type Connect = dyn Fn(&str, &Dialled) -> Option<Channel> + Send + Sync;

/// Creates channels to peer listeners, each with its own connection. Clones share the certificates.
#[derive(Clone)]
pub struct Dialer {
    connect: Arc<Connect>,
    rules: PeerRules,
    tls: Tls,
}

impl Dialer {
    /// Creates a dialer for the peers of a cluster. Each channel uses the certificates that are current when it is
    /// created. The dialer does not keep gRPC's threads alive: once the environment is dropped, it creates no more
    /// channels.
    pub fn for_cluster(env: Arc<Environment>, tls: Tls, rules: PeerRules) -> Dialer {
        let env = Arc::downgrade(&env);
        let (of_env, names) = (tls.clone(), rules.names().clone());
        let connect = move |addr: &str, whom: &Dialled| {
            // gRPC connects when the first call needs it, so this does not block.
            Some(peer_channel(env.upgrade()?, addr, of_env.peer_channel(), &names.expected(whom)))
        };
        Dialer { connect: Arc::new(connect), rules, tls }
    }

    /// Returns a dialer that must not be used.
    #[cfg(test)]
    pub fn nobody() -> Dialer {
        let rules = PeerRules::without_tls("nobody");
        let tls = Tls::load(None, "nobody").expect("no TLS");
        Dialer { connect: Arc::new(|_, _| unreachable!("nobody is dialled")), rules, tls }
    }

    /// Returns a channel to the peer listener at `addr`, which must have the certificate of `whom`. `None` if this
    /// node is stopping.
    pub fn channel(&self, addr: &str, whom: &Dialled) -> Option<Channel> {
        (self.connect)(addr, whom)
    }

    /// Returns the requirements for peer certificates.
    pub fn rules(&self) -> &PeerRules {
        &self.rules
    }

    /// Returns a number that changes with the certificates that channels use.
    pub fn generation(&self) -> u64 {
        self.tls.generation()
    }

    /// Returns a number that changes with the authorities of peers. A channel that was created before the last change
    /// may lead to a node that is not accepted as a peer any more.
    pub fn authorities(&self) -> u64 {
        self.tls.peer_ca_generation()
    }

    /// Sends a join request to any member at `addr`.
    ///
    /// # Errors
    /// The error of the last call.
    pub async fn join_any(&self, addr: &str, request: &JoinRequest, timeout: Duration) -> grpcio::Result<JoinResponse> {
        self.join(addr, &self.rules.any_member(), request, timeout).await
    }

    /// Sends a join request to the node at `addr`, trying the expected certificates in order. Dropping the future
    /// cancels the call.
    ///
    /// # Errors
    /// The error of the last call.
    pub async fn join(
        &self,
        addr: &str,
        expected: &[Dialled],
        request: &JoinRequest,
        timeout: Duration,
    ) -> grpcio::Result<JoinResponse> {
        self.first_accepted(addr, expected, timeout, |client, option| client.join_async_opt(request, option)).await
    }

    /// Sends a message to the blank node at `addr`. `None` if it is not a blank node that waits for others.
    ///
    /// # Errors
    /// The error of the call.
    pub async fn form(
        &self,
        cluster_name: &str,
        addr: &str,
        message: &FormMessage,
        timeout: Duration,
    ) -> grpcio::Result<Option<FormAnswer>> {
        let request = form::request(cluster_name, message);
        let expected = self.rules.any_member();
        let answer =
            self.first_accepted(addr, &expected, timeout, |client, option| client.form_async_opt(&request, option));
        Ok(form::read_response(&answer.await?))
    }

    /// Sends a request, trying the expected certificates in order.
    async fn first_accepted<T: Unpin>(
        &self,
        addr: &str,
        expected: &[Dialled],
        timeout: Duration,
        send: impl Fn(&PeerClient, CallOption) -> grpcio::Result<Response<T>>,
    ) -> grpcio::Result<T> {
        let until = Instant::now() + timeout;
        let mut last = Err(grpcio::Error::QueueShutdown);
        for whom in expected {
            let left = until.saturating_duration_since(Instant::now());
            let client = PeerClient::new(self.channel(addr, whom).ok_or(grpcio::Error::QueueShutdown)?);
            let answer = send(&client, CallOption::default().timeout(left))?;
            let mut call = CancelledCall { answer, _client: client };
            last = (&mut call.answer).await;
            if !last.as_ref().is_err_and(not_connected) {
                break;
            }
        }
        last
    }
}

/// Returns whether the connection failed, for example because the node does not have the expected certificate.
fn not_connected(error: &grpcio::Error) -> bool {
    let grpcio::Error::RpcFailure(status) = error else { return false };
    status.code() == RpcStatusCode::UNAVAILABLE && status.details().is_empty()
}

/// A call that is cancelled when it is dropped. The channel is dropped after the call: otherwise the peer would see a
/// broken connection instead of a cancellation.
struct CancelledCall<T> {
    answer: Response<T>,
    _client: PeerClient,
}

impl<T> Drop for CancelledCall<T> {
    fn drop(&mut self) {
        self.answer.cancel();
    }
}
