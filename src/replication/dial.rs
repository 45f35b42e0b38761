//! How a channel to another node's peer listener is made: the one thing that replication and membership need of TLS.

use std::sync::Arc;

use std::time::{Duration, Instant};

use grpcio::{CallOption, Channel, ClientUnaryReceiver, Environment, RpcStatusCode};

use crate::grpc::peer_channel;
use crate::pb::peer::{JoinRequest, JoinResponse};
use crate::pb::peer_grpc::PeerClient;
use crate::security::peer_names::Dialled;
use crate::security::peer_rules::PeerRules;
use crate::security::tls::Tls;

type Connect = dyn Fn(&str, &Dialled) -> Option<Channel> + Send + Sync;

/// Makes channels to peer listeners, each with its own connection. A clone makes the same ones.
#[derive(Clone)]
pub struct Dialer {
    connect: Arc<Connect>,
    rules: PeerRules,
    tls: Tls,
}

impl Dialer {
    /// Dials the peers of a cluster; each channel takes the certificates as they are then. It keeps nobody's threads alive:
    /// once the environment is dropped, it dials no more.
    pub fn for_cluster(env: Arc<Environment>, tls: Tls, rules: PeerRules) -> Dialer {
        let env = Arc::downgrade(&env);
        let (of_env, names) = (tls.clone(), rules.names().clone());
        let connect = move |addr: &str, whom: &Dialled| {
            // gRPC connects when a call needs it: nothing blocks here.
            Some(peer_channel(env.upgrade()?, addr, of_env.peer_channel(), &names.expected(whom)))
        };
        Dialer { connect: Arc::new(connect), rules, tls }
    }

    /// Dials nobody.
    #[cfg(test)]
    pub fn nobody() -> Dialer {
        let rules = PeerRules::without_tls("nobody");
        let tls = Tls::load(None, "nobody").expect("no TLS");
        Dialer { connect: Arc::new(|_, _| unreachable!("nobody is dialled")), rules, tls }
    }

    /// A channel to the peer listener at `addr`, where `whom` answers or nobody; none when this node is stopping.
    pub fn channel(&self, addr: &str, whom: &Dialled) -> Option<Channel> {
        (self.connect)(addr, whom)
    }

    /// What is required of peers' certificates.
    pub fn rules(&self) -> &PeerRules {
        &self.rules
    }

    /// Changes when channels would be made with other certificates.
    pub fn generation(&self) -> u64 {
        self.tls.generation()
    }

    /// Counts changes of the peers' authorities. A channel that was made before the last one may lead to a peer that is none any more.
    pub fn authorities(&self) -> u64 {
        self.tls.peer_ca_generation()
    }

    /// Sends one join request to whichever member is at `addr`.
    ///
    /// # Errors
    /// What the last call ended with.
    pub async fn join_any(&self, addr: &str, request: &JoinRequest, timeout: Duration) -> grpcio::Result<JoinResponse> {
        self.join(addr, &self.rules.any_member(), request, timeout).await
    }

    /// Sends one join request to the node at `addr`, one of those expected there, the best first. Dropping the future cancels the call.
    ///
    /// # Errors
    /// What the last call ended with.
    pub async fn join(
        &self,
        addr: &str,
        expected: &[Dialled],
        request: &JoinRequest,
        timeout: Duration,
    ) -> grpcio::Result<JoinResponse> {
        let until = Instant::now() + timeout;
        let mut last = Err(grpcio::Error::QueueShutdown);
        for whom in expected {
            let left = until.saturating_duration_since(Instant::now());
            let client = PeerClient::new(self.channel(addr, whom).ok_or(grpcio::Error::QueueShutdown)?);
            let answer = client.join_async_opt(request, CallOption::default().timeout(left))?;
            let mut call = JoinCall { answer, _client: client };
            last = (&mut call.answer).await;
            if !last.as_ref().is_err_and(not_connected) {
                break;
            }
        }
        last
    }
}

/// Whether nobody answered: as with another certificate than the one expected.
fn not_connected(error: &grpcio::Error) -> bool {
    let grpcio::Error::RpcFailure(status) = error else { return false };
    status.code() == RpcStatusCode::UNAVAILABLE && status.details().is_empty()
}

/// A call that is cancelled when it is dropped, before its channel, which would end it less cleanly.
struct JoinCall {
    answer: ClientUnaryReceiver<JoinResponse>,
    _client: PeerClient,
}

impl Drop for JoinCall {
    fn drop(&mut self) {
        self.answer.cancel();
    }
}
