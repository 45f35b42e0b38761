//! How a channel to another node's peer listener is made: the one thing that replication and membership need of TLS.

use std::sync::Arc;

use std::time::Duration;

use grpcio::{CallOption, Channel, ClientUnaryReceiver, Environment};

use crate::grpc::peer_channel;
use crate::pb::peer::{JoinRequest, JoinResponse};
use crate::pb::peer_grpc::PeerClient;
use crate::security::tls::Tls;

type Connect = dyn Fn(&str) -> Option<Channel> + Send + Sync;

/// Makes channels to peer listeners, each with its own connection. A clone makes the same ones.
#[derive(Clone)]
pub struct Dialer {
    connect: Arc<Connect>,
    /// Of [`Dialer::for_cluster`].
    tls: Option<Tls>,
}

impl Dialer {
    /// `connect` makes a channel to an address (`host:port`), unless this node is stopping. It must not block: gRPC
    /// connects when a call needs it.
    pub fn new(connect: impl Fn(&str) -> Option<Channel> + Send + Sync + 'static) -> Dialer {
        Dialer { connect: Arc::new(connect), tls: None }
    }

    /// Dials the peers of a cluster; each channel takes the certificates as they are then. It keeps nobody's threads alive:
    /// once the environment is dropped, it dials no more.
    pub fn for_cluster(env: Arc<Environment>, tls: Tls, cluster_name: &str) -> Dialer {
        let env = Arc::downgrade(&env);
        let cluster_name = cluster_name.to_owned();
        let known = Some(tls.clone());
        let connect = move |addr: &str| Some(peer_channel(env.upgrade()?, addr, tls.peer_channel(), &cluster_name));
        Dialer { tls: known, ..Dialer::new(connect) }
    }

    /// Counts changes of the peers' authorities. A channel that was made before the last one may lead to a peer that is none any more.
    pub fn authorities(&self) -> u64 {
        self.tls.as_ref().map_or(0, Tls::peer_ca_generation)
    }

    /// A channel to the peer listener at `addr`; none when this node is stopping.
    pub fn channel(&self, addr: &str) -> Option<Channel> {
        (self.connect)(addr)
    }

    /// Sends one join request to the node at `addr`. Dropping the future cancels the call.
    ///
    /// # Errors
    /// What the call ended with.
    pub async fn join(&self, addr: &str, request: &JoinRequest, timeout: Duration) -> grpcio::Result<JoinResponse> {
        let client = PeerClient::new(self.channel(addr).ok_or(grpcio::Error::QueueShutdown)?);
        let answer = client.join_async_opt(request, CallOption::default().timeout(timeout))?;
        let mut call = JoinCall { answer, _client: client };
        (&mut call.answer).await
    }
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
