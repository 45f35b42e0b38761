//! What asking for admission is, on the wire, and what it can come to.

use std::convert::Infallible;
use std::fmt;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use crossbeam_channel::bounded;

use crate::catalog::Member;
use crate::pb::peer::{JoinRequest, JoinResponse};
use crate::replication::hello::PROTOCOL_VERSION;
use crate::thread::{fatal_channel, spawn};
use crate::types::{ClusterId, NodeId, NodeName};

/// A host accepts or refuses a connection within this time.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// This node is a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The cluster's id, to be stored.
    pub cluster_id: ClusterId,
    /// Every member as of the admission, this node among them.
    pub members: Vec<Member>,
}

/// A cluster that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub cluster_id: ClusterId,
    /// Where it answered.
    pub addr: String,
    /// Its members.
    pub members: Vec<Member>,
}

/// What a search for a cluster came to, before one is founded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// A cluster that answers.
    pub found: Option<Found>,
    /// The join addresses from which nothing was heard: a cluster may be there.
    pub silent: Vec<String>,
}

impl Probed {
    /// The join addresses at which a cluster may be that can't be reached now. Where a host refuses the connection, no node runs.
    /// Blocks for a second, besides what names of hosts need.
    pub fn doubtful(&self) -> Vec<String> {
        // One thread each, as the second is needed for each address that is silent.
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
        // Without a thread nothing is known of the address.
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

/// Why this node is not admitted and never will be as it is. What passes by itself (nobody answers, no leader) is not
/// here: membership goes on asking and says in the log what it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdmissionError {
    /// Another member has this node's name: a configuration to be changed. The text says whose it is and what to do.
    NameTaken(String),
    /// This node was removed from the cluster: its data directory can't be used any more.
    Removed(String),
    /// The node stopped while it was waiting.
    Stopped,
}

impl fmt::Display for AdmissionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdmissionError::NameTaken(text) | AdmissionError::Removed(text) => f.write_str(text),
            AdmissionError::Stopped => f.write_str("stopped while waiting to be admitted to a cluster"),
        }
    }
}

impl std::error::Error for AdmissionError {}

/// The request by which `me` asks to be a member under these addresses; `cluster_id` is that of a member already.
pub(super) fn join_request(cluster_name: &str, cluster_id: Option<ClusterId>, me: &Member) -> JoinRequest {
    JoinRequest {
        protocol_version: PROTOCOL_VERSION,
        cluster_name: cluster_name.to_owned(),
        cluster_id: cluster_id.map_or(0, |id| id.0),
        node_id: me.id.0,
        node_name: me.name.to_string(),
        bind_addr: me.bind_addr.clone(),
        rpc_addr: me.rpc_addr.clone(),
        ..JoinRequest::default()
    }
}

/// Why a join request failed, with what to look at if no peer listener answered: at a client listener gRPC's own text is
/// empty, or blames the certificate.
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

/// The members in an answer; one that makes no sense is left out.
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
