//! The request for admission to a cluster, and its results.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use crossbeam_channel::bounded;

use crate::catalog::Member;
use crate::membership::options::MembershipOptions;
use crate::pb::peer::{JoinRequest, JoinResponse};
use crate::replication::levels::{levels_of, protocol_version_of};
use crate::replication::refusal::Reason;
use crate::thread::{fatal_channel, spawn};
use crate::types::{ClusterId, NodeId, NodeName};

/// The time within which a host must accept or refuse a connection.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// A cluster has admitted this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The cluster to which this node belongs from now on. The caller must store it.
    pub cluster_id: ClusterId,
    /// All members at the time of the admission, including this node.
    pub members: Vec<Member>,
}

/// How a blank node becomes a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// A cluster has admitted it.
    Admitted(Admission),
    /// It has the pledges to found the cluster. It must check first that no cluster exists.
    Founds,
}

/// A cluster that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCluster {
    /// The cluster of the node that answered.
    pub cluster_id: ClusterId,
    /// The address that answered.
    pub addr: String,
    /// The members, as far as the node that answered knows.
    pub members: Vec<Member>,
}

/// The result of a search for a cluster, before one is founded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// A cluster that answers.
    pub found: Option<FoundCluster>,
    /// The join addresses that did not answer, so that a cluster may exist there.
    pub silent: Vec<String>,
}

impl Probed {
    /// Returns the join addresses at which a cluster may exist that can't be reached now. Addresses that refuse the
    /// connection are not included, because no node runs there. Blocks for a second, plus the time to resolve host
    /// names.
    pub fn possible_clusters(&self) -> Vec<String> {
        // One thread per address, because each silent address takes a second.
        let (fatal, _) = fatal_channel();
        let asked = self.silent.iter().map(|addr| {
            let (answer, answered) = bounded(1);
            let asks = addr.clone();
            let body = move || {
                let _ = answer.send(refuses_connections(&asks));
                Ok::<(), Infallible>(())
            };
            (addr, spawn("probe-connect", &fatal, body), answered)
        });
        let asked: Vec<_> = asked.collect();
        // If the thread could not be started, nothing is known about the address.
        asked
            .into_iter()
            .filter(|(_, _, refused)| refused.recv() != Ok(true))
            .map(|(addr, _, _)| addr.clone())
            .collect()
    }
}

fn refuses_connections(addr: &str) -> bool {
    let refused = |addr: &SocketAddr| {
        let error = TcpStream::connect_timeout(addr, CONNECT_MAX).err();
        error.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    addr.to_socket_addrs().is_ok_and(|addresses| {
        let addresses: Vec<SocketAddr> = addresses.collect();
        !addresses.is_empty() && addresses.iter().all(refused)
    })
}

/// Why this node can't be admitted in its present configuration. Temporary conditions (no answer, no leader) are not
/// errors: membership keeps asking, and logs what it waits for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// The cluster refuses this node permanently: it must be started differently. The text says why, and what to do.
    #[error("{text}")]
    Refused {
        /// The reason, for programs.
        reason: Reason,
        /// The text, for people.
        text: String,
    },
    /// The node stopped while it was waiting.
    #[error("stopped while waiting to be admitted to a cluster")]
    Stopped,
}

/// Returns the request of `me` to become a member with its name and addresses. `cluster_id` is set if it already is a
/// member.
pub(super) fn join_request(options: &MembershipOptions, cluster_id: Option<ClusterId>, me: &Member) -> JoinRequest {
    JoinRequest {
        protocol_version: protocol_version_of(&options.levels),
        levels: Some(levels_of(&options.levels)).into(),
        cluster_name: options.cluster_name.clone(),
        cluster_id: cluster_id.map_or(0, |id| id.0),
        node_id: me.id.0,
        node_name: me.name.to_string(),
        bind_addr: me.bind_addr.clone(),
        rpc_addr: me.rpc_addr.clone(),
        ..JoinRequest::default()
    }
}

/// Adds a hint to the error of a join request if no peer listener answered. If the address belongs to a client
/// listener, gRPC's own text is empty or misleading (it names the certificate).
pub(super) fn with_hint(error: &grpcio::Error, text: String) -> String {
    let unimplemented = matches!(
        error,
        grpcio::Error::RpcFailure(status) if status.code() == grpcio::RpcStatusCode::UNIMPLEMENTED
    );
    if unimplemented || text.is_empty() || text.contains("not in peer certificate") {
        let hint = "no peer answers there; is it a client address (rpc_addr)? A join address is a bind_addr";
        return if text.is_empty() { hint.to_owned() } else { format!("{text} ({hint})") };
    }
    text
}

/// Returns the members in a response, without malformed ones.
pub(super) fn members_of(response: &JoinResponse) -> Vec<Member> {
    let member = |m: &crate::pb::peer::Member| {
        Some(Member {
            id: NodeId(m.node_id),
            name: NodeName::new(&m.node_name).ok()?,
            bind_addr: m.bind_addr.clone(),
            rpc_addr: m.rpc_addr.clone(),
        })
    };
    response.members.iter().filter_map(member).collect()
}
