//! How a channel to another node's peer listener is made: the one thing that replication and membership need of TLS.

use std::sync::Arc;

use grpcio::{Channel, Environment};

use crate::grpc::peer_channel;
use crate::security::tls::Tls;

/// Makes channels to peer listeners, each with its own connection. A clone makes the same ones.
#[derive(Clone)]
pub struct Dialer(Arc<dyn Fn(&str) -> Channel + Send + Sync>);

impl Dialer {
    /// `connect` makes a channel to an address (`host:port`). It must not block: gRPC connects when a call needs it.
    pub fn new(connect: impl Fn(&str) -> Channel + Send + Sync + 'static) -> Dialer {
        Dialer(Arc::new(connect))
    }

    /// Dials the peers of a cluster; each channel takes the certificates as they are then.
    pub fn for_cluster(env: Arc<Environment>, tls: Tls, cluster_name: &str) -> Dialer {
        let cluster_name = cluster_name.to_owned();
        Dialer::new(move |addr| peer_channel(env.clone(), addr, tls.peer_channel(), &cluster_name))
    }

    /// A channel to the peer listener at `addr`.
    pub fn channel(&self, addr: &str) -> Channel {
        (self.0)(addr)
    }
}
