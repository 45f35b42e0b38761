//! The Peer service: what other nodes may ask of this one.

use std::sync::Arc;

use grpcio::{RpcContext, Service};

use crate::replication::Late;
use crate::replication::peers::PeersHandle;
use crate::thread::FatalSender;

/// Decides at each call whether whoever holds the connection is a peer at all: certificate, and the right `replicate`.
/// Gives what is to be asked again, once a minute, while a stream stays open.
pub type Guard = Arc<dyn Fn(&RpcContext<'_>) -> Result<StillAllowed, NotAllowed> + Send + Sync>;

/// Asked again while a stream stays open.
pub type StillAllowed = Box<dyn Fn() -> Result<(), NotAllowed> + Send + Sync>;

/// Whoever holds the connection is no peer; the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAllowed(pub String);

/// The service for the peer listener. Until `core` is filled every call is answered UNAVAILABLE.
pub fn peer_service(cluster_name: &str, guard: Guard, core: Late<PeersHandle>, fatal: FatalSender) -> Service {
    let _ = (cluster_name, guard, core, fatal);
    todo!()
}
